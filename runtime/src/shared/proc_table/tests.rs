//! The rules of the table with time and record locks made up, and the table itself with real ones.
//!
//! Runs in: one process. Never: waits for time. What needs several processes stands in `tests/shared/members.rs`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::os::fd::AsFd as _;

use super::entry::{DEATH_GRACE, EntryWord, MAX_GENERATION, ProcEntry, ProcId, ProcState, SLOTS, TableView, is_alive};
use super::table::ProcTable;
use crate::sys::{Errno, memory, record_lock};

/// A table of a few entries, with a list for record locks.
struct Few {
    entries: Vec<ProcEntry>,
    locked: RefCell<BTreeSet<u32>>,
    /// Whether the test asked to write what it had found out.
    written: Cell<bool>,
}

impl Few {
    fn new() -> Self {
        Self {
            entries: (0..4).map(|_| ProcEntry::new()).collect(),
            locked: RefCell::default(),
            written: Cell::new(false),
        }
    }

    fn register(&self, slot: u32, parent: Option<ProcId>) -> ProcId {
        self.entry(slot).register(slot, ProcState::Alive, (parent, 0)).unwrap()
    }

    fn register_self(&self, slot: u32) -> ProcId {
        self.locked.borrow_mut().insert(slot);
        self.entry(slot).register(slot, ProcState::Locked, (None, slot)).unwrap()
    }

    fn state(&self, slot: u32) -> ProcState {
        self.entry(slot).load().state
    }
}

impl TableView for Few {
    fn entry(&self, slot: u32) -> &ProcEntry {
        &self.entries[slot as usize]
    }

    fn may_write(&self) -> bool {
        self.written.set(true);
        true
    }

    fn is_locked(&self, slot: u32) -> bool {
        self.locked.borrow().contains(&slot)
    }
}

const START: u64 = 5_000_000_000;
const SECOND: u64 = DEATH_GRACE.as_secs() * 1_000_000_000;

#[test]
fn packed_word_unpacks_to_itself() {
    let id = |bits| ProcId::from_bits(bits).unwrap();
    for state in
        [ProcState::Free, ProcState::Alive, ProcState::Locked, ProcState::Exiting, ProcState::Exited, ProcState::Killed]
    {
        for generation in [0, 1, MAX_GENERATION, (1 << 16) - 1] {
            for parent in [None, Some(id(1)), Some(ProcId::UNTABLED), Some(id(1 << 29))] {
                for maker in [0, 1, SLOTS - 1] {
                    let word = EntryWord { state, generation, parent, maker };
                    assert_eq!(EntryWord::unpacked(word.packed()), word);
                }
            }
        }
    }
    assert_eq!(EntryWord::unpacked(0).state, ProcState::Free, "memory of zeros is a table in which no process stands");
}

#[test]
fn entry_gives_65534_ids_before_one_comes_again() {
    let entry = ProcEntry::new();
    let mut seen = HashSet::new();
    for slot in [0, SLOTS - 1] {
        for life in 0..MAX_GENERATION {
            let id = entry.register(slot, ProcState::Alive, (None, 0)).unwrap();
            assert!(seen.insert(id), "life {life} of entry {slot}");
            assert!(id.bits() != 0 && id.bits() < 1 << 30 && id != ProcId::UNTABLED);
            assert_eq!((id.slot(), ProcId::from_bits(id.bits())), (slot, Some(id)));
            assert_eq!(entry.register(slot, ProcState::Alive, (None, 0)), None, "it is taken");
            entry.report_exit(id, false, START);
        }
    }
    let again = entry.register(SLOTS - 1, ProcState::Alive, (None, 0)).unwrap();
    assert!(seen.contains(&again), "ids begin again, and not with 0");
    assert_eq!((ProcId::from_bits(0), ProcId::from_bits(1 << 30)), (None, None));
}

#[test]
fn first_exit_report_counts() {
    for (first, state) in [(false, ProcState::Exited), (true, ProcState::Killed)] {
        let few = Few::new();
        let id = few.register(1, None);
        assert!(is_alive(&few, id, START));
        few.entry(1).report_exit(id, first, START);
        few.entry(1).report_exit(id, !first, START);
        assert_eq!(few.state(1), state);
        assert!(!is_alive(&few, id, START));
        assert_eq!(few.state(1), state, "asking is no word");
        assert!(!few.written.get(), "and needs no right to write");
    }
}

#[test]
fn late_report_about_an_earlier_process_changes_nothing() {
    let few = Few::new();
    let before = few.register(1, None);
    few.entry(1).report_exit(before, false, START);
    let now = few.register(1, None);
    few.entry(1).report_exit(before, true, START);
    assert!(!is_alive(&few, before, START) && is_alive(&few, now, START));
    assert_eq!(few.state(1), ProcState::Alive);
}

#[test]
fn child_counts_as_alive_one_second_after_its_parent() {
    let few = Few::new();
    let parent = few.register(1, None);
    let child = few.register(2, Some(parent));
    few.entry(1).report_exit(parent, true, START);
    assert!(is_alive(&few, child, START) && is_alive(&few, child, START + SECOND - 1));
    assert!(!is_alive(&few, child, START + SECOND));
    assert_eq!(few.state(2), ProcState::Killed, "whoever finds out says so");
    assert!(!is_alive(&few, child, START), "and that is for good");
}

#[test]
fn nearest_dead_ancestor_decides() {
    let few = Few::new();
    let oldest = few.register_self(0);
    let parent = few.register(1, Some(oldest));
    let child = few.register(2, Some(parent));
    assert!(is_alive(&few, child, START + 9 * SECOND));
    few.locked.borrow_mut().clear();
    assert!(is_alive(&few, child, START), "it has just been seen that the oldest is gone");
    assert_eq!(few.state(0), ProcState::Killed);
    assert!(is_alive(&few, child, START + SECOND - 1) && !is_alive(&few, child, START + SECOND));
    assert_eq!(
        (few.state(1), few.state(2)),
        (ProcState::Alive, ProcState::Killed),
        "no thread asked about the one between"
    );
    assert!(!is_alive(&few, parent, START + SECOND));
}

#[test]
fn reused_parent_entry_keeps_the_time_of_death() {
    let few = Few::new();
    let parent = few.register(1, None);
    let (one, other) = (few.register(2, Some(parent)), few.register(3, Some(parent)));
    few.entry(1).report_exit(parent, true, START);
    let next = few.register(1, None);
    assert!(is_alive(&few, one, START + SECOND - 1));
    assert!(!is_alive(&few, one, START + SECOND));
    few.entry(1).report_exit(next, true, START + SECOND - 2);
    assert!(
        !is_alive(&few, other, START + SECOND - 1),
        "used twice since: when it died is not known, but that is long ago"
    );
}

#[test]
fn child_lives_while_its_fork_server_can_report() {
    let few = Few::new();
    let parent = few.register_self(0);
    let server = few.entry(1).register(1, ProcState::Alive, (Some(parent), 0)).unwrap();
    few.locked.borrow_mut().insert(1);
    few.entry(1).set_locked(server);
    assert!(few.state(1) == ProcState::Locked && is_alive(&few, server, START));
    let child = few.entry(2).register(2, ProcState::Alive, (Some(parent), 1)).unwrap();
    few.entry(0).report_exit(parent, true, START);
    assert!(is_alive(&few, child, START + 100 * SECOND), "the fork server stands still");
    few.locked.borrow_mut().remove(&1);
    assert!(is_alive(&few, child, START + 100 * SECOND), "it has died, and the child will");
    assert_eq!(few.state(1), ProcState::Killed);
    assert!(is_alive(&few, child, START + 101 * SECOND - 1) && !is_alive(&few, child, START + 101 * SECOND));
}

#[test]
fn parent_reports_for_a_dead_fork_server() {
    let few = Few::new();
    let parent = few.register_self(0);
    let server = few.entry(1).register(1, ProcState::Alive, (Some(parent), 0)).unwrap();
    few.entry(1).set_locked(server);
    let child = few.entry(2).register(2, ProcState::Alive, (Some(parent), 1)).unwrap();
    few.entry(1).report_exit(server, true, START);
    assert!(is_alive(&few, child, START + 100 * SECOND));
    few.entry(0).report_exit(parent, true, START + 100 * SECOND);
    let next = few.register(1, None);
    assert!(is_alive(&few, child, START + 101 * SECOND - 1) && !is_alive(&few, child, START + 101 * SECOND));
    assert!(is_alive(&few, next, START), "what stands where the fork server stood is none of its business");
}

#[test]
fn locked_process_lives_as_long_as_its_lock() {
    let few = Few::new();
    let alone = few.register_self(1);
    assert!(is_alive(&few, alone, START));
    few.locked.borrow_mut().clear();
    assert!(!is_alive(&few, alone, START));
    assert!(few.state(1) == ProcState::Killed && few.written.get());
}

#[test]
fn exiting_process_lives_until_its_lock_is_gone() {
    let few = Few::new();
    let alone = few.register_self(1);
    few.entry(1).begin_exit(alone);
    assert!(is_alive(&few, alone, START) && few.state(1) == ProcState::Exiting);
    few.locked.borrow_mut().clear();
    assert!(!is_alive(&few, alone, START));
    assert_eq!(few.state(1), ProcState::Exited);
    few.entry(1).begin_exit(alone);
    assert_eq!(few.state(1), ProcState::Exited);
}

#[test]
fn clock_behind_the_time_of_death_kills_no_child() {
    let few = Few::new();
    let parent = few.register(1, None);
    let child = few.register(2, Some(parent));
    few.entry(1).report_exit(parent, true, START + 4_000_000);
    assert!(is_alive(&few, child, START), "another processor's clock may be a tick behind");
}

/// A process that always lives, and was made by no other.
fn root(table: &ProcTable) -> ProcId {
    table.entry(0).register(0, ProcState::Alive, (None, 0)).unwrap()
}

#[test]
fn full_table_refuses_until_an_exit() {
    let table = ProcTable::create().unwrap();
    let root = root(&table);
    let all: Vec<_> = (1..SLOTS).map(|_| table.register(root, root).unwrap()).collect();
    assert_eq!(all.iter().map(|id| id.slot()).collect::<BTreeSet<_>>().len(), all.len());
    assert_eq!(table.register(root, root), Err(Errno::EAGAIN));
    table.report_exit(all[7000], true);
    assert!(table.was_killed(all[7000]) && !table.was_killed(root));
    let new = table.register(root, root).unwrap();
    assert_eq!(new.slot(), all[7000].slot());
    assert!(!table.is_alive(all[7000]) && !table.was_killed(all[7000]), "how it was is forgotten");
    assert_eq!(table.register(root, root), Err(Errno::EAGAIN));
}

#[test]
fn concurrent_registrations_never_share_an_entry() {
    let table = ProcTable::create().unwrap();
    let root = root(&table);
    // Few enough that the entries are used again and again.
    let kept: Vec<_> = (0..SLOTS - 20).map(|_| table.register(root, root).unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let id = table.register(root, root).unwrap();
                    std::thread::yield_now();
                    assert!(table.entry(id.slot()).load().is_of(id), "taken by another");
                    table.report_exit(id, false);
                }
            });
        }
    });
    assert!(kept.iter().all(|id| table.entry(id.slot()).load().is_of(*id)));
}

#[test]
fn children_of_finds_living_children() {
    let table = ProcTable::create().unwrap();
    let root = root(&table);
    let server = table.register(root, root).unwrap();
    let (one, other) = (table.register(root, server).unwrap(), table.register(root, server).unwrap());
    assert_eq!(table.children_of(server), [one, other]);
    assert_eq!(table.children_of(root), [server]);
    table.report_exit(one, true);
    assert_eq!(table.children_of(server), [other]);
}

#[test]
fn other_memory_is_refused_as_table() {
    let small = memory::create("test", 4096).unwrap();
    assert_eq!(ProcTable::of(small).unwrap_err(), Errno::EINVAL);
    let table = ProcTable::create().unwrap();
    let len = memory::checked_len(table.descriptor().unwrap()).unwrap();
    let zeros = memory::create("test", len).unwrap();
    assert_eq!(ProcTable::of(zeros).unwrap_err(), Errno::EINVAL);
}

#[test]
fn this_process_is_registered_once() {
    let own = super::current();
    assert_eq!(super::prepare(), Ok(()));
    assert!(own == super::current() && super::is_current(own) && super::is_alive(own) && !super::was_killed(own));
    let child = super::register(own).unwrap();
    assert!(child != own && !super::is_current(child) && super::is_alive(child));
    super::report_exit(child, true);
    assert!(!super::is_alive(child) && super::was_killed(child));
    super::report_exit(super::register(own).unwrap(), false);
    let table = super::descriptor().unwrap();
    assert_eq!(
        record_lock::is_held_elsewhere(table.as_fd(), own.slot()),
        Ok(false),
        "of its own the kernel says nothing"
    );
}
