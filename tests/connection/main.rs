//! Pipes and one-way connections between processes, and the descriptors that go over them.
//!
//! Runs in: for each test a process of its own, between two censuses, and the processes that this one starts.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod connections;
mod deaths;
mod descriptors;
mod futures;
mod limits;
mod wait;
