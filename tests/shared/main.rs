//! Shared memory, and the table of the processes that use it.
//!
//! Runs in: for each test a process of its own, between two censuses, and the processes that this one starts.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod members;
mod memory;
mod travel;
