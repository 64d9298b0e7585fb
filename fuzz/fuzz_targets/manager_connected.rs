//! A hostile client that has connected to a manager, and the parsers of what the two send each other.
//!
//! Runs in: the fuzzer's process. What an input means stands in `runtime/src/manager/fuzz.rs`. Run as `link` is, under the name
//! `manager_connected`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| process_task::__fuzz::connected(input));
