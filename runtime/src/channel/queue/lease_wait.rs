//! Items that are lent, as one process sees them.
//!
//! Owns: when to look for items of the dead, and waiting until all are done. Runs in: any process that has a joinable queue.
//! Never: says of an item that it is done unless its holder did.

use std::time::Instant;

use super::atomic::Ordering::Relaxed;
use super::core::QueueCore;
use super::event_count::ALL;
use super::proc_table;

/// A lent item that comes back when this is dropped, if its lease still says so.
pub(super) struct ReturnOnDrop<'c>(pub(super) Option<&'c QueueCore>, pub(super) (u32, u32));

impl Drop for ReturnOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.0 {
            core.give_up(self.1);
        }
    }
}

impl QueueCore {
    /// Has the next `get` look for items of dead processes, and says whether it will; `anyway`: also if none is known to
    /// have ended.
    pub(super) fn look_for_dead(&self, anyway: bool) -> bool {
        let ended = proc_table::deaths();
        let words = self.memory.words();
        let looks = words.get.number.load(Relaxed) != 0 && (self.ended.swap(ended, Relaxed) != ended || anyway);
        if looks {
            words.get.returned.store(1, Relaxed);
        }
        looks
    }

    /// A lent item is done.
    pub(super) fn done(&self, at: (u32, u32)) {
        if let Some(mut inside) = self.memory.getting(None) {
            self.memory.done(&mut inside, at);
        }
        // A consumer that waits for what others have hears that none has anything.
        if self.is_closed()
            && let Some(mut inside) = self.memory.putting(None)
        {
            inside.call(ALL);
        }
    }

    /// A lent item comes back, for the next `get`.
    pub(super) fn give_up(&self, at: (u32, u32)) {
        if let Some(_inside) = self.memory.getting(None) {
            self.memory.give_up(at);
        }
        if let Some(mut inside) = self.memory.putting(None) {
            inside.call(1);
        }
    }

    /// How many items are not done.
    pub(super) fn unfinished(&self) -> usize {
        let unfinished = self.memory.getting(None).map_or(0, |_inside| self.memory.unfinished());
        usize::try_from(unfinished).unwrap_or(usize::MAX)
    }

    /// Waits until every item that was put is done. False: the deadline is over.
    pub(super) fn join(&self, deadline: Option<Instant>) -> bool {
        loop {
            let key = {
                let Some(_inside) = self.memory.getting(deadline) else { return false };
                if self.memory.unfinished() == 0 {
                    return true;
                }
                self.memory.enlist_joiner()
            };
            if !self.memory.words().get.joiners.wait(key, deadline) {
                return false;
            }
        }
    }
}
