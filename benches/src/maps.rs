//! `map` over trivial items, against copying them through the same encoding, and against other maps. The figures are for
//! one item.
//!
//! Runs in: the parent. Never: skips items; where a million would take too long on our side, that side does fewer.

use std::hint::black_box;

use bincode::config;
use process_task::{Pool, process_task};
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::measure::{check, timed};
use crate::python::Library;
use crate::race::{Measured, Peer, Race};
use crate::table::{Row, Unit};
use crate::{Outcome, WORKERS, python};

pub(crate) const ROWS: &[Row] =
    &[Row { name: "map of 1,000,000 trivial items, per item", unit: Unit::Seconds, run: map }];

const MILLION: u32 = 1_000_000;

/// Seconds for one item.
const ALLOWED: f64 = 50e-9;

#[process_task]
fn scramble(number: u32) -> u32 {
    number.rotate_left(7) ^ 0x9e37_79b9
}

fn map() -> Outcome<Measured> {
    let (pool, rayon) = (Pool::builder().workers(WORKERS).build()?, rayon_pool()?);
    let ours = |count| measured(count, || Ok(pool.map(scramble, 0..count)?));
    let one = ours(10_000)?;
    // So many that a round takes no longer than about half a second.
    let count = [MILLION, MILLION / 10].into_iter().find(|count| one * f64::from(*count) < 0.5);
    let count = count.unwrap_or(MILLION / 100);
    Race::new(7, || ours(count))
        .beside(Peer::bound("bound: 50 ns", ALLOWED))
        .against("bincode encode + decode, one thread", || measured(MILLION, through_bytes))
        .against("a loop", || {
            measured(MILLION, || Ok((0..MILLION).map(|number| black_box(scramble(number))).collect()))
        })
        .against("rayon", || {
            measured(MILLION, || Ok(rayon.install(|| (0..MILLION).into_par_iter().map(*scramble).collect())))
        })
        .beside(python::peer("Python Pool.map", Library::Pool, "map")?)
        .aim(0.2)
        .beside(python::peer("Python executor.map, chunks as Pool.map's", Library::Executor, "map")?)
        .run()
}

/// As many threads as the other pools have workers.
pub(crate) fn rayon_pool() -> Outcome<ThreadPool> {
    Ok(ThreadPoolBuilder::new().num_threads(WORKERS).build()?)
}

/// What a call does beside going to another process: the argument to bytes and back, the result likewise.
fn through_bytes() -> Outcome<Vec<u32>> {
    let mut buffer = [0; 16];
    let mut pass = |number: u32| -> Outcome<u32> {
        let length = bincode::serde::encode_into_slice(number, black_box(&mut buffer), config::standard())?;
        Ok(bincode::serde::decode_from_slice(black_box(&buffer[..length]), config::standard())?.0)
    };
    (0..MILLION)
        .map(|number| {
            let argument = pass(number)?;
            pass(scramble(argument))
        })
        .collect()
}

fn measured(count: u32, work: impl FnOnce() -> Outcome<Vec<u32>>) -> Outcome<f64> {
    let (seconds, results) = timed(count, work)?;
    check(results.len(), usize::try_from(count)?)?;
    check((0..count).zip(&results).find(|(number, result)| scramble(*number) != **result), None)?;
    Ok(seconds)
}
