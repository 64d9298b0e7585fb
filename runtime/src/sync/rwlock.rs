//! [`RwLock`]: data that many threads read or one changes, in whichever process.
//!
//! Owns: a [`RawRwLock`] and the data. Runs in: any process.
//! Invariant: no thread waits for a dead reader or writer, and the next holder gets a writer's death as poison.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::RefUnwindSafe;
use std::time::Duration;

use super::deadline::Deadline;
use super::lock::Acquired;
use super::poison::{LockResult, PoisonError, PoisonGuard, TryLockError, TryLockResult};
use super::proc_table::ProcId;
use super::raw_rwlock::RawRwLock;
use crate::shared::cell::RwCell;

/// Data that many threads read at a time, or one changes, in whichever process: [`std::sync::RwLock`].
///
/// A plain value that works where it lies: in a [`Shared`](crate::Shared) for several processes, and in a `static` or an
/// [`Arc`](std::sync::Arc) for the threads of one. It has the methods of [`std::sync::RwLock`], and some with a time-out.
/// Readers that come one after the other do not keep a writer waiting: once one waits, no reader begins before it has had the
/// lock. So a thread that reads must not ask to read once more: that may wait for ever.
///
/// Up to 256 processes read at a time, each in any number of threads; a further one waits as if the lock were held for
/// writing.
///
/// # Poisoning
/// A panic while a [write guard](RwLockWriteGuard) is held poisons the lock, as in the standard library, and so does the end of a
/// process that holds one. Both mean that the data may be half changed. Nothing that a reader does poisons it.
///
/// # If the other process dies
/// A reader that dies is forgotten; a writer that dies unlocks and poisons: a waiting thread gets it within a
/// tenth of a second. A process that only waited costs nothing.
///
/// # Examples
/// That of [`std::sync::RwLock`], in which tasks read:
/// ```
/// use process_task::sync::RwLock;
/// use process_task::{Shared, process_task};
///
/// #[process_task]
/// fn read(lock: &Shared<RwLock<i32>>) {
///     // many readers can hold the lock at once, in whichever process
///     let r1 = lock.read().unwrap();
///     let r2 = lock.read().unwrap();
///     assert_eq!(*r1, 5);
///     assert_eq!(*r2, 5);
/// } // read locks are dropped at this point
///
/// let lock = Shared::new(RwLock::new(5))?;
/// let readers = [read.spawn(&lock), read.spawn(&lock)];
/// for reader in readers {
///     reader.join()?;
/// }
///
/// // only one write lock may be held, however
/// {
///     let mut w = lock.write().unwrap();
///     *w += 1;
///     assert_eq!(*w, 6);
/// } // write lock is dropped here
/// # process_task::Result::Ok(())
/// ```
#[repr(C)]
pub struct RwLock<T: ?Sized> {
    raw: RawRwLock,
    data: RwCell<T>,
}

/// Shared access to the data of a [`RwLock`]. Dropping it unlocks.
///
/// It belongs to the thread that took it. In a copy of the process that a plain `fork()` made, dropping it does nothing.
///
/// # If the other process dies
/// If this process ends before the guard is dropped, the guard is forgotten.
///
/// # Examples
/// See [`RwLock`].
#[must_use = "if unused the lock unlocks at once"]
#[clippy::has_significant_drop]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    reader: ProcId,
    /// Not `Send`, as the standard library's; and `Sync` where `T` is.
    kind: PhantomData<(std::sync::MutexGuard<'a, ()>, &'a T)>,
}

/// Exclusive access to the data of a [`RwLock`]. Dropping it unlocks.
///
/// It belongs to the thread that took it. In a copy of the process that a plain `fork()` made, dropping it does nothing.
///
/// # If the other process dies
/// If this process ends before the guard is dropped, the lock is free again, and poisoned.
///
/// # Examples
/// See [`RwLock`].
#[must_use = "if unused the lock unlocks at once"]
#[clippy::has_significant_drop]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    writer: ProcId,
    poison: PoisonGuard,
    /// Not `Send`, as the standard library's; and `Sync` where `T` is.
    kind: PhantomData<(std::sync::MutexGuard<'a, ()>, &'a mut T)>,
}

impl<T> RwLock<T> {
    /// Creates an unlocked lock.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::RwLock;
    ///
    /// static LIMITS: RwLock<[u32; 2]> = RwLock::new([0, 100]);
    /// assert_eq!(LIMITS.read().unwrap()[1], 100);
    /// ```
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self { raw: RawRwLock::new(), data: RwCell::new(value) }
    }

    /// Consumes the lock and returns the data.
    ///
    /// # Errors
    /// If the lock is poisoned; the data is inside the error.
    ///
    /// # If the other process dies
    /// No other process has the lock.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::RwLock;
    ///
    /// assert_eq!(RwLock::new(5).into_inner().unwrap(), 5);
    /// ```
    pub fn into_inner(self) -> LockResult<T> {
        let data = self.data.into_inner();
        if self.raw.poison().get() { Err(PoisonError::new(data)) } else { Ok(data) }
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Locks for reading, waiting as long as it takes.
    ///
    /// # Errors
    /// [`PoisonError`] if a writer panicked or died, and its poison was not [cleared](Self::clear_poison) since. The guard
    /// is inside the error.
    ///
    /// # If the other process dies
    /// A writer that dies unlocks: this returns within a tenth of a second, with an error.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::RwLock;
    ///
    /// let lock = RwLock::new(1);
    /// assert_eq!(*lock.read().unwrap(), 1);
    /// ```
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.read_guard(until_acquired(|deadline| self.raw.lock_shared(deadline)))
    }

    /// Locks for reading if no thread holds the lock for writing or waits for that.
    ///
    /// # Errors
    /// - [`TryLockError::WouldBlock`]: a thread does.
    /// - [`TryLockError::Poisoned`]: as for [`read`](Self::read).
    ///
    /// # If the other process dies
    /// A lock with a writer that is known to be dead is free, and poisoned. A death is known within a few milliseconds.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::RwLock;
    ///
    /// let lock = RwLock::new(1);
    /// let guard = lock.write().unwrap();
    /// assert!(lock.try_read().is_err());
    /// # drop(guard);
    /// ```
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.read_guard_of(self.raw.lock_shared(Deadline::Now))
    }

    /// Locks for reading, waiting for `timeout` at most.
    ///
    /// # Errors
    /// - [`TryLockError::WouldBlock`]: it timed out.
    /// - [`TryLockError::Poisoned`]: as for [`read`](Self::read).
    ///
    /// # If the other process dies
    /// As for [`read`](Self::read).
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::RwLock;
    /// use std::time::Duration;
    ///
    /// let lock = RwLock::new(1);
    /// let guard = lock.write().unwrap();
    /// assert!(lock.read_timeout(Duration::from_millis(1)).is_err());
    /// # drop(guard);
    /// ```
    pub fn read_timeout(&self, timeout: Duration) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.read_guard_of(self.raw.lock_shared(Deadline::after(timeout)))
    }

    /// Locks for writing, waiting as long as it takes.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    ///
    /// # If the other process dies
    /// A reader or writer that dies unlocks: this returns within a tenth of a second, with an error if it was the writer.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::RwLock;
    ///
    /// let lock = RwLock::new(1);
    /// *lock.write().unwrap() += 1;
    /// assert_eq!(*lock.read().unwrap(), 2);
    /// ```
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.write_guard(until_acquired(|deadline| self.raw.lock_exclusive(deadline)))
    }

    /// Locks for writing if the lock is free.
    ///
    /// # Errors
    /// - [`TryLockError::WouldBlock`]: it is held.
    /// - [`TryLockError::Poisoned`]: as for [`read`](Self::read).
    ///
    /// # If the other process dies
    /// A lock with holders that are known to be dead is free. A death is known within a few milliseconds.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::RwLock;
    ///
    /// let lock = RwLock::new(1);
    /// let guard = lock.read().unwrap();
    /// assert!(lock.try_write().is_err());
    /// # drop(guard);
    /// ```
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.write_guard_of(self.raw.lock_exclusive(Deadline::Now))
    }

    /// Locks for writing, waiting for `timeout` at most.
    ///
    /// # Errors
    /// - [`TryLockError::WouldBlock`]: it timed out.
    /// - [`TryLockError::Poisoned`]: as for [`read`](Self::read).
    ///
    /// # If the other process dies
    /// As for [`write`](Self::write).
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::RwLock;
    /// use std::time::Duration;
    ///
    /// let lock = RwLock::new(1);
    /// let guard = lock.read().unwrap();
    /// assert!(lock.write_timeout(Duration::from_millis(1)).is_err());
    /// # drop(guard);
    /// ```
    pub fn write_timeout(&self, timeout: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.write_guard_of(self.raw.lock_exclusive(Deadline::after(timeout)))
    }

    /// Returns whether a writer panicked or died. A death is noticed by the next thread that locks.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::RwLock;
    ///
    /// let lock = RwLock::new(1);
    /// let panicked = std::thread::scope(|scope| {
    ///     scope.spawn(|| { let _guard = lock.write(); panic!() }).join()
    /// });
    /// assert!(panicked.is_err() && lock.is_poisoned());
    /// ```
    pub fn is_poisoned(&self) -> bool {
        self.raw.poison().get()
    }

    /// Clears the poison, once the caller has checked or repaired the data.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::RwLock;
    ///
    /// let lock = RwLock::new(1);
    /// # std::thread::scope(|scope| scope.spawn(|| { let _guard = lock.write(); panic!() }).join().unwrap_err());
    /// // A thread panicked while writing.
    /// *lock.write().unwrap_err().into_inner() = 1;
    /// lock.clear_poison();
    /// assert!(lock.read().is_ok());
    /// ```
    pub fn clear_poison(&self) {
        self.raw.poison().clear();
    }

    /// Returns the data, which no other thread can reach while `self` is borrowed mutably.
    ///
    /// # Errors
    /// If the lock is poisoned; the reference is inside the error.
    ///
    /// # If the other process dies
    /// No other process has the lock.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::RwLock;
    ///
    /// let mut lock = RwLock::new(0);
    /// *lock.get_mut().unwrap() = 10;
    /// assert_eq!(*lock.read().unwrap(), 10);
    /// ```
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let data = self.data.get_mut();
        if self.raw.poison().get() { Err(PoisonError::new(data)) } else { Ok(data) }
    }

    fn read_guard(&self, reader: ProcId) -> LockResult<RwLockReadGuard<'_, T>> {
        self.raw.poison().result(RwLockReadGuard { lock: self, reader, kind: PhantomData })
    }

    fn read_guard_of(&self, reader: Option<ProcId>) -> TryLockResult<RwLockReadGuard<'_, T>> {
        reader.map_or(Err(TryLockError::WouldBlock), |reader| Ok(self.read_guard(reader)?))
    }

    fn write_guard(&self, writer: ProcId) -> LockResult<RwLockWriteGuard<'_, T>> {
        let flag = self.raw.poison();
        let poison = flag.guard(Acquired::Clean);
        flag.result(RwLockWriteGuard { lock: self, writer, poison, kind: PhantomData })
    }

    fn write_guard_of(&self, writer: Option<ProcId>) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        writer.map_or(Err(TryLockError::WouldBlock), |writer| Ok(self.write_guard(writer)?))
    }
}

/// Repeats `take` until it succeeds: without a deadline only the lock ends the wait.
fn until_acquired(take: impl Fn(Deadline) -> Option<ProcId>) -> ProcId {
    loop {
        if let Some(member) = take(Deadline::Never) {
            return member;
        }
    }
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Turns the write guard into a read guard, without another writer in between.
    ///
    /// # If the other process dies
    /// As for a read guard, from now on.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::{RwLock, RwLockWriteGuard};
    ///
    /// let lock = RwLock::new(0);
    /// let mut guard = lock.write().unwrap();
    /// *guard += 1;
    /// let guard = RwLockWriteGuard::downgrade(guard);
    /// assert_eq!((*guard, *lock.read().unwrap()), (1, 1));
    /// ```
    pub fn downgrade(guard: Self) -> RwLockReadGuard<'a, T> {
        let guard = ManuallyDrop::new(guard);
        let (lock, reader) = (guard.lock, guard.writer);
        lock.raw.downgrade(reader);
        RwLockReadGuard { lock, reader, kind: PhantomData }
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // There is no writer while this reader holds the lock.
        self.lock.data.lend()
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // There is no other writer, and a change of the data borrows this guard mutably.
        self.lock.data.lend()
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // No other thread holds the lock, and this guard is borrowed for as long as the reference lives.
        self.lock.data.lend_mut()
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.raw.unlock_shared(self.reader);
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.raw.poison().done(self.poison);
        self.lock.raw.unlock_exclusive(self.writer);
    }
}

// A panic while the data is changed poisons the lock, which is what unwind safety asks for.
impl<T: ?Sized> RefUnwindSafe for RwLock<T> {}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// Shows the data, unless there is a writer.
impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RwLock");
        match self.try_read() {
            Ok(guard) => shown.field("data", &&*guard),
            Err(TryLockError::Poisoned(poisoned)) => shown.field("data", &&**poisoned.get_ref()),
            Err(TryLockError::WouldBlock) => shown.field("data", &format_args!("<locked>")),
        };
        shown.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
