//! A task that panics costs its own call and nothing else, wherever in the call it panics.
//!
//! Runs in: the test process; the tasks in children. The matrix of places and ways to fail follows the one that loky's
//! test suite (BSD 3-clause) has for its executor. Never: lets a panic out of a child unnoticed.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

use crate::support::restore;
use nix::sys::signal::{Signal, raise};
use process_task::{Direction, Error, ErrorKind, Execution, Process, ProcessBuilder, StartMethod, Stdio, process_task};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

under_every_start_method! {
    a_panic_is_reported_with_its_text_and_its_place,
    a_payload_that_is_no_string_is_said_to_be_of_unknown_type,
    a_payload_whose_destructor_panics_does_no_harm,
    a_backtrace_is_there_if_the_environment_asks_for_one,
    a_task_may_replace_the_panic_hook,
    a_panic_on_another_thread_is_that_threads,
    a_panic_that_the_task_catches_is_not_reported,
    a_long_panic_text_arrives_whole,
    every_place_fails_in_every_way_with_its_own_error,
    a_panic_in_the_callers_own_serialiser_stays_with_the_caller,
}

fn builder(method: StartMethod) -> ProcessBuilder {
    let mut builder = ProcessBuilder::new();
    builder.start_method(method).stderr(Stdio::null()).env("RUST_BACKTRACE", "0");
    builder
}

/// Message, location and backtrace of a panic; anything else fails the test.
fn panicked(error: &Error) -> (String, Option<String>, Option<String>) {
    assert_eq!(error.execution(), Execution::Finished);
    match error.kind() {
        ErrorKind::Panicked { message, location, backtrace, .. } => {
            (message.clone(), location.clone(), backtrace.clone())
        }
        _ => panic!("{error}"),
    }
}

/// Panics as `how` says.
#[process_task]
fn panic_with(how: &str) -> u8 {
    match how {
        "text" => panic!("a plain text"),
        "String" => panic!("{how} with {} parts", 2),
        "empty" => panic!(""),
        "index" => [1_u8, 2][how.len()],
        "unwrap" => how.find('x').map(|_| 0).unwrap(),
        "i32" => panic_any(7_i32),
        "struct" => panic_any(NotText { _why: 3 }),
        "box" => panic_any(Box::new("text in a box")),
        "drop panics" => panic_any(PanicsWhenDropped),
        "resumed" => std::panic::resume_unwind(Box::new("resumed")),
        other => other.parse().unwrap(),
    }
}

struct NotText {
    _why: u8,
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic_any(PanicsWhenDropped);
    }
}

fn a_panic_is_reported_with_its_text_and_its_place(method: StartMethod) {
    let texts = [
        ("text", "a plain text"),
        ("String", "String with 2 parts"),
        ("empty", ""),
        ("index", "index out of bounds: the len is 2 but the index is 5"),
        ("unwrap", "called `Option::unwrap()` on a `None` value"),
    ];
    for (how, text) in texts {
        let process = builder(method).name("panicker").spawn(panic_with, how).unwrap();
        let id = process.pid().unwrap();
        let error = process.join().unwrap_err();
        let (message, location, backtrace) = panicked(&error);
        assert_eq!(message, text);
        assert_eq!(backtrace, None);
        let location = location.unwrap();
        let line = location.strip_prefix("tests/process/panics.rs:").unwrap().split_once(':').unwrap().0;
        let source = include_str!("panics.rs").lines().nth(line.parse::<usize>().unwrap() - 1).unwrap();
        assert!(source.contains(&format!("\"{how}\" =>")), "{location} is {source}");
        assert_eq!(
            error.to_string(),
            format!(
                "process `panicker` (pid {id}) panicked while running `process::panics::panic_with` at {location}: {text}"
            )
        );
    }
    // No panic, no report.
    assert_eq!(builder(method).spawn(panic_with, "17").unwrap().join().unwrap(), 17);
}

fn a_payload_that_is_no_string_is_said_to_be_of_unknown_type(method: StartMethod) {
    for how in ["i32", "struct", "box"] {
        let error = builder(method).spawn(panic_with, how).unwrap().join().unwrap_err();
        let (message, location, _) = panicked(&error);
        assert_eq!(message, "a payload of unknown type");
        assert!(location.unwrap().starts_with("tests/process/panics.rs:"));
    }
    // Thrown without calling any hook, so no place is known.
    let error = builder(method).spawn(panic_with, "resumed").unwrap().join().unwrap_err();
    assert_eq!(panicked(&error), ("resumed".to_owned(), None, None));
}

fn a_payload_whose_destructor_panics_does_no_harm(method: StartMethod) {
    let mut process = builder(method).spawn(panic_with, "drop panics").unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert_eq!(panicked(&process.join().unwrap_err()).0, "a payload of unknown type");
}

fn a_backtrace_is_there_if_the_environment_asks_for_one(method: StartMethod) {
    let error = builder(method).env("RUST_BACKTRACE", "1").spawn(panic_with, "text").unwrap().join().unwrap_err();
    let backtrace = panicked(&error).2.expect("a backtrace");
    assert!(backtrace.contains("panic_with"), "{backtrace}");
    assert!(format!("{error:?}").contains(&backtrace), "`main` prints it");
    assert!(!error.to_string().contains(&backtrace), "a sentence is a sentence");
}

#[process_task]
fn panic_with_a_hook_of_ones_own(inherit: bool) {
    if inherit {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| before(info)));
    } else {
        std::panic::set_hook(Box::new(|_| print!("the task's own hook")));
    }
    panic!("seen by it");
}

fn a_task_may_replace_the_panic_hook(method: StartMethod) {
    let error = builder(method).spawn(panic_with_a_hook_of_ones_own, true).unwrap().join().unwrap_err();
    let (message, location, _) = panicked(&error);
    assert_eq!(message, "seen by it");
    assert!(location.is_some());

    let mut process = builder(method).stdout(Stdio::piped()).spawn(panic_with_a_hook_of_ones_own, false).unwrap();
    let stdout = process.take_stdout().unwrap();
    let error = process.join().unwrap_err();
    assert_eq!(panicked(&error), ("seen by it".to_owned(), None, None));
    assert_eq!(std::io::read_to_string(stdout).unwrap(), "the task's own hook");
}

#[process_task]
fn panic_on_a_thread() -> String {
    let payload = std::thread::spawn(|| panic!("on a thread")).join().unwrap_err();
    (*payload.downcast_ref::<&str>().unwrap()).to_owned()
}

#[process_task]
fn let_a_scope_panic() {
    std::thread::scope(|scope| {
        scope.spawn(|| panic!("inside the scope"));
    });
}

fn a_panic_on_another_thread_is_that_threads(method: StartMethod) {
    assert_eq!(builder(method).spawn(panic_on_a_thread, ()).unwrap().join().unwrap(), "on a thread");
    let error = builder(method).spawn(let_a_scope_panic, ()).unwrap().join().unwrap_err();
    assert_eq!(panicked(&error).0, "a scoped thread panicked");
}

#[process_task]
fn catch_ones_own(then_fail: bool) -> bool {
    let caught = catch_unwind(|| panic!("caught")).is_err();
    if then_fail {
        std::panic::resume_unwind(Box::new(String::from("thrown")));
    }
    caught
}

fn a_panic_that_the_task_catches_is_not_reported(method: StartMethod) {
    assert!(builder(method).spawn(catch_ones_own, false).unwrap().join().unwrap());
    let error = builder(method).spawn(catch_ones_own, true).unwrap().join().unwrap_err();
    assert_eq!(panicked(&error), ("thrown".to_owned(), None, None), "the place of another panic is not this one's");
}

#[process_task]
fn panic_at_length(bytes: usize) {
    panic!("{}", "long ".repeat(bytes / 5));
}

fn a_long_panic_text_arrives_whole(method: StartMethod) {
    for bytes in [1_000, 1_000_000, 20_000_000] {
        let error = builder(method).spawn(panic_at_length, bytes).unwrap().join().unwrap_err();
        let message = panicked(&error).0;
        assert!(message.len() == bytes && message.ends_with("long "), "{} of {bytes}", message.len());
    }
}

/// A value that fails at one place of its way, in one way.
#[derive(Debug)]
struct Trap {
    place: Place,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Place {
    DecodeArguments,
    Run,
    DropArguments,
    EncodeResult,
    DropResult,
    EncodeArguments,
    DecodeResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Way {
    Refuse,
    Panic,
    Exit,
    Abort,
    Kill,
}

impl Trap {
    /// Fails, if this is the place, in a child or in the parent.
    fn spring(&self, place: Place) -> Result<(), &'static str> {
        let callers = matches!(place, Place::EncodeArguments | Place::DecodeResult);
        if self.place != place || process_task::parent().is_none() != callers {
            return Ok(());
        }
        match self.way {
            Way::Refuse => return Err("refused"),
            Way::Panic => panic!("sprung"),
            Way::Exit => std::process::exit(3),
            Way::Abort => std::process::abort(),
            Way::Kill => raise(Signal::SIGKILL).unwrap(),
        }
        Ok(())
    }
}

impl Serialize for Trap {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.spring(Place::EncodeArguments).map_err(serde::ser::Error::custom)?;
        self.spring(Place::EncodeResult).map_err(serde::ser::Error::custom)?;
        (self.place, self.way).serialize(to)
    }
}

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (place, way) = Deserialize::deserialize(from)?;
        let trap = Self { place, way };
        trap.spring(Place::DecodeArguments).map_err(serde::de::Error::custom)?;
        trap.spring(Place::DecodeResult).map_err(serde::de::Error::custom)?;
        Ok(trap)
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let place = if self.place == Place::DropResult { Place::DropResult } else { Place::DropArguments };
            let _ = self.spring(place);
        }
    }
}

#[process_task]
fn consume(trap: Trap) -> i32 {
    let _ = trap.spring(Place::Run);
    1
}

#[process_task]
fn lend(trap: &Trap) -> i32 {
    let _ = trap.spring(Place::Run);
    2
}

#[process_task]
fn give_back(trap: Trap) -> Trap {
    trap
}

fn every_place_fails_in_every_way_with_its_own_error(method: StartMethod) {
    let join = |place, way| -> Result<(), Error> {
        let trap = || Trap { place, way };
        match place {
            Place::EncodeResult | Place::DropResult => builder(method).spawn(give_back, trap())?.join().map(drop),
            Place::DropArguments => builder(method).spawn(lend, &trap())?.join().map(drop),
            _ => builder(method).spawn(consume, trap())?.join().map(drop),
        }
    };
    let places = [Place::DecodeArguments, Place::Run, Place::DropArguments, Place::EncodeResult, Place::DropResult];
    for place in places {
        for way in [Way::Panic, Way::Exit, Way::Abort, Way::Kill] {
            let error = join(place, way).expect_err("it failed");
            let fits = match (way, error.kind()) {
                (Way::Panic, ErrorKind::Panicked { message, .. }) => message == "sprung",
                (Way::Exit, ErrorKind::Exited { code, .. }) => *code == 3,
                (Way::Abort, ErrorKind::Killed { signal, .. }) => *signal == nix::libc::SIGABRT,
                (Way::Kill, ErrorKind::Killed { signal, .. }) => *signal == nix::libc::SIGKILL,
                _ => false,
            };
            let execution = if way == Way::Panic { Execution::Finished } else { Execution::Unknown };
            assert!(fits && error.execution() == execution, "{place:?} {way:?}: {error}, {:?}", error.execution());
        }
    }
    let error = join(Place::DecodeArguments, Way::Refuse).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotDecode { direction: Direction::Arguments, .. }), "{error}");
    let error = join(Place::EncodeResult, Way::Refuse).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotEncode { direction: Direction::Result, .. }), "{error}");
    // A destructor by value, inside the task, is the task's.
    let error = builder(method).spawn(consume, Trap { place: Place::DropArguments, way: Way::Panic });
    assert_eq!(panicked(&error.unwrap().join().unwrap_err()).0, "sprung");
}

fn a_panic_in_the_callers_own_serialiser_stays_with_the_caller(method: StartMethod) {
    let quiet = restore::quiet_panics();
    let encoding = catch_unwind(AssertUnwindSafe(|| {
        builder(method).spawn(consume, Trap { place: Place::EncodeArguments, way: Way::Panic })
    }));
    let process = builder(method).spawn(give_back, Trap { place: Place::DecodeResult, way: Way::Panic }).unwrap();
    let decoding = catch_unwind(AssertUnwindSafe(|| Process::join(process)));
    drop(quiet);
    assert!(encoding.is_err() && decoding.is_err(), "{encoding:?} {decoding:?}");
    assert_eq!(builder(method).spawn(panic_with, "17").unwrap().join().unwrap(), 17);
}
