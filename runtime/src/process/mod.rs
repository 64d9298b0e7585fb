//! One task in a process of its own: starting it, watching it, and having its result.
//!
//! Owns: [`Process`], [`ProcessBuilder`], [`Stdio`], and what a process can say about itself and its family. Runs in: the parent.
//! Never: waits for a process's end when only its result is asked for.

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
