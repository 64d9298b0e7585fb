//! Worker lifecycle: start, setup, exit, respawn.
//!
//! Owns: nothing of its own; it works on the [`Scheduler`]. Runs in: the parent, under the mutex.
//! Never: gives up a call that may still be made. What follows from a start that fails is `starts`' business.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use super::call::{QueuedCall, Waiters};
use super::departures::{Dying, Leaving};
use super::effects::Start;
use super::inline;
use super::scheduler::{Leader, Phase, Scheduler};
use super::slot::{Request, SlotState, Worker};
use crate::call::outcome;
use crate::error::{Error, ErrorKind, Execution};
use crate::link::frame::FrameKind;
use crate::link::{Caller, InFlightAtExit, PartialBatch, Reply};
use crate::supervisor::ChildHandle;

impl Scheduler {
    /// A worker was started for this place, and was given its setup; false if it is not wanted any more.
    pub(super) fn attach_worker(&mut self, number: usize, mut worker: Worker) -> bool {
        self.effects.workers_changed = true;
        let slot = &mut self.slots[number];
        slot.pending_starts -= 1;
        let vacant = matches!(slot.state, SlotState::Starting);
        if matches!(self.phase, Phase::Ended(_)) || !slot.wanted || !(vacant || slot.standby.is_none()) {
            if vacant {
                slot.state = SlotState::Vacant;
            }
            self.leave_killed(number, worker.record);
            return false;
        }
        worker.set_notify_flags(self.notify_flags.0, self.notify_flags.1);
        if vacant {
            slot.state = SlotState::Ready(Box::new(worker));
            self.see_arrival(number);
            // It may have answered its setup and its initializer before it could see that it has to ring.
            self.collect_from(number);
            self.update_load(number);
            // There is no notification when an initializer has taken too long.
            self.set_alarm(self.due(number));
        } else {
            slot.standby = Some(Box::new(worker));
            // The one that it stands by for may be done by now.
            self.update_load(number);
        }
        self.dispatch_backlog();
        self.rebalance();
        self.refresh_notify_flags();
        true
    }

    /// A worker has answered its setup or its initializer.
    pub(super) fn on_setup_reply(&mut self, number: usize, asked: &Request, reply: Reply) {
        let Some(worker) = self.slots[number].worker_mut() else { return };
        worker.setup_pending -= 1;
        let setup = matches!(asked, Request::Setup);
        if reply.kind == FrameKind::Done {
            worker.initializing &= setup;
            if worker.setup_pending == 0 {
                self.starts.worked();
                self.worker_ready();
            }
            return;
        }
        worker.setup_failed = true;
        let Err(error) = outcome::of_reply(reply) else { return };
        let error = self.in_place(number, error);
        if setup {
            self.count_failed_start(number, &error);
        } else {
            self.fail_initializer(&error);
        }
    }

    /// The worker with this record has ended.
    pub(super) fn on_worker_exit(&mut self, number: usize, record: &Arc<ChildHandle>, status: ExitStatus) {
        self.effects.workers_changed = true;
        self.has_left(record, status);
        if self.slots[number].worker().is_some_and(|worker| Arc::ptr_eq(&worker.record, record)) {
            self.collect_from(number);
        }
        let slot = &mut self.slots[number];
        if let Some(standby) = slot.standby.take_if(|standby| Arc::ptr_eq(&standby.record, record)) {
            self.on_worker_death(number, *standby, status);
            return;
        }
        match std::mem::replace(&mut slot.state, SlotState::Vacant) {
            SlotState::Ready(worker) if Arc::ptr_eq(&worker.record, record) => {
                self.see_departure(number, &worker);
                self.on_worker_death(number, *worker, status);
            }
            SlotState::Dying(dying) if Arc::ptr_eq(&dying.record, record) => {
                let Dying { running, cause, .. } = *dying;
                self.see_kill(number, record, &cause, running.first().map(|(queued, _)| queued.call.task));
                let again = running.into_iter().filter_map(|(queued, error)| self.fail_or_retry(queued, &error));
                let again: Vec<_> = again.collect();
                again.into_iter().rev().for_each(|queued| self.backlog.push_front(queued));
            }
            // Another worker is here by now.
            other => {
                slot.state = other;
                return;
            }
        }
        self.update_load(number);
        self.promote_standby(number);
        self.dispatch_backlog();
        self.refresh_notify_flags();
    }

    /// It is time to start a worker for this place; false if none is wanted any more.
    pub(super) fn confirm_start(&mut self, start: Start) -> bool {
        let slot = &mut self.slots[start.number];
        let wanted = if start.standby {
            let ended = matches!(self.phase, Phase::Ended(_));
            !ended && slot.wanted && slot.pending_starts == 0 && slot.standby.is_none()
        } else {
            matches!(slot.state, SlotState::Backoff)
        };
        if wanted {
            slot.pending_starts += 1;
            if !start.standby {
                slot.state = SlotState::Starting;
            }
        }
        wanted
    }

    /// Whether a worker that was asked for is not there yet.
    pub(super) fn is_starting(&self) -> bool {
        self.slots.iter().any(|slot| slot.pending_starts > 0)
    }

    /// The first workers are about to be asked for. Returns how many are not ready.
    pub(super) fn confirm_first_starts(&mut self, workers: usize) -> Arc<AtomicUsize> {
        for slot in &mut self.slots {
            slot.state = SlotState::Starting;
            slot.pending_starts = 1;
        }
        self.awaiting_ready.store(workers, SeqCst);
        Arc::clone(&self.awaiting_ready)
    }

    /// One of the first workers could not be started, so the pool is not built.
    pub(super) fn first_start_failed(&mut self, number: usize) {
        self.slots[number].state = SlotState::Vacant;
        self.slots[number].pending_starts = 0;
        self.effects.workers_changed = true;
    }

    /// Whether no worker is being started or ends.
    pub(super) fn has_no_process(&self) -> bool {
        !self.is_starting() && self.leaving.is_empty()
    }

    /// No worker could be started for this place. Fails the pool if that keeps happening.
    pub(super) fn start_failed(&mut self, number: usize, error: &Error) {
        self.effects.workers_changed = true;
        let slot = &mut self.slots[number];
        slot.pending_starts -= 1;
        if matches!(slot.state, SlotState::Starting) && slot.pending_starts == 0 {
            slot.state = SlotState::Vacant;
        }
        self.count_failed_start(number, error);
        self.fill(number);
    }

    /// Takes no more calls; `error` is what later calls get.
    pub(super) fn close(&mut self, error: Error) {
        if self.phase == Phase::Open {
            self.see_closing(&error, false);
            self.phase = Phase::Closing(error);
        }
        // A thread that waits for a place waits for nothing.
        self.effects.wake.extend(self.limit.close().into_iter().map(Waiters::of));
        self.effects.wake_leader |= self.leader == Leader::Parked;
    }

    /// Ends everything now: what has not started is cancelled, what runs is killed.
    pub(super) fn terminate(&mut self, error: Error) {
        self.cancel_all();
        self.see_closing(&error, false);
        self.phase = Phase::Ended(error);
        (0..self.slots.len()).for_each(|number| self.see_leaving(number));
        for (number, slot) in self.slots.iter_mut().enumerate() {
            self.leaving.extend(slot.standby.take().map(|standby| Leaving::killed(number, standby.record)));
            self.effects.kill.extend(slot.worker().map(|worker| Arc::clone(&worker.record)));
        }
        self.kill_leaving();
    }

    /// Cancels every call that has not started.
    pub(super) fn cancel_all(&mut self) {
        for number in self.levels.watched().to_vec() {
            self.reclaim(number, usize::MAX);
        }
        self.cancel_all_dying();
        self.fail_backlog(&Error::new(ErrorKind::Cancelled, Execution::NotStarted));
    }

    /// Sends every worker home: those that are to be waited for are among the leaving then. Only when no call is left.
    pub(super) fn stop_all(&mut self) {
        if let Phase::Closing(error) = &self.phase {
            self.phase = Phase::Ended(error.clone());
        }
        for number in 0..self.slots.len() {
            self.retire_worker(number);
            match std::mem::replace(&mut self.slots[number].state, SlotState::Vacant) {
                SlotState::Starting => self.slots[number].state = SlotState::Starting,
                SlotState::Dying(dying) => self.leaving.push(dying.leave(number)),
                SlotState::Ready(_) | SlotState::Vacant | SlotState::Backoff => {}
            }
        }
    }

    /// A worker broke the protocol: nothing that it says is believed any more.
    pub(super) fn on_protocol_violation(&mut self, number: usize, reason: &str) {
        let error = self.in_place(number, outcome::of_violation(reason));
        self.kill_worker(number, &error, None);
    }

    /// A worker is dead, and its replies are taken: settles what it was running, and takes the rest back.
    fn on_worker_death(&mut self, number: usize, worker: Worker, status: ExitStatus) {
        let name = worker.record.name();
        let error = |caller: &Caller<Request>, execution| {
            outcome::of_exit(worker.record.exit(status), caller, execution).in_process(&name, worker.record.pid)
        };
        if worker.setup_pending > 0 && !worker.setup_failed && !matches!(self.phase, Phase::Ended(_)) {
            if matches!(worker.caller.running(), Some(Request::Initializer)) {
                let died = error(&worker.caller, Execution::Unknown);
                self.initializer_died(number, &died);
            } else {
                let never_worked = error(&worker.caller, Execution::NotStarted);
                self.count_failed_start(number, &never_worked);
            }
        }
        let unknown = error(&worker.caller, Execution::Unknown);
        if !matches!(self.phase, Phase::Ended(_)) {
            self.see_death(number, unknown.clone(), worker.task());
        }
        let record = Arc::clone(&worker.record);
        let (running, salvaged) = self.settle_in_flight(worker);
        let mut again = Vec::new();
        let mut salvaged = salvaged;
        for queued in running {
            match salvaged.take().filter(|_| queued.call.is_batch()) {
                Some(salvaged) => again.extend(self.settle_partial_batch(&record, queued, salvaged, &unknown)),
                None => again.extend(self.fail_or_retry(queued, &unknown)),
            }
        }
        again.into_iter().rev().for_each(|queued| self.backlog.push_front(queued));
    }

    /// Sorts what a worker had that is dead, or believed no more: returns what it was running, and of a batch what was
    /// answered; what it had not begun goes back to the front of the backlog.
    pub(super) fn settle_in_flight(&mut self, worker: Worker) -> (Vec<QueuedCall>, Option<PartialBatch>) {
        self.timed -= worker.timed;
        let InFlightAtExit { mut running, salvaged, mut unclaimed } = worker.caller.in_flight_at_exit();
        let next = unclaimed.first().filter(|_| running.is_empty() && worker.setup_pending == 0);
        if let Some((Request::Call(call), _)) = next
            && call.is_poison_pill()
        {
            running.push(unclaimed.remove(0));
        }
        self.requeue(unclaimed);
        let calls = running.into_iter().filter_map(|(asked, payload)| match asked {
            Request::Call(call) => Some(QueuedCall { call, payload }),
            _ => None,
        });
        (calls.collect(), salvaged)
    }

    /// The process died under this call, which has failed, unless it is to be made once more.
    pub(super) fn fail_or_retry(&mut self, queued: QueuedCall, error: &Error) -> Option<QueuedCall> {
        let QueuedCall { call, payload } = queued;
        if self.phase == Phase::Open || matches!(self.phase, Phase::Closing(_)) {
            let may = !matches!(error.kind(), ErrorKind::Cancelled) && !call.abandoned.load(Relaxed);
            if may && call.record_attempt(error) {
                self.see_retry(&call, error);
                call.set_worker(None);
                return Some(QueuedCall { call, payload });
            }
        }
        self.settle_call(&call, Err(error.clone()));
        call.set_worker(None);
        None
    }

    /// Asks for a new worker if one is needed here.
    pub(super) fn fill(&mut self, number: usize) {
        let needed = match self.phase {
            // The builder waits for the first ones, whether there is work for them or not.
            Phase::Open => self.config.eager || self.work_waits() || self.awaiting_ready.load(SeqCst) > 0,
            Phase::Closing(_) => !self.backlog.is_empty(),
            Phase::Ended(_) => false,
        };
        let slot = &mut self.slots[number];
        if needed && !inline::is_on() && slot.wanted && matches!(slot.state, SlotState::Vacant) {
            slot.state = SlotState::Backoff;
            let pause = self.pause_before_start();
            self.effects.start.push(Start { number, pause, standby: false });
        }
    }

    /// The pool cannot go on.
    pub(super) fn fail_pool(&mut self, error: Error) {
        self.fail_backlog(&error);
        self.see_closing(&error, true);
        self.phase = Phase::Ended(error);
        // A thread that waits for workers waits in vain.
        self.awaiting_ready.store(0, SeqCst);
        self.effects.wake_leader |= self.leader == Leader::Parked;
    }

    fn worker_ready(&mut self) {
        let _ = self.awaiting_ready.fetch_update(SeqCst, SeqCst, |awaiting_ready| awaiting_ready.checked_sub(1));
        self.effects.wake_leader |= self.leader == Leader::Parked;
    }
}
