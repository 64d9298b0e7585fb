//! How long a child has been busy: one word in the reply half.
//!
//! Runs in: both ends of a link. No clock is read while there is work to claim.
//!
//! | word | meaning |
//! |---|---|
//! | n | it has nothing to do, and was busy for n nanoseconds before |
//! | n + [`RUNNING`] | it has been busy since the clock said n, and for a time before that was put in front |
//!
//! So one store begins a stretch of work, one ends it, and a look at any moment is right, with the coarse clock's grain:
//! a parent that reads the same clock adds the stretch that goes on. A child that is killed leaves the word as it was.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Caller;
use crate::sys::clock;

const RUNNING: u64 = 1 << 63;

/// Work begins, or goes on: says so if it was not so before.
///
/// Runs in: the child.
#[inline]
pub(crate) fn begin(word: &AtomicU64, now: impl FnOnce() -> u64) {
    let before = word.load(Relaxed);
    if before & RUNNING == 0 {
        word.store(now().saturating_sub(before) | RUNNING, Relaxed);
    }
}

/// There is no more work.
///
/// Runs in: the child.
#[inline]
pub(crate) fn end(word: &AtomicU64, now: impl FnOnce() -> u64) {
    let before = word.load(Relaxed);
    if before & RUNNING != 0 {
        word.store(now().saturating_sub(before & !RUNNING), Relaxed);
    }
}

impl<T> Caller<T> {
    /// How long the child has been busy since it was made.
    pub(crate) fn busy(&self) -> Duration {
        look(&self.link().reply.words().busy.0, clock::coarse())
    }
}

/// How long the child has been busy until `now`. Whatever it may have written: not longer than `now`.
///
/// Runs in: the parent.
fn look(word: &AtomicU64, now: u64) -> Duration {
    let seen = word.load(Relaxed);
    let busy = if seen & RUNNING == 0 { seen } else { now.saturating_sub(seen & !RUNNING) };
    Duration::from_nanos(busy.min(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_of_work_add_up_and_one_that_goes_on_counts() {
        let word = AtomicU64::new(0);
        let looked = |now| look(&word, now).as_nanos();
        end(&word, || unreachable!("it was not busy"));
        assert_eq!(looked(900), 0);
        begin(&word, || 1_000);
        begin(&word, || unreachable!("it is busy already"));
        assert_eq!(looked(1_007), 7);
        end(&word, || 1_010);
        assert_eq!(looked(2_000), 10);
        begin(&word, || 3_000);
        assert_eq!(looked(3_005), 15);
        end(&word, || 3_020);
        assert_eq!(looked(9_000), 30);
    }

    #[test]
    fn nonsense_is_not_longer_than_the_clock() {
        for nonsense in [u64::MAX, u64::MAX >> 1, RUNNING, RUNNING + 70] {
            assert!(look(&AtomicU64::new(nonsense), 50).as_nanos() <= 50);
        }
    }
}
