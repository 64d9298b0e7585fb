//! [`Mutex`]: data that one thread at a time changes, in whichever process.
//!
//! Owns: a lock, its poison flag and the data. Runs in: any process.
//! Invariant: no thread waits for a dead holder, and the next holder gets its death as poison.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::RefUnwindSafe;
use std::time::Duration;

use super::futex_wait::deadline_after;
use super::lock::{Acquired, RobustLock};
use super::poison::{LockResult, Poison, PoisonError, PoisonGuard, TryLockError, TryLockResult};
use crate::shared::cell::LockCell;

/// Data that one thread at a time reaches, in whichever process: [`std::sync::Mutex`], and Python's `multiprocessing.Lock`.
///
/// A plain value that works where it lies: in a [`Shared`](crate::Shared) for several processes, and in a `static` or an
/// [`Arc`](std::sync::Arc) for the threads of one. It has the methods of [`std::sync::Mutex`], and
/// [`lock_timeout`](Self::lock_timeout).
///
/// # Poisoning
/// A panic while a guard is held poisons the mutex, as in the standard library, and so does the end of a process that holds one:
/// a crash, kill -9, or an exit with a guard that was never dropped. Both mean that the data may be half changed. From then on every
/// [`lock`](Self::lock) returns an error, with the guard inside: look at the data, repair it, and
/// [`clear_poison`](Self::clear_poison).
///
/// # If the other process dies
/// A holder that dies, however, unlocks the mutex and poisons it: a waiting thread gets it within a tenth of a second. A
/// waiter that dies costs nothing.
///
/// # Examples
/// ```
/// use process_task::sync::Mutex;
/// use process_task::{Pool, Shared, process_task};
///
/// #[process_task]
/// fn count(times: u64, total: &Shared<Mutex<u64>>) {
///     for _ in 0..times {
///         *total.lock().unwrap() += 1;
///     }
/// }
///
/// let total = Shared::new(Mutex::new(0))?;
/// Pool::new()?.map(count, [(1000, &total), (2000, &total)])?;
/// assert_eq!(*total.lock().unwrap(), 3000);
/// # process_task::Result::Ok(())
/// ```
///
/// A holder that was killed:
/// ```
/// use process_task::sync::Mutex;
/// use process_task::{Shared, process_task};
///
/// #[process_task]
/// fn die(account: &Shared<Mutex<[u64; 2]>>) {
///     let mut account = account.lock().unwrap();
///     account[0] -= 10;
///     std::process::abort(); // before `account[1] += 10`
/// }
///
/// let account = Shared::new(Mutex::new([100, 0]))?;
/// assert!(die.spawn(&account).join().is_err());
///
/// let mut guard = account.lock().unwrap_err().into_inner(); // poisoned
/// *guard = [100, 0];
/// account.clear_poison();
/// drop(guard);
/// assert!(account.lock().is_ok());
/// # process_task::Result::Ok(())
/// ```
#[doc(alias = "Lock")]
#[doc(alias = "Value")]
#[repr(C)]
pub struct Mutex<T: ?Sized> {
    lock: RobustLock,
    poison: Poison,
    data: LockCell<T>,
}

/// Access to the data of a [`Mutex`]. Dropping it unlocks the mutex.
///
/// It belongs to the thread that took it, and does not travel.
///
/// # If the other process dies
/// If this process ends before the guard is dropped, the mutex is free again, and poisoned.
///
/// # Examples
/// ```
/// use process_task::sync::Mutex;
///
/// let numbers = Mutex::new([3, 1, 2]);
/// let mut guard = numbers.lock().unwrap();
/// guard.sort();
/// assert_eq!(*guard, [1, 2, 3]);
/// ```
///
/// It stays with its thread:
/// ```compile_fail,E0277
/// use process_task::sync::Mutex;
///
/// let value = Mutex::new(0);
/// let guard = value.lock().unwrap();
/// std::thread::scope(|scope| scope.spawn(move || drop(guard)).join());
/// ```
/// and what only one thread may look at is not shown to others:
/// ```compile_fail,E0277
/// use process_task::sync::Mutex;
///
/// let value = Mutex::new(std::cell::Cell::new(0));
/// let guard = value.lock().unwrap();
/// std::thread::scope(|scope| scope.spawn(|| guard.get()).join());
/// ```
#[must_use = "if unused the mutex unlocks at once"]
#[clippy::has_significant_drop]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    poison: PoisonGuard,
    /// Not `Send`, as the standard library's; and `Sync` where `T` is.
    kind: PhantomData<(std::sync::MutexGuard<'a, ()>, &'a mut T)>,
}

impl<T> Mutex<T> {
    /// Creates an unlocked mutex.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Mutex;
    ///
    /// static NAMES: Mutex<[u8; 4]> = Mutex::new([0; 4]);
    /// assert_eq!(*NAMES.lock().unwrap(), [0; 4]);
    /// ```
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self { lock: RobustLock::new(), poison: Poison::new(), data: LockCell::new(value) }
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
    /// use process_task::sync::Mutex;
    ///
    /// assert_eq!(Mutex::new(5).into_inner().unwrap(), 5);
    /// ```
    pub fn into_inner(self) -> LockResult<T> {
        let data = self.data.into_inner();
        if self.poison.get() { Err(PoisonError::new(data)) } else { Ok(data) }
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Locks the mutex, waiting as long as it takes.
    ///
    /// A thread that holds the mutex already waits for ever; [`ReentrantMutex`](super::ReentrantMutex) allows that.
    ///
    /// # Errors
    /// [`PoisonError`] if a holder panicked or died while holding the mutex, and its poison was not
    /// [cleared](Self::clear_poison) since. The guard is inside the error.
    ///
    /// # If the other process dies
    /// A holder that dies unlocks the mutex: this returns within a tenth of a second, with an error.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Mutex;
    ///
    /// let total = Mutex::new(1);
    /// *total.lock().unwrap() += 1;
    /// assert_eq!(*total.lock().unwrap(), 2);
    /// ```
    #[inline]
    #[doc(alias = "acquire")]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        loop {
            // Without a deadline only the lock ends the wait.
            if let Some(acquired) = self.lock.lock(None) {
                return self.guard(acquired);
            }
        }
    }

    /// Locks the mutex if it is free.
    ///
    /// # Errors
    /// - [`TryLockError::WouldBlock`]: it is held.
    /// - [`TryLockError::Poisoned`]: as for [`lock`](Self::lock).
    ///
    /// # If the other process dies
    /// A mutex with a holder that is known to be dead is free, and poisoned. A death is known within a few milliseconds.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Mutex;
    ///
    /// let door = Mutex::new(());
    /// let guard = door.try_lock().unwrap();
    /// assert!(door.try_lock().is_err());
    /// drop(guard);
    /// assert!(door.try_lock().is_ok());
    /// ```
    #[inline]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        match self.lock.try_lock() {
            Some(acquired) => Ok(self.guard(acquired)?),
            None => Err(TryLockError::WouldBlock),
        }
    }

    /// Locks the mutex, waiting for `timeout` at most.
    ///
    /// # Errors
    /// - [`TryLockError::WouldBlock`]: the mutex was held for all of that time.
    /// - [`TryLockError::Poisoned`]: as for [`lock`](Self::lock).
    ///
    /// # If the other process dies
    /// As for [`lock`](Self::lock).
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::{Mutex, TryLockError};
    /// use std::time::Duration;
    ///
    /// let door = Mutex::new(());
    /// let guard = door.lock_timeout(Duration::from_millis(10)).unwrap();
    /// let late = door.lock_timeout(Duration::from_millis(10));
    /// assert!(matches!(late, Err(TryLockError::WouldBlock)));
    /// # drop(guard);
    /// ```
    pub fn lock_timeout(&self, timeout: Duration) -> TryLockResult<MutexGuard<'_, T>> {
        match self.lock.lock(deadline_after(timeout)) {
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
    /// use process_task::sync::Mutex;
    ///
    /// let value = Mutex::new(1);
    /// let panicked = std::thread::scope(|scope| {
    ///     scope.spawn(|| { let _guard = value.lock(); panic!() }).join()
    /// });
    /// assert!(panicked.is_err() && value.is_poisoned());
    /// ```
    pub fn is_poisoned(&self) -> bool {
        self.poison.get()
    }

    /// Clears the poison, once the caller has checked or repaired the data.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Mutex;
    ///
    /// let value = Mutex::new(1);
    /// # std::thread::scope(|scope| scope.spawn(|| { let _guard = value.lock(); panic!() }).join().unwrap_err());
    /// // A thread panicked while holding the mutex.
    /// let mut guard = value.lock().unwrap_or_else(|poisoned| {
    ///     value.clear_poison();
    ///     poisoned.into_inner()
    /// });
    /// *guard = 1;
    /// drop(guard);
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
    /// use process_task::sync::Mutex;
    ///
    /// let mut value = Mutex::new(0);
    /// *value.get_mut().unwrap() = 10;
    /// assert_eq!(*value.lock().unwrap(), 10);
    /// ```
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let data = self.data.get_mut();
        if self.poison.get() { Err(PoisonError::new(data)) } else { Ok(data) }
    }

    #[inline]
    fn guard(&self, acquired: Acquired) -> LockResult<MutexGuard<'_, T>> {
        let poison = self.poison.guard(acquired);
        self.poison.result(MutexGuard { mutex: self, poison, kind: PhantomData })
    }
}

impl<T: ?Sized> MutexGuard<'_, T> {
    /// Unlocks the mutex for a while. Until [`relock`](Self::relock), the owner of the guard must not use it, and must not
    /// panic.
    pub(super) fn unlock_for_wait(&self) {
        self.mutex.lock.unlock();
    }

    /// Locks the mutex again.
    pub(super) fn relock(&self) {
        loop {
            match self.mutex.lock.lock(None) {
                Some(Acquired::Clean) => return,
                Some(Acquired::OwnerDied) => return self.mutex.poison.set(),
                None => {}
            }
        }
    }

    /// Returns this guard, as an error if the mutex is poisoned.
    pub(super) fn checked(self) -> LockResult<Self> {
        self.mutex.poison.result(self)
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // The lock is held, and a change of the data borrows this guard mutably.
        self.mutex.data.lend()
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // The lock is held, and this guard is borrowed for as long as the reference lives.
        self.mutex.data.lend_mut()
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.poison.done(self.poison);
        self.mutex.lock.unlock();
    }
}

// A panic while the data is reached poisons the mutex, which is what unwind safety asks for.
impl<T: ?Sized> RefUnwindSafe for Mutex<T> {}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// Shows the data, unless the mutex is held: then it shows the holder.
impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => shown.field("data", &&*guard),
            Err(TryLockError::Poisoned(poisoned)) => shown.field("data", &&**poisoned.get_ref()),
            Err(TryLockError::WouldBlock) if self.lock.is_held_by_own() => {
                shown.field("data", &format_args!("<held by this process>"))
            }
            Err(TryLockError::WouldBlock) => shown.field("data", &format_args!("<held by another process>")),
        };
        shown.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
