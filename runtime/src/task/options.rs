//! How the calls of a task behave: what the attribute says, and the methods of the task.
//!
//! Runs in: the parent.

use std::time::Duration;

/// What `#[process_task(timeout = "…", retries = …)]` sets, and `task.timeout(…)`, `.retries(…)`, `.memory_limit(…)`.
///
/// By default a call may take for ever, is never repeated, and has the memory limit of its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How long one call may take. `None`: for ever.
    pub timeout: Option<Duration>,
    /// How many times a call is repeated after its process died.
    pub retries: u32,
    /// How much address space its process may have while it runs, in bytes. `None`: as much as it has anyway.
    pub memory_limit: Option<u64>,
}

impl Options {
    /// No timeout, no retries, no memory limit.
    #[must_use]
    pub const fn new() -> Self {
        Self { timeout: None, retries: 0, memory_limit: None }
    }

    /// The same with a timeout.
    #[must_use]
    pub const fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// The same with this many retries.
    #[must_use]
    pub const fn with_retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// The same with this limit of address space, in bytes.
    #[must_use]
    pub const fn with_memory_limit(self, bytes: u64) -> Self {
        Self { memory_limit: Some(bytes), ..self }
    }
}
