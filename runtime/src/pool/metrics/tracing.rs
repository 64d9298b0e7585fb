//! Events for `tracing`: one for each thing that happened, with the worker and the task as fields.
//!
//! Runs in: the parent, on whichever thread runs the effects. No subscriber is installed, and no panic of one gets out.
//!
//! | event | level | fields |
//! |---|---|---|
//! | `worker started`, `worker restarted`, `worker left` | debug | `worker`, `pid` |
//! | `worker stopped` | warn | `worker`, `pid`, `signal`, and `task` if it had a call |
//! | `worker continued` | info | `worker`, `pid` |
//! | `worker died` | warn | `worker`, `pid`, `error`, and `task` if it ran one |
//! | `worker was killed`, because of the call that it ran | debug | `worker`, `pid`, `cause`, and `task` |
//! | `worker did not end in time and is killed` | warn | `worker`, `pid`, `limit`, and `task` if it ran its finalizer |
//! | `killed worker does not end` | warn | `worker`, `pid`, `waited` |
//! | `finalizer failed` | warn | `worker`, `pid`, `task`, `error` |
//! | `worker could not be started` | warn | `worker`, `failures`, `pause`, `error` |
//! | `call settled` | trace | `worker`, `pid`, `task`, `calls`, and `error` if it failed |
//! | `call timed out` | warn | `worker`, `pid`, `task`, `limit` |
//! | `call is made again` | info | `worker`, `pid`, `task`, `attempts`, `error` |
//! | `pool closed` | debug; error if it cannot go on | `cause` |

use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::field::display;
use tracing::level_filters::LevelFilter;
use tracing::span::EnteredSpan;
use tracing::{debug, error, info, trace, trace_span, warn};

use super::event::{EventKind, PoolEvent};
use super::observe::NotedEvent;
use crate::sys::signal;

const TARGET: &str = "process_task";

/// Whether spans might be wanted. Looked at first, because a span that is not wanted costs some nanoseconds too.
#[inline]
pub(in crate::pool) fn has_spans() -> bool {
    LevelFilter::current() >= LevelFilter::TRACE
}

/// A span on this thread, for as long as it waits for a call, or for all calls of a map.
pub(in crate::pool) fn entered(all: bool, task: &'static str) -> EnteredSpan {
    if all {
        trace_span!(target: TARGET, "map", task).entered()
    } else {
        trace_span!(target: TARGET, "call", task).entered()
    }
}

/// Tells all observers.
pub(in crate::pool) fn emit(events: Vec<NotedEvent>) {
    for (event, recorder) in events {
        // A subscriber is the program's code: if it panics, that must not end the reactor's thread, or the thread that calls.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| emit_one(&event))) {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        }
        if let Some(recorder) = recorder {
            recorder.record(&event);
        }
    }
}

fn emit_one(event: &PoolEvent) {
    let (worker, pid) = event.worker.as_ref().map_or(("", 0), |worker| (worker.name.as_str(), worker.pid));
    match &event.what {
        EventKind::Started { again: false } => debug!(target: TARGET, worker, pid, "worker started"),
        EventKind::Started { again: true } => debug!(target: TARGET, worker, pid, "worker restarted"),
        EventKind::Left => debug!(target: TARGET, worker, pid, "worker left"),
        EventKind::Stopped { task, signal } => {
            let signal = signal::name(*signal);
            warn!(target: TARGET, worker, pid, task, signal, "worker stopped");
        }
        EventKind::Continued => info!(target: TARGET, worker, pid, "worker continued"),
        EventKind::Died { task, error } => warn!(target: TARGET, worker, pid, task, %error, "worker died"),
        EventKind::Killed { task, cause } => debug!(target: TARGET, worker, pid, task, %cause, "worker was killed"),
        EventKind::Forced { task, limit } => {
            warn!(target: TARGET, worker, pid, task, ?limit, "worker did not end in time and is killed");
        }
        EventKind::Stuck { waited } => warn!(target: TARGET, worker, pid, ?waited, "killed worker does not end"),
        EventKind::NotFinalized { error } => {
            warn!(target: TARGET, worker, pid, task = error.task(), %error, "finalizer failed");
        }
        EventKind::NotStarted { error, failures, pause } => {
            warn!(target: TARGET, worker, failures, ?pause, %error, "worker could not be started");
        }
        EventKind::Settled { task, calls, error, .. } => {
            let error = error.as_ref().map(display);
            trace!(target: TARGET, worker, pid, task, calls, error, "call settled");
        }
        EventKind::TimedOut { task, limit } => warn!(target: TARGET, worker, pid, task, ?limit, "call timed out"),
        EventKind::Retried { task, attempts, error, .. } => {
            info!(target: TARGET, worker, pid, task, attempts, %error, "call is made again");
        }
        EventKind::Closed { cause, failed: false } => debug!(target: TARGET, %cause, "pool closed"),
        EventKind::Closed { cause, failed: true } => error!(target: TARGET, %cause, "pool closed"),
    }
}
