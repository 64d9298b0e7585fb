//! The threads that wait at a condition variable, in the order in which they came.
//!
//! Owns: [`Line`], a table of places in memory that several processes map. Runs in: any process.
//! Never: makes a system call itself, so that a model checker can run it.
//!
//! # A place
//!
//! Each waiter has a place of its own, with a word to sleep on, so that a notification is for one waiter and for no other.
//!
//! | place                          | meaning                                        | written next by                        |
//! |--------------------------------|------------------------------------------------|----------------------------------------|
//! | its bit is not in `taken`      | free, whatever stands in it                    | a waiter that enters, with the lock    |
//! | [`WAITING`]                    | its member sleeps, or is about to              | the notifier, or the waiter when its time is over; both with the lock |
//! | [`NOTIFIED`]                   | its member is to wake up, and may have done so | its member, which leaves               |
//! | either, and the member is dead | the waiter was killed                          | any process that holds the lock        |
//!
//! A waiter enters while it holds the mutex of the condition, and gives the mutex back afterwards; so a thread that changes
//! the condition later finds it here. It leaves when it has been notified *and has the mutex again*.
//!
//! # Deaths
//!
//! - *A waiter's, before it is notified*: its place is skipped, and freed.
//! - *A waiter's, after it was notified and before it left*: no other waiter would hear of what it was told. The others,
//!   which look again from time to time, find its place and pass the notification on to the one that has waited longest, of
//!   those that were in the line when it was given; its `ticket` remembers that.
//! - *The one's that holds the line's lock*: nothing to repair. A place belongs to the line by one bit, which is set last and
//!   cleared last, and is notified by one store. Of what it passed on, one waiter may hear twice.
//! - *The one's that notified, before it woke the waiter*: the waiter looks at its word again soon.
//!
//! # The crowd
//!
//! A waiter that finds no place sleeps on one word with all others like it. Every notification wakes them all, and they may
//! wake up for no reason.

use std::time::Instant;

use super::PLACES;
use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use super::atomic::{AtomicU32, AtomicU64};
use super::lock::Lock;
use super::members::{self, Member};
use super::waiting;

const WAITING: u32 = 0;
const NOTIFIED: u32 = 1;

/// In the crowd's word: it is not empty. Above it, the number of times that the crowd was woken.
const CROWDED: u32 = 1;

const BITS: usize = u64::BITS as usize;

/// See the [module](self).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Line {
    lock: Lock,
    crowd: AtomicU32,
    /// The ticket of the next waiter that enters.
    next: AtomicU64,
    /// A bit for each place that belongs to a waiter.
    taken: [AtomicU64; PLACES.div_ceil(BITS)],
    places: [Place; PLACES],
}

#[derive(Debug)]
#[repr(C)]
struct Place {
    word: AtomicU32,
    member: AtomicU32,
    /// Of one that waits: when it came. Of one that was notified: which waiters came after that.
    ticket: AtomicU64,
}

/// Where a waiter stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a place that nobody leaves is lost until its process ends"]
pub(crate) enum Standing {
    /// At a place of its own.
    At(usize),
    /// In the crowd, since its word was this.
    InCrowd(u32),
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Woken {
    /// By a notification, or in the crowd for no reason. The waiter is to leave, once it has the mutex.
    Notified,
    /// By the deadline. The waiter stands nowhere any more.
    TimeOver,
}

impl Line {
    pub(crate) const fn new() -> Self {
        Self {
            lock: Lock::new(),
            crowd: AtomicU32::new(0),
            next: AtomicU64::new(0),
            taken: [const { AtomicU64::new(0) }; PLACES.div_ceil(BITS)],
            places: [const { Place::new() }; PLACES],
        }
    }

    /// Enters the line. The caller holds the mutex of the condition.
    pub(crate) fn enter(&self) -> Standing {
        let me = members::own();
        self.locked(|| {
            let Some(free) = self.free_place() else {
                let crowd = self.crowd.load(Relaxed) | CROWDED;
                self.crowd.store(crowd, Relaxed);
                return Standing::InCrowd(crowd);
            };
            let (place, ticket) = (&self.places[free], self.next.load(Relaxed));
            self.next.store(ticket + 1, Relaxed);
            place.word.store(WAITING, Relaxed);
            place.member.store(me.bits(), Relaxed);
            place.ticket.store(ticket, Relaxed);
            self.taken[free / BITS].fetch_or(1 << (free % BITS), Release);
            Standing::At(free)
        })
    }

    /// Sleeps until notified, or until the deadline. The caller has given the mutex back.
    pub(crate) fn wait(&self, standing: Standing, deadline: Option<Instant>) -> Woken {
        let index = match standing {
            Standing::At(index) => index,
            Standing::InCrowd(crowd) if waiting::sleep(&self.crowd, crowd, deadline) => return Woken::Notified,
            Standing::InCrowd(_) => return Woken::TimeOver,
        };
        let place = &self.places[index];
        while place.word.load(Acquire) == WAITING {
            if !waiting::sleep(&place.word, WAITING, deadline) {
                return self.give_up(index);
            }
            if place.word.load(Acquire) == WAITING && self.has_lost_notifications() {
                let woken = self.locked(|| self.sweep());
                self.wake(woken);
            }
        }
        Woken::Notified
    }

    /// Leaves the line. The caller was notified, and has the mutex again.
    pub(crate) fn leave(&self, standing: Standing) {
        if let Standing::At(index) = standing {
            self.free(index);
        }
    }

    /// Notifies the `count` waiters that have waited longest.
    pub(crate) fn notify(&self, count: usize) {
        // A waiter that entered before the condition was changed is seen here: the thread that changed it got the mutex
        // from the waiter.
        if self.taken.iter().all(|bits| bits.load(Relaxed) == 0) && self.crowd.load(Relaxed) & CROWDED == 0 {
            return;
        }
        let (mut woken, mut crowded) = (Set::default(), false);
        self.locked(|| {
            let crowd = self.crowd.load(Relaxed);
            crowded = crowd & CROWDED != 0;
            if crowded {
                self.crowd.store((crowd & !CROWDED).wrapping_add(CROWDED << 1), Relaxed);
            }
            for _ in 0..count {
                let Some(index) = self.notify_oldest(u64::MAX) else { break };
                woken[index / BITS] |= 1 << (index % BITS);
            }
        });
        // Not with the lock: a thread that wakes up may run at once, in our place, and want it.
        if crowded {
            waiting::wake_all(&self.crowd);
        }
        self.wake(woken);
    }

    /// Notifies the waiter that has waited longest, of those that came before that ticket. It is still to be woken.
    fn notify_oldest(&self, before: u64) -> Option<usize> {
        loop {
            let (_, index) = self.waiters().min().filter(|(ticket, _)| *ticket < before)?;
            if self.is_dead(index) {
                self.free(index);
                continue;
            }
            let place = &self.places[index];
            place.ticket.store(self.next.load(Relaxed), Relaxed);
            place.word.store(NOTIFIED, Release);
            return Some(index);
        }
    }

    fn wake(&self, woken: Set) {
        for index in indices(woken.into_iter()) {
            waiting::wake_one(&self.places[index].word);
        }
    }

    /// The waiter's time is over; unless it has been notified meanwhile.
    fn give_up(&self, index: usize) -> Woken {
        self.locked(|| {
            if self.places[index].word.load(Acquire) == NOTIFIED {
                return Woken::Notified;
            }
            self.free(index);
            Woken::TimeOver
        })
    }

    /// Whether a waiter was notified and is dead. Asked without the lock, so the answer is to be looked at again with it.
    fn has_lost_notifications(&self) -> bool {
        self.taken_places().any(|index| self.places[index].word.load(Relaxed) == NOTIFIED && self.is_dead(index))
    }

    /// Frees the places of the dead, and passes on what they were told. Those returned are still to be woken.
    fn sweep(&self) -> Set {
        let mut woken = Set::default();
        for index in self.taken_places().filter(|&index| self.is_dead(index)) {
            let place = &self.places[index];
            if place.word.load(Acquire) == NOTIFIED {
                // Before its place is free: if we are killed in between, it is passed on once more.
                if let Some(index) = self.notify_oldest(place.ticket.load(Relaxed)) {
                    woken[index / BITS] |= 1 << (index % BITS);
                }
            }
            self.free(index);
        }
        woken
    }

    fn free_place(&self) -> Option<usize> {
        let look = || {
            let free = |(word, bits): (usize, &AtomicU64)| word * BITS + bits.load(Acquire).trailing_ones() as usize;
            let mut free = self.taken.iter().enumerate().filter(|(_, bits)| bits.load(Relaxed) != u64::MAX).map(free);
            free.next().filter(|&index| index < PLACES)
        };
        look().or_else(|| {
            self.wake(self.sweep());
            look()
        })
    }

    fn free(&self, index: usize) {
        self.taken[index / BITS].fetch_and(!(1 << (index % BITS)), AcqRel);
    }

    fn is_dead(&self, index: usize) -> bool {
        let member = Member::of_bits(self.places[index].member.load(Relaxed));
        member.is_none_or(|member| !members::lives(member))
    }

    /// The tickets and places of those that wait and were not notified.
    fn waiters(&self) -> impl Iterator<Item = (u64, usize)> {
        self.taken_places()
            .filter(|&index| self.places[index].word.load(Relaxed) == WAITING)
            .map(|index| (self.places[index].ticket.load(Relaxed), index))
    }

    fn taken_places(&self) -> impl Iterator<Item = usize> {
        indices(self.taken.iter().map(|bits| bits.load(Acquire)))
    }

    /// Holding the line's lock. A process that died with it left nothing to repair.
    fn locked<R>(&self, act: impl FnOnce() -> R) -> R {
        while self.lock.lock(None).is_none() {}
        let result = act();
        self.lock.unlock();
        result
    }
}

/// Some of the places, a bit for each.
type Set = [u64; PLACES.div_ceil(BITS)];

/// The numbers of the bits that are set.
fn indices(set: impl Iterator<Item = u64>) -> impl Iterator<Item = usize> {
    set.enumerate().flat_map(|(word, mut bits)| {
        std::iter::from_fn(move || {
            let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(word * BITS + bit)
        })
    })
}

impl Place {
    const fn new() -> Self {
        Self { word: AtomicU32::new(WAITING), member: AtomicU32::new(0), ticket: AtomicU64::new(0) }
    }
}
