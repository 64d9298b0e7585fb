//! Memory for long payloads that idles is given back, by both ends of a link.
//!
//! Runs in: both ends of a link.
//! Invariant: a buffer that holds a payload is not released.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use super::buffers::{self, BUFFER_IDLE_TIME, Gone};
use super::window::Window;
use super::{Callee, Caller};
use crate::sys::{clock, futex};

impl Callee {
    /// Releases buffers that were unused for `idle`, and those of the parent that are gone.
    pub(super) fn tend(&mut self, idle: Duration) {
        self.take_back_released();
        let (gone, warm) = self.pool.give_back(idle);
        buffers::store(&self.reply.words().gone.0, &gone);
        self.arrivals.forget(&buffers::load(&self.request.words().gone.0));
        self.keeps = warm || self.arrivals.any() || self.lent.iter().any(Option::is_some);
    }

    /// As the sleeping child does, for one that never sleeps.
    #[cold]
    pub(super) fn tend_in_time(&mut self) {
        let now = clock::coarse();
        if now >= self.tend_at {
            self.tend(BUFFER_IDLE_TIME / 2);
            self.tend_at = now.saturating_add(u64::try_from(BUFFER_IDLE_TIME.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Takes back the buffers that have a flipped bit since the last look.
    pub(super) fn take_back_released(&mut self) {
        let now = self.request.words().released.0.load(SeqCst);
        let flipped = now ^ self.released;
        for (slot, lent) in self.lent.iter_mut().enumerate() {
            if flipped & 1 << slot != 0 {
                *lent = None;
            }
        }
        self.released = now;
    }
}

impl<T> Caller<T> {
    /// Says which buffers of ours are gone, and lets go of those of the child's that are. Wakes a child that has something to
    /// let go of. True if reply buffers are still mapped here.
    pub(crate) fn tend(&mut self, gone: &Gone) -> bool {
        let words = self.link.request.words();
        let news = buffers::store(&words.gone.0, gone);
        self.arrivals.forget(&buffers::load(&self.link.reply.words().gone.0));
        let released = words.released.0.load(Relaxed);
        if news || std::mem::replace(&mut self.released, released) != released {
            self.link.wake();
        }
        self.arrivals.any()
    }

    /// Whether there is something to [tend](Self::tend).
    #[inline]
    pub(crate) fn keeps_arrivals(&self) -> bool {
        self.arrivals.any()
    }

    /// How much memory of reply buffers is mapped here.
    pub(crate) fn arrived_bytes(&self) -> usize {
        self.arrivals.bytes()
    }
}

impl<T> Caller<T> {
    /// Looks whether the child may sleep over what it was given, because it has written over a word of its half. A window that
    /// cannot be is found by the next [`Caller::collect`]. Any other word is for the child to find, which is woken, in case
    /// that it sleeps.
    pub(crate) fn check(&mut self) {
        // Looked at before the tail: a child claims no call before it has answered the one before.
        let seen = Window::look(&self.link.reply.words().window.0);
        if self.in_flight() == 0 || self.written() > 0 || self.has_reply() {
            return;
        }
        let claimed = seen.claimed.wrapping_sub(self.answered);
        self.broken |= seen.limit != self.limit || claimed > 1;
        futex::wake(&self.link.reply.words().parked.0, 1);
    }
}
