//! Locks and other means of synchronisation in shared memory.
//!
//! Runs in: for each test a process of its own, between two censuses, and the processes that this one starts.

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
