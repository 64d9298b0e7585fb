//! How long a caller waits.
//!
//! Owns: [`Deadline`]. Runs in: any process.

use std::time::{Duration, Instant};

/// The time until which a caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// The caller does not wait.
    Now,
    /// The caller waits until then.
    At(Instant),
    /// The caller waits as long as it takes.
    Never,
}

impl Deadline {
    /// Returns the end of a time-out that begins now. A time that the clock cannot show never comes.
    pub(crate) fn after(timeout: Duration) -> Self {
        Instant::now().checked_add(timeout).map_or(Self::Never, Self::At)
    }

    /// Returns whether the deadline has passed.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Now => true,
            Self::At(deadline) => Instant::now() >= deadline,
            Self::Never => false,
        }
    }

    /// Returns the deadline as a time; `None` if there is none. [`Deadline::Now`] is the present time.
    pub(crate) fn instant(self) -> Option<Instant> {
        match self {
            Self::Now => Some(Instant::now()),
            Self::At(deadline) => Some(deadline),
            Self::Never => None,
        }
    }
}
