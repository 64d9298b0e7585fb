//! Workers come and go: the part of the schedule that is about who is there, not about who does what.
//!
//! Owns: nothing of its own; it works on the [`Schedule`]. Runs in: the parent, under the mutex.
//! Never: gives up a call that may still be made. A place whose starts keep failing closes the pool with the cause.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use super::call::Pending;
use super::schedule::{Owed, Phase, Schedule};
use super::worker::{Asked, Place, State, Worker};
use crate::error::{Error, ErrorKind, Execution};
use crate::launch::{Record, outcome};
use crate::link::{Caller, Remains};

/// How long a place stays empty after a start that failed; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

impl Schedule {
    /// A worker was started for this place; it has been given its setup.
    pub(super) fn install(&mut self, number: usize, worker: Worker, owed: &mut Owed) {
        let place = &mut self.places[number];
        *place = Place { state: State::Ready(Box::new(worker)), ..Place::empty() };
        place.set_asleep(self.sleeping || (!self.led && self.awaited > 0));
        self.list_if_idle(number);
        self.pump(owed);
        self.level(owed);
        self.renew_words(owed);
    }

    /// The worker in this place has ended.
    pub(super) fn ended(&mut self, number: usize, record: &Arc<Record>, status: ExitStatus, owed: &mut Owed) {
        self.collect_from(number, owed);
        let place = &mut self.places[number];
        match std::mem::replace(&mut place.state, State::Empty) {
            State::Ready(worker) if Arc::ptr_eq(&worker.record, record) => self.bury(*worker, status, owed),
            State::Leaving(leaving) if Arc::ptr_eq(&leaving, record) => {}
            // Somebody else is here by now.
            other => {
                place.state = other;
                return;
            }
        }
        self.fill(number, owed);
        self.pump(owed);
        self.renew_words(owed);
    }

    /// It is time to start a worker for this place; false if none is wanted any more.
    pub(super) fn may_start(&mut self, number: usize) -> bool {
        let wanted = matches!(self.places[number].state, State::Postponed);
        if wanted {
            self.places[number].state = State::Starting;
        }
        wanted
    }

    /// Whether a worker that was asked for is not there yet.
    pub(super) fn is_starting(&self) -> bool {
        self.places.iter().any(|place| matches!(place.state, State::Starting))
    }

    /// No worker could be started for this place. Fails the pool if that keeps happening.
    pub(super) fn start_failed(&mut self, number: usize, error: &Error, owed: &mut Owed) {
        self.places[number].state = State::Empty;
        self.count_failed_start(error, owed);
        self.fill(number, owed);
    }

    /// Takes no more calls; `error` is what those who try are told.
    pub(super) fn close(&mut self, error: Error) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closing(error);
        }
    }

    /// Ends everything now: what has not started is cancelled, what runs is killed.
    pub(super) fn terminate(&mut self, error: Error, owed: &mut Owed) {
        self.phase = Phase::Ended(error);
        let mut cancelled: Vec<_> = self.backlog.drain(..).map(|pending| pending.call).collect();
        for place in &mut self.places {
            if let Some(worker) = place.worker_mut() {
                let back = worker.caller.take_back(u32::MAX).into_iter();
                cancelled.extend(back.filter_map(|(asked, _)| match asked {
                    Asked::Call(call) => Some(call),
                    Asked::Setup => None,
                }));
                owed.kill.push(Arc::clone(&worker.record));
            }
        }
        for call in cancelled {
            self.settle(&call, Err(Error::new(ErrorKind::Cancelled, Execution::NotStarted)), owed);
        }
    }

    /// Sends every worker home. Only when no call is left.
    pub(super) fn dismiss(&mut self) -> Vec<Arc<Record>> {
        if let Phase::Closing(error) = &self.phase {
            self.phase = Phase::Ended(error.clone());
        }
        let mut leaving = Vec::new();
        for place in &mut self.places {
            match std::mem::replace(&mut place.state, State::Empty) {
                State::Ready(worker) => {
                    worker.caller.link().close();
                    leaving.push(Arc::clone(&worker.record));
                    place.state = State::Leaving(worker.record);
                }
                State::Leaving(record) => {
                    leaving.push(Arc::clone(&record));
                    place.state = State::Leaving(record);
                }
                State::Starting => place.state = State::Starting,
                State::Empty | State::Postponed => {}
            }
        }
        leaving
    }

    /// A worker broke the protocol: nothing that it says is believed any more.
    pub(super) fn punish(&mut self, number: usize, reason: &str, owed: &mut Owed) {
        let State::Ready(worker) = std::mem::replace(&mut self.places[number].state, State::Empty) else { return };
        let Worker { record, caller, .. } = *worker;
        let Remains { running, unclaimed } = caller.remains();
        for asked in running {
            if let Asked::Call(call) = asked {
                let error = outcome::of_violation(reason).in_process(&record.name(), record.pid);
                self.settle(&call, Err(error), owed);
            }
        }
        self.requeue(unclaimed);
        owed.kill.push(Arc::clone(&record));
        self.places[number].state = State::Leaving(record);
    }

    /// A worker is dead, and its replies are taken: settles what it was running, and takes the rest back.
    fn bury(&mut self, worker: Worker, status: ExitStatus, owed: &mut Owed) {
        let Worker { record, caller, proven, refused } = worker;
        let name = record.name();
        let error = |caller: &Caller<Asked>, execution| {
            outcome::of_end(status, caller, execution).in_process(&name, record.pid)
        };
        let (unknown, never_worked) = (error(&caller, Execution::Unknown), error(&caller, Execution::NotStarted));
        let Remains { running, unclaimed } = caller.remains();
        if !(proven || refused || matches!(self.phase, Phase::Ended(_))) {
            self.count_failed_start(&never_worked, owed);
        }
        for asked in running {
            if let Asked::Call(call) = asked {
                self.settle(&call, Err(unknown.clone()), owed);
            }
        }
        self.requeue(unclaimed);
    }

    /// Asks for a new worker if one is needed here.
    fn fill(&mut self, number: usize, owed: &mut Owed) {
        let needed = match self.phase {
            Phase::Open => true,
            Phase::Closing(_) => !self.backlog.is_empty(),
            Phase::Ended(_) => false,
        };
        if needed && matches!(self.places[number].state, State::Empty) {
            self.places[number].state = State::Postponed;
            let failed = u32::try_from(self.failed_starts).unwrap_or(u32::MAX);
            owed.start.push((number, (failed > 0).then(|| FIRST_PAUSE * 2u32.saturating_pow(failed.min(7) - 1))));
        }
    }

    pub(super) fn count_failed_start(&mut self, error: &Error, owed: &mut Owed) {
        self.failed_starts += 1;
        if self.failed_starts > 3 * self.places.len() && !matches!(self.phase, Phase::Ended(_)) {
            let reason = format!(
                "its workers could not be started {} times in a row; the last time: {error}",
                self.failed_starts
            );
            let error = Error::closed(reason);
            self.fail_backlog(&error, owed);
            self.phase = Phase::Ended(error);
        }
    }

    pub(super) fn fail_backlog(&mut self, error: &Error, owed: &mut Owed) {
        while let Some(Pending { call, .. }) = self.backlog.pop_front() {
            self.settle(&call, Err(error.clone()), owed);
        }
    }
}
