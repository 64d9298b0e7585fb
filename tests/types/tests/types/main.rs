//! Values of the types of common crates, sent to other processes.
//!
//! Runs in: the test process, and the processes that it starts.

#[macro_use]
#[path = "../../../support/mod.rs"]
mod support;

mod attributes;
mod by_hand;
mod crates;
mod first_values;
mod objects;
mod refusals;
mod shapes;
mod std_types;
mod table;
