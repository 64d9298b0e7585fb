//! What it costs to replace every worker after 25 calls. The figures are for one call.
//!
//! Runs in: the parent. Never: counts the start of the pool, or the end of its last workers.

use std::time::Duration;

use process_task::{JoinHandle, Pool};

use crate::burn::{all, burn, tasks};
use crate::measure::check;
use crate::python::Library;
use crate::race::{Measured, Race};
use crate::table::{Row, Unit};
use crate::{Outcome, WORKERS, python};

pub(crate) const ROWS: &[Row] =
    &[Row { name: "calls of 50 us, a new worker every 25", unit: Unit::Seconds, run: recycling }];

/// So many that eighty workers are used up in a round.
const COUNT: u32 = 2_000;
const LIFE: u32 = 25;
const ROUNDS: u32 = 9;

fn recycling() -> Outcome<Measured> {
    let tasks = tasks(u64::from(COUNT), Duration::from_micros(50))?;
    let builder = || Pool::builder().workers(WORKERS);
    let (recycling, lasting) = (builder().max_calls_per_worker(LIFE.into()).build()?, builder().build()?);
    let measured = Race::new(ROUNDS, || calls(&recycling, &tasks))
        .against("the same workers for all calls", || calls(&lasting, &tasks))
        .aim(2.0)
        .beside(python::peer("Python Pool, maxtasksperchild=25", Library::Pool, "recycle")?)
        .run()?;
    // The workers that are there now may have calls left.
    let used_up = u64::from((ROUNDS + 1) * COUNT / LIFE) - u64::try_from(WORKERS)?;
    let restarts: u64 = recycling.stats().workers.iter().map(|worker| worker.restarts).sum();
    check(restarts >= used_up, true)?;
    Ok(measured)
}

fn calls(pool: &Pool, tasks: &[u64]) -> Outcome<f64> {
    all(tasks, COUNT, || {
        let handles: Vec<_> = tasks.iter().map(|steps| pool.submit(burn, *steps)).collect();
        Ok(handles.into_iter().map(JoinHandle::join).collect::<Result<_, _>>()?)
    })
}
