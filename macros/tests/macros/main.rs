//! What the macros write, and what they say of mistakes.
//!
//! Runs in: one process, without children but for the compiler, and for the tasks in `accepted`.

pub mod accepted;
pub mod semantics;
mod task_call;
mod ui;
mod values;
