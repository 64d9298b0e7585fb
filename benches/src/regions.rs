//! Shared memory as an argument: what it costs to pass it, whatever its size, and to read it in two workers at once.
//!
//! Threads find the pages of their process in place, and so do workers that keep what the initializer was given. Workers that are
//! given the memory with a call get its pages one by one as they read them, which costs more than to add up what is in them.
//!
//! Runs in: the parent; [`number_at`] and the sums in workers. Never: counts the making of the memory.

use std::hint::black_box;
use std::thread;

use process_task::{JoinHandle, Pool, Shared, SharedMut, process_task, worker_state};

use crate::maps::rayon_pool;
use crate::measure::{check, each, one_by_one};
use crate::python::Library;
use crate::race::{Measured, Race};
use crate::table::{Row, Unit};
use crate::{Outcome, WORKERS, python};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "call with a Shared<[f64]> of 1 GiB", unit: Unit::Seconds, run: pass },
    Row { name: "sum of 256 MiB, shared memory of each call", unit: Unit::Seconds, run: sum_passed },
    Row { name: "sum of 256 MiB, shared memory of the workers", unit: Unit::Seconds, run: sum_kept },
];

const GIBIBYTE: usize = (1 << 30) / size_of::<f64>();
/// How many numbers are 256 MiB.
const LENGTH: u32 = (256 << 20) / 8;

#[process_task]
fn number_at(numbers: Shared<[f64]>, place: usize) -> f64 {
    numbers[place]
}

fn pass() -> Outcome<Measured> {
    const CALLS: u32 = 200;
    let pool = Pool::builder().workers(1).build()?;
    let (large, small) = (with_number_at(GIBIBYTE, GIBIBYTE / 2)?, with_number_at(1, 0)?);
    let read = |numbers: &Shared<[f64]>, place| {
        one_by_one(CALLS, |_| check(pool.call(number_at, (numbers.clone(), place))?, MARK))
    };
    Race::new(15, || read(&large, GIBIBYTE / 2))
        .against("one of 8 bytes", || read(&small, 0))
        .aim(1.2)
        .beside(python::peer("Python Pool.apply, SharedMemory of 1 GiB", Library::Pool, "shared_memory")?)
        .run()
}

const MARK: f64 = 42.5;

fn with_number_at(length: usize, place: usize) -> Outcome<Shared<[f64]>> {
    let mut numbers = SharedMut::zeroed(length)?;
    numbers[place] = MARK;
    Ok(numbers.freeze()?)
}

/// In eight sums, so that the memory sets the speed, and not how long one addition waits for the last.
fn sum(numbers: &[f64]) -> f64 {
    let (chunks, rest) = numbers.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for chunk in chunks {
        for (sum, number) in sums.iter_mut().zip(chunk) {
            *sum += number;
        }
    }
    sums.iter().chain(rest).sum()
}

/// One of the parts, of which each worker, or thread, has one.
fn part(numbers: &[f64], which: usize) -> &[f64] {
    let length = numbers.len() / WORKERS;
    &numbers[which * length..(which + 1) * length]
}

#[process_task]
fn sum_part(numbers: Shared<[f64]>, which: usize) -> f64 {
    sum(part(&numbers, which))
}

/// What a worker keeps for its calls.
#[derive(Default)]
struct Kept(Option<Shared<[f64]>>);

#[process_task]
fn keep(numbers: Shared<[f64]>) {
    worker_state::<Kept>().0 = Some(numbers);
}

#[process_task]
fn sum_part_of_kept(which: usize) -> f64 {
    worker_state::<Kept>().0.as_ref().map_or(f64::NAN, |numbers| sum(part(numbers, which)))
}

/// Integers, so that every sum is exact.
fn numbers() -> impl ExactSizeIterator<Item = f64> {
    (0..LENGTH).map(|place| f64::from(place % 1_000))
}

/// All parts at once, and their sum.
fn joined(parts: impl Iterator<Item = JoinHandle<f64>>) -> Outcome<f64> {
    let parts: Vec<_> = parts.collect();
    parts.into_iter().map(|part| Ok(part.join()?)).sum()
}

fn sum_passed() -> Outcome<Measured> {
    let shared = Shared::from_iter(numbers())?;
    let pool = Pool::builder().workers(WORKERS).build()?;
    against_threads(None, || joined((0..WORKERS).map(|which| pool.submit(sum_part, (shared.clone(), which)))))
}

fn sum_kept() -> Outcome<Measured> {
    let shared = Shared::from_iter(numbers())?;
    let pool = Pool::builder().workers(WORKERS).initializer(keep, shared).build()?;
    against_threads(Some(1.0 / 0.95), || joined((0..WORKERS).map(|which| pool.submit(sum_part_of_kept, which))))
}

fn against_threads(aim: Option<f64>, mut ours: impl FnMut() -> Outcome<f64>) -> Outcome<Measured> {
    let vec = &*numbers().collect::<Vec<f64>>();
    let (expected, rayon) = (numbers().sum::<f64>(), rayon_pool()?);
    let in_rayon = || {
        let (one, other) = rayon.join(|| sum(part(black_box(vec), 0)), || sum(part(black_box(vec), 1)));
        one + other
    };
    let in_threads = || {
        thread::scope(|scope| {
            let threads = [0, 1].map(|which| scope.spawn(move || sum(part(black_box(vec), which))));
            threads.into_iter().map(|thread| thread.join().unwrap_or(f64::NAN)).sum::<f64>()
        })
    };
    let race = Race::new(15, || each(1, || check(ours()?, expected)))
        .against("two threads of rayon's, a Vec", || each(1, || check(in_rayon(), expected)));
    let race = if let Some(aim) = aim { race.aim(aim) } else { race };
    race.against("two new threads, a Vec", || each(1, || check(in_threads(), expected))).run()
}
