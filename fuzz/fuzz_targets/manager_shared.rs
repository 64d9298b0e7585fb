//! A hostile client that shares memory and queues with a manager: an honest client must be answered all the same.
//!
//! Runs in: the fuzzer's process. What an input means stands in `runtime/src/manager/fuzz.rs`. Run as `link` is, under the name
//! `manager_shared`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| process_task::__fuzz::shared(input));
