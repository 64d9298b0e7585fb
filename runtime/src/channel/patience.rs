//! How long a caller is ready to wait.
//!
//! Owns: [`Patience`]. Runs in: any process. Never: waits.

use std::time::{Duration, Instant};

use crate::sync::futex_wait;

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// Until then.
    Until(Instant),
    /// As long as it takes.
    Endless,
}

impl Patience {
    /// So long, from now on. Beyond the clock's end is for ever.
    pub(crate) fn of(timeout: Duration) -> Self {
        futex_wait::deadline_after(timeout).map_or(Self::Endless, Self::Until)
    }

    /// Whether no time to wait is left.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::None => true,
            Self::Until(deadline) => Instant::now() >= deadline,
            Self::Endless => false,
        }
    }

    /// When it is over, for callers that have to wait.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Self::None => Some(Instant::now()),
            Self::Until(deadline) => Some(deadline),
            Self::Endless => None,
        }
    }
}
