//! Workers are killed at random under load, and every call is settled once, with the right value or the right error.
//!
//! Runs in: the test process; its tasks run in workers. Never: signals a process that the pool did not start.
//!
//! 100 kills under each start method, times `PROCESS_TASK_ROUNDS`. Each call that runs leaves its number in a
//! file, so that a call that ran twice, or was said to have run and did not, is found.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crate::support::executor::block_on;
use crate::support::rounds;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_task::{ErrorKind, Execution, Pool, Result, StartMethod, active_children, process_task};

under_every_start_method! {
    within 600 seconds;
    every_call_is_settled_once_while_workers_are_killed,
}

const WORKERS: usize = 4;

/// Leaves its number in the log, in one write, and answers what only this number has.
#[process_task]
fn run(log: &str, number: u64, padding: &[u8]) -> (u64, Vec<u8>) {
    let mut log = OpenOptions::new().append(true).open(log).expect("the log");
    log.write_all(&number.to_le_bytes()).expect("a log that can be written to");
    if number.is_multiple_of(64) {
        thread::sleep(Duration::from_millis(1));
    }
    (answer(number), padding.iter().rev().copied().collect())
}

fn answer(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5555
}

/// What only the call of this number is given; now and then too long for the ring.
fn padding(number: u64) -> Vec<u8> {
    let long = number.is_multiple_of(97);
    let len = if long { 40_000 } else { number % 50 };
    (0..len).map(|at| (number.wrapping_add(at) & 0xff) as u8).collect()
}

/// How calls ended, by their numbers.
type Settled = Vec<(u64, Result<(u64, Vec<u8>)>)>;

struct Load<'a> {
    pool: &'a Pool,
    log: &'a str,
    over: &'a AtomicBool,
    numbers: &'a AtomicU64,
}

impl Load<'_> {
    fn next(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed)
    }

    /// Keeps `burst` calls on the way, and joins them in order.
    fn submit_and_join(&self, burst: u32) -> Settled {
        let mut settled = Vec::new();
        while !self.over.load(Relaxed) {
            let handles: Vec<_> = (0..burst)
                .map(|_| self.next())
                .map(|number| (number, self.pool.submit(run, (self.log, number, &padding(number)))))
                .collect();
            settled.extend(handles.into_iter().map(|(number, handle)| (number, handle.join())));
        }
        settled
    }

    /// Awaits one call after the other.
    fn submit_and_await(&self) -> Settled {
        let mut settled = Vec::new();
        while !self.over.load(Relaxed) {
            let number = self.next();
            let handle = self.pool.submit(run, (self.log, number, &padding(number)));
            settled.push((number, block_on(handle)));
        }
        settled
    }

    /// Gives out calls in lazy maps, whose results come in their items' order.
    fn map(&self) -> Settled {
        let mut settled = Vec::new();
        while !self.over.load(Relaxed) {
            let numbers: Vec<u64> = (0..40).map(|_| self.next()).collect();
            let paddings: Vec<Vec<u8>> = numbers.iter().map(|number| padding(*number)).collect();
            let items = numbers.iter().zip(&paddings).map(|(number, padding)| (self.log, *number, padding.as_slice()));
            settled.extend(numbers.iter().copied().zip(self.pool.imap(run, items)));
        }
        settled
    }
}

/// Kills workers one after the other, each time one of those that are there, and says how many it hit.
fn kill_workers(pool: &Pool, rounds: usize) -> usize {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut kills = 0;
    // In a pool that has ended there is nothing to kill, and what its calls say is looked at.
    while kills < rounds && pool.wait_ended_timeout(Duration::ZERO).is_err() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        thread::sleep(Duration::from_micros(random % 6000));
        let living = active_children();
        // One that was only just asked for has no name yet, and is not the pool's to lose.
        let workers: Vec<_> = living.iter().filter(|child| child.name().starts_with("victim-")).collect();
        // A pool closes when too many workers in a row die before their first call, as they would on a machine that has
        // much else to do.
        if workers.len() < WORKERS / 2 || pool.stats().start_failure.is_some() {
            continue;
        }
        let victim = workers[usize::try_from(random >> 8).unwrap_or(0) % workers.len()].pid();
        if kill(Pid::from_raw(victim.cast_signed()), Signal::SIGKILL).is_ok() {
            kills += 1;
        }
    }
    kills
}

fn every_call_is_settled_once_while_workers_are_killed(method: StartMethod) {
    let log = std::env::temp_dir().join(format!("process-task-soak-{}", std::process::id()));
    std::fs::write(&log, "").expect("a file for the log");
    let pool = Pool::builder().workers(WORKERS).name("victim").start_method(method).build().expect("a pool");
    let (over, numbers) = (AtomicBool::new(false), AtomicU64::new(1));
    let load = Load { pool: &pool, log: log.to_str().expect("a path in UTF-8"), over: &over, numbers: &numbers };
    let (kills, settled) = thread::scope(|scope| {
        let threads = [
            scope.spawn(|| load.submit_and_join(1)),
            scope.spawn(|| load.submit_and_join(150)),
            scope.spawn(|| load.submit_and_await()),
            scope.spawn(|| load.map()),
        ];
        let kills = kill_workers(&pool, rounds(100));
        over.store(true, Relaxed);
        let settled: Settled = threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect();
        (kills, settled)
    });
    assert!(pool.call(run, (load.log, 0, &[])).is_ok(), "the pool goes on");
    drop(pool);

    let ran = runs(&std::fs::read(&log).expect("the log"));
    let _ = std::fs::remove_file(&log);
    assert_eq!(u64::try_from(settled.len()), Ok(numbers.load(Relaxed) - 1), "each number was settled once");
    let mut unknown = 0;
    for (number, outcome) in settled {
        let times = ran.get(&number).copied().unwrap_or(0);
        match outcome {
            Ok((answered, back)) => {
                assert_eq!((answered, times), (answer(number), 1), "call {number}");
                assert!(back.iter().rev().eq(&padding(number)), "call {number} was given something else back");
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Killed { signal: 9, .. }), "call {number}: {error}");
                assert_eq!(error.execution(), Execution::Unknown, "call {number}: {error}");
                assert!(times <= 1, "call {number} ran {times} times");
                unknown += 1;
            }
        }
    }
    assert!(unknown <= kills, "{unknown} calls were lost to {kills} kills");
    assert!(unknown > 0 || kills < 50, "none of {kills} kills hit a call: then nothing was tested");
    println!("{} calls, {kills} kills, {unknown} calls lost", numbers.load(Relaxed));
}

/// How often each number stands in the log.
fn runs(log: &[u8]) -> BTreeMap<u64, u32> {
    let (numbers, rest) = log.as_chunks::<8>();
    assert!(rest.is_empty(), "a number was not written whole");
    let mut ran = BTreeMap::new();
    for number in numbers {
        *ran.entry(u64::from_le_bytes(*number)).or_default() += 1;
    }
    ran
}
