//! Queues between processes.
//!
//! Runs in: for each test a process of its own, between two censuses, and the processes that this one starts.

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
