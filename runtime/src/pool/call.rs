//! One call of a pool: its outcome, and the threads and futures that wait for it.
//!
//! Runs in: the parent, on any thread. The outcome is set once. No thread is woken while a lock is held.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Waker;
use std::thread::{Thread, ThreadId};

use super::batch::Batch;
use super::callbacks::{Callback, Callbacks};
use super::completion_queue::CompletionQueue;
use super::metrics::CallTimes;
use super::waitable::Waitable;
use crate::error::{Error, ErrorKind, Result};
use crate::link::{Body, Payload};
use crate::reactor::wake;
use crate::sys::mutex::MutexExt as _;
use crate::task::Options;

/// A call from its submission until its handle is gone.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) task: &'static str,
    /// The task's number in the registry.
    pub(super) index: u32,
    pub(super) options: Options,
    /// Which worker has it, or [`NO_WORKER`]. Read and written under the scheduler's mutex.
    worker: AtomicUsize,
    pub(super) times: CallTimes,
    /// How many workers died that had it as their next call, and had not begun it as far as their links say.
    false_starts: AtomicUsize,
    /// How the attempts ended that were followed by another.
    attempts: Mutex<Vec<Error>>,
    /// What there is more if this is many calls in one.
    pub(super) batch: Option<Box<Batch>>,
    outcome: OnceLock<Result<Body>>,
    waiters: Mutex<Waiters>,
    /// The result is not wanted any more; if the call has not started, it need not.
    pub(super) abandoned: AtomicBool,
    /// Its reply is to be taken though no thread waits, because its handles are held until then. Under the mutex.
    pub(super) reply_watched: AtomicBool,
}

/// What is told when a call is settled: any number of threads that share its handle, a future that awaits it, and so on.
#[derive(Debug, Default)]
#[must_use = "a waiting thread would sleep on"]
pub(super) struct Waiters(Vec<Waiter>);

enum Waiter {
    Thread(Thread),
    Waker(Waker),
    /// The call is the one with this number of a set.
    Set(Arc<CompletionQueue>, usize),
    Callback(Callback),
}

/// A call that was the next one of this many workers that died is taken for the cause.
const MANY_FALSE_STARTS: usize = 16;

/// No worker has the call.
const NO_WORKER: usize = usize::MAX;

/// A call that no worker has yet.
#[derive(Debug)]
pub(super) struct QueuedCall {
    pub(super) call: Arc<Call>,
    pub(super) payload: Payload,
}

impl Call {
    pub(super) fn new(task: &'static str, index: u32, options: Options) -> Self {
        Self {
            task,
            index,
            options,
            batch: None,
            worker: AtomicUsize::new(NO_WORKER),
            false_starts: AtomicUsize::new(0),
            times: CallTimes::default(),
            attempts: Mutex::default(),
            outcome: OnceLock::new(),
            waiters: Mutex::default(),
            abandoned: AtomicBool::new(false),
            reply_watched: AtomicBool::new(false),
        }
    }

    /// Which worker has it.
    pub(super) fn worker(&self) -> Option<usize> {
        Some(self.worker.load(Relaxed)).filter(|worker| *worker != NO_WORKER)
    }

    pub(super) fn set_worker(&self, worker: Option<usize>) {
        self.worker.store(worker.unwrap_or(NO_WORKER), Relaxed);
    }

    /// A worker died that had it as its next call, and that had not begun it, as far as its link says. Whether this has
    /// happened so often that the call must be what kills them: a task may have written over the link.
    pub(super) fn is_poison_pill(&self) -> bool {
        self.false_starts.fetch_add(1, Relaxed) + 1 >= MANY_FALSE_STARTS
    }

    /// Its process died under it, with `error`: whether it is to be made once more, which is then written down.
    pub(super) fn record_attempt(&self, error: &Error) -> bool {
        let mut attempts = self.attempts.lock_unpoisoned();
        let again = attempts.len() < self.options.retries as usize;
        if again {
            attempts.push(error.clone().in_task(self.task));
        }
        again
    }

    /// The attempts that were followed by another.
    pub(super) fn attempts(&self) -> Vec<Error> {
        self.attempts.lock_unpoisoned().clone()
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

    /// Sets the outcome, and returns the waiters. A second outcome is dropped. An error has the attempts before.
    pub(super) fn settle(&self, outcome: Result<Body>) -> Waiters {
        let _ = self.outcome.set(outcome.map_err(|error| error.in_task(self.task).after(self.attempts())));
        let mut waiters = std::mem::take(&mut *self.waiters());
        // A thread that waits for a set may be the one that settles, and looks before the others are woken.
        for waiter in &mut waiters.0 {
            if let Waiter::Set(set, number) = waiter
                && let Some(thread) = set.push(*number, self.has_failed())
            {
                *waiter = Waiter::Thread(thread);
            }
        }
        waiters
    }

    /// Registers `waker`, to be woken with the outcome; returns the one that it replaces. The caller checks
    /// [`Call::is_settled`] after this.
    pub(super) fn set_waker(&self, waker: Waker) -> Option<Waker> {
        let mut waiters = self.waiters();
        for waiter in &mut waiters.0 {
            if let Waiter::Waker(before) = waiter {
                return Some(std::mem::replace(before, waker));
            }
        }
        waiters.0.push(Waiter::Waker(waker));
        None
    }

    /// Registers `callback`, to be called with the outcome; gives it back if the call is settled.
    pub(super) fn add_callback(&self, callback: Callback) -> Option<Callback> {
        let mut waiters = self.waiters();
        if self.is_settled() {
            return Some(callback);
        }
        waiters.0.push(Waiter::Callback(callback));
        None
    }

    /// Tells `set` once its call with this number is settled; at once if it is.
    pub(super) fn subscribe(&self, set: &Arc<CompletionQueue>, number: usize) {
        let mut waiters = self.waiters();
        // The thread that settles it takes the waiters after the outcome is set, so this is told once.
        if self.is_settled() {
            drop(set.push(number, self.has_failed()));
        } else {
            waiters.0.push(Waiter::Set(Arc::clone(set), number));
        }
    }

    /// Tells `set` no more.
    pub(super) fn unsubscribe(&self, set: &Arc<CompletionQueue>) {
        self.waiters().0.retain(|waiter| !matches!(waiter, Waiter::Set(other, _) if Arc::ptr_eq(set, other)));
    }

    /// Whether it is settled, and has no result.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.outcome.get(), Some(Err(_)))
    }

    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock_unpoisoned()
    }
}

impl Waitable for Call {
    fn enlist(&self, thread: Thread) {
        self.waiters().0.push(Waiter::Thread(thread));
    }

    fn strike(&self, thread: ThreadId) {
        self.waiters().0.retain(|waiter| !matches!(waiter, Waiter::Thread(other) if other.id() == thread));
    }
}

impl Waiters {
    pub(super) fn of(thread: Thread) -> Self {
        Self(vec![Waiter::Thread(thread)])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many of them no thread waits for: futures and callbacks.
    pub(super) fn interest(&self) -> usize {
        self.0.iter().filter(|waiter| matches!(waiter, Waiter::Waker(_) | Waiter::Callback(_))).count()
    }

    pub(super) fn wake(self, callbacks: &Callbacks) {
        for waiter in self.0 {
            match waiter {
                Waiter::Thread(thread) => thread.unpark(),
                Waiter::Waker(waker) => wake(waker),
                Waiter::Callback(callback) => callbacks.call(callback),
                Waiter::Set(..) => {}
            }
        }
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Thread(_) => "Thread",
            Self::Waker(_) => "Waker",
            Self::Set(..) => "Set",
            Self::Callback(_) => "Callback",
        })
    }
}
