//! Waiting for an item, or for room.
//!
//! Owns: when to spin, to sleep, and to give up. Runs in: any process that has an end of the queue.
//! Invariant: a wait for a lock ends at most a moment after the caller's deadline.
//!
//! A consumer that finds no item looks for a short while, then enlists with the threads that sleep until the producers have
//! come further, under their lock, so that none of them can pass by unseen in between; likewise for room. A sleeper looks
//! again after 50 ms at the latest, which heals whatever a death has left out.
//!
//! Looking takes the word that is looked at away from the processor that writes it. So a thread looks less and less often,
//! and until much is there; and not at all where the other side was last seen on the same processor, as it cannot run
//! meanwhile. A thread that finds it there again and again [steps aside](crate::link::CpuCollision).
//!
//! Why a consumer looks so seldom: each look moves a cache line between two processors. A consumer that looked as
//! fast as it could took 75 ns an item. One that lets 64 items come, or 2 us go by, takes 22 ns.
//!
//! Why a thread does not look at all where the other side was last seen on its processor: each batch would wait for
//! the end of the look. Virtual machines often keep both sides on one processor.

use std::sync::atomic::fence;
use std::time::Instant;

use super::atomic::Ordering::{Relaxed, SeqCst};
use super::core::QueueCore;
use super::endpoint::Endpoint;
use super::futex_wait::short_deadline;
use super::header;
use super::layout::Cursor;
use crate::sync::deadline::Deadline;
use crate::sys::cpu;

/// Number of items, or of free places, for which spinning waits a little longer: each look costs the other side a cache
/// miss.
const MAX_AWAITED_ITEMS: u32 = 64;

/// Returns until when to wait for a lock, which a running holder has for microseconds only. A lock that is held for a moment
/// must not make a queue look full or empty.
pub(super) fn for_lock(deadline: Deadline) -> Option<Instant> {
    match deadline {
        Deadline::Now => short_deadline(),
        Deadline::At(deadline) => short_deadline().max(Some(deadline)),
        Deadline::Never => None,
    }
}

impl QueueCore {
    /// Waits until the consumers have come further than that: somewhat further, if they are quick. False: the deadline is over.
    #[cold]
    pub(super) fn wait_for_room(&self, head: u64, deadline: Option<Instant>) -> bool {
        let words = self.memory.words();
        let enough = (words.most_items.load(Relaxed) / 8).clamp(1, MAX_AWAITED_ITEMS);
        let came = || Cursor::of(words.get.place.load(Relaxed)).since(Cursor::of(head));
        let looks = !self.shares_processor(&words.put, &words.get);
        if looks && self.for_room.until_much(enough, came) || came() > 0 {
            return true;
        }
        let since = Instant::now();
        let key = match self.memory.getting(deadline) {
            None => return false,
            Some(inside) => {
                let key = inside.prepare_wait();
                // Some consumers get without the lock: either they see that this thread has enlisted, or it sees what they
                // took.
                fence(SeqCst);
                // Also where a consumer has gone meanwhile, whether it was the last or not.
                if came() > 0 || self.is_closed() || self.seen.load(Relaxed) != self.death_epoch() {
                    return true;
                }
                key
            }
        };
        let waits = words.get.sleepers.wait(key, deadline);
        self.for_room.slept(since);
        waits
    }

    /// Looks for a while whether the producers come further than that.
    pub(super) fn look_for_item(&self, tail: u64) -> bool {
        let words = self.memory.words();
        if self.shares_processor(&words.get, &words.put) {
            return false;
        }
        let came = || Cursor::of(words.put.place.load(Relaxed)).since(Cursor::of(tail));
        self.for_items.until_much(MAX_AWAITED_ITEMS, || {
            came() + u32::from(words.get.returned.load(Relaxed) != 0) * MAX_AWAITED_ITEMS
        }) || came() > 0
    }

    /// Sleeps until the producers have come further than that. False: the deadline is over.
    #[cold]
    pub(super) fn wait_for_item(&self, end: &Endpoint, tail: u64, deadline: Option<Instant>) -> bool {
        let words = self.memory.words();
        let since = Instant::now();
        let key = match self.memory.putting(deadline) {
            None => return false,
            Some(_)
                if words.put.place.load(Relaxed) != tail
                    || words.get.returned.load(Relaxed) != 0
                    || self.is_over(end) =>
            {
                return true;
            }
            Some(inside) => {
                self.drop_orphans(end);
                inside.prepare_wait()
            }
        };
        let waits = words.put.sleepers.wait(key, deadline);
        self.for_items.slept(since);
        if self.lends {
            self.look_for_dead(true);
        }
        waits
    }

    /// Drops messages of items that were never put, and those that only told of an item, when there is no item, so that they do not
    /// fill the socket. Under `put.lock`.
    pub(super) fn drop_orphans(&self, end: &Endpoint) {
        if end.has_message()
            && let Some(_inside) = self.memory.getting(short_deadline())
            && self.memory.len() == 0
        {
            end.forget(u64::MAX);
        }
    }

    /// Whether the other side was last seen where this one runs: then looking would only keep it from running.
    fn shares_processor(&self, own: &header::QueueSide, other: &header::QueueSide) -> bool {
        let here = cpu::current();
        own.processor.store(here + 1, Relaxed);
        let others = other.processor.load(Relaxed).checked_sub(1);
        let shares = others == Some(here);
        // Another thread that is about to wait will see to it.
        if let Ok(mut crowd) = self.crowd.try_lock() {
            if shares { crowd.met(others) } else { crowd.apart() }
        }
        shares
    }
}
