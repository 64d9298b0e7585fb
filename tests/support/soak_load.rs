//! The load of a soak: which thread submits what, and what may have come of it.
//!
//! Runs in: the test process, but for the task. Never: forgets a call that it made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use process_task::{Error, ErrorKind, Execution, JoinHandle, Pool, Result, WaitFor, process_task, wait};

use crate::support::executor::block_on;
use crate::support::scratch::Scratch;

/// Leaves its number in the log, in one write, and answers what only this number has.
#[process_task]
pub(crate) fn run(log: &str, number: u64, padding: &[u8]) -> (u64, Vec<u8>) {
    let mut log = OpenOptions::new().append(true).open(log).expect("the log");
    log.write_all(&number.to_le_bytes()).expect("a log that can be written to");
    if number.is_multiple_of(64) {
        thread::sleep(Duration::from_millis(3));
    }
    (answer(number), padding.iter().rev().copied().collect())
}

fn answer(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5555
}

/// What only the call of this number is given; now and then too long for the ring.
fn padding(number: u64) -> Vec<u8> {
    let len = if number.is_multiple_of(97) { 40_000 } else { number % 50 };
    (0..len).map(|at| (number.wrapping_add(at) & 0xff) as u8).collect()
}

/// What became of one call.
pub(crate) struct Settled {
    number: u64,
    outcome: Result<(u64, Vec<u8>)>,
    /// How often it may have been run.
    attempts: u32,
    /// Whether a thread was told that it had cancelled it.
    cancelled: bool,
    /// Whether the outcome is that of a map which another call may have made fail.
    of_map: bool,
}

impl Settled {
    fn once(number: u64, outcome: Result<(u64, Vec<u8>)>) -> Self {
        Self { number, outcome, attempts: 1, cancelled: false, of_map: false }
    }
}

/// A call on its way.
pub(crate) struct One {
    number: u64,
    handle: JoinHandle<(u64, Vec<u8>)>,
}

impl One {
    pub(crate) fn join(self) -> Settled {
        Settled::once(self.number, self.handle.join())
    }

    fn cancel(&self, running: bool) -> bool {
        if running { self.handle.cancel_running() } else { self.handle.cancel() }
    }
}

/// The threads that make calls, how many, and until when.
pub(crate) struct Load {
    pub(crate) pool: Pool,
    scratch: Scratch,
    log: String,
    numbers: AtomicU64,
    pub(crate) over: AtomicBool,
}

/// How many calls came to what.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) calls: usize,
    pub(crate) good: usize,
    pub(crate) cancelled: usize,
    pub(crate) late: usize,
    pub(crate) killed: usize,
    pub(crate) in_failed_maps: usize,
}

impl Load {
    pub(crate) fn new(pool: Pool) -> Self {
        let scratch = Scratch::new();
        let log = scratch.file("log");
        std::fs::write(&log, "").expect("a file for the log");
        Self { pool, scratch, log, numbers: AtomicU64::new(0), over: AtomicBool::new(false) }
    }

    fn next(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed)
    }

    pub(crate) fn submit(&self) -> One {
        let number = self.next();
        One { number, handle: self.pool.submit(run, (&self.log, number, &padding(number))) }
    }

    /// Does `some` again and again until it is over.
    fn repeat(&self, mut some: impl FnMut(&mut Vec<Settled>)) -> Vec<Settled> {
        let mut settled = Vec::new();
        while !self.over.load(Relaxed) {
            some(&mut settled);
        }
        settled
    }

    fn burst(&self, size: usize) -> Vec<One> {
        (0..size).map(|_| self.submit()).collect()
    }

    pub(crate) fn submit_and_join(&self, burst: usize) -> Vec<Settled> {
        self.repeat(|settled| settled.extend(self.burst(burst).into_iter().map(One::join)))
    }

    pub(crate) fn submit_and_await(&self) -> Vec<Settled> {
        self.repeat(|settled| {
            let One { number, handle } = self.submit();
            settled.push(Settled::once(number, block_on(handle)));
        })
    }

    pub(crate) fn submit_and_cancel(&self) -> Vec<Settled> {
        let mut random = Random::new(7);
        self.repeat(|settled| settled.extend(self.cancel_some(&mut random, 30)))
    }

    /// A burst of which some are cancelled, before they run, while they do, or too late.
    fn cancel_some(&self, random: &mut Random, burst: usize) -> Vec<Settled> {
        let calls = self.burst(burst);
        let chosen = |call: One| match random.below(4) {
            0 => (call.cancel(false), call),
            // Each kill costs a new worker, so they are few.
            1 if random.below(16) == 0 => (call.cancel(true), call),
            _ => (false, call),
        };
        let chosen: Vec<_> = calls.into_iter().map(chosen).collect();
        chosen.into_iter().map(|(cancelled, call)| Settled { cancelled, ..call.join() }).collect()
    }

    pub(crate) fn submit_with_deadlines(&self) -> Vec<Settled> {
        self.repeat(|settled| {
            let submit = |number| {
                let hurried = run.timeout(Duration::from_millis(3 + number % 30));
                One { number, handle: self.pool.submit(hurried, (&self.log, number, &padding(number))) }
            };
            let calls: Vec<_> = (0..10).map(|_| submit(self.next())).collect();
            settled.extend(calls.into_iter().map(One::join));
        })
    }

    pub(crate) fn submit_with_retries(&self) -> Vec<Settled> {
        self.repeat(|settled| {
            let submit = |number| {
                let again = run.retries(3);
                One { number, handle: self.pool.submit(again, (&self.log, number, &padding(number))) }
            };
            let calls: Vec<_> = (0..10).map(|_| submit(self.next())).collect();
            settled.extend(calls.into_iter().map(|call| Settled { attempts: 4, ..call.join() }));
        })
    }

    pub(crate) fn be_called_back(&self) -> Vec<Settled> {
        self.repeat(|settled| {
            let (sender, called): (Sender<Settled>, Receiver<_>) = mpsc::channel();
            for One { number, handle } in self.burst(20) {
                let sender = sender.clone();
                handle.on_done(move |outcome| {
                    sender.send(Settled::once(number, outcome)).expect("the test waits");
                });
            }
            drop(sender);
            // Ends when the last callback is gone; one that was called twice would be written down twice.
            settled.extend(called);
        })
    }

    pub(crate) fn imap(&self) -> Vec<Settled> {
        self.repeat(|settled| {
            let items: Vec<_> = (0..40).map(|_| self.next()).map(|number| (number, padding(number))).collect();
            let arguments = items.iter().map(|(number, padding)| (self.log.as_str(), *number, padding.as_slice()));
            let outcomes = items.iter().zip(self.pool.imap(run, arguments));
            let one = |((number, _), outcome): (&(u64, _), _)| Settled::once(*number, outcome);
            settled.extend(outcomes.map(one));
        })
    }

    pub(crate) fn map(&self) -> Vec<Settled> {
        self.repeat(|settled| {
            let items: Vec<_> = (0..200).map(|_| self.next()).map(|number| (number, padding(number))).collect();
            let arguments = items.iter().map(|(number, padding)| (self.log.as_str(), *number, padding.as_slice()));
            let outcomes = match self.pool.map(run, arguments) {
                Ok(results) => results.into_iter().map(Ok).collect(),
                // Only one of them failed so; but of the others nothing is known either.
                Err(error) => vec![Err(error); items.len()],
            };
            assert_eq!(outcomes.len(), items.len());
            let numbers = items.into_iter().map(|(number, _)| number);
            settled.extend(
                numbers
                    .zip(outcomes)
                    .map(|(number, outcome)| Settled { of_map: true, ..Settled::once(number, outcome) }),
            );
        })
    }

    /// One of 64 threads: bursts that are joined, waited for together, or cancelled in part; and now and then a new size.
    pub(crate) fn at_random(&self, seed: u64) -> Vec<Settled> {
        let mut random = Random::new(seed);
        self.repeat(|settled| {
            let burst = 1 + usize::try_from(random.below(20)).expect("a size");
            match random.below(8) {
                0 => {
                    let workers = 2 + usize::try_from(random.below(4)).expect("a size");
                    self.pool.resize(workers).expect("the pool is open");
                }
                1..=3 => settled.extend(self.cancel_some(&mut random, burst)),
                4 => {
                    let (numbers, handles): (Vec<_>, Vec<_>) =
                        self.burst(burst).into_iter().map(|One { number, handle }| (number, handle)).unzip();
                    let done = wait(handles, WaitFor::All, None).done;
                    assert_eq!(done.len(), numbers.len());
                    settled.extend(numbers.into_iter().zip(done).map(|(number, handle)| One { number, handle }.join()));
                }
                _ => settled.extend(self.burst(burst).into_iter().map(One::join)),
            }
        })
    }

    /// Ends the pool, and compares what was said of each call with what it left in the log.
    pub(crate) fn check(self, settled: Vec<Settled>) -> Report {
        drop(self.pool);
        let ran = runs(&std::fs::read(self.scratch.path().join("log")).expect("the log"));
        let made = self.numbers.into_inner();
        let numbers: BTreeSet<_> = settled.iter().map(|one| one.number).collect();
        assert!(numbers.iter().copied().eq(0..made), "calls were lost: {} of {made} were settled", numbers.len());
        assert_eq!(settled.len() as u64, made, "calls were settled twice");
        let mut report = Report { calls: settled.len(), ..Report::default() };
        for Settled { number, outcome, attempts, cancelled, of_map } in settled {
            let times = ran.get(&number).copied().unwrap_or(0);
            assert!(times <= attempts, "call {number} ran {times} times");
            assert!(!cancelled || is_cancelled(&outcome), "call {number} was cancelled: {outcome:?}");
            match outcome {
                Ok((answered, back)) => {
                    assert_eq!(answered, answer(number), "call {number}");
                    assert!(back.iter().rev().eq(&padding(number)), "call {number} was given something else back");
                    assert!(times >= 1, "call {number} has a result and never ran");
                    report.good += 1;
                }
                Err(error) => {
                    let did_not_start = error.execution() == Execution::NotStarted;
                    assert!(!did_not_start || times == 0, "call {number} ran: {error}");
                    match error.kind() {
                        ErrorKind::Cancelled => report.cancelled += 1,
                        ErrorKind::TimedOut { .. } => report.late += 1,
                        ErrorKind::Killed { signal: 9, .. } if of_map => report.in_failed_maps += 1,
                        ErrorKind::Killed { signal: 9, .. } if !did_not_start => report.killed += 1,
                        _ => panic!("call {number}: {error}"),
                    }
                    assert!(
                        cancelled || *error.kind() != ErrorKind::Cancelled,
                        "call {number} was not cancelled: {error}"
                    );
                }
            }
        }
        report
    }
}

fn is_cancelled<R>(outcome: &Result<R>) -> bool {
    outcome.as_ref().err().map(Error::kind) == Some(&ErrorKind::Cancelled)
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

/// Numbers that are the same for the same seed: xorshift.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % end
    }
}
