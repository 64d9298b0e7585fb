//! Job control: what Ctrl-C, Ctrl-Z, `fg` and the end of a terminal do to a program and to all that it has started.
//!
//! Runs in: victims, each in a session of its own that a pseudo-terminal controls, some below an interactive shell.
//! Never: changes the test's own terminal.
#![expect(unsafe_code, reason = "changes a signal's disposition")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::pty::{Pty, alone, below_shell, ends_well, job_ends_well, send, wait_until};
use crate::support::subprocess::{self, Victim, reached};
use crate::support::{PATIENCE, eventually, processes};
use nix::sys::signal::{SigHandler, Signal, kill};
use nix::unistd::Pid;
use process_task::{Pool, ProcessBuilder, StartMethod, active_children, process_task};

under_every_start_method! {
    within 120 seconds;
    ctrl_c_ends_program_and_all_it_started,
    ctrl_c_reaches_program_alone,
    ctrl_z_stops_workers_and_fg_continues_them,
    ctrl_z_stops_workers_and_bg_continues_them,
    program_continued_alone_continues_its_workers,
    program_killed_while_stopped_leaves_nothing,
    ctrl_z_that_program_ignores_stops_nothing,
    group_stopped_then_program_killed_leaves_nothing,
    closed_terminal_ends_program_and_all_it_started,
    killed_group_of_program_leaves_nothing,
    signals_to_whole_group_spare_fork_server,
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

fn ctrl_c_ends_program_and_all_it_started(method: StartMethod) {
    let (mut pty, mut victim) = alone("works", method);
    wait_until(&mut pty, &victim, "working");
    pty.write("\x03");
    let status = victim.finish();
    assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{status}");
    victim.leaves_no_process();
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
    assert_eq!(workers.len(), 5, "a process, two workers, a program and a process that one has started");
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
    job_ends_well(pty, victim);
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

fn closed_terminal_ends_program_and_all_it_started(method: StartMethod) {
    let (mut pty, mut victim) = alone("works", method);
    wait_until(&mut pty, &victim, "working");
    drop(pty);
    assert_eq!(victim.finish().signal(), Some(Signal::SIGHUP as i32));
    victim.leaves_no_process();
}

/// The fork server is a member of that group, the workers and what they have started are not.
fn killed_group_of_program_leaves_nothing(method: StartMethod) {
    let (mut pty, mut victim) = alone("works", method);
    wait_until(&mut pty, &victim, "working");
    let (group, workers) = (Pid::from_raw(victim.child.id().cast_signed()), noted(&victim, "workers"));
    let is_member = |pid: &u32| nix::unistd::getpgid(Some(Pid::from_raw(pid.cast_signed()))) == Ok(group);
    assert!(victim.family().iter().any(is_member), "the fork server is a member");
    assert!(!workers.iter().any(is_member), "a worker, or what it has started, is a member");
    kill(Pid::from_raw(-group.as_raw()), Signal::SIGKILL).unwrap();
    assert_eq!(victim.finish().signal(), Some(Signal::SIGKILL as i32));
    victim.leaves_no_process();
}

fn signals_to_whole_group_spare_fork_server(method: StartMethod) {
    let (mut pty, victim) = alone("signals its group", method);
    ends_well(&mut pty, victim);
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    match scene.as_str() {
        "works" => works(method),
        "works on after SIGINT" => {
            extern "C" fn note(_: i32) {
                // SAFETY: the path is a string that ends with a zero byte; the descriptor stays open.
                unsafe { nix::libc::open(c"interrupted".as_ptr(), nix::libc::O_CREAT, 0o600) };
            }
            std::env::set_current_dir(subprocess::stage()).unwrap();
            // SAFETY: the handler makes one system call.
            unsafe { nix::sys::signal::signal(Signal::SIGINT, SigHandler::Handler(note)) }.unwrap();
            works(method);
        }
        "ignores SIGTSTP" => {
            // SAFETY: no handler runs.
            unsafe { nix::sys::signal::signal(Signal::SIGTSTP, SigHandler::SigIgn) }.unwrap();
            works(method);
        }
        "signals its group" => {
            let process = ProcessBuilder::new().start_method(method).spawn(double_slowly, 21).unwrap();
            let group = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM, Signal::SIGTERM, Signal::SIGINT];
            for signal in group {
                // SAFETY: no handler runs.
                unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }.unwrap();
                kill(Pid::from_raw(0), signal).unwrap();
            }
            assert_eq!(process.join(), Ok(42));
        }
        other => unreachable!("no scene {other}"),
    }
    reached("played");
}

/// Has a process, two workers, and a program that one of them started, at work until the gate is open.
fn works(method: StartMethod) {
    let stage = subprocess::stage();
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let stage_of_task = stage.to_str().unwrap();
    let one = pool.submit(at_gate, (stage_of_task, 1));
    let two = pool.submit(at_gate_with_program, (stage_of_task, 2));
    let three = ProcessBuilder::new().start_method(method).spawn(at_gate, (stage_of_task, 3)).unwrap();
    eventually("all work", PATIENCE, || [1, 2, 3, 4].iter().all(|number| stage.join(format!("at-{number}")).exists()));
    let mut pids: Vec<_> = active_children().iter().map(|child| child.pid().to_string()).collect();
    pids.push(std::fs::read_to_string(stage.join("at-2")).unwrap());
    pids.push(std::fs::read_to_string(stage.join("at-4")).unwrap());
    std::fs::write(stage.join("workers"), pids.join(" ")).unwrap();
    std::fs::write(stage.join("program"), std::process::id().to_string()).unwrap();
    reached("working");
    assert_eq!((one.join(), two.join(), three.join()), (Ok(1), Ok(2), Ok(3)));
    assert_eq!(pool.map(double, 0..100).unwrap()[99], 198);
}

fn wait_at_gate(stage: &Path) {
    while !stage.join("gate").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[process_task]
fn at_gate(stage: &str, number: u32) -> u32 {
    let stage = Path::new(stage);
    std::fs::write(stage.join(format!("new-{number}")), std::process::id().to_string()).unwrap();
    std::fs::rename(stage.join(format!("new-{number}")), stage.join(format!("at-{number}"))).unwrap();
    wait_at_gate(stage);
    number
}

/// As [`at_gate`], with a program and a process that it has started, and writes down the program's process id.
#[process_task]
fn at_gate_with_program(stage: &str, number: u32) -> u32 {
    let mut program = Command::new("sleep").arg("1000").spawn().unwrap();
    let process = at_gate.spawn(stage, number + 2);
    std::fs::write(Path::new(stage).join("new"), program.id().to_string()).unwrap();
    std::fs::rename(Path::new(stage).join("new"), Path::new(stage).join(format!("at-{number}"))).unwrap();
    assert_eq!(process.join(), Ok(number + 2));
    program.kill().unwrap();
    program.wait().unwrap();
    number
}

#[process_task]
fn double_slowly(x: i64) -> i64 {
    std::thread::sleep(Duration::from_millis(300));
    2 * x
}

#[process_task]
fn double(x: i64) -> i64 {
    2 * x
}
