//! An entry of the process table under every interleaving that the memory model allows.
//!
//! The file that holds the rules is compiled here a second time, with a model checker's atomics. A process that is killed in
//! the middle is a thread that stops there. Runs in: one process, without children.

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}
#[path = "../../src/shared/proc_table/entry.rs"]
mod entry;

use crate::checker::explore;
use entry::{ProcEntry, ProcId, ProcState, TableView, is_alive};
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;

/// A table of two entries; the first one's record lock is held, or not.
struct ProcTable {
    entries: [ProcEntry; 2],
    locked: AtomicBool,
}

const START: u64 = 7_000_000_000;
const HALF: u64 = 500_000_000;

impl ProcTable {
    fn new() -> Arc<Self> {
        Arc::new(Self { entries: [ProcEntry::new(), ProcEntry::new()], locked: AtomicBool::new(false) })
    }

    fn register(&self, slot: u32, parent: Option<ProcId>) -> Option<ProcId> {
        self.entry(slot).register(slot, ProcState::Alive, (parent, 0))
    }

    fn report_exit(&self, id: ProcId, killed: bool) {
        self.entry(id.slot()).report_exit(id, killed, START);
    }
}

impl TableView for ProcTable {
    fn entry(&self, slot: u32) -> &ProcEntry {
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
fn free_entry_goes_to_one_process() {
    explore(2, || {
        let table = ProcTable::new();
        let theirs = Arc::clone(&table);
        let other = thread::spawn(move || theirs.register(0, None));
        let (one, other) = (table.register(0, None), other.join().unwrap());
        assert!(one.is_some() != other.is_some(), "{one:?} and {other:?}");
    });
}

#[test]
fn late_report_never_reaches_the_next_process() {
    explore(300, || {
        let table = ProcTable::new();
        let before = table.register(0, None).unwrap();
        // The fork server and the parent both know that it has ended, and a third one looks for an entry.
        let (parent, other) = (Arc::clone(&table), Arc::clone(&table));
        let parent = thread::spawn(move || parent.report_exit(before, true));
        let other = thread::spawn(move || other.register(0, None));
        table.report_exit(before, false);
        parent.join().unwrap();
        let after = other.join().unwrap();
        assert!(!is_alive(&*table, before, START));
        if let Some(after) = after {
            assert!(is_alive(&*table, after, START) && table.entry(0).load().is_of(after));
        } else {
            assert!(!table.entry(0).load().is_living());
        }
    });
}

#[test]
fn death_of_a_parent_is_seen_with_its_time() {
    explore(2, || {
        let table = ProcTable::new();
        let parent = table.register(0, None).unwrap();
        let child = table.register(1, Some(parent)).unwrap();
        let theirs = Arc::clone(&table);
        // Half a second after its parent's death it counts as alive, whether or not that is known by now.
        let looks = thread::spawn(move || is_alive(&*theirs, child, START + HALF));
        table.report_exit(parent, true);
        assert!(looks.join().unwrap());
        assert!(!is_alive(&*table, child, START + 2 * HALF));
    });
}

#[test]
fn death_of_a_locked_process_is_reported_once() {
    explore(2, || {
        let table = ProcTable::new();
        table.locked.store(true, Relaxed);
        let alone = table.entry(0).register(0, ProcState::Locked, (None, 0)).unwrap();
        let theirs = Arc::clone(&table);
        let dies_and_is_looked_at = thread::spawn(move || {
            theirs.locked.store(false, Relaxed);
            is_alive(&*theirs, alone, START)
        });
        let _ = is_alive(&*table, alone, START);
        assert!(!dies_and_is_looked_at.join().unwrap());
        let after = table.register(0, None).unwrap();
        assert!(!is_alive(&*table, alone, START) && is_alive(&*table, after, START));
    });
}

// What the rules themselves do not need.
const _: fn() = || {
    let _: fn(&entry::ProcEntry, ProcId) = entry::ProcEntry::begin_exit;
    ProcEntry::new().set_locked(ProcId::from_number(ProcId::UNTABLED.number()));
};
