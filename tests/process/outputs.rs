//! What a process writes into pipes: nothing waits for ever because it was not taken, and what is asked for is all there.
//!
//! Runs in: the test process; its tasks run in children. Never: depends on how much a pipe holds, but that it is not endless.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::Duration;

use crate::support;
use crate::support::executor::block_on;
use crate::support::process_builder as builder;
use process_task::{ErrorKind, Output, Process, ProcessBuilder, StartMethod, Stdio, process_task};

under_every_start_method! {
    within 120 seconds;
    join_reads_pipes_that_were_not_taken,
    await_reads_pipes_that_were_not_taken,
    wait_reads_pipes_and_keeps_what_came,
    wait_timeout_returns_though_a_pipe_is_full,
    output_has_everything_and_the_result,
    output_of_a_process_that_dies_has_what_it_wrote,
    output_without_pipes_is_empty,
    output_does_not_wait_for_programs_that_live_on,
    stdin_that_was_not_taken_is_closed_by_every_wait,
    pipe_that_was_taken_is_left_alone,
}

/// More than any pipe holds.
const MUCH: usize = 3 << 20;

fn piped(method: StartMethod) -> ProcessBuilder {
    let mut builder = builder(method);
    builder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    builder
}

/// Writes so many bytes to stdout, and one less to stderr, in turns.
#[process_task]
fn write(bytes: usize) -> usize {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    for at in 0..bytes {
        if at % 1000 == 0 {
            let len = (bytes - at).min(1000);
            out.write_all(&vec![b'o'; len]).unwrap();
            err.write_all(&vec![b'e'; if at + len == bytes { len - 1 } else { len }]).unwrap();
        }
    }
    bytes
}

#[process_task]
fn write_and_die(bytes: usize) {
    write(bytes);
    std::io::stdout().flush().unwrap();
    std::process::abort();
}

#[process_task]
fn echo() -> String {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    text
}

/// Leaves a program behind that has a session of its own, and the pipes.
#[process_task]
fn leave_a_program(file: &str) {
    let line = "echo $$ > \"$0\"; exec sleep 1000";
    let mut shell = Command::new("setsid").args(["sh", "-c", line, file]).spawn().unwrap();
    shell.try_wait().unwrap();
    while std::fs::read_to_string(file).map_or(true, |text| !text.ends_with('\n')) {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("left");
}

fn join_reads_pipes_that_were_not_taken(method: StartMethod) {
    for bytes in [0, 1, MUCH] {
        assert_eq!(piped(method).spawn(write, bytes).and_then(Process::join), Ok(bytes));
        assert_eq!(
            builder(method).stderr(Stdio::piped()).stdout(Stdio::null()).spawn(write, bytes).unwrap().join(),
            Ok(bytes)
        );
    }
    let error = piped(method).spawn(write_and_die, MUCH).unwrap().join().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { signal: 6, .. }), "{error}");
}

fn await_reads_pipes_that_were_not_taken(method: StartMethod) {
    for bytes in [0, 1, MUCH, 3 * MUCH] {
        assert_eq!(block_on(piped(method).spawn(write, bytes).unwrap()), Ok(bytes));
    }
    let error = block_on(piped(method).spawn(write_and_die, MUCH).unwrap()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { signal: 6, .. }), "{error}");
}

fn wait_reads_pipes_and_keeps_what_came(method: StartMethod) {
    for bytes in [1, 1001, MUCH] {
        let mut process = piped(method).spawn(write, bytes).unwrap();
        assert_eq!(process.wait().unwrap().code(), Some(0));
        assert_eq!(process.wait().unwrap().code(), Some(0));
        let (mut out, mut err) = (Vec::new(), String::new());
        process.take_stdout().unwrap().read_to_end(&mut out).unwrap();
        process.take_stderr().unwrap().read_to_string(&mut err).unwrap();
        assert!(out == vec![b'o'; bytes] && err == "e".repeat(bytes - 1));
        assert!(process.take_stdout().is_none());
        assert_eq!(process.join(), Ok(bytes));
    }
}

fn wait_timeout_returns_though_a_pipe_is_full(method: StartMethod) {
    let mut process = piped(method).spawn(write, MUCH).unwrap();
    assert!(process.wait_timeout(Duration::from_millis(50)).is_err());
    assert_eq!(process.try_wait(), Ok(None));
    let output = process.output();
    assert_eq!((output.stdout.len(), output.stderr.len(), output.result), (MUCH, MUCH - 1, Ok(MUCH)));
}

fn output_has_everything_and_the_result(method: StartMethod) {
    for bytes in [0, 1, 1001, MUCH] {
        if bytes > 0 {
            let Output { result, stdout, stderr, .. } = builder(method).output(write, bytes).unwrap();
            assert!(stdout == vec![b'o'; bytes] && stderr == vec![b'e'; bytes - 1]);
            assert_eq!(result, Ok(bytes));
        }
        let only = builder(method).stderr(Stdio::null()).stdout(Stdio::piped()).spawn(write, bytes).unwrap().output();
        assert_eq!((only.stdout.len(), only.stderr.len(), only.result), (bytes, 0, Ok(bytes)));
    }
}

fn output_of_a_process_that_dies_has_what_it_wrote(method: StartMethod) {
    let output = builder(method).output(write_and_die, MUCH).unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (MUCH, MUCH - 1));
    let error = output.result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { signal: 6, .. }), "{error}");
    let output = builder(method).output(echo.timeout(Duration::from_secs(20)), ()).unwrap();
    assert!(output.result.is_ok(), "its stdin is /dev/null");
}

fn output_without_pipes_is_empty(method: StartMethod) {
    let output = builder(method).stdout(Stdio::null()).stderr(Stdio::null()).spawn(write, 10).unwrap().output();
    assert_eq!((output.stdout, output.stderr, output.result), (Vec::new(), Vec::new(), Ok(10)));
}

fn output_does_not_wait_for_programs_that_live_on(method: StartMethod) {
    let scratch = support::scratch::Scratch::new();
    let file = scratch.file("pid");
    let output = piped(method).spawn(leave_a_program, &file).unwrap().output();
    let mut other = piped(method).spawn(leave_a_program, &scratch.file("other")).unwrap();
    assert_eq!(other.wait().unwrap().code(), Some(0));
    let mut text = String::new();
    other.take_stdout().unwrap().read_to_string(&mut text).unwrap();
    for name in ["pid", "other"] {
        let pid = std::fs::read_to_string(scratch.file(name)).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    assert_eq!((output.stdout, output.result, text.as_str()), (b"left\n".to_vec(), Ok(()), "left\n"));
}

fn stdin_that_was_not_taken_is_closed_by_every_wait(method: StartMethod) {
    let asked = || builder(method).stdin(Stdio::piped()).spawn(echo, ()).unwrap();
    assert_eq!(asked().join(), Ok(String::new()));
    assert_eq!(block_on(asked()), Ok(String::new()));
    assert_eq!(asked().output().result, Ok(String::new()));
    assert_eq!(asked().wait().unwrap().code(), Some(0));
}

fn pipe_that_was_taken_is_left_alone(method: StartMethod) {
    let mut process = piped(method).spawn(write, MUCH).unwrap();
    let mut out = process.take_stdout().unwrap();
    std::thread::scope(|scope| {
        let read = scope.spawn(move || {
            let mut all = Vec::new();
            out.read_to_end(&mut all).map(|_| all)
        });
        let output = process.output();
        assert_eq!((output.stdout.len(), output.stderr.len(), output.result), (0, MUCH - 1, Ok(MUCH)));
        assert_eq!(read.join().unwrap().unwrap().len(), MUCH);
    });
}
