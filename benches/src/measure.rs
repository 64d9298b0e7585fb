//! Taking figures: what one is, and how time is taken.
//!
//! Runs in: the parent. Never: averages over rounds. The median of the rounds is the figure, and their middle half says
//! how far to trust it.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use crate::Outcome;

/// Seconds for one unit of work (a call, a process, an item), or bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    /// A quarter of the rounds was below this.
    pub(crate) low: f64,
    /// A quarter of the rounds was above this.
    pub(crate) high: f64,
}

impl Figure {
    pub(crate) fn of(rounds: &[f64]) -> Self {
        Self { median: quantile(rounds, 0.5), low: quantile(rounds, 0.25), high: quantile(rounds, 0.75) }
    }

    /// A figure that was not measured in rounds, or not measured at all.
    pub(crate) fn exactly(value: f64) -> Self {
        Self { median: value, low: value, high: value }
    }
}

/// The value below which this share of the values lies; not a number if there are none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "lists are short, and shares lie between 0 and 1"
)]
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Seconds for one of `count` units that `work` does in one go.
pub(crate) fn each(count: u32, work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    Ok(timed(count, work)?.0)
}

/// As [`each`], with what `work` made, which is dropped or checked by the caller outside the measured time.
pub(crate) fn timed<T>(count: u32, work: impl FnOnce() -> Outcome<T>) -> Outcome<(f64, T)> {
    let start = Instant::now();
    let made = work()?;
    Ok((start.elapsed().as_secs_f64() / f64::from(count), made))
}

/// The median of `count` units that are done one by one, with a pause of 2 ms before each.
pub(crate) fn isolated(count: u32, unit: impl FnMut(u32) -> Outcome<()>) -> Outcome<f64> {
    median_of(count, Duration::from_millis(2), unit)
}

/// The median of `count` units that are done one by one, without a pause.
pub(crate) fn one_by_one(count: u32, unit: impl FnMut(u32) -> Outcome<()>) -> Outcome<f64> {
    median_of(count, Duration::ZERO, unit)
}

fn median_of(count: u32, pause: Duration, mut unit: impl FnMut(u32) -> Outcome<()>) -> Outcome<f64> {
    let mut times = Vec::new();
    for number in 0..count {
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        times.push(each(1, || unit(number))?);
    }
    Ok(quantile(&times, 0.5))
}

/// What a side computed must be what it should have computed.
pub(crate) fn check<T: Copy + PartialEq + Debug>(computed: T, expected: T) -> Outcome<()> {
    if computed == expected { Ok(()) } else { Err(format!("computed {computed:?} instead of {expected:?}").into()) }
}
