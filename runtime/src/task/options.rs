//! How the calls of a task are to behave: what the attribute says.
//!
//! Owns: the two settings. Never: acts on them; whoever makes the call does.
//! Runs in: the parent.

use std::time::Duration;

/// What `#[process_task(timeout = "…", retries = …)]` sets.
///
/// By default a call may take for ever and is never repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How long one call may take. `None`: for ever.
    pub timeout: Option<Duration>,
    /// How many times a call is repeated whose process died under it.
    pub retries: u32,
}

impl Options {
    /// No timeout, no retries.
    #[must_use]
    pub const fn new() -> Self {
        Self { timeout: None, retries: 0 }
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
}
