//! However a parent ends, nothing that it started stays alive: no child, no fork server, no grandchild.
//!
//! Runs in: the test process, which kills victims; in the victims; in what they start.
//! Never: kills anything but its own victims.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use crate::support::subprocess::{self, Victim, reached, stage};
use crate::support::{self, PATIENCE, eventually, processes};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_task::{Pool, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    within 240 seconds;
    parent_killed_during_starts_leaves_no_process,
    parent_that_returns_from_main_leaves_no_process,
    parent_that_exits_leaves_no_process,
    parent_that_panics_leaves_no_process,
    parent_that_aborts_leaves_no_process,
    parent_that_forgot_its_pool_leaves_no_process,
    parent_killed_with_grandchildren_leaves_no_process,
    parent_killed_with_fork_server_leaves_no_process,
    worker_killed_with_its_fork_server_leaves_no_process,
    a_pool_outlives_the_thread_that_made_it,
}

fn parent_killed_during_starts_leaves_no_process(method: StartMethod) {
    let seed = std::process::id() ^ std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    println!("seed {seed}");
    let mut random = u64::from(seed) | 1;
    for _ in 0..support::rounds(100) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut victim = Victim::start("starts for ever", method);
        // The first process is there 5 to 20 ms after the program has begun.
        thread::sleep(Duration::from_micros(random % 30_000));
        victim.child.kill().unwrap();
        victim.child.wait().unwrap();
        victim.leaves_no_process();
    }
}

fn parent_that_returns_from_main_leaves_no_process(method: StartMethod) {
    assert_eq!(ends_with_a_family("returns", method).code(), Some(0));
}

fn parent_that_exits_leaves_no_process(method: StartMethod) {
    assert_eq!(ends_with_a_family("exits", method).code(), Some(7));
}

fn parent_that_panics_leaves_no_process(method: StartMethod) {
    assert_eq!(ends_with_a_family("panics", method).code(), Some(101));
}

fn parent_that_aborts_leaves_no_process(method: StartMethod) {
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(ends_with_a_family("aborts", method).signal(), Some(Signal::SIGABRT as i32));
}

fn parent_that_forgot_its_pool_leaves_no_process(method: StartMethod) {
    assert_eq!(ends_with_a_family("forgets", method).code(), Some(0));
}

fn parent_killed_with_grandchildren_leaves_no_process(method: StartMethod) {
    let mut victim = with_a_family("waits", method);
    victim.child.kill().unwrap();
    victim.child.wait().unwrap();
    victim.leaves_no_process();
}

/// In either order. Those that are stopped before they are killed do nothing in between, so nothing is left to the order in which
/// they run.
fn parent_killed_with_fork_server_leaves_no_process(method: StartMethod) {
    for round in 0..support::rounds(6) {
        let mut victim = with_a_family("waits", method);
        let parent = victim.child.id();
        let is_server = |pid: &u32| processes::parent_of(*pid) == Some(parent);
        let server = victim.family().into_iter().find(is_server).expect("a fork server");
        let killed = if round % 2 == 0 { [server, parent] } else { [parent, server] };
        match round % 6 / 2 {
            0 => stop(&killed),
            1 => {}
            _ => stop(&[victim.family(), vec![parent]].concat()),
        }
        for pid in killed {
            send(pid, Signal::SIGKILL);
        }
        victim.child.wait().unwrap();
        victim.leaves_no_process();
    }
}

/// The worker is a parent, too, and what its fork server has made is in groups that the server above does not know.
fn worker_killed_with_its_fork_server_leaves_no_process(method: StartMethod) {
    let mut victim = with_a_family("returns", method);
    let makers = |program: &u32| {
        // A program is below the worker that has started it, and that is below its server and its parent.
        let above: Vec<_> = std::iter::successors(Some(*program), |pid| processes::parent_of(*pid)).take(5).collect();
        let [_, _, _, server, parent] = above[..] else { return None };
        (parent != victim.child.id()).then_some([server, parent])
    };
    let programs: Vec<_> = sleeping(&victim).into_iter().filter(|program| makers(program).is_some()).collect();
    let makers = programs.first().and_then(makers).expect("a program below a worker's worker");
    stop(&makers);
    for pid in makers {
        send(pid, Signal::SIGKILL);
    }
    eventually("the programs have ended", PATIENCE, || !programs.iter().any(|pid| processes::alive(*pid)));
    assert_eq!(victim.finish().code(), Some(0));
    victim.leaves_no_process();
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("a process that is there");
}

fn stop(pids: &[u32]) {
    for pid in pids {
        send(*pid, Signal::SIGSTOP);
    }
    eventually("they are stopped", PATIENCE, || pids.iter().all(|pid| processes::state_of(*pid) == Some('T')));
}

fn a_pool_outlives_the_thread_that_made_it(method: StartMethod) {
    let make = move || Pool::builder().workers(2).start_method(method).build().unwrap();
    let pool = thread::spawn(make).join().unwrap();
    let process = thread::spawn(move || ProcessBuilder::new().start_method(method).spawn(slow_square, 5).unwrap());
    let process = process.join().unwrap();
    let pids = pool.map(own_pid, [(), (), (), ()]).unwrap();
    assert_eq!(process.join().unwrap(), 25);
    // The kernel's "parent" of PR_SET_PDEATHSIG is a thread. None of the workers may have been replaced.
    let after = pool.map(own_pid, [(), (), (), ()]).unwrap();
    assert!(after.iter().all(|pid| process_task::active_children().iter().any(|child| child.pid() == *pid)));
    assert!(pids.iter().all(|pid| support::processes::alive(*pid)), "{pids:?} {after:?}");
}

/// A victim whose family is complete, grandchildren included.
fn with_a_family(scene: &str, method: StartMethod) -> Victim {
    let mut victim = Victim::start(scene, method);
    for point in ["in a process", "in a pool", "in a nested pool", "beside a shell", "below a nested pool"] {
        victim.wait_for(point);
    }
    eventually("all programs sleep", PATIENCE, || sleeping(&victim).len() == 4);
    assert!(victim.family().len() >= 20, "a fork server, its spares, six children, and theirs");
    victim
}

/// The programs that tasks have started and that sleep.
fn sleeping(victim: &Victim) -> Vec<u32> {
    let sleeps = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
    victim.family().into_iter().filter(sleeps).collect()
}

fn ends_with_a_family(scene: &str, method: StartMethod) -> std::process::ExitStatus {
    let mut victim = with_a_family(scene, method);
    let status = victim.finish();
    victim.leaves_no_process();
    status
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    static POOL: OnceLock<Pool> = OnceLock::new();
    let Some((scene, method)) = subprocess::scene() else { return };
    if scene == "starts for ever" {
        start_for_ever(method);
    }
    let busy = POOL.get_or_init(|| Pool::builder().workers(1).start_method(method).build().unwrap());
    let idle = Pool::builder().workers(1).start_method(method).build().unwrap();
    drop(busy.submit(for_ever, "in a pool"));
    ProcessBuilder::new().start_method(method).spawn(nested, "in a nested pool").unwrap().detach();
    ProcessBuilder::new().start_method(method).spawn(shell, "beside a shell").unwrap().detach();
    ProcessBuilder::new().start_method(method).spawn(nested_shell, "below a nested pool").unwrap().detach();
    let process = ProcessBuilder::new().start_method(method).spawn(for_ever, "in a process").unwrap();
    subprocess::wait_to_go_on();
    match scene.as_str() {
        "returns" => {}
        "exits" => exit(7),
        "panics" => panic!("as the scene wants it"),
        "aborts" => std::process::abort(),
        "forgets" => forget(idle),
        other => unreachable!("no scene {other}"),
    }
    drop(process);
}

#[expect(clippy::exit, reason = "the scene is a parent that does this")]
fn exit(code: i32) {
    std::process::exit(code);
}

#[expect(clippy::mem_forget, reason = "the scene is a parent that does this")]
fn forget(pool: Pool) {
    std::mem::forget(pool);
}

fn start_for_ever(method: StartMethod) -> ! {
    loop {
        let process = ProcessBuilder::new().start_method(method).spawn(slow_square, 3);
        let pool = Pool::builder().workers(2).start_method(method).build();
        if let (Ok(process), Ok(pool)) = (process, pool) {
            drop(pool.submit(slow_square, 4));
            process.detach();
        }
    }
}

#[process_task]
fn slow_square(x: u64) -> u64 {
    thread::sleep(Duration::from_millis(2));
    x * x
}

#[process_task]
fn own_pid() -> u32 {
    std::process::id()
}

#[process_task]
fn for_ever(point: &str) {
    reached(point);
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

#[process_task]
fn nested(point: &str) {
    let pool = Pool::builder().workers(2).build().unwrap();
    let _ = pool.call(for_ever, point);
}

/// Has two programs started that sleep, each by a shell. If that is possible, one has another user.
#[process_task]
fn shell(point: &str) {
    let start = |change: fn(&mut Command)| {
        let mut command = Command::new("sh");
        change(command.args(["-c", "sleep 1000; true"]).current_dir(stage()));
        command.spawn().unwrap()
    };
    let as_another = |command: &mut Command| {
        if nix::unistd::geteuid().is_root() {
            command.uid(65534);
        }
    };
    let children = [start(|_| ()), start(as_another)];
    reached(point);
    for mut child in children {
        let _ = child.wait();
    }
}

#[process_task]
fn nested_shell(point: &str) {
    let pool = Pool::builder().workers(1).build().unwrap();
    let _ = pool.call(shell, point);
}
