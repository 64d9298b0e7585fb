//! `map` over trivial items, against rayon and against a loop. The figures are for one item.
//!
//! Runs in: the parent. Never: skips items; where a million would take too long on our side, that side does fewer.

use std::hint::black_box;

use process_task::{Pool, process_task};
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use crate::Outcome;
use crate::measure::{Comparison, alternately, check, timed};
use crate::table::Row;

pub(crate) const ROWS: &[Row] = &[
    Row { name: "map, one trivial item", yardstick: "rayon, of a million items", aim: None, run: against_rayon },
    Row { name: "map, one trivial item", yardstick: "a loop, of a million items", aim: None, run: against_a_loop },
];

const MILLION: u32 = 1_000_000;

#[process_task]
fn scramble(number: u32) -> u32 {
    number.rotate_left(7) ^ 0x9e37_79b9
}

fn against_rayon() -> Outcome<Comparison> {
    against(|numbers| numbers.into_par_iter().map(*scramble).collect())
}

fn against_a_loop() -> Outcome<Comparison> {
    against(|numbers| numbers.map(|number| black_box(scramble(number))).collect())
}

fn against(theirs: fn(std::ops::Range<u32>) -> Vec<u32>) -> Outcome<Comparison> {
    let pool = Pool::new()?;
    let ours = |count| {
        let (seconds, results) = timed(count, || Ok(pool.map(scramble, 0..count)?))?;
        verify(&results, count)?;
        Ok(seconds)
    };
    let one: f64 = ours(10_000)?;
    // So many that a round takes no longer than about half a second.
    let count = [MILLION, MILLION / 10].into_iter().find(|count| one * f64::from(*count) < 0.5);
    let count = count.unwrap_or(MILLION / 100);
    alternately(
        7,
        || ours(count),
        || {
            let (seconds, results) = timed(MILLION, || Ok(theirs(0..MILLION)))?;
            verify(&results, MILLION)?;
            Ok(seconds)
        },
    )
}

fn verify(results: &[u32], count: u32) -> Outcome<()> {
    check(results.len(), usize::try_from(count)?)?;
    check((0..count).zip(results).find(|(number, result)| scramble(*number) != **result), None)
}
