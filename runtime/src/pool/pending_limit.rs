//! How many calls a pool may have that are not settled, and how to wait for a place.
//!
//! Owns: the count, where there is a bound; without one it counts nothing. Runs in: the parent, on any thread.
//! Never: keeps a place for a call that was not made.

use std::fmt;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Thread, ThreadId};

use super::call::Waiters;
use super::leader::Waitable;
use super::scheduler::{Leader, Phase, Scheduler};
use super::shared::Shared;
use crate::error::Error;

/// The places of a pool.
#[derive(Debug)]
pub(super) struct PendingLimit {
    /// `usize::MAX`: no bound.
    most: AtomicUsize,
    taken: AtomicUsize,
    /// The pool takes no more calls: no thread need wait to hear that.
    closed: AtomicBool,
    waiters: Mutex<Vec<Thread>>,
}

/// A place for a call that is about to be submitted. Dropping it gives it back.
#[must_use = "the call that it is for would not be counted"]
pub(super) struct PendingPermit<'a>(&'a Arc<Shared>);

/// Why [`Pool::try_submit`](crate::Pool::try_submit) did not take the call. The arguments come back.
///
/// # Examples
/// ```
/// use process_task::{Pool, TrySubmitError, process_task};
///
/// #[process_task]
/// fn length(text: String) -> usize { text.len() }
///
/// let pool = Pool::new()?;
/// pool.close()?;
/// match pool.try_submit(length, "text".to_owned()) {
///     Err(TrySubmitError::Closed(text, error)) => {
///         assert_eq!(text, "text");
///         assert!(error.to_string().contains("closed"));
///     }
///     other => panic!("{other:?}"),
/// }
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum TrySubmitError<A> {
    /// As many calls as [`max_pending`](crate::PoolBuilder::max_pending) allows are not settled yet.
    Full(A),
    /// The pool takes no more calls; the error says why.
    Closed(A, Error),
}

impl PendingLimit {
    pub(super) fn unbounded() -> Self {
        Self {
            most: AtomicUsize::new(usize::MAX),
            taken: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            waiters: Mutex::default(),
        }
    }

    /// Before the first call.
    pub(super) fn bound(&self, most: usize) {
        self.most.store(most, Relaxed);
    }

    fn is_bounded(&self) -> bool {
        self.most.load(Relaxed) != usize::MAX
    }

    /// Whether it is worth trying to take a place.
    fn is_open(&self) -> bool {
        self.taken.load(SeqCst) < self.most.load(Relaxed) || self.closed.load(SeqCst)
    }

    fn take(&self) -> bool {
        let (most, closed) = (self.most.load(Relaxed), self.closed.load(SeqCst));
        self.taken.fetch_update(SeqCst, SeqCst, |taken| (taken < most || closed).then_some(taken + 1)).is_ok()
    }

    /// Part of a call is a call of its own from here on, and has a place even if there is none.
    pub(super) fn force_acquire(&self) {
        if self.is_bounded() {
            self.taken.fetch_add(1, SeqCst);
        }
    }

    /// A call is settled, or was not submitted: returns a thread that waits for its place.
    #[must_use = "it would sleep on"]
    pub(super) fn release(&self) -> Option<Thread> {
        if !self.is_bounded() {
            return None;
        }
        let _ = self.taken.fetch_update(SeqCst, SeqCst, |taken| taken.checked_sub(1));
        self.waiters().pop()
    }

    /// The pool takes no more calls: returns the waiting threads, so that they hear it.
    #[must_use = "they would sleep on"]
    pub(super) fn close(&self) -> Vec<Thread> {
        self.closed.store(true, SeqCst);
        std::mem::take(&mut *self.waiters())
    }

    fn waiters(&self) -> MutexGuard<'_, Vec<Thread>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waitable for PendingLimit {
    fn enlist(&self, thread: Thread) {
        self.waiters().push(thread);
    }

    fn strike(&self, thread: ThreadId) {
        self.waiters().retain(|waiter| waiter.id() != thread);
    }
}

/// This process is a copy of the one that has the pool.
pub(super) fn foreign() -> Error {
    Error::closed("it belongs to the process that this one is a `fork()` of")
}

impl Shared {
    /// Whether calls need not be counted one by one.
    pub(super) fn allows_batches(&self) -> bool {
        !self.room.is_bounded() && self.plan.quota.is_none() && !self.is_foreign()
    }

    /// A place for one more call, waiting for it if there is a bound. A pool that is closed has room for everything.
    pub(super) fn reserve(self: &Arc<Self>) -> PendingPermit<'_> {
        let room = &self.room;
        if room.is_bounded() {
            while !room.take() {
                self.wait(&|| room.is_open(), &**room, None);
            }
            self.wake_next();
        }
        PendingPermit(self)
    }

    /// A place for one more call, if there is one.
    fn try_reserve(self: &Arc<Self>) -> Option<PendingPermit<'_>> {
        let bounded = self.room.is_bounded();
        if bounded && !self.room.take() {
            // Calls that no thread waits for may have been answered.
            self.update(Scheduler::collect);
            if !self.room.take() {
                return None;
            }
        }
        if bounded {
            self.wake_next();
        }
        Some(PendingPermit(self))
    }

    /// Why no call would be taken, if none would.
    fn refusal(&self) -> Option<Error> {
        if self.is_foreign() {
            return Some(foreign());
        }
        match &self.scheduler().phase {
            Phase::Closing(error) | Phase::Ended(error) => Some(error.clone()),
            Phase::Open => None,
        }
    }

    /// A woken thread may already hold a permit; passes this one to the next waiter.
    fn wake_next(&self) {
        let next = if self.room.is_open() { self.room.waiters().pop() } else { None };
        if let Some(next) = next {
            next.unpark();
        }
    }

    /// As [`Shared::reserve`], but at once or not at all, and not in a pool that is closed.
    pub(super) fn reserve_now<A>(self: &Arc<Self>, args: A) -> Result<(PendingPermit<'_>, A), TrySubmitError<A>> {
        if let Some(error) = self.refusal() {
            return Err(TrySubmitError::Closed(args, error));
        }
        match self.try_reserve() {
            Some(slot) => Ok((slot, args)),
            None => Err(TrySubmitError::Full(args)),
        }
    }
}

impl PendingPermit<'_> {
    /// The call is submitted: from here on its place is given back when it is settled.
    pub(super) fn keep(self) {
        let _ = std::mem::ManuallyDrop::new(self);
    }
}

impl Drop for PendingPermit<'_> {
    fn drop(&mut self) {
        self.0.update(|scheduler, owed| {
            owed.wake.extend(scheduler.room.release().map(Waiters::of));
            // The leader may be the thread that waits for a place.
            owed.wake_leader |= scheduler.leader == Leader::Parked;
        });
    }
}

impl<A> std::error::Error for TrySubmitError<A> {}

impl<A> fmt::Debug for TrySubmitError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.debug_tuple("Full").finish_non_exhaustive(),
            Self::Closed(_, error) => f.debug_tuple("Closed").field(error).finish_non_exhaustive(),
        }
    }
}

impl<A> fmt::Display for TrySubmitError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the pool has as many calls as it may have"),
            Self::Closed(_, error) => error.fmt(f),
        }
    }
}
