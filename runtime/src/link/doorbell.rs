//! Which side sleeps, and which must wake the other: the rules of three words, without the sleeping itself.
//!
//! Runs in: both ends of a link. The doorbell is an eventfd by which the child wakes its parent.
//! Invariant: no system call here, so that a model checker can run it (`tests/models/link.rs` does).
//!
//! Two sides that may both be about to sleep follow one rule: *set the flag, then look once more*. The side that brings
//! something follows the other: *bring it, then look at the other's flag*. At least one of the two looks must see
//! the other side's word, or the sleeper sleeps over what is there. Towards the child, both sides exchange `parked`, and
//! the later exchange sees what came before the earlier one. Towards the parent, which has words that the child can only
//! read, a sequentially consistent fence stands between the two steps of each side.
//!
//! Why exchanges towards the child: a child that cleared its flag with a plain store lost sight of what its parent
//! had written before waking it, and slept over the order to end. The model checker found it. For the same reason a
//! child looks at the shutdown word *before* it looks at the window.

use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use super::atomic::{AtomicU32, AtomicU64, fence};
use super::window::Window;

/// The child is about to sleep. False: something has come, so it must not.
///
/// Runs in: the child.
pub(crate) fn park(parked: &AtomicU32, window: &AtomicU64, shutdown: &AtomicU32) -> bool {
    parked.swap(1, AcqRel);
    !has_work(window, shutdown)
}

/// Whether the child has something to do: a call, or to end.
///
/// Runs in: the child.
pub(crate) fn has_work(window: &AtomicU64, shutdown: &AtomicU32) -> bool {
    Window::look(window).unclaimed() != 0 || shutdown.load(Acquire) != 0
}

/// The child is awake again. An exchange: a mere store would lose sight of what came before the parent's.
///
/// Runs in: the child.
pub(crate) fn unpark(parked: &AtomicU32) {
    parked.swap(0, AcqRel);
}

/// Something was brought for the child. True: it said that it sleeps, and must be woken.
///
/// Runs in: the parent.
pub(crate) fn must_wake(parked: &AtomicU32) -> bool {
    parked.swap(0, AcqRel) != 0
}

/// A reply was published. True: the child must ring its bell, because the parent sleeps.
///
/// Runs in: the child.
pub(crate) fn must_notify(notify_reply: &AtomicU32) -> bool {
    fence(SeqCst);
    notify_reply.load(Relaxed) != 0
}

/// The child is about to sleep, all its replies are published. True: it must ring first, because calls wait elsewhere.
///
/// Runs in: the child.
pub(crate) fn must_notify_idle(notify_idle: &AtomicU32) -> bool {
    fence(SeqCst);
    notify_idle.load(Relaxed) != 0
}

/// The parent says whether it wants the bell, for each reply or when the child goes to sleep: 0 is no. To be followed by a look at the
/// replies. Only the parent writes these words: a child that cleared one, and was stopped before it rang, would silence
/// the bell for good.
///
/// Runs in: the parent.
pub(crate) fn set_flag(word: &AtomicU32, wanted: u32) {
    word.store(wanted, Release);
    fence(SeqCst);
}
