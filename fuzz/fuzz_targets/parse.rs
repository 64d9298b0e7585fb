//! The parsers of frames, batches and messages, on any bytes.
//!
//! Runs in: the fuzzer's process. Never: makes a system call for an input. Run as `link` is, under the name `parse`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| process_task::__fuzz::parse(input));
