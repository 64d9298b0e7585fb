//! What `.timeout`, `.retries` and `.memory_limit` of a task promise to those that `spawn` it, and `.memory_limit` in pools.
//!
//! Runs in: the test process; the tasks in children. Never: expects a call to begin, or to end, within some time.

use std::cell::RefCell;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::thread::{self, sleep};
use std::time::Duration;

use crate::support::executor::block_on;
use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::process_builder as builder;
use crate::support::processes::alive;
use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually, rounds};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use process_task::{
    Error, ErrorKind, Execution, Pool, Process, ProcessBuilder, StartMethod, Task, active_children, process_task,
};

under_every_start_method! {
    within 120 seconds;
    call_that_takes_too_long_is_killed_and_says_how_long,
    a_task_that_blocks_sigterm_is_killed_when_its_time_is_over,
    a_stopped_process_is_killed_when_its_time_is_over,
    a_call_that_races_its_deadline_has_one_outcome,
    an_awaited_process_is_killed_when_its_time_is_over,
    a_time_beyond_the_clocks_end_is_for_ever,
    a_process_that_dies_before_its_time_is_over_says_how,
    retries_are_refused_and_nothing_runs,
    the_smaller_limit_on_memory_counts,
    a_limit_on_memory_ends_the_task_that_exceeds_it,
    options_of_one_call_do_not_reach_the_next,
    a_call_in_a_pool_has_its_own_limit_on_memory,
    a_call_in_a_pool_that_exceeds_its_memory_fails_alone,
    a_limit_on_memory_is_lifted_however_the_call_ends,
    a_process_that_has_replied_in_time_ends_in_peace,
    a_detached_process_is_killed_when_its_time_is_over,
    all_that_a_task_started_ends_when_its_time_is_over,
}

const SHORT: Duration = Duration::from_millis(60);

/// Checks that `error` is what a call of `limit` gets.
fn is_timed_out(error: &Error, limit: Duration) {
    let ErrorKind::TimedOut { limit: told, elapsed, .. } = error.kind() else { panic!("{error}") };
    assert_eq!(*told, limit);
    assert!(*elapsed >= limit, "{error}");
    assert_ne!(error.execution(), Execution::Finished);
    assert!(error.to_string().contains("longer than the limit"), "{error}");
    assert!(error.process().is_some_and(|(_, pid)| !alive(pid)), "{error}");
}

fn timed_out<T: Task<Output: std::fmt::Debug>>(
    method: StartMethod,
    task: T,
    args: T::Args<'_>,
    limit: Duration,
) -> Error {
    let error = builder(method).spawn(task, args).unwrap().join().unwrap_err();
    is_timed_out(&error, limit);
    error
}

/// Never returns. Says in `path` that it has begun.
#[process_task]
fn park(path: &str) {
    fs::write(path, "begun").unwrap();
    loop {
        thread::park();
    }
}

#[process_task(timeout = "60ms")]
fn spin() {
    loop {
        black_box(());
    }
}

fn call_that_takes_too_long_is_killed_and_says_how_long(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.file("begun");
    for limit in [Duration::ZERO, SHORT, Duration::from_millis(200)] {
        let error = timed_out(method, park.timeout(limit), &path, limit);
        if Path::new(&path).exists() {
            assert_eq!(error.execution(), Execution::Unknown);
        }
        let _ = fs::remove_file(&path);
    }
    timed_out(method, spin, (), SHORT);
    timed_out(method, spin.timeout(Duration::from_millis(1)), (), Duration::from_millis(1));
    is_timed_out(&spin.spawn().join().unwrap_err(), SHORT);
}

#[process_task]
fn park_deaf() {
    SigSet::all().thread_block().unwrap();
    loop {
        thread::park();
    }
}

fn a_task_that_blocks_sigterm_is_killed_when_its_time_is_over(method: StartMethod) {
    timed_out(method, park_deaf.timeout(SHORT), (), SHORT);
}

#[process_task]
fn stop() {
    raise(Signal::SIGSTOP).unwrap();
}

fn a_stopped_process_is_killed_when_its_time_is_over(method: StartMethod) {
    timed_out(method, stop.timeout(SHORT), (), SHORT);
    let signalled = builder(method).spawn(park_deaf.timeout(SHORT), ()).unwrap();
    let pid = nix::unistd::Pid::from_raw(signalled.pid().unwrap().cast_signed());
    // Perhaps before it has begun, perhaps when it has ended.
    let _ = nix::sys::signal::kill(pid, Signal::SIGSTOP);
    is_timed_out(&signalled.join().unwrap_err(), SHORT);
}

/// Starts a program and a task, and says in `directory` what their process ids are.
#[process_task]
#[expect(clippy::zombie_processes, reason = "that it is left behind is what is tested")]
fn have_children(directory: &str) {
    let program = Command::new("sleep").arg("1000").spawn().unwrap();
    let nested = park.spawn(&format!("{directory}/nested has begun"));
    fs::write(format!("{directory}/pids"), format!("{} {}", program.id(), nested.pid().unwrap())).unwrap();
    drop(nested.join());
}

fn all_that_a_task_started_ends_when_its_time_is_over(method: StartMethod) {
    let scratch = Scratch::new();
    let nested = scratch.file("nested has begun");
    // Longer and longer, until everything is there before the time is over.
    for seconds in [1, 4, 16, 60] {
        let limit = Duration::from_secs(seconds);
        timed_out(method, have_children.timeout(limit), directory(&scratch), limit);
        if Path::new(&nested).exists() {
            break;
        }
    }
    let pids = fs::read_to_string(scratch.file("pids")).unwrap();
    let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    eventually("what the task started has ended", PATIENCE, || !pids.iter().any(|pid| alive(*pid)));
}

/// Returns when so many microseconds are over, and what it was given.
#[process_task]
fn wake_up_after(micros: u64, number: u64) -> u64 {
    sleep(Duration::from_micros(micros));
    number
}

fn a_call_that_races_its_deadline_has_one_outcome(method: StartMethod) {
    let limit = Duration::from_millis(10);
    let racing = wake_up_after.timeout(limit);
    // The time to sleep moves to where half of the calls win.
    let (mut micros, mut won, mut lost) = (8_000_u64, 0, 0);
    for number in 0..rounds(40) as u64 {
        let mut process = builder(method).spawn(racing, (micros, number)).unwrap();
        let ended = if number % 3 == 0 { process.wait().ok() } else { None };
        let finished = process.is_finished();
        match process.join() {
            Ok(same) => {
                assert_eq!(same, number);
                won += 1;
                micros += micros / 16 + 1;
            }
            Err(error) => {
                is_timed_out(&error, limit);
                lost += 1;
                micros -= micros / 16;
            }
        }
        assert!(ended.is_none() || finished, "what has ended has an outcome");
    }
    assert!(won + lost > 0);
    eventually("none of them is left", PATIENCE, || active_children().is_empty());
}

fn an_awaited_process_is_killed_when_its_time_is_over(method: StartMethod) {
    let process = builder(method).spawn(spin, ()).unwrap();
    is_timed_out(&block_on(process).unwrap_err(), SHORT);
}

fn a_detached_process_is_killed_when_its_time_is_over(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.file("begun");
    let begins = builder(method).spawn(park.timeout(Duration::from_secs(2)), &path).unwrap();
    let pid = begins.pid().unwrap();
    eventually("it has begun, or its time is over", PATIENCE, || Path::new(&path).exists() || !alive(pid));
    begins.detach();
    builder(method).spawn(spin, ()).unwrap().detach();
    eventually("both have ended", PATIENCE, || !alive(pid) && active_children().is_empty());
}

/// Returns at once. Its process then makes the file `exits`, waits for the file `gate`, and makes the file `ends`.
#[process_task]
fn end_later(directory: &str) {
    AT_EXIT.set(Some(EndLater(directory.to_owned())));
}

thread_local! {
    static AT_EXIT: RefCell<Option<EndLater>> = const { RefCell::new(None) };
}

struct EndLater(String);

impl Drop for EndLater {
    fn drop(&mut self) {
        fs::write(format!("{}/exits", self.0), "").unwrap();
        wait_for(&format!("{}/gate", self.0));
        fs::write(format!("{}/ends", self.0), "").unwrap();
    }
}

fn a_process_that_has_replied_in_time_ends_in_peace(method: StartMethod) {
    for dropped in ["never", "at once", "after the reply, which was not read"] {
        // Longer and longer, until it has replied before the time is over.
        let ended = [500, 4_000, 30_000].into_iter().any(|millis| {
            let (scratch, limit) = (Scratch::new(), Duration::from_millis(millis));
            let (exits, ends) = (scratch.file("exits"), scratch.file("ends"));
            let process = builder(method).spawn(end_later.timeout(limit), directory(&scratch)).unwrap();
            let pid = process.pid().unwrap();
            let process = (dropped != "at once").then_some(process);
            eventually("it has replied, or its time is over", PATIENCE, || Path::new(&exits).exists() || !alive(pid));
            if !Path::new(&exits).exists() {
                return false;
            }
            let process = process.filter(|_| dropped == "never");
            // Its time is over by the time that another one's is, which began later.
            timed_out(method, spin.timeout(limit), (), limit);
            open_gate(&scratch);
            eventually("it has ended", PATIENCE, || !alive(pid));
            assert!(Path::new(&ends).exists(), "it was killed; its handle was dropped {dropped}");
            assert_eq!(process.map_or(Ok(()), Process::join), Ok(()));
            true
        });
        assert!(ended, "30 seconds are enough");
    }
}

fn a_time_beyond_the_clocks_end_is_for_ever(method: StartMethod) {
    for limit in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_hours(1)] {
        let process = builder(method).spawn(wake_up_after.timeout(limit), (1, 7)).unwrap();
        assert_eq!(process.join(), Ok(7));
    }
}

#[process_task(timeout = "1h")]
#[expect(clippy::exit, reason = "that it may is what is tested")]
fn leave(code: i32) {
    std::process::exit(code);
}

fn a_process_that_dies_before_its_time_is_over_says_how(method: StartMethod) {
    let error = builder(method).spawn(leave, 3).unwrap().join().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Exited { code: 3, .. }), "{error}");
    let process = builder(method).spawn(park_deaf.timeout(Duration::from_hours(1)), ()).unwrap();
    process.kill().unwrap();
    let error = process.join().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { signal: nix::libc::SIGKILL, .. }), "{error}");
}

#[process_task(retries = 2)]
fn mark(path: &str) {
    fs::write(path, "").unwrap();
}

fn retries_are_refused_and_nothing_runs(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.file("mark");
    let process = mark.spawn(&path);
    assert_eq!(process.pid(), None);
    let errors = [process.join().unwrap_err(), builder(method).spawn(mark.retries(1), &path).map(drop).unwrap_err()];
    for error in errors {
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
        assert!(error.to_string().contains("retries act in pools only"), "{error}");
        assert_eq!(error.execution(), Execution::NotStarted);
    }
    assert!(!Path::new(&path).exists());
    builder(method).spawn(mark.retries(0), &path).unwrap().join().unwrap();
    assert!(Path::new(&path).exists());
}

#[process_task]
fn address_space() -> (u64, u64) {
    getrlimit(Resource::RLIMIT_AS).unwrap()
}

fn the_smaller_limit_on_memory_counts(method: StartMethod) {
    let (small, large) = (3 << 30, 5 << 30);
    let seen = |builder: &ProcessBuilder, limit| {
        builder.spawn(address_space.memory_limit(limit), ()).unwrap().join().unwrap().0
    };
    assert_eq!(seen(&builder(method), small), small);
    assert_eq!(seen(builder(method).memory_limit(large), small), small);
    assert_eq!(seen(builder(method).memory_limit(small), large), small);
    assert_eq!(address_space.memory_limit(small).spawn().join().unwrap().0, small);
}

#[process_task]
fn fill_memory(bytes: usize) -> u8 {
    let memory = black_box(vec![1_u8; bytes]);
    memory[bytes / 2]
}

fn a_limit_on_memory_ends_the_task_that_exceeds_it(method: StartMethod) {
    let limited = fill_memory.memory_limit(1 << 30);
    assert_eq!(builder(method).spawn(limited, 1 << 20).unwrap().join(), Ok(1));
    let error = builder(method).spawn(limited, 2 << 30).unwrap().join().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { signal: nix::libc::SIGABRT, .. }), "{error}");
    assert_eq!(error.execution(), Execution::Unknown);
}

fn options_of_one_call_do_not_reach_the_next(method: StartMethod) {
    let own = getrlimit(Resource::RLIMIT_AS).unwrap();
    for _ in 0..5 {
        let odd = address_space.memory_limit(1 << 32).timeout(Duration::from_hours(1));
        assert_eq!(builder(method).spawn(odd, ()).unwrap().join().unwrap().0, 1 << 32);
        assert_eq!(builder(method).spawn(address_space, ()).unwrap().join().unwrap(), own);
    }
}

fn a_call_in_a_pool_has_its_own_limit_on_memory(method: StartMethod) {
    let (small, large) = (3 << 30, 5 << 30);
    let own = getrlimit(Resource::RLIMIT_AS).unwrap();
    let build = || Pool::builder().workers(1).start_method(method);
    let pool = build().build().unwrap();
    for limit in [small, large, small + 1, small] {
        let pages = limit / 4096 * 4096;
        assert_eq!(pool.call(address_space.memory_limit(limit), ()).unwrap(), (pages, own.1));
        assert_eq!(pool.call(address_space, ()).unwrap(), own, "the next call has what it had before");
    }
    for limit in [u64::MAX, 1 << 60, 1 << 44] {
        assert_eq!(pool.call(address_space.memory_limit(limit), ()).unwrap().0, limit.max(own.0), "more than there is");
    }
    let seen = pool.map(address_space.memory_limit(small), std::iter::repeat_n((), 100)).unwrap();
    assert_eq!(seen, [(small, own.1); 100]);
    let calls: Vec<_> = (0..100)
        .map(|number| (number, if number % 3 == 0 { address_space.memory_limit(small) } else { address_space }))
        .collect();
    let calls: Vec<_> = calls.into_iter().map(|(number, task)| (number, pool.submit(task, ()))).collect();
    for (number, call) in calls {
        assert_eq!(call.join().unwrap().0, if number % 3 == 0 { small } else { own.0 });
    }
    drop(pool);
    let limited = build().memory_limit(small).build().unwrap();
    assert_eq!(limited.call(address_space.memory_limit(large), ()).unwrap(), (small, small), "the pool's is smaller");
    assert_eq!(limited.call(address_space.memory_limit(small / 2), ()).unwrap(), (small / 2, small));
    assert_eq!(limited.call(address_space, ()).unwrap(), (small, small));
}

fn a_call_in_a_pool_that_exceeds_its_memory_fails_alone(method: StartMethod) {
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let limited = fill_memory.memory_limit(1 << 30);
    let few: Vec<_> = (0..40).map(|_| pool.submit(limited, 1 << 20)).collect();
    let much = pool.submit(limited, 2 << 30);
    let many: Vec<_> = (0..40).map(|_| pool.submit(fill_memory, 1 << 20)).collect();
    let error = much.join().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { signal: nix::libc::SIGABRT, .. }), "{error}");
    assert_eq!(error.execution(), Execution::Unknown);
    assert!(few.into_iter().chain(many).all(|call| call.join() == Ok(1)));
    let error = pool.call(limited.retries(2), 2 << 30).unwrap_err();
    assert_eq!(error.attempts().len(), 2);
    // None at all: the process cannot do much, but the pool goes on.
    assert!(pool.call(fill_memory.memory_limit(0), 64 << 20).is_err());
    assert_eq!(pool.call(fill_memory, 1 << 20), Ok(1));
}

#[process_task]
fn fail(how: u32) -> Result<(), String> {
    match how {
        0 => panic!("as it was told"),
        1 => Err("as it was told".to_owned()),
        // Too large a thing to allocate is an error that can be dealt with.
        _ => Vec::<u8>::new().try_reserve(2 << 30).map_err(|error| error.to_string()),
    }
}

fn a_limit_on_memory_is_lifted_however_the_call_ends(method: StartMethod) {
    let own = getrlimit(Resource::RLIMIT_AS).unwrap();
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let worker = active_children()[0].pid();
    for how in [0, 1, 2, 0] {
        let outcome = pool.call(fail.memory_limit(1 << 30), how);
        match outcome {
            Err(error) => assert_eq!((how, error.execution()), (0, Execution::Finished), "{error}"),
            Ok(own_error) => assert!(own_error.is_err() && how > 0),
        }
        assert_eq!(pool.call(address_space, ()).unwrap(), own);
    }
    assert_eq!(pool.call(fail, 2), Ok(Ok(())), "with no limit there is enough");
    assert_eq!(active_children()[0].pid(), worker, "it is the same worker");
}
