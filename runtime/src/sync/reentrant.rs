//! [`ReentrantMutex`]: a mutex that its holder may lock again.
//!
//! Owns: the word that says which thread holds it, and the count of its guards. Runs in: any process.
//! Invariant: a guard gives no `&mut` to the data, since a thread may have several guards.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use super::atomic::Ordering::Relaxed;
use super::atomic::{AtomicU32, AtomicU64};
use super::futex_wait::deadline_after;
use super::lock::{Acquired, RobustLock};
use super::poison::{LockResult, Poison, PoisonError, PoisonGuard, TryLockError, TryLockResult};
use super::proc_table::{self, ProcId};
use crate::shared::cell::LockCell;

/// A [`Mutex`](super::Mutex) that the thread which holds it may lock again: Python's `multiprocessing.RLock`.
///
/// It unlocks when the last guard of that thread is dropped. As a thread may have several guards, they give a `&T` only.
/// Data that changes is an atomic, or a [`Cell`], or has a mutex of its own.
///
/// # If the other process dies
/// As for [`Mutex`](super::Mutex): a holder that dies unlocks the mutex and poisons it, however often it had locked it; a waiter
/// that dies costs nothing.
///
/// # Examples
/// ```
/// use process_task::sync::ReentrantMutex;
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
///
/// static TOTAL: ReentrantMutex<AtomicU64> = ReentrantMutex::new(AtomicU64::new(0));
///
/// fn add(value: u64) {
///     let total = TOTAL.lock().unwrap();
///     total.store(total.load(Relaxed) + value, Relaxed);
/// }
///
/// let both = TOTAL.lock().unwrap(); // no other thread comes in between
/// add(1);
/// add(2);
/// assert_eq!(both.load(Relaxed), 3);
/// ```
#[doc(alias = "RLock")]
#[doc(alias = "ReentrantLock")]
#[repr(C)]
pub struct ReentrantMutex<T: ?Sized> {
    lock: RobustLock,
    poison: Poison,
    /// The holder: the id of its process in the lower 32 bits, its thread's number above; 0: none. Only the holder writes it.
    /// So a thread that reads its own name here holds the lock, and any other thread reads another value.
    holder: AtomicU64,
    /// Number of guards that the holder has. Only the holder writes it.
    count: AtomicU32,
    data: LockCell<T>,
}

/// Access to the data of a [`ReentrantMutex`]. Dropping a thread's last guard unlocks the mutex.
///
/// It belongs to the thread that took it, and does not travel.
///
/// # If the other process dies
/// If this process ends before the guard is dropped, the mutex is free again, and poisoned.
///
/// # Examples
/// ```
/// use process_task::sync::ReentrantMutex;
/// use std::cell::Cell;
///
/// let value = ReentrantMutex::new(Cell::new(1));
/// let (first, second) = (value.lock().unwrap(), value.lock().unwrap());
/// first.set(2);
/// assert_eq!(second.get(), 2);
/// ```
///
/// It stays with its thread:
/// ```compile_fail,E0277
/// use process_task::sync::ReentrantMutex;
///
/// let value = ReentrantMutex::new(0);
/// let guard = value.lock().unwrap();
/// std::thread::scope(|scope| scope.spawn(move || drop(guard)).join());
/// ```
/// and what only one thread may look at is not shown to others:
/// ```compile_fail,E0277
/// use process_task::sync::ReentrantMutex;
///
/// let value = ReentrantMutex::new(std::cell::Cell::new(0));
/// let guard = value.lock().unwrap();
/// std::thread::scope(|scope| scope.spawn(|| guard.get()).join());
/// ```
#[must_use = "if unused the mutex unlocks at once"]
#[clippy::has_significant_drop]
pub struct ReentrantMutexGuard<'a, T: ?Sized> {
    mutex: &'a ReentrantMutex<T>,
    poison: PoisonGuard,
    /// Not `Send`, as the thread is the holder; and `Sync` where `T` is.
    kind: PhantomData<(std::sync::MutexGuard<'a, ()>, &'a T)>,
}

impl<T> ReentrantMutex<T> {
    /// Creates an unlocked mutex.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::ReentrantMutex;
    ///
    /// static DOOR: ReentrantMutex<()> = ReentrantMutex::new(());
    /// let (_once, _twice) = (DOOR.lock().unwrap(), DOOR.lock().unwrap());
    /// ```
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self {
            lock: RobustLock::new(),
            poison: Poison::new(),
            holder: AtomicU64::new(0),
            count: AtomicU32::new(0),
            data: LockCell::new(value),
        }
    }

    /// Consumes the mutex and returns the data.
    ///
    /// # Errors
    /// If the mutex is poisoned; the data is inside the error.
    ///
    /// # If the other process dies
    /// No other process has the mutex.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::ReentrantMutex;
    ///
    /// assert_eq!(ReentrantMutex::new(5).into_inner().unwrap(), 5);
    /// ```
    pub fn into_inner(self) -> LockResult<T> {
        let data = self.data.into_inner();
        if self.poison.get() { Err(PoisonError::new(data)) } else { Ok(data) }
    }
}

impl<T: ?Sized> ReentrantMutex<T> {
    /// Locks the mutex, waiting as long as another thread holds it.
    ///
    /// # Errors
    /// [`PoisonError`] if a holder panicked or died while holding the mutex, and its poison was not
    /// [cleared](Self::clear_poison) since. The guard is inside the error.
    ///
    /// # Panics
    /// If this thread has 2^32 - 1 guards already.
    ///
    /// # If the other process dies
    /// A holder that dies unlocks the mutex: this returns within a tenth of a second, with an error.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::ReentrantMutex;
    ///
    /// let value = ReentrantMutex::new(7);
    /// let guard = value.lock().unwrap();
    /// assert_eq!(*guard, *value.lock().unwrap());
    /// ```
    #[doc(alias = "acquire")]
    pub fn lock(&self) -> LockResult<ReentrantMutexGuard<'_, T>> {
        loop {
            // Without a deadline only the lock ends the wait.
            if let Some(acquired) = self.acquire(|lock| lock.lock(None)) {
                return self.guard(acquired);
            }
        }
    }

    /// Locks the mutex if no other thread holds it.
    ///
    /// # Errors
    /// - [`TryLockError::WouldBlock`]: another thread holds it.
    /// - [`TryLockError::Poisoned`]: as for [`lock`](Self::lock).
    ///
    /// # Panics
    /// As [`lock`](Self::lock).
    ///
    /// # If the other process dies
    /// A mutex with a holder that is known to be dead is free, and poisoned. A death is known within a few milliseconds.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::ReentrantMutex;
    ///
    /// let door = ReentrantMutex::new(());
    /// let guard = door.lock().unwrap();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| assert!(door.try_lock().is_err()));
    /// });
    /// # drop(guard);
    /// ```
    pub fn try_lock(&self) -> TryLockResult<ReentrantMutexGuard<'_, T>> {
        match self.acquire(RobustLock::try_lock) {
            Some(acquired) => Ok(self.guard(acquired)?),
            None => Err(TryLockError::WouldBlock),
        }
    }

    /// Locks the mutex, waiting for `timeout` at most.
    ///
    /// # Errors
    /// - [`TryLockError::WouldBlock`]: another thread held it for all of that time.
    /// - [`TryLockError::Poisoned`]: as for [`lock`](Self::lock).
    ///
    /// # Panics
    /// As [`lock`](Self::lock).
    ///
    /// # If the other process dies
    /// As for [`lock`](Self::lock).
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::ReentrantMutex;
    /// use std::time::Duration;
    ///
    /// let door = ReentrantMutex::new(());
    /// let guard = door.lock().unwrap();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| assert!(door.lock_timeout(Duration::from_millis(10)).is_err()));
    /// });
    /// # drop(guard);
    /// ```
    pub fn lock_timeout(&self, timeout: Duration) -> TryLockResult<ReentrantMutexGuard<'_, T>> {
        let deadline: Option<Instant> = deadline_after(timeout);
        match self.acquire(|lock| lock.lock(deadline)) {
            Some(acquired) => Ok(self.guard(acquired)?),
            None => Err(TryLockError::WouldBlock),
        }
    }

    /// Returns whether a holder panicked or died while it held the mutex.
    ///
    /// A death is noticed by the next thread that locks the mutex, and shows from then on.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::ReentrantMutex;
    ///
    /// assert!(!ReentrantMutex::new(1).is_poisoned());
    /// ```
    pub fn is_poisoned(&self) -> bool {
        self.poison.get()
    }

    /// Clears the poison, once the caller has checked or repaired the data.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::ReentrantMutex;
    ///
    /// let value = ReentrantMutex::new(1);
    /// # std::thread::scope(|scope| scope.spawn(|| { let _guard = value.lock(); panic!() }).join().unwrap_err());
    /// // A thread panicked while holding the mutex.
    /// assert!(value.lock().is_err());
    /// value.clear_poison();
    /// assert!(value.lock().is_ok());
    /// ```
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// Returns the data, which no other thread can reach while `self` is borrowed mutably.
    ///
    /// # Errors
    /// If the mutex is poisoned; the reference is inside the error.
    ///
    /// # If the other process dies
    /// No other process has the mutex.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::ReentrantMutex;
    ///
    /// let mut value = ReentrantMutex::new(0);
    /// *value.get_mut().unwrap() = 10;
    /// assert_eq!(*value.lock().unwrap(), 10);
    /// ```
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let data = self.data.get_mut();
        if self.poison.get() { Err(PoisonError::new(data)) } else { Ok(data) }
    }

    /// Counts one more guard for this thread, if it holds the mutex or `lock` acquires it.
    fn acquire(&self, lock: impl FnOnce(&RobustLock) -> Option<Acquired>) -> Option<Acquired> {
        if self.is_held_by_this_thread() {
            let count = self.count.load(Relaxed).checked_add(1);
            self.count.store(count.expect("too many guards of one mutex in one thread"), Relaxed);
            return Some(Acquired::Clean);
        }
        let acquired = lock(&self.lock)?;
        self.holder.store(this_thread(), Relaxed);
        self.count.store(1, Relaxed);
        Some(acquired)
    }

    fn guard(&self, acquired: Acquired) -> LockResult<ReentrantMutexGuard<'_, T>> {
        let poison = self.poison.guard(acquired);
        self.poison.result(ReentrantMutexGuard { mutex: self, poison, kind: PhantomData })
    }

    /// Describes the holder, as far as a thread that does not hold the mutex can see it.
    fn held_by(&self) -> String {
        let count = self.count.load(Relaxed);
        match self.lock.owner() {
            None => "no thread".into(),
            Some(_) if self.is_held_by_this_thread() => format!("this thread, {count} times"),
            Some(_) if self.lock.is_held_by_own() => format!("another thread of this process, {count} times"),
            Some(_) => format!("another process, {count} times"),
        }
    }

    /// Returns whether this thread is the holder, under the id of its process or the one from before it had a table.
    fn is_held_by_this_thread(&self) -> bool {
        let holder = self.holder.load(Relaxed);
        let own = |member| ProcId::from_bits(member).is_some_and(proc_table::is_current);
        holder >> 32 == u64::from(thread_number()) && own(u32::try_from(holder & u64::from(u32::MAX)).unwrap_or(0))
    }
}

thread_local! {
    /// The number of this thread. No other thread of this process ever has it.
    static THREAD_NUMBER: Cell<u32> = const { Cell::new(0) };
}

fn thread_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    if THREAD_NUMBER.get() == 0 {
        THREAD_NUMBER.set(NEXT.fetch_add(1, Relaxed));
    }
    THREAD_NUMBER.get()
}

/// Returns a name that no other living thread of any process has. A copy made by `fork()` has another.
fn this_thread() -> u64 {
    u64::from(thread_number()) << 32 | u64::from(proc_table::current().bits())
}

impl<T: ?Sized> Deref for ReentrantMutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // This thread holds the lock, the guard does not leave the thread, and no guard gives a `&mut`.
        self.mutex.data.lend()
    }
}

impl<T: ?Sized> Drop for ReentrantMutexGuard<'_, T> {
    fn drop(&mut self) {
        let mutex = self.mutex;
        mutex.poison.done(self.poison);
        if !mutex.is_held_by_this_thread() {
            return; // A copy made by `fork()` drops what its original holds.
        }
        let left = mutex.count.load(Relaxed).saturating_sub(1);
        mutex.count.store(left, Relaxed);
        if left == 0 {
            mutex.holder.store(0, Relaxed);
            mutex.lock.unlock();
        }
    }
}

// A panic while the data is reached poisons the mutex, which is what unwind safety asks for.
impl<T: ?Sized> UnwindSafe for ReentrantMutex<T> {}
impl<T: ?Sized> RefUnwindSafe for ReentrantMutex<T> {}

impl<T: Default> Default for ReentrantMutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for ReentrantMutex<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// Shows the data if this thread can lock the mutex, and the holder.
impl<T: ?Sized + fmt::Debug> fmt::Debug for ReentrantMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held_by = self.held_by();
        let mut shown = f.debug_struct("ReentrantMutex");
        match self.try_lock() {
            Ok(guard) => shown.field("data", &&*guard),
            Err(TryLockError::Poisoned(poisoned)) => shown.field("data", &&**poisoned.get_ref()),
            Err(TryLockError::WouldBlock) => shown.field("data", &format_args!("<locked>")),
        };
        shown.field("held_by", &format_args!("{held_by}"));
        shown.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for ReentrantMutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for ReentrantMutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
