//! Worker lifecycle: start, setup, exit, respawn; and the end of them all.
//!
//! Runs in: the parent, under the mutex.
//! Invariant: a call that may still be made is not given up. A standby has no call while its worker is there.
//!
//! | a worker dies | it costs |
//! |---|---|
//! | before its setup is answered | one failed start; what follows is up to [`Starts`](super::starts::Starts) |
//! | with no call claimed | nothing: its calls go back to the front of the backlog |
//! | in a call | that call fails, or is made again if its task has retries left; those behind go back to the backlog |
//! | in a batch | the one item that it was running, likewise; results before it count |
//! | while it is a standby | nothing |
//! | on its way out | nothing; its finalizer has failed if it had not answered |

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use super::call::{Call, QueuedCall, Waiters};
use super::death::Dying;
use super::effects::Start;
use super::inline;
use super::metrics::WorkerRef;
use super::scheduler::{Phase, Scheduler};
use super::slot::{Ended, Request, SlotState, Worker};
use super::starts::AfterFailure;
use crate::call::outcome;
use crate::error::{Error, ErrorKind, Execution};
use crate::link::frame::FrameKind;
use crate::link::{Caller, InFlightAtExit, PartialBatch, Reply};
use crate::supervisor::ChildHandle;

impl Scheduler {
    /// Looks at the slots that were changed: a vacant one gets a worker, an idle worker leaves if it is not needed.
    #[inline]
    pub(super) fn settle_slots(&mut self) {
        while let Some(number) = self.slots.next_dirty() {
            let slot = self.slots.get(number);
            if slot.is_vacant() {
                self.fill_vacancy(number);
            } else if slot.load().is_some_and(|load| load.load == 0) {
                self.on_idle(number);
            }
        }
    }

    /// The first workers are about to be started. Returns how many are not ready.
    pub(super) fn confirm_first_starts(&mut self, workers: usize) -> Arc<AtomicUsize> {
        for number in 0..workers {
            self.slots.change(number, |slot| {
                slot.state = SlotState::Starting;
                slot.pending_starts = 1;
            });
        }
        self.awaiting_ready.store(workers, SeqCst);
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
    pub(super) fn attach_worker(&mut self, number: usize, mut worker: Worker) -> bool {
        self.effects.workers_changed = true;
        let (ended, flags) = (self.has_ended(), self.leadership.flags());
        let record = Arc::clone(&worker.record);
        worker.set_notify_flags(flags);
        let attached = self.slots.change(number, |slot| {
            slot.pending_starts -= 1;
            let starting = matches!(slot.state, SlotState::Starting);
            let has_room = starting || slot.standby.is_none();
            if ended || !slot.enabled || !has_room {
                if starting {
                    slot.state = SlotState::Vacant;
                }
                return false;
            }
            if starting {
                slot.state = SlotState::Ready(Box::new(worker));
            } else {
                slot.standby = Some(Box::new(worker));
            }
            true
        });
        if !attached {
            let due = self.departures.add_killed(number, record);
            self.set_alarm(due);
        } else if self.slots.worker(number).is_some_and(|worker| Arc::ptr_eq(&worker.record, &record)) {
            self.on_arrival(number);
        }
        attached
    }

    /// A worker is in its slot, and can be given calls once it is initialized.
    fn on_arrival(&mut self, number: usize) {
        let worker = self.slots.get(number).worker_ref(number);
        if let Some(stats) = self.slots.stats_mut(number) {
            self.metrics.record_arrival(stats, worker);
        }
        // It may have answered its setup and its initializer before it could see that it has to notify.
        self.collect_from(number);
        // There is no notification when an initializer has taken too long.
        self.set_alarm(self.next_check(number));
    }

    /// A worker has answered its setup or its initializer.
    pub(super) fn on_setup_reply(&mut self, number: usize, request: &Request, reply: Reply) {
        let setup = matches!(request, Request::Setup);
        let done = reply.kind == FrameKind::Done;
        let pending = self.slots.change_worker(number, |worker| {
            worker.setup_pending -= 1;
            if done {
                worker.initializing &= setup;
            } else {
                worker.setup_failed = true;
            }
            worker.setup_pending
        });
        let Some(pending) = pending else { return };
        if done {
            if pending == 0 {
                self.starts.worked();
                self.worker_ready();
            }
            return;
        }
        let Err(error) = outcome::of_reply(reply) else { return };
        let error = self.in_slot(number, error);
        if setup {
            self.count_failed_start(number, &error);
        } else {
            // The next one would fail in the same way.
            let error = self.of_initializer(&error);
            self.fail_pool(Error::closed(format!("the initializer of its workers failed: {error}")));
        }
    }

    /// A worker was stopped by a signal, or continued.
    pub(super) fn on_worker_stop(&mut self, number: usize, record: &ChildHandle, signal: Option<i32>) {
        let worker = self.slots.worker(number).filter(|worker| worker.record.pid == record.pid);
        // Its setup may be answered and not collected yet, so the oldest call need not be the first of what it has.
        let mut requests = worker.into_iter().flat_map(|worker| worker.caller.tags());
        let task = requests.find_map(|request| if let Request::Call(call) = request { Some(call.task) } else { None });
        self.metrics.record_stop(WorkerRef::of(number, record), task, signal);
    }

    /// The worker with this record has ended.
    pub(super) fn on_worker_exit(&mut self, number: usize, record: &Arc<ChildHandle>, status: ExitStatus) {
        self.effects.workers_changed = true;
        if let Some((number, error)) = self.departures.ended(&self.config, record, status) {
            self.finalizer_failed(number, error);
        }
        if self.slots.worker(number).is_some_and(|worker| Arc::ptr_eq(&worker.record, record)) {
            self.collect_from(number);
        }
        match self.slots.change(number, |slot| slot.take_ended(record)) {
            Ended::Standby(standby) => self.on_worker_death(number, *standby, status),
            Ended::Worker(worker) => {
                self.record_departure(number, &worker);
                self.on_worker_death(number, *worker, status);
            }
            Ended::Dying(dying) => {
                let Dying { running, cause, .. } = *dying;
                let task = running.first().map(|(queued, _)| queued.call.task);
                self.metrics.record_kill(WorkerRef::of(number, record), &cause, task);
                let again = running.into_iter().filter_map(|(queued, error)| self.fail_or_retry(queued, &error));
                let again: Vec<_> = again.collect();
                self.dispatcher.requeue(again.into_iter());
            }
            Ended::Other => {}
        }
    }

    /// A worker is dead, and its replies are taken: settles what it was running, and takes the rest back.
    fn on_worker_death(&mut self, number: usize, worker: Worker, status: ExitStatus) {
        let name = worker.record.name();
        let error = |caller: &Caller<Request>, execution| {
            outcome::of_exit(worker.record.exit(status), caller, execution).in_process(&name, worker.record.pid)
        };
        if worker.setup_pending > 0 && !worker.setup_failed && !self.has_ended() {
            if worker.is_in_initializer() {
                let died = error(&worker.caller, Execution::Unknown);
                let died = self.of_initializer(&died);
                if self.initializer_retries() == 0 {
                    self.count_failed_start(number, &died);
                } else {
                    self.retry_initializer(number, &died);
                }
            } else {
                let never_worked = error(&worker.caller, Execution::NotStarted);
                self.count_failed_start(number, &never_worked);
            }
        }
        let unknown = error(&worker.caller, Execution::Unknown);
        if !self.has_ended() {
            self.metrics.record_death(number, unknown.clone(), worker.task());
        }
        let record = Arc::clone(&worker.record);
        let (running, mut salvaged) = self.settle_in_flight(worker);
        let mut again = Vec::new();
        for queued in running {
            match salvaged.take().filter(|_| queued.call.is_batch()) {
                Some(salvaged) => again.extend(self.settle_partial_batch(&record, queued, salvaged, &unknown)),
                None => again.extend(self.fail_or_retry(queued, &unknown)),
            }
        }
        self.dispatcher.requeue(again.into_iter());
    }

    /// Sorts what a worker had that is dead, or believed no more: returns what it was running, and of a batch what was
    /// answered; what it had not begun goes back to the front of the backlog.
    fn settle_in_flight(&mut self, worker: Worker) -> (Vec<QueuedCall>, Option<PartialBatch>) {
        self.timers.remove_timed(worker.timed);
        let InFlightAtExit { mut running, salvaged, mut unclaimed } = worker.caller.in_flight_at_exit();
        let next = unclaimed.first().filter(|_| running.is_empty() && worker.setup_pending == 0);
        if let Some((Request::Call(call), _)) = next
            && call.is_poison_pill()
        {
            running.push(unclaimed.remove(0));
        }
        self.requeue(unclaimed);
        let calls = running.into_iter().filter_map(|(request, payload)| match request {
            Request::Call(call) => Some(QueuedCall { call, payload }),
            _ => None,
        });
        (calls.collect(), salvaged)
    }

    /// The process died under this call, which has failed, unless it is to be made once more.
    fn fail_or_retry(&mut self, queued: QueuedCall, error: &Error) -> Option<QueuedCall> {
        let QueuedCall { call, payload } = queued;
        let may = !matches!(error.kind(), ErrorKind::Cancelled) && !call.abandoned.load(Relaxed);
        if may && !self.has_ended() && call.record_attempt(error) {
            let worker = self.worker_of(&call, Some(error));
            let slot = call.worker().and_then(|number| self.slots.stats_mut(number));
            self.metrics.record_retry(&call, slot, worker, error);
            call.set_worker(None);
            return Some(QueuedCall { call, payload });
        }
        self.settle_call(&call, Err(error.clone()));
        call.set_worker(None);
        None
    }

    /// A worker broke the protocol: nothing that it says is believed any more.
    pub(super) fn on_protocol_violation(&mut self, number: usize, reason: &str) {
        let error = self.in_slot(number, outcome::of_violation(reason));
        self.kill_worker(number, &error, None);
    }

    /// Nothing is expected of this worker any more, and it is killed, or asked to end and killed after `grace`. What it was
    /// running ends with `error` once it is dead; what it had not begun moves on now.
    pub(super) fn kill_worker(&mut self, number: usize, error: &Error, grace: Option<std::time::Duration>) {
        let Some(worker) = self.slots.change(number, super::slot::Slot::take_worker) else { return };
        self.record_departure(number, &worker);
        let record = Arc::clone(&worker.record);
        let (running, _) = self.settle_in_flight(*worker);
        let running = running.into_iter().map(|queued| (queued, error.clone())).collect();
        match grace {
            None => self.effects.kill.push(Arc::clone(&record)),
            Some(_) => self.effects.end.push(Arc::clone(&record)),
        }
        let dying = Dying::new(record, running, error.clone(), grace.unwrap_or_default());
        self.set_alarm(dying.death.next());
        self.slots.change(number, |slot| slot.state = SlotState::Dying(Box::new(dying)));
    }

    /// Cancels a call of a worker that is about to be dead, if it would be made again. True if it ends as cancelled.
    pub(super) fn cancel_dying(&mut self, number: usize, call: &Arc<Call>) -> bool {
        self.slots.change(number, |slot| match &mut slot.state {
            SlotState::Dying(dying) => dying.cancel(call),
            _ => false,
        })
    }

    /// Takes the retries from all calls of workers that are about to be dead.
    pub(super) fn cancel_all_dying(&mut self) {
        for number in 0..self.slots.len() {
            if matches!(self.slots.get(number).state, SlotState::Dying(_)) {
                self.slots.change(number, |slot| {
                    if let SlotState::Dying(dying) = &mut slot.state {
                        dying.cancel_all();
                    }
                });
            }
        }
    }

    /// Whether a worker that is not dead yet was running this call.
    pub(super) fn is_dying_under(&self, number: usize, call: &Arc<Call>) -> bool {
        matches!(&self.slots.get(number).state, SlotState::Dying(dying) if dying.has(call))
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
    pub(super) fn retry_initializer(&mut self, number: usize, error: &Error) {
        if self.has_ended() {
            return;
        }
        let retries = self.initializer_retries();
        let after = self.starts.count_initializer(error.clone(), retries, self.slots.len());
        self.after_failed_start(number, error, after);
    }

    fn after_failed_start(&mut self, number: usize, error: &Error, after: AfterFailure) {
        match after {
            AfterFailure::Close(reason) => self.fail_pool(Error::closed(reason)),
            AfterFailure::Retry(None) => {}
            AfterFailure::Retry(Some(told)) => {
                let worker = WorkerRef { slot: number, name: format!("{}-{number}", self.config.name), pid: 0 };
                self.metrics.record_failed_start(worker, error, told);
            }
        }
    }

    fn initializer_retries(&self) -> usize {
        self.config.initializer.as_ref().map_or(0, |initializer| initializer.options().retries as usize)
    }

    pub(super) fn of_initializer(&self, error: &Error) -> Error {
        match &self.config.initializer {
            Some(initializer) => error.clone().in_task(initializer.task().name()),
            None => error.clone(),
        }
    }

    /// There is no worker in this slot: its standby takes over, if it has one, else a new worker is started if one is
    /// needed.
    fn fill_vacancy(&mut self, number: usize) {
        let slot = self.slots.get(number);
        if slot.standby.is_some() {
            let flags = self.leadership.flags();
            self.slots.change(number, |slot| {
                if let Some(mut standby) = slot.standby.take() {
                    standby.set_notify_flags(flags);
                    slot.state = SlotState::Ready(standby);
                }
            });
            self.on_arrival(number);
        } else if slot.pending_starts > 0 {
            self.slots.change(number, |slot| slot.state = SlotState::Starting);
        } else {
            self.start_if_needed(number);
        }
    }

    /// Starts a worker for a vacant slot if one is needed here.
    pub(super) fn start_if_needed(&mut self, number: usize) {
        let needed = match self.phase {
            // The builder waits for the first ones, whether there is work for them or not.
            Phase::Open => self.config.eager || self.work_waits() || self.awaiting_ready.load(SeqCst) > 0,
            Phase::Closing(_) => !self.dispatcher.is_empty(),
            Phase::Ended(_) => false,
        };
        let slot = self.slots.get(number);
        if needed && !inline::is_on() && slot.enabled && slot.is_vacant() {
            self.slots.change(number, |slot| slot.state = SlotState::Backoff);
            let pause = self.starts.pause(self.slots.len());
            self.effects.start.push(Start { number, pause, standby: false });
        }
    }

    /// The pool cannot go on.
    fn fail_pool(&mut self, error: Error) {
        self.fail_backlog(&error);
        self.metrics.record_closing(&error, true);
        self.phase = Phase::Ended(error);
        // A thread that waits for workers waits in vain.
        self.awaiting_ready.store(0, SeqCst);
        self.wake_leader();
    }

    fn worker_ready(&mut self) {
        let _ = self.awaiting_ready.fetch_update(SeqCst, SeqCst, |awaited| awaited.checked_sub(1));
        self.wake_leader();
    }

    /// Takes no more calls; `error` is what later calls get.
    pub(super) fn close(&mut self, error: Error) {
        if self.is_open() {
            self.metrics.record_closing(&error, false);
            self.phase = Phase::Closing(error);
        }
        // A thread that waits for a permit waits for nothing.
        self.effects.wake.extend(self.dispatcher.limit().close().into_iter().map(Waiters::of));
        self.wake_leader();
    }

    /// Ends everything now: what has not started is cancelled, what runs is killed.
    pub(super) fn terminate(&mut self, error: Error) {
        self.cancel_all();
        // Workers that are idle now and not needed leave, and are killed with the others that do.
        self.settle_slots();
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

    /// Whether no worker is being started or ends.
    pub(super) fn has_no_process(&self) -> bool {
        self.departures.is_empty() && self.slots.iter().all(|slot| slot.pending_starts == 0)
    }
}
