//! What runs only in processes that we started: the fork server, and the children it makes.
//!
//! Owns: the life of such a process, from before `main` to its exit. Meets the parent only in `link`.
//! Never: returns to `main`. A parent that runs its pools' tasks itself borrows [`panics`], which knows no link then.

mod batch;
mod boot;
mod company;
mod jobs;
mod outfit;
pub(crate) mod panics;
mod serve;
mod server;
