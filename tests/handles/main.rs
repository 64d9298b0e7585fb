//! Handles of shared memory on their way in arguments and results.
//!
//! Runs in: the test process, and the processes that it starts. One test at a time, between two censuses.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod batches;
mod handles;
mod limits;
mod lost_descriptors;
