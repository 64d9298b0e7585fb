//! A table of processes in shared memory, each with the number of what it holds.
//!
//! Owns: [`Holders`]. Runs in: any process.
//! Invariant: the thread that changes the table holds the lock of what the table belongs to.
//!
//! An entry is one word: a process's id, and its number. So every change of the table is one store. A process that is
//! killed at any point leaves the table as it was either before or after the change.
//!
//! Entries fill from the front. An entry that was used is never empty again, but it may go to another process when its
//! number says that it is spare. So a search ends at the first empty entry, and a table that few processes use at a time
//! stays short, however many come and go.

use super::MAX_HOLDERS;
use super::atomic::AtomicU64;
use super::atomic::Ordering::Relaxed;
use super::proc_table::ProcId;

/// See the [module](self).
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Holders {
    entries: [AtomicU64; MAX_HOLDERS],
}

fn word(member: ProcId, number: u32) -> u64 {
    u64::from(member.bits()) << 32 | u64::from(number)
}

#[expect(clippy::cast_possible_truncation, reason = "the word is cut into its two halves")]
fn parts(word: u64) -> Option<(ProcId, u32)> {
    Some((ProcId::from_bits((word >> 32) as u32)?, word as u32))
}

impl Holders {
    pub(crate) const fn new() -> Self {
        Self { entries: [const { AtomicU64::new(0) }; MAX_HOLDERS] }
    }

    fn entries(&self) -> impl Iterator<Item = (&AtomicU64, ProcId, u32)> {
        self.entries
            .iter()
            .map_while(|entry| parts(entry.load(Relaxed)).map(|(member, number)| (entry, member, number)))
    }

    /// Returns the number of this process, 0 if it has none.
    pub(crate) fn count_of(&self, member: ProcId) -> u32 {
        self.entries().find(|(_, of, _)| *of == member).map_or(0, |(_, _, number)| number)
    }

    /// Stores `number` for this process, in its own entry or in one that is spare. Returns false if there is no room.
    pub(crate) fn set(&self, member: ProcId, number: u32, is_spare: impl Fn(u32) -> bool) -> bool {
        let mut found = None;
        for entry in &self.entries {
            match parts(entry.load(Relaxed)) {
                Some((of, _)) if of == member => {
                    found = Some(entry);
                    break;
                }
                Some((_, number)) if found.is_none() && is_spare(number) => found = Some(entry),
                Some(_) => {}
                None => {
                    found = found.or(Some(entry));
                    break;
                }
            }
        }
        if let Some(entry) = found {
            entry.store(word(member, number), Relaxed);
        }
        found.is_some()
    }

    /// Adds one to what this process holds. Returns false if there is no room for it.
    pub(crate) fn add(&self, member: ProcId) -> bool {
        match self.count_of(member).checked_add(1) {
            Some(number) => self.set(member, number, |held| held == 0),
            None => false,
        }
    }

    /// Takes one from what this process holds. Returns false if it holds none.
    pub(crate) fn remove(&self, member: ProcId) -> bool {
        match self.count_of(member) {
            0 => false,
            number => self.set(member, number - 1, |_| false),
        }
    }

    /// Returns how many all processes hold together.
    pub(crate) fn total(&self) -> u32 {
        self.entries().fold(0, |sum, (_, _, number)| sum.saturating_add(number))
    }

    /// Takes all from processes that do not live, and returns how many that were.
    pub(crate) fn release_dead(&self, lives: impl Fn(ProcId) -> bool) -> u32 {
        let mut released: u32 = 0;
        for (entry, member, number) in self.entries() {
            if number != 0 && !lives(member) {
                entry.store(word(member, 0), Relaxed);
                released = released.saturating_add(number);
            }
        }
        released
    }

    /// Returns whether `is_so` holds for any process and its number.
    pub(crate) fn any(&self, mut is_so: impl FnMut(ProcId, u32) -> bool) -> bool {
        self.entries().any(|(_, member, number)| is_so(member, number))
    }
}
