//! What a pool promises when its workers die, stop, or leave: exactly the running call fails, and everything else goes on.
//!
//! Runs in: the test process; its tasks run in workers, and many of them end those.
//! Never: signals a process that the pool did not start.

use std::collections::BTreeSet;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::scratch::Scratch;
use crate::support::{eventually, processes};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::unistd::Pid;
use process_task::{Error, ErrorKind, Execution, JoinHandle, Pool, StartMethod, active_children, process_task};

under_every_start_method! {
    a_signal_fails_the_running_call_and_no_other,
    an_exit_is_no_success_whatever_its_code,
    the_text_of_a_panic_that_aborts_is_kept,
    a_stack_overflow_is_told_apart,
    running_out_of_memory_fails_one_call,
    calls_behind_a_crash_move_on,
    calls_behind_a_crash_are_made_without_a_waiter,
    workers_that_kill_each_other_settle_every_call,
    all_workers_killed_at_once_are_replaced,
    a_late_crash_leaves_the_result_standing,
    what_a_worker_started_ends_with_it,
    a_stopped_worker_holds_only_its_own_call,
    a_stopped_worker_is_killed_with_its_pool,
    a_worker_that_blocks_signals_is_killed_with_its_pool,
    a_closed_pool_survives_a_crash,
    followers_are_told_when_a_worker_dies,
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn own_id() -> u32 {
    std::process::id()
}

#[process_task]
fn signal_itself(signal: i32) {
    raise(Signal::try_from(signal).expect("a signal")).expect("a signal that can be raised");
    thread::sleep(Duration::from_secs(40));
}

#[process_task]
#[expect(clippy::exit, reason = "what is tested is that a task may")]
fn leave(code: i32) {
    std::process::exit(code)
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("second panic");
    }
}

extern "C" fn foreign() {
    panic!("panic across a border");
}

#[process_task]
fn abort_by(how: u32) {
    match how {
        0 => std::process::abort(),
        1 => foreign(),
        _ => {
            let _guard = PanicsWhenDropped;
            panic!("first panic");
        }
    }
}

#[process_task]
fn overflow(depth: u64) -> u64 {
    let page = std::hint::black_box([depth; 256]);
    if depth == u64::MAX { page[0] } else { overflow(depth + 1) + page[1] }
}

#[process_task]
fn eat_memory() -> usize {
    setrlimit(Resource::RLIMIT_AS, 256 << 20, 256 << 20).expect("a lower limit");
    vec![1u8; 1 << 30].iter().map(|byte| usize::from(*byte)).sum()
}

/// Leaves a file, then waits for `gate` if it has to.
#[process_task]
fn mark(directory: &str, item: u32, waits: bool) -> u32 {
    std::fs::write(format!("{directory}/{item}"), "").expect("a directory that can be written to");
    if waits {
        wait_for(&format!("{directory}/gate"));
    }
    item
}

/// Returns at once, and aborts when the gate is opened.
#[process_task]
fn abort_later(gate: String) -> u32 {
    thread::spawn(move || {
        wait_for(&gate);
        std::process::abort();
    });
    std::process::id()
}

#[process_task]
fn shoot(other: u32) {
    shoot_at(other);
    thread::sleep(Duration::from_millis(5));
}

#[process_task]
fn start_sleeper() -> u32 {
    Command::new("sleep").arg("1000").spawn().expect("the program `sleep`").id()
}

#[process_task]
fn block_signals(gate: &str) {
    SigSet::all().thread_block().expect("a mask that can be set");
    std::fs::write(format!("{gate}.blocked"), "").expect("a directory that can be written to");
    wait_for(gate);
}

fn shoot_at(pid: u32) {
    signal(pid, Signal::SIGKILL);
}

fn signal(pid: u32, signal: Signal) {
    // It may have been killed by another thread already.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

fn has(scratch: &Scratch, name: &str) -> bool {
    scratch.path().join(name).exists()
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().expect("a pool")
}

fn workers() -> BTreeSet<u32> {
    active_children().iter().map(process_task::ProcessInfo::pid).collect()
}

/// Makes calls on `pool` that must work, whatever happened to it before.
fn goes_on(pool: &Pool) {
    assert_eq!(pool.map(square, 0..50), Ok((0..50).map(|x| x * x).collect()));
}

fn killed_by(error: &Error) -> i32 {
    let ErrorKind::Killed { signal, .. } = error.kind() else { panic!("not killed: {error}") };
    *signal
}

fn a_signal_fails_the_running_call_and_no_other(method: StartMethod) {
    use Signal::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGTERM};
    let pool = pool(method, 2);
    for signal in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGKILL, SIGTERM, SIGABRT] {
        let others: Vec<_> = (0..40).map(|x| pool.submit(square, x)).collect();
        let hit = pool.submit(signal_itself, signal as i32);
        let more: Vec<_> = (40..80).map(|x| pool.submit(square, x)).collect();
        let error = hit.join().expect_err("it was killed");
        assert_eq!((killed_by(&error), error.execution()), (signal as i32, Execution::Unknown), "{error}");
        assert!(error.to_string().contains(signal.as_str()), "{error}");
        let (name, dead) = error.process().expect("the process that it was");
        assert!(name.starts_with("worker-") && !processes::alive(dead), "{error}");
        assert!((0i64..).zip(others.into_iter().chain(more)).all(|(x, handle)| handle.join() == Ok(x * x)));
    }
    goes_on(&pool);
}

fn an_exit_is_no_success_whatever_its_code(method: StartMethod) {
    let pool = pool(method, 2);
    for code in [0, 3, 255] {
        let error = pool.call(leave, code).expect_err("it left");
        assert!(matches!(error.kind(), ErrorKind::Exited { code: seen, .. } if *seen == code), "{error}");
        assert_eq!(error.execution(), Execution::Unknown);
    }
    goes_on(&pool);
}

fn the_text_of_a_panic_that_aborts_is_kept(method: StartMethod) {
    let pool = pool(method, 2);
    for (how, text) in [(0, ""), (1, "panic across a border"), (2, "first panic"), (2, "second panic")] {
        let error = pool.call(abort_by, how).expect_err("it aborted");
        assert_eq!(killed_by(&error), Signal::SIGABRT as i32);
        assert!(error.to_string().contains(text), "{error}");
    }
    let error = pool.call(abort_by, 0).expect_err("it aborted");
    assert!(matches!(error.kind(), ErrorKind::Killed { message: None, .. }), "{error}");
    goes_on(&pool);
}

fn a_stack_overflow_is_told_apart(method: StartMethod) {
    let pool = pool(method, 2);
    let error = pool.call(overflow, 0).expect_err("no stack is that large");
    assert_eq!((error.kind(), error.execution()), (&ErrorKind::StackOverflow, Execution::Unknown));
    goes_on(&pool);
}

fn running_out_of_memory_fails_one_call(method: StartMethod) {
    let pool = pool(method, 2);
    let error = pool.call(eat_memory, ()).expect_err("more than it may have");
    assert_eq!(killed_by(&error), Signal::SIGABRT as i32);
    goes_on(&pool);
}

fn calls_behind_a_crash_move_on(method: StartMethod) {
    for size in [1, 3] {
        let pool = pool(method, size);
        let crash = |n: u32| n % 10 == 4;
        let handles: Vec<_> = (0..200)
            .map(|n| (n, crash(n).then(|| pool.submit(leave, 7)), (!crash(n)).then(|| pool.submit(square, n.into()))))
            .collect();
        for (n, left, squared) in handles {
            assert!(left.is_none_or(|handle| handle.join().is_err_and(|e| e.execution() == Execution::Unknown)));
            assert!(squared.is_none_or(|handle| handle.join() == Ok(i64::from(n).pow(2))), "call {n}");
        }
    }
}

fn calls_behind_a_crash_are_made_without_a_waiter(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 1);
    // More than a worker is given ahead, so some of them wait in the pool.
    (0..60).for_each(|item| drop(pool.submit(mark, (directory(&scratch), item, item == 0))));
    eventually("the first call runs", Duration::from_secs(20), || has(&scratch, "0"));
    workers().into_iter().for_each(shoot_at);
    eventually("the others are made", Duration::from_secs(20), || (0..60).all(|item| has(&scratch, &item.to_string())));
}

fn workers_that_kill_each_other_settle_every_call(method: StartMethod) {
    for size in [1, 2, 5] {
        let pool = pool(method, size);
        for _ in 0..5 {
            let victims: Vec<u32> = workers().into_iter().collect();
            let shots: Vec<_> = victims.iter().map(|victim| pool.submit(shoot, *victim)).collect();
            let outcomes: Vec<_> = shots.into_iter().map(JoinHandle::join).collect();
            let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
            assert!(failed.len() <= size && failed.iter().all(|e| killed_by(e) == 9), "{failed:?}");
        }
        goes_on(&pool);
    }
}

fn all_workers_killed_at_once_are_replaced(method: StartMethod) {
    let pool = pool(method, 4);
    let first = workers();
    first.iter().copied().for_each(shoot_at);
    eventually("idle workers are replaced while no thread asks", Duration::from_secs(20), || {
        let now = workers();
        now.len() == 4 && now.is_disjoint(&first)
    });
    goes_on(&pool);
    let scratch = Scratch::new();
    let handles: Vec<_> = (0..100).map(|item| pool.submit(mark, (directory(&scratch), item, item < 4))).collect();
    eventually("four calls run", Duration::from_secs(20), || (0..4).all(|item| has(&scratch, &item.to_string())));
    workers().into_iter().for_each(shoot_at);
    let outcomes: Vec<_> = handles.into_iter().map(JoinHandle::join).collect();
    assert!(outcomes[..4].iter().all(|outcome| outcome.as_ref().is_err_and(|e| killed_by(e) == 9)), "{outcomes:?}");
    assert!((4..).zip(&outcomes[4..]).all(|(item, outcome)| *outcome == Ok(item)), "{outcomes:?}");
}

fn a_late_crash_leaves_the_result_standing(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 1);
    let worker = pool.call(abort_later, scratch.file("gate")).expect("its result came first");
    open_gate(&scratch);
    eventually("the worker has ended", Duration::from_secs(20), || !processes::alive(worker));
    goes_on(&pool);
    assert_ne!(pool.call(own_id, ()), Ok(worker));
}

fn what_a_worker_started_ends_with_it(method: StartMethod) {
    let pool = pool(method, 1);
    let sleeper = pool.call(start_sleeper, ()).expect("a sleeper");
    assert!(processes::alive(sleeper));
    workers().into_iter().for_each(shoot_at);
    eventually("the sleeper has ended", Duration::from_secs(20), || !processes::alive(sleeper));
    goes_on(&pool);
}

fn a_stopped_worker_holds_only_its_own_call(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 2);
    // Fills both workers' look-ahead while both are busy.
    let handles: Vec<_> = (0..60).map(|item| pool.submit(mark, (directory(&scratch), item, item < 2))).collect();
    eventually("both workers are busy", Duration::from_secs(20), || has(&scratch, "0") && has(&scratch, "1"));
    let stopped = *workers().first().expect("a worker");
    signal(stopped, Signal::SIGSTOP);
    open_gate(&scratch);
    let mut held = 0;
    for (item, handle) in (0..).zip(handles) {
        if item < 2 {
            match handle.join_timeout(Duration::from_millis(500)) {
                Ok(result) => assert_eq!(result, Ok(item)),
                Err(elapsed) => {
                    let handle = elapsed.into_inner();
                    held += 1;
                    let others: Vec<_> = (0..100).map(|x| pool.submit(square, x)).collect();
                    assert!((0i64..).zip(others).all(|(x, other)| other.join() == Ok(x * x)));
                    assert!(!handle.is_finished());
                    signal(stopped, Signal::SIGCONT);
                    assert_eq!(handle.join(), Ok(item));
                    signal(stopped, Signal::SIGSTOP);
                }
            }
        } else {
            assert_eq!(handle.join(), Ok(item));
        }
    }
    assert!(held <= 1);
    signal(stopped, Signal::SIGCONT);
    goes_on(&pool);
}

fn a_stopped_worker_is_killed_with_its_pool(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 2);
    let handles: Vec<_> = (0..2).map(|item| pool.submit(mark, (directory(&scratch), item, true))).collect();
    eventually("both workers are busy", Duration::from_secs(20), || has(&scratch, "0") && has(&scratch, "1"));
    for worker in workers() {
        signal(worker, Signal::SIGSTOP);
    }
    pool.kill();
    assert!(handles.into_iter().all(|handle| handle.join().is_err_and(|error| killed_by(&error) == 9)));
}

fn a_worker_that_blocks_signals_is_killed_with_its_pool(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 1);
    let handle = pool.submit(block_signals, &scratch.file("gate"));
    eventually("signals are blocked", Duration::from_secs(20), || has(&scratch, "gate.blocked"));
    pool.kill();
    assert!(handle.join().is_err_and(|error| killed_by(&error) == 9));
}

fn a_closed_pool_survives_a_crash(method: StartMethod) {
    let pool = pool(method, 1);
    let left = pool.submit(leave, 1);
    let behind: Vec<_> = (0..40).map(|x| pool.submit(square, x)).collect();
    pool.close();
    assert!((0i64..).zip(behind).all(|(x, handle)| handle.join() == Ok(x * x)));
    assert!(left.join().is_err());
    drop(pool);
    assert!(active_children().is_empty());
}

fn followers_are_told_when_a_worker_dies(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 3);
    thread::scope(|scope| {
        let pool = &pool;
        let path = directory(&scratch);
        let waiting: Vec<_> = (0..3).map(|item| scope.spawn(move || pool.call(mark, (path, item, true)))).collect();
        eventually("three calls run", Duration::from_secs(20), || (0..3).all(|item| has(&scratch, &item.to_string())));
        workers().into_iter().for_each(shoot_at);
        for thread in waiting {
            let error = thread.join().expect("a thread").expect_err("its worker was killed");
            assert_eq!((killed_by(&error), error.execution()), (9, Execution::Unknown));
        }
    });
    goes_on(&pool);
}
