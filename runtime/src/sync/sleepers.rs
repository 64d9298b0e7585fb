//! Threads that sleep until something changes, and whether there are any to wake.
//!
//! Owns: [`Sleepers`], three words. Runs in: any process.
//! Never: decides which threads may go on. A thread that wakes looks again at what it waits for.
//!
//! # The words
//!
//! They stand beside a lock, which is held to [enlist](Sleepers::enlist) and to [call](Sleepers::call); sleeping and waking
//! happen without it.
//!
//! | word       | meaning                                                        | written by                        |
//! |------------|----------------------------------------------------------------|-----------------------------------|
//! | `turn`     | one more with every call; it is what the sleepers sleep on     | the caller, under the lock        |
//! | `enlisted` | how often a thread was about to sleep                          | the sleeper, under the lock       |
//! | `gone`     | of these, how many are known not to sleep any more             | a caller that has woken them all  |
//!
//! A thread that enlisted before a call either sleeps, and the kernel finds it, or is still about to, and the kernel sees
//! that the turn has changed: so no thread sleeps over a call. A call that wakes fewer than it would have has found every
//! thread that enlisted before it; from then on it costs no system call to call, until another one enlists. Two such
//! callers that write `gone` in the wrong order leave it too small, which costs one system call more.
//!
//! # Deaths
//!
//! - *A sleeper's*: it is counted in `enlisted` until the next call finds no sleeper.
//! - *One that was just woken*: the others sleep on, and look again by themselves soon.
//! - *The caller's*, before it wakes any: likewise.

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

/// The turn in which a thread enlisted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn(u32);

/// The threads that enlisted before a call, if any of them may sleep.
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

    /// Something has changed that sleepers wait for. Under the lock.
    pub(crate) fn call(&self) -> Called {
        let enlisted = self.enlisted.load(Relaxed);
        if enlisted == self.gone.load(Relaxed) {
            return Called(None);
        }
        self.turn.store(self.turn.load(Relaxed).wrapping_add(1), Relaxed);
        Called(Some(enlisted))
    }

    /// Whether a thread may sleep. For a caller that has changed what sleepers wait for without the lock, by a `SeqCst`
    /// exchange; a sleeper must look once more, after a `SeqCst` fence, when it has enlisted.
    #[inline]
    pub(crate) fn may_sleep(&self) -> bool {
        self.enlisted.load(SeqCst) != self.gone.load(Relaxed)
    }

    /// Wakes `count` of the threads that were called, and says how many it found. Without the lock.
    pub(crate) fn wake(&self, called: &Called, count: u32) -> u32 {
        let Some(enlisted) = called.0 else { return 0 };
        let woken = waiting::wake(&self.turn, count);
        if woken < count {
            self.gone.store(enlisted, Relaxed);
        }
        woken
    }

    /// Wakes all threads that were called.
    pub(crate) fn wake_all(&self, called: &Called) {
        self.wake(called, ALL);
    }
}

/// More than can sleep.
pub(crate) const ALL: u32 = u32::MAX;
