//! Calls of a pool, against other pools. Two workers on every side.
//!
//! Runs in: the parent. Never: lets two pools work at the same time.
//!
//! The thread pool answers on a channel that is made for the call, as our pool makes a handle for it.

use process_task::{JoinHandle, Pool, process_task};
use rayon::ThreadPool;

use crate::hogs::Hogs;
use crate::maps::rayon_pool;
use crate::measure::{check, each, isolated, one_by_one};
use crate::python::Library;
use crate::race::{Measured, Peer, Race};
use crate::table::{Row, Unit};
use crate::threads::Threads;
use crate::{Outcome, WORKERS, python};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "call, one after the other", unit: Unit::Seconds, run: hot },
    Row { name: "call, 2 ms apart", unit: Unit::Seconds, run: apart },
    Row { name: "call, one after the other, busy cores", unit: Unit::Seconds, run: hot_among_hogs },
    Row { name: "call, 2 ms apart, busy cores", unit: Unit::Seconds, run: apart_among_hogs },
    Row { name: "submit 200,000, then join all, per call", unit: Unit::Seconds, run: outstanding },
];

/// What a call may take at the median while every core is busy.
const AMONG_HOGS: f64 = 200e-6;

#[process_task]
fn step(number: u64) -> u64 {
    number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)
}

/// The pools of this process.
#[derive(Debug)]
struct Pools {
    ours: Pool,
    threads: Threads,
    rayon: ThreadPool,
    procspawn: procspawn::Pool,
}

impl Pools {
    /// With one call made in each.
    fn new() -> Outcome<Self> {
        let ours = Pool::builder().workers(WORKERS).build()?;
        let (threads, rayon) = (Threads::new(WORKERS, *step), rayon_pool()?);
        let pools = Self { ours, threads, rayon, procspawn: procspawn::Pool::new(WORKERS)? };
        pools.our_call(0)?;
        pools.thread_call(0)?;
        pools.rayon_call(0)?;
        pools.procspawn_call(0)?;
        Ok(pools)
    }

    fn our_call(&self, number: u32) -> Outcome<()> {
        check(self.ours.call(step, u64::from(number))?, step(u64::from(number)))
    }

    fn thread_call(&self, number: u32) -> Outcome<()> {
        check(self.threads.submit(u64::from(number)).recv()?, step(u64::from(number)))
    }

    fn rayon_call(&self, number: u32) -> Outcome<()> {
        check(self.rayon.install(|| step(u64::from(number))), step(u64::from(number)))
    }

    fn procspawn_call(&self, number: u32) -> Outcome<()> {
        check(self.procspawn.spawn(u64::from(number), *step).join()?, step(u64::from(number)))
    }
}

fn hot() -> Outcome<Measured> {
    const COUNT: u32 = 3_000;
    const FEW: u32 = 300;
    let pools = Pools::new()?;
    Race::new(15, || each(COUNT, || (0..COUNT).try_for_each(|number| pools.our_call(number))))
        .against("crossbeam threads", || each(COUNT, || (0..COUNT).try_for_each(|number| pools.thread_call(number))))
        .aim(1.0)
        .against("rayon install", || each(COUNT, || (0..COUNT).try_for_each(|number| pools.rayon_call(number))))
        .against("procspawn", || each(FEW, || (0..FEW).try_for_each(|number| pools.procspawn_call(number))))
        .beside(python::peer("Python Pool.apply", Library::Pool, "call")?)
        .beside(python::peer("Python ProcessPoolExecutor.submit", Library::Executor, "call")?)
        .run()
}

fn apart() -> Outcome<Measured> {
    let pools = Pools::new()?;
    Race::new(15, || isolated(40, |number| pools.our_call(number)))
        .against("crossbeam threads", || isolated(40, |number| pools.thread_call(number)))
        .aim(1.2)
        .against("rayon install", || isolated(40, |number| pools.rayon_call(number)))
        .against("procspawn", || isolated(40, |number| pools.procspawn_call(number)))
        .beside(python::peer("Python Pool.apply", Library::Pool, "call_apart")?)
        .beside(python::peer("Python ProcessPoolExecutor.submit", Library::Executor, "call_apart")?)
        .run()
}

fn hot_among_hogs() -> Outcome<Measured> {
    let (pools, _hogs) = (Pools::new()?, Hogs::new()?);
    Race::new(9, || one_by_one(200, |number| pools.our_call(number)))
        .beside(Peer::bound("bound: 200 us", AMONG_HOGS))
        .against("crossbeam threads", || one_by_one(200, |number| pools.thread_call(number)))
        .against("rayon install", || one_by_one(200, |number| pools.rayon_call(number)))
        .against("procspawn", || one_by_one(50, |number| pools.procspawn_call(number)))
        .run()
}

fn apart_among_hogs() -> Outcome<Measured> {
    let (pools, _hogs) = (Pools::new()?, Hogs::new()?);
    Race::new(9, || isolated(40, |number| pools.our_call(number)))
        .beside(Peer::bound("bound: 200 us", AMONG_HOGS))
        .against("crossbeam threads", || isolated(40, |number| pools.thread_call(number)))
        .against("rayon install", || isolated(40, |number| pools.rayon_call(number)))
        .against("procspawn", || isolated(40, |number| pools.procspawn_call(number)))
        .beside(python::peer("Python Pool.apply", Library::Pool, "call_apart")?)
        .beside(python::peer("Python ProcessPoolExecutor.submit", Library::Executor, "call_apart")?)
        .run()
}

/// The peers that could not do as many in a few seconds do fewer; the figures are for one call.
fn outstanding() -> Outcome<Measured> {
    const COUNT: u32 = 200_000;
    // A waiting call of procspawn holds four descriptors.
    const FEW: u32 = 200;
    let pools = Pools::new()?;
    Race::new(5, || {
        each(COUNT, || {
            let handles: Vec<_> = numbers(COUNT).map(|number| pools.ours.submit(step, number)).collect();
            sum(COUNT, handles.into_iter().map(JoinHandle::join))
        })
    })
    .against("crossbeam threads", || {
        each(COUNT, || {
            let handles: Vec<_> = numbers(COUNT).map(|number| pools.threads.submit(number)).collect();
            sum(COUNT, handles.into_iter().map(|handle| handle.recv()))
        })
    })
    .aim(1.0 / 3.0)
    .against("procspawn, 200 of them", || {
        each(FEW, || {
            let handles: Vec<_> = numbers(FEW).map(|number| pools.procspawn.spawn(number, *step)).collect();
            sum(FEW, handles.into_iter().map(procspawn::JoinHandle::join))
        })
    })
    .beside(python::peer("Python Pool.apply_async, 20,000 of them", Library::Pool, "outstanding")?)
    .beside(python::peer("Python executor.submit, 5,000 of them", Library::Executor, "outstanding")?)
    .run()
}

fn numbers(count: u32) -> impl Iterator<Item = u64> {
    0..u64::from(count)
}

/// Waits for every result, and checks their sum.
fn sum<E: std::error::Error + 'static>(count: u32, mut results: impl Iterator<Item = Result<u64, E>>) -> Outcome<()> {
    let expected = numbers(count).map(*step).fold(0, u64::wrapping_add);
    check(results.try_fold(0, |sum: u64, result| result.map(|result| sum.wrapping_add(result)))?, expected)
}
