//! The slots of a pool's workers, and the index of workers by load.
//!
//! Runs in: the parent, under the scheduler's mutex. What decides a slot's place in the index is changed by
//! [`Slots::change`] only, which also marks the slot if something may follow from the change.
//! Invariant: the index agrees with the slots; a slot without a worker is in no list.

use std::sync::Arc;
use std::time::Instant;

use super::call::{Call, QueuedCall};
use super::death::{DeathCheck, Dying};
use super::load_index::LoadIndex;
use super::metrics::SlotStats;
use super::slot::{CallsAtExit, NotifyFlags, Request, Slot, SlotState, Worker};
use crate::link::{Caller, Gone, Reply};
use crate::supervisor::ChildHandle;
use crate::sys::Errno;

/// All slots, the index, and which slots were changed.
#[derive(Debug, Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    index: LoadIndex,
    /// Slots that are vacant or idle since they were changed. Each change costs one entry, whatever the number of workers.
    dirty: Vec<usize>,
    /// A worker was changed since the dispatcher last asked.
    changed: bool,
    /// Calls with a timeout that workers have.
    timed: usize,
}

/// A worker was given a call.
pub(super) struct Given {
    /// How many calls it was given that it does not see yet.
    pub(super) unpublished: u32,
    /// When the call has taken too long, if that begins now.
    pub(super) due: Option<Instant>,
}

/// The replies of a worker were taken.
#[derive(Default)]
pub(super) struct Collected {
    /// The worker broke the protocol, in this way.
    pub(super) violation: Option<&'static str>,
    /// Memory of a reply is mapped.
    pub(super) keeps_memory: bool,
}

impl Slots {
    /// Makes slots for numbers below `count`.
    pub(super) fn grow(&mut self, count: usize) {
        while self.all.len() < count {
            self.all.push(Slot::vacant());
        }
        self.index.grow(count);
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.all.iter()
    }

    pub(super) fn get(&self, number: usize) -> &Slot {
        &self.all[number]
    }

    #[inline]
    pub(super) fn worker(&self, number: usize) -> Option<&Worker> {
        self.all[number].worker()
    }

    #[inline]
    pub(super) fn index(&self) -> &LoadIndex {
        &self.index
    }

    /// Changes a slot, and puts it where it belongs now.
    pub(super) fn change<R>(&mut self, number: usize, change: impl FnOnce(&mut Slot) -> R) -> R {
        let result = change(&mut self.all[number]);
        self.reindex(number);
        result
    }

    /// As [`change`](Self::change), for the worker in the slot, if there is one.
    pub(super) fn change_worker<R>(&mut self, number: usize, change: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        let result = self.all[number].worker_mut().map(change);
        if result.is_some() {
            self.reindex(number);
        }
        result
    }

    /// Gives a call to the worker in the slot, which does not see it before its link is published.
    ///
    /// # Errors
    /// The call could not be handed over, and comes back; `ESRCH` if there is no worker.
    #[inline]
    pub(super) fn give(
        &mut self,
        number: usize,
        queued: QueuedCall,
        flags: NotifyFlags,
    ) -> Result<Given, (Errno, QueuedCall)> {
        let Some(worker) = self.all[number].worker_mut() else { return Err((Errno::ESRCH, queued)) };
        let limit = queued.call.options.timeout;
        let now = limit.map(|_| Instant::now());
        worker.set_notify_flags(flags);
        let first = worker.load() == 0;
        let QueuedCall { call, payload } = queued;
        let (kind, request) = (call.kind(), (call.index, call.options.memory_limit));
        if let Err((errno, payload, request)) = worker.caller.write(kind, request, payload, Request::Call(call)) {
            let Request::Call(call) = request else { unreachable!("it was written as a call") };
            return Err((errno, QueuedCall { call, payload }));
        }
        worker.given += 1;
        if now.is_some() {
            self.timed += 1;
            worker.timed += 1;
            if first {
                worker.since = now;
            }
        }
        let due = now.zip(limit).and_then(|(now, limit)| now.checked_add(limit));
        let given = Given { unpublished: worker.caller.written(), due };
        self.reindex(number);
        Ok(given)
    }

    /// Takes back up to `most` of the calls that the worker in the slot has not claimed.
    pub(super) fn take_back(&mut self, number: usize, most: usize) -> Vec<QueuedCall> {
        let (back, timed) = self.change_worker(number, |worker| worker.take_back(most)).unwrap_or_default();
        self.timed -= timed;
        back
    }

    /// Takes the replies of the worker in the slot.
    pub(super) fn collect(&mut self, number: usize, replies: &mut Vec<(Request, Reply)>) -> Collected {
        let collected = self.change_worker(number, |worker| {
            let taken = worker.caller.collect(|request, reply| replies.push((request, reply)));
            let keeps_memory = worker.caller.keeps_arrivals();
            let mut timed = 0;
            if worker.timed > 0 {
                worker.since = Some(Instant::now());
                timed = replies.iter().filter(|(request, _)| request.is_timed()).count();
                worker.timed -= timed;
            }
            (Collected { violation: taken.err().map(|violation| violation.0), keeps_memory }, timed)
        });
        let (collected, timed) = collected.unwrap_or_default();
        self.timed -= timed;
        collected
    }

    /// Sorts what a worker has that was taken out of its slot.
    pub(super) fn in_flight_at_exit(&mut self, worker: Worker) -> CallsAtExit {
        self.timed -= worker.timed;
        worker.in_flight_at_exit()
    }

    /// Whether workers have calls with a timeout.
    #[inline]
    pub(super) fn has_timed(&self) -> bool {
        self.timed > 0
    }

    /// Whether a worker has answered something that was not taken.
    pub(super) fn has_reply(&self) -> bool {
        let mut workers = self.index.watched().iter().filter_map(|number| self.worker(*number));
        workers.any(|worker| worker.caller.has_reply())
    }

    /// Checks the links of workers that have something to answer.
    pub(super) fn check_links(&mut self) {
        for number in self.index.watched() {
            if let Some(worker) = self.all[*number].worker_mut() {
                worker.caller.check();
            }
        }
    }

    /// Whether a worker that is not dead yet was running this call.
    pub(super) fn is_dying_under(&self, number: usize, call: &Arc<Call>) -> bool {
        matches!(&self.all[number].state, SlotState::Dying(dying) if dying.has(call))
    }

    /// Cancels a call of a worker that is about to be dead, if it would be made again. True if it ends as cancelled.
    pub(super) fn cancel_dying(&mut self, number: usize, call: &Arc<Call>) -> bool {
        match &mut self.all[number].state {
            SlotState::Dying(dying) => dying.cancel(call),
            _ => false,
        }
    }

    /// Takes the retries from all calls of workers that are about to be dead.
    pub(super) fn cancel_all_dying(&mut self) {
        self.dying_mut().for_each(|(_, dying)| dying.cancel_all());
    }

    /// Checks the workers that were killed and are not known to be dead.
    pub(super) fn check_deaths(&mut self, now: Instant) -> Vec<(usize, Arc<ChildHandle>, DeathCheck)> {
        let checked = self
            .dying_mut()
            .map(|(number, dying)| (number, Arc::clone(&dying.record), dying.death.check(&dying.record, now)));
        checked.collect()
    }

    /// When workers that were killed are to be checked next.
    pub(super) fn next_death(&self) -> Option<Instant> {
        let dying = self.all.iter().filter_map(|slot| match &slot.state {
            SlotState::Dying(dying) => dying.death.next(),
            _ => None,
        });
        dying.min()
    }

    /// The workers that were killed and are not known to be dead. No place in the index depends on them.
    fn dying_mut(&mut self) -> impl Iterator<Item = (usize, &mut Dying)> {
        self.all.iter_mut().enumerate().filter_map(|(number, slot)| match &mut slot.state {
            SlotState::Dying(dying) => Some((number, &mut **dying)),
            _ => None,
        })
    }

    /// What the slot counts. No place in the index depends on it.
    #[inline]
    pub(super) fn stats_mut(&mut self, number: usize) -> Option<&mut SlotStats> {
        self.all.get_mut(number).map(|slot| &mut slot.stats)
    }

    /// The worker's half of its link, to publish, wake or check it. No place in the index depends on that.
    #[inline]
    pub(super) fn link_mut(&mut self, number: usize) -> Option<&mut Caller<Request>> {
        self.all[number].worker_mut().map(|worker| &mut worker.caller)
    }

    /// The worker in the slot has nothing to do. False if that was known. A worker that sets itself up is not idle before it
    /// has answered. No place in the index depends on that.
    pub(super) fn begin_idle(&mut self, number: usize) -> bool {
        let Some(worker) = self.all[number].worker_mut().filter(|worker| worker.idle_since.is_none()) else {
            return false;
        };
        if worker.setup_pending == 0 {
            worker.idle_since = Some(Instant::now());
        }
        true
    }

    /// Tells each worker that has something to answer when to notify. The others are told when they are given a call, so
    /// the cost does not depend on the number of idle workers.
    pub(super) fn notify(&mut self, flags: NotifyFlags) {
        for number in self.index.watched() {
            if let Some(worker) = self.all[*number].worker_mut() {
                worker.set_notify_flags(flags);
            }
        }
    }

    /// Tells every worker which buffers are gone, and lets go of theirs. True if some are still mapped.
    pub(super) fn trim(&mut self, gone: &Gone) -> bool {
        let mut any = false;
        for worker in self.all.iter_mut().flat_map(Slot::workers_mut) {
            any |= worker.caller.tend(gone);
        }
        any
    }

    /// A slot that is vacant or idle and was not looked at since it became so.
    #[inline]
    pub(super) fn next_dirty(&mut self) -> Option<usize> {
        self.dirty.pop()
    }

    /// Whether a worker was changed since the last time.
    #[inline]
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Lets the dispatcher look again.
    pub(super) fn mark_changed(&mut self) {
        self.changed = true;
    }

    #[inline]
    fn reindex(&mut self, number: usize) {
        let slot = &mut self.all[number];
        let load = slot.load();
        self.index.watch(number, slot.worker().is_some_and(|worker| worker.caller.in_flight() > 0));
        self.index.put(number, load);
        self.changed = true;
        if load.is_some_and(|load| load.load == 0) || matches!(slot.state, SlotState::Vacant) {
            self.dirty.push(number);
        } else if let Some(worker) = slot.worker_mut() {
            worker.idle_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_vacant_and_idle_slots_are_marked() {
        let mut slots = Slots::default();
        slots.grow(2);
        assert!(slots.next_dirty().is_none() && !slots.take_changed());
        slots.change(1, |slot| slot.state = SlotState::Starting);
        assert!(slots.take_changed());
        assert_eq!(slots.next_dirty(), None);
        slots.change(1, |slot| slot.state = SlotState::Vacant);
        assert_eq!((slots.next_dirty(), slots.next_dirty()), (Some(1), None));
        assert_eq!(slots.index().idle(), None, "a slot without a worker is in no list");
    }
}
