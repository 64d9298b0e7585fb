//! Locking a mutex of the standard library whatever happened to its last holder.
//!
//! Owns: [`MutexExt`]. Runs in: any process. For data that every statement under the lock leaves consistent, a panic of a
//! holder is no reason to fail.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks without regard to poison, as tokio's `loom::std::Mutex` does.
pub(crate) trait MutexExt<T: ?Sized> {
    /// Locks the mutex, also if a holder panicked.
    fn lock_unpoisoned(&self) -> MutexGuard<'_, T>;
}

impl<T: ?Sized> MutexExt<T> for Mutex<T> {
    fn lock_unpoisoned(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
