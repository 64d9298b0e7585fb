//! Host programs of every kind: what they start with, limit, forbid, and how they end. Mostly programs of their own, which a test starts.
//!
//! Runs in: for each test a process of its own, between two censuses, and the processes that this one starts.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod constructors;
mod crash_handlers;
mod drain;
mod early_tasks;
mod file_limits;
mod filters;
mod global_pool;
mod host_programs;
mod inline;
mod job_control;
mod limits;
mod oom_kills;
mod parent_ends;
mod preload;
mod preload_starts;
mod preload_threads;
mod rights;
mod rights_of_threads;
mod sanitizers;
mod start_images;
mod surroundings;
mod terminals;
