//! Takes replies, and tells workers when to notify of them.
//!
//! Runs in: the parent, under the mutex.
//! Invariant: after a flag was set, replies are collected once more. A worker that answered before it could see the flag has
//! notified of nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{Thread, ThreadId};
use std::time::Instant;

use super::batch::{self, BatchRemains, SettledBatch};
use super::call::{QueuedCall, Waiters};
use super::leadership::Leader;
use super::metrics::Recorder;
use super::scheduler::Scheduler;
use super::slot::{NotifyFlags, Request};
use crate::call::outcome;
use crate::error::{Error, ErrorKind, Execution};
use crate::link::{Gone, PartialBatch, Reply};
use crate::supervisor::ChildHandle;

impl Scheduler {
    /// Whether a worker has answered something that was not taken.
    pub(super) fn has_reply(&self) -> bool {
        let mut workers = self.slots.index().watched().iter().filter_map(|number| self.slots.worker(*number));
        workers.any(|worker| worker.caller.has_reply())
    }

    /// Takes every reply there is, and gives out what waits; true if there was one. For the leader, which then wants to know
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
    pub(super) fn collect_up_to(&mut self, most: usize) -> bool {
        let mut any = false;
        // Backwards: what takes the place of one that has no more to answer was looked at already.
        let mut at = self.slots.index().watched().len();
        let end = at.saturating_sub(most);
        while at > end {
            at -= 1;
            if let Some(number) = self.slots.index().watched().get(at).copied() {
                any |= self.collect_from(number);
            }
        }
        any
    }

    /// Takes the replies of one worker; true if there was one.
    pub(super) fn collect_from(&mut self, number: usize) -> bool {
        if !self.slots.worker(number).is_some_and(|worker| worker.caller.has_reply()) {
            return false;
        }
        let mut replies = std::mem::take(&mut self.replies);
        let collected = self.slots.change_worker(number, |worker| {
            let collected = worker.caller.collect(|request, reply| replies.push((request, reply)));
            self.effects.trim_memory |= worker.caller.keeps_arrivals();
            if worker.timed > 0 {
                worker.since = Some(Instant::now());
                let timed = replies.iter().filter(|(request, _)| request.is_timed()).count();
                worker.timed -= timed;
                self.timers.remove_timed(timed);
            }
            collected
        });
        self.metrics.record_replies(&replies);
        for (request, reply) in replies.drain(..) {
            self.take_reply(number, &request, reply);
        }
        self.replies = replies;
        match collected {
            Some(Err(violation)) => self.on_protocol_violation(number, violation.0),
            // A worker that breaks the protocol is not believed in this either.
            _ => self.retire_over_memory(number),
        }
        self.set_alarm(self.next_check(number));
        true
    }

    fn take_reply(&mut self, number: usize, request: &Request, reply: Reply) {
        let call = match request {
            Request::Setup | Request::Initializer => return self.on_setup_reply(number, request, reply),
            Request::Finalizer => return,
            Request::Call(call) => call,
        };
        if call.is_batch() {
            let record = self.slots.worker(number).map(|worker| Arc::clone(&worker.record));
            let SettledBatch { outcome, rest } = batch::on_reply(record.as_ref(), call, reply);
            if let Some(rest) = self.admit_part(rest) {
                self.dispatcher.requeue([rest].into_iter());
            }
            self.settle_call(call, outcome);
        } else {
            let outcome = outcome::of_reply(reply).map_err(|error| self.in_slot(number, error));
            self.settle_call(call, outcome);
        }
        call.set_worker(None);
        if let Some(stats) = self.slots.stats_mut(number) {
            stats.calls += u64::from(call.settles());
        }
    }

    /// The worker that was running this batch is dead: settles what is known of it, and returns the items that it had not
    /// begun. `error` is what becomes of the one that it was running.
    #[must_use = "items would be lost"]
    pub(super) fn settle_partial_batch(
        &mut self,
        record: &Arc<ChildHandle>,
        QueuedCall { call, payload }: QueuedCall,
        salvaged: PartialBatch,
        error: &Error,
    ) -> Option<QueuedCall> {
        if let Some(stats) = call.worker().and_then(|number| self.slots.stats_mut(number)) {
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

    /// A doorbell rang that no leader heard.
    pub(super) fn on_doorbell(&mut self) {
        self.collect();
        self.settle();
        if self.leadership.leader() == Leader::None {
            let (told, needed) = (self.leadership.flags(), self.needed_flags());
            self.set_notify_flags(NotifyFlags { reply: told.reply && needed.reply, idle: told.idle && needed.idle });
        }
    }

    /// A timer fired: checks the links of workers that have something to answer. A child that wrote over its own is believed
    /// no more, also if it notifies of nothing.
    pub(super) fn check_links(&mut self) {
        for number in self.slots.index().watched().to_vec() {
            if let Some(link) = self.slots.link_mut(number) {
                link.check();
            }
        }
        self.collect();
    }

    /// Tells every worker which buffers are gone, and lets go of theirs. True if some are still mapped.
    pub(super) fn trim(&mut self, gone: &Gone) -> bool {
        self.slots.trim(gone)
    }

    /// Without a leader, tells workers of what they have to notify, if they were not told. True if a reply was there that
    /// they may not have notified of.
    #[inline]
    pub(super) fn raise_notify_flags(&mut self) -> bool {
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
        self.leadership.needed(self.metrics.are_exact() || (waits && self.timers.has_timed()), waits)
    }

    fn set_notify_flags(&mut self, flags: NotifyFlags) {
        if self.leadership.replace_flags(flags) {
            self.slots.notify(flags);
        }
    }

    pub(super) fn leader(&self) -> Leader {
        self.leadership.leader()
    }

    /// A thread becomes the leader, or wakes up: it polls, so workers need not notify.
    pub(super) fn become_leader(&mut self) {
        self.leadership.set_leader(Leader::Polling);
        self.set_notify_flags(NotifyFlags::default());
    }

    /// The leader is about to sleep: workers notify of each reply. False if one came before they could see that.
    pub(super) fn park_leader(&mut self) -> bool {
        self.set_notify_flags(NotifyFlags { reply: true, idle: false });
        if self.has_reply() {
            self.set_notify_flags(NotifyFlags::default());
            return false;
        }
        self.leadership.set_leader(Leader::Parked);
        true
    }

    /// The leader steps down: from now on, the reactor hears the workers' doorbells. Promotes a follower.
    pub(super) fn step_down(&mut self) {
        self.leadership.set_leader(Leader::None);
        self.promote_follower();
    }

    /// Wakes one follower if there is no leader.
    pub(super) fn promote_follower(&mut self) {
        if self.effects.follower.is_none() {
            self.effects.follower = self.leadership.next_follower();
        }
    }

    pub(super) fn add_follower(&mut self, thread: Thread) {
        self.leadership.add_follower(thread);
    }

    pub(super) fn remove_follower(&mut self, thread: ThreadId) {
        self.leadership.remove_follower(thread);
    }

    /// Replies are to be taken though no thread waits for them.
    pub(super) fn add_interest(&mut self) {
        self.leadership.add_interest();
    }

    pub(super) fn remove_interest(&mut self) {
        self.leadership.remove_interest(1);
    }

    /// Whether the last call went to a worker that had to be woken, so that its reply is not near.
    pub(super) fn take_far(&mut self) -> bool {
        self.leadership.take_far()
    }

    /// Whether workers need every processor there is.
    pub(super) fn is_crowded(&self) -> bool {
        self.slots.index().watched().len() >= self.config.processors
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.dispatcher.is_empty()
    }

    /// What the leader waits for may have changed.
    #[inline]
    pub(super) fn wake_leader(&mut self) {
        self.effects.wake_leader |= self.leadership.leader() == Leader::Parked;
    }

    /// A permit was not used: wakes a thread that waits for one. It may be the leader.
    pub(super) fn release_permit(&mut self) {
        self.effects.wake.extend(self.dispatcher.limit().release().map(Waiters::of));
        self.wake_leader();
    }

    /// The timeline that is being recorded.
    pub(super) fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.metrics.recorder()
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

    /// Ends the recording of a timeline, if this is the one. What came before counts.
    pub(super) fn end_recording(&mut self, recorder: &Arc<Recorder>) {
        if self.metrics.recorder().is_some_and(|current| Arc::ptr_eq(current, recorder)) {
            self.collect();
            self.settle();
            self.metrics.set_recorder(None);
        }
    }
}
