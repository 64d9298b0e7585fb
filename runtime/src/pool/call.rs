//! One call of a pool: its outcome, and who waits for it.
//!
//! Owns: the outcome, set once. Runs in: the parent, on any thread. Never: wakes anybody while a lock is held.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::thread::{Thread, ThreadId};

use crate::error::{Error, ErrorKind, Result};
use crate::launch::wake;
use crate::link::{Body, Payload};
use crate::task::Options;

/// A call from its submission until its handle is gone.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) task: &'static str,
    /// The task's place in the registry.
    pub(super) index: u32,
    pub(super) options: Options,
    /// Which worker has it, or [`NOBODY`]. Read and written under the schedule's mutex.
    holder: AtomicUsize,
    /// How the attempts ended that were followed by another.
    attempts: Mutex<Vec<Error>>,
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

/// No worker has the call.
const NOBODY: usize = usize::MAX;

/// A call that no worker has yet.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) call: std::sync::Arc<Call>,
    pub(super) payload: Payload,
}

impl Call {
    pub(super) fn new(task: &'static str, index: u32, options: Options) -> Self {
        Self {
            task,
            index,
            options,
            holder: AtomicUsize::new(NOBODY),
            attempts: Mutex::default(),
            outcome: OnceLock::new(),
            waiters: Mutex::default(),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Which worker has it.
    pub(super) fn holder(&self) -> Option<usize> {
        Some(self.holder.load(Relaxed)).filter(|holder| *holder != NOBODY)
    }

    pub(super) fn set_holder(&self, holder: Option<usize>) {
        self.holder.store(holder.unwrap_or(NOBODY), Relaxed);
    }

    /// Its process died under it, with `error`: whether it is to be made once more, which is then written down.
    pub(super) fn try_again(&self, error: &Error) -> bool {
        let mut attempts = lock(&self.attempts);
        let again = attempts.len() < self.options.retries as usize;
        if again {
            attempts.push(error.clone().in_task(self.task));
        }
        again
    }

    /// The attempts that were followed by another.
    pub(super) fn attempts(&self) -> Vec<Error> {
        lock(&self.attempts).clone()
    }

    pub(super) fn outcome(&self) -> Option<&Result<Body>> {
        self.outcome.get()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.outcome.get().is_some()
    }

    /// Whether it ended by being cancelled.
    pub(super) fn was_cancelled(&self) -> bool {
        matches!(self.outcome(), Some(Err(error)) if *error.kind() == ErrorKind::Cancelled)
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
        lock(&self.waiters)
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
