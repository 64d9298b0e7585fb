//! What a task's `timeout` promises in a pool: the call that takes too long ends, no other one does, and each call has
//! one outcome.
//!
//! Runs in: the test process, and a victim that is stopped; the tasks in workers.
//! Never: expects a call to begin, or to end, within some time.

use std::collections::BTreeSet;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::support::executor::block_on;
use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::processes::alive;
use crate::support::scratch::Scratch;
use crate::support::subprocess::{self, Victim, reached, stage};
use crate::support::{PATIENCE, eventually, rounds};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use process_task::{Error, ErrorKind, Execution, JoinHandle, Pool, StartMethod, active_children, process_task};

under_every_start_method! {
    within 240 seconds;
    a_call_that_takes_too_long_fails_alone,
    the_next_call_runs_in_another_process,
    deadline_ends_a_call_without_a_waiter,
    an_awaited_call_is_ended_too,
    a_stopped_worker_without_a_limit_is_waited_for,
    worker_that_blocks_signals_is_killed_with_or_without_grace,
    a_call_that_races_its_deadline_has_one_outcome,
    limits_that_are_none_and_limits_that_are_for_ever,
    defaults_of_the_attribute_act,
    time_in_the_queue_does_not_count,
    a_stopped_worker_is_killed_when_its_time_is_over,
    a_grace_lets_a_task_end_by_itself,
    all_that_a_task_started_ends_when_its_time_is_over,
    parent_that_was_stopped_ends_only_calls_that_are_late,
}

const SHORT: Duration = Duration::from_millis(60);

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().unwrap()
}

/// Checks that `error` is what a call of `limit` gets.
fn is_timed_out(error: &Error, limit: Duration) {
    let ErrorKind::TimedOut { limit: told, elapsed, .. } = error.kind() else { panic!("{error}") };
    assert_eq!(*told, limit);
    assert!(*elapsed >= limit, "{error}");
    assert_ne!(error.execution(), Execution::Finished);
    let dead = error.process().unwrap().1;
    eventually("the process that it ran in is dead", PATIENCE, || !alive(dead));
}

fn timed_out<R: std::fmt::Debug>(call: JoinHandle<R>, limit: Duration) -> Error {
    let error = call.join().unwrap_err();
    is_timed_out(&error, limit);
    error
}

/// Tries `works` with limits that are longer and longer: for promises that ask something of the caller within the limit.
fn with_enough_time(works: impl Fn(Duration) -> bool) {
    assert!([1, 4, 16, 60].map(Duration::from_secs).into_iter().any(works), "a minute is enough");
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn own_id() -> u32 {
    std::process::id()
}

#[process_task(timeout = "60ms")]
fn spin() {
    loop {
        black_box(());
    }
}

/// Says that it has begun, then waits for the gate.
#[process_task]
fn wait(directory: &str, name: &str) -> u32 {
    fs::write(format!("{directory}/{name}"), "").unwrap();
    wait_for(&format!("{directory}/gate"));
    std::process::id()
}

fn goes_on(pool: &Pool) {
    assert_eq!(pool.map(square, 0..50), Ok((0..50).map(|x| x * x).collect()));
}

fn a_call_that_takes_too_long_fails_alone(method: StartMethod) {
    for size in [1, 2, 4] {
        let pool = pool(method, size);
        let before: Vec<_> = (0..40).map(|x| pool.submit(square, x)).collect();
        let late: Vec<_> = (0..3).map(|_| pool.submit(spin, ())).collect();
        let after: Vec<_> = (40..80).map(|x| pool.submit(square, x)).collect();
        assert!((0..).zip(before.into_iter().chain(after)).all(|(x, call)| call.join() == Ok(x * x)));
        for call in late {
            let error = timed_out(call, SHORT);
            assert_eq!(error.execution(), Execution::Unknown);
            assert!(error.task().unwrap().ends_with("::spin"));
            assert!(error.to_string().contains("longer than the limit of 60ms"), "{error}");
        }
        goes_on(&pool);
    }
}

fn the_next_call_runs_in_another_process(method: StartMethod) {
    let pool = pool(method, 1);
    let mut seen = BTreeSet::from([pool.call(own_id, ()).unwrap()]);
    for round in 2..6 {
        let late = timed_out(pool.submit(spin, ()), SHORT).process().unwrap().1;
        assert!(seen.contains(&late));
        seen.insert(pool.call(own_id, ()).unwrap());
        assert_eq!(seen.len(), round);
    }
}

fn deadline_ends_a_call_without_a_waiter(method: StartMethod) {
    let pool = pool(method, 1);
    drop(pool.submit(spin, ()));
    let kept = pool.submit(spin, ());
    // No thread waits, so only the pool itself can see to it.
    eventually("both have ended", PATIENCE, || kept.is_finished());
    timed_out(kept, SHORT);
    drop(pool.submit(spin, ()));
    goes_on(&pool);
}

fn an_awaited_call_is_ended_too(method: StartMethod) {
    let pool = pool(method, 2);
    let calls: Vec<_> = (0..4).map(|_| pool.submit(spin, ())).collect();
    for call in calls {
        is_timed_out(&block_on(call).unwrap_err(), SHORT);
    }
    goes_on(&pool);
}

fn time_in_the_queue_does_not_count(method: StartMethod) {
    with_enough_time(|limit| {
        let (scratch, pool) = (Scratch::new(), pool(method, 1));
        let first = pool.submit(wait, (directory(&scratch), "begun"));
        let behind: Vec<_> = (0..40).map(|x| pool.submit(square.timeout(limit), x)).collect();
        eventually("the first has begun", PATIENCE, || scratch.path().join("begun").exists());
        sleep(limit + SHORT);
        open_gate(&scratch);
        first.join().unwrap();
        let outcomes: Vec<_> = behind.into_iter().map(JoinHandle::join).collect();
        (0..).zip(outcomes).all(|(x, outcome)| outcome == Ok(x * x))
    });
}

fn stop(pid: u32) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP);
}

fn a_stopped_worker_is_killed_when_its_time_is_over(method: StartMethod) {
    let limit = Duration::from_millis(300);
    for stopped_first in [false, true] {
        let scratch = Scratch::new();
        let pool = pool(method, 2);
        let is_set_up = |child: &process_task::ProcessInfo| {
            fs::read_to_string(format!("/proc/{}/comm", child.pid())).is_ok_and(|name| name.trim() == child.name())
        };
        eventually("both workers are set up", PATIENCE, || active_children().iter().all(is_set_up));
        let submit = || ["0", "1"].map(|name| pool.submit(wait.timeout(limit), (directory(&scratch), name)));
        let stop_all =
            || active_children().iter().map(process_task::ProcessInfo::pid).inspect(|pid| stop(*pid)).collect();
        let (calls, stopped): (_, BTreeSet<u32>) = if stopped_first {
            // Not begun by any worker: others come, and take them over.
            let stopped = stop_all();
            (submit(), stopped)
        } else {
            // They have begun, or are about to.
            let calls = submit();
            (calls, stop_all())
        };
        for call in calls {
            let error = timed_out(call, limit);
            assert!(!stopped_first || !stopped.contains(&error.process().unwrap().1), "{error}");
        }
        goes_on(&pool);
        assert!(active_children().iter().all(|child| !stopped.contains(&child.pid())) || !stopped_first);
    }
}

fn a_stopped_worker_without_a_limit_is_waited_for(method: StartMethod) {
    let pool = pool(method, 1);
    for task in [wait, wait.timeout(Duration::from_hours(1))] {
        let scratch = Scratch::new();
        let call = pool.submit(task, (directory(&scratch), "begun"));
        eventually("it has begun", PATIENCE, || scratch.path().join("begun").exists());
        let worker = active_children()[0].pid();
        stop(worker);
        open_gate(&scratch);
        let early = call.wait_timeout(SHORT).is_ok();
        kill(Pid::from_raw(worker.cast_signed()), Signal::SIGCONT).unwrap();
        assert!(!early);
        assert_eq!(call.join(), Ok(worker));
    }
}

#[process_task]
fn park_deaf() {
    SigSet::all().thread_block().unwrap();
    loop {
        thread::park();
    }
}

fn worker_that_blocks_signals_is_killed_with_or_without_grace(method: StartMethod) {
    for grace in [None, Some(Duration::ZERO), Some(SHORT)] {
        let builder = Pool::builder().workers(2).start_method(method);
        let pool =
            grace.map_or(builder, |grace| Pool::builder().workers(2).start_method(method).termination_grace(grace));
        let pool = pool.build().unwrap();
        let calls: Vec<_> = (0..4).map(|_| pool.submit(park_deaf.timeout(SHORT), ())).collect();
        for call in calls {
            timed_out(call, SHORT);
        }
        goes_on(&pool);
    }
}

/// Waits for SIGTERM, and says that it has come.
#[process_task]
#[expect(clippy::exit, reason = "that it may is what is tested")]
fn wait_for_term(directory: &str) {
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    term.thread_block().unwrap();
    fs::write(format!("{directory}/begun"), "").unwrap();
    term.wait().unwrap();
    fs::write(format!("{directory}/asked"), "").unwrap();
    std::process::exit(3);
}

fn a_grace_lets_a_task_end_by_itself(method: StartMethod) {
    with_enough_time(|limit| {
        let scratch = Scratch::new();
        let grace = Duration::from_hours(1);
        let pool = Pool::builder().workers(1).start_method(method).termination_grace(grace).build().unwrap();
        timed_out(pool.submit(wait_for_term.timeout(limit), directory(&scratch)), limit);
        let (begun, asked) = (scratch.path().join("begun").exists(), scratch.path().join("asked").exists());
        assert!(asked || !begun, "it has not been asked");
        goes_on(&pool);
        asked
    });
}

/// Starts a program and a task, and says in `directory` what their process ids are.
#[process_task]
#[expect(clippy::zombie_processes, reason = "that it is left behind is what is tested")]
fn have_children(directory: &str) {
    let program = Command::new("sleep").arg("1000").spawn().unwrap();
    let nested = wait.spawn(directory, "nested has begun");
    fs::write(format!("{directory}/pids"), format!("{} {}", program.id(), nested.pid().unwrap())).unwrap();
    drop(nested.join());
}

fn all_that_a_task_started_ends_when_its_time_is_over(method: StartMethod) {
    with_enough_time(|limit| {
        let scratch = Scratch::new();
        let pool = pool(method, 1);
        timed_out(pool.submit(have_children.timeout(limit), directory(&scratch)), limit);
        let pids = fs::read_to_string(scratch.file("pids")).unwrap_or_default();
        let pids: Vec<u32> = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        eventually("what the task started has ended", PATIENCE, || !pids.iter().any(|pid| alive(*pid)));
        scratch.path().join("nested has begun").exists() && pids.len() == 2
    });
}

/// Returns when so many microseconds are over, and what it was given.
#[process_task]
fn wake_up_after(micros: u64, number: u64) -> u64 {
    sleep(Duration::from_micros(micros));
    number
}

fn a_call_that_races_its_deadline_has_one_outcome(method: StartMethod) {
    let limit = Duration::from_millis(5);
    let (racing, calm) = (wake_up_after.timeout(limit), wake_up_after.timeout(Duration::from_hours(1)));
    let pool = pool(method, 2);
    // The time to sleep moves to where half of the calls win.
    let (mut micros, mut won, mut lost) = (4_000_u64, 0, 0);
    let mut number = 0;
    while number < rounds(160) as u64 {
        let batch: Vec<_> =
            (number..number + 8)
                .map(|number| {
                    if number % 4 == 3 {
                        pool.submit(calm, (10, number))
                    } else {
                        pool.submit(racing, (micros, number))
                    }
                })
                .collect();
        for call in batch {
            let finished = call.is_finished();
            if number % 3 == 0 {
                assert!(call.wait_timeout(Duration::from_mins(1)).is_ok());
                assert!(call.is_finished());
            }
            match call.join() {
                Ok(same) => {
                    assert_eq!(same, number, "finished before: {finished}");
                    won += u64::from(number % 4 != 3);
                    micros += micros / 64 + 1;
                }
                Err(error) => {
                    assert_ne!(number % 4, 3, "{error}");
                    is_timed_out(&error, limit);
                    lost += 1;
                    micros -= micros / 64;
                }
            }
            number += 1;
        }
    }
    assert_eq!(won + lost, number / 4 * 3, "each has one outcome");
    goes_on(&pool);
}

fn parent_that_was_stopped_ends_only_calls_that_are_late(method: StartMethod) {
    with_enough_time(|limit| {
        let mut victim = Victim::start(&format!("is stopped;{}", limit.as_secs()), method);
        victim.wait_for("has submitted");
        let since = Instant::now();
        let pid = Pid::from_raw(victim.child.id().cast_signed());
        kill(pid, Signal::SIGSTOP).unwrap();
        fs::write(victim.on_stage("gate"), "").unwrap();
        let in_time = since.elapsed() < limit / 2;
        sleep(limit + limit / 2);
        kill(pid, Signal::SIGCONT).unwrap();
        let status = victim.finish();
        let said = victim.said();
        victim.leaves_no_process();
        // A process that was not stopped in time has seen nothing.
        if in_time && limit >= Duration::from_secs(16) {
            assert!(status.success(), "{said}");
        }
        status.success() && victim.on_stage("played").exists()
    });
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    let limit = Duration::from_secs(scene.split(';').nth(1).unwrap().parse().unwrap());
    let pool = pool(method, 3);
    let stage = stage();
    let stage = stage.to_str().unwrap();
    let late = pool.submit(spin.timeout(limit), ());
    let waiting = ["0", "1"].map(|name| pool.submit(wait.timeout(limit), (stage, name)));
    let behind: Vec<_> = (0..40).map(|x| pool.submit(square.timeout(limit), x)).collect();
    eventually("both wait", PATIENCE, || ["0", "1"].iter().all(|name| Path::new(stage).join(name).exists()));
    reached("has submitted");
    subprocess::wait_to_go_on();
    for call in waiting {
        assert!(call.join().is_ok(), "it returned while we were stopped");
    }
    assert!((0..).zip(behind).all(|(x, call)| call.join() == Ok(x * x)), "they had not begun, or have returned");
    let error = late.join().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut { .. }), "{error}");
    goes_on(&pool);
    reached("played");
}

fn limits_that_are_none_and_limits_that_are_for_ever(method: StartMethod) {
    let pool = pool(method, 2);
    for limit in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_hours(1)] {
        let calls: Vec<_> = (0..20).map(|x| pool.submit(square.timeout(limit), x)).collect();
        assert!((0..).zip(calls).all(|(x, call)| call.join() == Ok(x * x)));
    }
    let none = spin.timeout(Duration::ZERO);
    let calls: Vec<_> = (0..5).map(|_| pool.submit(none, ())).collect();
    for call in calls {
        timed_out(call, Duration::ZERO);
    }
    goes_on(&pool);
}

#[process_task(timeout = "60ms")]
fn spin_if(number: u32) -> u32 {
    if number % 4 == 2 {
        spin();
    }
    number
}

fn defaults_of_the_attribute_act(method: StartMethod) {
    let pool = pool(method, 2);
    is_timed_out(&pool.call(spin, ()).unwrap_err(), SHORT);
    is_timed_out(&pool.map(spin_if, 0..20).unwrap_err(), SHORT);
    // Others may be unlucky, as slow as machines may be.
    for (number, outcome) in (0..).zip(pool.imap(spin_if, 0..20)) {
        match outcome {
            Ok(same) => assert!(same == number && number % 4 != 2),
            Err(error) => is_timed_out(&error, SHORT),
        }
    }
    goes_on(&pool);
}
