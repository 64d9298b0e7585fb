//! What a pool promises about workers on their way out: each end has a bound, a call is settled when its process is dead and
//! not before, and a finalizer that fails is told of.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how fast anything is.
#![expect(unsafe_code, reason = "exit handlers and signal handlers that hang")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::support::processes::{alive, descendants};
use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually, promise_within, rounds};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use process_task::{
    Error, ErrorKind, Execution, JoinHandle, Pool, PoolBuilder, ProcessBuilder, ShutdownMode, StartMethod,
    active_children, process_task,
};

under_every_start_method! {
    within 120 seconds;
    hanging_exit_handler_does_not_keep_a_join_waiting,
    hanging_exit_of_a_replaced_worker_is_bounded,
    hanging_thread_local_destructor_is_bounded,
    hanging_finalizer_times_out_by_its_own_timeout,
    hanging_finalizer_times_out_by_the_pools,
    failing_finalizers_are_what_shutdown_returns,
    a_finalizer_that_succeeds_is_no_error,
    kill_waits_for_no_finalizer,
    timed_out_call_is_settled_when_its_process_is_dead,
    timed_out_call_with_a_grace_settles_at_its_process_death,
    kill_ends_a_grace,
    a_dead_process_whose_fork_server_is_stopped_is_noticed,
    hanging_exit_handler_does_not_keep_drop_waiting,
    a_retry_that_waits_for_a_death_is_cancelled,
    cancelled_call_is_settled_when_its_process_is_dead,
    a_retry_starts_only_when_the_first_attempt_is_dead,
}

const SHORT: Duration = Duration::from_millis(100);

extern "C" fn hang_at_exit() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn at_exit_hang() {
    // SAFETY: the handler is a function of this program, and takes nothing.
    assert_eq!(unsafe { nix::libc::atexit(hang_at_exit) }, 0);
}

#[process_task]
fn hang_when_exiting() -> u32 {
    at_exit_hang();
    std::process::id()
}

struct Endless;

impl Drop for Endless {
    fn drop(&mut self) {
        hang_at_exit();
    }
}

thread_local! {
    static ENDLESS: Endless = const { Endless };
}

#[process_task]
fn leave_a_thread_local() {
    ENDLESS.with(|_| ());
}

#[process_task]
fn own_id() -> u32 {
    std::process::id()
}

#[process_task]
fn hang() {
    hang_at_exit();
}

#[process_task]
fn fail(why: &str) {
    panic!("{why}");
}

#[process_task]
#[expect(clippy::exit, reason = "that is what this task is for")]
fn leave(code: i32) {
    std::process::exit(code);
}

#[process_task]
fn nothing_more() {}

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn asked(_: i32) {
    ASKED.store(true, Relaxed);
}

/// Notes its process and does not end when it is asked to.
#[process_task]
fn be_deaf(directory: &str) {
    // SAFETY: the handler stores one atomic and nothing else.
    unsafe { signal(Signal::SIGTERM, SigHandler::Handler(asked)) }.expect("a handler");
    fs::write(format!("{directory}/{}", std::process::id()), "").expect("a directory");
    hang_at_exit();
}

/// The first time: notes its process and hangs. Then: says whether that is still there.
#[process_task]
fn look_for_the_first(directory: &str) -> bool {
    let note = format!("{directory}/first");
    if let Ok(first) = fs::read_to_string(&note) {
        return Path::new(&format!("/proc/{first}")).exists();
    }
    fs::write(&note, std::process::id().to_string()).expect("a directory");
    be_deaf(directory);
    true
}

/// The path of the directory, as tasks take it.
fn directory(scratch: &Scratch) -> &str {
    scratch.path().to_str().expect("a path in UTF-8")
}

fn builder(method: StartMethod, workers: usize) -> PoolBuilder {
    Pool::builder().workers(workers).start_method(method)
}

fn hanging_exit_handler_does_not_keep_drop_waiting(method: StartMethod) {
    // Without an option, too.
    let pool = builder(method, 2).termination_grace(SHORT).build().unwrap();
    let workers = [pool.call(hang_when_exiting, ()).unwrap(), pool.call(hang_when_exiting, ()).unwrap()];
    drop(pool);
    assert!(!workers.into_iter().any(alive));
}

fn hanging_exit_handler_does_not_keep_a_join_waiting(method: StartMethod) {
    for way in 0..3 {
        let pool = builder(method, 1).exit_timeout(SHORT).build().unwrap();
        let worker = pool.call(hang_when_exiting, ()).unwrap();
        match way {
            0 => pool.shutdown(ShutdownMode::Finish).unwrap(),
            1 => {
                pool.close();
                pool.wait_ended().unwrap();
            }
            _ => {
                pool.close();
                assert!(pool.wait_ended_timeout(Duration::MAX).is_ok_and(|ended| ended.is_ok()));
            }
        }
        assert!(!alive(worker));
        assert_eq!(pool.stats().forced_ends, 1);
    }
}

fn hanging_exit_of_a_replaced_worker_is_bounded(method: StartMethod) {
    let pool = builder(method, 1).exit_timeout(SHORT).max_calls_per_worker(1).build().unwrap();
    let first = pool.call(hang_when_exiting, ()).unwrap();
    assert_ne!(pool.call(own_id, ()).unwrap(), first);
    eventually("the first worker is dead", PATIENCE, || !alive(first));
    drop(pool);
    let pool = builder(method, 2).exit_timeout(SHORT).build().unwrap();
    let workers: Vec<_> = (0..8).map(|_| pool.call(hang_when_exiting, ()).unwrap()).collect();
    pool.resize(1).unwrap();
    let others = || active_children().len();
    eventually("a worker that was too many is dead", PATIENCE, || others() == 1);
    drop(pool);
    assert!(!workers.into_iter().any(alive));
}

fn hanging_thread_local_destructor_is_bounded(method: StartMethod) {
    let pool = builder(method, 1).exit_timeout(SHORT).build().unwrap();
    pool.call(leave_a_thread_local, ()).unwrap();
    drop(pool);
}

fn is_of_the_finalizer(error: &Error, task: &str) {
    assert!(error.task().is_some_and(|name| name.ends_with(task)), "{error}");
    assert!(error.to_string().ends_with("; it ran as the finalizer of its worker"), "{error}");
}

fn hanging_finalizer_times_out_by_its_own_timeout(method: StartMethod) {
    let pool = builder(method, 2).finalizer(hang.timeout(SHORT), ()).build().unwrap();
    let error = pool.shutdown(ShutdownMode::Finish).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut { limit, .. } if *limit == SHORT), "{error}");
    is_of_the_finalizer(&error, "::hang");
    let stats = pool.stats();
    assert_eq!((stats.failed_finalizers, stats.forced_ends), (2, 2));
    // It is the same each time, and what is dropped says nothing.
    assert_eq!(pool.wait_ended().unwrap_err(), error);
}

fn hanging_finalizer_times_out_by_the_pools(method: StartMethod) {
    let pool = builder(method, 1).finalizer(hang, ()).exit_timeout(SHORT).build().unwrap();
    let worker = pool.call(own_id, ()).unwrap();
    pool.close();
    let error = pool.wait_ended().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut { .. }) && !alive(worker), "{error}");
}

fn failing_finalizers_are_what_shutdown_returns(method: StartMethod) {
    let pool = builder(method, 1).finalizer(fail, "not tidy").build().unwrap();
    let error = pool.shutdown(ShutdownMode::Finish).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Panicked { .. }) && error.to_string().contains("not tidy"), "{error}");
    is_of_the_finalizer(&error, "::fail");
    let pool = builder(method, 1).finalizer(leave, 3).build().unwrap();
    let error = pool.shutdown(ShutdownMode::Cancel).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Exited { code: 3, .. }), "{error}");
    is_of_the_finalizer(&error, "::leave");
    // One that failed while the pool was open is counted.
    let pool = builder(method, 1).finalizer(leave, 4).max_calls_per_worker(1).build().unwrap();
    pool.call(own_id, ()).unwrap();
    eventually("it is counted", PATIENCE, || pool.stats().failed_finalizers == 1);
}

fn a_finalizer_that_succeeds_is_no_error(method: StartMethod) {
    let pool = builder(method, 2).finalizer(nothing_more.timeout(Duration::from_mins(1)), ()).build().unwrap();
    pool.call(own_id, ()).unwrap();
    pool.shutdown(ShutdownMode::Finish).unwrap();
    assert_eq!((pool.stats().failed_finalizers, pool.stats().forced_ends), (0, 0));
}

fn kill_waits_for_no_finalizer(method: StartMethod) {
    let pool = builder(method, 1).finalizer(hang.timeout(Duration::MAX), ()).build().unwrap();
    pool.call(own_id, ()).unwrap();
    pool.close();
    assert!(pool.wait_ended_timeout(SHORT).is_err());
    pool.kill();
    pool.wait_ended().unwrap();
    assert_eq!(pool.stats().failed_finalizers, 0);
}

/// The process that was running a call which has ended.
fn dead_when_settled<R>(handle: JoinHandle<R>) -> (Error, bool) {
    while !handle.is_finished() {
        std::hint::spin_loop();
    }
    let Err(error) = handle.join() else { panic!("it hangs") };
    let pid = error.process().expect("a process").1;
    let dead = !alive(pid);
    assert_eq!(error.execution(), Execution::Unknown, "{error}");
    (error, dead)
}

fn timed_out_call_is_settled_when_its_process_is_dead(method: StartMethod) {
    let pool = builder(method, 1).build().unwrap();
    for _ in 0..rounds(5) {
        let (error, dead) = dead_when_settled(pool.submit(hang.timeout(Duration::from_millis(5)), ()));
        assert!(dead && matches!(error.kind(), ErrorKind::TimedOut { .. }), "{error}");
    }
}

fn timed_out_call_with_a_grace_settles_at_its_process_death(method: StartMethod) {
    let pool = builder(method, 1).termination_grace(Duration::from_millis(500)).build().unwrap();
    let scratch = Scratch::new();
    let handle = pool.submit(be_deaf.timeout(SHORT), directory(&scratch));
    let begun = || fs::read_dir(scratch.path()).unwrap().next().is_some();
    eventually("it runs or is over", PATIENCE, || begun() || handle.is_finished());
    let (error, dead) = dead_when_settled(handle);
    assert!(dead && matches!(error.kind(), ErrorKind::TimedOut { limit, .. } if *limit == SHORT), "{error}");
}

fn cancelled_call_is_settled_when_its_process_is_dead(method: StartMethod) {
    for grace in [None, Some(Duration::from_millis(300))] {
        let builder = builder(method, 1);
        let pool = match grace {
            Some(grace) => builder.termination_grace(grace),
            None => builder,
        };
        let pool = pool.build().unwrap();
        for _ in 0..3 {
            let scratch = Scratch::new();
            let handle = pool.submit(be_deaf, directory(&scratch));
            eventually("it runs", PATIENCE, || fs::read_dir(scratch.path()).unwrap().next().is_some());
            assert!(handle.cancel_running() && handle.cancel_running() && handle.cancel());
            let (error, dead) = dead_when_settled(handle);
            assert!(dead && *error.kind() == ErrorKind::Cancelled, "{error}");
        }
    }
}

fn a_retry_starts_only_when_the_first_attempt_is_dead(method: StartMethod) {
    let pool = builder(method, 2).termination_grace(Duration::from_millis(300)).build().unwrap();
    for _ in 0..3 {
        let scratch = Scratch::new();
        let task = look_for_the_first.timeout(SHORT).retries(8);
        assert_eq!(pool.call(task, directory(&scratch)), Ok(false), "two were at work");
    }
}

fn a_retry_that_waits_for_a_death_is_cancelled(method: StartMethod) {
    let pool = builder(method, 1).termination_grace(Duration::from_secs(2)).build().unwrap();
    let scratch = Scratch::new();
    let handle = pool.submit(be_deaf.timeout(SHORT).retries(1000), directory(&scratch));
    eventually("it runs", PATIENCE, || fs::read_dir(scratch.path()).unwrap().next().is_some());
    // Whether it runs or is to be made again, it is cancelled, and dead when that is settled.
    std::thread::sleep(SHORT);
    assert!(handle.cancel_running());
    while !handle.is_finished() {
        std::hint::spin_loop();
    }
    let error = handle.join().unwrap_err();
    let notes = fs::read_dir(scratch.path()).unwrap().map(|note| note.unwrap().file_name().into_string().unwrap());
    let still: Vec<u32> = notes.map(|pid| pid.parse().unwrap()).filter(|pid| alive(*pid)).collect();
    assert_eq!((error.kind(), error.execution(), still), (&ErrorKind::Cancelled, Execution::Unknown, vec![]));
}

fn kill_ends_a_grace(method: StartMethod) {
    let pool = builder(method, 1).termination_grace(Duration::from_hours(1)).build().unwrap();
    let scratch = Scratch::new();
    let handle = pool.submit(be_deaf, directory(&scratch));
    eventually("it runs", PATIENCE, || fs::read_dir(scratch.path()).unwrap().next().is_some());
    assert!(handle.cancel_running() && handle.wait_timeout(SHORT).is_err());
    pool.kill();
    assert_eq!(handle.join().unwrap_err().kind(), &ErrorKind::Cancelled);
}

fn a_dead_process_whose_fork_server_is_stopped_is_noticed(method: StartMethod) {
    let pool = builder(method, 1).build().unwrap();
    let worker = pool.call(own_id, ()).unwrap();
    let server = descendants()[&worker].parent;
    assert_ne!(server, std::process::id());
    let server = Pid::from_raw(server.cast_signed());
    let handle = pool.submit(hang.timeout(SHORT), ());
    eventually("it runs", PATIENCE, || handle.is_running());
    kill(server, Signal::SIGSTOP).unwrap();
    let since = Instant::now();
    let finished = handle.wait_timeout(PATIENCE).is_ok();
    kill(server, Signal::SIGCONT).unwrap();
    assert!(finished, "{:?}", since.elapsed());
    assert!(matches!(handle.join().unwrap_err().kind(), ErrorKind::TimedOut { .. }));
    assert_ne!(pool.call(own_id, ()), Ok(worker));
}

/// A control group whose processes are frozen, which not even SIGKILL ends before they are thawed. `None` where this
/// process may not make one.
struct Frozen(PathBuf);

impl Frozen {
    fn with(pid: u32) -> Option<Self> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/freezer/process-task-{pid}"));
        fs::create_dir(&path).ok()?;
        let group = Self(path);
        fs::write(group.0.join("cgroup.procs"), pid.to_string()).ok()?;
        fs::write(group.0.join("freezer.state"), "FROZEN").ok()?;
        Some(group)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        eventually("the group is empty", PATIENCE, || fs::remove_dir(&self.0).is_ok());
    }
}

/// Waiting takes half a minute, so all that is given up is waited for at the same time.
#[test]
fn process_that_cannot_be_killed_is_given_up() {
    promise_within(Duration::from_mins(2), || {
        std::thread::scope(|scope| {
            for method in [StartMethod::ForkServer, StartMethod::Exec] {
                scope.spawn(move || worker_is_given_up(method));
                scope.spawn(move || single_process_is_given_up(method));
            }
        });
    });
}

fn is_given_up(error: &Error, frozen: u32) {
    assert!(alive(frozen) && matches!(error.kind(), ErrorKind::TimedOut { .. }), "{error}");
    assert!(error.to_string().ends_with("; 30s after SIGKILL its process had not ended, and may run on"), "{error}");
}

fn worker_is_given_up(method: StartMethod) {
    let pool = builder(method, 1).build().unwrap();
    let worker = pool.call(own_id, ()).unwrap();
    let handle = pool.submit(hang.timeout(Duration::from_secs(1)).retries(3), ());
    eventually("it runs", PATIENCE, || handle.is_running());
    let Some(frozen) = Frozen::with(worker) else {
        println!("skipped: no cgroup v1 with a freezer can be made here");
        pool.kill();
        return;
    };
    let error = handle.join().unwrap_err();
    is_given_up(&error, worker);
    assert!(error.attempts().is_empty(), "{error}");
    assert_ne!(pool.call(own_id, ()), Ok(worker));
    drop(pool);
    assert!(alive(worker));
    drop(frozen);
    eventually("it is dead", PATIENCE, || !alive(worker));
}

fn single_process_is_given_up(method: StartMethod) {
    let process = ProcessBuilder::new().start_method(method).spawn(hang.timeout(Duration::from_secs(1)), ()).unwrap();
    let pid = process.pid().expect("a process");
    let Some(frozen) = Frozen::with(pid) else {
        println!("skipped: no cgroup v1 with a freezer can be made here");
        return;
    };
    let error = process.join().unwrap_err();
    is_given_up(&error, pid);
    assert_ne!(error.execution(), Execution::Finished);
    drop(frozen);
    eventually("it is dead", PATIENCE, || !alive(pid));
}
