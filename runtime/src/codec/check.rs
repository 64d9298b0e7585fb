//! [`check`]: what a call would say of a value.
//!
//! Owns: nothing. Runs in: any process. Never: starts a process, or remembers what it found.

use super::handles::{self, Handles};
use super::{Travels, via_serde};
use crate::error::{Direction, Error, ErrorKind, Execution, Result};

/// Says whether a value would arrive as it is, in an argument, a result or a message: for unit tests of types.
///
/// The value is written and read as a call would do it, and what was read is compared with what was written: kinds, names and
/// variants. A value travels by the places of its parts where that is enough, and else with all names, as in JSON; either
/// is fine. A call makes the same comparison the first time that it meets a part of a type, and says the same.
///
/// Serde's attributes for one direction mean what they mean in JSON: a field with `skip_serializing` or `skip_deserializing` arrives
/// as its default. What serde itself cannot tell apart, this cannot: two `untagged` variants that are written alike.
///
/// # Errors
/// [`ErrorKind::CannotEncode`], if sending the value would fail, or its type refuses to read what it wrote.
///
/// # Examples
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Point { x: f64, y: f64 }
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(untagged)]
/// enum Number { Float(f64), Integer(i64) }
///
/// assert!(process_task::check(&Point { x: 0.5, y: 1.5 }).is_ok());
/// assert!(process_task::check(&Number::Float(0.5)).is_ok());
/// let error = process_task::check(&Number::Integer(3)).unwrap_err();     // serde would read `Float(3.0)`
/// assert!(error.to_string().contains("an `i64` would be read as an `f64`"));
/// ```
pub fn check<T: for<'a> Travels<'a>>(value: &T) -> Result<()> {
    let checked = handles::collect(&mut Handles::default(), || via_serde::check(value, via_serde::again::<T>));
    checked.map_err(|error| {
        let kind = ErrorKind::CannotEncode { direction: Direction::Arguments, reason: error.to_string() };
        Error::new(kind, Execution::NotStarted)
    })
}
