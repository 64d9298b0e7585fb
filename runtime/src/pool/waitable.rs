//! What a thread can wait for.
//!
//! Runs in: the parent, on any thread that waits.

use std::thread::{Thread, ThreadId};
use std::time::Instant;

/// Something that unparks threads when it changes.
pub(super) trait Waitable {
    /// Registers `thread`, to be unparked when there is something to see. The caller checks once more after this.
    fn enlist(&self, thread: Thread);

    /// Removes that thread.
    fn strike(&self, thread: ThreadId);
}

/// All calls of the pool: the last leader to step down wakes a thread that waits for them.
pub(super) struct AllCalls;

impl Waitable for AllCalls {
    fn enlist(&self, _: Thread) {}

    fn strike(&self, _: ThreadId) {}
}

/// Sleeps until this thread is unparked, or until `deadline`.
pub(super) fn park(deadline: Option<Instant>) {
    match deadline {
        None => std::thread::park(),
        Some(deadline) => std::thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
    }
}
