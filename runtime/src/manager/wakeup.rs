//! The words by which clients wake a manager: the rules, without the memory and without the sleeping.
//!
//! Runs in: the manager, and each client.
//! Invariant: no system call here, so that a model checker can run it.
//!
//! `wakeup` says for which groups of clients something may have come, and whether the leader sleeps. As both stand in one word,
//! each client learns by the exchange that announces its call whether it must wake the leader, and the leader cannot fall
//! asleep over an announcement: it parks by an exchange that expects a word without any.
//!
//! A client that is killed between the announcement and the wake-up leaves the leader asleep. Its wake-up is made up for by
//! the next client, since the word still says that the leader sleeps; by a client that waits, which rings again; and by the
//! manager's own thread that hears of the death.

use super::atomic::AtomicU32;
use super::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Number of groups of clients that have a bit each.
pub(super) const GROUPS: u32 = 30;

/// Something is in the queue of requests.
pub(super) const QUEUE: u32 = 1 << GROUPS;

/// The leader sleeps.
pub(super) const PARKED: u32 = 1 << 31;

/// The bit of a client's group.
pub(super) fn group_bit(client: u32) -> u32 {
    1 << (client % GROUPS)
}

/// Announces what was brought. True: the leader sleeps, and must be woken.
///
/// Runs in: a client.
#[must_use = "the leader may sleep"]
pub(super) fn announce(word: &AtomicU32, bits: u32) -> bool {
    word.fetch_or(bits, AcqRel) & PARKED != 0
}

/// Takes what was announced. The leader is awake.
///
/// Runs in: the manager's leader.
pub(super) fn take(word: &AtomicU32) -> u32 {
    // The word is read far more often than it is written.
    if word.load(Relaxed) == 0 { 0 } else { word.swap(0, AcqRel) & !PARKED }
}

/// The leader is about to sleep for as long as the word is [`PARKED`]. False: something was announced, so it must not.
///
/// Runs in: the manager's leader.
#[must_use = "something may have been announced"]
pub(super) fn park(word: &AtomicU32) -> bool {
    word.compare_exchange(0, PARKED, AcqRel, Acquire).is_ok()
}
