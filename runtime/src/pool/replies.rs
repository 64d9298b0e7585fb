//! Replies are taken, and workers are told whether to ring for one.
//!
//! Owns: nothing of its own; it works on the [`Scheduler`]. Runs in: the parent, under the mutex.
//! Never: tells a worker to ring without looking once more at what came before it could see the word.
//!
//! Words are told to those workers that have something to answer, and to others when they are given something: so the
//! cost of a change does not grow with the number of workers that have nothing to do.

use std::sync::Arc;
use std::time::Instant;

use super::scheduler::{Leader, Owed, Scheduler};
use super::slot::{Request, Slot};
use crate::error::Error;
use crate::link::{Gone, Reply};
use crate::supervisor::outcome;

/// How many workers a submitting thread looks at.
const SOME: usize = 4;

impl Scheduler {
    /// Takes every reply there is, and gives out what waits; true if there was a reply.
    pub(super) fn collect(&mut self, owed: &mut Owed) -> bool {
        self.collect_up_to(usize::MAX, owed)
    }

    /// As [`Scheduler::collect`], from a few workers.
    pub(super) fn collect_some(&mut self, owed: &mut Owed) -> bool {
        self.collect_up_to(SOME, owed)
    }

    /// Whether a worker has answered something that was not taken.
    pub(super) fn has_reply(&self) -> bool {
        let mut workers = self.levels.watched().iter().filter_map(|number| self.slots[*number].worker());
        workers.any(|worker| worker.caller.has_reply())
    }

    /// Without a leader, says to each worker whether it has to ring, if that has changed.
    pub(super) fn refresh_notify_flags(&mut self, owed: &mut Owed) {
        if self.leader == Leader::None {
            self.update_notify_flags(owed);
        }
    }

    /// The leader steps down: from now on, the reactor hears the workers' bells.
    pub(super) fn step_down(&mut self, owed: &mut Owed) {
        self.leader = Leader::None;
        self.update_notify_flags(owed);
        self.promote_follower(owed);
    }

    /// Queues a wake-up for one follower if there is no leader.
    pub(super) fn promote_follower(&mut self, owed: &mut Owed) {
        if self.leader == Leader::None && owed.follower.is_none() {
            owed.follower = self.followers.pop();
        }
    }

    /// A thread becomes the leader: it looks for itself, so workers need not ring.
    pub(super) fn become_leader(&mut self) {
        self.leader = Leader::Polling;
        self.set_notify_flags(false, false);
    }

    /// Has every worker ring for each reply to the leader, or none.
    pub(super) fn set_asleep(&mut self, asleep: bool) {
        self.set_notify_flags(asleep, false);
    }

    /// There is no leader: says which workers have to ring for the reactor, and takes what came before the words were seen.
    pub(super) fn update_notify_flags(&mut self, owed: &mut Owed) {
        loop {
            let words = (self.interest > 0 || self.timed > 0 || self.metrics.are_exact(), self.work_waits());
            let new = self.notify_flags != words && words != (false, false);
            self.set_notify_flags(words.0, words.1);
            // A worker that answered before it could see the words has rung no bell.
            if !new || !self.collect(owed) {
                return;
            }
        }
    }

    fn set_notify_flags(&mut self, asleep: bool, hungry: bool) {
        if std::mem::replace(&mut self.notify_flags, (asleep, hungry)) == (asleep, hungry) {
            return;
        }
        for number in self.levels.watched() {
            if let Some(worker) = self.slots[*number].worker_mut() {
                worker.set_notify_flags(asleep, hungry);
            }
        }
    }

    fn collect_up_to(&mut self, most: usize, owed: &mut Owed) -> bool {
        let mut any = false;
        // Backwards: what takes the place of one that has no more to answer was looked at already.
        let mut at = self.levels.watched().len();
        let end = at.saturating_sub(most);
        while at > end {
            at -= 1;
            if let Some(number) = self.levels.watched().get(at).copied() {
                any |= self.collect_from(number, owed);
            }
        }
        if any {
            self.dispatch_backlog(owed);
            self.rebalance(owed);
        }
        any
    }

    pub(super) fn collect_from(&mut self, number: usize, owed: &mut Owed) -> bool {
        let Some(worker) = self.slots[number].worker_mut() else { return false };
        if !worker.caller.has_reply() {
            return false;
        }
        let mut replies = std::mem::take(&mut self.replies);
        let collected = worker.caller.collect(|asked, reply| replies.push((asked, reply)));
        owed.tend |= worker.caller.keeps_arrivals();
        if worker.timed > 0 {
            worker.since = Some(Instant::now());
        }
        self.see_replies(&replies);
        for (asked, reply) in replies.drain(..) {
            self.take_reply(number, asked, reply, owed);
        }
        self.replies = replies;
        match collected {
            Ok(_) => self.retire_over_memory(number, owed),
            // Nor is it believed that it has outgrown: another one might be in this place by then.
            Err(violation) => self.on_protocol_violation(number, violation.0, owed),
        }
        self.update_load(number, owed);
        self.set_alarm(self.due(number), owed);
        true
    }

    fn take_reply(&mut self, number: usize, asked: Request, reply: Reply, owed: &mut Owed) {
        match asked {
            Request::Setup | Request::Initializer => self.on_setup_reply(number, &asked, reply, owed),
            Request::Finalizer => {}
            Request::Call(call) => {
                if call.options.timeout.is_some() {
                    self.timed -= 1;
                    if let Some(worker) = self.slots[number].worker_mut() {
                        worker.timed -= 1;
                    }
                }
                if call.is_batch() {
                    let record = self.slots[number].worker().map(|worker| Arc::clone(&worker.record));
                    self.settle_batch(record.as_ref(), &call, reply, owed);
                } else {
                    let described = outcome::of_reply(reply).map_err(|error| self.in_place(number, error));
                    self.settle(&call, described, owed);
                }
                call.set_worker(None);
                self.slots[number].tally.calls += u64::from(call.settles());
            }
        }
    }

    /// Metrics at the links of workers that have something to answer: a child that wrote over its own is believed no more,
    /// also if it rings no bell.
    pub(super) fn check_links(&mut self, owed: &mut Owed) {
        for number in self.levels.watched().to_vec() {
            if let Some(worker) = self.slots[number].worker_mut() {
                worker.caller.check();
            }
        }
        self.collect(owed);
        self.refresh_notify_flags(owed);
    }

    /// Tells every worker which parcels are gone, and lets go of theirs. True if some are still mapped.
    pub(super) fn tend(&mut self, gone: &Gone) -> bool {
        let mut any = false;
        for worker in self.slots.iter_mut().flat_map(Slot::workers_mut) {
            any |= worker.caller.tend(gone);
        }
        any
    }

    /// Adds to `error` which worker it was.
    pub(super) fn in_place(&self, number: usize, error: Error) -> Error {
        match self.slots[number].worker() {
            Some(worker) => error.in_process(&worker.record.name(), worker.record.pid),
            None => error,
        }
    }
}
