//! `sync::Mutex` in shared memory, against the mutexes of threads and of Python's processes: alone, and with a neighbour that
//! wants it too. The figures are for one time of taking it and giving it back.
//!
//! Runs in: the parent, and [`contend`] in two processes or two threads. Never: lets anything else lie beside a mutex in its
//! cache line but the number that it guards.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use process_task::sync::Mutex;
use process_task::{Shared, process_task};

use crate::measure::{check, each};
use crate::python::Library;
use crate::race::{Measured, Race};
use crate::table::{Row, Unit};
use crate::{Outcome, python};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "Mutex, lock + unlock, alone", unit: Unit::Seconds, run: alone },
    Row { name: "Mutex, two processes that want it", unit: Unit::Seconds, run: contended },
];

/// How many want the mutex.
const CONTENDERS: u32 = 2;
/// How long they want it, in a round.
const WHILE: Duration = Duration::from_millis(100);

/// A mutex around a number.
trait Counter: Sync {
    /// One time of taking it, and what it is for.
    fn count(&self);
    fn counted(&self) -> u64;
}

impl Counter for Mutex<u64> {
    fn count(&self) {
        *self.lock().expect("no process died with it") += 1;
    }

    fn counted(&self) -> u64 {
        *self.lock().expect("no process died with it")
    }
}

impl Counter for std::sync::Mutex<u64> {
    fn count(&self) {
        *self.lock().expect("no thread panicked with it") += 1;
    }

    fn counted(&self) -> u64 {
        *self.lock().expect("no thread panicked with it")
    }
}

impl Counter for parking_lot::Mutex<u64> {
    fn count(&self) {
        *self.lock() += 1;
    }

    fn counted(&self) -> u64 {
        *self.lock()
    }
}

fn alone() -> Outcome<Measured> {
    let ours = Shared::new(Mutex::new(0))?;
    let (std, parking_lot) = (std::sync::Mutex::new(0), parking_lot::Mutex::new(0));
    Race::new(15, || count_alone(&*ours))
        .against("std::sync::Mutex", || count_alone(&std))
        .aim(1.5)
        .against("parking_lot::Mutex", || count_alone(&parking_lot))
        .beside(python::peer("Python multiprocessing.Lock", Library::Process, "lock")?)
        .aim(0.02)
        .run()
}

fn count_alone(counter: &impl Counter) -> Outcome<f64> {
    const COUNT: u32 = 500_000;
    let before = counter.counted();
    let seconds = each(COUNT, || {
        (0..COUNT).for_each(|_| black_box(counter).count());
        Ok(())
    })?;
    check(counter.counted() - before, u64::from(COUNT))?;
    Ok(seconds)
}

/// What the contenders of one round have in common beside the mutex.
type Course = [AtomicU32; 2];
/// The place of how many contenders are there.
const READY: usize = 0;
/// The place of whether they are to end.
const OVER: usize = 1;

#[process_task]
fn contend_in_process(counter: Shared<Mutex<u64>>, course: Shared<Course>) -> (u64, f64) {
    contend(&*counter, &course)
}

/// Takes the mutex again and again until it is over: how often, and in how many seconds.
fn contend(counter: &impl Counter, course: &Course) -> (u64, f64) {
    course[READY].fetch_add(1, Ordering::Relaxed);
    while course[READY].load(Ordering::Relaxed) < CONTENDERS {
        spin_loop();
    }
    let (start, mut times) = (Instant::now(), 0);
    while course[OVER].load(Ordering::Relaxed) == 0 {
        counter.count();
        times += 1;
    }
    (times, start.elapsed().as_secs_f64())
}

fn contended() -> Outcome<Measured> {
    Race::new(9, processes)
        .against("two threads, std::sync::Mutex", || threads(&std::sync::Mutex::new(0)))
        .aim(1.0 / 0.7)
        .against("two threads, parking_lot::Mutex", || threads(&parking_lot::Mutex::new(0)))
        .beside(python::peer("Python multiprocessing.Lock, two processes", Library::Process, "contended_lock")?)
        .run()
}

fn processes() -> Outcome<f64> {
    let (counter, course) = (Shared::new(Mutex::new(0))?, Shared::new(Course::default())?);
    let contenders: Vec<_> =
        (0..CONTENDERS).map(|_| contend_in_process.spawn(counter.clone(), course.clone())).collect();
    let_them_run(&course);
    let results = contenders.into_iter().map(|contender| Ok(contender.join()?)).collect::<Outcome<Vec<_>>>()?;
    seconds_each(&results, counter.counted())
}

fn threads(counter: &impl Counter) -> Outcome<f64> {
    // Where ours is, so that nothing but the mutex differs.
    let course = Shared::new(Course::default())?;
    let results = thread::scope(|scope| {
        let contenders: Vec<_> = (0..CONTENDERS).map(|_| scope.spawn(|| contend(counter, &course))).collect();
        let_them_run(&course);
        let join =
            |contender: thread::ScopedJoinHandle<'_, _>| contender.join().map_err(|_| "a thread panicked".into());
        contenders.into_iter().map(join).collect::<Outcome<Vec<_>>>()
    })?;
    seconds_each(&results, counter.counted())
}

/// Sleeps meanwhile: both cores are theirs.
fn let_them_run(course: &Course) {
    let start = Instant::now();
    while course[READY].load(Ordering::Relaxed) < CONTENDERS && start.elapsed() < 10 * WHILE {
        thread::sleep(Duration::from_micros(100));
    }
    thread::sleep(WHILE);
    course[OVER].store(1, Ordering::Relaxed);
}

/// Seconds for one time, of both together.
fn seconds_each(results: &[(u64, f64)], counted: u64) -> Outcome<f64> {
    check(results.iter().map(|(times, _)| times).sum::<u64>(), counted)?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let in_a_second: f64 = results.iter().map(|(times, seconds)| *times as f64 / seconds).sum();
    Ok(1.0 / in_a_second)
}
