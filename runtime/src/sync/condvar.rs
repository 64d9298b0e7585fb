//! [`Condvar`]: waiting until another thread, of any process, has changed what a mutex holds.
//!
//! Owns: the order of the steps of a wait. The waiters stand in a [`WaitQueue`]. Runs in: any process.
//! Invariant: no more waiters wake than were notified, as long as there are slots for all. A notification of a waiter that is
//! killed goes to another.

use std::fmt;
use std::time::{Duration, Instant};

use super::futex_wait::deadline_after;
use super::mutex::MutexGuard;
use super::poison::{LockResult, PoisonError};
use super::wait_queue::{WaitQueue, Woken};

/// Waits for a change of what a [`Mutex`](super::Mutex) holds: [`std::sync::Condvar`], and Python's `multiprocessing.Condition`.
///
/// A plain value that works where it lies, for threads of any processes; commonly beside its mutex, as in
/// `Shared<(Mutex<bool>, Condvar)>`. It has the methods of [`std::sync::Condvar`], and [`notify_n`](Self::notify_n).
/// It takes about 4 KiB, most of it slots for 256 waiters.
///
/// # Which waiter is woken
/// Each notification wakes the waiter that has waited longest. While at most 256 threads wait, there are no spurious wake-ups;
/// if more do, those without a slot may have some. In any case wait in a loop, or with [`wait_while`](Self::wait_while):
/// between the notification and the waking another thread may have changed the data again.
///
/// # If the other process dies
/// A waiter that dies costs nothing: if it had been notified and had not yet returned from its wait, another one is woken
/// in its place, within a tenth of a second. A notifier that dies has notified those it came to. One that dies with the
/// mutex poisons it.
///
/// # Examples
/// ```
/// use process_task::sync::{Condvar, Mutex};
/// use process_task::{Shared, process_task};
///
/// #[process_task]
/// fn begin(pair: &Shared<(Mutex<bool>, Condvar)>) {
///     let (started, changed) = &**pair;
///     *started.lock().unwrap() = true;
///     changed.notify_one();
/// }
///
/// let pair = Shared::new((Mutex::new(false), Condvar::new()))?;
/// let starter = begin.spawn(&pair);
/// let (started, changed) = &*pair;
/// let guard = changed.wait_while(started.lock().unwrap(), |started| !*started).unwrap();
/// assert!(*guard);
/// # drop(guard);
/// # starter.join()?;
/// # process_task::Result::Ok(())
/// ```
#[doc(alias = "Condition")]
#[repr(transparent)]
pub struct Condvar {
    waiters: WaitQueue,
}

/// Whether a wait timed out.
///
/// # Examples
/// ```
/// use process_task::sync::{Condvar, Mutex};
/// use std::time::Duration;
///
/// let (value, changed) = (Mutex::new(0), Condvar::new());
/// let (guard, result) = changed.wait_timeout(value.lock().unwrap(), Duration::from_millis(1)).unwrap();
/// assert!(result.timed_out());
/// # drop(guard);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the wait timed out before it was notified.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// Creates a condition variable without waiters.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Condvar;
    ///
    /// static CHANGED: Condvar = Condvar::new();
    /// CHANGED.notify_all();
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { waiters: WaitQueue::new() }
    }

    /// Unlocks the mutex, waits until notified, and locks the mutex again.
    ///
    /// A thread that changes the data with the mutex held, and notifies then or later, is not missed.
    ///
    /// # Errors
    /// [`PoisonError`] if the mutex is poisoned; the guard is inside the error.
    ///
    /// # If the other process dies
    /// A notification that went to a dead waiter goes to another one. If all processes that could notify are dead, this
    /// waits for ever: have [`wait_timeout`](Self::wait_timeout) look from time to time.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::{Condvar, Mutex};
    ///
    /// let (ready, changed) = (Mutex::new(false), Condvar::new());
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         *ready.lock().unwrap() = true;
    ///         changed.notify_one();
    ///     });
    ///     let mut guard = ready.lock().unwrap();
    ///     while !*guard {
    ///         guard = changed.wait(guard).unwrap();
    ///     }
    /// });
    /// ```
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.wait_until(&guard, None);
        guard.checked()
    }

    /// Waits as long as the condition is true.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    ///
    /// # Panics
    /// If `condition` does; that poisons the mutex.
    ///
    /// # If the other process dies
    /// As for [`wait`](Self::wait).
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::{Condvar, Mutex};
    ///
    /// let (pending, changed) = (Mutex::new(true), Condvar::new());
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         *pending.lock().unwrap() = false;
    ///         changed.notify_one();
    ///     });
    ///     let guard = changed.wait_while(pending.lock().unwrap(), |pending| *pending).unwrap();
    ///     assert!(!*guard);
    /// });
    /// ```
    #[doc(alias = "wait_for")]
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        while condition(&mut *guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Waits as [`wait`](Self::wait) does, for `timeout` at most.
    ///
    /// Locking the mutex again may take longer.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    ///
    /// # If the other process dies
    /// As for [`wait`](Self::wait); but this returns.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::{Condvar, Mutex};
    /// use std::time::Duration;
    ///
    /// let (value, changed) = (Mutex::new(0), Condvar::new());
    /// let (guard, result) = changed.wait_timeout(value.lock().unwrap(), Duration::from_millis(1)).unwrap();
    /// assert!(*guard == 0 && result.timed_out());
    /// ```
    pub fn wait_timeout<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let woken = self.wait_until(&guard, deadline_after(timeout));
        with_result(guard.checked(), WaitTimeoutResult(woken == Woken::TimedOut))
    }

    /// Waits as long as the condition is true, for `timeout` at most.
    ///
    /// The result says whether the condition was still true at the end.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    ///
    /// # Panics
    /// If `condition` does; that poisons the mutex.
    ///
    /// # If the other process dies
    /// As for [`wait`](Self::wait); but this returns.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::{Condvar, Mutex};
    /// use std::time::Duration;
    ///
    /// let (pending, changed) = (Mutex::new(true), Condvar::new());
    /// let guard = pending.lock().unwrap();
    /// let (mut guard, result) =
    ///     changed.wait_timeout_while(guard, Duration::from_millis(1), |pending| *pending).unwrap();
    /// assert!(result.timed_out());
    ///
    /// *guard = false;
    /// let (_guard, result) =
    ///     changed.wait_timeout_while(guard, Duration::from_millis(1), |pending| *pending).unwrap();
    /// assert!(!result.timed_out());
    /// ```
    pub fn wait_timeout_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let deadline = deadline_after(timeout);
        while condition(&mut *guard) {
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok((guard, WaitTimeoutResult(true)));
            }
            self.wait_until(&guard, deadline);
            guard = match guard.checked() {
                Ok(guard) => guard,
                poisoned => return with_result(poisoned, WaitTimeoutResult(false)),
            };
        }
        Ok((guard, WaitTimeoutResult(false)))
    }

    /// Wakes the waiter that has waited longest, if there is one.
    ///
    /// # If the other process dies
    /// A waiter that dies before it has returned passes the notification on, to the one that has waited longest of those that
    /// waited when this was called.
    ///
    /// # Examples
    /// See [`wait`](Self::wait).
    #[doc(alias = "notify")]
    pub fn notify_one(&self) {
        self.waiters.notify(1);
    }

    /// Wakes all that wait now.
    ///
    /// # If the other process dies
    /// Nothing is lost: every waiter is woken.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::{Condvar, Mutex};
    ///
    /// let (open, changed) = (Mutex::new(false), Condvar::new());
    /// std::thread::scope(|scope| {
    ///     for _ in 0..3 {
    ///         scope.spawn(|| drop(changed.wait_while(open.lock().unwrap(), |open| !*open)));
    ///     }
    ///     *open.lock().unwrap() = true;
    ///     changed.notify_all();
    /// });
    /// ```
    pub fn notify_all(&self) {
        self.waiters.notify(usize::MAX);
    }

    /// Wakes the `count` that have waited longest, or all if fewer wait.
    ///
    /// # If the other process dies
    /// As for [`notify_one`](Self::notify_one).
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::{Condvar, Mutex};
    ///
    /// let (jobs, changed) = (Mutex::new(0), Condvar::new());
    /// std::thread::scope(|scope| {
    ///     for _ in 0..2 {
    ///         scope.spawn(|| *changed.wait_while(jobs.lock().unwrap(), |jobs| *jobs == 0).unwrap() -= 1);
    ///     }
    ///     *jobs.lock().unwrap() += 2;
    ///     changed.notify_n(2);
    /// });
    /// assert_eq!(*jobs.lock().unwrap(), 0);
    /// ```
    pub fn notify_n(&self, count: usize) {
        self.waiters.notify(count);
    }

    /// Waits until notified, or until the deadline. Nothing in it panics, so the guard stays valid.
    fn wait_until<T: ?Sized>(&self, guard: &MutexGuard<'_, T>, deadline: Option<Instant>) -> Woken {
        let slot = self.waiters.enter();
        guard.unlock_for_wait();
        let woken = self.waiters.wait(slot, deadline);
        guard.relock();
        // Only now: a waiter that is killed before it holds the mutex is still in the queue, and its notification is passed on.
        if woken == Woken::Notified {
            self.waiters.leave(slot);
        }
        woken
    }
}

fn with_result<G>(guard: LockResult<G>, result: WaitTimeoutResult) -> LockResult<(G, WaitTimeoutResult)> {
    match guard {
        Ok(guard) => Ok((guard, result)),
        Err(poisoned) => Err(PoisonError::new((poisoned.into_inner(), result))),
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
