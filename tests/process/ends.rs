//! How processes are ended, and what ends with them.
//!
//! Runs in: the test process; the tasks in children, and `sleep` in grandchildren.
//! Never: signals a process by a number that it has not just seen alive.
#![expect(unsafe_code, reason = "nix has no names for signals of real time")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::support::processes::alive;
use crate::support::{self, PATIENCE, eventually};
use nix::sys::signal::{Signal, raise};
use process_task::{ErrorKind, Execution, Pool, Process, ProcessBuilder, Result, StartMethod, Stdio, process_task};

under_every_start_method! {
    terminate_kill_and_interrupt_say_which_signal_it_was,
    a_process_that_has_ended_can_be_signalled_in_peace,
    a_hundred_sleepers_are_terminated_right_after_their_start,
    a_signal_reaches_everything_the_task_started,
    what_a_task_started_ends_when_the_task_does,
    exiting_is_no_success_whatever_the_code,
    a_signal_that_a_task_raises_is_named,
    death_by_a_real_time_signal_is_told_and_hides_no_other,
    a_process_that_refuses_to_terminate_can_be_killed,
    a_stopped_process_can_be_killed,
}

fn builder(method: StartMethod) -> ProcessBuilder {
    let mut builder = ProcessBuilder::new();
    builder.start_method(method).stderr(Stdio::null());
    builder
}

#[process_task]
fn sleep_long() {
    sleep(Duration::from_secs(1_000));
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

/// Which signal ended the task of `process`; nothing else may have happened.
fn killed_by<R: std::fmt::Debug>(mut process: Process<R>, execution: &[Execution]) -> i32 {
    let status = process.wait().unwrap();
    let error = process.join().unwrap_err();
    let ErrorKind::Killed { signal, core_dumped, .. } = *error.kind() else { panic!("{error}") };
    assert_eq!((status.signal(), status.core_dumped()), (Some(signal), core_dumped));
    assert!(execution.contains(&error.execution()), "{error}: {:?}", error.execution());
    signal
}

fn terminate_kill_and_interrupt_say_which_signal_it_was(method: StartMethod) {
    type End = fn(&Process<()>) -> Result<()>;
    let ends: [(End, Signal); 3] =
        [(Process::terminate, Signal::SIGTERM), (Process::kill, Signal::SIGKILL), (Process::interrupt, Signal::SIGINT)];
    for (end, signal) in ends {
        let process = builder(method).spawn(sleep_long, ()).unwrap();
        end(&process).unwrap();
        // It may not have come to the task yet.
        let signal_seen = killed_by(process, &[Execution::Unknown, Execution::NotStarted]);
        assert_eq!(signal_seen, signal as i32);
    }
}

fn a_process_that_has_ended_can_be_signalled_in_peace(method: StartMethod) {
    let mut process = builder(method).spawn(square, 4).unwrap();
    process.wait().unwrap();
    process.terminate().unwrap();
    process.interrupt().unwrap();
    process.kill().unwrap();
    assert_eq!(process.join().unwrap(), 16);
}

fn a_hundred_sleepers_are_terminated_right_after_their_start(method: StartMethod) {
    let sleepers: Vec<_> = (0..100).map(|_| builder(method).spawn(sleep_long, ()).unwrap()).collect();
    for sleeper in &sleepers {
        sleeper.terminate().unwrap();
    }
    for sleeper in sleepers {
        assert_eq!(killed_by(sleeper, &[Execution::Unknown, Execution::NotStarted]), Signal::SIGTERM as i32);
    }
}

/// Starts `sleep`, prints its number, and ends as `how` says.
#[process_task]
fn start_a_sleeper(how: &str) {
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    println!("{}", sleeper.id());
    std::io::stdout().flush().unwrap();
    match how {
        "wait" => drop(sleeper.wait()),
        "panic" => panic!("leaving it behind"),
        "abort" => std::process::abort(),
        "return" => {}
        other => panic!("no way to end: {other}"),
    }
}

/// The process, once its sleeper runs, and the sleeper's number.
fn with_sleeper(method: StartMethod, how: &str) -> (Process<()>, u32) {
    let mut process = builder(method).stdout(Stdio::piped()).spawn(start_a_sleeper, how).unwrap();
    let mut line = String::new();
    BufReader::new(process.take_stdout().unwrap()).read_line(&mut line).unwrap();
    (process, line.trim().parse().unwrap())
}

fn a_signal_reaches_everything_the_task_started(method: StartMethod) {
    for end in [Process::terminate, Process::kill, Process::interrupt] {
        let (mut process, sleeper) = with_sleeper(method, "wait");
        assert!(alive(sleeper));
        end(&process).unwrap();
        process.wait().unwrap();
        eventually("what the task started is gone", PATIENCE, || !alive(sleeper));
        // A terminated sleeper may let the task's own wait return before its turn to die.
        drop(process.join());
    }
}

fn what_a_task_started_ends_when_the_task_does(method: StartMethod) {
    for how in ["return", "panic", "abort"] {
        let (mut process, sleeper) = with_sleeper(method, how);
        process.wait().unwrap();
        eventually("what the task started is gone", PATIENCE, || !alive(sleeper));
    }
}

#[process_task]
#[expect(clippy::exit, reason = "that is what this task is for")]
fn exit_with(code: i32) -> i32 {
    std::process::exit(code)
}

/// Ends without any handler or destructor of this program: another program exits in its place.
#[process_task]
fn become_another_program(code: i32) -> i32 {
    panic!("{}", Command::new("/bin/sh").arg("-c").arg(format!("exit {code}")).exec())
}

fn exiting_is_no_success_whatever_the_code(method: StartMethod) {
    for code in [0, 1, 3, 8, 255] {
        let processes = [
            ("exit_with", builder(method).spawn(exit_with, code).unwrap()),
            ("become_another_program", builder(method).spawn(become_another_program, code).unwrap()),
        ];
        for (name, mut process) in processes {
            let id = process.pid().unwrap();
            assert_eq!(process.wait().unwrap().code(), Some(code));
            let error = process.join().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Exited { code: seen, .. } if *seen == code), "{error}");
            assert_eq!(error.execution(), Execution::Unknown);
            let task = format!("process::ends::{name}");
            let text = format!("process `{name}` (pid {id}) exited with code {code} before `{task}` returned");
            assert_eq!(error.to_string(), text);
        }
    }
}

#[process_task]
fn raise_signal(number: i32) {
    raise(Signal::try_from(number).unwrap()).unwrap();
    sleep_long();
}

fn a_signal_that_a_task_raises_is_named(method: StartMethod) {
    let signals = [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGABRT,
        Signal::SIGTRAP,
        Signal::SIGSYS,
        Signal::SIGALRM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGKILL,
    ];
    for signal in signals {
        let process = builder(method).name("raiser").spawn(raise_signal, signal as i32).unwrap();
        let id = process.pid().unwrap();
        let error = process.join().unwrap_err();
        let core = matches!(error.kind(), ErrorKind::Killed { core_dumped: true, .. });
        let text = format!(
            "process `raiser` (pid {id}) was killed by {signal} while running `process::ends::raise_signal`{}",
            if core { " (core dumped)" } else { "" }
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(error.execution(), Execution::Unknown);
    }
}

#[process_task]
fn raise_number(number: i32) -> i32 {
    if number == 0 {
        return number;
    }
    // SAFETY: takes a number; the signal's default action ends this process.
    unsafe { nix::libc::raise(number) };
    sleep_long();
    number
}

fn death_by_a_real_time_signal_is_told_and_hides_no_other(method: StartMethod) {
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    for signal in [34, 50, 64] {
        let process = builder(method).spawn(raise_number, signal).unwrap();
        assert_eq!(killed_by(process, &[Execution::Unknown]), signal);
        let error = pool.call(raise_number, signal).unwrap_err();
        assert!(error.to_string().contains(&format!("was killed by signal {signal} while running")), "{error}");
        assert_eq!(pool.call(raise_number, 0), Ok(0));
        let process = builder(method).spawn(raise_number, nix::libc::SIGTERM).unwrap();
        assert_eq!(killed_by(process, &[Execution::Unknown]), nix::libc::SIGTERM);
    }
}

/// Blocks every signal that asks, says so, and stays.
#[process_task]
fn refuse() {
    nix::sys::signal::SigSet::all().thread_block().unwrap();
    println!("deaf");
    std::io::stdout().flush().unwrap();
    sleep_long();
}

fn a_process_that_refuses_to_terminate_can_be_killed(method: StartMethod) {
    let mut process = builder(method).stdout(Stdio::piped()).spawn(refuse, ()).unwrap();
    BufReader::new(process.take_stdout().unwrap()).read_line(&mut String::new()).unwrap();
    process.terminate().unwrap();
    process.interrupt().unwrap();
    assert!(process.wait_timeout(Duration::from_millis(50)).is_err());
    process.kill().unwrap();
    assert_eq!(killed_by(process, &[Execution::Unknown]), Signal::SIGKILL as i32);
}

#[process_task]
fn stop_oneself() {
    raise(Signal::SIGSTOP).unwrap();
}

fn a_stopped_process_can_be_killed(method: StartMethod) {
    let process = builder(method).spawn(stop_oneself, ()).unwrap();
    let id = process.pid().unwrap();
    eventually("it has stopped", PATIENCE, || {
        support::processes::descendants().get(&id).is_some_and(|entry| entry.state == 'T')
    });
    assert!(!process.is_finished());
    process.kill().unwrap();
    assert_eq!(killed_by(process, &[Execution::Unknown]), Signal::SIGKILL as i32);
}
