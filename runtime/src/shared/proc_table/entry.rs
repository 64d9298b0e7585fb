//! One entry of the process table, and what follows from it: pure rules over words.
//!
//! Owns: the layout of an entry, and which process may change which state into which. Runs in: any process.
//! Invariant: no system call is made here, so that a model checker can run it. Time and record locks come from outside.

use std::num::NonZeroU32;
use std::time::Duration;

use super::atomic::AtomicU64;
use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Number of bits of an id that say which entry of the table it is.
pub(super) const SLOT_BITS: u32 = 14;
/// Number of entries, and so of processes of one tree that may live at once.
pub(super) const SLOTS: u32 = 1 << SLOT_BITS;

/// How often an entry can be used before its generations start again: 16 bits, without 0 and without the last one, which
/// is [`ProcId::UNTABLED`]'s.
pub(super) const MAX_GENERATION: u32 = (1 << 16) - 2;

/// How long a child counts as alive after its maker's death without a report. It outlives its maker by milliseconds at
/// most.
pub(crate) const DEATH_GRACE: Duration = Duration::from_secs(1);

/// More ancestors than any process can have: trees of processes are ten deep, with a copy made by `fork()` at each level.
const MAX_ANCESTORS: usize = 64;

/// The id of one process of a tree in shared memory: never 0, below 2^30, and not used again for 65,000 lives of its entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct ProcId(NonZeroU32);

impl ProcId {
    /// The id of a process that has no table. It shares no memory either, so it lives as long as anything can ask.
    pub(super) const UNTABLED: Self = Self(NonZeroU32::new((1 << 30) - 1).unwrap());

    /// Returns the number that stands for it in a word of shared memory: below 2^30, and not 0.
    #[inline]
    pub(crate) const fn bits(self) -> u32 {
        self.0.get()
    }

    /// Returns the id in a word; `None` for 0, and for a number that is no id.
    #[inline]
    pub(crate) const fn from_bits(bits: u32) -> Option<Self> {
        match NonZeroU32::new(bits) {
            Some(bits) if bits.get() < 1 << 30 => Some(Self(bits)),
            _ => None,
        }
    }

    /// Returns the id with this [`ProcId::number`].
    #[inline]
    pub(super) const fn from_number(number: NonZeroU32) -> Self {
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

/// The state of an entry's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProcState {
    /// The entry was never used.
    Free,
    /// Its exit has not been reported by its maker.
    Alive,
    /// It lives as long as it holds the record lock of its entry. It is a fork server, or no process of this library made it.
    Locked,
    /// As [`ProcState::Locked`], but it has begun to exit. Once the lock is gone, it counts as exited, not as killed.
    Exiting,
    /// It has returned or exited; if a fork server made it, with 0.
    Exited,
    /// It has ended in another way, or in an unknown way.
    Killed,
}

/// An entry's word, unpacked: `state | generation << 3 | parent << 19 | maker's slot << 49`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EntryWord {
    pub(super) state: ProcState,
    /// How often the entry was used, up to [`MAX_GENERATION`].
    pub(super) generation: u32,
    /// The process that asked for it.
    pub(super) parent: Option<ProcId>,
    /// The entry of the process that made it, which for most is the fork server of `parent`.
    pub(super) maker: u32,
}

impl EntryWord {
    pub(super) fn unpacked(word: u64) -> Self {
        let bits = |from: u32, count: u32| u32::try_from(word >> from & ((1 << count) - 1)).unwrap_or_default();
        let state = match bits(0, 3) {
            1 => ProcState::Alive,
            2 => ProcState::Locked,
            3 => ProcState::Exited,
            4 => ProcState::Killed,
            5 => ProcState::Exiting,
            _ => ProcState::Free,
        };
        Self { state, generation: bits(3, 16), parent: ProcId::from_bits(bits(19, 30)), maker: bits(49, SLOT_BITS) }
    }

    pub(super) fn packed(self) -> u64 {
        let state = match self.state {
            ProcState::Free => 0u64,
            ProcState::Alive => 1,
            ProcState::Locked => 2,
            ProcState::Exited => 3,
            ProcState::Killed => 4,
            ProcState::Exiting => 5,
        };
        let parent = self.parent.map_or(0, ProcId::bits);
        state | u64::from(self.generation) << 3 | u64::from(parent) << 19 | u64::from(self.maker) << 49
    }

    /// Returns whether the entry is that of `id`, alive or dead, and has not been used again.
    pub(super) fn is_of(self, id: ProcId) -> bool {
        self.generation == id.generation()
    }

    /// Returns whether no exit has been reported.
    pub(super) fn is_living(self) -> bool {
        matches!(self.state, ProcState::Alive | ProcState::Locked | ProcState::Exiting)
    }

    /// Returns the id of this entry's process, the entry being that of `slot`.
    pub(super) fn id(self, slot: u32) -> Option<ProcId> {
        ProcId::from_bits(self.generation << SLOT_BITS | slot)
    }
}

/// One entry. All zero: free.
#[derive(Debug)]
#[repr(C)]
pub(super) struct ProcEntry {
    word: AtomicU64,
    /// When the last process of this entry died, by the clock that all processes have in common. Written before the word
    /// that reports the death, and kept when the entry is used again.
    died: AtomicU64,
}

impl ProcEntry {
    #[cfg(test)]
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(0), died: AtomicU64::new(0) }
    }

    pub(super) fn load(&self) -> EntryWord {
        EntryWord::unpacked(self.word.load(Acquire))
    }

    fn dead_for(&self, now: u64) -> Duration {
        Duration::from_nanos(now.saturating_sub(self.died.load(Acquire)))
    }

    /// Uses the entry, which is that of `slot`, for a new process. Returns `None` if it is in use.
    pub(super) fn register(
        &self,
        slot: u32,
        state: ProcState,
        (parent, maker): (Option<ProcId>, u32),
    ) -> Option<ProcId> {
        let seen = self.load();
        if seen.is_living() {
            return None;
        }
        let generation = if seen.generation >= MAX_GENERATION { 1 } else { seen.generation + 1 };
        let new = EntryWord { state, generation, parent, maker };
        let registered = self.word.compare_exchange(seen.packed(), new.packed(), AcqRel, Relaxed).is_ok();
        if registered { new.id(slot) } else { None }
    }

    /// Reports that process `id` has ended. A second report is ignored, and so is one about an earlier process of this entry.
    pub(super) fn report_exit(&self, id: ProcId, killed: bool, now: u64) {
        let seen = self.load();
        if !seen.is_of(id) || !seen.is_living() {
            return;
        }
        self.died.store(now, Release);
        let exited = !killed || seen.state == ProcState::Exiting;
        let new = EntryWord { state: if exited { ProcState::Exited } else { ProcState::Killed }, ..seen };
        // If that fails, another process has reported it.
        let _ = self.word.compare_exchange(seen.packed(), new.packed(), AcqRel, Relaxed);
    }

    /// Notes that process `id`, the caller, holds the record lock of its entry, so that any process can see its end.
    pub(super) fn set_locked(&self, id: ProcId) {
        self.transition(id, ProcState::Alive, ProcState::Locked);
    }

    /// Notes that process `id`, the caller, which is locked, begins to exit. Its threads still run, so it is not dead yet.
    pub(super) fn begin_exit(&self, id: ProcId) {
        self.transition(id, ProcState::Locked, ProcState::Exiting);
    }

    fn transition(&self, id: ProcId, from: ProcState, into: ProcState) {
        let seen = self.load();
        if seen.is_of(id) && seen.state == from {
            let new = EntryWord { state: into, ..seen };
            let _ = self.word.compare_exchange(seen.packed(), new.packed(), AcqRel, Relaxed);
        }
    }
}

/// A table, and what can be asked beside it.
pub(super) trait TableView {
    fn entry(&self, slot: u32) -> &ProcEntry;

    /// Makes sure that this process can write to the table. Returns false if it cannot.
    fn may_write(&self) -> bool;

    /// Returns whether a process holds the record lock of this entry; true also where that cannot be known.
    fn is_locked(&self, slot: u32) -> bool;
}

/// Returns whether process `id` lives. Reports its death in the table if this is where it is found out.
pub(super) fn is_alive(table: &impl TableView, id: ProcId, now: u64) -> bool {
    let entry = table.entry(id.slot());
    let word = entry.load();
    let is_alive = word.is_of(id)
        && match word.state {
            ProcState::Alive => server_may_report(table, word, now) || !has_no_reporter(table, word.parent, now),
            ProcState::Locked | ProcState::Exiting => table.is_locked(id.slot()),
            ProcState::Free | ProcState::Exited | ProcState::Killed => false,
        };
    if !is_alive && word.is_of(id) && word.is_living() && table.may_write() {
        entry.report_exit(id, true, now);
    }
    is_alive
}

/// Returns whether the fork server that made a process lives, or died so lately that the process may still run.
fn server_may_report(table: &impl TableView, made: EntryWord, now: u64) -> bool {
    let entry = table.entry(made.maker);
    let word = entry.load();
    // Another parent's: the entry has been used again, or the maker was the parent itself.
    if word.parent.is_none() || word.parent != made.parent {
        return false;
    }
    match word.state {
        ProcState::Locked | ProcState::Exiting if table.is_locked(made.maker) => true,
        ProcState::Locked | ProcState::Exiting => {
            // From now on the entry says since when it is dead.
            if let Some(maker) = word.id(made.maker).filter(|_| table.may_write()) {
                entry.report_exit(maker, true, now);
            }
            true
        }
        ProcState::Exited | ProcState::Killed => entry.dead_for(now) < DEATH_GRACE,
        ProcState::Free | ProcState::Alive => false,
    }
}

/// Returns whether an ancestor has been dead for so long that no process is left that would report the exit of a process.
fn has_no_reporter(table: &impl TableView, parent: Option<ProcId>, now: u64) -> bool {
    let mut next = parent;
    for _ in 0..MAX_ANCESTORS {
        let Some(ancestor) = next else { return false };
        let entry = table.entry(ancestor.slot());
        let word = entry.load();
        if !word.is_of(ancestor) {
            // Used again, by the process of the entry or by several since. The ancestor died when the entry says, or earlier.
            let once = word.is_living() && word.generation == ancestor.generation() + 1;
            return !once || entry.dead_for(now) >= DEATH_GRACE;
        }
        match word.state {
            ProcState::Alive => next = word.parent,
            ProcState::Locked | ProcState::Exiting if table.is_locked(ancestor.slot()) => return false,
            ProcState::Locked | ProcState::Exiting => {
                // From now on the entry says since when it is dead.
                if table.may_write() {
                    entry.report_exit(ancestor, true, now);
                }
                return false;
            }
            ProcState::Free | ProcState::Exited | ProcState::Killed => {
                return entry.dead_for(now) >= DEATH_GRACE;
            }
        }
    }
    false
}
