//! Programs in a terminal: what tasks do there ends, and Ctrl-C, Ctrl-Z and `fg` do what a person expects.
//!
//! Runs in: victims, each in a session of its own that a pseudo-terminal controls, some below an interactive shell.
//! Never: changes the test's own terminal.
#![expect(unsafe_code, reason = "makes a terminal a session's own, and changes a signal's disposition")]

mod pty;
mod support;
mod victim;

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, kill};
use nix::sys::termios::{LocalFlags, SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::Pid;
use process_task::{Builder, ErrorKind, Pool, Process, StartMethod, Stdio, Task, active_children, process_task};
use pty::Pty;
use support::{PATIENCE, eventually, processes};
use victim::{ARGS, Victim, reached};

under_every_start_method! {
    within 120 seconds;
    task_prints_under_tostop,
    task_changes_terminal_mode,
    task_reads_terminal_from_background_fails_with_reason,
    process_with_inherited_stdin_reads_terminal,
    password_prompt_works_with_inherited_stdin,
    ctrl_c_ends_program_and_all_it_started,
    ctrl_c_reaches_program_alone,
    ctrl_z_stops_workers_and_fg_continues_them,
    ctrl_z_stops_workers_and_bg_continues_them,
    program_continued_alone_continues_its_workers,
    program_killed_while_stopped_leaves_nothing,
    ctrl_z_that_program_ignores_stops_nothing,
    group_stopped_then_program_killed_leaves_nothing,
}

/// Starts a victim that is the only program of its terminal.
fn alone(scene: &str, method: StartMethod) -> (Pty, Victim) {
    let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
    command.args(ARGS);
    let pty = Pty::control(&mut command);
    (pty, Victim::start_as(command, scene, method))
}

/// Starts a victim as the foreground job of an interactive shell.
fn below_shell(scene: &str, method: StartMethod) -> (Pty, Victim) {
    let mut command = Command::new("sh");
    command
        .arg("-i")
        .env("PS1", "ready> ")
        .env("PROGRAM", std::env::current_exe().expect("the test binary has a path"));
    let mut pty = Pty::control(&mut command);
    let victim = Victim::start_as(command, scene, method);
    pty.wait_for("ready> ");
    pty.write(&format!("\"$PROGRAM\" {}\n", ARGS.join(" ")));
    (pty, victim)
}

fn said(victim: &Victim) -> String {
    std::fs::read_to_string(victim.on_stage("said")).unwrap_or_default()
}

/// Waits until the victim has reached `point`, while the terminal shows what it prints.
fn wait_until(pty: &mut Pty, victim: &Victim, point: &str) {
    let mut look = || {
        assert_eq!(said(victim), "", "{}", pty.seen());
        pty.seen();
        victim.on_stage(point).exists()
    };
    eventually(point, PATIENCE, &mut look);
}

/// Waits for the end of a scene that was played by a program alone in its terminal.
fn ends_well(pty: &mut Pty, mut victim: Victim) {
    wait_until(pty, &victim, "played");
    eventually("the program ends", PATIENCE, || {
        pty.seen();
        victim.child.try_wait().expect("the victim is our child").is_some()
    });
    let status = victim.finish();
    assert!(status.success(), "{status}: {}", pty.seen());
    victim.leaves_nobody();
}

/// The process ids that a scene has written down.
fn noted(victim: &Victim, name: &str) -> Vec<u32> {
    let text = std::fs::read_to_string(victim.on_stage(name)).expect("the scene has written it");
    text.split_whitespace().map(|pid| pid.parse().expect("a process id")).collect()
}

fn state(pid: u32) -> Option<char> {
    processes::state_of(pid)
}

fn all_are_stopped(pids: &[u32]) -> bool {
    pids.iter().all(|pid| state(*pid) == Some('T'))
}

fn none_is_stopped(pids: &[u32]) -> bool {
    pids.iter().all(|pid| state(*pid).is_some_and(|state| state != 'T'))
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("a process that is there");
}

// What a task does in a terminal.

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
    wait_until(&mut pty, &victim, "played");
    assert_eq!(std::fs::read_to_string(victim.on_stage("password")).unwrap(), "open sesame");
    assert!(!pty.seen().contains("sesame"), "{}", pty.seen());
    eventually("the program ends", PATIENCE, || victim.family().is_empty());
}

// What the person at the terminal does.

fn ctrl_c_ends_program_and_all_it_started(method: StartMethod) {
    let (mut pty, mut victim) = alone("works", method);
    wait_until(&mut pty, &victim, "working");
    pty.write("\x03");
    let status = victim.finish();
    assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{status}");
    victim.leaves_nobody();
}

fn ctrl_c_reaches_program_alone(method: StartMethod) {
    let (mut pty, victim) = alone("works on after SIGINT", method);
    wait_until(&mut pty, &victim, "working");
    pty.write("\x03");
    wait_until(&mut pty, &victim, "interrupted");
    std::fs::write(victim.on_stage("gate"), "").unwrap();
    ends_well(&mut pty, victim);
}

/// A program that works below a shell, was stopped by Ctrl-Z, and all that it had started with it.
fn stopped(method: StartMethod) -> (Pty, Victim, Vec<u32>) {
    let (mut pty, victim) = below_shell("works", method);
    wait_until(&mut pty, &victim, "working");
    let (program, workers) = (noted(&victim, "program"), noted(&victim, "workers"));
    assert_eq!(workers.len(), 4, "a process, two workers, and a program that one has started");
    eventually("they run", PATIENCE, || none_is_stopped(&workers));
    pty.write("\x1a");
    eventually("the program is stopped", PATIENCE, || all_are_stopped(&program));
    eventually("all that it started is stopped", PATIENCE, || all_are_stopped(&workers));
    (pty, victim, workers)
}

/// After they were continued, the calls have the right results, and the program ends.
fn finishes(pty: &mut Pty, victim: &Victim, workers: &[u32]) {
    eventually("all go on", PATIENCE, || none_is_stopped(workers));
    std::fs::write(victim.on_stage("gate"), "").unwrap();
    wait_until(pty, victim, "played");
    eventually("the program ends", PATIENCE, || victim.family().is_empty());
}

fn ctrl_z_stops_workers_and_fg_continues_them(method: StartMethod) {
    let (mut pty, victim, workers) = stopped(method);
    pty.write("fg\n");
    eventually("all go on", PATIENCE, || none_is_stopped(&workers));
    // The second time is as the first.
    pty.write("\x1a");
    eventually("all that it started is stopped", PATIENCE, || all_are_stopped(&workers));
    pty.write("fg\n");
    finishes(&mut pty, &victim, &workers);
}

fn ctrl_z_stops_workers_and_bg_continues_them(method: StartMethod) {
    let (mut pty, victim, workers) = stopped(method);
    pty.write("bg\n");
    finishes(&mut pty, &victim, &workers);
}

fn program_continued_alone_continues_its_workers(method: StartMethod) {
    let (mut pty, victim, workers) = stopped(method);
    for pid in noted(&victim, "program") {
        send(pid, Signal::SIGCONT);
    }
    finishes(&mut pty, &victim, &workers);
}

fn program_killed_while_stopped_leaves_nothing(method: StartMethod) {
    let (_pty, victim, _) = stopped(method);
    for pid in noted(&victim, "program") {
        send(pid, Signal::SIGKILL);
    }
    eventually("nothing that it started is alive", PATIENCE, || victim.family().is_empty());
}

fn ctrl_z_that_program_ignores_stops_nothing(method: StartMethod) {
    let (mut pty, victim) = below_shell("ignores SIGTSTP", method);
    wait_until(&mut pty, &victim, "working");
    pty.write("\x1a");
    // The terminal has handled the key when it shows it.
    pty.wait_for("^Z");
    finishes(&mut pty, &victim, &noted(&victim, "workers"));
}

/// `kill -STOP` of the whole group stops the fork server, too, which could not end anything then.
fn group_stopped_then_program_killed_leaves_nothing(method: StartMethod) {
    let (mut pty, mut victim) = alone("works", method);
    wait_until(&mut pty, &victim, "working");
    let program = victim.child.id();
    kill(Pid::from_raw(-program.cast_signed()), Signal::SIGSTOP).unwrap();
    eventually("the program is stopped", PATIENCE, || all_are_stopped(&[program]));
    send(program, Signal::SIGKILL);
    let _ = victim.finish();
    eventually("nothing that it started is alive", PATIENCE, || victim.family().is_empty());
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = victim::scene() else { return };
    std::panic::set_hook(Box::new(|info| drop(std::fs::write(victim::stage().join("said"), info.to_string()))));
    match scene.as_str() {
        "prints" => prints(method),
        "changes its mode" => {
            assert_eq!(spawn(method, change_mode, ()).join(), Ok(()));
            assert_eq!(pool(method).call(change_mode, ()), Ok(()));
        }
        "reads from the background" => reads_from_background(method),
        "inherits its stdin" => inherits_stdin(method),
        "asks for a password" => {
            let process = Builder::new().start_method(method).stdin(Stdio::inherit()).spawn(ask_for_password, ());
            let password = process.and_then(Process::join).unwrap();
            std::fs::write(victim::stage().join("password"), password).unwrap();
        }
        "works" => works(method),
        "works on after SIGINT" => {
            extern "C" fn note(_: i32) {
                // SAFETY: the path is a string that ends with a zero byte; the descriptor stays open.
                unsafe { nix::libc::open(c"interrupted".as_ptr(), nix::libc::O_CREAT, 0o600) };
            }
            std::env::set_current_dir(victim::stage()).unwrap();
            // SAFETY: the handler makes one system call.
            unsafe { nix::sys::signal::signal(Signal::SIGINT, SigHandler::Handler(note)) }.unwrap();
            works(method);
        }
        "ignores SIGTSTP" => {
            // SAFETY: no handler runs.
            unsafe { nix::sys::signal::signal(Signal::SIGTSTP, SigHandler::SigIgn) }.unwrap();
            works(method);
        }
        other => unreachable!("no scene {other}"),
    }
    reached("played");
}

fn spawn<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> Process<T::Output> {
    Builder::new().start_method(method).spawn(task, args).unwrap()
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
    let with = |stdin: Stdio| Builder::new().start_method(method).stdin(stdin);
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

/// Has a process, two workers, and a program that one of them started, at work until the gate is open.
fn works(method: StartMethod) {
    let stage = victim::stage();
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let stage_of_task = stage.to_str().unwrap();
    let one = pool.submit(at_gate, (stage_of_task, 1));
    let two = pool.submit(at_gate_with_program, (stage_of_task, 2));
    let three = spawn(method, at_gate, (stage_of_task, 3));
    eventually("all work", PATIENCE, || [1, 2, 3].iter().all(|number| stage.join(format!("at-{number}")).exists()));
    let mut pids: Vec<_> = active_children().iter().map(|child| child.id().to_string()).collect();
    pids.push(std::fs::read_to_string(stage.join("at-2")).unwrap());
    std::fs::write(stage.join("workers"), pids.join(" ")).unwrap();
    std::fs::write(stage.join("program"), std::process::id().to_string()).unwrap();
    reached("working");
    assert_eq!((one.join(), two.join(), three.join()), (Ok(1), Ok(2), Ok(3)));
    assert_eq!(pool.map(double, 0..100).unwrap()[99], 198);
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

fn wait_at_gate(stage: &Path) {
    while !stage.join("gate").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[process_task]
fn at_gate(stage: &str, number: u32) -> u32 {
    std::fs::write(Path::new(stage).join(format!("at-{number}")), "").unwrap();
    wait_at_gate(Path::new(stage));
    number
}

/// As [`at_gate`], and writes down the process id of a program that it has started.
#[process_task]
fn at_gate_with_program(stage: &str, number: u32) -> u32 {
    let mut program = Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(Path::new(stage).join("new"), program.id().to_string()).unwrap();
    std::fs::rename(Path::new(stage).join("new"), Path::new(stage).join(format!("at-{number}"))).unwrap();
    wait_at_gate(Path::new(stage));
    program.kill().unwrap();
    program.wait().unwrap();
    number
}
