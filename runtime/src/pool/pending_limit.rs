//! A bound on the calls of a pool that are not settled. Each of them has a permit; without a bound, nothing is counted.
//!
//! Runs in: the parent, on any thread.

use std::fmt;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard};
use std::thread::{Thread, ThreadId};

use super::waitable::Waitable;
use crate::error::Error;
use crate::sys::mutex::MutexExt as _;

/// The permits of a pool.
#[derive(Debug)]
pub(super) struct PendingLimit {
    /// `usize::MAX`: no bound.
    most: AtomicUsize,
    taken: AtomicUsize,
    /// The pool takes no more calls: no thread need wait to hear that.
    closed: AtomicBool,
    waiters: Mutex<Vec<Thread>>,
}

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
/// pool.close();
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

impl<A> TrySubmitError<A> {
    /// The arguments, as they were.
    ///
    /// # Examples
    /// ```
    /// # use process_task::{Pool, process_task};
    /// # #[process_task] fn length(text: String) -> usize { text.len() }
    /// let pool = Pool::builder().workers(1).build()?;
    /// pool.close();
    /// assert_eq!(pool.try_submit(length, "text".to_owned()).unwrap_err().into_inner(), "text");
    /// # process_task::Result::Ok(())
    /// ```
    #[must_use]
    pub fn into_inner(self) -> A {
        match self {
            Self::Full(args) | Self::Closed(args, _) => args,
        }
    }
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

    pub(super) fn is_bounded(&self) -> bool {
        self.most.load(Relaxed) != usize::MAX
    }

    /// Whether it is worth trying to acquire a permit.
    pub(super) fn is_open(&self) -> bool {
        self.taken.load(SeqCst) < self.most.load(Relaxed) || self.closed.load(SeqCst)
    }

    pub(super) fn try_acquire(&self) -> bool {
        let (most, closed) = (self.most.load(Relaxed), self.closed.load(SeqCst));
        self.taken.fetch_update(SeqCst, SeqCst, |taken| (taken < most || closed).then_some(taken + 1)).is_ok()
    }

    /// Part of a call is a call of its own from here on, and gets a permit even if there is none.
    pub(super) fn force_acquire(&self) {
        if self.is_bounded() {
            self.taken.fetch_add(1, SeqCst);
        }
    }

    /// A call is settled, or was not submitted: returns a thread that waits for its permit.
    #[must_use = "it would sleep on"]
    pub(super) fn release(&self) -> Option<Thread> {
        if !self.is_bounded() {
            return None;
        }
        let _ = self.taken.fetch_update(SeqCst, SeqCst, |taken| taken.checked_sub(1));
        self.waiters().pop()
    }

    /// A woken thread may already hold a permit; passes this one to the next waiter.
    pub(super) fn wake_next(&self) {
        let next = if self.is_open() { self.waiters().pop() } else { None };
        if let Some(next) = next {
            next.unpark();
        }
    }

    /// The pool takes no more calls: returns the waiting threads, so that they hear it.
    #[must_use = "they would sleep on"]
    pub(super) fn close(&self) -> Vec<Thread> {
        self.closed.store(true, SeqCst);
        std::mem::take(&mut *self.waiters())
    }

    fn waiters(&self) -> MutexGuard<'_, Vec<Thread>> {
        self.waiters.lock_unpoisoned()
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

/// The error of a process that is a copy of the one that has the pool.
pub(super) fn foreign() -> Error {
    Error::closed("it belongs to the process that this one is a `fork()` of")
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
            Self::Full(_) => f.write_str(
                "the pool's limit of pending calls is reached: wait for one of them, or raise `max_pending`",
            ),
            Self::Closed(_, error) => error.fmt(f),
        }
    }
}
