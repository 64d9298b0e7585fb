//! An entry of the table of members under every interleaving that the memory model allows.
//!
//! The file that holds the rules is compiled here a second time, with a model checker's atomics. A process that is killed in
//! the middle is a thread that stops there. Runs in: one process, without children.

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}
#[path = "../../src/shared/members/entry.rs"]
mod entry;

use crate::checker::explore;
use entry::{Book, Entry, Member, State, lives};
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;

/// A table of two entries; the first one's record lock is held, or not.
struct Table {
    entries: [Entry; 2],
    locked: AtomicBool,
}

const START: u64 = 7_000_000_000;
const HALF: u64 = 500_000_000;

impl Table {
    fn new() -> Arc<Self> {
        Arc::new(Self { entries: [Entry::new(), Entry::new()], locked: AtomicBool::new(false) })
    }

    fn enter(&self, slot: u32, parent: Option<Member>) -> Option<Member> {
        self.entry(slot).enter(slot, State::Alive, (parent, 0))
    }

    fn end(&self, member: Member, killed: bool) {
        self.entry(member.slot()).end(member, killed, START);
    }
}

impl Book for Table {
    fn entry(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }

    fn may_write(&self) -> bool {
        true
    }

    fn is_locked(&self, _: u32) -> bool {
        self.locked.load(Relaxed)
    }
}

#[test]
fn one_entry_is_given_to_one_process() {
    explore(2, || {
        let table = Table::new();
        let theirs = Arc::clone(&table);
        let other = thread::spawn(move || theirs.enter(0, None));
        let (one, other) = (table.enter(0, None), other.join().unwrap());
        assert!(one.is_some() != other.is_some(), "{one:?} and {other:?}");
    });
}

#[test]
fn words_about_the_dead_never_reach_the_one_who_comes_after() {
    explore(300, || {
        let table = Table::new();
        let before = table.enter(0, None).unwrap();
        // The fork server and the parent both know that it has ended, and a third one looks for an entry.
        let (parent, other) = (Arc::clone(&table), Arc::clone(&table));
        let parent = thread::spawn(move || parent.end(before, true));
        let other = thread::spawn(move || other.enter(0, None));
        table.end(before, false);
        parent.join().unwrap();
        let after = other.join().unwrap();
        assert!(!lives(&*table, before, START));
        if let Some(after) = after {
            assert!(lives(&*table, after, START) && table.entry(0).look().is_of(after));
        } else {
            assert!(!table.entry(0).look().is_living());
        }
    });
}

#[test]
fn whoever_sees_that_a_parent_is_dead_sees_when_it_died() {
    explore(2, || {
        let table = Table::new();
        let parent = table.enter(0, None).unwrap();
        let child = table.enter(1, Some(parent)).unwrap();
        let theirs = Arc::clone(&table);
        // Half a second after its parent's death it counts as alive, whether or not that is known by now.
        let looks = thread::spawn(move || lives(&*theirs, child, START + HALF));
        table.end(parent, true);
        assert!(looks.join().unwrap());
        assert!(!lives(&*table, child, START + 2 * HALF));
    });
}

#[test]
fn whoever_sees_a_lonely_process_dead_says_so_once() {
    explore(2, || {
        let table = Table::new();
        table.locked.store(true, Relaxed);
        let alone = table.entry(0).enter(0, State::Alone, (None, 0)).unwrap();
        let theirs = Arc::clone(&table);
        let dies_and_is_looked_at = thread::spawn(move || {
            theirs.locked.store(false, Relaxed);
            lives(&*theirs, alone, START)
        });
        let _ = lives(&*table, alone, START);
        assert!(!dies_and_is_looked_at.join().unwrap());
        let after = table.enter(0, None).unwrap();
        assert!(!lives(&*table, alone, START) && lives(&*table, after, START));
    });
}

// What the rules themselves do not need.
const _: fn() = || {
    let _: fn(&entry::Entry, Member) = entry::Entry::leave;
    Entry::new().show(Member::numbered(Member::UNTABLED.number()));
};
