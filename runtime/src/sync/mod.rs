//! Synchronisation between threads of any processes, that outlives those who use it.
//!
//! Owns: the primitives, each a plain value that works where it lies. Runs in: any process.
//! Never: keeps a pointer, a list of threads, or anything else in shared memory that a death could leave dangling.

/// The atomics of what is modelled; the model checker brings its own.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}
mod condvar;
mod line;
mod lock;
mod mutex;
mod poison;
mod reentrant;
mod waiting;

use crate::shared::members;

pub use self::condvar::{Condvar, WaitTimeoutResult};
pub use self::mutex::{Mutex, MutexGuard};
pub use self::poison::{LockResult, PoisonError, TryLockError, TryLockResult};
pub use self::reentrant::{ReentrantMutex, ReentrantMutexGuard};

crate::shared::cell::in_place!(Condvar, Mutex<T>, ReentrantMutex<T>);

/// How many threads wait at one condition variable before it becomes crowded.
const PLACES: usize = 256;
