//! Pools: calls, maps, deadlines, deaths, and all that a pool does with its workers.
//!
//! Runs in: for each test a process of its own, between two censuses, and the processes that this one starts.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod abandoned;
mod builder;
mod callbacks;
mod calls;
mod cancels;
mod crash_matrix;
mod deadlines;
mod deaths;
mod departures;
mod ends;
mod exits;
mod extremes;
mod futures;
mod initializers;
mod life;
mod log;
mod map_batches;
mod map_values;
mod memory;
mod misuse;
mod retries;
mod seen;
mod soak;
mod starts;
mod stopped_workers;
mod task_options;
mod unruly_tasks;
mod values;
mod waiting;
