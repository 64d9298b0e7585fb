//! Items that are lent: their tickets, and how they come back.
//!
//! Owns: when each side writes a ticket. Runs in: any process that has an end of a joinable queue.
//! Never: takes an item from a holder that lives. All of it happens under `get.lock`.
//!
//! | ticket | meaning | written next by |
//! |---|---|---|
//! | [`Ticket::Fresh`] | not lent yet | the consumer that gets it |
//! | [`Ticket::With`] | this process has it | that process; once it is dead, the consumer that gets it again |
//! | [`Ticket::Returned`] | it came back | the consumer that gets it again |
//! | [`Ticket::Done`] | it is done | none |
//!
//! A ticket says whether its item counts; the numbers of lent items of a chunk, and of all, follow, and are counted again after
//! a death under the lock. A chunk stays as long as an item of it is lent.

use super::atomic::Ordering::Relaxed;
use super::event_count::{ALL, WaitKey};
use super::layout::{Head, Place, Shape, Ticket};
use super::memory::Memory;
use super::proc_table;
use super::store::Inside;
use super::sweep::is_dead;

impl Memory {
    /// A lent item that its holder gave back, or left behind when it died. Under `get.lock`.
    #[cold]
    pub(super) fn find_returned(&self) -> Option<((u32, u32), Shape)> {
        let mut found = None;
        self.each_lent(|at, shape, ticket| {
            let free = match ticket {
                Ticket::Returned => true,
                Ticket::With(member) => is_dead(member),
                Ticket::Fresh | Ticket::Done => false,
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
    fn each_lent(&self, mut each: impl FnMut((u32, u32), Shape, Ticket)) {
        let head = Place::of(self.words().get.place.load(Relaxed));
        for chunk in (0..self.used()).filter(|chunk| self.lent(*chunk).load(Relaxed) > 0) {
            let end = (chunk == head.chunk).then_some(head.unit);
            self.walk((chunk, 0), end, |at, shape| {
                if let Some(ticket) = self.ticket(at, shape) {
                    each(at, shape, ticket);
                }
            });
        }
    }

    /// Counts again what is lent, after a death: the tickets say so. Under `get.lock`.
    #[cold]
    pub(super) fn count_lent(&self) {
        let head = Place::of(self.words().get.place.load(Relaxed));
        let mut all = 0;
        for chunk in (0..self.used()).filter(|chunk| self.lent(*chunk).load(Relaxed) > 0) {
            let mut lent = 0;
            let end = (chunk == head.chunk).then_some(head.unit);
            self.walk((chunk, 0), end, |at, shape| {
                lent += u32::from(matches!(self.ticket(at, shape), Some(Ticket::With(_) | Ticket::Returned)));
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
    pub(super) fn done<'a>(&'a self, inside: &mut Inside<'a>, at: (u32, u32)) -> bool {
        let Some(Head::Item(shape)) = self.head(at) else { return false };
        if self.ticket(at, shape) != Some(Ticket::With(proc_table::current().bits())) {
            return false;
        }
        let chain = if shape.long { self.chain(at, shape) } else { None };
        self.set_ticket(at, Ticket::Done);
        chain.into_iter().flat_map(|(_, chunks)| chunks).for_each(|chunk| self.put_back(chunk));
        let words = self.words();
        let lent = self.lent(at.0).load(Relaxed).saturating_sub(1);
        self.lent(at.0).store(lent, Relaxed);
        words.get.number.store(words.get.number.load(Relaxed).saturating_sub(1), Relaxed);
        if lent == 0 && Place::of(words.get.place.load(Relaxed)).chunk != at.0 {
            self.put_back(at.0);
        }
        if self.unfinished() == 0 {
            inside.call_of(&words.get.joiners, ALL);
        }
        true
    }

    /// A lent item comes back. Under `get.lock`.
    pub(super) fn give_up(&self, at: (u32, u32)) {
        let Some(Head::Item(shape)) = self.head(at) else { return };
        if self.ticket(at, shape) == Some(Ticket::With(proc_table::current().bits())) {
            self.set_ticket(at, Ticket::Returned);
            self.words().get.returned.store(1, Relaxed);
        }
    }

    /// Whether an item is lent that may come back from another process. Under `get.lock`.
    pub(super) fn is_lent_elsewhere(&self) -> bool {
        let (me, mut elsewhere) = (proc_table::current().bits(), false);
        self.each_lent(|_, _, ticket| {
            elsewhere |= ticket == Ticket::Returned || matches!(ticket, Ticket::With(member) if member != me);
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
