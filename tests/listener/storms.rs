//! Time-outs of semaphores, events, barriers and read-write locks in a process that is showered with signals: never early, and not
//! without end.
//!
//! Runs in: the test process; what is showered is a child, so that no other process's signals are touched.
//! Never: takes one slow round for a fault; that the machine was busy is no reason to fail.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::chaos::start;
use crate::support::signal_storm::{HANDLED, storm};
use process_task::sync::{Barrier, Event, RwLock, Semaphore, TryLockError};
use process_task::{Shared, StartMethod, process_task};

under_every_start_method! {
    time_outs_in_a_storm_of_signals_are_neither_early_nor_late,
    signal_storm_ends_no_wait_early,
}

type All = Shared<(Semaphore, Event, Barrier, RwLock<u32>, RwLock<u32>)>;

fn all() -> All {
    Shared::new((Semaphore::new(0), Event::new(), Barrier::new(2), RwLock::new(0), RwLock::new(0))).unwrap()
}

/// How long each of the waits took, and how many signals came meanwhile.
#[process_task]
fn time_out_in_a_storm(all: &All, time: Duration) -> ([Duration; 5], u32) {
    let (permits, event, barrier, read, written) = &**all;
    storm();
    let waits: [&dyn Fn() -> bool; 5] = [
        &|| permits.acquire_timeout(time).is_err(),
        &|| event.wait_timeout(time).is_err(),
        &|| barrier.wait_timeout(time).is_err(),
        &|| matches!(read.write_timeout(time), Err(TryLockError::WouldBlock)),
        &|| matches!(written.read_timeout(time), Err(TryLockError::WouldBlock)),
    ];
    let before = HANDLED.load(Relaxed);
    let took = waits.map(|wait| {
        let since = Instant::now();
        assert!(wait());
        since.elapsed()
    });
    (took, HANDLED.load(Relaxed) - before)
}

fn time_outs_in_a_storm_of_signals_are_neither_early_nor_late(method: StartMethod) {
    const TIME: Duration = Duration::from_millis(120);
    let all = all();
    let (_reads, _writes) = (all.3.read().unwrap(), all.4.write().unwrap());
    let mut seen = vec![];
    let in_time = |took: &[Duration; 5]| took.iter().all(|took| *took < TIME + Duration::from_millis(60));
    while !seen.iter().any(in_time) {
        assert!(seen.len() < 15, "it takes too long: {seen:?}");
        let (took, signals) = start(method, time_out_in_a_storm, (&all, TIME)).join().unwrap();
        assert!(took.iter().all(|took| *took >= TIME), "early: {took:?}");
        assert!(signals > 100, "there was no storm");
        seen.push(took);
        all.2.reset();
    }
}

/// Waits for each of them, and counts.
#[process_task]
fn wait_in_a_storm(all: &All) {
    let (permits, event, barrier, read, written) = &**all;
    storm();
    permits.acquire().forget();
    *written.write().unwrap() += 1;
    event.wait();
    *written.write().unwrap() += 1;
    barrier.wait().unwrap();
    *written.write().unwrap() += 1;
    *read.write().unwrap() += 1;
}

fn signal_storm_ends_no_wait_early(method: StartMethod) {
    let all = all();
    let (permits, event, barrier, read, written) = &*all;
    let reading = read.read().unwrap();
    let process = start(method, wait_in_a_storm, &all);
    let gets: [&dyn Fn(); 3] =
        [&|| permits.add_permit().unwrap(), &|| event.set(), &|| assert!(barrier.wait().is_ok())];
    for (done, get) in (0..).zip(gets) {
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(*written.read().unwrap(), done, "it did not wait");
        get();
        support::eventually("it goes on", support::PATIENCE, || *written.read().unwrap() == done + 1);
    }
    std::thread::sleep(Duration::from_millis(60));
    assert!(!process.is_finished() && *reading == 0);
    drop(reading);
    process.join().unwrap();
    assert_eq!(*read.read().unwrap(), 1);
}
