//! What the death, the stopping and the signalling of the fork server cost: no hang, no early word, and no later start.
//!
//! Runs in: the test process, which kills its own fork server. Never: uses a fork server that a test has not found by itself.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crate::support::{self, eventually, processes};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_task::{ErrorKind, Execution, Pool, Process, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    a_start_after_the_idle_fork_server_was_killed_works,
    fork_server_death_settles_no_process_before_its_end,
    fork_server_death_settles_no_call_before_its_worker_ends,
    pending_starts_move_to_the_next_fork_server,
    grandchildren_end_with_the_fork_server,
    interrupting_the_fork_server_changes_nothing,
    a_stopped_fork_server_delays_starts_until_it_goes_on,
}

fn a_start_after_the_idle_fork_server_was_killed_works(method: StartMethod) {
    for round in 0..support::rounds(6) {
        signal(fork_server(), Signal::SIGKILL);
        // At once, while the old spares may still be there.
        let process = ProcessBuilder::new().start_method(method).spawn(square, 12);
        works_or_was_running(process.and_then(Process::join), 144, round);
        let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
        assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
        drop(pool);
        until_starts_work(method);
    }
}

fn fork_server_death_settles_no_process_before_its_end(method: StartMethod) {
    let start = |_| ProcessBuilder::new().start_method(method).spawn(spin, ()).unwrap();
    let mut family: Vec<_> = (0..16).map(start).collect();
    eventually("all are busy", Duration::from_secs(20), || {
        family.iter().all(|process| has_used_cpu(process.pid().unwrap()))
    });
    signal(fork_server(), Signal::SIGKILL);
    let mut open: Vec<_> = family.iter().collect();
    eventually("all are settled", Duration::from_secs(20), || {
        open.retain(|process| {
            // Asked first: what ends in between is not held against the library.
            let settled = process.is_finished();
            assert!(!settled || has_ended(process), "settled while {:?} still runs", process.pid());
            !settled
        });
        open.is_empty()
    });
    for mut process in family.drain(..) {
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&process.wait().unwrap()), Some(9));
        let error = process.join().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Killed { signal: 9, .. }), "{error}");
        assert_eq!(error.execution(), Execution::Unknown);
    }
}

fn fork_server_death_settles_no_call_before_its_worker_ends(method: StartMethod) {
    let pool = Pool::builder().workers(8).start_method(method).build().unwrap();
    let first: Vec<_> = process_task::active_children().iter().map(process_task::ProcessInfo::pid).collect();
    let calls: Vec<_> = (0..8).map(|_| pool.submit(spin, ())).collect();
    eventually("all are busy", Duration::from_secs(20), || first.iter().all(|pid| has_used_cpu(*pid)));
    // Behind the busy ones: these have not begun, and cost nothing.
    let later: Vec<_> = (0..20).map(|x| pool.submit(square, x)).collect();
    signal(fork_server(), Signal::SIGKILL);
    for call in calls {
        let error = call.join().unwrap_err();
        let (_, pid) = error.process().expect("it ran in a process");
        assert!(first.contains(&pid) && !processes::alive(pid), "settled while {pid} still runs");
        assert!(matches!(error.kind(), ErrorKind::Killed { signal: 9, .. }), "{error}");
        assert_eq!(error.execution(), Execution::Unknown);
    }
    for (x, call) in (0..20).zip(later) {
        assert_eq!(call.join(), Ok(x * x));
    }
}

fn pending_starts_move_to_the_next_fork_server(method: StartMethod) {
    for round in 0..support::rounds(6) {
        let server = fork_server();
        // While it is stopped, spares run out, and requests queue up.
        signal(server, Signal::SIGSTOP);
        thread::scope(|scope| {
            let start = || ProcessBuilder::new().start_method(method).spawn(square, 7).and_then(Process::join);
            let starts: Vec<_> = (0..12).map(|_| scope.spawn(start)).collect();
            let pool = scope.spawn(|| Pool::builder().workers(6).start_method(method).build());
            thread::sleep(Duration::from_millis(round as u64 % 10));
            signal(server, Signal::SIGKILL);
            for start in starts {
                works_or_was_running(start.join().unwrap(), 49, round);
            }
            let pool = pool.join().unwrap().unwrap();
            assert_eq!(pool.map(square, 0..20).unwrap(), (0..20).map(|x| x * x).collect::<Vec<_>>());
        });
        until_starts_work(method);
    }
}

fn grandchildren_end_with_the_fork_server(method: StartMethod) {
    let tag = format!("SLEEPER=of-{}.", std::process::id());
    let (key, value) = tag.split_once('=').unwrap();
    let process = ProcessBuilder::new().start_method(method).env(key, value).spawn(shell, ()).unwrap();
    let sleeper = || processes::tagged(&tag).into_iter().find(|pid| processes::alive(*pid));
    eventually("the shell is there", Duration::from_secs(20), || sleeper().is_some());
    signal(fork_server(), Signal::SIGKILL);
    process.join().unwrap_err();
    eventually("the shell and its child have ended", Duration::from_secs(2), || sleeper().is_none());
}

fn interrupting_the_fork_server_changes_nothing(method: StartMethod) {
    let server = fork_server();
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    for polite in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        signal(server, polite);
        let process = ProcessBuilder::new().start_method(method).spawn(square, 3).unwrap();
        assert_eq!((process.join(), pool.call(square, 4)), (Ok(9), Ok(16)), "{polite}");
    }
    assert_eq!(fork_server(), server);
}

fn a_stopped_fork_server_delays_starts_until_it_goes_on(method: StartMethod) {
    let server = fork_server();
    signal(server, Signal::SIGSTOP);
    let goes_on = AtomicBool::new(false);
    thread::scope(|scope| {
        let start = || {
            let done = ProcessBuilder::new().start_method(method).spawn(square, 5).and_then(Process::join);
            (done, goes_on.load(Relaxed))
        };
        // More than there are spares, so that at least one start has to wait.
        let starts: Vec<_> = (0..12).map(|_| scope.spawn(start)).collect();
        thread::sleep(Duration::from_millis(100));
        goes_on.store(true, Relaxed);
        signal(server, Signal::SIGCONT);
        let done: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
        assert!(done.iter().all(|(result, _)| *result == Ok(25)), "{done:?}");
        assert!(done.iter().any(|(_, late)| *late), "no start had to wait");
    });
}

/// What is left of the dead server's spares is not held against the next round.
fn until_starts_work(method: StartMethod) {
    let start = || ProcessBuilder::new().start_method(method).spawn(square, 2).and_then(Process::join);
    eventually("starts work", Duration::from_secs(20), || start() == Ok(4));
    eventually("there is one fork server", Duration::from_secs(20), || fork_servers().len() == 1);
}

/// A spare that was handed out before the fork server was killed may have begun its call: then it cannot be known how far it
/// came. What had not begun is done by another process.
fn works_or_was_running(result: process_task::Result<i64>, expected: i64, round: usize) {
    match result {
        Ok(value) => assert_eq!(value, expected),
        Err(error) => {
            assert_eq!(error.execution(), Execution::Unknown, "round {round}: {error}");
            assert!(matches!(error.kind(), ErrorKind::Killed { signal: 9, .. }), "round {round}: {error}");
        }
    }
}

/// Our fork server: the one child of that name; its spares are its own.
fn fork_server() -> u32 {
    let servers = fork_servers();
    let [server] = servers[..] else { panic!("one fork server: {}", processes::table()) };
    server
}

fn fork_servers() -> Vec<u32> {
    let ours = |entry: &processes::Entry| entry.parent == std::process::id() && entry.state != 'Z';
    let server = |(pid, entry): (u32, processes::Entry)| (ours(&entry) && entry.name == "fork-server").then_some(pid);
    processes::descendants().into_iter().filter_map(server).collect()
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

fn has_ended(process: &Process<()>) -> bool {
    let mut pidfd = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    poll(&mut pidfd, PollTimeout::ZERO) == Ok(1)
}

/// Whether a process has run for at least one tick of its own.
fn has_used_cpu(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    stat.split_whitespace().next().and_then(|time| time.parse().ok()).is_some_and(|time: u64| time > 10_000_000)
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

#[process_task]
fn shell() {
    let _ = std::process::Command::new("sh").args(["-c", "sleep 1000; true"]).status();
}
