//! One word that one process at a time holds, and that is free again when its holder has died.
//!
//! Owns: the protocol of that word. Runs in: any process.
//! Never: makes a system call itself; so that a model checker can run it, it sleeps and wakes through [`super::waiting`], and asks
//! [`members`] who lives.
//!
//! # The word
//!
//! | word                             | meaning                                  | who writes it next                            |
//! |----------------------------------|------------------------------------------|-----------------------------------------------|
//! | [`FREE`]                         | nobody holds the lock                    | anyone                                        |
//! | a member's id                    | held by that process; nobody sleeps      | the holder, or a waiter, who adds [`WAITERS`] |
//! | a member's id + [`WAITERS`]      | held; somebody may be asleep             | the holder                                    |
//! | either, and the member is dead   | the holder was killed, or ended          | anyone, who then repairs                      |
//!
//! The holder frees the word with one exchange, and wakes one sleeper if the word said that there may be some. A waiter adds
//! [`WAITERS`] before it sleeps, and the kernel looks at the word once more as it falls asleep. Whoever has slept takes the
//! lock with [`WAITERS`] set, because others may sleep still; a time-out leaves it set for the same reason.
//!
//! [`WAITERS`] may be set with nobody asleep: the holder then wakes nobody. It may be clear, or the word free, while somebody
//! sleeps: some process has just been woken and is about to set it again.
//!
//! # Deaths
//!
//! - *The holder's*: the word keeps its id. Whoever waits, or tries, asks whether that member lives before it sleeps, and
//!   after each sleep; the first that finds it dead exchanges the whole word, and is told so ([`Taken::FromDead`]).
//! - *The one's that repairs*: it is a holder like any other, so that the next one is told the same.
//! - *A waiter's*: costs nothing. Should it have been woken just before, the wake-up is lost with it: the others look
//!   again by themselves soon.
//!
//! # Copies of a process
//!
//! A copy made by `fork()` is another member. It cannot free what its original holds, whatever it inherited. A process that
//! enters the table of members while it holds a lock has two names, and frees what it took under either.
//!
//! # Orderings
//!
//! Taking is an `Acquire` of the `Release` with which the last holder freed the word. A dead holder releases nothing; its
//! end, as [`members::lives`] saw it, comes after all that it did.

use std::time::Instant;

use super::atomic::AtomicU32;
use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::members::{self, Member};
use super::waiting;

const FREE: u32 = 0;
const WAITERS: u32 = 1 << 31;

/// See the [module](self).
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Lock {
    word: AtomicU32,
}

/// In which state the lock was found by the one who holds it now.
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
        Self { word: AtomicU32::new(FREE) }
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
            Err(seen) => self.try_lock_from_dead(me, seen),
        }
    }

    /// Gives the lock back. Does nothing if this process does not hold it: a copy made by `fork()` drops a guard of its original.
    #[inline]
    pub(crate) fn unlock(&self) {
        let me = members::own();
        if self.word.compare_exchange(me.bits(), FREE, Release, Relaxed).is_err() {
            self.unlock_contended();
        }
    }

    /// The process that holds the lock, dead or alive.
    pub(crate) fn owner(&self) -> Option<Member> {
        holder(self.word.load(Relaxed))
    }

    /// Whether this process holds the lock, in whichever thread.
    pub(crate) fn is_held_by_own(&self) -> bool {
        self.owner().is_some_and(members::is_own)
    }

    #[cold]
    fn lock_contended(&self, me: Member, deadline: Option<Instant>) -> Option<Taken> {
        let mut seen = self.look();
        if seen == FREE {
            match self.word.compare_exchange(FREE, me.bits(), Acquire, Relaxed) {
                Ok(_) => return Some(Taken::Free),
                Err(now) => seen = now,
            }
        }
        loop {
            if seen == FREE || is_dead(seen) {
                match self.word.compare_exchange(seen, me.bits() | WAITERS, Acquire, Relaxed) {
                    Ok(FREE) => return Some(Taken::Free),
                    Ok(_) => return Some(Taken::FromDead),
                    Err(now) => seen = now,
                }
                continue;
            }
            if seen & WAITERS == 0
                && let Err(now) = self.word.compare_exchange(seen, seen | WAITERS, Relaxed, Relaxed)
            {
                seen = now;
                continue;
            }
            if !waiting::sleep(&self.word, seen | WAITERS, deadline) {
                return None;
            }
            seen = self.look();
        }
    }

    /// Looks shortly for the lock to become free; not where others sleep already, who come first.
    fn look(&self) -> u32 {
        let mut seen = FREE;
        waiting::look_shortly(|| {
            seen = self.word.load(Relaxed);
            seen == FREE || seen & WAITERS != 0
        });
        seen
    }

    #[cold]
    fn try_lock_from_dead(&self, me: Member, mut seen: u32) -> Option<Taken> {
        while seen == FREE || is_dead(seen) {
            match self.word.compare_exchange(seen, me.bits() | seen & WAITERS, Acquire, Relaxed) {
                Ok(FREE) => return Some(Taken::Free),
                Ok(_) => return Some(Taken::FromDead),
                Err(now) => seen = now,
            }
        }
        None
    }

    #[cold]
    fn unlock_contended(&self) {
        let mut seen = self.word.load(Relaxed);
        // While we hold the lock, all that others do to the word is to add `WAITERS`.
        while holder(seen).is_some_and(members::is_own) {
            match self.word.compare_exchange(seen, FREE, Release, Relaxed) {
                Ok(_) if seen & WAITERS == 0 => return,
                Ok(_) => return waiting::wake_one(&self.word),
                Err(now) => seen = now,
            }
        }
    }
}

fn holder(word: u32) -> Option<Member> {
    Member::of_bits(word & !WAITERS)
}

/// Whether the holder in a word that is not free has died. A word that names no member was written by nobody who lives by these rules.
fn is_dead(word: u32) -> bool {
    holder(word).is_none_or(|holder| !members::lives(holder))
}
