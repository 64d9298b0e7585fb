//! The programs of `examples/`, run on real input.
//!
//! Runs in: the test process, and the processes that it starts.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod checksum;
mod examples;
