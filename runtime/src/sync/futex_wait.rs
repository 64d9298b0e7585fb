//! Sleeping on a futex until another thread wakes this one, until a deadline, or until it is time to look again.
//!
//! Owns: the longest time that a thread sleeps. Runs in: any process.
//! Invariant: a sleep does not say why it ended. The thread that slept looks at the word, at the holder, and at the clock.
//!
//! No sleep on a word of shared memory is longer than [`MAX_SLEEP`]. That one rule repairs every wake-up that was lost because
//! the process that was woken, or the process that was about to wake it, was killed. It is also when a sleeper asks whether
//! the process that it waits for still lives.

use std::time::{Duration, Instant};

use super::atomic::AtomicU32;
use crate::sys::{futex, membarrier};

/// The longest sleep before the next look.
pub(crate) const MAX_SLEEP: Duration = Duration::from_millis(50);

/// The longest sleep where the kernel has no barrier for all processes. A flag that was missed costs this long.
const MAX_SLEEP_UNFENCED: Duration = Duration::from_millis(1);

/// How often to look at a word before sleeping on it: as often as the locks of the standard library do. Sleeping and being
/// woken costs tens of microseconds, which is longer than most locks are held.
pub(crate) const SPINS: u32 = 100;

/// Sleeps while `word` is `expected`, at most until the deadline or for [`MAX_SLEEP`].
///
/// Returns false, without having slept, if the deadline has passed. So the last look of a loop around it comes after the
/// deadline.
#[must_use = "the caller stops waiting once the deadline has passed"]
pub(crate) fn sleep(word: &AtomicU32, expected: u32, deadline: Option<Instant>) -> bool {
    sleep_for(word, expected, (MAX_SLEEP, deadline))
}

/// As [`sleep`], for a thread that has stored `expected` in `flag`. Sleeps only if `must_wait` still says so.
///
/// A thread that writes what `must_wait` reads, and reads the flag after a [`light_fence`], sees the flag; or `must_wait` sees
/// what it wrote.
#[must_use = "the caller stops waiting once the deadline has passed"]
pub(crate) fn sleep_contended(
    flag: &AtomicU32,
    (expected, deadline): (u32, Option<Instant>),
    must_wait: impl FnOnce() -> bool,
) -> bool {
    let longest = if membarrier::barrier_all() { MAX_SLEEP } else { MAX_SLEEP_UNFENCED };
    !must_wait() || sleep_for(flag, expected, (longest, deadline))
}

/// Stands between writing a word and reading the flag of threads that are about to [sleep](sleep_contended) until it changes.
#[inline]
pub(crate) fn light_fence() {
    membarrier::light();
}

fn sleep_for(word: &AtomicU32, expected: u32, (longest, deadline): (Duration, Option<Instant>)) -> bool {
    let longest = match deadline {
        None => longest,
        Some(deadline) => match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return false,
            left => left.min(longest),
        },
    };
    futex::wait_until(word, expected, longest);
    true
}

/// Wakes up to `count` threads that sleep on `word`, and returns how many it found.
pub(crate) fn wake(word: &AtomicU32, count: u32) -> u32 {
    futex::wake(word, count)
}

/// Wakes one thread that sleeps on `word`.
pub(crate) fn wake_one(word: &AtomicU32) {
    futex::wake(word, 1);
}

/// Wakes all threads that sleep on `word`.
pub(crate) fn wake_all(word: &AtomicU32) {
    futex::wake(word, u32::MAX);
}

/// Returns when a time-out that begins now ends. `None`: it never ends, because the clock cannot show that time.
pub(crate) fn deadline_after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// Returns when to give up waiting for a lock that the caller can do without. A running holder has it for microseconds only.
pub(crate) fn short_deadline() -> Option<Instant> {
    deadline_after(MAX_SLEEP)
}

/// Calls `found` until it returns true, at most [`SPINS`] times, with a pause of the processor between two calls.
#[inline]
pub(crate) fn spin_until(mut found: impl FnMut() -> bool) -> bool {
    for _ in 0..SPINS {
        if found() {
            return true;
        }
        std::hint::spin_loop();
    }
    found()
}
