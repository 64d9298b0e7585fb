//! Everything that can go wrong in a call, at every place where it can: exactly that call fails, and says why.
//!
//! Runs in: the test process; the tasks in workers, where most of what goes wrong does. Never: lets the test process crash.
//!
//! A [`Trouble`] travels as the argument and comes back as the result. It carries a place and a kind, and when its codec,
//! the task or a destructor comes to that place, the kind happens.
#![expect(unsafe_code, reason = "leaving by the C library's own exit")]

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::rounds;
use nix::libc;
use nix::sys::signal::{Signal, raise};
use process_task::{Direction, Error, ErrorKind, Execution, Pool, Result, StartMethod, parent, process_task};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

under_every_start_method! {
    every_trouble_at_every_place_fails_one_submitted_call,
    every_trouble_at_every_place_fails_one_item_of_a_map,
    a_map_fails_for_its_first_trouble_and_no_other,
    troubles_of_every_sort_at_once_fail_their_own_calls,
    every_trouble_is_told_to_a_callback_which_may_make_the_next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// In the caller, before anything is given out.
    EncodingTheArgument,
    DecodingTheArgument,
    Running,
    /// In the worker, when the task is done.
    DroppingTheArgument,
    EncodingTheResult,
    DroppingTheResult,
    /// In the caller, when it asks for the result.
    DecodingTheResult,
    Nowhere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Crash,
    Exit,
    /// Without exit handlers, and with the code that says success.
    ExitOfC,
    /// What serde calls an error, and the task an `Err`.
    Error,
    Panic,
}

const PLACES: [Place; 7] = {
    use Place::{
        DecodingTheArgument, DecodingTheResult, DroppingTheArgument, DroppingTheResult, EncodingTheArgument,
        EncodingTheResult, Running,
    };
    [
        EncodingTheArgument,
        DecodingTheArgument,
        Running,
        DroppingTheArgument,
        EncodingTheResult,
        DroppingTheResult,
        DecodingTheResult,
    ]
};
const KINDS: [Kind; 5] = [Kind::Crash, Kind::Exit, Kind::ExitOfC, Kind::Error, Kind::Panic];

impl Place {
    /// Whether it is code of the test process that is in trouble there.
    fn is_in_the_caller(self) -> bool {
        matches!(self, Self::EncodingTheArgument | Self::DecodingTheResult)
    }
}

impl Kind {
    fn happen(self) -> std::result::Result<(), &'static str> {
        match self {
            Self::Crash => {
                raise(Signal::SIGSEGV).expect("a signal that can be raised");
                thread::sleep(Duration::from_secs(40));
                Ok(())
            }
            Self::Exit => std::process::exit(3),
            Self::ExitOfC => exit_of_c(),
            Self::Error => Err("a planned error"),
            Self::Panic => panic!("a planned panic"),
        }
    }
}

fn exit_of_c() -> ! {
    // SAFETY: it ends this process, and touches no memory.
    unsafe { libc::_exit(0) }
}

/// What goes wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trouble {
    place: Place,
    kind: Kind,
    number: u64,
}

impl Trouble {
    fn at(self, place: Place) -> std::result::Result<(), &'static str> {
        if self.place == place { self.kind.happen() } else { Ok(()) }
    }

    fn is_possible(self) -> bool {
        let survivable = matches!(self.kind, Kind::Error | Kind::Panic);
        let dropped = matches!(self.place, Place::DroppingTheArgument | Place::DroppingTheResult);
        if self.place.is_in_the_caller() { survivable } else { !(dropped && self.kind == Kind::Error) }
    }
}

/// A trouble on its way to the task.
#[derive(Debug)]
struct Argument(Trouble);

/// A trouble on its way back.
#[derive(Debug, PartialEq, Eq)]
struct Outcome(Trouble);

fn encode<S: Serializer>(to: S, trouble: Trouble, place: Place) -> std::result::Result<S::Ok, S::Error> {
    trouble.at(place).map_err(serde::ser::Error::custom)?;
    (trouble.place, trouble.kind, trouble.number).serialize(to)
}

fn decode<'de, D: Deserializer<'de>>(from: D, at: Place) -> std::result::Result<Trouble, D::Error> {
    let (place, kind, number) = Deserialize::deserialize(from)?;
    let trouble = Trouble { place, kind, number };
    // A value is also read once where it is sent.
    if at.is_in_the_caller() != parent().is_some() {
        trouble.at(at).map_err(serde::de::Error::custom)?;
    }
    Ok(trouble)
}

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        encode(to, self.0, Place::EncodingTheArgument)
    }
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        decode(from, Place::DecodingTheArgument).map(Self)
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        encode(to, self.0, Place::EncodingTheResult)
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        decode(from, Place::DecodingTheResult).map(Self)
    }
}

impl Drop for Argument {
    fn drop(&mut self) {
        if parent().is_some() {
            let _ = self.0.at(Place::DroppingTheArgument);
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if parent().is_some() {
            let _ = self.0.at(Place::DroppingTheResult);
        }
    }
}

#[process_task]
fn meet(argument: Argument) -> std::result::Result<Outcome, String> {
    argument.0.at(Place::Running)?;
    Ok(Outcome(argument.0))
}

/// What a call with a trouble comes to, as far as the caller can see it.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Value(std::result::Result<Outcome, String>),
    Failed(What, Execution),
    /// The caller's own code panicked.
    Panicked,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Killed(i32),
    Exited(i32),
    Panicked,
    CannotEncode(Direction),
    CannotDecode(Direction),
    Other,
}

impl Seen {
    fn of(outcome: thread::Result<Result<std::result::Result<Outcome, String>>>) -> Self {
        match outcome {
            Err(_) => Self::Panicked,
            Ok(Ok(value)) => Self::Value(value),
            Ok(Err(error)) => Self::Failed(What::of(&error), error.execution()),
        }
    }
}

impl What {
    fn of(error: &Error) -> Self {
        let planned = |text: &str, kind: Self| if text.contains("a planned") { kind } else { Self::Other };
        match error.kind() {
            ErrorKind::Killed { signal, .. } => Self::Killed(*signal),
            ErrorKind::Exited { code, .. } => Self::Exited(*code),
            ErrorKind::Panicked { message, .. } => planned(message, Self::Panicked),
            ErrorKind::CannotEncode { direction, reason, .. } => planned(reason, Self::CannotEncode(*direction)),
            ErrorKind::CannotDecode { direction, reason, .. } => planned(reason, Self::CannotDecode(*direction)),
            _ => Self::Other,
        }
    }
}

/// The one thing that may come of this trouble.
fn expected(trouble: Trouble) -> Seen {
    use Direction::{Arguments, Result};
    use Execution::{Finished, NotStarted, Unknown};
    let failed = Seen::Failed;
    match (trouble.place, trouble.kind) {
        (Place::Nowhere, _) => Seen::Value(Ok(Outcome(trouble))),
        (Place::EncodingTheArgument, Kind::Error) => failed(What::CannotEncode(Arguments), NotStarted),
        (Place::DecodingTheArgument, Kind::Error) => failed(What::CannotDecode(Arguments), NotStarted),
        (Place::Running, Kind::Error) => Seen::Value(Err("a planned error".to_owned())),
        (Place::EncodingTheResult, Kind::Error) => failed(What::CannotEncode(Result), Finished),
        (Place::DecodingTheResult, Kind::Error) => failed(What::CannotDecode(Result), Finished),
        (place, Kind::Panic) if place.is_in_the_caller() => Seen::Panicked,
        (_, Kind::Panic) => failed(What::Panicked, Finished),
        (_, Kind::Crash) => failed(What::Killed(Signal::SIGSEGV as i32), Unknown),
        (_, Kind::Exit) => failed(What::Exited(3), Unknown),
        (_, Kind::ExitOfC) => failed(What::Exited(0), Unknown),
        (_, Kind::Error) => unreachable!("it is not possible"),
    }
}

/// Every cell of the table that makes sense.
fn troubles() -> Vec<Trouble> {
    let all = PLACES.into_iter().flat_map(|place| KINDS.map(|kind| Trouble { place, kind, number: 0 }));
    let possible: Vec<_> = all.filter(|trouble| trouble.is_possible()).collect();
    assert_eq!(possible.len(), 2 * 2 + 3 * 5 + 2 * 4);
    possible
}

fn harmless(number: u64) -> Trouble {
    Trouble { place: Place::Nowhere, kind: Kind::Panic, number }
}

fn pool(method: StartMethod) -> Pool {
    Pool::builder().workers(2).start_method(method).build().expect("a pool")
}

/// What a panic of our own would print is no news.
fn in_silence<T>(body: impl FnOnce() -> T) -> thread::Result<T> {
    panic::catch_unwind(AssertUnwindSafe(body))
}

fn submitted(pool: &Pool, trouble: Trouble) -> Seen {
    Seen::of(in_silence(|| pool.submit(meet, Argument(trouble)).join()))
}

fn every_trouble_at_every_place_fails_one_submitted_call(method: StartMethod) {
    let pool = pool(method);
    for trouble in troubles() {
        let submit = |number| (number, pool.submit(meet, Argument(harmless(number))));
        let mut others: Vec<_> = (0..6).map(submit).collect();
        let handle = in_silence(|| pool.submit(meet, Argument(trouble)));
        others.extend((6..20).map(submit));
        let seen = Seen::of(handle.and_then(|handle| in_silence(|| handle.join())));
        assert_eq!(seen, expected(trouble), "{trouble:?}");
        for (number, other) in others {
            assert_eq!(other.join(), Ok(Ok(Outcome(harmless(number)))), "beside {trouble:?}");
        }
        assert_eq!(submitted(&pool, harmless(99)), expected(harmless(99)), "after {trouble:?}");
    }
}

fn every_trouble_at_every_place_fails_one_item_of_a_map(method: StartMethod) {
    let pool = pool(method);
    for trouble in troubles() {
        let item = |number| if number == 7 { trouble } else { harmless(number) };
        let mut results = pool.imap(meet, (0..20).map(|number| Argument(item(number))));
        let mut next = || in_silence(|| results.next().expect("a result for each item"));
        if trouble.place == Place::EncodingTheArgument && trouble.kind == Kind::Panic {
            // The iterator reads ahead, so the panic comes out of whichever call of `next` reads the item.
            assert!((0..8).any(|_| next().is_err()));
        } else {
            for number in 0..20 {
                assert_eq!(Seen::of(next()), expected(item(number)), "item {number} beside {trouble:?}");
            }
        }
        drop(results);
        assert_eq!(submitted(&pool, harmless(99)), expected(harmless(99)), "after {trouble:?}");
    }
}

fn a_map_fails_for_its_first_trouble_and_no_other(method: StartMethod) {
    let pool = pool(method);
    for trouble in troubles() {
        if trouble.place == Place::Running && trouble.kind == Kind::Error {
            continue;
        }
        let item = |number| if number == 7 { trouble } else { harmless(number) };
        let mapped = in_silence(|| pool.map(meet, (0..100).map(|number| Argument(item(number)))));
        let mapped = mapped.map(|results| results.map(|_| Err("a map without an error".to_owned())));
        assert_eq!(Seen::of(mapped), expected(trouble), "{trouble:?}");
        let all = pool.map(meet, (0..30).map(|number| Argument(harmless(number))));
        assert_eq!(all, Ok((0..30).map(|number| Ok(Outcome(harmless(number)))).collect()), "after {trouble:?}");
    }
}

fn troubles_of_every_sort_at_once_fail_their_own_calls(method: StartMethod) {
    let pool = pool(method);
    let mixed = (0..rounds(1))
        .flat_map(|_| troubles())
        .zip(0..)
        .flat_map(|(trouble, number)| [Trouble { number, ..trouble }, harmless(1000 + number)]);
    let handles: Vec<_> = mixed.map(|item| (item, in_silence(|| pool.submit(meet, Argument(item))))).collect();
    for (item, handle) in handles {
        assert_eq!(Seen::of(handle.and_then(|handle| in_silence(|| handle.join()))), expected(item), "{item:?}");
    }
}

/// What the callback of a call is told, if there is a call.
fn called_back(pool: &Pool, trouble: Trouble) -> Option<Seen> {
    let (sender, told) = channel();
    let handle = in_silence(|| pool.submit(meet, Argument(trouble))).ok()?;
    handle.on_done(move |outcome| sender.send(Seen::of(Ok(outcome))).expect("the test waits"));
    told.recv().ok()
}

fn every_trouble_is_told_to_a_callback_which_may_make_the_next(method: StartMethod) {
    let pool = Arc::new(pool(method));
    for trouble in troubles() {
        let joined = expected(trouble);
        let told = called_back(&pool, trouble);
        let told_of = match (joined, trouble.place) {
            // Where joining would panic, a callback is told so in words of the library.
            (Seen::Panicked, Place::DecodingTheResult) => Some(Seen::Failed(What::Other, Execution::Finished)),
            (Seen::Panicked, _) => None,
            (seen, _) => Some(seen),
        };
        assert_eq!(told, told_of, "{trouble:?}");
        // All of it once more, submitted from a callback.
        let (sender, told) = channel();
        let theirs = Arc::clone(&pool);
        pool.submit(meet, Argument(harmless(1))).on_done(move |outcome| {
            assert_eq!(Seen::of(Ok(outcome)), expected(harmless(1)));
            sender.send(submitted(&theirs, trouble)).expect("the test waits");
        });
        assert_eq!(told.recv(), Ok(expected(trouble)), "{trouble:?} from a callback");
        assert_eq!(submitted(&pool, harmless(99)), expected(harmless(99)), "after {trouble:?}");
    }
}
