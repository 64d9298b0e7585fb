//! The flag that a thread may have left data half changed, by a panic or by dying while it held the lock.
//!
//! Owns: [`Poison`], one word beside a lock. Runs in: any process.
//! Invariant: only the holder of the lock beside it writes it. Any thread reads it.

use std::thread;

use super::atomic::AtomicU32;
use super::atomic::Ordering::Relaxed;
use super::lock::Acquired;

pub use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

/// See the [module](self).
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Poison {
    /// 0: not poisoned.
    word: AtomicU32,
}

/// Whether this thread was panicking when it took a lock. Then that panic is no reason to poison it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoisonGuard(bool);

impl Poison {
    pub(crate) const fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    /// Begins to watch for a panic, once the lock beside this has been taken. Call [`result`](Self::result) when the guard is made.
    #[inline]
    pub(crate) fn guard(&self, acquired: Acquired) -> PoisonGuard {
        if acquired == Acquired::OwnerDied {
            self.set();
        }
        PoisonGuard(thread::panicking())
    }

    /// Returns `guard`, as an error if the flag is set.
    #[inline]
    pub(crate) fn result<G>(&self, guard: G) -> LockResult<G> {
        if self.get() { Err(PoisonError::new(guard)) } else { Ok(guard) }
    }

    /// Poisons if this thread panics and did not when it took the lock, which it is about to release.
    #[inline]
    pub(crate) fn done(&self, before: PoisonGuard) {
        if !before.0 && thread::panicking() {
            self.set();
        }
    }

    /// Sets the flag: data may be half changed.
    #[cold]
    pub(crate) fn set(&self) {
        self.word.store(1, Relaxed);
    }

    /// Returns whether the flag is set.
    #[inline]
    pub(crate) fn get(&self) -> bool {
        self.word.load(Relaxed) != 0
    }

    /// Clears the flag.
    pub(crate) fn clear(&self) {
        self.word.store(0, Relaxed);
    }
}
