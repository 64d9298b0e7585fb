//! 64 MiB as an argument or a result, against copying them inside this process.
//!
//! Runs in: the parent. Never: counts the making of the argument, which the caller has anyway.
//!
//! | yardstick | what it is |
//! |---|---|
//! | `to_vec` | the same function called here with a copy in fresh memory: allocation, page faults, copy, release |
//! | warm copy | `copy_from_slice` between two buffers whose pages are all present |
//!
//! A *cold* parcel is one that did not exist before: the first long argument of a pool, and every one of a `spawn`.

use std::hint::black_box;
use std::time::Duration;

use process_task::{Pool, process_task};

use crate::Outcome;
use crate::measure::{Comparison, alternately, check, each, timed};
use crate::table::Row;

pub(crate) const ROWS: &[Row] = &[
    Row { name: "64 MiB Vec<u8>, pool", yardstick: "to_vec", aim: Some(1.5), run: owned_warm },
    Row { name: "64 MiB Vec<u8>, pool, cold parcel", yardstick: "to_vec", aim: None, run: owned_cold },
    Row { name: "64 MiB Vec<u8>, spawn", yardstick: "to_vec", aim: None, run: owned_spawn },
    Row { name: "64 MiB &[u8], pool", yardstick: "warm copy", aim: Some(2.0), run: borrowed_warm },
    Row { name: "64 MiB &[u8], pool, cold parcel", yardstick: "warm copy", aim: None, run: borrowed_cold },
    Row { name: "64 MiB &[u8], spawn", yardstick: "warm copy", aim: None, run: borrowed_spawn },
    Row { name: "64 MiB Vec<u8> as result, pool", yardstick: "to_vec", aim: None, run: result_warm },
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

#[process_task]
fn made(fill: u8) -> Vec<u8> {
    vec![fill; LENGTH]
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

    fn ours_owned(&mut self, work: impl FnOnce(Vec<u8>) -> process_task::Result<u64>) -> Outcome<f64> {
        let (bytes, expected) = self.next();
        let argument = bytes.to_vec();
        each(1, || check(work(argument)?, expected))
    }

    fn copy_to_fresh_memory(&mut self) -> Outcome<f64> {
        let (bytes, expected) = self.next();
        each(1, || check(owned(black_box(bytes).to_vec()), expected))
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

fn against_to_vec(mut ours: impl FnMut(&mut Source) -> Outcome<f64>) -> Outcome<Comparison> {
    let (mut source, mut theirs) = (Source::new(), Source::new());
    alternately(ROUNDS, || ours(&mut source), || theirs.copy_to_fresh_memory())
}

fn against_warm_copy(mut ours: impl FnMut(&mut Source) -> Outcome<f64>) -> Outcome<Comparison> {
    let (mut source, mut theirs) = (Source::new(), Source::new());
    alternately(ROUNDS, || ours(&mut source), || theirs.warm_copy())
}

fn owned_warm() -> Outcome<Comparison> {
    let pool = pool()?;
    against_to_vec(|source| source.ours_owned(|bytes| pool.call(owned, bytes)))
}

fn owned_cold() -> Outcome<Comparison> {
    against_to_vec(|source| {
        let pool = pool()?;
        source.ours_owned(|bytes| pool.call(owned, bytes))
    })
}

fn owned_spawn() -> Outcome<Comparison> {
    against_to_vec(|source| {
        have_spare()?;
        source.ours_owned(|bytes| owned.spawn(bytes).join())
    })
}

fn borrowed_warm() -> Outcome<Comparison> {
    let pool = pool()?;
    against_warm_copy(|source| source.ours(|bytes| pool.call(borrowed, bytes)))
}

fn borrowed_cold() -> Outcome<Comparison> {
    against_warm_copy(|source| {
        let pool = pool()?;
        source.ours(|bytes| pool.call(borrowed, bytes))
    })
}

fn borrowed_spawn() -> Outcome<Comparison> {
    against_warm_copy(|source| {
        have_spare()?;
        source.ours(|bytes| borrowed.spawn(bytes).join())
    })
}

fn result_warm() -> Outcome<Comparison> {
    let pool = pool()?;
    against_to_vec(|source| {
        let (bytes, _) = source.next();
        let fill = bytes[0];
        let (seconds, result) = timed(1, || Ok(pool.call(made, fill)?))?;
        check(result.len() == LENGTH && result.iter().all(|byte| *byte == fill), true)?;
        Ok(seconds)
    })
}

/// Has the first process made, and gives the spare that follows it time to come.
fn have_spare() -> Outcome<()> {
    check(borrowed.spawn(&[1]).join()?, 4)?;
    std::thread::sleep(Duration::from_millis(10));
    Ok(())
}
