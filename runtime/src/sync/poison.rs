//! The note that a thread may have left data half changed: by a panic, or by dying, while holding its lock.
//!
//! Owns: [`Poison`], one word beside a lock. Runs in: any process.
//! Never: takes a lock; the note is read and written by the holder of the one beside it, and read by any thread.

use std::thread;

use super::atomic::AtomicU32;
use super::atomic::Ordering::Relaxed;
use super::lock::Taken;

pub use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

/// See the [module](self).
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Poison {
    /// 0: all is well.
    word: AtomicU32,
}

/// Whether this thread was panicking when it took a lock: then that panic is no reason to poison it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panicking(bool);

impl Poison {
    pub(crate) const fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    /// The lock beside this has been taken. To be followed by [`result`](Self::result) when the guard is made.
    #[inline]
    pub(crate) fn taken(&self, taken: Taken) -> Panicking {
        if taken == Taken::FromDead {
            self.set();
        }
        Panicking(thread::panicking())
    }

    /// The guard, in the form that says whether there is a note.
    #[inline]
    pub(crate) fn result<G>(&self, guard: G) -> LockResult<G> {
        if self.get() { Err(PoisonError::new(guard)) } else { Ok(guard) }
    }

    /// The lock beside this is about to be given back.
    #[inline]
    pub(crate) fn giving_back(&self, before: Panicking) {
        if !before.0 && thread::panicking() {
            self.set();
        }
    }

    /// Notes that data may be half changed.
    #[cold]
    pub(crate) fn set(&self) {
        self.word.store(1, Relaxed);
    }

    /// Whether there is a note.
    #[inline]
    pub(crate) fn get(&self) -> bool {
        self.word.load(Relaxed) != 0
    }

    /// Takes the note away.
    pub(crate) fn clear(&self) {
        self.word.store(0, Relaxed);
    }
}
