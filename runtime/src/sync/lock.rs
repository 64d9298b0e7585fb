//! What one process at a time holds, and what is free again when its holder has died.
//!
//! Owns: its two words, and their protocol. Runs in: any process.
//! Never: makes a system call itself; so that a model checker can run it, it sleeps and wakes through [`super::waiting`],
//! and asks [`members`] which processes live.
//!
//! # The words
//!
//! | `word`                           | meaning                                | written next by                                  |
//! |----------------------------------|----------------------------------------|--------------------------------------------------|
//! | [`FREE`]                         | the lock is free                       | any process, by an exchange                      |
//! | a member's id                    | held by that process                   | the holder, by a store                           |
//! | the same, and the member is dead | the holder was killed, or ended        | any process, by an exchange; it then repairs     |
//!
//! | `note`                           | meaning                                | written next by                                  |
//! |----------------------------------|----------------------------------------|--------------------------------------------------|
//! | 0                                | no thread sleeps, or one was just woken | a thread that is about to sleep, or has slept   |
//! | [`NOTED`]                        | a thread may be asleep                 | the thread that has freed the word               |
//!
//! A waiter leaves a note, looks at the word once more, and sleeps on the note. A holder frees the word, and looks for a
//! note; if there is one, it takes it away and wakes one sleeper. So a waiter that has left a note and still saw the word
//! held either sleeps and is among those of which one is woken, or finds the note taken away. A thread that has slept
//! leaves the note again before it takes the lock, because others may sleep still.
//!
//! A note may stand without a sleeper: then no thread is woken. There may be none while a thread sleeps: some process has
//! just been woken and is about to leave it again. The note, and not the word, is what is slept on: a holder that frees the
//! word, takes the note away and takes the lock again leaves the word as it was.
//!
//! # Orderings
//!
//! Taking is an `Acquire` of the `Release` with which the last holder freed the word. A dead holder releases nothing; its
//! end, as [`members::lives`] saw it, comes after all that it did.
//!
//! Freeing, and the look for a note after it, must not change places, nor may leaving a note and the look at the word: else
//! each misses what the other has written. Two fences would do, but a lock is taken a million times for each time that a
//! thread sleeps. So the holder has the [cheap half](waiting::light_fence), which is no more than an order to the compiler.
//! A thread that is about to sleep has the [dear one](waiting::sleep_noted), for which the kernel interrupts all threads
//! that may be in between.
//!
//! # Deaths
//!
//! - *The holder's*: the word keeps its id. A thread that waits, or tries, asks whether that member lives before it sleeps,
//!   and after each sleep; the first that finds it dead exchanges the word, and is told so ([`Taken::FromDead`]).
//! - *The one's that repairs*: it is a holder like any other, so that the next one is told the same.
//! - *The one's that has freed the word, before it wakes a sleeper*: those that sleep look again by themselves soon.
//! - *A waiter's*: costs nothing but a look for sleepers. Should it have been woken just before, the wake-up is lost with it:
//!   likewise.
//!
//! # Copies of a process
//!
//! A copy made by `fork()` is another member. It cannot free what its original holds, whatever it inherited. A process that
//! enters the table of members while it holds a lock has two names, and frees what it took under either.

use std::time::Instant;

use super::atomic::AtomicU32;
use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::members::{self, Member};
use super::waiting;

const FREE: u32 = 0;
const NOTED: u32 = 1 << 31;

/// See the [module](self).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Lock {
    word: AtomicU32,
    note: AtomicU32,
}

/// The state in which its present holder found the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "what a dead holder left behind is to be repaired"]
pub(crate) enum Taken {
    /// The last holder gave it back.
    Free,
    /// The last holder died, perhaps in the middle of a change.
    FromDead,
}

impl Lock {
    pub(crate) const fn new() -> Self {
        Self { word: AtomicU32::new(FREE), note: AtomicU32::new(0) }
    }

    /// Takes the lock, waiting until the deadline at most. None: the deadline is over.
    ///
    /// A lock that this thread holds already is waited for like any other.
    #[inline]
    pub(crate) fn lock(&self, deadline: Option<Instant>) -> Option<Taken> {
        let me = members::own();
        match self.word.compare_exchange(FREE, me.bits(), Acquire, Relaxed) {
            Ok(_) => Some(Taken::Free),
            Err(_) => self.lock_contended(me, deadline),
        }
    }

    /// Takes the lock if that is possible without waiting.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Taken> {
        let me = members::own();
        match self.word.compare_exchange(FREE, me.bits(), Acquire, Relaxed) {
            Ok(_) => Some(Taken::Free),
            Err(seen) => self.take_unless_held(me, seen),
        }
    }

    /// Gives the lock back. Does nothing if this process does not hold it: a copy made by `fork()` drops a guard of its original.
    #[inline]
    pub(crate) fn unlock(&self) {
        let holds = self.word.load(Relaxed) == members::own().bits();
        if !holds && !self.is_held_by_own() {
            return;
        }
        self.word.store(FREE, Release);
        waiting::light_fence();
        if self.is_noted() {
            self.wake_one();
        }
    }

    #[cold]
    fn wake_one(&self) {
        self.note.store(0, Relaxed);
        waiting::wake_one(&self.note);
    }

    /// Whether a thread may be asleep.
    #[inline]
    fn is_noted(&self) -> bool {
        self.note.load(Relaxed) != 0
    }

    /// The process that holds the lock, dead or alive.
    pub(crate) fn owner(&self) -> Option<Member> {
        Member::of_bits(self.word.load(Relaxed))
    }

    /// Whether this process holds the lock, in whichever thread.
    pub(crate) fn is_held_by_own(&self) -> bool {
        self.owner().is_some_and(members::is_own)
    }

    #[cold]
    fn lock_contended(&self, me: Member, deadline: Option<Instant>) -> Option<Taken> {
        let mut has_slept = false;
        loop {
            let seen = self.look();
            if has_slept {
                // Perhaps not as the only one.
                self.note.store(NOTED, Relaxed);
            }
            if let Some(taken) = self.take_unless_held(me, seen) {
                return Some(taken);
            }
            self.note.store(NOTED, Relaxed);
            if !waiting::sleep_noted(&self.note, (NOTED, deadline), || self.word.load(Relaxed) != FREE) {
                return None;
            }
            has_slept = true;
        }
    }

    /// Looks shortly for the lock to become free; not where others sleep already, which come first.
    fn look(&self) -> u32 {
        let mut seen = FREE;
        waiting::look_shortly(|| {
            seen = self.word.load(Relaxed);
            seen == FREE || self.is_noted()
        });
        seen
    }

    /// Takes the lock, unless a living process holds it.
    #[cold]
    fn take_unless_held(&self, me: Member, mut seen: u32) -> Option<Taken> {
        while !is_held(seen) {
            match self.word.compare_exchange(seen, me.bits(), Acquire, Relaxed) {
                Ok(FREE) => return Some(Taken::Free),
                Ok(_) => return Some(Taken::FromDead),
                Err(now) => seen = now,
            }
        }
        None
    }
}

/// Whether a living process holds a lock with this word. A word that names no member was not written by these rules.
fn is_held(word: u32) -> bool {
    Member::of_bits(word).is_some_and(members::lives)
}
