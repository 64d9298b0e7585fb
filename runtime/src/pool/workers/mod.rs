//! The pool's workers: start, setup, exit, respawn; and the end of them all.
//!
//! Runs in: the parent, under the mutex. [`Workers`] knows nothing of the backlog and of the leader. The
//! [`Scheduler`](super::scheduler::Scheduler) tells it how much work waits, and settles the calls that it hands back.
//! Invariant: a standby has no call while its worker is there.
//!
//! This file is about workers that come and end, `recycle` about those that are not needed or take too long.

mod recycle;

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::call::Call;
use super::config::PoolConfig;
use super::departures::Departures;
use super::dispatcher::Dispatcher;
use super::effects::{Start, WorkerEffects};
use super::inline;
use super::metrics::{Metrics, PoolStats, Recorder, WorkerRef, snapshot};
use super::slot::{Ended, NotifyFlags, Request, SlotState, Worker};
use super::slots::Slots;
use super::starts::{AfterFailure, Starts};
use super::timers::PoolTimers;
use crate::call::outcome;
use crate::error::{Error, Execution, Result};
use crate::link::frame::FrameKind;
use crate::link::{Body, Reply};
use crate::supervisor::ChildHandle;

/// The workers of a pool, and what is known of them.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) slots: Slots,
    pub(super) metrics: Metrics,
    config: Arc<PoolConfig>,
    phase: Phase,
    departures: Departures,
    starts: Starts,
    timers: PoolTimers,
    /// The first finalizer that failed after the pool was closed.
    finalizer_failure: Option<Error>,
    /// Workers that the builder waits for.
    awaiting_ready: Arc<AtomicUsize>,
    /// What is done once the mutex is released.
    effects: WorkerEffects,
}

/// What the pool still does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Takes calls.
    Open,
    /// Takes none, and finishes those it has.
    Closing(Error),
    /// Takes none, and has none.
    Ended(Error),
}

impl Workers {
    pub(super) fn new(config: Arc<PoolConfig>, count: usize) -> Self {
        let mut slots = Slots::default();
        slots.grow(count);
        Self {
            slots,
            metrics: Metrics::new(),
            config,
            phase: Phase::Open,
            departures: Departures::default(),
            starts: Starts::default(),
            timers: PoolTimers::default(),
            finalizer_failure: None,
            awaiting_ready: Arc::default(),
            effects: WorkerEffects::default(),
        }
    }

    pub(super) fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Takes what is to be done once the mutex is released, if there is anything.
    #[inline]
    pub(super) fn take_effects(&mut self) -> Option<WorkerEffects> {
        (!self.effects.is_empty()).then(|| std::mem::take(&mut self.effects))
    }

    /// What the pool has done so far, and the processes whose memory is still to be read.
    pub(super) fn stats(&self, dispatcher: &Dispatcher) -> (PoolStats, Vec<Option<Arc<ChildHandle>>>) {
        snapshot(&self.config, &self.slots, dispatcher, &self.metrics, self.starts.last().cloned())
    }

    /// Why the pool takes no more calls, if it takes none.
    #[inline]
    pub(super) fn refusal(&self) -> Option<&Error> {
        match &self.phase {
            Phase::Open => None,
            Phase::Closing(error) | Phase::Ended(error) => Some(error),
        }
    }

    /// Why the pool has ended, if it has.
    #[inline]
    pub(super) fn failure(&self) -> Option<&Error> {
        if let Phase::Ended(error) = &self.phase { Some(error) } else { None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// How many workers the pool is to have.
    pub(super) fn count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.enabled).count()
    }

    /// The worker that had a call; where it is gone, `error` says which it was.
    pub(super) fn worker_of(&self, call: &Call, error: Option<&Error>) -> Option<WorkerRef> {
        let number = call.worker()?;
        self.slots.get(number).worker_ref(number).or_else(|| WorkerRef::of_error(number, error?))
    }

    /// Adds to `error` which worker it was.
    pub(super) fn in_slot(&self, number: usize, error: Error) -> Error {
        match self.slots.worker(number) {
            Some(worker) => error.in_process(&worker.record.name(), worker.record.pid),
            None => error,
        }
    }

    /// Counts a call that is about to be settled, and tells observers.
    #[inline]
    pub(super) fn record_settled(&mut self, call: &Call, outcome: &Result<Body>) {
        self.metrics.settled(call);
        if self.metrics.at_calls() {
            let error = outcome.as_ref().err();
            let worker = self.worker_of(call, error);
            let slot = call.worker().and_then(|number| self.slots.stats_mut(number));
            self.metrics.record_settled(call, slot, worker, error);
        }
    }

    /// Tells observers that a call has failed and is made once more.
    pub(super) fn record_retry(&mut self, call: &Call, error: &Error) {
        let worker = self.worker_of(call, Some(error));
        let slot = call.worker().and_then(|number| self.slots.stats_mut(number));
        self.metrics.record_retry(call, slot, worker, error);
    }

    /// Records a timeline from now on; false if one is being recorded.
    pub(super) fn begin_recording(&mut self, recorder: &Arc<Recorder>) -> bool {
        if self.metrics.recorder().is_some() {
            return false;
        }
        self.metrics.set_recorder(Some(Arc::clone(recorder)));
        for number in 0..self.slots.len() {
            let worker = self.slots.get(number).worker_ref(number);
            if let Some(stats) = self.slots.stats_mut(number) {
                self.metrics.record_presence(stats, worker);
            }
        }
        true
    }

    /// The first workers are about to be started. Returns how many are not ready.
    pub(super) fn confirm_first_starts(&mut self, count: usize) -> Arc<AtomicUsize> {
        for number in 0..count {
            self.slots.change(number, |slot| {
                slot.state = SlotState::Starting;
                slot.pending_starts = 1;
            });
        }
        self.awaiting_ready.store(count, SeqCst);
        Arc::clone(&self.awaiting_ready)
    }

    /// One of the first workers could not be started, so the pool is not built.
    pub(super) fn first_start_failed(&mut self, number: usize) {
        // Not vacant: nothing is tried again.
        self.slots.change(number, |slot| {
            slot.state = SlotState::Backoff;
            slot.pending_starts = 0;
        });
        self.effects.workers_changed = true;
    }

    /// Whether workers are needed for the calls that wait, of which `backlog` have no worker.
    fn work_waits(&self, backlog: usize) -> bool {
        backlog > 0 || self.slots.index().behind() > 0
    }

    /// There is no worker in this slot: its standby takes over, if it has one, else a new worker is started if one is
    /// needed. True if a standby has taken over.
    pub(super) fn fill_vacancy(&mut self, number: usize, backlog: usize, flags: NotifyFlags) -> bool {
        let slot = self.slots.get(number);
        if slot.standby.is_some() {
            self.slots.change(number, |slot| {
                if let Some(mut standby) = slot.standby.take() {
                    standby.set_notify_flags(flags);
                    slot.state = SlotState::Ready(standby);
                }
            });
            return true;
        }
        if slot.pending_starts > 0 {
            self.slots.change(number, |slot| slot.state = SlotState::Starting);
        } else {
            self.start_if_needed(number, backlog);
        }
        false
    }

    /// Starts a worker for a vacant slot if one is needed here.
    fn start_if_needed(&mut self, number: usize, backlog: usize) {
        let needed = match self.phase {
            // The builder waits for the first ones, whether there is work for them or not.
            Phase::Open => self.config.eager || self.work_waits(backlog) || self.awaiting_ready.load(SeqCst) > 0,
            Phase::Closing(_) => backlog > 0,
            Phase::Ended(_) => false,
        };
        let slot = self.slots.get(number);
        if needed && !inline::is_on() && slot.enabled && slot.is_vacant() {
            self.slots.change(number, |slot| slot.state = SlotState::Backoff);
            let pause = self.starts.pause(self.slots.len());
            self.effects.start.push(Start { number, pause, standby: false });
        }
    }

    /// It is time to start a worker for this slot; false if none is needed any more.
    pub(super) fn confirm_start(&mut self, start: Start) -> bool {
        let slot = self.slots.get(start.number);
        let has_place = if start.standby {
            slot.enabled && slot.pending_starts == 0 && slot.standby.is_none()
        } else {
            matches!(slot.state, SlotState::Backoff)
        };
        let needed = has_place && !self.has_ended();
        if needed {
            self.slots.change(start.number, |slot| {
                slot.pending_starts += 1;
                if !start.standby {
                    slot.state = SlotState::Starting;
                }
            });
        }
        needed
    }

    /// A worker was started for this slot, and was given its setup; false if it is not needed any more.
    pub(super) fn attach(&mut self, number: usize, mut worker: Worker, flags: NotifyFlags) -> bool {
        self.effects.workers_changed = true;
        let ended = self.has_ended();
        let record = Arc::clone(&worker.record);
        worker.set_notify_flags(flags);
        let attached = self.slots.change(number, |slot| slot.attach(worker, ended));
        if !attached {
            let due = self.departures.add_killed(number, record);
            self.set_alarm(due);
        }
        attached
    }

    /// A worker is in its slot, and can be given calls once it is initialized.
    pub(super) fn record_arrival(&mut self, number: usize) {
        let worker = self.slots.get(number).worker_ref(number);
        if let Some(stats) = self.slots.stats_mut(number) {
            self.metrics.record_arrival(stats, worker);
        }
    }

    /// No worker could be started for this slot.
    pub(super) fn start_failed(&mut self, number: usize, error: &Error) {
        self.effects.workers_changed = true;
        self.slots.change(number, |slot| {
            slot.pending_starts -= 1;
            if matches!(slot.state, SlotState::Starting) && slot.pending_starts == 0 {
                slot.state = SlotState::Vacant;
            }
        });
        self.count_failed_start(number, error);
    }

    /// A worker has answered its setup or its initializer.
    pub(super) fn on_setup_reply(&mut self, number: usize, request: &Request, reply: Reply) {
        let setup = matches!(request, Request::Setup);
        let done = reply.kind == FrameKind::Done;
        let pending = self.slots.change_worker(number, |worker| worker.setup_answered(setup, done));
        let Some(pending) = pending else { return };
        if done {
            if pending == 0 {
                self.starts.worked();
                let _ = self.awaiting_ready.fetch_update(SeqCst, SeqCst, |awaited| awaited.checked_sub(1));
                self.effects.wake_leader = true;
            }
            return;
        }
        let Err(error) = outcome::of_reply(reply) else { return };
        let error = self.in_slot(number, error);
        if setup {
            self.count_failed_start(number, &error);
        } else {
            // The next one would fail in the same way.
            let error = self.config.in_initializer(&error);
            self.fail(Error::closed(format!("the initializer of its workers failed: {error}")));
        }
    }

    /// A worker could not be started, or did not come to its first call.
    fn count_failed_start(&mut self, number: usize, error: &Error) {
        if self.has_ended() {
            return;
        }
        let has_worker = self.slots.iter().any(|slot| slot.worker().is_some_and(|worker| worker.setup_pending == 0));
        let after = self.starts.count(error, self.slots.len(), has_worker);
        self.after_failed_start(number, error, after);
    }

    /// An initializer took too long, or its worker died in it.
    fn retry_initializer(&mut self, number: usize, error: &Error) {
        if self.has_ended() {
            return;
        }
        let after = self.starts.count_initializer(error.clone(), self.config.initializer_retries(), self.slots.len());
        self.after_failed_start(number, error, after);
    }

    fn after_failed_start(&mut self, number: usize, error: &Error, after: AfterFailure) {
        match after {
            AfterFailure::Close(reason) => self.fail(Error::closed(reason)),
            AfterFailure::Retry(None) => {}
            AfterFailure::Retry(Some(told)) => {
                let worker = WorkerRef { slot: number, name: format!("{}-{number}", self.config.name), pid: 0 };
                self.metrics.record_failed_start(worker, error, told);
            }
        }
    }

    /// The pool cannot go on. Its calls fail when the change is settled.
    fn fail(&mut self, error: Error) {
        self.metrics.record_closing(&error, true);
        self.phase = Phase::Ended(error);
        // A thread that waits for workers waits in vain.
        self.awaiting_ready.store(0, SeqCst);
        self.effects.wake_leader = true;
        self.slots.mark_changed();
    }

    /// A worker was stopped by a signal, or continued.
    pub(super) fn on_stop(&mut self, number: usize, record: &ChildHandle, signal: Option<i32>) {
        let worker = self.slots.worker(number).filter(|worker| worker.record.pid == record.pid);
        // Its setup may be answered and not collected yet, so the oldest call need not be the first of what it has.
        let mut requests = worker.into_iter().flat_map(|worker| worker.caller.tags());
        let task = requests.find_map(|request| if let Request::Call(call) = request { Some(call.task) } else { None });
        self.metrics.record_stop(WorkerRef::of(number, record), task, signal);
    }

    /// The process with this record has ended. If it was leaving, its finalizer may have failed.
    pub(super) fn on_exit(&mut self, record: &Arc<ChildHandle>, status: ExitStatus) {
        self.effects.workers_changed = true;
        if let Some((number, error)) = self.departures.ended(&self.config, record, status) {
            self.finalizer_failed(number, error);
        }
    }

    /// Takes the process with this record, which has ended, out of its slot.
    pub(super) fn take_ended(&mut self, number: usize, record: &Arc<ChildHandle>) -> Ended {
        let ended = self.slots.change(number, |slot| slot.take_ended(record));
        match &ended {
            Ended::Worker(worker) => self.record_departure(number, worker),
            Ended::Dying(dying) => {
                let task = dying.running.first().map(|(queued, _)| queued.call.task);
                self.metrics.record_kill(WorkerRef::of(number, record), &dying.cause, task);
            }
            Ended::Standby(_) | Ended::Other => {}
        }
        ended
    }

    /// A worker is dead that was to live, and its replies are taken. Counts a start that failed, if it had not come to its
    /// first call. Returns what becomes of the call that it was running.
    pub(super) fn record_death(&mut self, number: usize, worker: &Worker, status: ExitStatus) -> Error {
        let name = worker.record.name();
        let error = |execution| {
            outcome::of_exit(worker.record.exit(status), &worker.caller, execution).in_process(&name, worker.record.pid)
        };
        if worker.setup_pending > 0 && !worker.setup_failed && !self.has_ended() {
            if worker.is_in_initializer() {
                let died = self.config.in_initializer(&error(Execution::Unknown));
                if self.config.initializer_retries() == 0 {
                    self.count_failed_start(number, &died);
                } else {
                    self.retry_initializer(number, &died);
                }
            } else {
                self.count_failed_start(number, &error(Execution::NotStarted));
            }
        }
        let unknown = error(Execution::Unknown);
        if !self.has_ended() {
            self.metrics.record_death(number, unknown.clone(), worker.task());
        }
        unknown
    }

    /// A finalizer has failed, or was killed.
    pub(super) fn finalizer_failed(&mut self, number: usize, error: Error) {
        let error = error.with_note("it ran as the finalizer of its worker");
        if !self.is_open() {
            self.finalizer_failure.get_or_insert_with(|| error.clone());
        }
        self.metrics.record_failed_finalizer(number, error);
    }

    /// The first finalizer that failed after the pool was closed.
    pub(super) fn finalizer_failure(&self) -> Option<Error> {
        self.finalizer_failure.clone()
    }

    /// The pool takes no more calls; `error` is what later calls get.
    pub(super) fn close(&mut self, error: Error) {
        if self.is_open() {
            self.metrics.record_closing(&error, false);
            self.phase = Phase::Closing(error);
        }
        self.effects.wake_leader = true;
    }

    /// The pool ends now: kills every process. What has not started was cancelled.
    pub(super) fn terminate(&mut self, error: Error) {
        self.metrics.record_closing(&error, false);
        self.phase = Phase::Ended(error);
        for number in 0..self.slots.len() {
            self.metrics.record_leaving(self.slots.get(number).worker_ref(number));
            if let Some(standby) = self.slots.change(number, |slot| slot.standby.take()) {
                self.departures.add_killed(number, standby.record);
            }
            let slot = self.slots.get(number);
            self.effects.kill.extend(slot.worker().map(|worker| Arc::clone(&worker.record)));
            if let SlotState::Dying(dying) = &slot.state {
                self.effects.kill.push(Arc::clone(&dying.record));
            }
        }
        self.effects.kill.extend(self.departures.kill_all());
        self.set_alarm(self.departures.next());
    }

    /// Sends every worker home: those that are to be waited for are among the departures then. Only when no call is left.
    pub(super) fn stop_all(&mut self) {
        if let Phase::Closing(error) = &self.phase {
            self.phase = Phase::Ended(error.clone());
        }
        for number in 0..self.slots.len() {
            self.retire(number);
            let dying = self.slots.change(number, |slot| {
                if matches!(slot.state, SlotState::Backoff) {
                    slot.state = SlotState::Vacant;
                }
                slot.take_dying()
            });
            if let Some(dying) = dying {
                self.departures.add_dying(number, *dying);
            }
        }
    }

    /// Whether no worker is being started or ends.
    pub(super) fn has_no_process(&self) -> bool {
        self.departures.is_empty() && self.slots.iter().all(|slot| slot.pending_starts == 0)
    }
}
