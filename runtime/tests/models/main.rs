//! The protocols in shared memory under every interleaving that the memory model allows.
//!
//! Runs in: one process, without children, inside the model checker.
#![expect(clippy::duplicate_mod, reason = "each model compiles the files that it checks with its own atomics")]

mod checker;
mod mortal;

mod condvar;
mod link;
mod manager;
mod meeting;
mod proc_table;
mod queue;
mod ring;
mod rwlock;
