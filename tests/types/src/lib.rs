//! Sends values in every way that values travel, and compares what comes back.
//!
//! Owns: [`travels!`](crate::travels), which makes the tasks for some types, and the functions that use them.
//! Runs in: the test process; the tasks in workers. Never: compares what one process has made for itself.
//!
//! Each value goes as argument and result, alone, and in an `Option`, a vector, a tuple, a struct and an enum. The values of all
//! types of one test go together in a struct: by reference, to a process of its own, as items of `map`, through queues and
//! both ends of a pipe. Small values go first: an `Option` is `None`, a vector is empty, an enum has its variant without fields.
//! So the first value of a type never tells what later ones need.
//!
//! [`Shelf`] is an object of a dependency, for programs that use it in a manager.

use std::fmt::Debug;

use process_task::channel::{Connection, Message, Queue, QueueReceiver, QueueSender, pipe};
use process_task::{Direction, Error, ErrorKind, Pool, Result, StartMethod, process_object};
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
    /// Where it is left out, the rest goes by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<u16>,
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

/// A message that may have a value, both ways.
pub type End<T> = Connection<Option<T>, Option<T>>;

/// Keeps values in order.
#[derive(Debug, Default)]
pub struct Shelf {
    values: Vec<Kept<String>>,
}

#[process_object]
impl Shelf {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value at the end, and returns how many there are.
    pub fn put(&mut self, value: Kept<String>) -> usize {
        self.values.push(value);
        self.values.len()
    }

    /// The value at this place.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, at: usize) -> std::result::Result<Kept<String>, String> {
        self.values.get(at).cloned().ok_or_else(|| format!("nothing is at {at}"))
    }
}

/// What has a size.
pub trait Measured {
    /// How large it is.
    fn size(&self, unit: &str) -> String;
}

#[process_object]
impl Measured for Shelf {
    fn size(&self, unit: &str) -> String {
        format!("{} {unit}", self.values.len())
    }
}

/// A pool of one worker, so that what it has learnt from one value is there for the next.
///
/// # Panics
/// It cannot be built.
#[must_use]
pub fn pool(method: StartMethod) -> Pool {
    Pool::builder().workers(1).start_method(method).build().unwrap()
}

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
        struct Values {
            $($name: Vec<$T>,)+
        }
        #[derive(Clone, Debug, ::serde::Serialize, ::serde::Deserialize)]
        struct Row {
            $($name: $crate::Kept<$T>,)+
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
            items: ::process_task::channel::QueueReceiver<Row>,
            back: ::process_task::channel::QueueSender<Row>,
            end: $crate::End<Row>,
        ) {
            $crate::pass_on(&items, &back, &end);
        }
        let pool: &::process_task::Pool = $pool;
        let values = Values { $($name: Vec::from($values),)+ };
        $({
            #[::process_task::process_task]
            fn echo(value: $T) -> $T {
                value
            }
            $crate::check(stringify!($T), &values.$name, $crate::same!($T $(, $same)?), &|value| pool.call(echo, value));
        })+
        let same: $crate::Same<Row> = |one, other| {
            $($crate::same_kept(&one.$name, &other.$name, $crate::same!($T $(, $same)?)))&&+
        };
        $crate::check_rows(
            [$(values.$name.len()),+].into_iter().max().unwrap_or(0),
            &|step| Row { $($name: step.kept(&values.$name),)+ },
            same,
            &$crate::Ways {
                echo: &|row| pool.call(echo_row, row),
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
    /// Returns what it gets.
    pub echo: &'p dyn Fn(R) -> Result<R>,
    /// Returns a clone of what it is lent.
    pub lend: &'p dyn Fn(&R) -> Result<R>,
    /// Returns what it gets, from a process of its own.
    pub alone: &'p dyn Fn(R) -> Result<R>,
    /// Returns each item.
    pub map: &'p dyn Fn(Vec<R>) -> Result<Vec<R>>,
    /// [`pass_on`].
    pub relay: Relay<'p, R>,
}

/// Gets items and puts them into the other queue, then receives messages and sends them back, until the end of each. A
/// message that cannot be read ends it, and so the sender hears of it.
///
/// # Panics
/// A value could not be sent.
pub fn pass_on<T: Message>(items: &QueueReceiver<T>, back: &QueueSender<T>, end: &End<T>) {
    for item in items {
        back.send(item).map_err(|error| error.to_string()).expect("the item goes back");
    }
    while let Ok(message) = end.recv() {
        end.send(message).map_err(|error| error.to_string()).expect("the message goes back");
    }
}

/// Sends each of `values` of the type `name` to a task that returns what it gets.
///
/// # Panics
/// Another value came back, or none.
pub fn check<T: Clone + Debug>(name: &str, values: &[T], same: Same<T>, echo: &dyn Fn(T) -> Result<T>) {
    for value in values {
        let back = echo(value.clone()).unwrap_or_else(|error| refused(name, value, &error));
        assert!(same(&back, value), "{name}: {back:?} came back for {value:?}");
    }
}

/// Which values a row has, and where.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The number of a value of each type, or nothing for as little as there can be.
    value: Option<usize>,
    /// Whether it stands in the variant of an enum that has names.
    has_name: bool,
    /// What is left out where this is nothing.
    gone: Option<u16>,
}

impl Step {
    /// A part of a row.
    pub fn kept<T: Clone>(&self, values: &[T]) -> Kept<T> {
        let (list, choice, after) = (Vec::new(), Choice::Nothing, String::new());
        let nothing = Kept { before: 1, list, maybe: None, choice, gone: self.gone, after };
        let Some(value) = self.value.map(|at| values[at % values.len()].clone()) else {
            return nothing;
        };
        if self.has_name {
            return Kept { choice: Choice::Named { value, mark: 513 }, list: values.to_vec(), ..nothing };
        }
        let maybe = Some((value.clone(), '\u{10FFFF}'));
        Kept { maybe, choice: Choice::One(value), after: "größer".to_owned(), ..nothing }
    }
}

/// Sends rows of up to `count` values of each type in all ways. First all by position, then all by name.
///
/// # Panics
/// Another row came back, or none.
pub fn check_rows<R: Clone + Debug + Message>(
    count: usize,
    row: &dyn Fn(Step) -> R,
    same: Same<R>,
    ways: &Ways<'_, R>,
) {
    let back = |way: &str, row: &R, result: Result<R>| {
        let back = result.unwrap_or_else(|error| refused(way, row, &error));
        assert!(same(&back, row), "{way}: {back:?} came back for {row:?}");
    };
    for gone in [Some(7), None] {
        let nothing = std::iter::once((None, false));
        let values = (0..count).flat_map(|value| [(Some(value), false), (Some(value), true)]);
        let steps = nothing.chain(values).map(|(value, has_name)| Step { value, has_name, gone });
        let rows: Vec<R> = steps.map(row).collect();
        for row in &rows {
            back("by value", row, (ways.echo)(row.clone()));
        }
        for row in &rows[..2] {
            back("by reference", row, (ways.lend)(row));
            back("alone", row, (ways.alone)(row.clone()));
        }
        let mapped = (ways.map)(rows.clone()).unwrap_or_else(|error| refused("map", &rows, &error));
        assert!(same_lists(&mapped, &rows, same), "map: {mapped:?} came back for {rows:?}");
        through_channels(&rows, same, ways.relay);
    }
}

/// Makes the other side of two queues and a pipe.
pub type Relay<'p, R> = &'p dyn Fn(QueueReceiver<R>, QueueSender<R>, End<R>) -> Wait;

fn through_channels<R: Clone + Debug + Message>(rows: &[R], same: Same<R>, relay: Relay<'_, R>) {
    let (to, items) = Queue::unbounded().expect("a queue").split();
    let (results_to, results) = Queue::unbounded().expect("a queue").split();
    let (end, other) = pipe().expect("a pipe");
    let relayed = relay(items, results_to, other);
    for row in rows {
        to.send(row.clone()).unwrap_or_else(|error| panic!("put: {row:?}: {error}"));
        let item = results.recv().unwrap_or_else(|error| panic!("get: {row:?}: {error}"));
        assert!(same(&item, row), "a queue: {item:?} came back for {row:?}");
    }
    drop(to);
    for message in std::iter::once(None).chain(rows.iter().map(Some)) {
        end.send(message.cloned()).unwrap_or_else(|error| panic!("send: {message:?}: {error}"));
        let back = end.recv().unwrap_or_else(|error| panic!("recv: {message:?}: {error}"));
        let is_same = match (&back, message) {
            (Some(back), Some(row)) => same(back, row),
            (back, row) => back.is_none() && row.is_none(),
        };
        assert!(is_same, "a pipe: {back:?} came back for {message:?}");
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

/// Whether all parts are the same.
pub fn same_kept<T>(one: &Kept<T>, other: &Kept<T>, same: Same<T>) -> bool {
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
    let same_others = (one.before, one.gone, &one.after) == (other.before, other.gone, &other.after);
    same_pairs && same_choices && same_others && same_lists(&one.list, &other.list, same)
}

/// Sends values of one type, each alone and with all of them in a vector, the first one with an empty vector; panics if another
/// value comes back.
#[macro_export]
macro_rules! arrives {
    ($pool:expr, $T:ty, $values:expr) => {{
        #[::process_task::process_task]
        fn echo(value: $T, list: Vec<$T>) -> (Vec<$T>, $T) {
            (list, value)
        }
        let (pool, all): (&::process_task::Pool, Vec<$T>) = ($pool, Vec::from($values));
        let lists = ::std::iter::once(Vec::new()).chain(::std::iter::repeat(all.clone()));
        for (value, list) in all.iter().chain(&all[..1]).zip(lists) {
            let (back_list, back) = pool.call(echo, (value.clone(), list.clone())).unwrap();
            assert_eq!((&back, &back_list), (value, &list));
        }
    }};
}

/// Sends a value that has to be refused where it is sent, and gives the reason.
#[macro_export]
macro_rules! refused {
    ($pool:expr, $T:ty, $value:expr) => {{
        #[::process_task::process_task]
        fn echo(value: $T) -> $T {
            value
        }
        let pool: &::process_task::Pool = $pool;
        let value: $T = $value;
        $crate::reason(pool.call(echo, value))
    }};
}

/// Why a value was refused where it was sent.
///
/// # Panics
/// It was not.
pub fn reason<T: Debug>(result: Result<T>) -> String {
    match result {
        Ok(value) => panic!("{value:?} came back"),
        Err(error) => match error.kind() {
            ErrorKind::CannotEncode { direction: Direction::Arguments, reason, .. } => reason.clone(),
            _ => panic!("it was not refused where it was sent: {error:?}"),
        },
    }
}
