//! A worker that writes over its whole link at any moment leaves no call unsettled, whatever waits for it and however.
//!
//! Runs in: the test process; the attacks run in workers. Never: lets a worker touch another one's memory.
//!
//! The oracle: each call is settled in bounded time, with its own result or with an error, and afterwards the pool works.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::support::executor::block_on;
use crate::support::hostile_worker::{Random, scribble};
use crate::support::link_memory::{Half, RING, WINDOW, WORDS};
use crate::support::{PATIENCE, rounds};
use process_task::{JoinHandle, Pool, StartMethod, process_task};

under_every_start_method! {
    within 600 seconds;
    link_overwritten_by_a_task_settles_every_call,
    link_overwritten_by_a_thread_settles_every_call,
    window_that_a_thread_lowers_is_found,
}

/// What is written over the link.
const ZEROS: u8 = 0;
const ONES: u8 = 1;
const GARBAGE: u8 = 2;
/// All that stood there some moments before.
const OLD: u8 = 3;
/// Says that every call that was given out was claimed.
const CLAIMED: u8 = 4;
/// Says that no call was given out but those that were claimed.
const NO_MORE: u8 = 5;

#[process_task]
fn honest(number: u64) -> u64 {
    number ^ 0x5555
}

/// Overwrites its link at once, or in a thread some microseconds later.
#[process_task]
fn overwrite(what: u8, seed: u64, later: Option<u64>) {
    let len = usize::try_from(WORDS + RING).unwrap();
    let act = move || {
        let half = Half::reply();
        match what {
            ZEROS => half.write(0, &vec![0; len]).unwrap(),
            ONES => half.write(0, &vec![0xff; len]).unwrap(),
            OLD => {
                let old = half.read(0, len);
                thread::sleep(Duration::from_micros(seed % 300));
                half.write(0, &old).unwrap();
            }
            CLAIMED => half.write(WINDOW, &half.read(WINDOW + 4, 4)).unwrap(),
            NO_MORE => half.write(WINDOW + 4, &half.read(WINDOW, 4)).unwrap(),
            _ => scribble(seed, 0, WORDS + RING),
        }
    };
    match later {
        None => act(),
        Some(micros) => drop(thread::spawn(move || {
            thread::sleep(Duration::from_micros(micros));
            act();
        })),
    }
}

#[track_caller]
fn settled<R>(call: JoinHandle<R>, what: &str) -> process_task::Result<R> {
    call.join_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what}: a call is not settled"))
}

fn attack(method: StartMethod, kinds: &[u8], later: bool) {
    let mut random = Random(0x11a5 + method as u64 + u64::from(later));
    let new = |workers| Pool::builder().workers(workers).start_method(method).build().expect("a pool");
    let mut pool = new(1);
    for round in 0..rounds(20) {
        if round % 10 == 0 {
            pool = new(1 + round / 10 % 2);
        }
        let (kind, seed) = (kinds[round % kinds.len()], random.next());
        let what = format!("round {round}, {kind}, {seed}, {} workers", pool.workers());
        let later = later.then(|| random.below(500));
        let submit = |number| (number, pool.submit(honest, number));
        let mut calls: Vec<_> = (0..random.below(6)).map(submit).collect();
        let attacker = pool.submit(overwrite, (kind, seed, later));
        calls.extend((6..6 + random.below(20)).map(submit));
        // A thread that leads, a future, or a callback, for which no thread leads.
        let (sender, receiver) = mpsc::channel();
        let mut called = 0;
        for (number, call) in calls {
            let outcome = match (round / 2 + usize::try_from(number).unwrap()) % 3 {
                0 => settled(call, &what),
                1 => {
                    let sender = sender.clone();
                    call.on_done(move |outcome| drop(sender.send((number, outcome))));
                    called += 1;
                    continue;
                }
                _ => {
                    assert!(call.wait_timeout(PATIENCE).is_ok(), "{what}: a call is not settled");
                    block_on(call)
                }
            };
            assert!(outcome.is_err() || outcome == Ok(number ^ 0x5555), "{what}: call {number} got {outcome:?}");
        }
        for _ in 0..called {
            let (number, outcome) = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what}: no callback"));
            assert!(outcome.is_err() || outcome == Ok(number ^ 0x5555), "{what}: call {number} got {outcome:?}");
        }
        drop(settled(attacker, &what));
        // The attack may be still to come, and costs those that run then.
        for number in 0..4 {
            let outcome = settled(pool.submit(honest, number), &what);
            assert!(outcome.is_err() || outcome == Ok(number ^ 0x5555), "{what}: call {number} got {outcome:?}");
        }
    }
    let last = new(1);
    assert_eq!(last.call(honest, 3), Ok(3 ^ 0x5555));
}

fn link_overwritten_by_a_task_settles_every_call(method: StartMethod) {
    attack(method, &[ZEROS, ONES, GARBAGE, OLD, CLAIMED, NO_MORE], false);
}

fn link_overwritten_by_a_thread_settles_every_call(method: StartMethod) {
    attack(method, &[ZEROS, ONES, GARBAGE, OLD], true);
}

fn window_that_a_thread_lowers_is_found(method: StartMethod) {
    attack(method, &[NO_MORE, CLAIMED], true);
}
