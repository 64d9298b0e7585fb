//! A thread of its own for what `on_done` calls, so that a callback may do anything: block, submit, wait, drop the pool.
//!
//! Runs in: the parent. The thread is made at first use. It ends with no callback uncalled, lets no panic out of one, and
//! does not wait for itself.
//!
//! Why not the reactor's thread: a callback may block or end the pool, and that thread must do neither. A pool that
//! ends waits for its callbacks, unless a callback ends it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::sys::mutex::MutexExt as _;

/// What is done once a call is settled. It holds its call, which holds it until then.
pub(super) type Callback = Box<dyn FnOnce() + Send>;

/// The callbacks of one pool.
#[derive(Debug, Default)]
pub(super) struct Callbacks(Arc<CallbackQueue>);

#[derive(Default)]
struct CallbackQueue {
    inner: Mutex<CallbackState>,
    changed: Condvar,
}

#[derive(Default)]
struct CallbackState {
    due: VecDeque<Callback>,
    /// Callbacks that were set and have not returned.
    open: usize,
    thread: Option<JoinHandle<()>>,
    /// The pool is gone, and every call settled: the thread ends when no callback is open.
    closing: bool,
}

thread_local! {
    /// Whether this is a thread that calls callbacks.
    static CALLS_BACK: Cell<bool> = const { Cell::new(false) };
}

/// Calls `callback`, and keeps its panic, which the panic hook has told already.
pub(super) fn run(callback: Callback) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(callback)) {
        // Its destructor is the callback's code, too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    }
}

impl Callbacks {
    /// A callback is about to be set. False if there is no thread for it: none can be had, or the pool is gone.
    pub(super) fn open(&self) -> bool {
        let mut inner = self.0.inner();
        if inner.closing {
            return false;
        }
        if inner.thread.is_none() {
            let shared = Arc::clone(&self.0);
            let thread = thread::Builder::new().name("pool-callbacks".to_owned()).spawn(move || shared.call_back());
            inner.thread = thread.ok();
        }
        let there = inner.thread.is_some();
        inner.open += usize::from(there);
        there
    }

    /// A callback that was opened is not set after all.
    pub(super) fn cancel(&self) {
        self.0.close_one();
    }

    /// The time of a callback that was opened has come.
    pub(super) fn call(&self, callback: Callback) {
        self.0.inner().due.push_back(callback);
        self.0.changed.notify_all();
    }

    /// Waits until every callback has returned, and ends the thread; false if `deadline` came first. Every call is settled
    /// by now, so no callback can be set any more. A callback that ends a pool does not wait for callbacks, which might
    /// wait for it: then the thread ends by itself.
    pub(super) fn finish(&self, deadline: Option<Instant>) -> bool {
        let mut inner = self.0.inner();
        inner.closing = true;
        self.0.changed.notify_all();
        while inner.open > 0 && !CALLS_BACK.get() {
            inner = match deadline {
                None => self.0.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
                    self.0.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let thread = inner.thread.take();
        drop(inner);
        if let Some(thread) = thread.filter(|_| !CALLS_BACK.get()) {
            // It has nothing left to do, and does not panic.
            let _ = thread.join();
        }
        true
    }
}

impl CallbackQueue {
    /// Runs in: the thread for callbacks.
    fn call_back(&self) {
        CALLS_BACK.set(true);
        let mut inner = self.inner();
        loop {
            if let Some(callback) = inner.due.pop_front() {
                drop(inner);
                run(callback);
                self.close_one();
                inner = self.inner();
            } else if inner.closing && inner.open == 0 {
                return;
            } else {
                inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn close_one(&self) {
        self.inner().open -= 1;
        self.changed.notify_all();
    }

    fn inner(&self) -> MutexGuard<'_, CallbackState> {
        self.inner.lock_unpoisoned()
    }
}

impl fmt::Debug for CallbackQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").field("open", &self.inner().open).finish_non_exhaustive()
    }
}
