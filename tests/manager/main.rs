//! Managers: objects in one process that many use.
//!
//! Runs in: the test process, and the processes that it starts. One test at a time, between two censuses.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod calls;
mod counting;
mod deaths;
mod limits;
mod lock_storms;
mod managed;
mod object;
mod objects;
mod remote;
mod storms;
mod times;
mod travel;
mod waiting;
