//! Synchronisation between threads of any processes, that outlives those who use it.
//!
//! Owns: the primitives, each a plain value that works where it lies. Runs in: any process.
//! Never: keeps a pointer, a list of threads, or anything else in shared memory that a death could leave dangling.

/// The atomics of what is modelled; the model checker brings its own.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}
mod barrier;
mod condvar;
mod event;
mod holders;
mod line;
mod lock;
mod mutex;
mod once;
mod poison;
mod reentrant;
mod rwlock;
mod semaphore;
mod sleepers;
mod turns;
mod waiting;

use crate::shared::members;

pub use self::barrier::{Barrier, BarrierWaitResult, BrokenBarrier};
pub use self::condvar::{Condvar, WaitTimeoutResult};
pub use self::event::Event;
pub use self::mutex::{Mutex, MutexGuard};
pub use self::once::{Once, OnceState};
pub use self::poison::{LockResult, PoisonError, TryLockError, TryLockResult};
pub use self::reentrant::{ReentrantMutex, ReentrantMutexGuard};
pub use self::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use self::semaphore::{Permit, Semaphore, TooManyPermits};

/// How many processes may hold something of one primitive at a time: permits, or the right to read.
const PROCESSES: usize = 256;

crate::shared::cell::in_place!(Condvar, Mutex<T>, ReentrantMutex<T>);

/// How many threads wait at one condition variable before it becomes crowded.
const PLACES: usize = 256;
