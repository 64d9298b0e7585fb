//! The macros of `process-task`: parse, check, expand.
//!
//! Owns: the grammar of the attributes and the code they write. Gives out: items that name nothing but
//! `process_task::__private`, and impls of its traits. Never: runs anywhere but in the compiler.
//!
//! An attribute passes three files, each blind to the next: `task` reads and refuses, `expand` writes, `diag`
//! reports.
//!
//! Depend on `process-task`, which re-exports these macros, and not on this crate.

mod attributes;
mod diag;
mod expand;
mod names;
mod object;
mod object_expand;
mod options;
mod place;
mod preload;
mod shareable;
mod signature;
mod stub;
mod task;

use proc_macro::TokenStream;

/// Makes a function a *process task*: still callable as before, and now also runnable in other processes.
///
/// ```
/// use process_task::process_task;
///
/// /// Multiplies a number by itself.
/// #[process_task]
/// pub fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// assert_eq!(square(3), 9);                                    // here
/// assert_eq!(square.spawn(10).join().unwrap(), 100);           // in a process of its own
/// assert_eq!([1, 2].map(*square), [1, 4]);                     // a task derefs to its function
/// ```
///
/// # Parameters and results
///
/// Up to twelve parameters, by value or by reference, of any types that have serde's two traits. Results must be owned.
/// Numbers, strings, and vectors, slices and arrays of numbers travel as one copy; `&str`, `&[f64]`, `&Path` and their
/// like are lent to the function straight from the memory they travelled in. Everything else goes through serde.
///
/// ```
/// # use process_task::process_task;
/// #[process_task]
/// fn count(text: &str, word: &str) -> usize {
///     text.split_whitespace().filter(|&w| w == word).count()
/// }
///
/// assert_eq!(count.spawn("to be or not to be", "be").join().unwrap(), 2);
/// ```
///
/// # Options
///
/// * `timeout = "2s"`: how long a call may take; units `ms`, `s`, `m`, `h`, fractions allowed. Then the process that runs
///   it is killed, with all that it started.
/// * `retries = 3`: how often a call is repeated after its process died, or was killed because of the time-out. In pools;
///   `spawn` refuses such a task.
/// * `crate = path`: where `process_task` is, if not at `::process_task`.
///
/// The first two can be set on the task too, for one call or for many, and so can a limit of memory in bytes. Each of these
/// methods returns a task:
///
/// ```
/// # use process_task::process_task;
/// use std::time::Duration;
/// use process_task::ErrorKind;
///
/// #[process_task(timeout = "1.5h", retries = 2)]
/// fn download(address: String) -> Vec<u8> {
///     if address.is_empty() { loop { std::thread::park() } }
///     address.into_bytes()
/// }
///
/// assert_eq!(download("here".to_owned()), b"here");            // here, no limits act
/// let quick = download.timeout(Duration::from_millis(100)).retries(0).memory_limit(4 << 30);
/// let error = quick.spawn(String::new()).join().unwrap_err();
/// assert!(matches!(error.kind(), ErrorKind::TimedOut { .. }));
/// ```
///
/// # What cannot be a task
///
/// Functions that are generic over types or constants, `async`, `unsafe`, `extern` or `const`, methods and associated functions,
/// `fn main`, and functions with a `where` clause, `impl Trait`, `&mut` parameters, `'static` references or borrowed results. Each
/// has its own message, which says what to do instead.
///
/// As with any constant, a task's name cannot be bound where it is in scope: after `#[process_task] fn count(…)`, a
/// `let count = …` is an error, and so is a parameter `count` of another function. A module for tasks avoids that:
/// `tasks::count.spawn(…)`.
///
/// The same holds for the variables of macros that are used there: with a task `error` in scope, `anyhow!` does not
/// compile, and with a task `kind` no `assert_eq!`. For the names of which this is known the attribute warns, through the
/// lint `deprecated`. Where no such macro is used, say so below the attribute:
///
/// ```
/// # use process_task::process_task;
/// mod tasks {
///     #[process_task::process_task]
///     #[expect(deprecated, reason = "no macro that binds `error` is used in this module")]
///     pub fn error(code: u32) -> String {
///         format!("error {code}")
///     }
/// }
///
/// assert_eq!(tasks::error.spawn(7).join().unwrap(), "error 7");
/// ```
#[proc_macro_attribute]
pub fn process_task(args: TokenStream, item: TokenStream) -> TokenStream {
    let item = item.into();
    match task::TaskFn::check(args.into(), &item) {
        Ok(task) if task.is_wrong_anyway => item,
        Ok(task) => expand::task(&task),
        Err(errors) => diag::keep_item(&item, &errors),
    }
    .into()
}

/// Makes a type a *process object*: its values can live in a manager, where this and other processes call their methods.
///
/// The attribute stands on the `impl` block with the type's methods, which stays as it is. Beside it, the attribute writes a
/// *proxy*, called as the type with `Proxy` behind it. The proxy has the same methods, each of which returns a `Result`.
///
/// ```
/// use process_task::{Manager, process_object};
///
/// #[derive(Default)]
/// pub struct Counter { value: i64 }
///
/// #[process_object]
/// impl Counter {
///     pub fn new(value: i64) -> Self { Self { value } }
///     pub fn add(&mut self, n: i64) -> i64 { self.value += n; self.value }
///     pub fn get(&self) -> i64 { self.value }
///     fn helper(&self) {}                                      // private: not called by others
/// }
///
/// let manager = Manager::start()?;                             // a process
/// let counter = CounterProxy::new(&manager, 3)?;               // an object in it
/// assert_eq!(counter.add(4)?, 7);
/// let later = counter.later().add(1);                          // does not wait
/// assert_eq!(later.join()?, 8);
/// assert_eq!(counter.clone().get()?, 8);                       // the same object
/// # process_task::Result::Ok(())
/// ```
///
/// A proxy can be cloned, sent to tasks and through channels, and kept in other objects. The object is dropped with its
/// last proxy.
///
/// # Methods
///
/// Functions with a visibility (`pub`, `pub(crate)`, …) become functions of the proxy, with the same one. The proxy has
/// the widest of them. `#[local]` leaves one out, and so does having no visibility.
///
/// * **Constructors** have no `self` and return `Self` or `Result<Self, E>`. Those of the proxy take the manager first. They
///   return `Result<CounterProxy>`, or a `Result<Result<CounterProxy, E>>`.
/// * **Methods with `&self`** run side by side.
/// * **Methods with `&mut self`** run alone. A panic in one *poisons* the object: calls of it fail until `clear_poison`. It may
///   be half changed.
///
/// Parameters and results are as those of tasks ([`process_task`](macro@process_task)): up to twelve, owned or borrowed,
/// of types that have serde's two traits. A method that returns a `Result<T, E>` gives a `Result<Result<T, E>>`: the outer one says whether
/// the call worked.
///
/// ```
/// # use process_task::{Manager, process_object};
/// pub struct Journal { lines: Vec<String> }
///
/// #[process_object]
/// impl Journal {
///     pub fn starting_with(line: &str) -> Result<Self, String> {
///         if line.is_empty() { return Err("the first line is empty".to_owned()) }
///         Ok(Self { lines: vec![line.to_owned()] })
///     }
///     pub fn line(&self, number: usize) -> Result<String, String> {
///         self.lines.get(number).cloned().ok_or_else(|| format!("there is no line {number}"))
///     }
///     #[local]
///     pub fn lines(self) -> Vec<String> { self.lines }
/// }
///
/// let manager = Manager::start()?;
/// assert!(JournalProxy::starting_with(&manager, "")?.is_err());
/// let journal = JournalProxy::starting_with(&manager, "one")?.unwrap();
/// assert_eq!(journal.line(0)?, Ok("one".to_owned()));
/// assert_eq!(journal.line(7)?, Err("there is no line 7".to_owned()));
/// # process_task::Result::Ok(())
/// ```
///
/// Every proxy also has `later`, `with_timeout`, `manager`, `is_poisoned` and `clear_poison`. No method can have one of
/// these names.
///
/// # Traits
///
/// On the `impl` block of a trait the attribute adds the trait's methods to the proxy, as `pub` functions. So the type's own
/// block has the attribute too: it makes the proxy. Where the two blocks are in different modules, the type is
/// named by its path, or the proxy and its `Later` are imported beside it.
///
/// ```
/// # use process_task::{Manager, process_object};
/// # use std::collections::BTreeMap;
/// trait Store {
///     fn put(&mut self, key: &str, value: u64);
///     fn get(&self, key: &str) -> Option<u64>;
/// }
///
/// struct Memory(BTreeMap<String, u64>);
///
/// #[process_object]
/// impl Memory {
///     pub fn new() -> Self { Self(BTreeMap::new()) }
/// }
///
/// #[process_object]
/// impl Store for Memory {
///     fn put(&mut self, key: &str, value: u64) { self.0.insert(key.to_owned(), value); }
///     fn get(&self, key: &str) -> Option<u64> { self.0.get(key).copied() }
/// }
///
/// let manager = Manager::start()?;
/// let memory = MemoryProxy::new(&manager)?;
/// memory.put("one", 1)?;
/// assert_eq!(memory.get("one")?, Some(1));
/// # process_task::Result::Ok(())
/// ```
///
/// # Options
///
/// * `crate = path`: where `process_task` is, if not at `::process_task`.
///
/// # What cannot be a method
///
/// Functions that are generic, `async`, `unsafe` or `extern`, that take `self` by value or in a box, or that have a `where`
/// clause, `impl Trait`, `&mut` parameters, `'static` references or borrowed results. The block cannot be generic: an object's
/// type is one type. Each has its own message, which says what to do instead.
#[proc_macro_attribute]
pub fn process_object(args: TokenStream, item: TokenStream) -> TokenStream {
    match object::ObjectImpl::check(args.into(), &item.into()) {
        Ok(object) => object_expand::object(&object),
        Err(item_and_errors) => item_and_errors,
    }
    .into()
}

/// Runs a function in the fork server, before it makes processes that run tasks.
///
/// What it loads is shared by all of them, copy-on-write. So is random state that it seeds. Processes that are executed
/// anew (`StartMethod::Exec`) do not run it, and neither does the program itself.
///
/// ```
/// use std::sync::OnceLock;
///
/// static WORDS: OnceLock<Vec<String>> = OnceLock::new();
///
/// #[process_task::preload]
/// fn warm() {
///     WORDS.get_or_init(|| vec!["expensive".to_owned()]);
/// }
/// ```
///
/// The function takes nothing and returns nothing. As for tasks, `crate = path` says where `process_task` is.
///
/// # Errors
/// It may not start processes or pools, nor may what it initialises, such as a `LazyLock`: these would need a fork server that
/// runs it again, and so on without end. They get an error that says so. If it panics, there is no fork server: whatever
/// asked for a process gets an error with the panic's text.
#[proc_macro_attribute]
pub fn preload(args: TokenStream, item: TokenStream) -> TokenStream {
    let item = item.into();
    preload::PreloadFn::check(args.into(), &item)
        .map_or_else(|errors| diag::keep_item(&item, &errors), |preload| expand::preload(&preload))
        .into()
}

/// Lets a struct live in shared memory if all its fields can; and an enum without fields, if it is `#[repr(u8)]` or
/// `#[repr(i8)]`.
///
/// See `Shareable` for what can live there, and why. Type parameters get the bound `T: Shareable`. A process can be killed
/// between the writes of two fields, so unsafe code must not rely on what fields say of each other.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use process_task::{Shareable, Shared, process_task};
///
/// #[derive(Shareable, Clone, Copy, Debug, PartialEq)]
/// #[repr(u8)]
/// enum Unit { Metres, Feet }
///
/// #[derive(Shareable)]
/// struct Survey<const N: usize> { unit: Unit, heights: [f64; N], looks: AtomicU64 }
///
/// #[process_task]
/// fn highest(survey: Shared<Survey<3>>) -> f64 {
///     survey.looks.fetch_add(1, Relaxed);
///     survey.heights.iter().copied().fold(0.0, f64::max)
/// }
///
/// let survey = Shared::new(Survey { unit: Unit::Feet, heights: [1.0, 7.5, 3.0], looks: AtomicU64::new(0) }).unwrap();
/// assert_eq!(highest.spawn(survey.clone()).join().unwrap(), 7.5);
/// assert_eq!((survey.looks.load(Relaxed), survey.unit), (1, Unit::Feet));
/// ```
///
/// `#[shareable(crate = path)]` says where `process_task` is, if not at `::process_task`.
#[proc_macro_derive(Shareable, attributes(shareable))]
pub fn shareable(item: TokenStream) -> TokenStream {
    shareable::ShareableItem::check(item.into())
        .map_or_else(|errors| errors.to_compile_error(), |shareable| shareable.expand())
        .into()
}
