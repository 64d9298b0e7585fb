//! Objects in a crate with the strictest lints.
#![forbid(unsafe_code)]
#![deny(non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![deny(missing_docs, warnings, unused, unreachable_pub, missing_debug_implementations, unnameable_types)]
#![deny(unused_qualifications, unused_results, elided_lifetimes_in_paths)]
#![deny(clippy::all, clippy::pedantic, clippy::nursery)]

use std::collections::BTreeMap;
use std::time::Duration;

use process_task::{CallHandle, ManagerHandle, process_object, process_task};

/// Documented.
#[derive(Debug, Default)]
pub struct Counter {
    value: i64,
}

/// A task of a method's name.
#[process_task]
#[must_use]
pub fn add(x: i64) -> i64 {
    x
}

/// Two traits.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Point {
    x: f64,
}

/// The methods.
#[process_object]
impl Counter {
    /// A constant is left out.
    pub const STEP: i64 = 3;

    /// A constructor, which may be `const`.
    #[must_use]
    pub const fn new(value: i64) -> Self {
        Self { value }
    }

    /// Adds.
    pub const fn add(&mut self, n: i64) -> i64 {
        self.value += n;
        self.value
    }

    /// Reads.
    #[must_use]
    pub const fn get(&self) -> i64 {
        self.helper()
    }

    /// Borrows, and has many parameters.
    ///
    /// # Errors
    /// Never.
    #[expect(clippy::too_many_arguments, reason = "the attribute reaches the method")]
    pub fn everything<'a>(
        &'a self,
        a: u8,
        b: &[f64],
        c: Option<&'a str>,
        d: &Point,
        fifth: String,
        (sixth, _): (u8, u8),
        _: u8,
        self_: u8,
        manager: u8,
        tenth: u8,
        eleventh: u8,
        twelfth: u8,
    ) -> Result<Point, String> {
        let sum = [a, sixth, self_, manager, tenth, eleventh, twelfth].map(f64::from).iter().sum::<f64>();
        let lengths = b.len() + c.map_or(0, str::len) + fifth.len();
        if lengths == 0 { Err(fifth) } else { Ok(Point { x: sum + d.x }) }
    }

    /// Old.
    #[deprecated(note = "on purpose")]
    pub const fn old(&self) {}

    /// Conditional.
    #[cfg(windows)]
    pub fn conditional(&self) -> NoSuchType {}

    /// Conditional, and there.
    #[cfg(not(windows))]
    #[must_use]
    pub const fn conditional(&self) -> u8 {
        1
    }

    /// Stays here.
    #[local]
    #[must_use]
    pub const fn stays(self) -> Self {
        self
    }

    /// Narrower.
    pub(crate) fn narrower(&self, map: &BTreeMap<String, i64>) -> [i64; 2] {
        [self.value, map.values().sum()]
    }

    const fn helper(&self) -> i64 {
        self.value
    }
}

/// A disk.
#[derive(Debug)]
struct Disk(String);

#[process_object]
impl Disk {
    /// Opens it.
    pub(crate) fn open(manager: &str, path: String) -> Result<Self, String> {
        if manager.is_empty() { Err("closed".to_owned()) } else { Ok(Self(path)) }
    }
}

/// What stores.
pub trait Store {
    /// What is stored.
    type Item;
    /// Stores.
    fn put(&mut self, item: Self::Item) -> Option<Self::Item>;
    /// Left out.
    fn by_value(self) -> Self::Item;
}

#[process_object]
impl Store for Disk {
    type Item = String;

    fn put(&mut self, item: Self::Item) -> Option<Self::Item> {
        Some(std::mem::replace(&mut self.0, item))
    }

    #[local]
    fn by_value(self) -> Self::Item {
        self.0
    }
}

/// What the proxies' methods return.
#[expect(dead_code, reason = "nothing runs here")]
fn types(manager: &ManagerHandle, counter: &CounterProxy, disk: &DiskProxy) -> process_task::Result<()> {
    let made: CounterProxy = CounterProxy::new(manager, 3)?;
    let sum: i64 = made.add(3)?;
    let handle: CallHandle<i64> = counter.later().add(3);
    let again: CounterProxy = counter.with_timeout(Duration::from_secs(1));
    let both: [i64; 2] = again.narrower(&BTreeMap::new())?;
    let point: Result<Point, String> =
        counter.everything(1, &[2.0], Some("3"), &Point { x: 4.0 }, String::new(), (6, 6), 7, 8, 9, 10, 11, 12)?;
    let old: Option<String> = disk.put("x".to_owned())?;
    let later: Option<String> = disk.later().put("x".to_owned()).join()?;
    assert!(counter == &again && counter.manager() == *manager && !counter.is_poisoned()?);
    counter.clear_poison()?;
    drop((sum, handle, both, point.map(|point| point.x), old, later, counter.conditional()?));
    Ok(())
}

pub(super) fn main() {
    let mut counter = Counter::new(1);
    assert_eq!(counter.add(Counter::STEP) + add(1), 5);
    assert_eq!(counter.conditional(), 1);
    let point = counter.everything(1, &[2.0], None, &Point { x: 4.0 }, String::new(), (6, 6), 7, 8, 9, 10, 11, 12);
    assert!(point.is_ok());
    assert_eq!(counter.narrower(&BTreeMap::new()), [4, 0]);
    assert_eq!(counter.stays().get(), 4);
}
