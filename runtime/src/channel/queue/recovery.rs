//! Recovery: finds chunks without an owner, which killed processes left behind.
//!
//! Owns: the search. Runs in: whichever process finds that it is due, holding both locks.
//! Invariant: no chunk of a living process is touched.
//!
//! With both locks held nothing moves but chunks that processes have for themselves. A chunk is the queue's if an item
//! stands in it, from the consumers' place to the producers'; if one of its items is lent; or if a long item that stands
//! somewhere is in it. Any other that says that it is the queue's, or a dead process's, is free.

use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::layout::{ChunkState, Cursor, ItemHeader, ItemLayout, ItemLease, LONG_PART, UNITS, low_half};
use super::memory::QueueMemory;
use super::proc_table::{self, ProcId};

/// Whether the process that a word names has died.
pub(super) fn is_dead(member: u32) -> bool {
    ProcId::from_bits(member).is_none_or(|member| !proc_table::is_alive(member))
}

impl QueueMemory {
    /// The head at that place, if it lies inside.
    #[inline]
    pub(super) fn head(&self, (chunk, unit): (u32, u32)) -> Option<ItemHeader> {
        if unit >= UNITS || self.reach(chunk).is_err() {
            return None;
        }
        let head = ItemHeader::of(self.unit((chunk, unit)));
        let fits = match head {
            // None stands where an item would have fitted: so none leads to another one.
            ItemHeader::Hop(next) => unit > 0 && next < self.chunks(),
            ItemHeader::Item(shape) => shape.fits(unit),
        };
        fits.then_some(head)
    }

    /// The holder of the item of that shape, if it is one that can be lent.
    pub(super) fn lease(&self, (chunk, unit): (u32, u32), shape: ItemLayout) -> Option<ItemLease> {
        shape.lent.then(|| ItemLease::of(low_half(self.unit((chunk, unit + 1)))))
    }

    pub(super) fn set_lease(&self, (chunk, unit): (u32, u32), lease: ItemLease) {
        self.set_unit((chunk, unit + 1), lease.word().into());
    }

    /// The items of a chunk from `unit` up to `end`, or to the hop; then whether there is one, and where to.
    pub(super) fn walk(
        &self,
        (chunk, mut unit): (u32, u32),
        end: Option<u32>,
        mut each: impl FnMut((u32, u32), ItemLayout),
    ) -> Option<u32> {
        while end.is_none_or(|end| unit < end) {
            match self.head((chunk, unit))? {
                ItemHeader::Hop(next) => return Some(next),
                ItemHeader::Item(shape) => {
                    each((chunk, unit), shape);
                    unit += shape.units();
                }
            }
        }
        None
    }

    /// The chunks of the long item at that place, in order, and how many bytes are in them. None if it cannot be one.
    pub(super) fn chain(&self, (chunk, unit): (u32, u32), shape: ItemLayout) -> Option<(usize, Vec<u32>)> {
        let unit = unit + 1 + shape.before();
        let len = usize::try_from(self.unit((chunk, unit))).ok()?;
        let mut next = self.unit((chunk, unit + 1));
        let count = len.div_ceil(LONG_PART);
        if count > self.used() as usize {
            return None;
        }
        let mut chunks = Vec::with_capacity(count);
        for _ in 0..count {
            let chunk = u32::try_from(next).ok().filter(|chunk| *chunk < self.used())?;
            self.reach(chunk).ok()?;
            chunks.push(chunk);
            match ItemHeader::of(self.unit((chunk, UNITS - 1))) {
                ItemHeader::Hop(after) => next = after.into(),
                ItemHeader::Item(_) => return None,
            }
        }
        Some((len, chunks))
    }

    /// Puts back every chunk without an owner. The caller holds both locks.
    #[cold]
    pub(super) fn sweep(&self) {
        let words = self.words();
        let (used, stock) = (self.used(), &words.stock);
        let mut needed = vec![false; used as usize];
        let mut need =
            |chunk: u32| needed.get_mut(chunk as usize).is_some_and(|needed| !std::mem::replace(needed, true));
        let mut long = Vec::new();
        let mut note = |at: (u32, u32), shape: ItemLayout| {
            if shape.long && self.lease(at, shape) != Some(ItemLease::Done) {
                long.push((at, shape));
            }
        };
        let (head, tail) = (Cursor::of(words.get.place.load(Relaxed)), Cursor::of(words.put.place.load(Acquire)));
        for chunk in (0..used).filter(|chunk| self.lent(*chunk).load(Relaxed) > 0) {
            need(chunk);
            let end = (chunk == head.chunk).then_some(head.unit);
            self.walk((chunk, 0), end, &mut note);
        }
        let mut next = Some((head.chunk, head.unit));
        while let Some((chunk, unit)) = next.filter(|(chunk, _)| need(*chunk) || *chunk == head.chunk) {
            let end = (chunk == tail.chunk).then_some(tail.unit);
            let hop = self.walk((chunk, unit), end, &mut note);
            // The first chunk comes once, whatever a hop that is none of ours says.
            next = hop.map(|next| (next, 0)).filter(|(chunk, _)| *chunk != head.chunk);
        }
        need(tail.chunk);
        for (at, shape) in long {
            self.chain(at, shape).into_iter().flat_map(|(_, chunks)| chunks).for_each(|chunk| _ = need(chunk));
        }
        let (mut warm, mut cold) = (0, 0);
        for chunk in 0..used {
            let state = ChunkState::of(self.state(chunk).load(Acquire));
            let lost = match state {
                ChunkState::Warm => {
                    warm += 1;
                    false
                }
                ChunkState::Cold => {
                    cold += 1;
                    false
                }
                ChunkState::Queued => !needed[chunk as usize],
                ChunkState::Of(member) => is_dead(member),
            };
            if lost && needed[chunk as usize] {
                // Its process died after it had put the item, or before it had taken it.
                self.state(chunk).store(ChunkState::Queued.word(), Release);
            } else if lost {
                self.give_back(chunk);
                self.state(chunk).store(ChunkState::Cold.word(), Release);
                cold += 1;
            }
        }
        stock.warm.store(warm, Relaxed);
        stock.cold.store(cold, Relaxed);
        let next = used.saturating_sub(warm + cold).saturating_mul(2).max(stock.sweep_at.load(Relaxed));
        stock.sweep_at.store(next.min(self.chunks()), Relaxed);
        stock.dirty.store(0, Relaxed);
    }
}
