//! Tasks in a crate that forbids, so that not even a macro may allow.
#![forbid(unsafe_code, non_camel_case_types, non_snake_case, missing_docs, unused_variables, dead_code)]
#![forbid(unused_imports, unused_mut, unreachable_pub, missing_debug_implementations, unused_parens)]
#![forbid(clippy::pedantic, clippy::all)]

use process_task::{Shareable, process_task};

/// Documented.
#[process_task(timeout = "2s")]
pub fn documented(text: &str, numbers: Vec<f64>, shapes: &[Option<String>]) -> Result<Vec<u8>, (u8, String)> {
    if numbers.is_empty() { Err((1, text.to_owned())) } else { Ok(vec![shapes.len().try_into().unwrap_or(0)]) }
}

#[process_task]
fn undocumented(x: i64) -> i64 {
    x
}

#[process_task::preload]
fn warm() {}

/// Documented.
#[derive(Clone, Copy, Debug, Shareable)]
#[repr(u8)]
pub enum Unit {
    /// One.
    One = 3,
    /// Another.
    Other,
}

/// Documented, with everything that a struct can have.
#[derive(Debug, Shareable)]
pub struct Survey<T: Copy, const N: usize = 2>
where
    T: std::fmt::Debug,
{
    /// One.
    pub unit: Unit,
    /// Another.
    pub values: [(T, bool); N],
}

pub(super) fn main() {
    let survey = process_task::Shared::new(Survey { unit: Unit::Other, values: [(1_u16, true); 2] });
    assert!(survey.is_ok_and(|survey| matches!(survey.unit, Unit::Other) && survey.values == [(1, true); 2]));
    assert_eq!(undocumented.spawn(7).join().ok(), Some(7));
}
