//! Shared memory, and the table of the processes that use it.
//!
//! Runs in: the test process, and the processes that it starts. One test at a time, between two censuses.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod members;
mod memory;
mod travel;
