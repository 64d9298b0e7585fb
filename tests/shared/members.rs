//! A process that dies holding a lock is found out, however it was made and whatever died with it; a live one is left alone.
//!
//! Runs in: the test process, and victims for what a whole program must do. Never: takes the time that something takes for
//! a promise, but where only an answer within a second tells that it was reported, and then the best of some rounds.
#![expect(unsafe_code, reason = "host programs and tasks that call fork(2)")]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::subprocess::{self, Victim, plays, reached};
use crate::support::{self, PATIENCE, eventually, processes};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use process_task::sync::{Barrier, Mutex, TryLockError};
use process_task::{Pool, Process, ProcessBuilder, Shared, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    child_killed_while_it_holds_a_lock_is_found_out_at_once,
    a_worker_that_is_killed_while_it_holds_a_lock_is_found_out,
    a_child_that_leaves_without_giving_a_lock_back_is_found_out,
    a_grandchild_ends_with_the_child_and_is_found_out,
    held_locks_stay_when_the_fork_server_is_killed,
    what_a_child_writes_by_mistake_takes_nobodys_lock,
    a_copy_made_by_a_task_is_found_out,
    a_copy_of_the_program_is_found_out_before_it_is_reaped,
    a_child_of_a_copy_is_found_out_when_the_copy_dies,
    a_copy_breaks_a_barrier_only_if_it_is_killed,
    a_copy_that_is_left_gets_what_the_programs_child_held,
    orphaned_copy_gets_the_lock_without_any_report,
    held_locks_stay_while_the_fork_server_is_stopped,
    orphaned_copy_takes_no_held_lock,
}

/// A lock, and how the one that holds it says that it does.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Prey {
    lock: Shared<Mutex<u64>>,
    held: Shared<AtomicBool>,
}

impl Prey {
    fn new() -> Self {
        Self { lock: Shared::new(Mutex::new(0)).unwrap(), held: Shared::new(AtomicBool::new(false)).unwrap() }
    }

    /// Takes the lock, says so, and never gives it back.
    fn hold(&self) -> ! {
        let _held = self.lock.lock().unwrap();
        self.held.store(true, SeqCst);
        loop {
            std::thread::sleep(Duration::from_secs(1000));
        }
    }

    /// Waits until it is held, by a process that lives.
    fn until_held(&self) {
        eventually("a process holds the lock", PATIENCE, || self.held.load(SeqCst));
        self.is_held();
    }

    fn is_held(&self) {
        let now = self.lock.try_lock();
        assert!(matches!(now, Err(TryLockError::WouldBlock)), "{now:?}; {}", processes::table());
    }

    /// Takes it from a holder that is dead, and says how long that took.
    fn is_taken_from_the_dead(&self) -> Duration {
        let start = Instant::now();
        let taken = self.lock.lock_timeout(PATIENCE);
        let after = start.elapsed();
        assert!(matches!(taken, Err(TryLockError::Poisoned(_))), "{taken:?}; {}", processes::table());
        after
    }
}

fn start(method: StartMethod, prey: &Prey) -> Process<()> {
    let process = ProcessBuilder::new().start_method(method).spawn(hold, prey).unwrap();
    prey.until_held();
    process
}

fn child_killed_while_it_holds_a_lock_is_found_out_at_once(method: StartMethod) {
    let fastest = (0..10).map(|_| {
        let prey = Prey::new();
        let mut process = start(method, &prey);
        process.kill().unwrap();
        let after = prey.is_taken_from_the_dead();
        process.wait().unwrap();
        after
    });
    let fastest = fastest.min().unwrap();
    assert!(fastest < Duration::from_millis(500), "its death was not reported: {fastest:?}");
}

fn a_worker_that_is_killed_while_it_holds_a_lock_is_found_out(method: StartMethod) {
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let prey = Prey::new();
    let call = pool.submit(hold, &prey);
    prey.until_held();
    let free: u64 = pool.call(tries, &prey).unwrap();
    assert_eq!(free, 0, "the other worker sees that it is held");
    pool.kill();
    prey.is_taken_from_the_dead();
    assert!(call.join().is_err());
}

fn a_child_that_leaves_without_giving_a_lock_back_is_found_out(method: StartMethod) {
    let prey = Prey::new();
    ProcessBuilder::new().start_method(method).spawn(forgets, &prey).and_then(Process::join).unwrap();
    prey.is_taken_from_the_dead();
}

fn a_grandchild_ends_with_the_child_and_is_found_out(method: StartMethod) {
    let prey = Prey::new();
    let process =
        ProcessBuilder::new().start_method(method).spawn(has_it_held, (&prey, method == StartMethod::Exec)).unwrap();
    prey.until_held();
    kill(pid_of(process.pid().unwrap()), Signal::SIGKILL).unwrap();
    prey.is_taken_from_the_dead();
    assert!(process.join().is_err());
}

fn held_locks_stay_when_the_fork_server_is_killed(method: StartMethod) {
    for _ in 0..support::rounds(4) {
        let prey = Prey::new();
        let process = start(method, &prey);
        let holder = process.pid().unwrap();
        kill(pid_of(fork_server(std::process::id())), Signal::SIGKILL).unwrap();
        // Its maker is dead, and it will be killed for that, but not in this moment.
        loop {
            match prey.lock.try_lock() {
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Poisoned(_)) => break,
                Ok(_) => panic!("a dead holder leaves its lock poisoned"),
            }
        }
        assert!(!processes::alive(holder), "robbed while it runs");
        assert!(process.join().is_err());
        let again = || ProcessBuilder::new().start_method(method).spawn(nothing, ()).and_then(Process::join);
        eventually("starts work", PATIENCE, || again().is_ok());
        eventually("there is one fork server", PATIENCE, || fork_servers(std::process::id()).len() == 1);
    }
}

fn held_locks_stay_while_the_fork_server_is_stopped(method: StartMethod) {
    let prey = Prey::new();
    let mut process = start(method, &prey);
    let server = pid_of(fork_server(std::process::id()));
    kill(server, Signal::SIGSTOP).unwrap();
    // Longer than the report of a death may take.
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        prey.is_held();
        std::thread::sleep(Duration::from_millis(10));
    }
    process.kill().unwrap();
    kill(server, Signal::SIGCONT).unwrap();
    prey.is_taken_from_the_dead();
    process.wait().unwrap();
}

fn what_a_child_writes_by_mistake_takes_nobodys_lock(method: StartMethod) {
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    assert_eq!(pool.call(may_write, ()).unwrap(), [false]);
    pool.call(starts, method == StartMethod::Exec).unwrap();
    assert_eq!(pool.call(may_write, ()).unwrap(), [true], "it has entered its own fork server");
}

fn a_copy_made_by_a_task_is_found_out(method: StartMethod) {
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let prey = Prey::new();
    let copy = pool.call(forks, &prey).unwrap();
    prey.until_held();
    assert_eq!(pool.call(tries, &prey).unwrap(), 0, "its original is another process");
    kill(pid_of(copy), Signal::SIGKILL).unwrap();
    prey.is_taken_from_the_dead();
    let prey = Prey::new();
    let copy = pool.call(forks, &prey).unwrap();
    prey.until_held();
    // Now it ends because its original does.
    drop(pool);
    prey.is_taken_from_the_dead();
    // The kernel takes its locks from it a moment before it takes it from the list of processes.
    eventually("the copy ends", PATIENCE, || !processes::alive(copy));
}

fn a_copy_of_the_program_is_found_out_before_it_is_reaped(method: StartMethod) {
    plays("copies itself", method);
}

fn a_child_of_a_copy_is_found_out_when_the_copy_dies(method: StartMethod) {
    plays("copies itself, and the copy has a child", method);
}

fn a_copy_breaks_a_barrier_only_if_it_is_killed(method: StartMethod) {
    plays("copies itself, and meets the copies", method);
}

fn a_copy_that_is_left_gets_what_the_programs_child_held(method: StartMethod) {
    let mut victim = Victim::start("leaves a copy", method);
    victim.wait_for("waits");
    victim.child.kill().unwrap();
    victim.wait_for_the_copy();
}

fn orphaned_copy_gets_the_lock_without_any_report(method: StartMethod) {
    let mut victim = Victim::start("leaves a copy", method);
    victim.wait_for("waits");
    let server = pid_of(fork_server(victim.child.id()));
    kill(server, Signal::SIGSTOP).unwrap();
    victim.child.kill().unwrap();
    kill(server, Signal::SIGKILL).unwrap();
    victim.wait_for_the_copy();
}

fn orphaned_copy_takes_no_held_lock(method: StartMethod) {
    let mut victim = Victim::start("leaves a copy", method);
    victim.wait_for("waits");
    let told = |point| fs::read_to_string(victim.on_stage(point)).unwrap().parse::<u32>().unwrap();
    let (holder, copy) = (told("held by"), told("waits"));
    let server = pid_of(fork_server(victim.child.id()));
    if std::fs::File::open("/dev/tty").is_ok() {
        // Below a terminal, a fork server that is stopped goes on when its program ends.
        return victim.child.kill().unwrap();
    }
    // Or the kernel would let the fork server go on, as one that is stopped and that no process can continue any more.
    set_child_subreaper(true).unwrap();
    kill(server, Signal::SIGSTOP).unwrap();
    victim.child.kill().unwrap();
    victim.child.wait().unwrap();
    set_child_subreaper(false).unwrap();
    // Longer than a death is waited for that no process is left to tell of.
    std::thread::sleep(Duration::from_millis(2500));
    assert!(processes::alive(holder) && !victim.on_stage("got it").exists(), "robbed while it runs");
    kill(server, Signal::SIGCONT).unwrap();
    victim.wait_for_the_copy();
    for orphan in [server, pid_of(copy)] {
        waitpid(orphan, None).unwrap();
    }
}

trait Left {
    fn wait_for_the_copy(&mut self);
}

impl Left for Victim {
    fn wait_for_the_copy(&mut self) {
        assert!(!self.finish().success());
        let (got, said) = (self.on_stage("got it"), self.on_stage("said"));
        eventually("the copy has the lock, or says why not", 2 * PATIENCE, || got.exists() || said.exists());
        assert!(!said.exists(), "{}", fs::read_to_string(said).unwrap());
        eventually("all have ended", PATIENCE, || self.family().is_empty());
    }
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    let prey = Prey::new();
    match scene.as_str() {
        "copies itself" => {
            let copy = copied(|| prey.hold());
            prey.until_held();
            kill(copy, Signal::SIGKILL).unwrap();
            // It is dead, but still there.
            waitid(Id::Pid(copy), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
            prey.is_taken_from_the_dead();
            waitpid(copy, None).unwrap();
        }
        "copies itself, and the copy has a child" => {
            let copy =
                copied(|| drop(ProcessBuilder::new().start_method(method).spawn(hold, &prey).and_then(Process::join)));
            prey.until_held();
            kill(copy, Signal::SIGKILL).unwrap();
            prey.is_taken_from_the_dead();
            waitpid(copy, None).unwrap();
        }
        "copies itself, and meets the copies" => {
            let barrier = Shared::new(Barrier::new(2)).unwrap();
            for _ in 0..2 {
                let leaves = copied(|| {
                    let _ = barrier.wait();
                });
                assert!(barrier.wait().is_ok());
                waitpid(leaves, None).unwrap();
            }
            let killed = copied(|| {
                let _ = barrier.wait();
                std::thread::sleep(Duration::from_secs(1000));
            });
            assert!(barrier.wait().is_ok());
            kill(killed, Signal::SIGKILL).unwrap();
            assert!(barrier.wait().is_err());
            waitpid(killed, None).unwrap();
        }
        "leaves a copy" => {
            let process = start(method, &prey);
            fs::write(subprocess::stage().join("held by"), process.pid().unwrap().to_string()).unwrap();
            copied(|| {
                let waits = subprocess::stage().join("waits");
                fs::write(waits.with_extension("new"), std::process::id().to_string()).unwrap();
                fs::rename(waits.with_extension("new"), waits).unwrap();
                prey.is_taken_from_the_dead();
                reached("got it");
            });
            subprocess::wait_to_go_on();
        }
        other => unreachable!("no scene {other}"),
    }
    reached("played");
    end();
}

/// A copy of this process that does `what`, and ends.
fn copied(what: impl FnOnce()) -> Pid {
    // SAFETY: the copy uses locks that other threads may hold only as the library promises that it may.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
            end()
        }
        ForkResult::Parent { child } => child,
    }
}

#[expect(clippy::exit, reason = "the scene is over")]
fn end() -> ! {
    std::process::exit(0);
}

fn method_of(exec: bool) -> StartMethod {
    if exec { StartMethod::Exec } else { StartMethod::ForkServer }
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}

fn fork_server(of: u32) -> u32 {
    let servers = fork_servers(of);
    let [server] = servers[..] else { panic!("one fork server: {}", processes::table()) };
    server
}

fn fork_servers(of: u32) -> Vec<u32> {
    let ours = |entry: &processes::Entry| entry.parent == of && entry.state != 'Z' && entry.name == "fork-server";
    processes::descendants().into_iter().filter(|(_, entry)| ours(entry)).map(|(pid, _)| pid).collect()
}

#[process_task]
fn nothing() {}

#[process_task]
fn hold(prey: &Prey) {
    prey.hold();
}

/// Whether the process table can be written, for each place where this process has mapped it.
#[process_task]
fn may_write() -> Vec<bool> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter(|line| line.contains("memfd:process-task-processes"))
        .map(|line| line.contains(" rw-s "))
        .collect()
}

#[process_task]
fn starts(exec: bool) {
    let method = method_of(exec);
    ProcessBuilder::new().start_method(method).spawn(nothing, ()).and_then(Process::join).unwrap();
}

/// How many times the lock could be had.
#[process_task]
fn tries(prey: &Prey) -> u64 {
    u64::from(prey.lock.try_lock().is_ok())
}

#[process_task]
fn forgets(prey: &Prey) {
    let _never_dropped = std::mem::ManuallyDrop::new(prey.lock.lock());
}

#[process_task]
fn has_it_held(prey: &Prey, exec: bool) {
    let method = method_of(exec);
    let process = ProcessBuilder::new().start_method(method).spawn(hold, prey).unwrap();
    process.join().unwrap();
}

/// Leaves a copy that holds the lock, and says which process that is.
#[process_task]
fn forks(prey: &Prey) -> u32 {
    copied(|| prey.hold()).as_raw().unsigned_abs()
}
