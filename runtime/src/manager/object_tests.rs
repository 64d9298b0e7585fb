//! What `process_object` registers, run on this thread: the stubs, and which objects they take and make.
//!
//! A task of the same signature encodes a method's arguments and decodes its result.

use std::io;
use std::sync::Arc;

use super::instance::Instance;
use super::scope::{with_constructor, with_object};
use crate::codec::{Encoded, Spill, Writer};
use crate::process_object;
use crate::process_task;
use crate::task::{Object, ObjectRefusal, Registration, RegistrationKind, StubError, Task, lookup_method};

struct Counter {
    value: i64,
    log: Vec<String>,
}

#[process_object(crate = crate)]
impl Counter {
    pub(crate) const START: i64 = 5;

    pub(crate) fn new() -> Self {
        Self { value: Self::START, log: Vec::new() }
    }

    pub(crate) fn starting_at(value: i64) -> Result<Self, String> {
        if value < 0 { Err(format!("{value} is negative")) } else { Ok(Self { value, log: Vec::new() }) }
    }

    pub(crate) fn add(&mut self, n: i64, why: &str) -> i64 {
        self.log.push(why.to_owned());
        self.value += n;
        self.value
    }

    pub(crate) fn get(&self) -> i64 {
        self.value
    }

    pub(crate) fn last(&self) -> Option<String> {
        self.log.last().cloned()
    }

    #[local]
    #[expect(dead_code, clippy::unused_self, reason = "that it is not looked at is what is tested")]
    pub(crate) fn local(self, _: &mut u8) -> &'static str {
        "here"
    }

    #[expect(dead_code, clippy::unused_async, reason = "that it is not looked at is what is tested")]
    async fn helper<T>(self: Arc<Self>, _: T) {}
}

trait Report {
    fn add(&self, n: i64, why: &str) -> i64;
}

#[process_object(crate = crate)]
impl Report for Other {
    fn add(&self, n: i64, why: &str) -> i64 {
        self.0 - n - i64::try_from(why.len()).unwrap_or(0)
    }
}

struct Other(i64);

#[process_object(crate = crate)]
impl Other {
    pub(crate) fn new() -> Other {
        Self(0)
    }
}

#[process_task]
fn like_nothing() {}

#[process_task]
fn like_starting_at(value: i64) -> Result<(), String> {
    Err(value.to_string())
}

#[process_task]
fn like_add(n: i64, why: &str) -> i64 {
    n + i64::try_from(why.len()).unwrap_or(0)
}

#[process_task]
fn like_get() -> i64 {
    0
}

#[process_task]
fn like_last() -> Option<String> {
    None
}

/// The registration of the method called `name`, in this module.
fn registered(name: &str) -> &'static Registration {
    let full = format!("{}::{name}", module_path!());
    let mut all = (0..u32::MAX).map_while(|index| crate::task::lookup(index).or_else(|| lookup_method(index)));
    all.find(|registration| registration.name() == full).unwrap_or_else(|| panic!("no {full}"))
}

/// Runs the stub of `method` with arguments as those of `alike`.
fn run<T: Task>(method: &str, _alike: T, args: T::Args<'_>) -> Result<T::Output, StubError> {
    let request = bytes(|writer| T::encode(args, writer)).expect("the arguments can be encoded");
    let reply = bytes(|writer| registered(method).run(&request, writer))?;
    T::decode_output(&reply).map_err(StubError::Decode)
}

fn bytes<E>(write: impl FnOnce(&mut Writer<'_>) -> Result<(), E>) -> Result<Vec<u8>, E> {
    let mut heap = Heap(Vec::new());
    let mut writer = Writer::new(Vec::new(), 64, &mut heap);
    write(&mut writer)?;
    Ok(match writer.finish().expect("there is memory") {
        Encoded::Small(bytes) => bytes,
        Encoded::Spilled(len) => heap.0[..len].to_vec(),
    })
}

/// A spill in ordinary memory.
struct Heap(Vec<u8>);

impl Spill for Heap {
    fn grow(&mut self, _written: usize, capacity: usize) -> io::Result<()> {
        self.0.resize(capacity, 0);
        Ok(())
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

fn counter() -> Arc<Instance> {
    let (outcome, made) = with_constructor(|| run("Counter::new", like_nothing, ()));
    outcome.unwrap();
    made.expect("the constructor made an object")
}

#[test]
fn methods_run_on_the_object_of_the_call() {
    let counter = counter();
    let add = |n, why| with_object(counter.admit(true), || run("Counter::add", like_add, (n, why)));
    assert_eq!(add(3, "three"), Ok(8));
    assert_eq!(add(-1, "less"), Ok(7));
    let shared = || counter.admit(false);
    assert_eq!(with_object(shared(), || run("Counter::get", like_get, ())), Ok(7));
    assert_eq!(with_object(shared(), || run("Counter::last", like_last, ())), Ok(Some("less".to_owned())));
}

#[test]
fn constructor_that_refuses_makes_nothing() {
    let make = |value| with_constructor(|| run("Counter::starting_at", like_starting_at, value));
    let (outcome, nothing) = make(-1);
    assert_eq!(outcome, Ok(Err("-1 is negative".to_owned())));
    assert!(nothing.is_none());
    let (outcome, object) = make(9);
    assert_eq!(outcome, Ok(Ok(())));
    let shared = object.unwrap().admit(false);
    assert_eq!(with_object(shared, || run("Counter::get", like_get, ())), Ok(9));
}

#[test]
fn methods_of_traits_run_by_the_name_of_the_type() {
    let other = Instance::new(Other(10));
    assert_eq!(with_object(other.admit(false), || run("Other::add", like_add, (3, "ab"))), Ok(5));
}

#[test]
fn method_without_its_object_is_refused() {
    let absent = Err(StubError::Object(ObjectRefusal::Absent));
    assert_eq!(run("Counter::get", like_get, ()), absent);
    let other = Instance::new(Other(1));
    assert_eq!(with_object(other.admit(false), || run("Counter::get", like_get, ())), absent);
    let counter = counter();
    let exclusive = with_object(counter.admit(false), || run("Counter::add", like_add, (1, "")));
    assert_eq!(exclusive, Ok(6), "the manager lets calls in by the registration, which says that it is exclusive");
}

#[test]
fn arguments_that_cannot_be_read_leave_the_object_alone() {
    let counter = counter();
    let outcome = with_object(counter.admit(true), || bytes(|writer| registered("Counter::add").run(&[1, 2], writer)));
    assert!(matches!(outcome, Err(StubError::Decode(_))));
    assert!(!counter.is_poisoned());
    assert_eq!(with_object(counter.admit(false), || run("Counter::get", like_get, ())), Ok(Counter::START));
}

#[test]
fn registrations_say_what_they_are_of() {
    let kind = |name| registered(name).kind();
    assert!(matches!(kind("Counter::new"), RegistrationKind::Constructor(of) if of() == Counter::object_type()));
    assert!(matches!(kind("Counter::starting_at"), RegistrationKind::Constructor(_)));
    assert!(matches!(kind("Counter::add"), RegistrationKind::Method { exclusive: true, .. }));
    assert!(
        matches!(kind("Counter::get"), RegistrationKind::Method { exclusive: false, of } if of() == Counter::object_type())
    );
    assert!(
        matches!(kind("Other::add"), RegistrationKind::Method { exclusive: false, of } if of() == Other::object_type())
    );
    assert_eq!(Counter::object_type().name(), concat!(module_path!(), "::Counter"));
    assert_ne!(Counter::object_type().index(), Other::object_type().index());
}
