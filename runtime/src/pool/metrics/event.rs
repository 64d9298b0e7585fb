//! One thing that happened in a pool.
//!
//! Runs in: the parent. None is made while there are no observers.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::supervisor::ChildHandle;

/// Something that happened, to be told once the mutex is released.
#[derive(Debug)]
pub(in crate::pool) struct PoolEvent {
    /// When, in nanoseconds since the pool was made.
    pub(in crate::pool) at: u64,
    /// The worker it happened to; `None` if it was the pool.
    pub(in crate::pool) worker: Option<WorkerRef>,
    pub(in crate::pool) what: EventKind,
}

/// A worker.
#[derive(Clone, Debug)]
pub(in crate::pool) struct WorkerRef {
    pub(in crate::pool) slot: usize,
    pub(in crate::pool) name: String,
    pub(in crate::pool) pid: u32,
}

impl WorkerRef {
    /// The process with this record, in this slot.
    pub(in crate::pool) fn of(slot: usize, record: &ChildHandle) -> Self {
        Self { slot, name: record.name(), pid: record.pid }
    }

    /// The process that `error` names, in this slot.
    pub(in crate::pool) fn of_error(slot: usize, error: &Error) -> Option<Self> {
        error.process().map(|(name, pid)| Self { slot, name: name.to_owned(), pid })
    }
}

/// What happened.
#[derive(Debug)]
pub(in crate::pool) enum EventKind {
    /// The worker was started: the first one in its slot, or one more.
    Started { again: bool },
    /// The worker was told to end, since it is not needed any more.
    Left,
    /// The worker has ended, and was not told to; `task` is what it ran.
    Died { task: Option<&'static str>, error: Error },
    /// The worker has ended, since it was killed because of what it ran.
    Killed { task: Option<&'static str>, cause: Error },
    /// The worker was told to end, did not do so in time, and is killed: in its finalizer, or when it exits.
    Forced { task: Option<&'static str>, limit: Duration },
    /// The worker was killed, and does not end.
    Stuck { waited: Duration },
    /// The worker's finalizer has failed.
    NotFinalized { error: Error },
    /// A worker could not be started, `failures` times in a row, and is tried again after a pause.
    NotStarted { error: Error, failures: usize, pause: Duration },
    /// The worker was stopped by this signal, while it had this task.
    Stopped { task: Option<&'static str>, signal: i32 },
    /// The worker, which was stopped, goes on.
    Continued,
    /// A call that the worker had, or several in one message, have an outcome.
    Settled { task: &'static str, calls: u32, began: u64, error: Option<Error> },
    /// A call took too long, and the worker is killed for that.
    TimedOut { task: &'static str, limit: Duration },
    /// A call has failed for the so manieth time, and is made once more.
    Retried { task: &'static str, attempts: usize, began: u64, error: Error },
    /// The pool takes no more calls: it was told to, or cannot go on.
    Closed { cause: Error, failed: bool },
}

/// The name of an error's kind, such as `Killed`.
pub(super) fn name_of(kind: &ErrorKind) -> String {
    format!("{kind:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names() {
        assert_eq!(name_of(&ErrorKind::Cancelled), "Cancelled");
        assert_eq!(name_of(&ErrorKind::Exited { code: 3 }), "Exited");
        assert_eq!(name_of(&ErrorKind::InvalidInput { reason: "x".to_owned() }), "InvalidInput");
    }
}
