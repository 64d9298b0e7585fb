//! The threads that wait at a condition variable, in the order in which they came.
//!
//! Owns: [`WaitQueue`], a table of slots in memory that several processes map. Runs in: any process.
//! Invariant: no system call is made here, so that a model checker can run it.
//!
//! # A slot
//!
//! Each waiter has a slot with a futex of its own, so that a notification is for one waiter and for no other.
//!
//! | slot                             | meaning                                        | written next by                        |
//! |----------------------------------|------------------------------------------------|----------------------------------------|
//! | its bit is not set in `taken`    | free, whatever stands in it                    | a waiter that enters, with the lock    |
//! | [`WAITING`]                      | its waiter sleeps, or is about to              | the notifier, or the waiter when its deadline has passed; both with the lock |
//! | [`NOTIFIED`]                     | its waiter is to wake up, and may have done so | its waiter, which leaves               |
//! | either, and the process is dead  | the waiter was killed                          | any process that holds the lock        |
//!
//! A waiter enters while it holds the mutex of the condition, and releases the mutex afterwards. So a thread that changes
//! the condition later finds it here. It leaves when it has been notified *and holds the mutex again*.
//!
//! # Deaths
//!
//! - *A waiter's, before it is notified*: its slot is skipped, and freed.
//! - *A waiter's, after it was notified and before it left*: its notification would reach no other waiter. The others, which
//!   look again from time to time, find its slot and pass the notification on. It goes to the waiter that has waited longest,
//!   of those that were in the queue when it was given; the slot's `ticket` remembers that.
//! - *The holder's of the queue's lock*: nothing to repair. A slot belongs to the queue by one bit, which is set last and
//!   cleared last, and is notified by one store. One waiter may be notified twice by what the holder passed on.
//! - *The notifier's, before it woke the waiter*: the waiter looks at its word again within [`futex_wait::MAX_SLEEP`].
//!
//! # Overflow
//!
//! Waiters that find no slot sleep on one common word. Every notification wakes all of them, and they may wake up for no
//! reason.

use std::time::Instant;

use super::WAIT_SLOTS;
use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use super::atomic::{AtomicU32, AtomicU64};
use super::futex_wait;
use super::lock::RobustLock;
use super::proc_table::{self, ProcId};

const WAITING: u32 = 0;
const NOTIFIED: u32 = 1;

/// Bit of the overflow word: a thread waits there. The bits above count how often these threads were woken.
const HAS_OVERFLOW: u32 = 1;

/// Slots in each word of `taken`.
const BITS: usize = u64::BITS as usize;

/// See the [module](self).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct WaitQueue {
    lock: RobustLock,
    overflow: AtomicU32,
    /// The ticket of the next waiter that enters.
    next: AtomicU64,
    /// A bit for each slot that belongs to a waiter.
    taken: [AtomicU64; WAIT_SLOTS.div_ceil(BITS)],
    slots: [WaiterSlot; WAIT_SLOTS],
}

#[derive(Debug)]
#[repr(C)]
struct WaiterSlot {
    word: AtomicU32,
    /// The id of its process.
    process: AtomicU32,
    /// While it waits: its number in the order of arrival. Once it is notified: the number of the next waiter that enters.
    ticket: AtomicU64,
}

/// The place of a waiter in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a slot that is not left is lost until its process ends"]
pub(crate) enum WaitSlot {
    /// A slot of its own.
    Own(usize),
    /// None: it sleeps on the overflow word, which had this value.
    Overflow(u32),
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Woken {
    /// By a notification, or in overflow for no reason. The waiter must leave once it holds the mutex.
    Notified,
    /// By the deadline. The waiter has no slot any more.
    TimedOut,
}

impl WaitQueue {
    pub(crate) const fn new() -> Self {
        Self {
            lock: RobustLock::new(),
            overflow: AtomicU32::new(0),
            next: AtomicU64::new(0),
            taken: [const { AtomicU64::new(0) }; WAIT_SLOTS.div_ceil(BITS)],
            slots: [const { WaiterSlot::new() }; WAIT_SLOTS],
        }
    }

    /// Enters the queue. The caller holds the mutex of the condition.
    pub(crate) fn enter(&self) -> WaitSlot {
        let me = proc_table::current();
        self.locked(|| {
            let Some(free) = self.free_slot() else {
                let overflow = self.overflow.load(Relaxed) | HAS_OVERFLOW;
                self.overflow.store(overflow, Relaxed);
                return WaitSlot::Overflow(overflow);
            };
            let (slot, ticket) = (&self.slots[free], self.next.load(Relaxed));
            self.next.store(ticket + 1, Relaxed);
            slot.word.store(WAITING, Relaxed);
            slot.process.store(me.bits(), Relaxed);
            slot.ticket.store(ticket, Relaxed);
            self.taken[free / BITS].fetch_or(1 << (free % BITS), Release);
            WaitSlot::Own(free)
        })
    }

    /// Sleeps until notified, or until the deadline. The caller has released the mutex.
    pub(crate) fn wait(&self, slot: WaitSlot, deadline: Option<Instant>) -> Woken {
        let index = match slot {
            WaitSlot::Own(index) => index,
            WaitSlot::Overflow(overflow) if futex_wait::sleep(&self.overflow, overflow, deadline) => {
                return Woken::Notified;
            }
            WaitSlot::Overflow(_) => return Woken::TimedOut,
        };
        let slot = &self.slots[index];
        while slot.word.load(Acquire) == WAITING {
            if !futex_wait::sleep(&slot.word, WAITING, deadline) {
                return self.cancel(index);
            }
            if slot.word.load(Acquire) == WAITING && self.has_lost_notifications() {
                let woken = self.locked(|| self.free_dead_slots());
                self.wake(woken);
            }
        }
        Woken::Notified
    }

    /// Leaves the queue. The caller was notified, and holds the mutex again.
    pub(crate) fn leave(&self, slot: WaitSlot) {
        if let WaitSlot::Own(index) = slot {
            self.free(index);
        }
    }

    /// Notifies the `count` waiters that have waited longest.
    pub(crate) fn notify(&self, count: usize) {
        // A waiter that entered before the condition changed is seen here: the thread that changed it took the mutex from
        // the waiter.
        if self.taken.iter().all(|bits| bits.load(Relaxed) == 0) && self.overflow.load(Relaxed) & HAS_OVERFLOW == 0 {
            return;
        }
        let (mut woken, mut has_overflow) = (SlotSet::default(), false);
        self.locked(|| {
            let overflow = self.overflow.load(Relaxed);
            has_overflow = overflow & HAS_OVERFLOW != 0;
            if has_overflow {
                self.overflow.store((overflow & !HAS_OVERFLOW).wrapping_add(HAS_OVERFLOW << 1), Relaxed);
            }
            for _ in 0..count {
                let Some(index) = self.notify_oldest(u64::MAX) else { break };
                woken[index / BITS] |= 1 << (index % BITS);
            }
        });
        // Without the lock: a thread that wakes up may run at once, in place of this one, and want it.
        if has_overflow {
            futex_wait::wake_all(&self.overflow);
        }
        self.wake(woken);
    }

    /// Notifies the waiter that has waited longest, of those that came before ticket `before`. The caller must still wake it.
    fn notify_oldest(&self, before: u64) -> Option<usize> {
        loop {
            let (_, index) = self.waiters().min().filter(|(ticket, _)| *ticket < before)?;
            if self.is_dead(index) {
                self.free(index);
                continue;
            }
            let slot = &self.slots[index];
            slot.ticket.store(self.next.load(Relaxed), Relaxed);
            slot.word.store(NOTIFIED, Release);
            return Some(index);
        }
    }

    fn wake(&self, woken: SlotSet) {
        for index in indices(woken.into_iter()) {
            futex_wait::wake_one(&self.slots[index].word);
        }
    }

    /// Leaves the queue because the deadline has passed, unless the waiter has been notified meanwhile.
    fn cancel(&self, index: usize) -> Woken {
        self.locked(|| {
            if self.slots[index].word.load(Acquire) == NOTIFIED {
                return Woken::Notified;
            }
            self.free(index);
            Woken::TimedOut
        })
    }

    /// Returns whether a waiter was notified and is dead. Called without the lock, so the answer must be checked again with it.
    fn has_lost_notifications(&self) -> bool {
        self.taken_slots().any(|index| self.slots[index].word.load(Relaxed) == NOTIFIED && self.is_dead(index))
    }

    /// Frees the slots of dead waiters, and passes on their notifications. The caller must still wake those returned.
    fn free_dead_slots(&self) -> SlotSet {
        let mut woken = SlotSet::default();
        for index in self.taken_slots().filter(|&index| self.is_dead(index)) {
            let slot = &self.slots[index];
            if slot.word.load(Acquire) == NOTIFIED {
                // Before its slot is free: if this process is killed in between, it is passed on once more.
                if let Some(index) = self.notify_oldest(slot.ticket.load(Relaxed)) {
                    woken[index / BITS] |= 1 << (index % BITS);
                }
            }
            self.free(index);
        }
        woken
    }

    fn free_slot(&self) -> Option<usize> {
        let look = || {
            let free = |(word, bits): (usize, &AtomicU64)| word * BITS + bits.load(Acquire).trailing_ones() as usize;
            let mut free = self.taken.iter().enumerate().filter(|(_, bits)| bits.load(Relaxed) != u64::MAX).map(free);
            free.next().filter(|&index| index < WAIT_SLOTS)
        };
        look().or_else(|| {
            self.wake(self.free_dead_slots());
            look()
        })
    }

    fn free(&self, index: usize) {
        self.taken[index / BITS].fetch_and(!(1 << (index % BITS)), AcqRel);
    }

    fn is_dead(&self, index: usize) -> bool {
        let member = ProcId::from_bits(self.slots[index].process.load(Relaxed));
        member.is_none_or(|member| !proc_table::is_alive(member))
    }

    /// The tickets and slots of those that wait and were not notified.
    fn waiters(&self) -> impl Iterator<Item = (u64, usize)> {
        self.taken_slots()
            .filter(|&index| self.slots[index].word.load(Relaxed) == WAITING)
            .map(|index| (self.slots[index].ticket.load(Relaxed), index))
    }

    fn taken_slots(&self) -> impl Iterator<Item = usize> {
        indices(self.taken.iter().map(|bits| bits.load(Acquire)))
    }

    /// Calls `act` with the queue's lock held. A process that died with it left nothing to repair.
    fn locked<R>(&self, act: impl FnOnce() -> R) -> R {
        while self.lock.lock(None).is_none() {}
        let result = act();
        self.lock.unlock();
        result
    }
}

/// Some of the slots, a bit for each.
type SlotSet = [u64; WAIT_SLOTS.div_ceil(BITS)];

/// Returns the numbers of the bits that are set.
fn indices(set: impl Iterator<Item = u64>) -> impl Iterator<Item = usize> {
    set.enumerate().flat_map(|(word, mut bits)| {
        std::iter::from_fn(move || {
            let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(word * BITS + bit)
        })
    })
}

impl WaiterSlot {
    const fn new() -> Self {
        Self { word: AtomicU32::new(WAITING), process: AtomicU32::new(0), ticket: AtomicU64::new(0) }
    }
}
