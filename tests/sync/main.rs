//! Locks and other means of synchronisation in shared memory.
//!
//! Runs in: the test process, and the processes that it starts. One test at a time, between two censuses.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod bank;
mod barriers;
mod conditions;
mod events;
mod lock_storms;
mod locks;
mod rwlocks;
mod semaphores;
