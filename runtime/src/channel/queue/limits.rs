//! How much a queue may hold.
//!
//! Runs in: any process.

use crate::error::{Error, Result};

/// How much a queue may hold: at most so many items, which together are at most so many bytes. A new one, by
/// [`default`](Default::default), sets no limit; a queue has its own, of 64 GiB.
///
/// An item takes as many bytes as it is long when it is encoded, and up to 40 for itself.
///
/// # Examples
/// ```
/// use process_task::channel::{Queue, QueueLimits, TrySendError};
///
/// let queue = Queue::with_limits(QueueLimits { bytes: 1 << 20, ..QueueLimits::default() })?;
/// queue.send(vec![0u8; 1 << 19])?;
/// assert!(queue.try_send(vec![0u8; 1 << 19]).unwrap_err().is_full());
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// The most items at a time, at least 1. What is beyond 2³¹ is no limit.
    pub items: usize,
    /// The most bytes that all items have together, at least 1.
    pub bytes: usize,
}

impl Default for QueueLimits {
    /// No limits.
    fn default() -> Self {
        Self::NONE
    }
}

impl QueueLimits {
    pub(super) const NONE: Self = Self { items: usize::MAX, bytes: usize::MAX };

    /// A limit of items alone.
    pub(super) fn of_items(items: usize) -> Self {
        Self { items, ..Self::NONE }
    }

    pub(super) fn check(self) -> Result<()> {
        let Self { items, bytes } = self;
        if items == 0 || bytes == 0 {
            let unit = if items == 0 { "item" } else { "byte" };
            return Err(Error::invalid(format!(
                "the capacity of a queue must be at least 1 {unit}, not 0 {unit}s; use `unbounded` for no limit"
            )));
        }
        Ok(())
    }
}
