//! What runs only in processes that we started: the fork server, and the children it makes.
//!
//! Runs in: those processes, from before `main` to their exit. Meets the parent only in `link`, and never returns to `main`.

mod batch;
mod boot;
mod foreign_threads;
mod job_control;
mod preload;
mod serve;
mod server;
mod setup;
