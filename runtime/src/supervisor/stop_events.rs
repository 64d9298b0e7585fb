//! Events of `tracing` for stopped processes, which may be waited for without end.
//!
//! Runs in: the parent, on the reactor's thread. A panic of a subscriber is caught.
//!
//! | event | level | fields |
//! |---|---|---|
//! | `process stopped` | warn | `process`, `pid`, `task`, `signal` |
//! | `process continued` | info | `process`, `pid`, `task` |
//!
//! Workers of pools have events of their own.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::{info, warn};

use super::child_handle::ChildHandle;
use super::events::Supervisor;
use crate::link::message::ChildId;
use crate::sys::signal;

const TARGET: &str = "process_task";

impl Supervisor {
    /// The fork server says that `signal` has stopped a child, or that it was continued.
    pub(super) fn child_stopped(&self, id: ChildId, signal: Option<i32>, for_good: bool) {
        let record = self.table().children.get(&id).cloned();
        if let Some(record) = record {
            record.stopped(signal, for_good);
        }
    }
}

/// Tells of the process of `record`, which runs `task`: `signal` has stopped it, or it was continued.
pub(crate) fn tell_of_stop(record: &ChildHandle, task: &'static str, signal: Option<i32>) {
    let say = || {
        let (process, pid) = (record.name(), record.pid);
        if let Some(signal) = signal.map(signal::name) {
            warn!(target: TARGET, process, pid, task, signal, "process stopped");
        } else {
            info!(target: TARGET, process, pid, task, "process continued");
        }
    };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(say)) {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    }
}
