//! Managers: objects in one process that many use.
//!
//! Runs in: for each test a process of its own, between two censuses, and the processes that this one starts.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod calls;
mod counting;
mod deaths;
mod faults;
mod limits;
mod lock_storms;
mod managed;
mod object;
mod objects;
mod pool;
mod published;
mod remote;
mod remote_lease;
mod soak;
mod starts;
mod storms;
mod times;
mod travel;
mod updates;
mod waiting;
