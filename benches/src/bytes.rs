//! 64 MiB as an argument or a result, against copying them inside this process.
//!
//! Runs in: the parent. Never: counts the making of the argument or of the result, which the caller or the task has anyway.
//!
//! | yardstick | what it is |
//! |---|---|
//! | call with `to_vec` | the same function called here with a copy in fresh memory: allocation, page faults, copy, release |
//! | `to_vec` | the same copy without its release |
//! | warm copy | `copy_from_slice` between two buffers whose pages are all present |
//!
//! A *cold* buffer is one that did not exist before: the first long argument of a pool, and every one of a `spawn`.

use std::hint::black_box;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use process_task::{Pool, process_task};

use crate::measure::{check, each, timed};
use crate::python::Library;
use crate::race::{Measured, Race};
use crate::table::{Row, Unit};
use crate::{Outcome, python};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "64 MiB Vec<u8>, pool", unit: Unit::Seconds, run: owned_warm },
    Row { name: "64 MiB Vec<u8>, pool, cold buffer", unit: Unit::Seconds, run: owned_cold },
    Row { name: "64 MiB Vec<u8>, spawn", unit: Unit::Seconds, run: owned_spawn },
    Row { name: "64 MiB &[u8], pool", unit: Unit::Seconds, run: borrowed_warm },
    Row { name: "64 MiB &[u8], pool, cold buffer", unit: Unit::Seconds, run: borrowed_cold },
    Row { name: "64 MiB &[u8], spawn", unit: Unit::Seconds, run: borrowed_spawn },
    Row { name: "64 MiB Vec<u8> as result, pool", unit: Unit::Seconds, run: result_warm },
];

const LENGTH: usize = 64 << 20;
const ROUNDS: u32 = 9;

/// What is computed from the bytes: their number, and three of them.
fn digest(bytes: &[u8]) -> u64 {
    let at = |place: usize| u64::from(bytes[place]);
    bytes.len() as u64 + at(0) + at(bytes.len() / 2) + at(bytes.len() - 1)
}

#[process_task]
fn owned(bytes: Vec<u8>) -> u64 {
    digest(&bytes)
}

#[process_task]
fn borrowed(bytes: &[u8]) -> u64 {
    digest(bytes)
}

/// The bytes, and in the first of them when they were finished: the way of a result begins then.
#[process_task]
fn made(fill: u8) -> Vec<u8> {
    let mut bytes = vec![fill; LENGTH];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    bytes[..STAMP].copy_from_slice(&now.as_nanos().to_le_bytes());
    bytes
}

const STAMP: usize = size_of::<u128>();

/// Seconds since the stamp.
fn age(bytes: &[u8]) -> Outcome<f64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let stamp = u128::from_le_bytes(bytes[..STAMP].try_into()?);
    Ok(Duration::from_nanos(now.saturating_sub(stamp).try_into()?).as_secs_f64())
}

/// Bytes that are different in every round, so that no result of the last one can pass for one of this.
#[derive(Debug)]
struct Source {
    bytes: Vec<u8>,
    copy: Vec<u8>,
    round: u8,
}

impl Source {
    fn new() -> Self {
        Self { bytes: vec![7; LENGTH], copy: vec![8; LENGTH], round: 0 }
    }

    fn next(&mut self) -> (&[u8], u64) {
        self.round = self.round.wrapping_add(1);
        for place in [0, LENGTH / 2, LENGTH - 1] {
            self.bytes[place] = self.round;
        }
        (&self.bytes, digest(&self.bytes))
    }

    fn ours(&mut self, work: impl FnOnce(&[u8]) -> process_task::Result<u64>) -> Outcome<f64> {
        let (bytes, expected) = self.next();
        each(1, || check(work(bytes)?, expected))
    }

    fn ours_owned(&mut self, work: impl FnOnce(Vec<u8>) -> Outcome<u64>) -> Outcome<f64> {
        let (bytes, expected) = self.next();
        let argument = bytes.to_vec();
        each(1, || check(work(argument)?, expected))
    }

    fn copy_to_fresh_memory(&mut self) -> Outcome<f64> {
        let (bytes, expected) = self.next();
        each(1, || check(owned(black_box(bytes).to_vec()), expected))
    }

    fn copy_and_keep(&mut self) -> Outcome<f64> {
        let (bytes, expected) = self.next();
        let (seconds, copy) = timed(1, || Ok(black_box(bytes).to_vec()))?;
        check(digest(&copy), expected)?;
        Ok(seconds)
    }

    fn warm_copy(&mut self) -> Outcome<f64> {
        let (_, expected) = self.next();
        each(1, || {
            black_box(&mut self.copy).copy_from_slice(black_box(&self.bytes));
            check(digest(&self.copy), expected)
        })
    }
}

/// A pool whose worker has answered a call, but has had no long one.
fn pool() -> Outcome<Pool> {
    let pool = Pool::builder().workers(1).build()?;
    check(pool.call(borrowed, &[1])?, 4)?;
    Ok(pool)
}

fn against_to_vec<'a>(mut ours: impl FnMut(&mut Source) -> Outcome<f64> + 'a) -> Race<'a> {
    let (mut source, mut theirs) = (Source::new(), Source::new());
    Race::new(ROUNDS, move || ours(&mut source)).against("call with to_vec", move || theirs.copy_to_fresh_memory())
}

fn against_warm_copy<'a>(mut ours: impl FnMut(&mut Source) -> Outcome<f64> + 'a) -> Race<'a> {
    let (mut source, mut theirs) = (Source::new(), Source::new());
    Race::new(ROUNDS, move || ours(&mut source)).against("warm copy", move || theirs.warm_copy())
}

fn owned_warm() -> Outcome<Measured> {
    let (pool, procspawn, mut source) = (pool()?, procspawn::Pool::new(1)?, Source::new());
    against_to_vec(|source| source.ours_owned(|bytes| Ok(pool.call(owned, bytes)?)))
        .aim(1.3)
        .against("procspawn", || source.ours_owned(|bytes| Ok(procspawn.spawn(bytes, *owned).join()?)))
        .beside(python::peer("Python Pool.apply, bytes", Library::Pool, "argument")?)
        .beside(python::peer("Python ProcessPoolExecutor.submit, bytes", Library::Executor, "argument")?)
        .run()
}

fn owned_cold() -> Outcome<Measured> {
    against_to_vec(|source| {
        let pool = pool()?;
        source.ours_owned(|bytes| Ok(pool.call(owned, bytes)?))
    })
    .run()
}

fn owned_spawn() -> Outcome<Measured> {
    against_to_vec(|source| {
        have_spare()?;
        source.ours_owned(|bytes| Ok(owned.spawn(bytes).join()?))
    })
    .run()
}

fn borrowed_warm() -> Outcome<Measured> {
    let pool = pool()?;
    against_warm_copy(|source| source.ours(|bytes| pool.call(borrowed, bytes))).aim(1.5).run()
}

fn borrowed_cold() -> Outcome<Measured> {
    against_warm_copy(|source| {
        let pool = pool()?;
        source.ours(|bytes| pool.call(borrowed, bytes))
    })
    .run()
}

fn borrowed_spawn() -> Outcome<Measured> {
    against_warm_copy(|source| {
        have_spare()?;
        source.ours(|bytes| borrowed.spawn(bytes).join())
    })
    .run()
}

fn result_warm() -> Outcome<Measured> {
    let (pool, procspawn) = (pool()?, procspawn::Pool::new(1)?);
    let (mut fills, mut procspawn_fills, mut source) = (0..=u8::MAX, 0..=u8::MAX, Source::new());
    Race::new(ROUNDS, || received(&mut fills, |fill| Ok(pool.call(made, fill)?)))
        .against("to_vec", || source.copy_and_keep())
        .aim(1.3)
        .against("procspawn", || received(&mut procspawn_fills, |fill| Ok(procspawn.spawn(fill, *made).join()?)))
        .beside(python::peer("Python Pool.apply, bytes", Library::Pool, "result")?)
        .beside(python::peer("Python ProcessPoolExecutor.submit, bytes", Library::Executor, "result")?)
        .run()
}

/// How long a result was on its way. There are more `fills` than rounds.
fn received(fills: &mut impl Iterator<Item = u8>, make: impl FnOnce(u8) -> Outcome<Vec<u8>>) -> Outcome<f64> {
    let fill = fills.next().ok_or("there are more rounds than bytes")?;
    let result = make(fill)?;
    let seconds = age(&result)?;
    check(result.len() == LENGTH && result[STAMP..].iter().all(|byte| *byte == fill), true)?;
    Ok(seconds)
}

/// Has the first process made, and gives the spare that follows it time to come.
fn have_spare() -> Outcome<()> {
    check(borrowed.spawn(&[1]).join()?, 4)?;
    std::thread::sleep(Duration::from_millis(10));
    Ok(())
}
