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
//! | [`Workers`] | each worker's slot, the index by load, which slots were changed; starts, exits, deadlines; counts and events |
//! | [`Dispatcher`] | the calls that no worker has, and how many there are in all |
//! | [`Leadership`] | the leader, the followers, and when workers notify |
//!
//! No part knows of another. This file is the way of a call, from its submission until it is settled; `supervision` is about
//! all that may happen meanwhile.

mod supervision;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::batch::{self, SettledBatch};
use super::call::{Call, QueuedCall, Waiters};
use super::config::PoolConfig;
use super::dispatcher::Dispatcher;
use super::effects::Effects;
use super::leadership::{Leader, Leadership};
use super::metrics::PoolStats;
use super::pending_limit::PendingLimit;
use super::slot::{NotifyFlags, Request};
use super::slots::Given;
use super::workers::Workers;
use crate::call::outcome;
use crate::error::{Direction, Error, ErrorKind, Execution, Result, why};
use crate::link::{Body, FD_RETRY_TIME, Reply, is_temporary};
use crate::supervisor::ChildHandle;
use crate::sys::Errno;

/// How soon handles are tried again that could not be sent because too many are under way.
const HANDLES_RETRY: Duration = Duration::from_millis(2);

/// How many workers a submitting thread polls.
const SUBMITTER_POLLS: usize = 4;

/// Everything under the mutex.
#[derive(Debug)]
pub(super) struct Scheduler {
    pub(super) workers: Workers,
    pub(super) leadership: Leadership,
    dispatcher: Dispatcher,
    /// What is done once the mutex is released.
    effects: Effects,
    /// What `collect_from` fills and empties.
    replies: Vec<(Request, Reply)>,
}

impl Scheduler {
    pub(super) fn new(config: Arc<PoolConfig>, workers: usize) -> Self {
        Self {
            workers: Workers::new(config, workers),
            leadership: Leadership::default(),
            dispatcher: Dispatcher::new(),
            effects: Effects::default(),
            replies: Vec::new(),
        }
    }

    /// Finds what follows from the changes since the last time, until nothing more does: vacant slots get a worker, idle
    /// workers that are not needed leave, calls are given out and evenly spread, and workers are told when to notify.
    ///
    /// It looks at what was changed, so its cost does not depend on the number of workers.
    #[inline]
    pub(super) fn settle(&mut self) {
        loop {
            self.settle_slots();
            if self.workers.slots.take_changed() | self.dispatcher.take_due() {
                self.dispatch_backlog();
                if !self.rebalance() {
                    self.workers.slots.take_changed();
                }
            } else if !self.raise_notify_flags() {
                return;
            }
        }
    }

    /// Looks at the slots that were changed: a vacant one gets a worker, an idle worker leaves if it is not needed.
    #[inline]
    fn settle_slots(&mut self) {
        while let Some(number) = self.workers.slots.next_dirty() {
            let slot = self.workers.slots.get(number);
            if slot.is_vacant() {
                if self.workers.fill_vacancy(number, self.dispatcher.len(), self.leadership.flags()) {
                    self.on_arrival(number);
                }
            } else if slot.load().is_some_and(|load| load.load == 0) {
                self.workers.on_idle(number);
            }
        }
    }

    /// Takes what is to be done once the mutex is released, if there is anything.
    #[inline]
    pub(super) fn take_effects(&mut self) -> Option<Effects> {
        if self.workers.metrics.has_events() {
            self.effects.events = self.workers.metrics.take_events();
        }
        if let Some(effects) = self.workers.take_effects() {
            self.effects.workers = effects;
        }
        (!self.effects.is_empty()).then(|| {
            let mut effects = std::mem::take(&mut self.effects);
            effects.wake_leader |= effects.workers.wake_leader;
            effects.wake_leader &= self.leadership.leader() == Leader::Parked;
            effects
        })
    }

    pub(super) fn outstanding(&self) -> &Arc<AtomicUsize> {
        self.dispatcher.outstanding()
    }

    pub(super) fn limit(&self) -> &Arc<PendingLimit> {
        self.dispatcher.limit()
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.dispatcher.is_empty()
    }

    /// What the pool has done so far, and the processes whose memory is still to be read.
    pub(super) fn stats(&mut self) -> (PoolStats, Vec<Option<Arc<ChildHandle>>>) {
        self.poll();
        self.workers.stats(&self.dispatcher)
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
        if let Some(error) = self.workers.refusal() {
            // Its handle is not there yet, so no thread waits.
            drop(call.settle(Err(error.clone())));
            return false;
        }
        let others = self.dispatcher.admit();
        self.workers.metrics.submitted(&call.times, others);
        true
    }

    /// Gives out the calls that wait, as far as workers have room.
    fn dispatch_backlog(&mut self) {
        if let Some(error) = self.workers.failure() {
            self.fail_backlog(&error.clone());
        }
        while let Some((number, queued)) = self.dispatcher.next(self.workers.slots.index()) {
            if !self.assign(number, queued) {
                break;
            }
        }
        while let Some(number) = self.dispatcher.next_unpublished() {
            if let Some(link) = self.workers.slots.link_mut(number) {
                link.publish();
                self.leadership.set_far(link.wake());
            }
        }
        self.workers.start_for_backlog(self.dispatcher.len());
    }

    /// Gives a call to a worker. False: it waits again, for some moments.
    #[inline]
    fn assign(&mut self, number: usize, queued: QueuedCall) -> bool {
        let QueuedCall { call, payload } = &queued;
        call.set_worker(Some(number));
        self.workers.metrics.given(&call.times);
        let has_handles = !payload.handles().is_empty();
        if has_handles && !call.reply_watched.load(Relaxed) {
            call.reply_watched.store(true, Relaxed);
            self.leadership.add_interest();
        }
        let Given { unpublished, due } = match self.workers.slots.give(number, queued, self.leadership.flags()) {
            Ok(given) => given,
            Err((errno, queued)) => return self.assign_failed(number, errno, queued),
        };
        if unpublished == 1 {
            self.dispatcher.add_unpublished(number);
        }
        if has_handles {
            self.dispatcher.accepted();
        }
        if due.is_some() {
            self.workers.set_alarm(due);
            self.workers.set_next_check(number);
        }
        self.workers.prestart_standby(number);
        true
    }

    /// A call could not be given to a worker. False: it waits again, for some moments.
    #[cold]
    fn assign_failed(&mut self, number: usize, errno: Errno, queued: QueuedCall) -> bool {
        let now = Instant::now();
        match errno {
            // There is no worker in this slot.
            Errno::ESRCH => {
                self.dispatcher.put_back(queued);
                return false;
            }
            // It is dead, and the call has not begun.
            Errno::EPIPE | Errno::ECONNRESET => {
                self.dispatcher.put_back(queued);
                self.workers.kill_broken(number);
            }
            // Other workers are about to take theirs, or other processes of this user are.
            errno if is_temporary(errno) && self.dispatcher.refused(now, FD_RETRY_TIME) => {
                self.dispatcher.put_back(queued);
                self.workers.set_alarm(now.checked_add(HANDLES_RETRY));
                return false;
            }
            errno => {
                queued.call.set_worker(None);
                let reason = format!("they cannot be handed over: {}", why(errno));
                let kind = ErrorKind::CannotEncode { direction: Direction::Arguments, reason };
                self.settle_call(&queued.call, Err(Error::new(kind, Execution::NotStarted)));
            }
        }
        true
    }

    /// Moves calls from the fullest worker to the backlog if another one is idle. True if any were moved.
    fn rebalance(&mut self) -> bool {
        let index = self.workers.slots.index();
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

    /// Takes back up to `most` of the calls that a worker has not claimed, never its setup or initializer, which are the
    /// oldest. They go back to the front of the backlog.
    fn reclaim(&mut self, number: usize, most: usize) -> usize {
        let back = self.workers.slots.take_back(number, most);
        let count = back.len();
        self.dispatcher.requeue(back.into_iter());
        count
    }

    /// Whether a worker has answered something that was not taken.
    pub(super) fn has_reply(&self) -> bool {
        self.workers.slots.has_reply()
    }

    /// Takes every reply there is, and settles what follows; true if there was one. For the leader, which then wants to know
    /// how busy the workers are.
    pub(super) fn poll(&mut self) -> bool {
        let any = self.collect();
        self.settle();
        any
    }

    /// Takes every reply there is; true if there was one.
    pub(super) fn collect(&mut self) -> bool {
        self.collect_up_to(usize::MAX)
    }

    /// As [`collect`](Self::collect), from up to `most` workers.
    fn collect_up_to(&mut self, most: usize) -> bool {
        let mut any = false;
        // Backwards: what takes the place of one that has no more to answer was looked at already.
        let mut at = self.workers.slots.index().watched().len();
        let end = at.saturating_sub(most);
        while at > end {
            at -= 1;
            if let Some(number) = self.workers.slots.index().watched().get(at).copied() {
                any |= self.collect_from(number);
            }
        }
        any
    }

    /// Takes the replies of one worker; true if there was one.
    fn collect_from(&mut self, number: usize) -> bool {
        if !self.workers.slots.worker(number).is_some_and(|worker| worker.caller.has_reply()) {
            return false;
        }
        let mut replies = std::mem::take(&mut self.replies);
        let collected = self.workers.slots.collect(number, &mut replies);
        self.effects.trim_memory |= collected.keeps_memory;
        self.workers.metrics.record_replies(&replies);
        for (request, reply) in replies.drain(..) {
            self.take_reply(number, &request, reply);
        }
        self.replies = replies;
        match collected.violation {
            Some(violation) => self.on_protocol_violation(number, violation),
            // A worker that breaks the protocol is not believed in this either.
            None if self.workers.drain_over_memory(number) => _ = self.reclaim(number, usize::MAX),
            None => {}
        }
        self.workers.set_next_check(number);
        true
    }

    fn take_reply(&mut self, number: usize, request: &Request, reply: Reply) {
        let call = match request {
            Request::Setup | Request::Initializer => return self.workers.on_setup_reply(number, request, reply),
            Request::Finalizer => return,
            Request::Call(call) => call,
        };
        if call.is_batch() {
            let record = self.workers.slots.worker(number).map(|worker| Arc::clone(&worker.record));
            let SettledBatch { outcome, rest } = batch::on_reply(record.as_ref(), call, reply);
            if let Some(rest) = self.admit_part(rest) {
                self.dispatcher.requeue([rest].into_iter());
            }
            self.settle_call(call, outcome);
        } else {
            let outcome = outcome::of_reply(reply).map_err(|error| self.workers.in_slot(number, error));
            self.settle_call(call, outcome);
        }
        call.set_worker(None);
        if let Some(stats) = self.workers.slots.stats_mut(number) {
            stats.calls += u64::from(call.settles());
        }
    }

    /// Counts the rest of a batch, which is to be queued. If it is not wanted any more, it is cancelled.
    fn admit_part(&mut self, rest: Option<QueuedCall>) -> Option<QueuedCall> {
        let rest = rest?;
        self.dispatcher.admit_part();
        if rest.call.abandoned.load(Relaxed) {
            self.settle_call(&rest.call, Err(Error::new(ErrorKind::Cancelled, Execution::NotStarted)));
            return None;
        }
        Some(rest)
    }

    /// A call has its outcome.
    pub(super) fn settle_call(&mut self, call: &Arc<Call>, outcome: Result<Body>) {
        self.workers.record_settled(call, &outcome);
        let waiters = call.settle(outcome);
        let watched = call.reply_watched.load(Relaxed);
        self.leadership.remove_interest(waiters.interest() + usize::from(watched));
        if watched {
            call.reply_watched.store(false, Relaxed);
        }
        if !waiters.is_empty() {
            self.effects.wake.push(waiters);
        }
        let permit = self.dispatcher.release();
        self.wake(permit);
    }

    /// Wakes the leader, since what it waits for may have changed, and `thread`, for which there is a permit.
    #[inline]
    fn wake(&mut self, thread: Option<Thread>) {
        self.effects.wake.extend(thread.map(Waiters::of));
        self.effects.wake_leader |= self.leadership.leader() == Leader::Parked;
    }

    fn fail_backlog(&mut self, error: &Error) {
        while let Some(QueuedCall { call, .. }) = self.dispatcher.pop() {
            if !call.is_settled() {
                self.settle_call(&call, Err(error.clone()));
            }
        }
    }

    /// Whether calls wait that another worker could run.
    fn work_waits(&self) -> bool {
        !self.dispatcher.is_empty() || self.workers.slots.index().behind() > 0
    }

    /// Without a leader, tells workers of what they have to notify, if they were not told. True if a reply was there that
    /// they may not have notified of.
    ///
    /// Replies are collected once more after a flag was set: a worker that answered before it could see the flag has
    /// notified of nothing.
    #[inline]
    fn raise_notify_flags(&mut self) -> bool {
        let needed = self.needed_flags();
        if !self.leadership.lacks(needed) {
            return false;
        }
        self.set_notify_flags(needed);
        self.collect()
    }

    /// A reply's time matters to the call behind it if that has a timeout, and to a timeline.
    #[inline]
    fn needed_flags(&self) -> NotifyFlags {
        let waits = self.work_waits();
        let timed = self.workers.metrics.are_exact() || (waits && self.workers.slots.has_timed());
        self.leadership.needed(timed, waits)
    }

    fn set_notify_flags(&mut self, flags: NotifyFlags) {
        if self.leadership.replace_flags(flags) {
            self.workers.slots.notify(flags);
        }
    }
}
