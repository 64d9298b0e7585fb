//! What runs only in processes that we started: the fork server, and the children it makes.
//!
//! Owns: the life of such a process, from before `main` to its exit. Meets the parent only in `link`.
//! Never: returns to `main`.

mod batch;
mod boot;
mod foreign_threads;
mod job_control;
mod serve;
mod server;
mod setup;
