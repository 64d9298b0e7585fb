//! Sleeping on a word until another thread wakes this one, a deadline, or the time to look again, whichever comes first.
//!
//! Owns: how long the longest sleep is. Runs in: any process.
//! Never: says why a sleep ended. The thread that slept looks at the word, at its holder, and at the clock.
//!
//! No sleep on a word of shared memory is longer than [`LOOK_AGAIN`]. That one rule heals every wake-up that was lost because
//! the process that was woken, or the one that was about to wake, has been killed; and it is when a sleeper asks whether
//! the one it waits for still lives.

use std::time::{Duration, Instant};

use super::atomic::AtomicU32;
use crate::sys::{futex, membarrier};

/// The longest sleep before the next look.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The longest sleep where the kernel knows no fence for all: a note that was missed costs so much.
const A_NAP: Duration = Duration::from_millis(1);

/// How often to look at a word before sleeping on it: as often as the standard library's locks do. Sleeping and being woken
/// costs tens of microseconds, which is more than most locks are held.
pub(crate) const LOOKS: u32 = 100;

/// Sleeps while `word` is `expected`, at most until the deadline or for [`LOOK_AGAIN`].
///
/// False: the deadline is over, and this did not sleep. So the last look of a loop around it comes after the deadline.
#[must_use = "when the deadline is over, nobody waits any longer"]
pub(crate) fn sleep(word: &AtomicU32, expected: u32, deadline: Option<Instant>) -> bool {
    sleep_for(word, expected, (LOOK_AGAIN, deadline))
}

/// As [`sleep`], for a thread that has left the note `expected` in `note`, and goes to sleep only if `must_wait` says so
/// after that.
///
/// A thread that writes what `must_wait` looks at, and looks for a note after a [`light_fence`], sees the note; or
/// `must_wait` sees what was written.
#[must_use = "when the deadline is over, nobody waits any longer"]
pub(crate) fn sleep_noted(
    note: &AtomicU32,
    (expected, deadline): (u32, Option<Instant>),
    must_wait: impl FnOnce() -> bool,
) -> bool {
    let longest = if membarrier::heavy() { LOOK_AGAIN } else { A_NAP };
    !must_wait() || sleep_for(note, expected, (longest, deadline))
}

/// Between writing a word and looking for a note of threads that are about to [sleep](sleep_noted) until it is written.
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

/// Wakes so many of those that sleep on `word`, and says how many it found.
pub(crate) fn wake(word: &AtomicU32, count: u32) -> u32 {
    futex::wake(word, count)
}

/// Wakes one that sleeps on `word`.
pub(crate) fn wake_one(word: &AtomicU32) {
    futex::wake(word, 1);
}

/// Wakes all that sleep on `word`.
pub(crate) fn wake_all(word: &AtomicU32) {
    futex::wake(word, u32::MAX);
}

/// When a time-out that begins now is over. None: too late to be ever reached.
pub(crate) fn deadline_after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// When to give up waiting for a lock that the caller can do without: a running holder has it for microseconds only.
pub(crate) fn soon() -> Option<Instant> {
    deadline_after(LOOK_AGAIN)
}

/// Looks [`LOOKS`] times for what `found` says, with a breath between two looks.
#[inline]
pub(crate) fn look_shortly(mut found: impl FnMut() -> bool) -> bool {
    for _ in 0..LOOKS {
        if found() {
            return true;
        }
        std::hint::spin_loop();
    }
    found()
}
