//! Handles of shared memory on their way in arguments and results.
//!
//! Runs in: for each test a process of its own, between two censuses, and the processes that this one starts.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod batches;
mod handles;
mod limits;
mod lost_descriptors;
