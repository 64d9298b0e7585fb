//! Replies are taken, and workers are told whether to ring for one.
//!
//! Owns: nothing of its own; it works on the [`Scheduler`]. Runs in: the parent, under the mutex.
//! Never: tells a worker to ring without looking once more at what came before it could see the word.
//!
//! Words are told to those workers that have something to answer, and to others when they are given something: so the
//! cost of a change does not grow with the number of workers that have nothing to do.

use std::sync::Arc;
use std::thread::{Thread, ThreadId};
use std::time::Instant;

use super::scheduler::{Leader, Scheduler};
use super::slot::{Request, Slot};
use crate::call::outcome;
use crate::error::Error;
use crate::link::{Gone, Reply};

/// How many workers a submitting thread looks at.
const SOME: usize = 4;

impl Scheduler {
    /// Takes every reply there is, and gives out what waits; true if there was a reply.
    pub(super) fn collect(&mut self) -> bool {
        self.collect_up_to(usize::MAX)
    }

    /// As [`Scheduler::collect`], from a few workers.
    pub(super) fn collect_some(&mut self) -> bool {
        self.collect_up_to(SOME)
    }

    /// Whether a worker has answered something that was not taken.
    pub(super) fn has_reply(&self) -> bool {
        let mut workers = self.levels.watched().iter().filter_map(|number| self.slots[*number].worker());
        workers.any(|worker| worker.caller.has_reply())
    }

    /// Without a leader, says to each worker whether it has to ring, if that has changed.
    pub(super) fn refresh_notify_flags(&mut self) {
        if self.leader == Leader::None {
            self.update_notify_flags();
        }
    }

    /// The leader steps down: from now on, the reactor hears the workers' bells.
    pub(super) fn step_down(&mut self) {
        self.leader = Leader::None;
        self.update_notify_flags();
        self.promote_follower();
    }

    /// Queues a wake-up for one follower if there is no leader.
    pub(super) fn promote_follower(&mut self) {
        if self.leader == Leader::None && self.effects.follower.is_none() {
            self.effects.follower = self.followers.pop();
        }
    }

    pub(super) fn leader(&self) -> Leader {
        self.leader
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// A thread becomes the leader, or wakes up: it looks for itself, so workers need not ring.
    pub(super) fn become_leader(&mut self) {
        self.leader = Leader::Polling;
        self.set_notify_flags(false, false);
    }

    /// The leader is about to sleep: workers ring for each reply. False if one came before they could see that.
    pub(super) fn park_leader(&mut self) -> bool {
        self.set_notify_flags(true, false);
        if self.has_reply() {
            self.set_notify_flags(false, false);
            return false;
        }
        self.leader = Leader::Parked;
        true
    }

    pub(super) fn add_follower(&mut self, thread: Thread) {
        self.followers.push(thread);
    }

    pub(super) fn remove_follower(&mut self, thread: ThreadId) {
        self.followers.retain(|follower| follower.id() != thread);
    }

    /// Replies are to be taken though no thread waits for them.
    pub(super) fn add_interest(&mut self) {
        self.interest += 1;
        self.refresh_notify_flags();
    }

    pub(super) fn remove_interest(&mut self) {
        self.interest = self.interest.saturating_sub(1);
    }

    /// Whether the last call went to a worker that had to be woken.
    pub(super) fn take_far(&mut self) -> bool {
        std::mem::take(&mut self.last_worker_was_parked)
    }

    /// A bell rang that no leader heard: takes the replies, and gives out what waits.
    pub(super) fn on_doorbell(&mut self) {
        self.collect();
        self.refresh_notify_flags();
    }

    /// There is no leader: says which workers have to ring for the reactor, and takes what came before the words were seen.
    pub(super) fn update_notify_flags(&mut self) {
        loop {
            let words = (self.interest > 0 || self.timed > 0 || self.metrics.are_exact(), self.work_waits());
            let new = self.notify_flags != words && words != (false, false);
            self.set_notify_flags(words.0, words.1);
            // A worker that answered before it could see the words has rung no bell.
            if !new || !self.collect() {
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

    fn collect_up_to(&mut self, most: usize) -> bool {
        let mut any = false;
        // Backwards: what takes the place of one that has no more to answer was looked at already.
        let mut at = self.levels.watched().len();
        let end = at.saturating_sub(most);
        while at > end {
            at -= 1;
            if let Some(number) = self.levels.watched().get(at).copied() {
                any |= self.collect_from(number);
            }
        }
        if any {
            self.dispatch_backlog();
            self.rebalance();
        }
        any
    }

    pub(super) fn collect_from(&mut self, number: usize) -> bool {
        let Some(worker) = self.slots[number].worker_mut() else { return false };
        if !worker.caller.has_reply() {
            return false;
        }
        let mut replies = std::mem::take(&mut self.replies);
        let collected = worker.caller.collect(|asked, reply| replies.push((asked, reply)));
        self.effects.trim_memory |= worker.caller.keeps_arrivals();
        if worker.timed > 0 {
            worker.since = Some(Instant::now());
        }
        self.see_replies(&replies);
        for (asked, reply) in replies.drain(..) {
            self.take_reply(number, asked, reply);
        }
        self.replies = replies;
        match collected {
            Ok(_) => self.retire_over_memory(number),
            // Nor is it believed that it has outgrown: another one might be in this place by then.
            Err(violation) => self.on_protocol_violation(number, violation.0),
        }
        self.update_load(number);
        self.set_alarm(self.due(number));
        true
    }

    fn take_reply(&mut self, number: usize, asked: Request, reply: Reply) {
        match asked {
            Request::Setup | Request::Initializer => self.on_setup_reply(number, &asked, reply),
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
                    self.settle_batch(record.as_ref(), &call, reply);
                } else {
                    let described = outcome::of_reply(reply).map_err(|error| self.in_place(number, error));
                    self.settle_call(&call, described);
                }
                call.set_worker(None);
                self.slots[number].tally.calls += u64::from(call.settles());
            }
        }
    }

    /// Metrics at the links of workers that have something to answer: a child that wrote over its own is believed no more,
    /// also if it rings no bell.
    pub(super) fn check_links(&mut self) {
        for number in self.levels.watched().to_vec() {
            if let Some(worker) = self.slots[number].worker_mut() {
                worker.caller.check();
            }
        }
        self.collect();
        self.refresh_notify_flags();
    }

    /// Tells every worker which parcels are gone, and lets go of theirs. True if some are still mapped.
    pub(super) fn trim(&mut self, gone: &Gone) -> bool {
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
