//! The leases of lent items, and how the items come back.
//!
//! Owns: when each side writes a lease. Runs in: any process that has an end of a joinable queue.
//! Never: takes an item from a holder that lives. All of it happens under `get.lock`.
//!
//! | lease | meaning | written next by |
//! |---|---|---|
//! | [`ItemLease::Fresh`] | not lent yet | the consumer that gets it |
//! | [`ItemLease::With`] | this process has it | that process; once it is dead, the consumer that gets it again |
//! | [`ItemLease::Returned`] | it came back | the consumer that gets it again |
//! | [`ItemLease::Done`] | it is done | none |
//!
//! A lease says whether its item counts; the numbers of lent items of a chunk, and of all, follow, and are counted again after
//! a death under the lock. A chunk stays as long as an item of it is lent.

use super::atomic::Ordering::Relaxed;
use super::enqueue::SideGuard;
use super::event_count::{ALL, WaitKey};
use super::layout::{Cursor, ItemHeader, ItemLayout, ItemLease};
use super::memory::QueueMemory;
use super::proc_table;
use super::recovery::is_dead;

impl QueueMemory {
    /// A lent item that its holder gave back, or left behind when it died. Under `get.lock`.
    #[cold]
    pub(super) fn find_returned(&self) -> Option<((u32, u32), ItemLayout)> {
        let mut found = None;
        self.each_lent(|at, shape, lease| {
            let free = match lease {
                ItemLease::Returned => true,
                ItemLease::With(member) => is_dead(member),
                ItemLease::Fresh | ItemLease::Done => false,
            };
            if free && found.is_none() {
                found = Some((at, shape));
            }
        });
        if found.is_none() {
            self.words().get.returned.store(0, Relaxed);
        }
        found
    }

    /// Goes through what stands in chunks with lent items, up to the consumers' place.
    fn each_lent(&self, mut each: impl FnMut((u32, u32), ItemLayout, ItemLease)) {
        let head = Cursor::of(self.words().get.place.load(Relaxed));
        for chunk in (0..self.used()).filter(|chunk| self.lent(*chunk).load(Relaxed) > 0) {
            let end = (chunk == head.chunk).then_some(head.unit);
            self.walk((chunk, 0), end, |at, shape| {
                if let Some(lease) = self.lease(at, shape) {
                    each(at, shape, lease);
                }
            });
        }
    }

    /// Counts again what is lent, after a death: the leases say so. Under `get.lock`.
    #[cold]
    pub(super) fn count_lent(&self) {
        let head = Cursor::of(self.words().get.place.load(Relaxed));
        let mut all = 0;
        for chunk in (0..self.used()).filter(|chunk| self.lent(*chunk).load(Relaxed) > 0) {
            let mut lent = 0;
            let end = (chunk == head.chunk).then_some(head.unit);
            self.walk((chunk, 0), end, |at, shape| {
                lent += u32::from(matches!(self.lease(at, shape), Some(ItemLease::With(_) | ItemLease::Returned)));
            });
            self.lent(chunk).store(lent, Relaxed);
            all += u64::from(lent);
        }
        self.words().get.number.store(all, Relaxed);
        // Only consumers of lent items ever clear it.
        if all > 0 {
            self.words().get.returned.store(1, Relaxed);
        }
    }

    /// A lent item is done. Under `get.lock`. False: this process does not have it, but perhaps a copy of it does.
    pub(super) fn done<'a>(&'a self, inside: &mut SideGuard<'a>, at: (u32, u32)) -> bool {
        let Some(ItemHeader::Item(shape)) = self.head(at) else { return false };
        if self.lease(at, shape) != Some(ItemLease::With(proc_table::current().bits())) {
            return false;
        }
        let chain = if shape.long { self.chain(at, shape) } else { None };
        self.set_lease(at, ItemLease::Done);
        chain.into_iter().flat_map(|(_, chunks)| chunks).for_each(|chunk| self.put_back(chunk));
        let words = self.words();
        let lent = self.lent(at.0).load(Relaxed).saturating_sub(1);
        self.lent(at.0).store(lent, Relaxed);
        words.get.number.store(words.get.number.load(Relaxed).saturating_sub(1), Relaxed);
        if lent == 0 && Cursor::of(words.get.place.load(Relaxed)).chunk != at.0 {
            self.put_back(at.0);
        }
        if self.unfinished() == 0 {
            inside.call_of(&words.get.joiners, ALL);
        }
        true
    }

    /// A lent item comes back. Under `get.lock`.
    pub(super) fn give_up(&self, at: (u32, u32)) {
        let Some(ItemHeader::Item(shape)) = self.head(at) else { return };
        if self.lease(at, shape) == Some(ItemLease::With(proc_table::current().bits())) {
            self.set_lease(at, ItemLease::Returned);
            self.words().get.returned.store(1, Relaxed);
        }
    }

    /// Whether an item is lent that may come back from another process. Under `get.lock`.
    pub(super) fn is_lent_elsewhere(&self) -> bool {
        let (me, mut elsewhere) = (proc_table::current().bits(), false);
        self.each_lent(|_, _, lease| {
            elsewhere |= lease == ItemLease::Returned || matches!(lease, ItemLease::With(id) if id != me);
        });
        elsewhere
    }

    /// This thread is about to wait until all is done. Under `get.lock`.
    pub(super) fn enlist_joiner(&self) -> WaitKey {
        self.words().get.joiners.prepare_wait()
    }

    /// How many items were put and are not done. Under `get.lock`.
    pub(super) fn unfinished(&self) -> u64 {
        u64::from(self.len()).saturating_add(self.words().get.number.load(Relaxed))
    }
}
