//! [`ReentrantMutex`]: a mutex that the thread which holds it may take again.
//!
//! Owns: which thread holds it, and how often. Runs in: any process.
//! Never: gives out the data for changing, since a thread may have several guards.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use super::atomic::Ordering::Relaxed;
use super::atomic::{AtomicU32, AtomicU64};
use super::lock::{Lock, Taken};
use super::members::{self, Member};
use super::poison::{LockResult, Panicking, Poison, PoisonError, TryLockError, TryLockResult};
use super::waiting::deadline_after;
use crate::shared::cell::Exclusive;

/// A [`Mutex`](super::Mutex) that the thread which holds it may take again: Python's `multiprocessing.RLock`.
///
/// It is given back when the last guard of that thread is dropped. As a thread may have several guards, they lead to a `&T`
/// only: what is to be changed is an atomic, or a [`Cell`], or stands in a mutex of its own.
///
/// # If the other process dies
/// As for [`Mutex`](super::Mutex): a holder that dies gives the mutex back, poisoned, however often it had taken it; a waiter
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
    lock: Lock,
    poison: Poison,
    /// The holder: its member's id, and above the 32 bits of that, its thread's number; 0: none. Written by the holder
    /// alone, so a thread that reads its own name here holds the lock, and a thread that does not hold it reads any other
    /// value.
    holder: AtomicU64,
    /// How many guards the holder has. Only the holder writes it.
    count: AtomicU32,
    data: Exclusive<T>,
}

/// The right to look at the data of a [`ReentrantMutex`].
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
#[must_use = "if unused the mutex is given back at once"]
#[clippy::has_significant_drop]
pub struct ReentrantMutexGuard<'a, T: ?Sized> {
    mutex: &'a ReentrantMutex<T>,
    before: Panicking,
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
            lock: Lock::new(),
            poison: Poison::new(),
            holder: AtomicU64::new(0),
            count: AtomicU32::new(0),
            data: Exclusive::new(value),
        }
    }

    /// Returns the data, as no other thread can have the mutex any more.
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
    /// Takes the mutex, waiting as long as another thread holds it.
    ///
    /// # Errors
    /// [`PoisonError`] if a holder panicked or died while holding the mutex, and its poison was not
    /// [cleared](Self::clear_poison) since. The guard is inside the error.
    ///
    /// # Panics
    /// If this thread has 2^32 - 1 guards already.
    ///
    /// # If the other process dies
    /// A holder that dies gives the mutex back: this returns within a tenth of a second, with an error.
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
            // Without a deadline there is no end to the waiting but the lock.
            if let Some(taken) = self.take(|lock| lock.lock(None)) {
                return self.guard(taken);
            }
        }
    }

    /// Takes the mutex if no other thread holds it.
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
        match self.take(Lock::try_lock) {
            Some(taken) => Ok(self.guard(taken)?),
            None => Err(TryLockError::WouldBlock),
        }
    }

    /// Takes the mutex, waiting for so long at most.
    ///
    /// # Errors
    /// - [`TryLockError::WouldBlock`]: the time is over, and another thread holds it still.
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
        match self.take(|lock| lock.lock(deadline)) {
            Some(taken) => Ok(self.guard(taken)?),
            None => Err(TryLockError::WouldBlock),
        }
    }

    /// Whether a holder panicked or died while holding the mutex.
    ///
    /// A death is noticed by the next one that takes the mutex, and shows from then on.
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

    /// Clears the poison: the caller has seen to it that the data is as it should be.
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

    /// The data, which no other thread can reach while `self` is borrowed like this.
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

    /// One guard more for this thread, if it holds the mutex or can take it in the way given.
    fn take(&self, lock: impl FnOnce(&Lock) -> Option<Taken>) -> Option<Taken> {
        if self.is_held_by_this_thread() {
            let count = self.count.load(Relaxed).checked_add(1);
            self.count.store(count.expect("too many guards of one mutex in one thread"), Relaxed);
            return Some(Taken::Free);
        }
        let taken = lock(&self.lock)?;
        self.holder.store(this_thread(), Relaxed);
        self.count.store(1, Relaxed);
        Some(taken)
    }

    fn guard(&self, taken: Taken) -> LockResult<ReentrantMutexGuard<'_, T>> {
        let before = self.poison.taken(taken);
        self.poison.result(ReentrantMutexGuard { mutex: self, before, kind: PhantomData })
    }

    /// The holder of the mutex, in words, as far as that can be said without holding it.
    fn held_by(&self) -> String {
        let count = self.count.load(Relaxed);
        match self.lock.owner() {
            None => "nobody".into(),
            Some(_) if self.is_held_by_this_thread() => format!("this thread, {count} times"),
            Some(_) if self.lock.is_held_by_own() => format!("another thread of this process, {count} times"),
            Some(_) => format!("another process, {count} times"),
        }
    }

    /// Whether the holder is called as this thread is, or as it was before its process entered the table of members.
    fn is_held_by_this_thread(&self) -> bool {
        let holder = self.holder.load(Relaxed);
        let own = |member| Member::of_bits(member).is_some_and(members::is_own);
        holder >> 32 == u64::from(number()) && own(u32::try_from(holder & u64::from(u32::MAX)).unwrap_or(0))
    }
}

thread_local! {
    /// The number of this thread, which no other of this process ever has.
    static NUMBER: Cell<u32> = const { Cell::new(0) };
}

fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    if NUMBER.get() == 0 {
        NUMBER.set(NEXT.fetch_add(1, Relaxed));
    }
    NUMBER.get()
}

/// The name of this thread of this process, unlike any other's that lives. A copy made by `fork()` has another.
fn this_thread() -> u64 {
    u64::from(number()) << 32 | u64::from(members::own().bits())
}

impl<T: ?Sized> Deref for ReentrantMutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // The lock is held by this thread, which the guard does not leave, and no guard lends the data for changing.
        self.mutex.data.lend()
    }
}

impl<T: ?Sized> Drop for ReentrantMutexGuard<'_, T> {
    fn drop(&mut self) {
        let mutex = self.mutex;
        mutex.poison.giving_back(self.before);
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

/// Shows the data if this thread may look at it, and the holder of the mutex.
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
