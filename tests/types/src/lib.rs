//! Sends values in every way that values travel, and compares what comes back.
//!
//! Owns: [`travels!`](crate::travels), which makes the tasks for some types, and the functions that use them.
//! Runs in: the test process; the tasks in workers. Never: compares what one process has made for itself.
//!
//! Each value goes as argument and result, alone, and in an `Option`, a vector, a tuple, a struct and an enum. The values of all
//! types of one test go together in a struct: by reference, to a process of its own, as items of `map`, through queues and
//! both ends of a pipe. Small values go first: an `Option` is `None`, a vector is empty, an enum has its variant without fields.
//! So the first value of a type never tells what later ones need.

use std::fmt::Debug;

use process_task::channel::{Connection, Consumer, Message, Producer, Queue, pipe};
use process_task::{Error, Result};
use serde::{Deserialize, Serialize};

/// A type with serde's derive that has values between others, so that a byte too many or too few is seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept<T> {
    /// Comes before.
    pub before: u8,
    /// Any number of values.
    pub list: Vec<T>,
    /// A value or none.
    pub maybe: Option<(T, char)>,
    /// A value or none, in an enum.
    pub choice: Choice<T>,
    /// Comes after.
    pub after: String,
}

/// An enum with serde's derive whose first variant has no value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Choice<T> {
    /// Has none.
    Nothing,
    /// Has one.
    One(T),
    /// Has one that has a name, and a number beside it.
    Named {
        /// The value.
        value: T,
        /// Comes after.
        mark: u16,
    },
}

/// A value that may be missing, and others.
pub type Pair<T> = (Option<T>, Kept<T>);

/// A message that may have a value, both ways.
pub type End<T> = Connection<Option<T>, Option<T>>;

/// Waits for a task that is under way.
pub type Wait = Box<dyn FnOnce() -> Result<()>>;

/// Whether two values are the same.
pub type Same<T> = fn(&T, &T) -> bool;

/// Sends values of some types in every way, to the workers of a pool; panics with the value if another one comes back.
///
/// `travels! { pool; name: Type = [values]; … }` compares with `==`; `name: Type = [values], same;` with a function.
#[macro_export]
macro_rules! travels {
    ($pool:expr; $($name:ident: $T:ty = $values:expr $(, $same:expr)?;)+) => {{
        #[derive(Clone, Debug, ::serde::Serialize, ::serde::Deserialize)]
        struct Row {
            $($name: Vec<$T>,)+
        }
        #[::process_task::process_task]
        fn echo_row(row: Row) -> Row {
            row
        }
        #[::process_task::process_task]
        fn lend_row(row: &Row) -> Row {
            row.clone()
        }
        #[::process_task::process_task]
        fn relay(
            items: ::process_task::channel::Consumer<Row>,
            back: ::process_task::channel::Producer<Row>,
            end: $crate::End<Row>,
        ) {
            $crate::pass_on(&items, &back, &end);
        }
        let pool: &::process_task::Pool = $pool;
        let row = Row { $($name: Vec::from($values),)+ };
        $({
            #[::process_task::process_task]
            fn echo(value: $T) -> $T {
                value
            }
            #[::process_task::process_task]
            fn keep(maybe: Option<$T>, kept: $crate::Kept<$T>) -> $crate::Pair<$T> {
                (maybe, kept)
            }
            $crate::check(
                stringify!($T),
                &row.$name,
                $crate::same!($T $(, $same)?),
                &|value| pool.call(echo, value),
                &|maybe, kept| pool.call(keep, (maybe, kept)),
            );
        })+
        let same: $crate::Same<Row> = |one, other| {
            $($crate::same_lists(&one.$name, &other.$name, $crate::same!($T $(, $same)?)))&&+
        };
        let empty = Row { $($name: Vec::new(),)+ };
        $crate::check_row(
            &[empty, row],
            same,
            &$crate::Ways {
                lend: &|row| pool.call(lend_row, row),
                alone: &|row| echo_row.spawn(row).join(),
                map: &|rows| pool.map(echo_row, rows),
                relay: &|items, back, end| {
                    let handle = pool.submit(relay, (items, back, end));
                    Box::new(move || handle.join())
                },
            },
        );
    }};
}

/// The function that says whether two values of a type are the same: `==` if there is no other.
#[doc(hidden)]
#[macro_export]
macro_rules! same {
    ($T:ty) => {
        (|one: &$T, other: &$T| one == other) as $crate::Same<$T>
    };
    ($T:ty, $same:expr) => {
        $same as $crate::Same<$T>
    };
}

/// The tasks for all types of a test together.
#[expect(missing_debug_implementations, reason = "functions have nothing to show")]
#[derive(Clone, Copy)]
pub struct Ways<'p, R> {
    /// Returns a clone of what it is lent.
    pub lend: &'p dyn Fn(&R) -> Result<R>,
    /// Returns what it gets, from a process of its own.
    pub alone: &'p dyn Fn(R) -> Result<R>,
    /// Returns each item.
    pub map: &'p dyn Fn(Vec<R>) -> Result<Vec<R>>,
    /// [`pass_on`].
    pub relay: &'p dyn Fn(Consumer<R>, Producer<R>, End<R>) -> Wait,
}

/// Gets items and puts them into the other queue, then receives messages and sends them back, until the end of each. A
/// message that cannot be read ends it, and so the sender hears of it.
///
/// # Panics
/// A value could not be sent.
pub fn pass_on<T: Message>(items: &Consumer<T>, back: &Producer<T>, end: &End<T>) {
    for item in items {
        back.put(item).map_err(|error| error.to_string()).expect("the item goes back");
    }
    while let Ok(message) = end.recv() {
        end.send(message).map_err(|error| error.to_string()).expect("the message goes back");
    }
}

/// Sends each of `values` of the type `name` to two tasks that return what they get.
///
/// # Panics
/// Another value came back, or none.
pub fn check<T: Clone + Debug>(
    name: &str,
    values: &[T],
    same: Same<T>,
    echo: &dyn Fn(T) -> Result<T>,
    keep: &dyn Fn(Option<T>, Kept<T>) -> Result<Pair<T>>,
) {
    let check_kept = |maybe: Option<T>, kept: Kept<T>| {
        let (back, back_kept) = keep(maybe.clone(), kept.clone()).unwrap_or_else(|error| refused(name, &kept, &error));
        let is_same = same_options(back.as_ref(), maybe.as_ref(), same) && same_kept(&back_kept, &kept, same);
        assert!(is_same, "{name}: {back:?} and {back_kept:?} came back for {maybe:?} and {kept:?}");
    };
    let nothing = || Kept { before: 1, list: Vec::new(), maybe: None, choice: Choice::Nothing, after: String::new() };
    check_kept(None, nothing());
    for value in values {
        let back = echo(value.clone()).unwrap_or_else(|error| refused(name, value, &error));
        assert!(same(&back, value), "{name}: {back:?} came back for {value:?}");
        check_kept(Some(value.clone()), Kept { list: values.to_vec(), ..nothing() });
        let (maybe, after) = (Some((value.clone(), '\u{10FFFF}')), "größer".to_owned());
        check_kept(None, Kept { maybe, choice: Choice::One(value.clone()), after, ..nothing() });
        check_kept(None, Kept { choice: Choice::Named { value: value.clone(), mark: 513 }, ..nothing() });
    }
}

/// Sends rows in all ways that `check` leaves out.
///
/// # Panics
/// Another row came back, or none.
pub fn check_row<R: Clone + Debug + Message>(rows: &[R; 2], same: Same<R>, ways: &Ways<'_, R>) {
    let back = |way: &str, row: &R, result: Result<R>| {
        let back = result.unwrap_or_else(|error| refused(way, row, &error));
        assert!(same(&back, row), "{way}: {back:?} came back for {row:?}");
    };
    for row in rows {
        back("by reference", row, (ways.lend)(row));
        back("alone", row, (ways.alone)(row.clone()));
    }
    let mapped = (ways.map)(rows.to_vec()).unwrap_or_else(|error| refused("map", rows, &error));
    assert!(same_lists(&mapped, rows, same), "map: {mapped:?} came back for {rows:?}");

    let (to, items) = Queue::unbounded().expect("a queue").split();
    let (results_to, results) = Queue::unbounded().expect("a queue").split();
    let (end, other) = pipe().expect("a pipe");
    let relayed = (ways.relay)(items, results_to, other);
    for row in rows {
        to.put(row.clone()).unwrap_or_else(|error| panic!("put: {row:?}: {error}"));
        let item = results.get().unwrap_or_else(|error| panic!("get: {row:?}: {error}"));
        assert!(same(&item, row), "a queue: {item:?} came back for {row:?}");
    }
    drop(to);
    for message in [None, Some(&rows[0]), Some(&rows[1]), None] {
        end.send(message.cloned()).unwrap_or_else(|error| panic!("send: {message:?}: {error}"));
        let back = end.recv().unwrap_or_else(|error| panic!("recv: {message:?}: {error}"));
        assert!(same_options(back.as_ref(), message, same), "a pipe: {back:?} came back for {message:?}");
    }
    drop(end);
    relayed().unwrap_or_else(|error| panic!("queues and a pipe: {error}"));
}

#[cold]
fn refused<R>(name: &str, value: &dyn Debug, error: &Error) -> R {
    panic!("{name}: {value:?}: {error}")
}

/// Whether two lists are the same, item by item.
pub fn same_lists<T>(one: &[T], other: &[T], same: Same<T>) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
}

fn same_options<T>(one: Option<&T>, other: Option<&T>, same: Same<T>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => same(one, other),
        (None, None) => true,
        _ => false,
    }
}

fn same_kept<T>(one: &Kept<T>, other: &Kept<T>, same: Same<T>) -> bool {
    let same_pairs = match (&one.maybe, &other.maybe) {
        (Some((one, letter)), Some((other, other_letter))) => same(one, other) && letter == other_letter,
        (None, None) => true,
        _ => false,
    };
    let same_choices = match (&one.choice, &other.choice) {
        (Choice::Nothing, Choice::Nothing) => true,
        (Choice::One(one), Choice::One(other)) => same(one, other),
        (Choice::Named { value: one, mark }, Choice::Named { value: other, mark: other_mark }) => {
            same(one, other) && mark == other_mark
        }
        _ => false,
    };
    let same_others = (one.before, &one.after) == (other.before, &other.after);
    same_pairs && same_choices && same_others && same_lists(&one.list, &other.list, same)
}
