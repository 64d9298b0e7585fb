//! One call of a pool: its outcome, and who waits for it.
//!
//! Owns: the outcome, set once. Runs in: the parent, on any thread. Never: wakes anybody while a lock is held.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::thread::{Thread, ThreadId};

use crate::error::Result;
use crate::launch::wake;
use crate::link::{Body, Payload};

/// A call from its submission until its handle is gone.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) task: &'static str,
    /// The task's place in the registry.
    pub(super) index: u32,
    outcome: OnceLock<Result<Body>>,
    waiters: Mutex<Waiters>,
    /// Nobody wants the result any more; if it has not started, it need not.
    pub(super) abandoned: AtomicBool,
}

/// Who is told when a call is settled: any number of threads that share its handle, and whoever awaits it.
#[derive(Debug, Default)]
#[must_use = "whoever waits would sleep on"]
pub(super) struct Waiters {
    threads: Vec<Thread>,
    waker: Option<Waker>,
}

/// A call that no worker has yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) call: std::sync::Arc<Call>,
    pub(super) payload: Payload,
}

impl Call {
    pub(super) fn new(task: &'static str, index: u32) -> Self {
        Self { task, index, outcome: OnceLock::new(), waiters: Mutex::default(), abandoned: AtomicBool::new(false) }
    }

    pub(super) fn outcome(&self) -> Option<&Result<Body>> {
        self.outcome.get()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.outcome.get().is_some()
    }

    /// Sets the outcome, and returns who is to be told. A second outcome is dropped.
    pub(super) fn settle(&self, outcome: Result<Body>) -> Waiters {
        let _ = self.outcome.set(outcome.map_err(|error| error.in_task(self.task)));
        std::mem::take(&mut self.waiters())
    }

    /// Has `thread` told. To be followed by a look at [`Call::is_settled`].
    pub(super) fn add_waiter(&self, thread: Thread) {
        self.waiters().threads.push(thread);
    }

    /// This thread is not to be told any more.
    pub(super) fn remove_waiter(&self, thread: ThreadId) {
        self.waiters().threads.retain(|waiter| waiter.id() != thread);
    }

    /// Has `waker` told; returns the one that was told before. To be followed by a look, likewise.
    pub(super) fn set_waker(&self, waker: Waker) -> Option<Waker> {
        self.waiters().waker.replace(waker)
    }

    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.threads.is_empty() && self.waker.is_none()
    }

    /// Whether a future waits.
    pub(super) fn is_awaited(&self) -> bool {
        self.waker.is_some()
    }

    pub(super) fn wake(self) {
        self.threads.iter().for_each(Thread::unpark);
        if let Some(waker) = self.waker {
            wake(waker);
        }
    }
}
