//! One task in a process of its own: start it, watch it, get its result.
//!
//! Runs in: the parent. A result is there when the task has returned; the end of the process is not awaited for it.

mod afresh;
mod attributes;
mod builder;
mod handle;
mod info;
mod output;
mod spawned_call;
mod stdio;

pub use self::afresh::start_afresh;
pub(crate) use self::attributes::attribute_setters;
pub use self::builder::{ProcessBuilder, spawn};
pub use self::handle::Process;
pub use self::info::{ProcessInfo, active_children, available_parallelism, current, parent};
pub use self::output::Output;
pub use self::stdio::Stdio;
