//! Measuring two things alternately, so that whatever else the machine does slows both.
//!
//! Runs in: the parent. Never: averages over rounds. The median of the rounds is the figure, and their middle half says
//! how far to trust it.

use std::time::{Duration, Instant};

use crate::Outcome;

/// Seconds for one unit of work: a call, a process, an item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    /// A quarter of the rounds was faster than this.
    pub(crate) low: f64,
    /// A quarter of the rounds was slower than this.
    pub(crate) high: f64,
}

/// Both sides of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison {
    pub(crate) ours: Figure,
    pub(crate) theirs: Figure,
}

impl Figure {
    pub(crate) fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let at = |quarter: usize| rounds.get(rounds.len() * quarter / 4).copied().unwrap_or(f64::NAN);
        Self { median: at(2), low: at(1), high: at(3) }
    }
}

/// Runs both sides `rounds` times, after one round that is not counted. Each returns its seconds for one unit.
pub(crate) fn alternately(
    rounds: u32,
    mut ours: impl FnMut() -> Outcome<f64>,
    mut theirs: impl FnMut() -> Outcome<f64>,
) -> Outcome<Comparison> {
    let (mut our_rounds, mut their_rounds) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (our_round, their_round) = (settled(&mut ours)?, settled(&mut theirs)?);
        if round > 0 {
            our_rounds.push(our_round);
            their_rounds.push(their_round);
        }
    }
    Ok(Comparison { ours: Figure::of(our_rounds), theirs: Figure::of(their_rounds) })
}

/// What the side before has left to be done, such as processes that are ending, must not count here.
fn settled(side: &mut impl FnMut() -> Outcome<f64>) -> Outcome<f64> {
    std::thread::sleep(Duration::from_millis(20));
    side()
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

/// The median of `count` units that are done one by one, with a pause before each.
pub(crate) fn isolated(count: u32, mut unit: impl FnMut(u32) -> Outcome<()>) -> Outcome<f64> {
    let mut times = Vec::new();
    for number in 0..count {
        std::thread::sleep(Duration::from_millis(2));
        times.push(each(1, || unit(number))?);
    }
    Ok(Figure::of(times).median)
}

/// What a side computed must be what it should have computed.
pub(crate) fn check<T: Copy + PartialEq + std::fmt::Debug>(computed: T, expected: T) -> Outcome<()> {
    if computed == expected { Ok(()) } else { Err(format!("computed {computed:?} instead of {expected:?}").into()) }
}
