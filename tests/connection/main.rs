//! Pipes and one-way connections between processes, and the descriptors that go over them.
//!
//! Runs in: the test process, and the processes that it starts. One test at a time, between two censuses.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod connections;
mod deaths;
mod descriptors;
mod futures;
mod limits;
mod wait;
