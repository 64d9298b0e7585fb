//! Which of the calls in the request half have been given out: one word, `limit << 32 | claimed`.
//!
//! Runs in: both ends of a link.
//! Invariant: no system call here, so that a model checker can run it.
//!
//! Both halves of the word count calls since the link was made, modulo 2^32. The parent raises the limit when it has
//! written a frame, and lowers it to take calls back; the child raises `claimed` by one, and only *then* reads the frame.
//! Every change is one atomic step of one word, so a call is either claimed or taken back, never both. The orderings are
//! those of a hand-over: what was written before a push is seen after the claim. [`super::doorbell`] sees to it that no side
//! sleeps over a push.
//!
//! Why calls that are given out together are shown by one change of the word: each change takes its cache line from
//! the worker.

use super::atomic::AtomicU64;
use super::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// The most calls that are given to one child and not answered yet.
pub(crate) const MAX_IN_FLIGHT: u32 = 16;

const ONE_MORE: u64 = 1 << 32;

/// One look at the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Calls given out.
    pub(crate) limit: u32,
    /// Calls that the child has taken.
    pub(crate) claimed: u32,
}

impl Window {
    fn of(word: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the word is cut into its two halves")]
        let claimed = word as u32;
        Self { limit: (word >> 32) as u32, claimed }
    }

    fn word(self) -> u64 {
        u64::from(self.limit) << 32 | u64::from(self.claimed)
    }

    /// Looks.
    pub(crate) fn look(word: &AtomicU64) -> Self {
        Self::of(word.load(Acquire))
    }

    /// Calls given out and not taken.
    pub(crate) fn unclaimed(self) -> u32 {
        self.limit.wrapping_sub(self.claimed)
    }
}

/// So many calls more may be claimed. Their frames are written already. Returns what stood there before.
///
/// Runs in: the parent.
pub(crate) fn push(word: &AtomicU64, count: u32) -> Window {
    Window::of(word.fetch_add(ONE_MORE * u64::from(count), AcqRel))
}

/// Takes the next call; false if there is none.
///
/// Runs in: the child.
pub(crate) fn claim(word: &AtomicU64) -> bool {
    word.fetch_update(AcqRel, Relaxed, |word| {
        let seen = Window::of(word);
        (seen.unclaimed() != 0).then(|| Window { claimed: seen.claimed.wrapping_add(1), ..seen }.word())
    })
    .is_ok()
}

/// Takes back up to `most` of the calls given out last, and says how many it got.
///
/// Runs in: the parent.
pub(crate) fn take_back(word: &AtomicU64, most: u32) -> u32 {
    let mut taken = 0;
    let _ = word.fetch_update(AcqRel, Relaxed, |word| {
        let seen = Window::of(word);
        // A child that scribbles over the word must not make us take back more than we gave; see `Caller::check`.
        taken = seen.unclaimed().min(most).min(MAX_IN_FLIGHT);
        (taken != 0).then(|| Window { limit: seen.limit.wrapping_sub(taken), ..seen }.word())
    });
    taken
}
