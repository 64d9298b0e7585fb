//! Which process holds how many: a table of processes, each with a number, in shared memory.
//!
//! Owns: [`Holders`]. Runs in: any process.
//! Never: takes a lock, or asks which processes live. The thread that changes the table holds the lock of what the table
//! belongs to.
//!
//! An entry is one word: a member's id, and its number. So every change of the table is one store, and a process that is
//! killed at any point leaves a table that says either what was before or what is after.
//!
//! Entries fill from the front. One that was used is never empty again, but it may be given to another member when its
//! number says that it is spare; so a look ends at the first empty entry, and a table that few processes use at a time is
//! short, however many come and go.

use super::PROCESSES;
use super::atomic::AtomicU64;
use super::atomic::Ordering::Relaxed;
use super::members::Member;

/// See the [module](self).
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Holders {
    entries: [AtomicU64; PROCESSES],
}

fn word(member: Member, number: u32) -> u64 {
    u64::from(member.bits()) << 32 | u64::from(number)
}

#[expect(clippy::cast_possible_truncation, reason = "the word is cut into its two halves")]
fn parts(word: u64) -> Option<(Member, u32)> {
    Some((Member::of_bits((word >> 32) as u32)?, word as u32))
}

impl Holders {
    pub(crate) const fn new() -> Self {
        Self { entries: [const { AtomicU64::new(0) }; PROCESSES] }
    }

    fn entries(&self) -> impl Iterator<Item = (&AtomicU64, Member, u32)> {
        self.entries
            .iter()
            .map_while(|entry| parts(entry.load(Relaxed)).map(|(member, number)| (entry, member, number)))
    }

    /// The number of this member, 0 if it has none.
    pub(crate) fn of(&self, member: Member) -> u32 {
        self.entries().find(|(_, of, _)| *of == member).map_or(0, |(_, _, number)| number)
    }

    /// Gives this member that number, in place of the one it had, or of another member's that is spare. False: there is no
    /// room.
    pub(crate) fn set(&self, member: Member, number: u32, is_spare: impl Fn(u32) -> bool) -> bool {
        let mut place = None;
        for entry in &self.entries {
            match parts(entry.load(Relaxed)) {
                Some((of, _)) if of == member => {
                    place = Some(entry);
                    break;
                }
                Some((_, number)) if place.is_none() && is_spare(number) => place = Some(entry),
                Some(_) => {}
                None => {
                    place = place.or(Some(entry));
                    break;
                }
            }
        }
        if let Some(entry) = place {
            entry.store(word(member, number), Relaxed);
        }
        place.is_some()
    }

    /// This member holds one more. False: there is no room for it.
    pub(crate) fn add(&self, member: Member) -> bool {
        match self.of(member).checked_add(1) {
            Some(number) => self.set(member, number, |held| held == 0),
            None => false,
        }
    }

    /// This member holds one less. False: it holds none.
    pub(crate) fn take(&self, member: Member) -> bool {
        match self.of(member) {
            0 => false,
            number => self.set(member, number - 1, |_| false),
        }
    }

    /// How many are held by all together.
    pub(crate) fn total(&self) -> u32 {
        self.entries().fold(0, |sum, (_, _, number)| sum.saturating_add(number))
    }

    /// Takes from those that do not live what they hold, and says how many that were.
    pub(crate) fn take_from_dead(&self, lives: impl Fn(Member) -> bool) -> u32 {
        let mut taken: u32 = 0;
        for (entry, member, number) in self.entries() {
            if number != 0 && !lives(member) {
                entry.store(word(member, 0), Relaxed);
                taken = taken.saturating_add(number);
            }
        }
        taken
    }

    /// Whether this is so of any member and its number.
    pub(crate) fn any(&self, mut is_so: impl FnMut(Member, u32) -> bool) -> bool {
        self.entries().any(|(_, member, number)| is_so(member, number))
    }
}
