//! Tasks that take their process apart: a clear error or a new worker, and the pool goes on.
//!
//! Runs in: the test process; the tasks in workers. Never: takes the test process apart.
#![expect(unsafe_code, reason = "a task that calls fork(2)")]

use std::time::Duration;

use crate::support;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::{ForkResult, Pid, fork, setpgid, setsid};
use process_task::{Pool, StartMethod, process_task};

under_every_start_method! {
    a_task_may_close_every_descriptor,
    a_task_may_fork_and_end_its_copy,
    a_task_may_fork_and_let_its_copy_return,
    a_task_may_ask_for_a_session_or_a_group,
    a_task_may_change_directory_and_signal_mask,
    a_worker_stopped_and_continued_loses_nothing,
}

/// One worker, so that whatever the task breaks is what the next calls meet.
fn goes_on(pool: &Pool) {
    for x in 0..20 {
        assert_eq!(pool.call(square, x), Ok(x * x));
    }
    assert_eq!(pool.call(length, &vec![1; 1 << 20]), Ok(1 << 20));
    assert_eq!(pool.call(ones, 1 << 20).map(|all| all.len()), Ok(1 << 20));
}

fn pool(method: StartMethod) -> Pool {
    Pool::builder().workers(1).start_method(method).build().unwrap()
}

fn a_task_may_close_every_descriptor(method: StartMethod) {
    let pool = pool(method);
    let call = pool.submit(close_all, ());
    assert!(call.wait_timeout(Duration::from_secs(20)).is_ok(), "the call is settled, one way or the other");
    let _either = call.join();
    // The next call may be the one that finds out; but none may hang.
    for x in 0..5 {
        let next = pool.submit(square, x);
        assert!(next.wait_timeout(Duration::from_secs(20)).is_ok(), "no call hangs");
        let _either = next.join();
    }
    support::eventually("a worker that works is there again", Duration::from_secs(20), || {
        pool.call(length, &vec![1; 1 << 20]) == Ok(1 << 20)
    });
    goes_on(&pool);
}

fn a_task_may_fork_and_end_its_copy(method: StartMethod) {
    let pool = pool(method);
    assert_eq!(pool.call(fork_and, true), Ok(true));
    goes_on(&pool);
}

fn a_task_may_fork_and_let_its_copy_return(method: StartMethod) {
    let pool = pool(method);
    let call = pool.submit(fork_and, false);
    assert!(call.wait_timeout(Duration::from_secs(20)).is_ok(), "the call is settled");
    // The original's answer, not the copy's: the copy has no business with the link.
    assert_eq!(call.join(), Ok(true));
    goes_on(&pool);
}

fn a_task_may_ask_for_a_session_or_a_group(method: StartMethod) {
    let pool = pool(method);
    pool.call(new_group, ()).unwrap();
    goes_on(&pool);
}

fn a_task_may_change_directory_and_signal_mask(method: StartMethod) {
    let pool = pool(method);
    pool.call(wander, ()).unwrap();
    goes_on(&pool);
}

fn a_worker_stopped_and_continued_loses_nothing(method: StartMethod) {
    let pool = pool(method);
    let worker = Pid::from_raw(pool.call(own_pid, ()).unwrap());
    nix::sys::signal::kill(worker, Signal::SIGSTOP).unwrap();
    let call = pool.submit(square, 6);
    assert!(call.wait_timeout(Duration::from_millis(50)).is_err(), "no worker could run it");
    nix::sys::signal::kill(worker, Signal::SIGCONT).unwrap();
    assert_eq!(call.join(), Ok(36));
    assert_eq!(pool.call(own_pid, ()), Ok(worker.as_raw()));
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn length(bytes: &[u8]) -> usize {
    bytes.len()
}

#[process_task]
fn ones(count: usize) -> Vec<u8> {
    vec![1; count]
}

#[process_task]
fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

#[process_task]
fn close_all() {
    for fd in 3..1024 {
        let _ = nix::unistd::close(fd);
    }
}

/// True in the original, false in the copy, if that returns.
#[process_task]
fn fork_and(end: bool) -> bool {
    // SAFETY: a worker has one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { .. } => {
            std::thread::sleep(Duration::from_millis(50));
            true
        }
        ForkResult::Child if end => {
            let _ = nix::sys::signal::raise(Signal::SIGKILL);
            false
        }
        ForkResult::Child => false,
    }
}

#[process_task]
fn new_group() {
    // A leader of a group cannot have a session of its own.
    assert_eq!(setsid(), Err(nix::errno::Errno::EPERM));
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
}

#[process_task]
fn wander() {
    std::env::set_current_dir("/").unwrap();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None).unwrap();
}
