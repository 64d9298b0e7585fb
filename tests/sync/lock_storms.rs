//! Time-outs of locks and conditions in a process that is showered with signals: neither early, nor much late.
//!
//! Runs in: the test process; what is showered is a child, so that no other process's signals are touched.
//! Never: takes one slow round for a fault; that the machine was busy is no reason to fail.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::support::shared_counter::{Stage, reach, stage as new_stage, until};
use crate::support::signal_storm::{HANDLED, storm};
use process_task::sync::{Condvar, Mutex, ReentrantMutex, TryLockError};
use process_task::{ProcessBuilder, Shared, StartMethod, process_task};

under_every_start_method! {
    time_outs_in_a_storm_of_signals_are_neither_early_nor_late,
    a_storm_of_signals_neither_wakes_nor_unlocks,
}

type All = Shared<(Mutex<u32>, Condvar, ReentrantMutex<u32>, Mutex<u32>)>;

fn all() -> All {
    Shared::new((Mutex::new(0), Condvar::new(), ReentrantMutex::new(0), Mutex::new(0))).unwrap()
}

/// How long each of the waits took, and how many signals came meanwhile. The mutexes but the last are held elsewhere.
#[process_task]
fn time_out_in_a_storm(all: &All, time: Duration) -> ([Duration; 3], u32) {
    let (mutex, changed, reentrant, own) = &**all;
    storm();
    let waits: [&dyn Fn() -> bool; 3] = [
        &|| matches!(mutex.lock_timeout(time), Err(TryLockError::WouldBlock)),
        &|| matches!(reentrant.lock_timeout(time), Err(TryLockError::WouldBlock)),
        &|| changed.wait_timeout_while(own.lock().unwrap(), time, |never| *never == 0).unwrap().1.timed_out(),
    ];
    let before = HANDLED.load(Relaxed);
    let took = waits.map(|wait| {
        let start = Instant::now();
        assert!(wait());
        start.elapsed()
    });
    (took, HANDLED.load(Relaxed) - before)
}

fn time_outs_in_a_storm_of_signals_are_neither_early_nor_late(method: StartMethod) {
    const TIME: Duration = Duration::from_millis(120);
    let all = all();
    let (_mutex, _reentrant) = (all.0.lock().unwrap(), all.2.lock().unwrap());
    let mut seen = vec![];
    let in_time = |took: &[Duration; 3]| took.iter().all(|took| *took < TIME + Duration::from_millis(60));
    while !seen.iter().any(in_time) {
        assert!(seen.len() < 15, "it takes too long: {seen:?}");
        let process = ProcessBuilder::new().start_method(method).spawn(time_out_in_a_storm, (&all, TIME)).unwrap();
        let (took, signals) = process.join().unwrap();
        assert!(took.iter().all(|took| *took >= TIME), "early: {took:?}");
        assert!(signals > 100, "there was no storm");
        seen.push(took);
    }
}

/// Waits for a change, and for a mutex, that another process holds.
#[process_task]
fn wait_in_a_storm(all: &All, stage: &Stage) -> u32 {
    let (mutex, changed, _, own) = &**all;
    storm();
    let guard = own.lock().unwrap();
    reach(stage);
    let guard = changed.wait(guard).unwrap();
    let woken_for = *guard;
    drop(guard);
    reach(stage);
    woken_for + *mutex.lock().unwrap()
}

fn a_storm_of_signals_neither_wakes_nor_unlocks(method: StartMethod) {
    let (all, stage) = (all(), new_stage());
    let (mutex, changed, _, own) = &*all;
    let mut held = mutex.lock().unwrap();
    let process = ProcessBuilder::new().start_method(method).spawn(wait_in_a_storm, (&all, &stage)).unwrap();
    until(&stage, 1);
    drop(own.lock().unwrap());
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(stage.load(Relaxed), 1, "a waiter was woken by a signal");
    *own.lock().unwrap() = 20;
    changed.notify_one();
    until(&stage, 2);
    std::thread::sleep(Duration::from_millis(100));
    assert!(!process.is_finished());
    *held = 3;
    drop(held);
    assert_eq!(process.join().unwrap(), 23);
}
