//! An event count: wakes the threads that check a condition, and costs nothing while there are none.
//!
//! Owns: [`EventCount`], three words. Runs in: any process.
//! Invariant: it does not say which threads may go on. A thread that wakes checks its condition again.
//!
//! # The words
//!
//! They stand beside a lock. [Preparing](EventCount::prepare_wait) and [notifying](EventCount::notify) happen under it;
//! sleeping and waking happen without it.
//!
//! | word       | meaning                                                        | written by                           |
//! |------------|----------------------------------------------------------------|--------------------------------------|
//! | `epoch`    | number of notifications; the futex that waiters sleep on       | the notifier, under the lock         |
//! | `prepared` | how often a thread was about to sleep                          | the waiter, under the lock           |
//! | `returned` | how many of these are known to be awake                        | a notifier that found no more waiters |
//!
//! A thread that prepared before a notification either sleeps, and the kernel finds it, or is still about to sleep, and the
//! kernel sees that the epoch has changed. So no thread sleeps over a notification. A notifier that wakes fewer threads than
//! it asked for has found every thread that prepared before it. From then on notifying costs no system call, until another
//! thread prepares. Two such notifiers that write `returned` in the wrong order leave it too small. That costs one
//! system call.
//!
//! # Deaths
//!
//! - *A waiter's*: it is counted in `prepared` until the next notification finds no waiter.
//! - *A waiter's that was just woken*: the others sleep on, and look again within [`futex_wait::MAX_SLEEP`].
//! - *The notifier's, before it wakes any*: the same.

use std::time::Instant;

use super::atomic::AtomicU32;
use super::atomic::Ordering::{Relaxed, SeqCst};
use super::futex_wait;

/// See the [module](self).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct EventCount {
    epoch: AtomicU32,
    prepared: AtomicU32,
    returned: AtomicU32,
}

/// The epoch in which a thread prepared to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitKey(u32);

/// The threads that prepared before a notification, if any of them may sleep.
#[derive(Debug)]
#[must_use = "notified threads are to be woken once the lock is free"]
pub(crate) struct Notified(Option<u32>);

impl EventCount {
    pub(crate) const fn new() -> Self {
        Self { epoch: AtomicU32::new(0), prepared: AtomicU32::new(0), returned: AtomicU32::new(0) }
    }

    /// Announces that this thread is about to sleep. Called under the lock, after a look at the condition.
    pub(crate) fn prepare_wait(&self) -> WaitKey {
        self.prepared.store(self.prepared.load(Relaxed).wrapping_add(1), Relaxed);
        WaitKey(self.epoch.load(Relaxed))
    }

    /// Sleeps until the next notification, the deadline, or the time to look again. Called without the lock.
    ///
    /// Returns false if the deadline has passed.
    pub(crate) fn wait(&self, key: WaitKey, deadline: Option<Instant>) -> bool {
        futex_wait::sleep(&self.epoch, key.0, deadline)
    }

    /// Begins a new epoch, because the condition of the waiters has changed. Called under the lock.
    pub(crate) fn notify(&self) -> Notified {
        let prepared = self.prepared.load(Relaxed);
        if prepared == self.returned.load(Relaxed) {
            return Notified(None);
        }
        self.epoch.store(self.epoch.load(Relaxed).wrapping_add(1), Relaxed);
        Notified(Some(prepared))
    }

    /// Returns whether a thread may sleep.
    ///
    /// For a caller that has changed the condition without the lock, by a `SeqCst` exchange. A waiter must then check the
    /// condition once more after it has prepared, behind a `SeqCst` fence.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        self.prepared.load(SeqCst) != self.returned.load(Relaxed)
    }

    /// Wakes `count` of the notified threads, and returns how many it found. Called without the lock.
    pub(crate) fn wake(&self, notified: &Notified, count: u32) -> u32 {
        let Some(prepared) = notified.0 else { return 0 };
        let woken = futex_wait::wake(&self.epoch, count);
        if woken < count {
            self.returned.store(prepared, Relaxed);
        }
        woken
    }

    /// Wakes all notified threads.
    pub(crate) fn wake_all(&self, notified: &Notified) {
        self.wake(notified, ALL);
    }
}

/// More threads than can sleep.
pub(crate) const ALL: u32 = u32::MAX;
