//! What tasks do in a terminal: printing and changing its mode work, reading works or ends with a reason.
//!
//! Runs in: victims, each in a session of its own that a pseudo-terminal controls, some below an interactive shell.
//! Never: changes the test's own terminal.
#![expect(unsafe_code, reason = "changes a signal's disposition")]

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use crate::support::process_builder;
use crate::support::pty::{alone, below_shell, below_shell_as, ends_well, job_ends_well, send};
use crate::support::subprocess::{self, reached};
use crate::support::{PATIENCE, eventually, processes};
use nix::sys::signal::{SigHandler, Signal};
use nix::sys::termios::{LocalFlags, SetArg, cfmakeraw, tcgetattr, tcsetattr};
use process_task::{ErrorKind, Pool, Process, ProcessBuilder, StartMethod, Stdio, Task, process_task};

under_every_start_method! {
    within 120 seconds;
    task_prints_under_tostop,
    task_changes_terminal_mode,
    task_reads_terminal_from_background_fails_with_reason,
    process_with_inherited_stdin_reads_terminal,
    password_prompt_works_with_inherited_stdin,
    background_job_that_reads_is_stopped_until_fg,
    process_with_terminal_dies_alone_with_fork_server,
    ctrl_c_reaches_process_with_terminal,
}

fn task_prints_under_tostop(method: StartMethod) {
    let (mut pty, victim) = alone("prints", method);
    ends_well(&mut pty, victim);
    for line in [
        "a line of a process",
        "a line of a worker",
        "a line of a program that a task started",
        "the words of a panic",
        "memory allocation of",
        "a line to the terminal itself",
    ] {
        assert!(pty.seen().contains(line), "{line}: {}", pty.seen());
    }
}

fn task_changes_terminal_mode(method: StartMethod) {
    let (mut pty, victim) = alone("changes its mode", method);
    ends_well(&mut pty, victim);
}

fn task_reads_terminal_from_background_fails_with_reason(method: StartMethod) {
    let (mut pty, victim) = alone("reads from the background", method);
    ends_well(&mut pty, victim);
}

fn process_with_inherited_stdin_reads_terminal(method: StartMethod) {
    let (mut pty, victim) = alone("inherits its stdin", method);
    for round in 0..3 {
        pty.wait_for(&format!("line {round}? "));
        pty.write(&format!("typed {round}\n"));
    }
    ends_well(&mut pty, victim);
}

fn password_prompt_works_with_inherited_stdin(method: StartMethod) {
    let (mut pty, victim) = below_shell("asks for a password", method);
    pty.wait_for("Password: ");
    pty.write("open sesame\n");
    job_ends_well(&mut pty, &victim);
    assert_eq!(std::fs::read_to_string(victim.on_stage("password")).unwrap(), "open sesame");
    assert!(!pty.seen().contains("sesame"), "{}", pty.seen());
}

fn background_job_that_reads_is_stopped_until_fg(method: StartMethod) {
    let (mut pty, victim) = below_shell_as("&", "inherits its stdin", method);
    pty.wait_for("line 0? ");
    let is_program = |pid: &u32| processes::state_of(*pid) == Some('T');
    eventually("the job is stopped", PATIENCE, || victim.family().iter().any(is_program));
    pty.write("fg\n");
    for round in 0..3 {
        pty.wait_for(&format!("line {round}? "));
        pty.write(&format!("typed {round}\n"));
    }
    job_ends_well(&mut pty, &victim);
}

/// It has no group of its own, and the program's is not killed in its place.
fn process_with_terminal_dies_alone_with_fork_server(method: StartMethod) {
    let (mut pty, victim) = alone("loses its fork server", method);
    ends_well(&mut pty, victim);
}

fn ctrl_c_reaches_process_with_terminal(method: StartMethod) {
    let (mut pty, victim) = alone("waits for an interruption", method);
    pty.wait_for("line 0? ");
    pty.write("\x03");
    ends_well(&mut pty, victim);
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    match scene.as_str() {
        "prints" => prints(method),
        "changes its mode" => {
            assert_eq!(spawn(method, change_mode, ()).join(), Ok(()));
            assert_eq!(pool(method).call(change_mode, ()), Ok(()));
        }
        "reads from the background" => reads_from_background(method),
        "inherits its stdin" => inherits_stdin(method),
        "asks for a password" => {
            let process =
                ProcessBuilder::new().start_method(method).stdin(Stdio::inherit()).spawn(ask_for_password, ());
            let password = process.and_then(Process::join).unwrap();
            std::fs::write(subprocess::stage().join("password"), password).unwrap();
        }
        "loses its fork server" => {
            let with_terminal =
                ProcessBuilder::new().start_method(method).stdin(Stdio::inherit()).spawn(nap, ()).unwrap();
            let parent = processes::parent_of(with_terminal.pid().unwrap()).unwrap();
            send(parent, Signal::SIGKILL);
            let error = with_terminal.join().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Killed { .. }), "{error}");
            assert_eq!(spawn(method, double, 2).join(), Ok(4));
        }
        "waits for an interruption" => {
            // SAFETY: no handler runs.
            unsafe { nix::sys::signal::signal(Signal::SIGINT, SigHandler::SigIgn) }.unwrap();
            let with_terminal = ProcessBuilder::new().start_method(method).stdin(Stdio::inherit()).spawn(read_line, 0);
            let error = with_terminal.and_then(Process::join).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Killed { signal: 2, .. }), "{error}");
        }
        other => unreachable!("no scene {other}"),
    }
    reached("played");
}

fn spawn<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> Process<T::Output> {
    ProcessBuilder::new().start_method(method).spawn(task, args).unwrap()
}

fn pool(method: StartMethod) -> Pool {
    Pool::builder().workers(1).start_method(method).build().unwrap()
}

fn prints(method: StartMethod) {
    let mut mode = tcgetattr(std::io::stdin()).unwrap();
    mode.local_flags |= LocalFlags::TOSTOP;
    tcsetattr(std::io::stdin(), SetArg::TCSANOW, &mode).unwrap();
    let pool = pool(method);
    assert_eq!(spawn(method, print, "a line of a process").join(), Ok(()));
    assert_eq!(pool.call(print, "a line of a worker"), Ok(()));
    assert_eq!(spawn(method, echo, "a line of a program that a task started").join(), Ok(true));
    assert_eq!(pool.call(print_to_terminal, "a line to the terminal itself"), Ok(()));
    let error = pool.call(panic, "the words of a panic").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Panicked { .. }), "{error}");
    let error = spawn(method, allocate.memory_limit(256 << 20), 1 << 30).join().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { .. }), "{error}");
}

fn reads_from_background(method: StartMethod) {
    fn needs_terminal<T: std::fmt::Debug>(result: process_task::Result<T>) {
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NeedsTerminal { .. }), "{error}");
        assert!(error.to_string().contains("Stdio::inherit()"), "{error}");
    }
    needs_terminal(spawn(method, read_terminal, ()).join());
    needs_terminal(spawn(method, sh, ("-c", "read line < /dev/tty")).join());
    // An interactive shell waits until it is in the foreground.
    needs_terminal(spawn(method, sh, ("-ic", "echo hi")).join());
    let pool = pool(method);
    needs_terminal(pool.call(read_terminal, ()));
    assert_eq!(pool.call(double, 4), Ok(8));
    needs_terminal(pool.call(sh, ("-ic", "echo hi")));
    assert_eq!(pool.call(double, 5), Ok(10));
}

fn inherits_stdin(method: StartMethod) {
    let with = |stdin: Stdio| {
        let mut builder = process_builder(method);
        builder.stdin(stdin);
        builder
    };
    let line = with(Stdio::inherit()).spawn(read_line, 0).and_then(Process::join);
    assert_eq!(line.as_deref(), Ok("typed 0"));
    let terminal = File::open("/dev/tty").unwrap();
    assert_eq!(with(terminal.into()).spawn(read_line, 1).and_then(Process::join).as_deref(), Ok("typed 1"));
    // What such a process starts is in the foreground, too.
    let script = r#"printf 'line 2? ' > /dev/tty; read line; test "$line" = "typed 2""#;
    assert_eq!(with(Stdio::inherit()).spawn(sh, ("-c", script)).and_then(Process::join), Ok(true));
    assert_eq!(with(Stdio::inherit()).spawn(sh, ("-ic", "true")).and_then(Process::join), Ok(true));
    let mut process = with(Stdio::inherit()).spawn(nap, ()).unwrap();
    process.kill().unwrap();
    assert_eq!(process.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
}

#[process_task]
fn double(x: i64) -> i64 {
    2 * x
}

#[process_task]
fn print(line: &str) {
    println!("{line}");
}

#[process_task]
fn panic(words: &str) {
    panic!("{words}");
}

#[process_task]
fn allocate(bytes: usize) -> usize {
    vec![1; bytes].len()
}

#[process_task]
fn echo(line: &str) -> bool {
    Command::new("echo").arg(line).status().unwrap().success()
}

fn terminal() -> File {
    OpenOptions::new().read(true).write(true).open("/dev/tty").unwrap()
}

#[process_task]
fn print_to_terminal(line: &str) {
    terminal().write_all(format!("{line}\r\n").as_bytes()).unwrap();
}

#[process_task]
fn change_mode() {
    let terminal = terminal();
    let before = tcgetattr(&terminal).unwrap();
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    tcsetattr(&terminal, SetArg::TCSADRAIN, &raw).unwrap();
    assert!(!tcgetattr(&terminal).unwrap().local_flags.contains(LocalFlags::ICANON));
    tcsetattr(&terminal, SetArg::TCSADRAIN, &before).unwrap();
}

#[process_task]
fn read_terminal() -> usize {
    terminal().read(&mut [0; 100]).unwrap()
}

#[process_task]
fn sh(how: &str, script: &str) -> bool {
    Command::new("sh").args([how, script]).stdin(std::process::Stdio::inherit()).status().unwrap().success()
}

#[process_task]
fn read_line(round: u32) -> String {
    print!("line {round}? ");
    std::io::stdout().flush().unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[process_task]
fn ask_for_password() -> String {
    let mut terminal = terminal();
    let before = tcgetattr(&terminal).unwrap();
    let mut silent = before.clone();
    silent.local_flags -= LocalFlags::ECHO;
    tcsetattr(&terminal, SetArg::TCSADRAIN, &silent).unwrap();
    terminal.write_all(b"Password: ").unwrap();
    let mut line = String::new();
    BufReader::new(&terminal).read_line(&mut line).unwrap();
    tcsetattr(&terminal, SetArg::TCSADRAIN, &before).unwrap();
    line.trim_end().to_owned()
}

#[process_task]
fn nap() {
    std::thread::sleep(Duration::from_secs(1000));
}
