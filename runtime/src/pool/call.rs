//! One call of a pool: its outcome, and who waits for it.
//!
//! Owns: the outcome, set once. Runs in: the parent, on any thread. Never: wakes anybody while a lock is held.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::thread::Thread;

use crate::error::Result;
use crate::link::{Body, Payload};

/// A call from its submission until its handle is gone.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) task: &'static str,
    /// The task's place in the registry.
    pub(super) index: u32,
    outcome: OnceLock<Result<Body>>,
    waiter: Mutex<Option<Waiter>>,
    /// Nobody wants the result any more; if it has not started, it need not.
    pub(super) abandoned: AtomicBool,
}

/// Who is told when a call is settled.
#[derive(Debug)]
pub(super) enum Waiter {
    Thread(Thread),
    Future(Waker),
}

/// A call that no worker has yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) call: std::sync::Arc<Call>,
    pub(super) payload: Payload,
}

impl Call {
    pub(super) fn new(task: &'static str, index: u32) -> Self {
        Self { task, index, outcome: OnceLock::new(), waiter: Mutex::default(), abandoned: AtomicBool::new(false) }
    }

    pub(super) fn outcome(&self) -> Option<&Result<Body>> {
        self.outcome.get()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.outcome.get().is_some()
    }

    /// Sets the outcome, and returns who is to be told. A second outcome is dropped.
    #[must_use = "whoever waits would sleep on"]
    pub(super) fn settle(&self, outcome: Result<Body>) -> Option<Waiter> {
        let _ = self.outcome.set(outcome.map_err(|error| error.in_task(self.task)));
        self.waiter().take()
    }

    /// Enters who is to be told; returns the one entered before. To be followed by a look at [`Call::is_settled`].
    pub(super) fn set_waiter(&self, waiter: Waiter) -> Option<Waiter> {
        self.waiter().replace(waiter)
    }

    /// Nobody is to be told any more.
    pub(super) fn clear_waiter(&self) {
        drop(self.waiter().take());
    }

    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
    }

    fn waiter(&self) -> MutexGuard<'_, Option<Waiter>> {
        self.waiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    pub(super) fn wake(self) {
        match self {
            Self::Thread(thread) => thread.unpark(),
            Self::Future(waker) => waker.wake(),
        }
    }
}
