//! [`Once`]: something that one process does, once, for all.
//!
//! Owns: [`Once`]. Runs in: any process.
//! Invariant: nothing counts as complete if the process that ran it was killed.
//!
//! # The words
//!
//! `lock` is held by the runner; `state` is written under it.
//!
//! | `state`      | meaning                        | written next by                                          |
//! |--------------|--------------------------------|----------------------------------------------------------|
//! | [`INCOMPLETE`] | not run to the end yet         | the runner, [`COMPLETE`] or [`POISONED`]                     |
//! | [`POISONED`] | the last runner panicked       | a runner that was asked for all the same, [`COMPLETE`]       |
//! | [`COMPLETE`]     | done, and seen by each reader of this | none                                               |
//!
//! # Deaths
//!
//! - *The runner's*: the lock passes to one of the waiters, and `state` is as before, so that one runs.
//! - *A waiter's*: costs nothing.

use std::fmt;

use super::atomic::AtomicU32;
use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::lock::RobustLock;
use super::proc_table::{self, ProcId};

const INCOMPLETE: u32 = 0;
const POISONED: u32 = 1;
const COMPLETE: u32 = 2;

/// Something that is done once, by one thread of one process: [`std::sync::Once`].
///
/// A `static` is once for each process; in a [`Shared`](crate::Shared), it is once for all that have it.
///
/// # Examples
/// That of [`std::sync::Once`]:
/// ```
/// use process_task::sync::Once;
///
/// static START: Once = Once::new();
///
/// START.call_once(|| {
///     // run initialization here
/// });
/// ```
///
/// And with tasks:
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use process_task::sync::Once;
/// use process_task::{Shared, process_task};
///
/// #[process_task]
/// fn begin(all: &Shared<(Once, AtomicU32)>) {
///     let (once, times) = &**all;
///     once.call_once(|| {
///         times.fetch_add(1, Relaxed);
///     });
/// }
///
/// let all = Shared::new((Once::new(), AtomicU32::new(0)))?;
/// let tasks = [(); 3].map(|()| begin.spawn(&all));
/// for task in tasks {
///     task.join()?;
/// }
/// assert_eq!(all.1.load(Relaxed), 1);
/// # process_task::Result::Ok(())
/// ```
///
/// # If the other process dies
/// If the process that runs the closure is killed or ends, one of those that wait runs its own within 100 ms, or the
/// next that comes. A killed waiter costs nothing.
#[repr(C)]
pub struct Once {
    lock: RobustLock,
    state: AtomicU32,
}

/// What [`Once::call_once_force`] tells its closure.
#[derive(Debug)]
pub struct OnceState {
    poisoned: bool,
}

impl OnceState {
    /// Whether a closure that ran before this one panicked.
    ///
    /// # Examples
    /// See [`Once::call_once_force`].
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }
}

impl Once {
    /// Creates a `Once` whose closure has not run.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Once;
    ///
    /// static START: Once = Once::new();
    /// assert!(!START.is_completed());
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { lock: RobustLock::new(), state: AtomicU32::new(INCOMPLETE) }
    }

    /// Runs the closure, unless one was run to its end already; waits if one is running now.
    ///
    /// When this returns, some closure has come to its end, and what it wrote is seen. A closure that asks for the same
    /// `Once` waits for itself.
    ///
    /// # Panics
    /// If the closure does, and from then on always: the `Once` is poisoned, until [`call_once_force`](Self::call_once_force) helps.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Once;
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    ///
    /// let (once, times) = (Once::new(), AtomicU32::new(0));
    /// std::thread::scope(|scope| {
    ///     for _ in 0..4 {
    ///         scope.spawn(|| once.call_once(|| { times.fetch_add(1, Relaxed); }));
    ///     }
    /// });
    /// assert_eq!(times.load(Relaxed), 1);
    /// ```
    ///
    /// # If the other process dies
    /// If it was running its closure, this returns or runs its own within 100 ms.
    #[track_caller]
    pub fn call_once(&self, run: impl FnOnce()) {
        if !self.is_completed() {
            self.call(false, |_| run());
        }
    }

    /// As [`call_once`](Self::call_once), also when the last closure panicked.
    ///
    /// # Panics
    /// If the closure does.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Once;
    ///
    /// let once = Once::new();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| once.call_once(|| panic!())).join().unwrap_err();
    ///     scope.spawn(|| once.call_once(|| {})).join().unwrap_err();
    /// });
    /// once.call_once_force(|state| assert!(state.is_poisoned()));
    /// once.call_once(|| unreachable!("it is done"));
    /// ```
    ///
    /// # If the other process dies
    /// As for [`call_once`](Self::call_once).
    #[track_caller]
    pub fn call_once_force(&self, run: impl FnOnce(&OnceState)) {
        if !self.is_completed() {
            self.call(true, run);
        }
    }

    /// Whether some closure has come to its end. What it wrote is seen after this.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Once;
    ///
    /// let once = Once::new();
    /// once.call_once(|| assert!(!once.is_completed()));
    /// assert!(once.is_completed());
    /// ```
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.state.load(Acquire) == COMPLETE
    }

    #[cold]
    #[track_caller]
    fn call(&self, force: bool, run: impl FnOnce(&OnceState)) {
        // Whether the last holder died makes no difference: `state` says how far it got.
        while self.lock.lock(None).is_none() {}
        let mut guard = CompletionGuard { once: self, runner: proc_table::current(), then: self.state.load(Relaxed) };
        if guard.then == COMPLETE {
            return;
        }
        let poisoned = guard.then == POISONED;
        assert!(force || !poisoned, "a closure of this Once panicked");
        guard.then = POISONED;
        run(&OnceState { poisoned });
        guard.then = COMPLETE;
    }
}

/// Holds the lock until dropped, and then stores `then` in `state`.
struct CompletionGuard<'a> {
    once: &'a Once,
    runner: ProcId,
    then: u32,
}

impl Drop for CompletionGuard<'_> {
    fn drop(&mut self) {
        // A copy that `fork()` made of this process while the closure ran completes nothing for the others.
        if proc_table::is_current(self.runner) {
            self.once.state.store(self.then, Release);
            self.once.lock.unlock();
        }
    }
}

impl Default for Once {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.lock.owner().is_some();
        f.debug_struct("Once")
            .field("completed", &self.is_completed())
            .field("running", &running)
            .finish_non_exhaustive()
    }
}
