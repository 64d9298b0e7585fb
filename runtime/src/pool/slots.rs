//! The slots of a pool's workers, and the index of workers by load.
//!
//! Runs in: the parent, under the scheduler's mutex. What decides a slot's place in the index is changed by
//! [`Slots::change`] only, which also marks the slot if something may follow from the change.
//! Invariant: the index agrees with the slots; a slot without a worker is in no list.

use super::load_index::LoadIndex;
use super::metrics::SlotStats;
use super::slot::{NotifyFlags, Slot, SlotState, Worker};
use crate::link::Gone;

/// All slots, the index, and which slots were changed.
#[derive(Debug, Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    index: LoadIndex,
    /// Slots that are vacant or idle since they were changed. Each change costs one entry, whatever the number of workers.
    dirty: Vec<usize>,
    /// A worker was changed since the dispatcher last asked.
    changed: bool,
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

    /// What the slot counts. No place in the index depends on it.
    #[inline]
    pub(super) fn stats_mut(&mut self, number: usize) -> Option<&mut SlotStats> {
        self.all.get_mut(number).map(|slot| &mut slot.stats)
    }

    /// The worker's half of its link, to publish, wake or check it. No place in the index depends on that.
    #[inline]
    pub(super) fn link_mut(&mut self, number: usize) -> Option<&mut crate::link::Caller<super::slot::Request>> {
        self.all[number].worker_mut().map(|worker| &mut worker.caller)
    }

    /// Since when the worker in the slot has been idle. No place in the index depends on it.
    pub(super) fn idle_since_mut(&mut self, number: usize) -> Option<&mut Option<std::time::Instant>> {
        self.all[number].worker_mut().map(|worker| &mut worker.idle_since)
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
