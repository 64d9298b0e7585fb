//! The protocols in shared memory under every interleaving that the memory model allows.
//!
//! Runs in: one process, without children, inside the model checker.

mod checker;
mod mortal;

mod condvar;
mod link;
mod meeting;
mod proc_table;
mod queue;
mod ring;
mod rwlock;
