//! A robust lock: held by one process at a time, and free again when its holder has died.
//!
//! Owns: its two words, and their protocol. Runs in: any process.
//! Invariant: no system call is made here, so that a model checker can run it. Sleeping and waking go through
//! [`super::futex_wait`], and [`proc_table`] says which processes live.
//!
//! Why the word holds a process, and neither a thread nor a kernel's process id: an unlock gives back only what is
//! its own. So a guard that a `fork()` copied, that was forgotten, or that outlives its mapping harms no process.
//!
//! Why only a thread that is about to sleep asks whether the holder lives, or one that will not wait: a lock that is
//! free, or given back meanwhile, costs one exchange.
//!
//! # The words
//!
//! | `word`                           | meaning                                | written next by                                  |
//! |----------------------------------|----------------------------------------|--------------------------------------------------|
//! | [`FREE`]                         | the lock is free                       | any process, by an exchange                      |
//! | a process's id                   | held by that process                   | the holder, by a store                           |
//! | the same, and that one is dead   | the holder was killed, or ended        | any process, by an exchange; it then repairs     |
//!
//! | `contended`                      | meaning                                | written next by                                  |
//! |----------------------------------|----------------------------------------|--------------------------------------------------|
//! | 0                                | no thread sleeps, or one was just woken | a thread that is about to sleep, or has slept   |
//! | [`CONTENDED`]                    | a thread may be asleep                 | the thread that has freed the word               |
//!
//! A waiter sets the flag, reads the word once more, and sleeps on the flag. A holder frees the word and reads the flag. If it
//! is set, the holder clears it and wakes one sleeper. So a waiter that set the flag and still saw the word held either is
//! among the sleepers of which one is woken, or finds the flag cleared. A thread that has slept sets the flag again
//! before it takes the lock, because others may still sleep.
//!
//! The flag may be set without a sleeper: then no thread is woken. It may be clear while a thread sleeps: then some thread
//! was just woken and is about to set it again. Threads sleep on the flag and not on the word, because a holder that frees
//! the word, clears the flag and takes the lock again leaves the word as it was.
//!
//! # Orderings
//!
//! Taking is an `Acquire` of the `Release` with which the last holder freed the word. A dead holder releases nothing. Its
//! end, as [`proc_table::is_alive`] saw it, comes after all that it did.
//!
//! Freeing the word and then reading the flag must not be reordered, and neither may setting the flag and then reading the
//! word: else each side misses what the other has written. Two fences would do, but a lock is taken a million times for
//! each time that a thread sleeps. So the holder has the [cheap half](futex_wait::light_fence), which only binds
//! the compiler. A thread that is about to sleep has the [expensive half](futex_wait::sleep_contended), for which the kernel
//! interrupts all threads that may be in between.
//!
//! # Deaths
//!
//! - *The holder's*: the word keeps its id. A thread that waits, or tries, asks whether that process lives before it sleeps,
//!   and after each sleep. The first that finds it dead exchanges the word and gets [`Acquired::OwnerDied`].
//! - *The death of a process that repairs*: it is a holder like any other, so the next one gets the same.
//! - *The holder's, after it freed the word and before it wakes a sleeper*: sleepers look again within
//!   [`futex_wait::MAX_SLEEP`].
//! - *A waiter's*: costs a look for sleepers. If it had just been woken, its wake-up is lost with it, and the others look again
//!   by themselves.
//!
//! # Copies of a process
//!
//! A copy made by `fork()` has an id of its own. It cannot free what its original holds, whatever it inherited. A process
//! that enters the table of processes while it holds a lock has two ids, and frees what it took under either.

use std::time::Instant;

use super::atomic::AtomicU32;
use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::futex_wait;
use super::proc_table::{self, ProcId};

const FREE: u32 = 0;
const CONTENDED: u32 = 1 << 31;

/// See the [module](self).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RobustLock {
    word: AtomicU32,
    contended: AtomicU32,
}

/// The state in which its holder found the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "what a dead holder left behind must be repaired"]
pub(crate) enum Acquired {
    /// The last holder released it.
    Clean,
    /// The last holder died, perhaps in the middle of a change. As `EOWNERDEAD` of a robust mutex.
    OwnerDied,
}

impl RobustLock {
    pub(crate) const fn new() -> Self {
        Self { word: AtomicU32::new(FREE), contended: AtomicU32::new(0) }
    }

    /// Takes the lock, waiting until the deadline at most. Returns `None` if the deadline has passed.
    ///
    /// A thread that holds the lock already waits for itself.
    #[inline]
    pub(crate) fn lock(&self, deadline: Option<Instant>) -> Option<Acquired> {
        let me = proc_table::current();
        match self.word.compare_exchange(FREE, me.bits(), Acquire, Relaxed) {
            Ok(_) => Some(Acquired::Clean),
            Err(_) => self.lock_contended(me, deadline),
        }
    }

    /// Takes the lock if no living process holds it.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Acquired> {
        let me = proc_table::current();
        match self.word.compare_exchange(FREE, me.bits(), Acquire, Relaxed) {
            Ok(_) => Some(Acquired::Clean),
            Err(seen) => self.try_take(me, seen),
        }
    }

    /// Releases the lock. Does nothing if this process does not hold it: a copy made by `fork()` drops a guard of its original.
    #[inline]
    pub(crate) fn unlock(&self) {
        let holds = self.word.load(Relaxed) == proc_table::current().bits();
        if !holds && !self.is_held_by_own() {
            return;
        }
        self.word.store(FREE, Release);
        futex_wait::light_fence();
        if self.is_contended() {
            self.wake_one();
        }
    }

    #[cold]
    fn wake_one(&self) {
        self.contended.store(0, Relaxed);
        futex_wait::wake_one(&self.contended);
    }

    /// Returns whether a thread may be asleep.
    #[inline]
    fn is_contended(&self) -> bool {
        self.contended.load(Relaxed) != 0
    }

    /// Returns the process that holds the lock, dead or alive.
    pub(crate) fn owner(&self) -> Option<ProcId> {
        ProcId::from_bits(self.word.load(Relaxed))
    }

    /// Returns whether a thread of this process holds the lock.
    pub(crate) fn is_held_by_own(&self) -> bool {
        self.owner().is_some_and(proc_table::is_current)
    }

    #[cold]
    fn lock_contended(&self, me: ProcId, deadline: Option<Instant>) -> Option<Acquired> {
        let mut has_slept = false;
        loop {
            let seen = self.spin();
            if has_slept {
                // Others may still sleep.
                self.contended.store(CONTENDED, Relaxed);
            }
            if let Some(taken) = self.try_take(me, seen) {
                return Some(taken);
            }
            self.contended.store(CONTENDED, Relaxed);
            if !futex_wait::sleep_contended(&self.contended, (CONTENDED, deadline), || self.word.load(Relaxed) != FREE)
            {
                return None;
            }
            has_slept = true;
        }
    }

    /// Spins until the lock is free. Stops at once if others sleep already, since they come first.
    fn spin(&self) -> u32 {
        let mut seen = FREE;
        futex_wait::spin_until(|| {
            seen = self.word.load(Relaxed);
            seen == FREE || self.is_contended()
        });
        seen
    }

    /// Takes the lock, unless a living process holds it.
    #[cold]
    fn try_take(&self, me: ProcId, mut seen: u32) -> Option<Acquired> {
        while !is_held(seen) {
            match self.word.compare_exchange(seen, me.bits(), Acquire, Relaxed) {
                Ok(FREE) => return Some(Acquired::Clean),
                Ok(_) => return Some(Acquired::OwnerDied),
                Err(now) => seen = now,
            }
        }
        None
    }
}

/// Returns whether a living process holds a lock with this word. A word that is no id was not written by these rules.
fn is_held(word: u32) -> bool {
    ProcId::from_bits(word).is_some_and(proc_table::is_alive)
}
