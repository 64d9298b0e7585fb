//! What the table says of one member, and what follows from it: pure rules over words.
//!
//! Owns: the layout of an entry, and which process may change which state into which. Runs in: any process.
//! Never: makes a system call, so that a model checker can run it; time and record locks come from outside.

use std::num::NonZeroU32;
use std::time::Duration;

use super::atomic::AtomicU64;
use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// How many bits say which entry of the table is a member's.
pub(super) const SLOT_BITS: u32 = 14;
/// How many entries there are, and so how many processes of one tree may live at once.
pub(super) const SLOTS: u32 = 1 << SLOT_BITS;

/// Times an entry was used: in 16 bits, from 1 up, without the last, which is [`Member::UNTABLED`]'s.
pub(super) const LAST_GENERATION: u32 = (1 << 16) - 2;

/// A child outlives its maker by milliseconds at most; after this long it counts as dead without a word.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// More ancestors than any member can have: trees of processes are ten deep, with a copy made by `fork()` at each level.
const MOST_ANCESTORS: usize = 64;

/// One process of a tree, as shared memory names it: never 0, below 2^30, and not used again for 65,000 lives of its entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Member(NonZeroU32);

impl Member {
    /// A process that has no table, and shares no memory either: it lives as long as it can be asked about.
    pub(super) const UNTABLED: Self = Self(NonZeroU32::new((1 << 30) - 1).unwrap());

    /// The number that stands for it in a word of shared memory: below 2^30, and not 0.
    #[inline]
    pub(crate) const fn bits(self) -> u32 {
        self.0.get()
    }

    /// The member that a word names; `None` of 0, and of what is no member's number.
    #[inline]
    pub(crate) const fn of_bits(bits: u32) -> Option<Self> {
        match NonZeroU32::new(bits) {
            Some(bits) if bits.get() < 1 << 30 => Some(Self(bits)),
            _ => None,
        }
    }

    /// The member with this [`Member::number`].
    #[inline]
    pub(super) const fn numbered(number: NonZeroU32) -> Self {
        Self(number)
    }

    pub(super) const fn number(self) -> NonZeroU32 {
        self.0
    }

    pub(super) fn slot(self) -> u32 {
        self.bits() % SLOTS
    }

    fn generation(self) -> u32 {
        self.bits() >> SLOT_BITS
    }
}

/// What is known of an entry's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// The entry was never used.
    Free,
    /// Its maker has not said that it has ended.
    Alive,
    /// It lives as long as it has the record lock of its entry: it was not made by a process of ours, or it is a fork
    /// server.
    Alone,
    /// As [`State::Alone`], but it has begun to exit: once the lock is gone, it has not been killed.
    Leaving,
    /// It has returned or exited; one that a fork server has made, with 0.
    Ended,
    /// It has ended in another way, or in an unknown one.
    Killed,
}

/// An entry's word, taken apart: `state | generation << 3 | parent << 19 | maker's slot << 49`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word {
    pub(super) state: State,
    /// How often the entry was used.
    pub(super) generation: u32,
    /// The process that asked for it.
    pub(super) parent: Option<Member>,
    /// The entry of the process that made it, which for most is the fork server of `parent`.
    pub(super) maker: u32,
}

impl Word {
    pub(super) fn of(word: u64) -> Self {
        let bits = |from: u32, count: u32| u32::try_from(word >> from & ((1 << count) - 1)).unwrap_or_default();
        let state = match bits(0, 3) {
            1 => State::Alive,
            2 => State::Alone,
            3 => State::Ended,
            4 => State::Killed,
            5 => State::Leaving,
            _ => State::Free,
        };
        Self { state, generation: bits(3, 16), parent: Member::of_bits(bits(19, 30)), maker: bits(49, SLOT_BITS) }
    }

    pub(super) fn packed(self) -> u64 {
        let state = match self.state {
            State::Free => 0u64,
            State::Alive => 1,
            State::Alone => 2,
            State::Ended => 3,
            State::Killed => 4,
            State::Leaving => 5,
        };
        let parent = self.parent.map_or(0, Member::bits);
        state | u64::from(self.generation) << 3 | u64::from(parent) << 19 | u64::from(self.maker) << 49
    }

    /// Whether the entry is this member's, alive or dead, and has not been used again.
    pub(super) fn is_of(self, member: Member) -> bool {
        self.generation == member.generation()
    }

    /// Whether no process has said that this one has ended.
    pub(super) fn is_living(self) -> bool {
        matches!(self.state, State::Alive | State::Alone | State::Leaving)
    }

    /// The member of this entry, the entry being that of `slot`.
    pub(super) fn member(self, slot: u32) -> Option<Member> {
        Member::of_bits(self.generation << SLOT_BITS | slot)
    }
}

/// One entry. All zero: free.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Entry {
    word: AtomicU64,
    /// When the last process that stood here died, by the clock that all have in common. Written before the word that says
    /// so, and kept when the entry is used again.
    died: AtomicU64,
}

impl Entry {
    #[cfg(test)]
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(0), died: AtomicU64::new(0) }
    }

    pub(super) fn look(&self) -> Word {
        Word::of(self.word.load(Acquire))
    }

    fn dead_for(&self, now: u64) -> Duration {
        Duration::from_nanos(now.saturating_sub(self.died.load(Acquire)))
    }

    /// Uses the entry, which is that of `slot`, for a new member. `None` if it is in use.
    pub(super) fn enter(&self, slot: u32, state: State, (parent, maker): (Option<Member>, u32)) -> Option<Member> {
        let seen = self.look();
        if seen.is_living() {
            return None;
        }
        let generation = if seen.generation >= LAST_GENERATION { 1 } else { seen.generation + 1 };
        let new = Word { state, generation, parent, maker };
        let entered = self.word.compare_exchange(seen.packed(), new.packed(), AcqRel, Relaxed).is_ok();
        if entered { new.member(slot) } else { None }
    }

    /// Says that `member` has ended. A second word is ignored, and so is one about an earlier member of this entry.
    pub(super) fn end(&self, member: Member, killed: bool, now: u64) {
        let seen = self.look();
        if !seen.is_of(member) || !seen.is_living() {
            return;
        }
        self.died.store(now, Release);
        let left = !killed || seen.state == State::Leaving;
        let new = Word { state: if left { State::Ended } else { State::Killed }, ..seen };
        // If that fails, another has said it.
        let _ = self.word.compare_exchange(seen.packed(), new.packed(), AcqRel, Relaxed);
    }

    /// `member`, which calls this itself, has the record lock of its entry: any process that asks can see its end.
    pub(super) fn show(&self, member: Member) {
        self.turn(member, State::Alive, State::Alone);
    }

    /// `member`, which is alone and calls this itself, begins to exit. Its threads still run: it is not dead before its end.
    pub(super) fn leave(&self, member: Member) {
        self.turn(member, State::Alone, State::Leaving);
    }

    fn turn(&self, member: Member, from: State, into: State) {
        let seen = self.look();
        if seen.is_of(member) && seen.state == from {
            let new = Word { state: into, ..seen };
            let _ = self.word.compare_exchange(seen.packed(), new.packed(), AcqRel, Relaxed);
        }
    }
}

/// The table, and what can be asked beside it.
pub(super) trait Book {
    fn entry(&self, slot: u32) -> &Entry;

    /// Makes sure that this process can write what it has found out; false if it cannot.
    fn may_write(&self) -> bool;

    /// Whether a process has the record lock of this entry; true also where that cannot be told.
    fn is_locked(&self, slot: u32) -> bool;
}

/// Whether `member` lives. A process that finds out that it does not, and was not told by the table, says so there.
pub(super) fn lives(book: &impl Book, member: Member, now: u64) -> bool {
    let entry = book.entry(member.slot());
    let word = entry.look();
    let lives = word.is_of(member)
        && match word.state {
            State::Alive => may_yet_be_told(book, word, now) || !is_forgotten(book, word.parent, now),
            State::Alone | State::Leaving => book.is_locked(member.slot()),
            State::Free | State::Ended | State::Killed => false,
        };
    if !lives && word.is_of(member) && word.is_living() && book.may_write() {
        entry.end(member, true, now);
    }
    lives
}

/// Whether the fork server that has made a member lives, or has died so lately that the member may be about to.
fn may_yet_be_told(book: &impl Book, made: Word, now: u64) -> bool {
    let entry = book.entry(made.maker);
    let word = entry.look();
    // Another parent's: the entry has been used again, or what made it was its parent.
    if word.parent.is_none() || word.parent != made.parent {
        return false;
    }
    match word.state {
        State::Alone | State::Leaving if book.is_locked(made.maker) => true,
        State::Alone | State::Leaving => {
            // From now on there is a time since when it is dead.
            if let Some(maker) = word.member(made.maker).filter(|_| book.may_write()) {
                entry.end(maker, true, now);
            }
            true
        }
        State::Ended | State::Killed => entry.dead_for(now) < GRACE,
        State::Free | State::Alive => false,
    }
}

/// Whether one of the ancestors has been dead for so long that no process is left that would say that a member has ended.
fn is_forgotten(book: &impl Book, parent: Option<Member>, now: u64) -> bool {
    let mut next = parent;
    for _ in 0..MOST_ANCESTORS {
        let Some(ancestor) = next else { return false };
        let entry = book.entry(ancestor.slot());
        let word = entry.look();
        if !word.is_of(ancestor) {
            // Used again: by the one that stands there now, or by many since. It died when the entry says, or before that.
            let once = word.is_living() && word.generation == ancestor.generation() + 1;
            return !once || entry.dead_for(now) >= GRACE;
        }
        match word.state {
            State::Alive => next = word.parent,
            State::Alone | State::Leaving if book.is_locked(ancestor.slot()) => return false,
            State::Alone | State::Leaving => {
                // From now on there is a time since when it is dead.
                if book.may_write() {
                    entry.end(ancestor, true, now);
                }
                return false;
            }
            State::Free | State::Ended | State::Killed => {
                return entry.dead_for(now) >= GRACE;
            }
        }
    }
    false
}
