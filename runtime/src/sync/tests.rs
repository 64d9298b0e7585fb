//! The tables and rules of `sync` by themselves, without other processes.
//!
//! Runs in: the test process.

use super::PROCESSES;
use super::holders::Holders;
use super::members::Member;

fn member(number: usize) -> Member {
    Member::of_bits(u32::try_from(number).unwrap()).unwrap()
}

#[test]
fn everyones_number_is_its_own() {
    let holders = Holders::new();
    assert!((1..=3).all(|n| holders.add(member(n))) && holders.add(member(2)));
    assert_eq!([1, 2, 3, 4].map(|n| holders.of(member(n))), [1, 2, 1, 0]);
    assert!(holders.take(member(1)) && !holders.take(member(1)) && !holders.take(member(4)));
    assert_eq!(holders.total(), 3);
}

#[test]
fn what_the_dead_hold_is_taken_from_them_once() {
    let holders = Holders::new();
    for n in [1, 2, 2, 3, 3, 3] {
        assert!(holders.add(member(n)));
    }
    let lives = |of: Member| of != member(2);
    assert_eq!((holders.take_from_dead(lives), holders.take_from_dead(lives)), (2, 0));
    assert_eq!([1, 2, 3].map(|n| holders.of(member(n))), [1, 0, 3]);
}

#[test]
fn there_is_room_for_so_many_at_a_time_and_for_any_number_one_after_another() {
    let holders = Holders::new();
    for n in 1..=10 * PROCESSES {
        assert!(holders.add(member(n)) && holders.take(member(n)));
    }
    assert!((1..=PROCESSES).all(|n| holders.add(member(n))));
    assert!(!holders.add(member(PROCESSES + 1)) && holders.add(member(PROCESSES)));
    assert!(holders.take(member(7)) && holders.add(member(PROCESSES + 1)));
    assert_eq!(holders.total(), u32::try_from(PROCESSES + 1).unwrap());
}

#[test]
fn an_entry_that_is_used_again_does_not_leave_its_new_member_with_two() {
    let holders = Holders::new();
    assert!((1..=3).all(|n| holders.add(member(n))) && holders.take(member(1)));
    // The first entry is spare, but this one has an entry of its own further on.
    assert!(holders.add(member(3)) && holders.take(member(3)) && holders.take(member(3)));
    assert_eq!((holders.of(member(3)), holders.total()), (0, 1));
}

#[test]
fn a_number_that_is_still_wanted_is_not_written_over() {
    let holders = Holders::new();
    assert!((1..=PROCESSES).all(|n| holders.set(member(n), 7, |round| round < 7)));
    assert!(!holders.set(member(PROCESSES + 1), 8, |round| round < 7));
    assert!(holders.set(member(PROCESSES + 1), 9, |round| round < 8));
    assert!(holders.any(|of, round| of == member(PROCESSES + 1) && round == 9));
}
