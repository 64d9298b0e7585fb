//! Tasks that need processor time: many of one length, and short ones beside a long one.
//!
//! Runs in: the parent. Never: sleeps in a task; a task computes as many steps as its time takes when nothing disturbs it.

use std::hint::black_box;
use std::time::Duration;

use process_task::{JoinHandle, Pool, process_task};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use crate::maps::rayon_pool;
use crate::measure::{check, timed};
use crate::python::Library;
use crate::race::{Measured, Race};
use crate::table::{Row, Unit};
use crate::threads::Threads;
use crate::{Outcome, WORKERS, python};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "map of 10,000 items of 100 us, per item", unit: Unit::Seconds, run: even },
    Row { name: "submit 1 x 100 ms and 1,000 x 50 us", unit: Unit::Seconds, run: mixed_submits },
    Row { name: "map of 1 x 100 ms and 1,000 x 50 us", unit: Unit::Seconds, run: mixed_map },
];

#[process_task]
pub(crate) fn burn(steps: u64) -> u64 {
    (0..steps).fold(steps, |state, _| black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)))
}

/// How many steps take so long, on a core of one's own.
fn steps_in(time: Duration) -> Outcome<f64> {
    const SAMPLE: u32 = 500_000;
    let sample = || timed(SAMPLE, || Ok(black_box(burn(black_box(u64::from(SAMPLE))))));
    let times = (0..9).map(|_| Ok(sample()?.0)).collect::<Outcome<Vec<f64>>>()?;
    Ok(time.as_secs_f64() / times.into_iter().fold(f64::INFINITY, f64::min))
}

/// Tasks of almost one length: so different that results in the wrong places are noticed.
pub(crate) fn tasks(count: u64, time: Duration) -> Outcome<Vec<u64>> {
    let steps = steps_in(time)?;
    check(steps.is_finite() && steps >= 1.0, true)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above, and far below 2^63")]
    let steps = steps as u64;
    Ok((0..count).map(|number| steps + number % VARIANTS).collect())
}

const VARIANTS: u64 = 16;

/// Compares with what the function gives here.
fn verify(tasks: &[u64], results: &[u64]) -> Outcome<()> {
    check(tasks.len(), results.len())?;
    let mut known: Vec<(u64, u64)> = Vec::new();
    for (task, result) in tasks.iter().zip(results) {
        let expected = known.iter().find(|(known, _)| known == task).map(|(_, expected)| *expected);
        let expected = expected.unwrap_or_else(|| {
            known.push((*task, burn(*task)));
            burn(*task)
        });
        check(*result, expected)?;
    }
    Ok(())
}

/// Seconds for one of `count` units, of a side that does all tasks at once.
pub(crate) fn all(tasks: &[u64], count: u32, work: impl FnOnce() -> Outcome<Vec<u64>>) -> Outcome<f64> {
    let (seconds, results) = timed(count, work)?;
    verify(tasks, &results)?;
    Ok(seconds)
}

fn even() -> Outcome<Measured> {
    const COUNT: u32 = 10_000;
    let tasks = tasks(u64::from(COUNT), Duration::from_micros(100))?;
    let (pool, rayon) = (Pool::builder().workers(WORKERS).build()?, rayon_pool()?);
    Race::new(3, || all(&tasks, COUNT, || Ok(pool.map(burn, tasks.iter().copied())?)))
        .against("rayon", || {
            all(&tasks, COUNT, || Ok(rayon.install(|| tasks.par_iter().map(|steps| burn(*steps)).collect())))
        })
        .aim(1.0 / 0.95)
        .beside(python::peer("Python Pool.map", Library::Pool, "burn")?)
        .beside(python::peer("Python executor.map, chunks as Pool.map's", Library::Executor, "burn")?)
        .run()
}

/// The long one first, then the short ones.
fn mixture() -> Outcome<Vec<u64>> {
    let long = tasks(1, Duration::from_millis(100))?;
    Ok(long.into_iter().chain(tasks(1_000, Duration::from_micros(50))?).collect())
}

/// What the workers need at the least: their share of all the work, or the long task if that is more. Measured by doing it here.
fn ideal(tasks: &[u64]) -> Outcome<f64> {
    let (long, short) = tasks.split_first().ok_or("there are no tasks")?;
    let (long, mut results) = timed(1, || Ok(vec![burn(*long)]))?;
    let (short, others) = timed(1, || Ok(short.iter().map(|steps| burn(*steps)).collect::<Vec<_>>()))?;
    results.extend(others);
    verify(tasks, &results)?;
    Ok(f64::max(long, (long + short) / f64::from(u32::try_from(WORKERS)?)))
}

fn mixed_submits() -> Outcome<Measured> {
    let tasks = mixture()?;
    let (pool, threads) = (Pool::builder().workers(WORKERS).build()?, Threads::new(WORKERS, *burn));
    Race::new(9, || {
        all(&tasks, 1, || {
            let handles: Vec<_> = tasks.iter().map(|steps| pool.submit(burn, *steps)).collect();
            Ok(handles.into_iter().map(JoinHandle::join).collect::<Result<_, _>>()?)
        })
    })
    .against("the ideal schedule", || ideal(&tasks))
    .aim(1.15)
    .against("crossbeam threads", || {
        all(&tasks, 1, || {
            let handles: Vec<_> = tasks.iter().map(|steps| threads.submit(*steps)).collect();
            Ok(handles.into_iter().map(|handle| handle.recv()).collect::<Result<_, _>>()?)
        })
    })
    .beside(python::peer("Python Pool.apply_async", Library::Pool, "mixed_submits")?)
    .beside(python::peer("Python ProcessPoolExecutor.submit", Library::Executor, "mixed_submits")?)
    .run()
}

fn mixed_map() -> Outcome<Measured> {
    let tasks = mixture()?;
    let (pool, rayon) = (Pool::builder().workers(WORKERS).build()?, rayon_pool()?);
    Race::new(9, || all(&tasks, 1, || Ok(pool.map(burn, tasks.iter().copied())?)))
        .against("the ideal schedule", || ideal(&tasks))
        .aim(1.15)
        .against("rayon", || {
            all(&tasks, 1, || Ok(rayon.install(|| tasks.par_iter().map(|steps| burn(*steps)).collect())))
        })
        .beside(python::peer("Python Pool.map", Library::Pool, "mixed_map")?)
        .beside(python::peer("Python executor.map, chunks as Pool.map's", Library::Executor, "mixed_map")?)
        .run()
}
