//! What may happen to a call on its way: it is cancelled, its worker dies or takes too long, the pool ends; and which thread
//! polls for its reply.
//!
//! Runs in: the parent, under the mutex.
//! Invariant: a call that may still be made is not given up.
//!
//! | a worker dies | it costs |
//! |---|---|
//! | before its setup is answered | one failed start; what follows is up to [`Starts`](crate::pool::starts::Starts) |
//! | with no call claimed | nothing: its calls go back to the front of the backlog |
//! | in a call | that call fails, or is made again if its task has retries left; those behind go back to the backlog |
//! | in a batch | the one item that it was running fails, or is made again; results before it count |
//! | while it is a standby | nothing |
//! | on its way out | nothing; its finalizer has failed if it had not answered |

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;
use std::time::Duration;

use super::Scheduler;
use crate::call::outcome;
use crate::error::{Error, ErrorKind, Execution};
use crate::link::PartialBatch;
use crate::pool::batch::{self, BatchRemains};
use crate::pool::call::{Call, QueuedCall};
use crate::pool::callbacks::Callback;
use crate::pool::leadership::Leader;
use crate::pool::metrics::Recorder;
use crate::pool::slot::{CallsAtExit, Ended, NotifyFlags, Request, Worker};
use crate::supervisor::{ChildHandle, not_dead_note};
use crate::sys::signal;

impl Scheduler {
    /// Cancels the calls that were abandoned and that no worker has claimed, also those that were given out.
    pub(in crate::pool) fn cancel_abandoned(&mut self) {
        self.reclaim_all();
        for call in self.dispatcher.take_abandoned() {
            self.settle_call(&call, Err(Error::new(ErrorKind::Cancelled, Execution::NotStarted)));
        }
        // A worker may have answered while it still saw calls behind, and notified of nothing.
        self.collect();
    }

    /// Cancels the call if it has not started, else, if `running`, kills its worker. True if it is cancelled.
    pub(in crate::pool) fn cancel(&mut self, call: &Arc<Call>, running: bool) -> bool {
        self.collect();
        if call.is_settled() {
            return call.was_cancelled();
        }
        if let Some(number) = call.worker() {
            self.reclaim(number, usize::MAX);
            // What it answered while it still saw calls behind, it may have notified of nothing.
            self.collect_from(number);
        }
        if !call.is_settled() {
            match call.worker() {
                None => self.cancel_queued(call),
                Some(number) if self.workers.slots.is_dying_under(number, call) => {
                    return self.workers.slots.cancel_dying(number, call);
                }
                Some(number) if running => {
                    let error = self.workers.in_slot(number, Error::new(ErrorKind::Cancelled, Execution::Unknown));
                    self.kill_worker(number, &error, self.workers.config().grace);
                    // With handles beside it, it could not be taken back though the worker had not begun it.
                    if !call.is_settled() && call.worker().is_none() {
                        self.cancel_queued(call);
                    }
                }
                Some(_) => {}
            }
        }
        call.was_cancelled() || call.worker().is_some_and(|number| self.workers.slots.cancel_dying(number, call))
    }

    /// Cancels a call where it stands in the backlog. The dispatcher drops it, and what it holds, once it is the first.
    fn cancel_queued(&mut self, call: &Arc<Call>) {
        self.settle_call(call, Err(Error::new(ErrorKind::Cancelled, Execution::NotStarted)));
        self.dispatcher.try_again();
    }

    /// Cancels every call that has not started.
    pub(in crate::pool) fn cancel_all(&mut self) {
        self.reclaim_all();
        self.workers.slots.cancel_all_dying();
        self.fail_backlog(&Error::new(ErrorKind::Cancelled, Execution::NotStarted));
    }

    /// Takes back every call that no worker has claimed.
    fn reclaim_all(&mut self) {
        for number in self.workers.slots.index().watched().to_vec() {
            self.reclaim(number, usize::MAX);
        }
    }

    /// Whether a worker runs this call, as far as is known.
    pub(in crate::pool) fn is_running(&self, call: &Arc<Call>) -> bool {
        let Some(number) = call.worker() else { return false };
        let running = self.workers.slots.worker(number).and_then(|worker| worker.caller.running());
        matches!(running, Some(Request::Call(running)) if Arc::ptr_eq(running, call))
            || self.workers.slots.is_dying_under(number, call)
    }

    /// Registers `waker`, to be woken when `call` is settled.
    pub(in crate::pool) fn register_waker(&mut self, call: &Arc<Call>, waker: Waker) {
        match call.set_waker(waker) {
            Some(before) => self.effects.drop_unlocked.push(before),
            None => self.leadership.add_interest(),
        }
    }

    /// Registers `callback`, to be called once `call` is settled; gives it back if it is.
    pub(in crate::pool) fn register_callback(&mut self, call: &Call, callback: Callback) -> Option<Callback> {
        let back = call.add_callback(callback);
        if back.is_none() {
            self.leadership.add_interest();
        }
        back
    }

    /// A permit was not used: wakes a thread that waits for one. It may be the leader.
    pub(in crate::pool) fn release_permit(&mut self) {
        let permit = self.dispatcher.limit().release();
        self.wake(permit);
    }

    /// A worker was started for this slot, and was given its setup; false if it is not needed any more.
    pub(in crate::pool) fn attach_worker(&mut self, number: usize, worker: Worker) -> bool {
        let record = Arc::clone(&worker.record);
        let attached = self.workers.attach(number, worker, self.leadership.flags());
        if self.workers.slots.worker(number).is_some_and(|worker| Arc::ptr_eq(&worker.record, &record)) {
            self.on_arrival(number);
        }
        attached
    }

    /// A worker is in its slot, and can be given calls once it is initialized.
    pub(super) fn on_arrival(&mut self, number: usize) {
        self.workers.record_arrival(number);
        // It may have answered its setup and its initializer before it could see that it has to notify.
        self.collect_from(number);
        // There is no notification when an initializer has taken too long.
        self.workers.set_next_check(number);
    }

    /// The worker with this record has ended.
    pub(in crate::pool) fn on_worker_exit(&mut self, number: usize, record: &Arc<ChildHandle>, status: ExitStatus) {
        self.workers.on_exit(record, status);
        if self.workers.slots.worker(number).is_some_and(|worker| Arc::ptr_eq(&worker.record, record)) {
            self.collect_from(number);
        }
        match self.workers.take_ended(number, record) {
            Ended::Standby(worker) | Ended::Worker(worker) => self.on_worker_death(number, *worker, status),
            Ended::Dying(dying) => {
                let running = dying.running.into_iter();
                let again = running.filter_map(|(queued, error)| self.fail_or_retry(queued, &error));
                let again: Vec<_> = again.collect();
                self.dispatcher.requeue(again.into_iter());
            }
            Ended::Other => {}
        }
    }

    /// A worker is dead, and its replies are taken: settles what it was running, and takes the rest back.
    fn on_worker_death(&mut self, number: usize, worker: Worker, status: ExitStatus) {
        let unknown = self.workers.record_death(number, &worker, status);
        let record = Arc::clone(&worker.record);
        let CallsAtExit { running, mut salvaged, unclaimed } = self.workers.slots.in_flight_at_exit(worker);
        self.dispatcher.requeue(unclaimed.into_iter());
        let mut again = Vec::new();
        for queued in running {
            match salvaged.take().filter(|_| queued.call.is_batch()) {
                Some(salvaged) => again.extend(self.settle_partial_batch(&record, queued, salvaged, &unknown)),
                None => again.extend(self.fail_or_retry(queued, &unknown)),
            }
        }
        self.dispatcher.requeue(again.into_iter());
    }

    /// The worker that was running this batch is dead: settles what is known of it, and returns the items that it had not
    /// begun. `error` is what becomes of the one that it was running.
    #[must_use = "items would be lost"]
    fn settle_partial_batch(
        &mut self,
        record: &Arc<ChildHandle>,
        QueuedCall { call, payload }: QueuedCall,
        salvaged: PartialBatch,
        error: &Error,
    ) -> Option<QueuedCall> {
        if let Some(stats) = call.worker().and_then(|number| self.workers.slots.stats_mut(number)) {
            stats.calls += u64::from(salvaged.tally.answered);
        }
        let BatchRemains { answered, lost, rest } = batch::on_death(record, &call, payload, salvaged);
        if lost.as_ref().is_some_and(|lost| !Arc::ptr_eq(lost, &call)) {
            self.dispatcher.admit_part();
        }
        let rest = self.admit_part(rest);
        if let Some(body) = answered {
            self.settle_call(&call, Ok(body));
        }
        if let Some(lost) = lost {
            self.settle_call(&lost, Err(error.clone()));
            lost.set_worker(None);
        }
        call.set_worker(None);
        rest
    }

    /// The process died under this call, which has failed, unless it is to be made once more.
    fn fail_or_retry(&mut self, queued: QueuedCall, error: &Error) -> Option<QueuedCall> {
        let call = &queued.call;
        let may = !matches!(error.kind(), ErrorKind::Cancelled) && !call.abandoned.load(Relaxed);
        let again = may && !self.workers.has_ended() && call.record_attempt(error);
        if again {
            self.workers.record_retry(call, error);
        } else {
            self.settle_call(call, Err(error.clone()));
        }
        call.set_worker(None);
        again.then_some(queued)
    }

    /// A worker broke the protocol: nothing that it says is believed any more.
    pub(super) fn on_protocol_violation(&mut self, number: usize, reason: &str) {
        let error = self.workers.in_slot(number, outcome::of_violation(reason));
        self.kill_worker(number, &error, None);
    }

    /// Nothing is expected of this worker any more, and it is killed, or asked to end and killed after `grace`. What it was
    /// running ends with `error` once it is dead; what it had not begun moves on now.
    fn kill_worker(&mut self, number: usize, error: &Error, grace: Option<Duration>) {
        let unclaimed = self.workers.kill(number, error, grace);
        self.dispatcher.requeue(unclaimed.into_iter());
    }

    /// Sets the number of workers.
    pub(in crate::pool) fn resize(&mut self, count: usize) {
        for number in self.workers.resize(count) {
            // What it has not begun moves on; it goes when it has answered the rest.
            self.reclaim(number, usize::MAX);
        }
    }

    /// A timer fired: retires workers that have been idle for too long.
    pub(in crate::pool) fn check_idle(&mut self) {
        self.poll();
        self.workers.retire_idle();
    }

    /// A timer fired: ends what has taken too long.
    pub(in crate::pool) fn check_deadlines(&mut self) {
        self.workers.alarm_fired();
        self.collect();
        // Handles may be given out now that were too many before.
        self.dispatcher.try_again();
        self.check_departures();
        for number in self.workers.slots.index().watched().to_vec() {
            if let Some(error) = self.workers.overdue_initializer(number) {
                self.kill_worker(number, &error, self.workers.config().grace);
            }
            if self.workers.is_late(number) {
                self.end_late(number);
            }
            self.workers.set_next_check(number);
        }
    }

    /// Ends the worker in this slot if it runs a call that has taken too long, or begins none.
    fn end_late(&mut self, number: usize) {
        let given = self.workers.slots.worker(number).and_then(|worker| worker.since);
        // From here on the worker cannot begin another call, so the one that is killed is the one that is late.
        self.reclaim(number, usize::MAX);
        self.collect_from(number);
        if let Some(error) = self.workers.overdue_call(number) {
            self.kill_worker(number, &error, self.workers.config().grace);
        } else if let Some(error) = self.workers.unresponsive(number, given) {
            // Without grace: it has nothing to clear up, and a stopped process does not hear that it is to end.
            self.kill_worker(number, &error, None);
        }
    }

    /// Checks the workers on their way out. The calls of one that does not die are settled all the same, and never made
    /// again.
    fn check_departures(&mut self) {
        let ends = self.workers.check_departures();
        for (queued, error) in ends.stuck.into_iter().flat_map(|dying| dying.running) {
            self.settle_call(&queued.call, Err(error.with_note(not_dead_note())));
            queued.call.set_worker(None);
        }
        for (number, record) in ends.dead {
            // Its fork server, which would reap it and end its group, does not.
            record.kill_group();
            self.on_worker_exit(number, &record, ExitStatus::from_raw(signal::KILL));
        }
        self.workers.set_next_departure_check();
    }

    /// Takes no more calls; `error` is what later calls get.
    pub(in crate::pool) fn close(&mut self, error: Error) {
        self.workers.close(error);
        // A thread that waits for a permit waits for nothing.
        for thread in self.dispatcher.limit().close() {
            self.wake(Some(thread));
        }
    }

    /// Ends everything now: what has not started is cancelled, what runs is killed.
    pub(in crate::pool) fn terminate(&mut self, error: Error) {
        self.cancel_all();
        // Workers that are idle now and not needed leave, and are killed with the others that do.
        self.settle_slots();
        self.workers.terminate(error);
    }

    /// A doorbell rang that no leader heard.
    pub(in crate::pool) fn on_doorbell(&mut self) {
        self.poll();
        if self.leadership.leader() == Leader::None {
            let (told, needed) = (self.leadership.flags(), self.needed_flags());
            self.set_notify_flags(NotifyFlags { reply: told.reply && needed.reply, idle: told.idle && needed.idle });
        }
    }

    /// A timer fired: checks the links of workers that have something to answer. A child that wrote over its own is believed
    /// no more, also if it notifies of nothing.
    pub(in crate::pool) fn check_links(&mut self) {
        self.workers.slots.check_links();
        self.collect();
    }

    /// A thread becomes the leader, or wakes up: it polls, so workers need not notify.
    pub(in crate::pool) fn become_leader(&mut self) {
        self.leadership.set_leader(Leader::Polling);
        self.set_notify_flags(NotifyFlags::default());
    }

    /// The leader is about to sleep: workers notify of each reply. False if one came before they could see that.
    pub(in crate::pool) fn park_leader(&mut self) -> bool {
        self.set_notify_flags(NotifyFlags { reply: true, idle: false });
        if self.has_reply() {
            self.set_notify_flags(NotifyFlags::default());
            return false;
        }
        self.leadership.set_leader(Leader::Parked);
        true
    }

    /// The leader steps down: from now on, the reactor hears the workers' doorbells. Promotes a follower.
    pub(in crate::pool) fn step_down(&mut self) {
        self.leadership.set_leader(Leader::None);
        self.promote_follower();
    }

    /// Wakes one follower if there is no leader.
    pub(in crate::pool) fn promote_follower(&mut self) {
        if self.effects.follower.is_none() {
            self.effects.follower = self.leadership.next_follower();
        }
    }

    /// Whether workers need every processor there is.
    pub(in crate::pool) fn is_crowded(&self) -> bool {
        self.workers.slots.index().watched().len() >= self.workers.config().processors
    }

    /// Ends the recording of a timeline, if this is the one. What came before counts.
    pub(in crate::pool) fn end_recording(&mut self, recorder: &Arc<Recorder>) {
        if self.workers.metrics.recorder().is_some_and(|current| Arc::ptr_eq(current, recorder)) {
            self.poll();
            self.workers.metrics.set_recorder(None);
        }
    }
}
