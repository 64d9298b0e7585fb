//! Those who sleep until something changes, and whether there are any to wake.
//!
//! Owns: [`Sleepers`], three words. Runs in: any process.
//! Never: decides who may go on. Whoever wakes looks again at what it waits for.
//!
//! # The words
//!
//! They stand beside a lock, which whoever [enlists](Sleepers::enlist) or [calls](Sleepers::call) holds; sleeping and waking
//! happen without it.
//!
//! | word       | meaning                                                        | who writes it                     |
//! |------------|----------------------------------------------------------------|-----------------------------------|
//! | `turn`     | one more with every call; it is what the sleepers sleep on     | whoever calls, under the lock     |
//! | `enlisted` | how often somebody was about to sleep                          | whoever enlists, under the lock   |
//! | `gone`     | of these, how many are known not to sleep any more             | whoever has woken all there were  |
//!
//! One who enlisted before a call either sleeps, and the kernel finds it, or is still about to, and the kernel sees that the
//! turn has changed: so nobody sleeps over a call. A call that wakes fewer than it would have has found everybody who enlisted
//! before it; from then on it costs no system call to call, until somebody enlists again. Two such who write `gone` in the
//! wrong order leave it too small, which costs one system call more.
//!
//! # Deaths
//!
//! - *A sleeper's*: it is counted in `enlisted` until the next call finds nobody.
//! - *One that was just woken*: the others sleep on, and look again by themselves soon.
//! - *The caller's*, before it wakes anybody: likewise.

use std::time::Instant;

use super::atomic::AtomicU32;
use super::atomic::Ordering::{Relaxed, SeqCst};
use super::waiting;

/// See the [module](self).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Sleepers {
    turn: AtomicU32,
    enlisted: AtomicU32,
    gone: AtomicU32,
}

/// The turn in which somebody enlisted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn(u32);

/// Those who enlisted before a call, if any of them may sleep.
#[derive(Debug)]
#[must_use = "who was called is to be woken, once the lock is free"]
pub(crate) struct Called(Option<u32>);

impl Sleepers {
    pub(crate) const fn new() -> Self {
        Self { turn: AtomicU32::new(0), enlisted: AtomicU32::new(0), gone: AtomicU32::new(0) }
    }

    /// This thread is about to sleep. Under the lock, after a look at what it waits for.
    pub(crate) fn enlist(&self) -> Turn {
        self.enlisted.store(self.enlisted.load(Relaxed).wrapping_add(1), Relaxed);
        Turn(self.turn.load(Relaxed))
    }

    /// Sleeps until the next call, the deadline, or the time to look again. Without the lock. False: the deadline is over.
    pub(crate) fn sleep(&self, turn: Turn, deadline: Option<Instant>) -> bool {
        waiting::sleep(&self.turn, turn.0, deadline)
    }

    /// Something has changed that those who sleep wait for. Under the lock.
    pub(crate) fn call(&self) -> Called {
        let enlisted = self.enlisted.load(Relaxed);
        if enlisted == self.gone.load(Relaxed) {
            return Called(None);
        }
        self.turn.store(self.turn.load(Relaxed).wrapping_add(1), Relaxed);
        Called(Some(enlisted))
    }

    /// Whether somebody may sleep. For one who has changed what they wait for without the lock, by a `SeqCst` exchange; those
    /// who sleep must look once more, after a `SeqCst` fence, when they have enlisted.
    #[inline]
    pub(crate) fn may_sleep(&self) -> bool {
        self.enlisted.load(SeqCst) != self.gone.load(Relaxed)
    }

    /// Wakes so many of those who were called, and says how many it found. Without the lock.
    pub(crate) fn wake(&self, called: &Called, count: u32) -> u32 {
        let Some(enlisted) = called.0 else { return 0 };
        let woken = waiting::wake(&self.turn, count);
        if woken < count {
            self.gone.store(enlisted, Relaxed);
        }
        woken
    }

    /// Wakes all of those who were called.
    pub(crate) fn wake_all(&self, called: &Called) {
        self.wake(called, ALL);
    }
}

/// More than can sleep.
pub(crate) const ALL: u32 = u32::MAX;
