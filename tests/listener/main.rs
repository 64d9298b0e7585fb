//! Listeners, and connections to them, between programs and between machines.
//!
//! Runs in: the test process, and the processes that it starts. One test at a time, between two censuses.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod listeners;
mod storms;
mod tcp;
