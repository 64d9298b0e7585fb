//! Worker lifecycle: start, setup, exit, respawn.
//!
//! Owns: nothing of its own; it works on the [`Scheduler`]. Runs in: the parent, under the mutex.
//! Never: gives up a call that may still be made. What follows from a start that fails is `starts`' business.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::call::{Queued, Waiters};
use super::departures::{Dying, Leaving};
use super::inline;
use super::scheduler::{Leader, Owed, Phase, Scheduler, Start};
use super::slot::{Request, SlotState, Worker};
use crate::error::{Error, ErrorKind, Execution};
use crate::link::frame::Kind;
use crate::link::{Caller, Remains, Reply, Salvaged};
use crate::supervisor::{ChildHandle, outcome};

impl Scheduler {
    /// A worker was started for this place, and was given its setup; false if it is not wanted any more.
    pub(super) fn attach_worker(&mut self, number: usize, mut worker: Worker, owed: &mut Owed) -> bool {
        let slot = &mut self.slots[number];
        slot.pending_starts -= 1;
        let vacant = matches!(slot.state, SlotState::Starting);
        if matches!(self.phase, Phase::Ended(_)) || !slot.wanted || !(vacant || slot.standby.is_none()) {
            if vacant {
                slot.state = SlotState::Vacant;
            }
            self.leave_killed(number, worker.record, owed);
            return false;
        }
        worker.set_notify_flags(self.notify_flags.0, self.notify_flags.1);
        if vacant {
            slot.state = SlotState::Ready(Box::new(worker));
            self.see_arrival(number, owed);
            // It may have answered its setup and its initializer before it could see that it has to ring.
            self.collect_from(number, owed);
            self.update_load(number, owed);
            // There is no notification when an initializer has taken too long.
            self.set_alarm(self.due(number), owed);
        } else {
            slot.standby = Some(Box::new(worker));
            // The one that it stands by for may be done by now.
            self.update_load(number, owed);
        }
        self.dispatch_backlog(owed);
        self.rebalance(owed);
        self.refresh_notify_flags(owed);
        true
    }

    /// A worker has answered its setup or its initializer.
    pub(super) fn on_setup_reply(&mut self, number: usize, asked: &Request, reply: Reply, owed: &mut Owed) {
        let Some(worker) = self.slots[number].worker_mut() else { return };
        worker.setup_pending -= 1;
        let setup = matches!(asked, Request::Setup);
        if reply.kind == Kind::Done {
            worker.initializing &= setup;
            if worker.setup_pending == 0 {
                self.starts.worked();
                self.worker_ready(owed);
            }
            return;
        }
        worker.setup_failed = true;
        let Err(error) = outcome::of_reply(reply) else { return };
        let error = self.in_place(number, error);
        if setup {
            self.count_failed_start(number, &error, owed);
        } else {
            self.fail_initializer(&error, owed);
        }
    }

    /// The worker with this record has ended.
    pub(super) fn ended(&mut self, number: usize, record: &Arc<ChildHandle>, status: ExitStatus, owed: &mut Owed) {
        self.has_left(record, status, owed);
        if self.slots[number].worker().is_some_and(|worker| Arc::ptr_eq(&worker.record, record)) {
            self.collect_from(number, owed);
        }
        let slot = &mut self.slots[number];
        if let Some(standby) = slot.standby.take_if(|standby| Arc::ptr_eq(&standby.record, record)) {
            self.on_worker_death(number, *standby, status, owed);
            return;
        }
        match std::mem::replace(&mut slot.state, SlotState::Vacant) {
            SlotState::Ready(worker) if Arc::ptr_eq(&worker.record, record) => {
                self.see_departure(number, &worker);
                self.on_worker_death(number, *worker, status, owed);
            }
            SlotState::Dying(dying) if Arc::ptr_eq(&dying.record, record) => {
                let Dying { running, cause, .. } = *dying;
                self.see_kill(number, record, &cause, running.first().map(|(queued, _)| queued.call.task), owed);
                let again = running.into_iter().filter_map(|(queued, error)| self.fail_or_retry(queued, &error, owed));
                let again: Vec<_> = again.collect();
                again.into_iter().rev().for_each(|queued| self.backlog.push_front(queued));
            }
            // Another worker is here by now.
            other => {
                slot.state = other;
                return;
            }
        }
        self.update_load(number, owed);
        self.promote_standby(number, owed);
        self.dispatch_backlog(owed);
        self.refresh_notify_flags(owed);
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

    /// No worker could be started for this place. Fails the pool if that keeps happening.
    pub(super) fn start_failed(&mut self, number: usize, error: &Error, owed: &mut Owed) {
        let slot = &mut self.slots[number];
        slot.pending_starts -= 1;
        if matches!(slot.state, SlotState::Starting) && slot.pending_starts == 0 {
            slot.state = SlotState::Vacant;
        }
        self.count_failed_start(number, error, owed);
        self.fill(number, owed);
    }

    /// Takes no more calls; `error` is what later calls get.
    pub(super) fn close(&mut self, error: Error, owed: &mut Owed) {
        if self.phase == Phase::Open {
            self.see_closing(&error, false, owed);
            self.phase = Phase::Closing(error);
        }
        // A thread that waits for a place waits for nothing.
        owed.wake.extend(self.room.close().into_iter().map(Waiters::of));
        owed.wake_leader |= self.leader == Leader::Parked;
    }

    /// Ends everything now: what has not started is cancelled, what runs is killed.
    pub(super) fn terminate(&mut self, error: Error, owed: &mut Owed) {
        self.cancel_all(owed);
        self.see_closing(&error, false, owed);
        self.phase = Phase::Ended(error);
        (0..self.slots.len()).for_each(|number| self.see_leaving(number, owed));
        for (number, slot) in self.slots.iter_mut().enumerate() {
            self.leaving.extend(slot.standby.take().map(|standby| Leaving::killed(number, standby.record)));
            owed.kill.extend(slot.worker().map(|worker| Arc::clone(&worker.record)));
        }
        self.kill_leaving(owed);
    }

    /// Cancels every call that has not started.
    pub(super) fn cancel_all(&mut self, owed: &mut Owed) {
        for number in self.levels.watched().to_vec() {
            self.reclaim(number, usize::MAX, owed);
        }
        self.cancel_all_dying();
        self.fail_backlog(&Error::new(ErrorKind::Cancelled, Execution::NotStarted), owed);
    }

    /// Sends every worker home: those that are to be waited for are among the leaving then. Only when no call is left.
    pub(super) fn stop_all(&mut self, owed: &mut Owed) {
        if let Phase::Closing(error) = &self.phase {
            self.phase = Phase::Ended(error.clone());
        }
        for number in 0..self.slots.len() {
            self.retire_worker(number, owed);
            match std::mem::replace(&mut self.slots[number].state, SlotState::Vacant) {
                SlotState::Starting => self.slots[number].state = SlotState::Starting,
                SlotState::Dying(dying) => self.leaving.push(dying.leave(number)),
                SlotState::Ready(_) | SlotState::Vacant | SlotState::Backoff => {}
            }
        }
    }

    /// A worker broke the protocol: nothing that it says is believed any more.
    pub(super) fn on_protocol_violation(&mut self, number: usize, reason: &str, owed: &mut Owed) {
        let error = self.in_place(number, outcome::of_violation(reason));
        self.kill_worker(number, &error, None, owed);
    }

    /// A worker is dead, and its replies are taken: settles what it was running, and takes the rest back.
    fn on_worker_death(&mut self, number: usize, worker: Worker, status: ExitStatus, owed: &mut Owed) {
        let name = worker.record.name();
        let error = |caller: &Caller<Request>, execution| {
            outcome::of_death(&worker.record, status, caller, execution).in_process(&name, worker.record.pid)
        };
        if worker.setup_pending > 0 && !worker.setup_failed && !matches!(self.phase, Phase::Ended(_)) {
            if matches!(worker.caller.running(), Some(Request::Initializer)) {
                let died = error(&worker.caller, Execution::Unknown);
                self.initializer_died(number, &died, owed);
            } else {
                let never_worked = error(&worker.caller, Execution::NotStarted);
                self.count_failed_start(number, &never_worked, owed);
            }
        }
        let unknown = error(&worker.caller, Execution::Unknown);
        if !matches!(self.phase, Phase::Ended(_)) {
            self.see_death(number, unknown.clone(), worker.task(), owed);
        }
        let record = Arc::clone(&worker.record);
        let (running, salvaged) = self.settle_in_flight(worker);
        let mut again = Vec::new();
        let mut salvaged = salvaged;
        for queued in running {
            match salvaged.take().filter(|_| queued.call.is_batch()) {
                Some(salvaged) => again.extend(self.settle_partial_batch(&record, queued, salvaged, &unknown, owed)),
                None => again.extend(self.fail_or_retry(queued, &unknown, owed)),
            }
        }
        again.into_iter().rev().for_each(|queued| self.backlog.push_front(queued));
    }

    /// Sorts what a worker had that is dead, or believed no more: returns what it was running, and of a batch what was
    /// answered; what it had not begun goes back to the front of the backlog.
    pub(super) fn settle_in_flight(&mut self, worker: Worker) -> (Vec<Queued>, Option<Salvaged>) {
        self.timed -= worker.timed;
        let Remains { mut running, salvaged, mut unclaimed } = worker.caller.remains();
        let next = unclaimed.first().filter(|_| running.is_empty() && worker.setup_pending == 0);
        if let Some((Request::Call(call), _)) = next
            && call.is_poison_pill()
        {
            running.push(unclaimed.remove(0));
        }
        self.requeue(unclaimed);
        let calls = running.into_iter().filter_map(|(asked, payload)| match asked {
            Request::Call(call) => Some(Queued { call, payload }),
            _ => None,
        });
        (calls.collect(), salvaged)
    }

    /// The process died under this call, which has failed, unless it is to be made once more.
    pub(super) fn fail_or_retry(&mut self, queued: Queued, error: &Error, owed: &mut Owed) -> Option<Queued> {
        let Queued { call, payload } = queued;
        if self.phase == Phase::Open || matches!(self.phase, Phase::Closing(_)) {
            let may = !matches!(error.kind(), ErrorKind::Cancelled) && !call.abandoned.load(Relaxed);
            if may && call.record_attempt(error) {
                self.see_retry(&call, error, owed);
                call.set_worker(None);
                return Some(Queued { call, payload });
            }
        }
        self.settle(&call, Err(error.clone()), owed);
        call.set_worker(None);
        None
    }

    /// Asks for a new worker if one is needed here.
    pub(super) fn fill(&mut self, number: usize, owed: &mut Owed) {
        let needed = match self.phase {
            // The builder waits for the first ones, whether there is work for them or not.
            Phase::Open => self.plan.eager || self.work_waits() || self.awaiting_ready.load(SeqCst) > 0,
            Phase::Closing(_) => !self.backlog.is_empty(),
            Phase::Ended(_) => false,
        };
        let slot = &mut self.slots[number];
        if needed && !inline::is_on() && slot.wanted && matches!(slot.state, SlotState::Vacant) {
            slot.state = SlotState::Backoff;
            let pause = self.pause_before_start();
            owed.start.push(Start { number, pause, standby: false });
        }
    }

    /// The pool cannot go on.
    pub(super) fn fail_pool(&mut self, error: Error, owed: &mut Owed) {
        self.fail_backlog(&error, owed);
        self.see_closing(&error, true, owed);
        self.phase = Phase::Ended(error);
        // A thread that waits for workers waits in vain.
        self.awaiting_ready.store(0, SeqCst);
        owed.wake_leader |= self.leader == Leader::Parked;
    }

    fn worker_ready(&mut self, owed: &mut Owed) {
        let _ = self.awaiting_ready.fetch_update(SeqCst, SeqCst, |awaiting_ready| awaiting_ready.checked_sub(1));
        owed.wake_leader |= self.leader == Leader::Parked;
    }
}
