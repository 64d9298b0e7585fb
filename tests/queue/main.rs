//! Queues between processes.
//!
//! Runs in: the test process, and the processes that it starts. One test at a time, between two censuses.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod deaths;
mod ends;
mod futures;
mod joinable;
mod limits;
mod queues;
mod storms;
mod travel;
