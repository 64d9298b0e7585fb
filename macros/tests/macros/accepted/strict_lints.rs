//! Tasks in a crate with the strictest lints.
#![forbid(unsafe_code)]
#![deny(non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![deny(missing_docs, warnings, unused, unreachable_pub, missing_debug_implementations, unnameable_types)]
#![deny(unused_qualifications, unused_results, elided_lifetimes_in_paths)]
#![deny(clippy::all, clippy::pedantic, clippy::nursery)]

use process_task::process_task;

/// Documented.
#[process_task]
pub fn documented(x: i64) -> i64 {
    x
}

#[process_task]
fn unused(text: &str, list: Vec<String>) -> usize {
    text.len() + list.len()
}

/// Two traits.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Point {
    x: f64,
}

/// Public, with everything.
///
/// # Errors
/// Never.
#[process_task(timeout = "1h", retries = 1)]
#[inline]
#[expect(clippy::too_many_arguments, reason = "the attribute reaches the function")]
pub fn everything(
    a: u8,
    b: &[f64],
    c: Option<&str>,
    d: &Point,
    e: String,
    f: u8,
    g: u8,
    h: u8,
    i: u8,
    j: u8,
    k: u8,
    l: u8,
) -> Result<Point, String> {
    let sum = [a, f, g, h, i, j, k, l].map(f64::from).iter().sum::<f64>();
    let lengths = b.len() + c.map_or(0, str::len) + e.len();
    if lengths == 0 { Err(e) } else { Ok(Point { x: sum + d.x }) }
}

/// Old.
#[deprecated]
#[process_task]
pub fn old() {}

#[process_task]
#[must_use]
fn important() -> u8 {
    3
}

#[process_task::preload]
fn warm() {
    println!("warm");
}

#[process_task::preload]
#[deprecated]
fn warm_and_old() {
    println!("old");
}

pub(super) fn main() {
    #[process_task]
    fn local((a, b): (u8, u8)) -> u8 {
        a + b
    }
    assert_eq!(local((1, 2)), 3);
    assert_eq!(local.spawn((1, 2)).join().ok(), Some(3));
    assert_eq!(documented.spawn(7).join().ok(), Some(7));
    assert_eq!(important(), 3);
}
