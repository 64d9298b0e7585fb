//! Tests of the tables of `sync`, without other processes.
//!
//! Runs in: the test process.

use super::MAX_HOLDERS;
use super::holders::Holders;
use super::proc_table::ProcId;

fn member(number: usize) -> ProcId {
    ProcId::from_bits(u32::try_from(number).unwrap()).unwrap()
}

#[test]
fn each_process_has_its_own_number() {
    let holders = Holders::new();
    assert!((1..=3).all(|n| holders.add(member(n))) && holders.add(member(2)));
    assert_eq!([1, 2, 3, 4].map(|n| holders.count_of(member(n))), [1, 2, 1, 0]);
    assert!(holders.remove(member(1)) && !holders.remove(member(1)) && !holders.remove(member(4)));
    assert_eq!(holders.total(), 3);
}

#[test]
fn release_dead_takes_each_number_once() {
    let holders = Holders::new();
    for n in [1, 2, 2, 3, 3, 3] {
        assert!(holders.add(member(n)));
    }
    let lives = |of: ProcId| of != member(2);
    assert_eq!((holders.release_dead(lives), holders.release_dead(lives)), (2, 0));
    assert_eq!([1, 2, 3].map(|n| holders.count_of(member(n))), [1, 0, 3]);
}

#[test]
fn entries_are_used_again_up_to_the_limit() {
    let holders = Holders::new();
    for n in 1..=10 * MAX_HOLDERS {
        assert!(holders.add(member(n)) && holders.remove(member(n)));
    }
    assert!((1..=MAX_HOLDERS).all(|n| holders.add(member(n))));
    assert!(!holders.add(member(MAX_HOLDERS + 1)) && holders.add(member(MAX_HOLDERS)));
    assert!(holders.remove(member(7)) && holders.add(member(MAX_HOLDERS + 1)));
    assert_eq!(holders.total(), u32::try_from(MAX_HOLDERS + 1).unwrap());
}

#[test]
fn process_with_an_entry_takes_no_spare_one() {
    let holders = Holders::new();
    assert!((1..=3).all(|n| holders.add(member(n))) && holders.remove(member(1)));
    // The first entry is spare, but this one has an entry of its own further on.
    assert!(holders.add(member(3)) && holders.remove(member(3)) && holders.remove(member(3)));
    assert_eq!((holders.count_of(member(3)), holders.total()), (0, 1));
}

#[test]
fn entry_that_is_not_spare_is_kept() {
    let holders = Holders::new();
    assert!((1..=MAX_HOLDERS).all(|n| holders.set(member(n), 7, |round| round < 7)));
    assert!(!holders.set(member(MAX_HOLDERS + 1), 8, |round| round < 7));
    assert!(holders.set(member(MAX_HOLDERS + 1), 9, |round| round < 8));
    assert!(holders.any(|of, round| of == member(MAX_HOLDERS + 1) && round == 9));
}
