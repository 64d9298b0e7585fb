//! Listeners, and connections to them, between programs and between machines.
//!
//! Runs in: for each test a process of its own, between two censuses, and the processes that this one starts.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod listeners;
mod storms;
mod tcp;
