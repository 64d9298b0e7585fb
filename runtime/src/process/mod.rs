//! One task in a process of its own: starting it, watching it, and having its result.
//!
//! Owns: [`Process`], [`ProcessBuilder`], [`Stdio`], and what a process can say about itself and its family. Runs in: the parent.
//! Never: waits for a process's end when only its result is asked for.

mod afresh;
mod builder;
mod family;
mod handle;
mod output;
mod running;
mod stdio;
mod surroundings;

pub use self::afresh::start_afresh;
pub use self::builder::{ProcessBuilder, spawn};
pub use self::family::{ProcessInfo, active_children, available_parallelism, current, parent};
pub use self::handle::Process;
pub use self::output::Output;
pub use self::stdio::Stdio;
pub(crate) use self::surroundings::surroundings;
