//! [`Lock`], [`ReentrantLock`] and [`Condition`]: mutual exclusion by a manager.
//!
//! Runs in: clients.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::raw_lock::{LockAnswer, RawLockProxy};
use super::typed::{managed_type, release};
use crate::error::{Error, Result};
use crate::manager::handle::ManagerHandle;
use crate::sync::{LockResult, PoisonError};

managed_type! {
    /// A lock in a manager: Python's `Lock`. It is released by the guard that [`lock`](Self::lock) returns.
    ///
    /// Where all processes run on one machine, a [`Mutex`](crate::sync::Mutex) is a lock without a manager, at the speed of
    /// memory, with the data inside.
    ///
    /// # If the other process dies
    /// The lock is released at once, and poisoned: the next to lock it gets a [`PoisonError`] with the guard in it. A panic while
    /// a guard is there poisons it, too. Calls that wait cost no thread of the manager.
    ///
    /// # Examples
    /// ```
    /// use process_task::Manager;
    /// use process_task::managed::Lock;
    ///
    /// let manager = Manager::start()?;
    /// let lock = Lock::new(&manager)?;
    /// let guard = lock.lock()?.unwrap();
    /// assert!(lock.try_lock()?.is_none());
    /// drop(guard);
    /// assert!(lock.try_lock()?.is_some());
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("AcquirerProxy", "SyncManager.Lock"))]
    Lock<>, RawLockProxy
}

managed_type! {
    /// A lock in a manager that its thread can lock again: Python's `RLock`. It is released with the last guard.
    ///
    /// # If the other process dies
    /// As with a [`Lock`].
    ///
    /// # Examples
    /// ```
    /// use process_task::Manager;
    /// use process_task::managed::ReentrantLock;
    ///
    /// let manager = Manager::start()?;
    /// let lock = ReentrantLock::new(&manager)?;
    /// let outer = lock.lock()?.unwrap();
    /// let inner = lock.lock()?.unwrap();
    /// drop((outer, inner));
    /// assert!(!lock.is_locked()?);
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("RLock", "SyncManager.RLock"))]
    ReentrantLock<>, RawLockProxy
}

/// What a call that locks is known by in this process.
fn next_owner() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    // The upper half is of threads.
    LAST.fetch_add(1, Relaxed) & (u64::MAX >> 1)
}

/// What this thread is known by in this process.
fn thread_owner() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static OWN: Cell<u64> = const { Cell::new(0) };
    }
    if OWN.get() == 0 {
        OWN.set((1 << 63) | (LAST.fetch_add(1, Relaxed) + 1));
    }
    OWN.get()
}

fn locked(raw: &RawLockProxy, grant: u64, poisoned: bool) -> LockResult<LockGuard<'_>> {
    let guard = LockGuard { raw, grant, was_panicking: thread::panicking(), not_send: PhantomData };
    if poisoned { Err(PoisonError::new(guard)) } else { Ok(guard) }
}

fn lock(raw: &RawLockProxy, owner: u64) -> Result<LockResult<LockGuard<'_>>> {
    let mut answer = raw.try_lock(owner)?;
    while answer == LockAnswer::Busy {
        answer = raw.later().lock(owner).join()?;
    }
    settled(raw, answer)?.ok_or_else(not_held)
}

fn try_lock(raw: &RawLockProxy, owner: u64) -> Result<Option<LockResult<LockGuard<'_>>>> {
    settled(raw, raw.try_lock(owner)?)
}

fn settled(raw: &RawLockProxy, answer: LockAnswer) -> Result<Option<LockResult<LockGuard<'_>>>> {
    match answer {
        LockAnswer::Locked { poisoned, grant } => Ok(Some(locked(raw, grant, poisoned))),
        LockAnswer::Busy => Ok(None),
        LockAnswer::NotHeld => Err(not_held()),
    }
}

#[cold]
fn not_held() -> Error {
    Error::invalid("the lock is not held by this guard: it was taken back, since its call was over")
}

macro_rules! lock_methods {
    ($Lock:ident, $is_reentrant:literal, $owner:ident) => {
        impl $Lock {
            /// Makes a lock in `manager`.
            ///
            /// # Errors
            /// The manager is gone.
            pub fn new(manager: &impl AsRef<ManagerHandle>) -> Result<Self> {
                RawLockProxy::new(manager, $is_reentrant).map(Self::of)
            }

            /// Locks, waiting as long as it takes; with [`with_timeout`](Self::with_timeout), for so long at most.
            ///
            /// # Errors
            /// The manager is gone, or the time is over. Inside: the lock is poisoned, and locked all the same.
            #[doc(alias = "acquire")]
            pub fn lock(&self) -> Result<LockResult<LockGuard<'_>>> {
                lock(&self.raw, $owner())
            }

            /// Locks, if that can be done at once.
            ///
            /// # Errors
            /// As [`lock`](Self::lock).
            pub fn try_lock(&self) -> Result<Option<LockResult<LockGuard<'_>>>> {
                try_lock(&self.raw, $owner())
            }

            /// Whether it is locked now, by any process.
            ///
            /// # Errors
            /// The manager is gone.
            #[doc(alias = "locked")]
            pub fn is_locked(&self) -> Result<bool> {
                self.raw.is_locked()
            }

            /// Whether a holder has panicked or died.
            ///
            /// # Errors
            /// The manager is gone.
            pub fn is_poisoned(&self) -> Result<bool> {
                self.raw.poisoned()
            }

            /// Forgets that a holder has panicked or died.
            ///
            /// # Errors
            /// The manager is gone.
            pub fn clear_poison(&self) -> Result<()> {
                self.raw.forgive()
            }

            /// Makes a condition of this lock.
            ///
            /// # Errors
            /// The manager is gone.
            pub fn condition(&self) -> Result<Condition> {
                Ok(Condition { number: self.raw.new_condition()?, raw: self.raw.clone() })
            }
        }
    };
}
lock_methods!(Lock, false, next_owner);
lock_methods!(ReentrantLock, true, thread_owner);

/// Keeps a lock of a manager locked until it is dropped.
#[must_use = "the lock is released at once if this is dropped"]
pub struct LockGuard<'l> {
    raw: &'l RawLockProxy,
    /// What it gives back.
    grant: u64,
    was_panicking: bool,
    /// A thread's guards are its own.
    not_send: PhantomData<*const ()>,
}

impl LockGuard<'_> {
    /// Releases the lock, and says whether that went well, as a drop does not.
    ///
    /// # Errors
    /// The manager is gone, or has taken the lock back. Or the proxy's time is over: then the lock is released as soon as the
    /// manager comes to that.
    #[doc(alias = "release")]
    pub fn unlock(self) -> Result<()> {
        let outcome = self.release();
        let _released = std::mem::ManuallyDrop::new(self);
        outcome
    }

    fn release(&self) -> Result<()> {
        let poisons = !self.was_panicking && thread::panicking();
        match release!(self.raw, unlock(self.grant, poisons))? {
            LockAnswer::NotHeld => Err(not_held()),
            _ => Ok(()),
        }
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        // If the manager is gone, so is the lock.
        let _ = self.release();
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LockGuard").field(self.raw).finish()
    }
}

/// Lets calls wait until another process notifies them, while a lock of a manager is released: Python's `Condition`.
///
/// Made by [`Lock::condition`] and [`ReentrantLock::condition`]. It can be cloned and passed to tasks, as the lock can.
///
/// # If the other process dies
/// One that waits costs nothing: a notification that was given to it goes to the next one. If it has the lock again already,
/// the lock is poisoned.
///
/// # Examples
/// ```
/// use process_task::managed::{Condition, Lock, Value};
/// use process_task::{Manager, process_task};
///
/// #[process_task]
/// fn open(lock: Lock, opened: Condition, door: Value<bool>) {
///     let guard = lock.lock().unwrap().unwrap();
///     door.set(true).unwrap();
///     opened.notify_all().unwrap();
///     drop(guard);
/// }
///
/// let manager = Manager::start()?;
/// let (lock, door) = (Lock::new(&manager)?, Value::new(&manager, false)?);
/// let opened = lock.condition()?;
/// let mut guard = lock.lock()?.unwrap();
/// let opener = open.spawn(lock.clone(), opened.clone(), door.clone());
/// while !door.get()? {
///     guard = opened.wait(guard)?.unwrap();
/// }
/// drop(guard);
/// opener.join()?;
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[doc(alias("ConditionProxy", "SyncManager.Condition"))]
pub struct Condition {
    raw: RawLockProxy,
    number: u64,
}

impl Condition {
    /// Releases the lock, waits until another thread or process notifies this one, and locks again.
    ///
    /// It may also return without that: check what was waited for.
    ///
    /// # Errors
    /// The manager is gone; the lock's time is over, and then it was not locked again; or `guard` is of another lock.
    /// Inside: the lock is poisoned.
    pub fn wait<'l>(&self, guard: LockGuard<'l>) -> Result<LockResult<LockGuard<'l>>> {
        let guard = std::mem::ManuallyDrop::new(guard);
        let (raw, grant) = (guard.raw, guard.grant);
        if *raw != self.raw {
            drop(std::mem::ManuallyDrop::into_inner(guard));
            return Err(Error::invalid("the guard is of another lock than the condition"));
        }
        let answer = raw.later().wait(self.number, grant).join().inspect_err(|_| {
            // The wait may not have begun, and then the lock is still held. If it has, this gives back nothing.
            drop(raw.with_timeout(Duration::MAX).later().unlock(grant, false));
        })?;
        settled(raw, answer)?.ok_or_else(not_held)
    }

    /// As [`wait`](Self::wait), until `is_done` says that what was waited for is there.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and those of `is_done`.
    #[doc(alias = "wait_for")]
    pub fn wait_until<'l>(
        &self,
        mut guard: LockGuard<'l>,
        mut is_done: impl FnMut() -> Result<bool>,
    ) -> Result<LockResult<LockGuard<'l>>> {
        while !is_done()? {
            match self.wait(guard)? {
                Ok(again) => guard = again,
                poisoned => return Ok(poisoned),
            }
        }
        Ok(Ok(guard))
    }

    /// Wakes one that waits, if there is one. Returns whether there was.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "notify")]
    pub fn notify_one(&self) -> Result<bool> {
        Ok(self.notify_n(1)? == 1)
    }

    /// Wakes so many that wait. Returns how many.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn notify_n(&self, count: usize) -> Result<usize> {
        self.raw.notify(self.number, count)
    }

    /// Wakes all that wait. Returns how many.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn notify_all(&self) -> Result<usize> {
        self.notify_n(usize::MAX)
    }
}
