//! Single processes: how they start, what they find and get, and how they end.
//!
//! Runs in: for each test a process of its own, between two censuses, and the processes that this one starts.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod builder;
mod crowds;
mod ends;
mod errors;
mod exits;
mod family;
mod fork_server;
mod futures;
mod handles;
mod inheritance;
mod interruptions;
mod named_values;
mod outputs;
mod panics;
mod start_signals;
mod values;
mod what_tasks_find;
