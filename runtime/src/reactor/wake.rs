//! Waking futures, whose executors are the program's code.
//!
//! Runs in: any process, on the reactor's thread or on one that settles a call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Wakes a future. A panic of its executor ends neither the reactor's thread nor the calling one.
pub(crate) fn wake(waker: Waker) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        // Its destructor may panic, too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    }
}
