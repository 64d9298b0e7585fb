//! A service that is told to end, with all of its processes at once, finishes what it runs and loses nothing.
//!
//! Runs in: the test process, which plays the supervisor, and victims, which are the services.
//! Never: signals a process that it has not started.
#![expect(unsafe_code, reason = "a service with a signal handler")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use crate::support::subprocess::{self, Victim, reached};
use crate::support::{self, PATIENCE, eventually};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;
use process_task::{
    ErrorKind, JoinHandle, Pool, PoolBuilder, Process, ProcessBuilder, ShutdownMode, StartMethod, process_task,
};

under_every_start_method! {
    within 120 seconds;
    service_that_ignores_signals_in_workers_loses_no_call,
    service_that_does_not_loses_what_runs,
    worker_that_ignores_signals_is_ended_by_everything_else,
}

/// How many calls run when the signals come, and how many there are.
const WORKERS: usize = 3;
const CALLS: usize = 12;

#[process_task]
fn work(item: usize, stage: PathBuf) -> usize {
    std::fs::write(stage.join(format!("running-{item}")), "").unwrap();
    while !stage.join("gate").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    item * 3
}

/// Its work is done by another program, and by a process of its own.
#[process_task]
fn delegate(stage: PathBuf) -> (Option<i32>, Result<usize, String>) {
    let wait = "touch \"$0/running-program\"; until [ -e \"$0/gate\" ]; do sleep 0.01; done; exit 7";
    let mut program = Command::new("sh").args(["-c", wait]).arg(&stage).spawn().unwrap();
    let process = ProcessBuilder::new().spawn(work, (100, stage)).unwrap();
    (program.wait().unwrap().code(), process.join().map_err(|error| error.to_string()))
}

fn service_that_ignores_signals_in_workers_loses_no_call(method: StartMethod) {
    ends_while_calls_run("drains", method);
}

/// What the option is for: without it, the same signals cost every call that runs.
fn service_that_does_not_loses_what_runs(method: StartMethod) {
    ends_while_calls_run("does not", method);
}

fn ends_while_calls_run(scene: &str, method: StartMethod) {
    let mut victim = Victim::start(scene, method);
    for point in (0..WORKERS).map(|item| format!("running-{item}")) {
        victim.wait_for(&point);
    }
    for point in ["running-program", "running-100", "running-200"] {
        victim.wait_for(point);
    }
    // As `systemctl stop`, `supervisorctl stop` with `stopasgroup`, a terminal that is closed, and Ctrl-C do it.
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        for pid in victim.family().into_iter().chain([victim.child.id()]) {
            // It may have ended by itself: a spare, say.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
        victim.wait_for("drains");
    }
    std::fs::write(victim.on_stage("gate"), "").unwrap();
    victim.plays_to_the_end();
}

fn worker_that_ignores_signals_is_ended_by_everything_else(method: StartMethod) {
    let stage = support::scratch::Scratch::new();
    let never = || (0, stage.path().to_owned());
    let mut builder = support::process_builder(method);
    builder.ignore_termination_signals();
    let running = || stage.path().join("running-0").exists();
    let mut process = builder.spawn(work, never()).unwrap();
    eventually("it runs", PATIENCE, running);
    process.interrupt().unwrap();
    kill(Pid::from_raw(process.pid().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(process.wait_timeout(Duration::from_millis(50)).is_err());
    process.terminate().unwrap();
    assert_eq!(process.wait().unwrap().signal(), Some(9));
    let limit = Duration::from_millis(20);
    let late = builder.spawn(work.timeout(limit), never()).and_then(Process::join).unwrap_err();
    assert!(matches!(late.kind(), ErrorKind::TimedOut { .. }), "{late}");
    let pool = pool(method, 1).ignore_termination_signals().termination_grace(limit).build().unwrap();
    let late = pool.call(work.timeout(limit), never()).unwrap_err();
    assert!(matches!(late.kind(), ErrorKind::TimedOut { .. }), "{late}");
    std::fs::remove_file(stage.path().join("running-0")).unwrap();
    let cancelled = pool.submit(work, never());
    eventually("it runs", PATIENCE, running);
    assert!(cancelled.cancel_running());
    let ended = pool.submit(work, never());
    pool.kill();
    assert!(ended.join().is_err());
    drop(pool);
}

fn pool(method: StartMethod, workers: usize) -> PoolBuilder {
    Pool::builder().workers(workers).start_method(method)
}

static TOLD: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: i32) {
    TOLD.store(true, SeqCst);
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    let stage = subprocess::stage();
    subprocess::say_panics();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler stores to an atomic.
        unsafe { sigaction(signal, &action) }.unwrap();
    }
    serve(&scene, method, &stage);
    reached("played");
}

fn serve(scene: &str, method: StartMethod, stage: &Path) {
    let drains = scene == "drains";
    let pool = |workers| {
        let pool = pool(method, workers);
        if drains { pool.ignore_termination_signals() } else { pool }.build().unwrap()
    };
    let mut process = support::process_builder(method);
    if drains {
        process.ignore_termination_signals();
    }
    let (many, one) = (pool(WORKERS), pool(1));
    let calls: Vec<_> = (0..CALLS).map(|item| many.submit(work, (item, stage.to_owned()))).collect();
    let delegated = one.submit(delegate, stage.to_owned());
    let alone = process.spawn(work, (200, stage.to_owned())).unwrap();
    eventually("the service is told to end", PATIENCE, || TOLD.load(SeqCst));
    std::thread::scope(|scope| {
        let ends = [&many, &one].map(|pool| scope.spawn(|| pool.shutdown(ShutdownMode::Finish)));
        reached("drains");
        for end in ends {
            end.join().unwrap().unwrap();
        }
    });
    let (calls, delegated, alone) = (calls.into_iter().map(JoinHandle::join), delegated.join(), alone.join());
    if drains {
        assert_eq!(calls.collect::<Result<Vec<_>, _>>(), Ok((0..CALLS).map(|item| item * 3).collect()));
        assert_eq!(delegated, Ok((Some(7), Ok(300))));
        assert_eq!(alone, Ok(600));
    } else {
        let lost = calls.filter(Result::is_err).count();
        assert!(lost >= WORKERS && delegated.is_err() && alone.is_err(), "{lost} lost, {delegated:?}, {alone:?}");
    }
}
