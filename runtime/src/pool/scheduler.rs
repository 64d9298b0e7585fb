//! Everything that the pool's mutex guards: which worker has which calls, and which calls wait.
//!
//! Runs in: the parent, under the mutex, by way of [`Shared::update`](super::shared::Shared::update).
//!
//! A transition (a call is submitted or cancelled, replies are taken, a worker comes or ends, a timer fires) changes the part
//! that it is about, and gives out no calls. What follows for slots and the backlog is found by [`Scheduler::settle`], at the
//! end of each update. What is to be done outside of the mutex is pushed to the scheduler's own [`Effects`].
//!
//! | part | what it has |
//! |---|---|
//! | [`Slots`] | each worker's slot, the index by load, and which slots were changed |
//! | [`Dispatcher`] | the calls that no worker has, and how many there are in all |
//! | [`Leadership`] | the leader, the followers, and when workers notify |
//! | [`PoolTimers`] | when deadlines are checked |
//! | [`Departures`] | workers that are on their way out |
//! | [`Starts`] | starts that failed |
//! | [`Metrics`] | what is counted, and what observers are told |
//!
//! This file is about calls, `replies` about their replies and the leader, `supervision` about workers that come and end, and
//! `recycle` about those that are not needed or take too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::call::{Call, QueuedCall, Waiters};
use super::callbacks::Callback;
use super::config::PoolConfig;
use super::departures::Departures;
use super::dispatcher::Dispatcher;
use super::effects::Effects;
use super::leadership::{Leader, Leadership};
use super::metrics::{Metrics, PoolStats, WorkerRef, snapshot};
use super::pending_limit::PendingLimit;
use super::slot::Request;
use super::slots::Slots;
use super::starts::Starts;
use super::timers::PoolTimers;
use crate::error::{Direction, Error, ErrorKind, Execution, Result, why};
use crate::link::{Body, FD_RETRY_TIME, Payload, Reply, is_temporary};
use crate::supervisor::ChildHandle;
use crate::sys::Errno;

/// How soon handles are tried again that could not be sent because too many are under way.
const HANDLES_RETRY: Duration = Duration::from_millis(2);

/// How many workers a submitting thread polls.
const SUBMITTER_POLLS: usize = 4;

/// Everything under the mutex.
#[derive(Debug)]
pub(super) struct Scheduler {
    pub(super) config: Arc<PoolConfig>,
    pub(super) slots: Slots,
    pub(super) dispatcher: Dispatcher,
    pub(super) leadership: Leadership,
    pub(super) timers: PoolTimers,
    pub(super) departures: Departures,
    pub(super) starts: Starts,
    pub(super) metrics: Metrics,
    pub(super) phase: Phase,
    /// The first finalizer that failed after the pool was closed.
    pub(super) finalizer_failure: Option<Error>,
    /// Workers that the builder waits for.
    pub(super) awaiting_ready: Arc<AtomicUsize>,
    /// What is done once the mutex is released.
    pub(super) effects: Effects,
    /// What `collect_from` fills and empties.
    pub(super) replies: Vec<(Request, Reply)>,
}

/// What the pool still does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes calls.
    Open,
    /// Takes none, and finishes those it has.
    Closing(Error),
    /// Takes none, and has none.
    Ended(Error),
}

impl Scheduler {
    pub(super) fn new(config: Arc<PoolConfig>, slots: usize) -> Self {
        let mut scheduler = Self {
            config,
            slots: Slots::default(),
            dispatcher: Dispatcher::new(),
            leadership: Leadership::default(),
            timers: PoolTimers::default(),
            departures: Departures::default(),
            starts: Starts::default(),
            metrics: Metrics::new(),
            phase: Phase::Open,
            finalizer_failure: None,
            awaiting_ready: Arc::default(),
            effects: Effects::default(),
            replies: Vec::new(),
        };
        scheduler.slots.grow(slots);
        scheduler
    }

    /// Finds what follows from the changes since the last time, until nothing more does: vacant slots get a worker, idle
    /// workers that are not needed leave, calls are given out and evenly spread, and workers are told when to notify.
    ///
    /// It looks at what was changed, so its cost does not depend on the number of workers.
    #[inline]
    pub(super) fn settle(&mut self) {
        loop {
            self.settle_slots();
            if self.slots.take_changed() | self.dispatcher.take_due() {
                self.dispatch_backlog();
                if !self.rebalance() {
                    self.slots.take_changed();
                }
            } else if !self.raise_notify_flags() {
                return;
            }
        }
    }

    /// Takes what is to be done once the mutex is released, if there is anything.
    #[inline]
    pub(super) fn take_effects(&mut self) -> Option<Effects> {
        if self.metrics.has_events() {
            self.effects.events = self.metrics.take_events();
        }
        (!self.effects.is_empty()).then(|| std::mem::take(&mut self.effects))
    }

    pub(super) fn outstanding(&self) -> &Arc<AtomicUsize> {
        self.dispatcher.outstanding()
    }

    pub(super) fn limit(&self) -> &Arc<PendingLimit> {
        self.dispatcher.limit()
    }

    /// What the pool has done so far, and the processes whose memory is still to be read.
    pub(super) fn stats(&mut self) -> (PoolStats, Vec<Option<Arc<ChildHandle>>>) {
        self.collect();
        self.settle();
        snapshot(&self.config, &self.slots, &self.dispatcher, &self.metrics, self.starts.last().cloned())
    }

    /// Why the pool takes no more calls, if it takes none.
    pub(super) fn refusal(&self) -> Option<&Error> {
        match &self.phase {
            Phase::Open => None,
            Phase::Closing(error) | Phase::Ended(error) => Some(error),
        }
    }

    /// Why the pool has ended, if it has.
    pub(super) fn failure(&self) -> Option<Error> {
        if let Phase::Ended(error) = &self.phase { Some(error.clone()) } else { None }
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

    /// Takes a call; false if the pool takes none.
    pub(super) fn submit(&mut self, queued: QueuedCall) -> bool {
        if !self.admit(&queued.call) {
            return false;
        }
        // Workers notify when they go idle. Until then, replies are taken now and then: each look takes a cache line from a
        // worker that is busy.
        if self.leadership.leader() == Leader::None
            && self.leadership.flags().idle
            && self.work_waits()
            && self.dispatcher.polls_now()
        {
            self.collect_up_to(SUBMITTER_POLLS);
        }
        self.dispatcher.push(queued);
        true
    }

    /// Counts a call; or settles it and returns false if the pool takes none.
    pub(super) fn admit(&mut self, call: &Arc<Call>) -> bool {
        if let Some(error) = self.refusal() {
            // Its handle is not there yet, so no thread waits.
            drop(call.settle(Err(error.clone())));
            return false;
        }
        let others = self.dispatcher.admit();
        self.metrics.submitted(&call.times, others);
        true
    }

    /// Cancels the calls that were abandoned and that no worker has claimed, also those that were given out.
    pub(super) fn cancel_abandoned(&mut self) {
        for number in self.slots.index().watched().to_vec() {
            self.reclaim(number, usize::MAX);
        }
        for call in self.dispatcher.take_abandoned() {
            self.settle_call(&call, Err(Error::new(ErrorKind::Cancelled, Execution::NotStarted)));
        }
        // A worker may have answered while it still saw calls behind, and notified of nothing.
        self.collect();
    }

    /// Cancels the call if it has not started, else, if `running`, kills its worker. True if it is cancelled.
    pub(super) fn cancel(&mut self, call: &Arc<Call>, running: bool) -> bool {
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
                Some(number) if self.is_dying_under(number, call) => return self.cancel_dying(number, call),
                Some(number) if running => {
                    let error = self.in_slot(number, Error::new(ErrorKind::Cancelled, Execution::Unknown));
                    self.kill_worker(number, &error, self.config.grace);
                    // With handles beside it, it could not be taken back though the worker had not begun it.
                    if !call.is_settled() && call.worker().is_none() {
                        self.cancel_queued(call);
                    }
                }
                Some(_) => {}
            }
        }
        call.was_cancelled() || call.worker().is_some_and(|number| self.cancel_dying(number, call))
    }

    /// Cancels a call where it stands in the backlog. The dispatcher drops it, and what it holds, once it is the first.
    fn cancel_queued(&mut self, call: &Arc<Call>) {
        self.settle_call(call, Err(Error::new(ErrorKind::Cancelled, Execution::NotStarted)));
        self.dispatcher.try_again();
    }

    /// Cancels every call that has not started.
    pub(super) fn cancel_all(&mut self) {
        for number in self.slots.index().watched().to_vec() {
            self.reclaim(number, usize::MAX);
        }
        self.cancel_all_dying();
        self.fail_backlog(&Error::new(ErrorKind::Cancelled, Execution::NotStarted));
    }

    /// Whether a worker runs this call, as far as is known.
    pub(super) fn is_running(&self, call: &Arc<Call>) -> bool {
        let Some(number) = call.worker() else { return false };
        let running = self.slots.worker(number).and_then(|worker| worker.caller.running());
        matches!(running, Some(Request::Call(running)) if Arc::ptr_eq(running, call))
            || self.is_dying_under(number, call)
    }

    /// Registers `waker`, to be woken when `call` is settled.
    pub(super) fn register_waker(&mut self, call: &Arc<Call>, waker: Waker) {
        match call.set_waker(waker) {
            Some(before) => self.effects.drop_unlocked.push(before),
            None => self.leadership.add_interest(),
        }
    }

    /// Registers `callback`, to be called once `call` is settled; gives it back if it is.
    pub(super) fn register_callback(&mut self, call: &Call, callback: Callback) -> Option<Callback> {
        let back = call.add_callback(callback);
        if back.is_none() {
            self.leadership.add_interest();
        }
        back
    }

    /// Takes back up to `most` of the calls that a worker has not claimed, never its setup or initializer, which are the
    /// oldest. They go back to the front of the backlog.
    pub(super) fn reclaim(&mut self, number: usize, most: usize) -> usize {
        let back = self.slots.change_worker(number, |worker| {
            let most = u32::try_from(worker.load().min(most)).unwrap_or(u32::MAX);
            let back = worker.caller.take_back(most);
            worker.given -= back.len() as u64;
            let timed = back.iter().filter(|(request, _)| request.is_timed()).count();
            worker.timed -= timed;
            (back, timed)
        });
        let Some((back, timed)) = back else { return 0 };
        self.timers.remove_timed(timed);
        let count = back.len();
        self.requeue(back);
        count
    }

    pub(super) fn requeue(&mut self, unclaimed: Vec<(Request, Payload)>) {
        let calls = unclaimed.into_iter().filter_map(|(request, payload)| match request {
            Request::Call(call) => Some(QueuedCall { call, payload }),
            _ => None,
        });
        self.dispatcher.requeue(calls);
    }

    /// Gives out the calls that wait, as far as workers have room.
    fn dispatch_backlog(&mut self) {
        if let Phase::Ended(error) = &self.phase {
            self.fail_backlog(&error.clone());
        }
        while let Some((number, queued)) = self.dispatcher.next(self.slots.index()) {
            if !self.assign(number, queued) {
                break;
            }
        }
        while let Some(number) = self.dispatcher.next_unpublished() {
            if let Some(link) = self.slots.link_mut(number) {
                link.publish();
                self.leadership.set_far(link.wake());
            }
        }
        self.start_for_backlog();
    }

    /// Moves calls from the fullest worker to the backlog if another one is idle. True if any were moved.
    fn rebalance(&mut self) -> bool {
        let index = self.slots.index();
        if index.behind() == 0 || index.idle().is_none() || !self.dispatcher.is_empty() {
            return false;
        }
        let Some((fullest, behind)) = index.fullest() else { return false };
        if self.reclaim(fullest, behind.div_ceil(2)) == 0 {
            return false;
        }
        // It notifies only when it is idle, and what it answered just now it may have answered before it became so.
        self.collect_from(fullest);
        true
    }

    /// Gives a call to a worker. False: it waits again, for some moments.
    #[inline]
    fn assign(&mut self, number: usize, QueuedCall { call, payload }: QueuedCall) -> bool {
        if self.slots.worker(number).is_none() {
            self.dispatcher.put_back(QueuedCall { call, payload });
            return false;
        }
        let limit = call.options.timeout;
        call.set_worker(Some(number));
        self.metrics.given(&call.times);
        let has_handles = !payload.handles().is_empty();
        if has_handles && !call.reply_watched.load(Relaxed) {
            call.reply_watched.store(true, Relaxed);
            self.leadership.add_interest();
        }
        let (kind, request) = (call.kind(), (call.index, call.options.memory_limit));
        let flags = self.leadership.flags();
        let now = limit.map(|_| Instant::now());
        let written = self.slots.change_worker(number, |worker| -> std::result::Result<_, (Errno, Payload, Request)> {
            let first = worker.load() == 0;
            worker.set_notify_flags(flags);
            worker.caller.write(kind, request, payload, Request::Call(call))?;
            worker.given += 1;
            if now.is_some() {
                worker.timed += 1;
                if first {
                    worker.since = now;
                }
            }
            Ok(worker.caller.written())
        });
        match written {
            None => return true,
            Some(Err((errno, payload, request))) => return self.assign_failed(number, errno, (request, payload)),
            Some(Ok(1)) => self.dispatcher.add_unpublished(number),
            Some(Ok(_)) => {}
        }
        if has_handles {
            self.dispatcher.accepted();
        }
        if let (Some(now), Some(limit)) = (now, limit) {
            self.timers.add_timed();
            self.set_alarm(now.checked_add(limit));
            self.set_alarm(self.next_check(number));
        }
        self.prestart_standby(number);
        true
    }

    /// A call could not be given to a worker. False: it waits again, for some moments.
    #[cold]
    fn assign_failed(&mut self, number: usize, errno: Errno, (request, payload): (Request, Payload)) -> bool {
        let Request::Call(call) = request else { return true };
        let now = Instant::now();
        call.set_worker(None);
        if matches!(errno, Errno::EPIPE | Errno::ECONNRESET) {
            // It is dead, or as good as dead: its end will be reported, and the call has not begun.
            let record = self.slots.change_worker(number, |worker| {
                worker.draining = true;
                Arc::clone(&worker.record)
            });
            self.effects.kill.extend(record);
            self.dispatcher.put_back(QueuedCall { call, payload });
            return true;
        }
        if is_temporary(errno) && self.dispatcher.refused(now, FD_RETRY_TIME) {
            // Other workers are about to take theirs, or other processes of this user are.
            self.dispatcher.put_back(QueuedCall { call, payload });
            self.set_alarm(now.checked_add(HANDLES_RETRY));
            return false;
        }
        let reason = format!("they cannot be handed over: {}", why(errno));
        let kind = ErrorKind::CannotEncode { direction: Direction::Arguments, reason };
        self.settle_call(&call, Err(Error::new(kind, Execution::NotStarted)));
        true
    }

    /// A call has its outcome.
    pub(super) fn settle_call(&mut self, call: &Arc<Call>, outcome: Result<Body>) {
        self.metrics.settled(call);
        if self.metrics.at_calls() {
            let error = outcome.as_ref().err();
            let worker = self.worker_of(call, error);
            let slot = call.worker().and_then(|number| self.slots.stats_mut(number));
            self.metrics.record_settled(call, slot, worker, error);
        }
        let waiters = call.settle(outcome);
        let watched = call.reply_watched.load(Relaxed);
        self.leadership.remove_interest(waiters.interest() + usize::from(watched));
        if watched {
            call.reply_watched.store(false, Relaxed);
        }
        if !waiters.is_empty() {
            self.effects.wake.push(waiters);
        }
        self.effects.wake.extend(self.dispatcher.release().map(Waiters::of));
        self.wake_leader();
    }

    pub(super) fn fail_backlog(&mut self, error: &Error) {
        while let Some(QueuedCall { call, .. }) = self.dispatcher.pop() {
            if !call.is_settled() {
                self.settle_call(&call, Err(error.clone()));
            }
        }
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

    /// Whether calls wait that another worker could run.
    pub(super) fn work_waits(&self) -> bool {
        !self.dispatcher.is_empty() || self.slots.index().behind() > 0
    }
}
