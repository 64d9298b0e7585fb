//! A worker that was killed, or is about to be, until it is known to be dead.
//!
//! Runs in: the parent, under the scheduler's mutex. No call is settled before its process is dead, and no process is
//! waited for without a bound, which is [`MAX_DEATH_TIME`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call::{Call, QueuedCall};
use crate::error::{Error, ErrorKind, Execution};
use crate::supervisor::{ChildHandle, DEATH_CHECK_INTERVAL, MAX_DEATH_TIME};

/// A worker that was killed, or is about to be, and is not known to be dead.
#[derive(Debug)]
pub(super) struct Dying {
    pub(super) record: Arc<ChildHandle>,
    /// What it was running, and how that ends unless it is made again.
    pub(super) running: Vec<(QueuedCall, Error)>,
    /// Why it was killed.
    pub(super) cause: Error,
    pub(super) death: Death,
}

/// When to check for the end of a process that was killed, and when for the last time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    next: Option<Instant>,
    last: Option<Instant>,
}

/// What a check for a death has found.
pub(super) enum DeathCheck {
    Dead,
    Waiting,
    /// It is not dead, and has had its time.
    Stuck,
}

impl Death {
    /// It is killed after `pause`.
    pub(super) fn after(pause: Duration) -> Self {
        let now = Instant::now();
        let at = |time: Duration| now.checked_add(pause.saturating_add(time));
        Self { next: at(DEATH_CHECK_INTERVAL), last: at(MAX_DEATH_TIME) }
    }

    /// When the next check is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn check(&mut self, record: &ChildHandle, now: Instant) -> DeathCheck {
        if self.next.is_none_or(|next| now < next) {
            return DeathCheck::Waiting;
        }
        if record.is_dead() {
            return DeathCheck::Dead;
        }
        if self.last.is_some_and(|last| now >= last) {
            return DeathCheck::Stuck;
        }
        self.next = now.checked_add(DEATH_CHECK_INTERVAL);
        DeathCheck::Waiting
    }
}

impl Dying {
    /// A worker that is killed after `grace`.
    pub(super) fn new(
        record: Arc<ChildHandle>,
        running: Vec<(QueuedCall, Error)>,
        cause: Error,
        grace: Duration,
    ) -> Self {
        Self { record, running, cause, death: Death::after(grace) }
    }

    /// Whether it was running this call.
    pub(super) fn has(&self, call: &Arc<Call>) -> bool {
        self.running.iter().any(|(queued, _)| Arc::ptr_eq(&queued.call, call))
    }

    /// Cancels this call, if it would be made again. True if it ends as cancelled.
    pub(super) fn cancel(&mut self, call: &Arc<Call>) -> bool {
        let running = self.running.iter_mut().find(|(queued, _)| Arc::ptr_eq(&queued.call, call));
        running.is_some_and(|(_, error)| cancel_retry(call, error))
    }

    /// Takes the retries from all its calls.
    pub(super) fn cancel_all(&mut self) {
        self.running.iter_mut().for_each(|(queued, error)| _ = cancel_retry(&queued.call, error));
    }
}

/// Makes a call that would be made again after `error` end as cancelled; true if it does.
fn cancel_retry(call: &Call, error: &mut Error) -> bool {
    if *error.kind() != ErrorKind::Cancelled && call.record_attempt(error) {
        *error = Error::new(ErrorKind::Cancelled, Execution::NotStarted);
    }
    *error.kind() == ErrorKind::Cancelled
}
