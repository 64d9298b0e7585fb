//! How long to look before sleeping: between half a microsecond and fifty, learnt from what looking brought.
//!
//! Owns: one number. Runs in: both ends of a link, and a thread that waits at a queue. Never: yields in a loop, which under
//! load costs milliseconds.
//!
//! Sleeping and being woken costs about 25 us a side, so a short look is worth it when the answer is near; a long one takes
//! the processor from the thread that is to answer. A hit doubles the next look, a miss halves it, and a sleep that
//! turned out short enough to have been looked through makes the next look as long as that would have taken: without
//! this, two sides that wake each other would go on sleeping for ever.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const MIN_SPIN_NANOS: u64 = 500;
const MAX_SPIN_NANOS: u64 = 50_000;

/// Shorter than what sleeping and being woken costs.
const BRIEF_SPIN: Duration = Duration::from_micros(4);

/// The present length of a look, in nanoseconds. Several threads may share and teach it.
#[derive(Debug)]
pub(crate) struct Spin(AtomicU64);

/// A microsecond, more or less, in which nothing is looked at.
pub(crate) fn pause() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(1) {
        spin_loop();
    }
}

impl Spin {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(MAX_SPIN_NANOS))
    }

    /// Looks until `there` says yes, or the time is over; says which.
    #[inline]
    pub(crate) fn until(&self, there: impl FnMut() -> bool) -> bool {
        self.learn(|length| look(length, there))
    }

    /// Looks, less and less often, until `count` says that `enough` is there, or that something is after [`FIRST_SPIN`], or
    /// the time is over; says which. For values that cost their writer time when they are read, so that it is better to
    /// find much than to find something at once.
    #[inline]
    pub(crate) fn until_much(&self, enough: u32, count: impl FnMut() -> u32) -> bool {
        self.learn(|length| look_for_much(length, enough, count))
    }

    #[inline]
    fn learn(&self, look: impl FnOnce(Duration) -> bool) -> bool {
        let length = self.0.load(Relaxed);
        let found = look(Duration::from_nanos(length));
        let next = if found { (length * 2).min(MAX_SPIN_NANOS) } else { (length / 2).max(MIN_SPIN_NANOS) };
        self.0.store(next, Relaxed);
        found
    }

    /// The sleep that began at `since` is over.
    pub(crate) fn slept(&self, since: Instant) {
        let slept = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if slept < MAX_SPIN_NANOS {
            self.0.store((2 * slept).min(MAX_SPIN_NANOS), Relaxed);
        }
    }
}

/// Looks for a few microseconds, where another thread may need the processor. Nothing is learnt from it.
pub(crate) fn briefly(there: impl FnMut() -> bool) -> bool {
    look(BRIEF_SPIN, there)
}

/// How long the first and the longest breath between two looks for much are, in pauses of the processor of some 20 ns.
const PAUSES_BETWEEN_CLOCK_READS: (u32, u32) = (16, 64);

/// How long to spin for all of it; after that, little is enough.
const FIRST_SPIN: Duration = Duration::from_micros(2);

#[inline]
fn look_for_much(length: Duration, enough: u32, mut count: impl FnMut() -> u32) -> bool {
    let start = Instant::now();
    let mut breath = PAUSES_BETWEEN_CLOCK_READS.0;
    loop {
        for _ in 0..breath {
            spin_loop();
        }
        let (count, elapsed) = (count(), start.elapsed());
        if count >= enough || count > 0 && elapsed >= FIRST_SPIN {
            return true;
        }
        if elapsed >= length.max(FIRST_SPIN) {
            return false;
        }
        breath = (2 * breath).min(PAUSES_BETWEEN_CLOCK_READS.1);
    }
}

#[inline]
fn look(length: Duration, mut there: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..32 {
            if there() {
                return true;
            }
            spin_loop();
        }
        if start.elapsed() >= length {
            return false;
        }
    }
}
