//! What the registry promises: every task is in it, under a number that depends on nothing but the binary.

use super::registry::registry;
use super::{Entry, Object, ObjectType, Registration, Task, fingerprint, lookup, lookup_method, preloads};
use crate::process_task;

const ABOVE_ALPHA: u32 = line!();
#[process_task]
fn alpha() {}

#[process_task]
fn beta() {}

macro_rules! twins {
    () => {
        [
            {
                #[process_task]
                fn twin() -> u8 {
                    1
                }
                twin.registration()
            },
            {
                #[process_task]
                fn twin() -> u8 {
                    2
                }
                twin.registration()
            },
        ]
    };
}

#[crate::preload]
fn warm() {}

/// A type with one method.
struct Counter;

impl Object for Counter {
    fn object_type() -> &'static ObjectType {
        static COUNTER: ObjectType = ObjectType::new("Counter", file!(), line!());
        &COUNTER
    }
}

static METHOD: Registration =
    Registration::new("Counter::add", file!(), line!(), |_, _| Ok(())).method(Counter::object_type, true);

inventory::submit! { Entry(&METHOD) }

#[test]
fn every_task_has_a_number_that_leads_back_to_it() {
    for (index, &task) in (0..).zip(registry()) {
        assert_eq!(task.index(), Some(index));
        let found = if task.is_task() { lookup(index) } else { lookup_method(index) };
        assert!(std::ptr::eq(found.unwrap(), task));
    }
    assert!(lookup(u32::MAX).is_none());
    assert!(lookup(u32::try_from(registry().len()).unwrap()).is_none());
    assert!(alpha.registration().index() < beta.registration().index(), "sorted by name");
}

#[test]
fn tasks_that_share_name_and_place_have_numbers_of_their_own() {
    let [one, two] = twins!();
    assert_eq!((one.name(), one.location()), (two.name(), two.location()));
    assert_ne!(one.index(), two.index());
}

#[test]
fn a_name_and_a_place_are_those_of_the_source() {
    let registration = alpha.registration();
    assert_eq!(registration.name(), concat!(module_path!(), "::alpha"));
    assert_eq!(registration.location(), (file!(), ABOVE_ALPHA + 1));
    assert_eq!(format!("{registration:?}"), format!("{} ({}:{})", registration.name(), file!(), ABOVE_ALPHA + 1));
}

#[test]
fn the_fingerprint_does_not_change() {
    assert_eq!(fingerprint(), fingerprint());
}

#[test]
fn preload_functions_are_found() {
    assert!(preloads().any(|preload| std::ptr::fn_addr_eq(preload, warm as fn())));
}

#[test]
fn method_has_no_number_among_tasks() {
    let index = METHOD.index().unwrap();
    assert_eq!(METHOD.task_index(), None);
    assert!(lookup(index).is_none());
    assert!(std::ptr::eq(lookup_method(index).unwrap(), &raw const METHOD));
    assert!(lookup_method(alpha.registration().index().unwrap()).is_none());
    assert_eq!(alpha.registration().task_index(), alpha.registration().index());
    assert_eq!(alpha.registration().object_type(), None);
}

#[test]
fn object_type_has_a_number_if_it_has_a_method() {
    static UNUSED: ObjectType = ObjectType::new("Unused", file!(), line!());
    assert!(METHOD.object_type() == Some(Counter::object_type()));
    assert_eq!(Counter::object_type().index(), Counter::object_type().index());
    assert!(Counter::object_type().index().is_some());
    assert_eq!(UNUSED.index(), None);
}
