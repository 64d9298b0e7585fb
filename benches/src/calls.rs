//! Calls of a pool, against a pool of threads with a reply channel for each call. Two workers on both sides.
//!
//! Runs in: the parent. Never: lets the two pools work at the same time.

use process_task::{JoinHandle, Pool, process_task};

use crate::Outcome;
use crate::measure::{Comparison, alternately, check, each, isolated};
use crate::table::Row;
use crate::threads::Threads;

pub(crate) const ROWS: &[Row] = &[
    Row { name: "call, one after the other", yardstick: "thread pool, the same", aim: Some(1.0), run: hot },
    Row { name: "call, 2 ms apart", yardstick: "thread pool, the same", aim: Some(1.0), run: apart },
    Row {
        name: "submit + join, 100,000 outstanding",
        yardstick: "thread pool, the same",
        aim: Some(0.5),
        run: outstanding,
    },
];

const WORKERS: usize = 2;

#[process_task]
fn step(number: u64) -> u64 {
    number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)
}

/// Both pools, with one call made in each.
fn pools() -> Outcome<(Pool, Threads)> {
    let (pool, threads) = (Pool::builder().workers(WORKERS).build()?, Threads::new(WORKERS, *step));
    process_call(&pool, 0)?;
    thread_call(&threads, 0)?;
    Ok((pool, threads))
}

fn process_call(pool: &Pool, number: u32) -> Outcome<()> {
    check(pool.call(step, u64::from(number))?, step(u64::from(number)))
}

fn thread_call(threads: &Threads, number: u32) -> Outcome<()> {
    check(threads.submit(u64::from(number)).recv()?, step(u64::from(number)))
}

fn hot() -> Outcome<Comparison> {
    const COUNT: u32 = 3_000;
    let (pool, threads) = pools()?;
    alternately(
        15,
        || each(COUNT, || (0..COUNT).try_for_each(|number| process_call(&pool, number))),
        || each(COUNT, || (0..COUNT).try_for_each(|number| thread_call(&threads, number))),
    )
}

fn apart() -> Outcome<Comparison> {
    let (pool, threads) = pools()?;
    alternately(
        15,
        || isolated(40, |number| process_call(&pool, number)),
        || isolated(40, |number| thread_call(&threads, number)),
    )
}

fn outstanding() -> Outcome<Comparison> {
    const COUNT: u32 = 100_000;
    let (pool, threads) = pools()?;
    let expected = (0..u64::from(COUNT)).map(*step).fold(0, u64::wrapping_add);
    let ours = || {
        let handles: Vec<_> = (0..u64::from(COUNT)).map(|number| pool.submit(step, number)).collect();
        let mut results = handles.into_iter().map(JoinHandle::join);
        check(results.try_fold(0, |sum: u64, result| result.map(|result| sum.wrapping_add(result)))?, expected)
    };
    let theirs = || {
        let handles: Vec<_> = (0..u64::from(COUNT)).map(|number| threads.submit(number)).collect();
        let mut results = handles.into_iter().map(|handle| handle.recv());
        check(results.try_fold(0, |sum: u64, result| result.map(|result| sum.wrapping_add(result)))?, expected)
    };
    alternately(9, || each(COUNT, ours), || each(COUNT, theirs))
}
