//! A worker that is stopped at the worst moment delays what it has, and nothing else.
//!
//! Runs in: the test process; a task stops its own worker, and the test stops others. Never: leaves one stopped.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::executor::block_on;
use crate::support::link_memory::{Forged, Half, frame::FrameKind, own_serial};
use crate::support::{PATIENCE, eventually, processes, rounds};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use process_task::{ErrorKind, JoinHandle, Pool, StartMethod, active_children, process_task};

under_every_start_method! {
    within 300 seconds;
    worker_stopped_before_ringing_delays_its_reply_only,
    workers_stopped_at_any_moment_hold_one_call_each,
    stopped_workers_are_counted_in_stats,
    stopped_worker_is_killed_when_its_time_is_over,
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

/// Publishes the answer that the runtime would give, when the parent is asleep and wants to be rung for, and stops there.
#[process_task]
fn publish_and_stop(awaited: bool, lent: &[u8]) {
    let request = Half::request();
    let end = Instant::now() + Duration::from_secs(5);
    // The first word of the request half says whether the parent sleeps.
    while awaited && request.word(0) == 0 && Instant::now() < end {
        thread::sleep(Duration::from_micros(50));
    }
    let serial = own_serial(lent);
    let done = FrameKind::Done as u8;
    Half::reply().publish(&Forged { kind: done, slot: 0, serial, len: 0, parcel: 0, payload: 0 });
    raise(Signal::SIGSTOP).expect("a signal that can be raised");
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("a process that is there");
}

fn stopped() -> Option<u32> {
    let state = |pid: &u32| processes::descendants().get(pid).map(|entry| entry.state);
    active_children().iter().map(process_task::ProcessInfo::pid).find(|pid| state(pid) == Some('T'))
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().expect("a pool")
}

/// Makes calls in every way while a worker is stopped, lets it go on, and sees all of them finished.
///
/// Once the parent has seen what the worker published, it takes it for idle, and may give it one call: that one may wait.
fn others_go_on(pool: &Pool) {
    eventually("the worker has stopped", PATIENCE, || stopped().is_some());
    let counter = AtomicUsize::new(0);
    let done = &counter;
    let finished = |least: usize| move || done.load(SeqCst) >= least;
    thread::scope(|scope| {
        let count = move |x, result| {
            assert_eq!(result, Ok(x * x));
            done.fetch_add(1, SeqCst);
        };
        // By threads of which one leads, then by futures, for which no thread leads. None is waited for longer than it takes.
        for x in 0..20 {
            scope.spawn(move || count(x, pool.call(square, x)));
        }
        eventually("all but one have come back", PATIENCE, finished(19));
        for x in 0..20 {
            scope.spawn(move || count(x, block_on(pool.submit(square, x))));
        }
        eventually("all but one have come back", PATIENCE, finished(39));
        let (sender, results) = channel();
        for x in 0..20 {
            let sender = sender.clone();
            pool.submit(square, x).on_done(move |result| sender.send((x, result)).expect("the test waits"));
        }
        drop(sender);
        scope.spawn(move || results.iter().for_each(|(x, result)| count(x, result)));
        eventually("all but one have come back", PATIENCE, finished(59));
        signal(stopped().expect("it is still stopped"), Signal::SIGCONT);
    });
    assert_eq!(counter.into_inner(), 60);
}

fn worker_stopped_before_ringing_delays_its_reply_only(method: StartMethod) {
    let pool = pool(method, 2);
    for _ in 0..rounds(2) {
        // Waited for by a thread that leads, by a future, and not at all.
        thread::scope(|scope| {
            let call = scope.spawn(|| pool.call(publish_and_stop, (true, b"lent")));
            others_go_on(&pool);
            assert_eq!(call.join().expect("a thread"), Ok(()));
        });
        thread::scope(|scope| {
            let call = scope.spawn(|| block_on(pool.submit(publish_and_stop, (true, b"lent"))));
            others_go_on(&pool);
            assert_eq!(call.join().expect("a thread"), Ok(()));
        });
        let call = pool.submit(publish_and_stop, (false, b"lent"));
        others_go_on(&pool);
        assert_eq!(call.join(), Ok(()));
    }
}

fn workers_stopped_at_any_moment_hold_one_call_each(method: StartMethod) {
    const CALLS: i64 = 60;
    let pool = pool(method, 3);
    let workers: Vec<_> = active_children().iter().map(process_task::ProcessInfo::pid).collect();
    let mut random = 0x5eed_5eed_u64;
    for round in 0..rounds(10) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let some = 1 + round % 2;
        let victims = &workers[..some];
        let handles: Vec<_> = (0..CALLS).map(|x| pool.submit(square, x)).collect();
        thread::sleep(Duration::from_micros(random % 400));
        for pid in victims {
            signal(*pid, Signal::SIGSTOP);
        }
        let late: Vec<_> = (0..CALLS).map(|x| pool.submit(square, x)).collect();
        let all: Vec<_> = handles.iter().chain(&late).collect();
        eventually("all but what the stopped ones run is finished", PATIENCE, || {
            all.iter().filter(|handle| !handle.is_finished()).count() <= some
        });
        for pid in victims {
            signal(*pid, Signal::SIGCONT);
        }
        let squares = |handles: Vec<JoinHandle<i64>>| handles.into_iter().map(JoinHandle::join).collect();
        let expected: Vec<_> = (0..CALLS).map(|x| Ok(x * x)).collect();
        let (first, second): (Vec<_>, Vec<_>) = (squares(handles), squares(late));
        assert_eq!((&first, &second), (&expected, &expected), "round {round}");
    }
}

#[process_task]
fn stop_by(signal: i32) {
    raise(Signal::try_from(signal).expect("the number of a signal")).expect("a signal that can be raised");
}

fn stopped_workers_are_counted_in_stats(method: StartMethod) {
    let pool = pool(method, 3);
    assert_eq!(pool.stats().stopped, 0);
    let call = pool.submit(stop_by, Signal::SIGTSTP as i32);
    eventually("one is stopped", PATIENCE, || pool.stats().stopped == 1);
    let stats = pool.stats();
    let worker = stats.workers.iter().find(|worker| worker.stopped.is_some()).expect("one is stopped");
    assert_eq!(worker.stopped, Some(Signal::SIGTSTP as i32), "{stats}");
    assert!(stats.to_string().contains(", 1 stopped") && !call.is_finished(), "{stats}");
    let idle: Vec<_> =
        stats.workers.iter().filter(|other| other.pid != worker.pid).filter_map(|other| other.pid).collect();
    for pid in idle {
        signal(pid, Signal::SIGSTOP);
    }
    eventually("all are stopped", PATIENCE, || pool.stats().stopped == 3);
    let all = stats.workers.iter().filter_map(|worker| worker.pid);
    all.for_each(|pid| signal(pid, Signal::SIGCONT));
    assert_eq!(call.join(), Ok(()));
    eventually("none is stopped", PATIENCE, || pool.stats().stopped == 0);
}

fn stopped_worker_is_killed_when_its_time_is_over(method: StartMethod) {
    let pool = pool(method, 1);
    for signal in [Signal::SIGSTOP, Signal::SIGTSTP] {
        let error = pool.call(stop_by.timeout(Duration::from_millis(300)), signal as i32).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TimedOut { .. }), "{error}");
        assert_eq!(pool.call(square, 3), Ok(9));
        assert_eq!(pool.stats().stopped, 0);
    }
}
