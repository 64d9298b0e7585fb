//! The rules of the table with time and record locks made up, and the table itself with real ones.
//!
//! Runs in: one process. Never: waits for time. What needs several processes stands in `tests/shared/members.rs`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::os::fd::AsFd as _;

use super::entry::{Book, Entry, GRACE, LAST_GENERATION, Member, SLOTS, State, Word, lives};
use super::table::Table;
use crate::sys::{Errno, memory, record_lock};

/// A table of a few entries, with a list for record locks.
struct Few {
    entries: Vec<Entry>,
    locked: RefCell<BTreeSet<u32>>,
    /// Whether the test asked to write what it had found out.
    written: Cell<bool>,
}

impl Few {
    fn new() -> Self {
        Self { entries: (0..4).map(|_| Entry::new()).collect(), locked: RefCell::default(), written: Cell::new(false) }
    }

    fn enter(&self, slot: u32, parent: Option<Member>) -> Member {
        self.entry(slot).enter(slot, State::Alive, (parent, 0)).unwrap()
    }

    fn enter_alone(&self, slot: u32) -> Member {
        self.locked.borrow_mut().insert(slot);
        self.entry(slot).enter(slot, State::Alone, (None, slot)).unwrap()
    }

    fn state(&self, slot: u32) -> State {
        self.entry(slot).look().state
    }
}

impl Book for Few {
    fn entry(&self, slot: u32) -> &Entry {
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
const SECOND: u64 = GRACE.as_secs() * 1_000_000_000;

#[test]
fn a_word_is_what_was_packed() {
    let member = |bits| Member::of_bits(bits).unwrap();
    for state in [State::Free, State::Alive, State::Alone, State::Leaving, State::Ended, State::Killed] {
        for generation in [0, 1, LAST_GENERATION, (1 << 16) - 1] {
            for parent in [None, Some(member(1)), Some(Member::UNTABLED), Some(member(1 << 29))] {
                for maker in [0, 1, SLOTS - 1] {
                    let word = Word { state, generation, parent, maker };
                    assert_eq!(Word::of(word.packed()), word);
                }
            }
        }
    }
    assert_eq!(Word::of(0).state, State::Free, "memory of zeros is a table in which nobody stands");
}

#[test]
fn an_entry_names_a_new_member_each_time_until_65534_have_stood_there() {
    let entry = Entry::new();
    let mut seen = HashSet::new();
    for slot in [0, SLOTS - 1] {
        for life in 0..LAST_GENERATION {
            let member = entry.enter(slot, State::Alive, (None, 0)).unwrap();
            assert!(seen.insert(member), "life {life} of entry {slot}");
            assert!(member.bits() != 0 && member.bits() < 1 << 30 && member != Member::UNTABLED);
            assert_eq!((member.slot(), Member::of_bits(member.bits())), (slot, Some(member)));
            assert_eq!(entry.enter(slot, State::Alive, (None, 0)), None, "it is somebody's");
            entry.end(member, false, START);
        }
    }
    let again = entry.enter(SLOTS - 1, State::Alive, (None, 0)).unwrap();
    assert!(seen.contains(&again), "ids begin again, and not with 0");
    assert_eq!((Member::of_bits(0), Member::of_bits(1 << 30)), (None, None));
}

#[test]
fn the_first_word_about_an_end_counts() {
    for (first, state) in [(false, State::Ended), (true, State::Killed)] {
        let few = Few::new();
        let member = few.enter(1, None);
        assert!(lives(&few, member, START));
        few.entry(1).end(member, first, START);
        few.entry(1).end(member, !first, START);
        assert_eq!(few.state(1), state);
        assert!(!lives(&few, member, START));
        assert_eq!(few.state(1), state, "asking is no word");
        assert!(!few.written.get(), "and needs no right to write");
    }
}

#[test]
fn a_late_word_about_one_that_stood_there_before_changes_nothing() {
    let few = Few::new();
    let before = few.enter(1, None);
    few.entry(1).end(before, false, START);
    let now = few.enter(1, None);
    few.entry(1).end(before, true, START);
    assert!(!lives(&few, before, START) && lives(&few, now, START));
    assert_eq!(few.state(1), State::Alive);
}

#[test]
fn a_child_outlives_its_parent_by_a_second_and_no_more() {
    let few = Few::new();
    let parent = few.enter(1, None);
    let child = few.enter(2, Some(parent));
    few.entry(1).end(parent, true, START);
    assert!(lives(&few, child, START) && lives(&few, child, START + SECOND - 1));
    assert!(!lives(&few, child, START + SECOND));
    assert_eq!(few.state(2), State::Killed, "whoever finds out says so");
    assert!(!lives(&few, child, START), "and that is for good");
}

#[test]
fn the_first_dead_ancestor_decides() {
    let few = Few::new();
    let oldest = few.enter_alone(0);
    let parent = few.enter(1, Some(oldest));
    let child = few.enter(2, Some(parent));
    assert!(lives(&few, child, START + 9 * SECOND));
    few.locked.borrow_mut().clear();
    assert!(lives(&few, child, START), "it has just been seen that the oldest is gone");
    assert_eq!(few.state(0), State::Killed);
    assert!(lives(&few, child, START + SECOND - 1) && !lives(&few, child, START + SECOND));
    assert_eq!((few.state(1), few.state(2)), (State::Alive, State::Killed), "nobody asked about the one between");
    assert!(!lives(&few, parent, START + SECOND));
}

#[test]
fn a_child_outlives_a_parent_whose_entry_is_used_again() {
    let few = Few::new();
    let parent = few.enter(1, None);
    let (one, other) = (few.enter(2, Some(parent)), few.enter(3, Some(parent)));
    few.entry(1).end(parent, true, START);
    let next = few.enter(1, None);
    assert!(lives(&few, one, START + SECOND - 1));
    assert!(!lives(&few, one, START + SECOND));
    few.entry(1).end(next, true, START + SECOND - 2);
    assert!(
        !lives(&few, other, START + SECOND - 1),
        "used twice since: when it died is not known, but that is long ago"
    );
}

#[test]
fn a_child_is_not_given_up_while_the_fork_server_that_made_it_can_say_a_word() {
    let few = Few::new();
    let parent = few.enter_alone(0);
    let server = few.entry(1).enter(1, State::Alive, (Some(parent), 0)).unwrap();
    few.locked.borrow_mut().insert(1);
    few.entry(1).show(server);
    assert!(few.state(1) == State::Alone && lives(&few, server, START));
    let child = few.entry(2).enter(2, State::Alive, (Some(parent), 1)).unwrap();
    few.entry(0).end(parent, true, START);
    assert!(lives(&few, child, START + 100 * SECOND), "the fork server stands still");
    few.locked.borrow_mut().remove(&1);
    assert!(lives(&few, child, START + 100 * SECOND), "it has died, and the child will");
    assert_eq!(few.state(1), State::Killed);
    assert!(lives(&few, child, START + 101 * SECOND - 1) && !lives(&few, child, START + 101 * SECOND));
}

#[test]
fn a_child_whose_fork_server_is_dead_is_its_parents_to_tell_of() {
    let few = Few::new();
    let parent = few.enter_alone(0);
    let server = few.entry(1).enter(1, State::Alive, (Some(parent), 0)).unwrap();
    few.entry(1).show(server);
    let child = few.entry(2).enter(2, State::Alive, (Some(parent), 1)).unwrap();
    few.entry(1).end(server, true, START);
    assert!(lives(&few, child, START + 100 * SECOND));
    few.entry(0).end(parent, true, START + 100 * SECOND);
    let next = few.enter(1, None);
    assert!(lives(&few, child, START + 101 * SECOND - 1) && !lives(&few, child, START + 101 * SECOND));
    assert!(lives(&few, next, START), "what stands where the fork server stood is none of its business");
}

#[test]
fn one_that_is_alone_lives_as_long_as_its_lock() {
    let few = Few::new();
    let alone = few.enter_alone(1);
    assert!(lives(&few, alone, START));
    few.locked.borrow_mut().clear();
    assert!(!lives(&few, alone, START));
    assert!(few.state(1) == State::Killed && few.written.get());
}

#[test]
fn one_that_leaves_lives_until_its_lock_is_gone_and_was_not_killed() {
    let few = Few::new();
    let alone = few.enter_alone(1);
    few.entry(1).leave(alone);
    assert!(lives(&few, alone, START) && few.state(1) == State::Leaving);
    few.locked.borrow_mut().clear();
    assert!(!lives(&few, alone, START));
    assert_eq!(few.state(1), State::Ended);
    few.entry(1).leave(alone);
    assert_eq!(few.state(1), State::Ended);
}

#[test]
fn a_clock_that_stands_still_between_two_looks_kills_nobody() {
    let few = Few::new();
    let parent = few.enter(1, None);
    let child = few.enter(2, Some(parent));
    few.entry(1).end(parent, true, START + 4_000_000);
    assert!(lives(&few, child, START), "another processor's clock may be a tick behind");
}

/// A process that always lives, and was made by no other.
fn root(table: &Table) -> Member {
    table.entry(0).enter(0, State::Alive, (None, 0)).unwrap()
}

#[test]
fn a_full_table_refuses_until_somebody_has_ended() {
    let table = Table::create().unwrap();
    let root = root(&table);
    let all: Vec<_> = (1..SLOTS).map(|_| table.enter(root, root).unwrap()).collect();
    assert_eq!(all.iter().map(|member| member.slot()).collect::<BTreeSet<_>>().len(), all.len());
    assert_eq!(table.enter(root, root), Err(Errno::EAGAIN));
    table.end(all[7000], true);
    assert!(table.was_killed(all[7000]) && !table.was_killed(root));
    let new = table.enter(root, root).unwrap();
    assert_eq!(new.slot(), all[7000].slot());
    assert!(!table.lives(all[7000]) && !table.was_killed(all[7000]), "how it was is forgotten");
    assert_eq!(table.enter(root, root), Err(Errno::EAGAIN));
}

#[test]
fn threads_that_enter_and_end_at_once_never_share_an_entry() {
    let table = Table::create().unwrap();
    let root = root(&table);
    // Few enough that the entries are used again and again.
    let kept: Vec<_> = (0..SLOTS - 20).map(|_| table.enter(root, root).unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let member = table.enter(root, root).unwrap();
                    std::thread::yield_now();
                    assert!(table.entry(member.slot()).look().is_of(member), "taken by another");
                    table.end(member, false);
                }
            });
        }
    });
    assert!(kept.iter().all(|member| table.entry(member.slot()).look().is_of(*member)));
}

#[test]
fn what_a_maker_made_is_found() {
    let table = Table::create().unwrap();
    let root = root(&table);
    let server = table.enter(root, root).unwrap();
    let (one, other) = (table.enter(root, server).unwrap(), table.enter(root, server).unwrap());
    assert_eq!(table.made_by(server), [one, other]);
    assert_eq!(table.made_by(root), [server]);
    table.end(one, true);
    assert_eq!(table.made_by(server), [other]);
}

#[test]
fn other_memory_is_no_table() {
    let small = memory::create("test", 4096).unwrap();
    assert_eq!(Table::of(small).unwrap_err(), Errno::EINVAL);
    let table = Table::create().unwrap();
    let len = memory::checked_len(table.descriptor().unwrap()).unwrap();
    let zeros = memory::create("test", len).unwrap();
    assert_eq!(Table::of(zeros).unwrap_err(), Errno::EINVAL);
}

#[test]
fn this_process_is_entered_once_and_lives() {
    let own = super::own();
    assert_eq!(super::prepare(), Ok(()));
    assert!(own == super::own() && super::is_own(own) && super::lives(own) && !super::was_killed(own));
    let child = super::enter(own).unwrap();
    assert!(child != own && !super::is_own(child) && super::lives(child));
    super::end(child, true);
    assert!(!super::lives(child) && super::was_killed(child));
    super::end(super::enter(own).unwrap(), false);
    let table = super::descriptor().unwrap();
    assert_eq!(record_lock::is_anothers(table.as_fd(), own.slot()), Ok(false), "of its own the kernel says nothing");
}
