//! A dependency with tasks, tests and doctests of its own.
//!
//! Owns: the notes of the preloads. Runs in: `program` and its children, libtest's binaries, and rustdoc's merged one.
//! Never: knows how it was built.
//!
//! The examples below are one merged binary, which runs itself again for each of them; so would a child that did not
//! notice what it is, without end.
//!
//! ```
//! assert_eq!(named::triple.spawn(7).join()?, 21);
//! # process_task::Result::Ok(())
//! ```
//!
//! ```
//! use process_task::{ProcessBuilder, StartMethod};
//!
//! for method in [StartMethod::ForkServer, StartMethod::Exec] {
//!     let process = ProcessBuilder::new().start_method(method).env_clear().env("ONLY", "1").spawn(named::variables, ())?;
//!     assert_eq!(process.join()?, ["ONLY"]);
//! }
//! # process_task::Result::Ok(())
//! ```
//!
//! ```
//! use process_task::{Pool, StartMethod, process_task};
//!
//! #[process_task]
//! fn here(x: i64) -> i64 { x + 1 }
//!
//! for method in [StartMethod::ForkServer, StartMethod::Exec] {
//!     let pool = Pool::builder().workers(2).start_method(method).build()?;
//!     assert_eq!(pool.map(here, 0..3)?, [1, 2, 3]);
//! }
//! # process_task::Result::Ok(())
//! ```

use std::sync::Mutex;

use process_task::{preload, process_task};

static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Adds to the notes of this process.
pub fn note(text: &str) {
    NOTES.lock().unwrap().push(text.to_owned());
}

#[preload]
fn warm() {
    note("named");
}

/// Which preloads ran before the process that answers was made.
#[process_task]
pub fn notes() -> Vec<String> {
    NOTES.lock().unwrap().clone()
}

/// A task of a dependency.
#[process_task]
pub fn triple(x: i64) -> i64 {
    3 * x
}

/// The names in the environment of the process that answers, sorted.
#[process_task]
pub fn variables() -> Vec<String> {
    let mut names: Vec<_> = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
