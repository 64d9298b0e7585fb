//! A hostile child on a real link: the parent's end must lose no call, settle none twice, and never crash.
//!
//! Runs in: the fuzzer's process. Never: starts a child. What an input means stands in `runtime/src/link/fuzz.rs`.
//!
//! ```text
//! cargo install cargo-fuzz
//! cargo +nightly fuzz run link -- -max_total_time=300 -max_len=512
//! cargo +nightly fuzz cmin link          # afterwards: keep the inputs that reach something of their own
//! ```
//! The inputs under `fuzz/corpus` are replayed by every `cargo test`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| process_task::__fuzz::replay(input));
