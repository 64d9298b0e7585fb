//! What a pool promises about calls that are taken back: before the start always, while running by the worker's death.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how fast anything is.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::executor::block_on;
use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::scratch::Scratch;
use crate::support::{self, PATIENCE, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_task::{
    Error, ErrorKind, Execution, JoinHandle, Pool, StartMethod, WaitFor, active_children, as_completed, process_task,
    wait,
};

under_every_start_method! {
    calls_that_wait_are_cancelled_wherever_they_are,
    a_running_call_is_not_cancelled,
    a_running_call_is_cancelled_by_its_workers_death,
    a_settled_call_is_not_cancelled,
    a_cancelled_call_stays_cancelled,
    cancelling_some_leaves_the_others,
    cancelling_wakes_all_waiters,
    a_callback_may_cancel,
    a_cancelled_call_makes_room,
    long_arguments_are_cancelled_too,
    calls_of_a_stopped_worker_are_cancelled,
    cancelling_races_the_start,
    killing_races_the_end,
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

/// Leaves the file `directory/item`, and returns when there is the file `directory/gate`.
#[process_task]
fn pass(directory: &str, item: u32) -> u32 {
    std::fs::write(format!("{directory}/{item}"), "").expect("a directory that can be written to");
    wait_for(&format!("{directory}/gate"));
    std::process::id()
}

#[process_task]
fn mark(directory: &str, item: u32) {
    std::fs::write(format!("{directory}/{item}"), "").expect("a directory that can be written to");
}

#[process_task]
fn sum(numbers: &[u64]) -> u64 {
    numbers.iter().sum()
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().expect("a pool")
}

fn has_begun(scratch: &Scratch, item: u32) -> bool {
    Path::new(&scratch.file(&item.to_string())).exists()
}

/// A call that runs until the gate opens.
fn running(pool: &Pool, scratch: &Scratch) -> JoinHandle<u32> {
    let handle = pool.submit(pass, (directory(scratch), 0));
    eventually("the first call runs", PATIENCE, || has_begun(scratch, 0) && handle.is_running());
    handle
}

fn is_cancelled<R>(result: &Result<R, Error>, execution: Execution) -> bool {
    matches!(result, Err(error) if *error.kind() == ErrorKind::Cancelled && error.execution() == execution)
}

fn never_started<R>(result: &Result<R, Error>) -> bool {
    is_cancelled(result, Execution::NotStarted)
}

fn calls_that_wait_are_cancelled_wherever_they_are(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let first = running(&pool, &scratch);
    // Some are with the worker, and some are not.
    let handles: Vec<_> = (1..60).map(|item| pool.submit(pass, (directory(&scratch), item))).collect();
    for handle in &handles {
        assert!(!handle.is_running() && handle.cancel() && handle.is_finished() && !handle.is_running());
    }
    assert!(handles.into_iter().all(|handle| never_started(&handle.join())));
    open_gate(&scratch);
    assert!(first.join().is_ok());
    assert_eq!(pool.call(square, 3), Ok(9));
    assert!((1..60).all(|item| !has_begun(&scratch, item)));
}

fn a_running_call_is_not_cancelled(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let handle = running(&pool, &scratch);
    assert!(!handle.cancel() && handle.is_running() && !handle.is_finished());
    open_gate(&scratch);
    assert!(handle.wait_timeout(Duration::MAX).is_ok() && !handle.is_running());
    assert!(handle.join().is_ok());
}

fn a_running_call_is_cancelled_by_its_workers_death(method: StartMethod) {
    let pool = pool(method, 2);
    let (one, other) = (Scratch::new(), Scratch::new());
    let handle = running(&pool, &one);
    let neighbour = running(&pool, &other);
    let behind: Vec<_> = (0..60).map(|x| pool.submit(square, x)).collect();
    assert!(handle.cancel_running());
    let result = handle.join();
    assert!(is_cancelled(&result, Execution::Unknown), "{result:?}");
    let error = result.expect_err("it is cancelled");
    assert_eq!(error.task(), Some("pool::cancels::pass"));
    let (_, killed) = error.process().expect("the worker that was killed");
    eventually("the worker is dead", PATIENCE, || !support::processes::alive(killed));
    // Its neighbour goes on, and what was behind it is made.
    assert!(neighbour.is_running());
    assert!((0i64..).zip(behind).all(|(x, handle)| handle.join() == Ok(x * x)));
    open_gate(&other);
    assert_ne!(neighbour.join().expect("a pid"), killed);
    eventually("the worker is replaced", PATIENCE, || active_children().len() == 2);
    // One that has not begun costs no worker.
    let before: Vec<_> = active_children().iter().map(process_task::ProcessInfo::pid).collect();
    let again = [Scratch::new(), Scratch::new()];
    let busy = again.each_ref().map(|scratch| running(&pool, scratch));
    let waiting = pool.submit(square, 2);
    assert!(waiting.cancel_running() && never_started(&waiting.join()));
    again.iter().for_each(open_gate);
    let pids = busy.map(|handle| handle.join().expect("a pid"));
    assert!(pids.iter().all(|pid| before.contains(pid)), "{pids:?} {before:?}");
}

fn a_settled_call_is_not_cancelled(method: StartMethod) {
    let pool = pool(method, 1);
    let handle = pool.submit(square, 5);
    assert!(handle.wait_timeout(Duration::MAX).is_ok());
    assert!(!handle.cancel() && !handle.cancel_running());
    assert_eq!(handle.join(), Ok(25));
    pool.close();
    let refused = pool.submit(square, 5);
    assert!(!refused.cancel() && !refused.cancel_running());
    assert!(matches!(refused.join().expect_err("it is closed").kind(), ErrorKind::Closed { .. }));
}

fn a_cancelled_call_stays_cancelled(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let first = running(&pool, &scratch);
    let handle = pool.submit(square, 5);
    assert!(handle.cancel() && handle.cancel() && handle.cancel_running());
    let called = std::cell::Cell::new(false);
    let (sender, receiver) = channel();
    handle.on_done(move |result| sender.send(result).expect("the test listens"));
    assert!(never_started(&receiver.try_recv().expect("it is called at once")));
    called.set(true);
    assert!(first.cancel_running());
    assert!(first.wait_timeout(Duration::MAX).is_ok() && first.cancel() && first.cancel_running());
    let left = pool.submit(pass, (directory(&scratch), 7));
    pool.kill();
    assert_eq!(left.cancel(), never_started(&left.join()), "what terminating has cancelled is");
    assert!(never_started(&handle.join()) && called.get());
}

fn cancelling_some_leaves_the_others(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let other = Scratch::new();
    let busy = [running(&pool, &scratch), running(&pool, &other)];
    let handles: Vec<_> = (0..200).map(|x| pool.submit(square, x)).collect();
    assert!(handles.iter().step_by(2).all(JoinHandle::cancel));
    open_gate(&scratch);
    open_gate(&other);
    for (x, handle) in (0i64..).zip(handles) {
        let result = handle.join();
        assert!(if x % 2 == 0 { never_started(&result) } else { result == Ok(x * x) }, "{x}: {result:?}");
    }
    assert!(busy.into_iter().all(|handle| handle.join().is_ok()));
}

fn cancelling_wakes_all_waiters(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let first = running(&pool, &scratch);
    let submit = || Arc::new(pool.submit(square, 1));
    let (joined, awaited, of_two) =
        (submit(), pool.submit(square, 1), [pool.submit(square, 1), pool.submit(square, 2)]);
    let called_back = submit();
    let (sender, receiver) = channel();
    called_back.on_done(move |result| sender.send(result).expect("the test listens"));
    thread::scope(|scope| {
        let leads = scope.spawn(|| first.wait_timeout(Duration::MAX).is_ok());
        let waits = scope.spawn(|| joined.wait_timeout(Duration::MAX).is_ok());
        // Cancelled by the callback that waits for the other of two.
        let set = scope.spawn(move || {
            let mut completed = as_completed(of_two);
            assert!(completed.next_timeout(Duration::from_millis(20)).is_err());
            completed
        });
        assert!(joined.cancel() && called_back.cancel());
        assert!(waits.join().expect("a thread"));
        assert!(never_started(&receiver.recv_timeout(PATIENCE).expect("a callback that is called")));
        let completed = set.join().expect("a thread");
        assert!(awaited.cancel() && never_started(&block_on(awaited)));
        assert_eq!(completed.len(), 2);
        open_gate(&scratch);
        assert!(leads.join().expect("a thread"));
        assert_eq!(completed.filter(|handle| handle.wait_timeout(Duration::MAX).is_ok()).count(), 2);
    });
    let some = (0..4).map(|x| pool.submit(square, x)).inspect(|handle| _ = handle.cancel()).collect::<Vec<_>>();
    let waited = wait(some, WaitFor::All, None);
    assert_eq!((waited.done.len(), waited.pending.len()), (4, 0));
}

fn a_callback_may_cancel(method: StartMethod) {
    let pool = pool(method, 1);
    let (one, other) = (Scratch::new(), Scratch::new());
    let first = running(&pool, &one);
    let second = pool.submit(pass, (directory(&other), 1));
    let third = pool.submit(pass, (directory(&other), 2));
    let (sender, receiver) = channel();
    first.on_done(move |_| {
        let cancelled = third.cancel();
        eventually("the second call runs", PATIENCE, || second.is_running());
        sender.send((cancelled, second.cancel(), second.cancel_running())).expect("the test listens");
        sender
            .send((never_started(&third.join()), is_cancelled(&second.join(), Execution::Unknown), false))
            .expect("the test listens");
    });
    open_gate(&one);
    assert_eq!(receiver.recv_timeout(PATIENCE), Ok((true, false, true)));
    assert_eq!(receiver.recv_timeout(PATIENCE), Ok((true, true, false)));
    assert_eq!(pool.call(square, 2), Ok(4));
}

fn a_cancelled_call_makes_room(method: StartMethod) {
    let pool = Pool::builder().workers(1).max_pending(2).start_method(method).build().expect("a pool");
    let scratch = Scratch::new();
    let first = running(&pool, &scratch);
    let second = pool.submit(square, 2);
    thread::scope(|scope| {
        let third = scope.spawn(|| pool.submit(square, 3));
        assert!(second.cancel());
        let third = third.join().expect("a thread");
        assert!(pool.try_submit(square, 4).is_err());
        assert!(first.cancel_running());
        assert_eq!(third.join(), Ok(9));
    });
    assert!(is_cancelled(&first.join(), Execution::Unknown) && never_started(&second.join()));
}

fn long_arguments_are_cancelled_too(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let numbers = vec![1u64; 1 << 17];
    for _ in 0..3 {
        let first = running(&pool, &scratch);
        let handles: Vec<_> = (0..8).map(|_| pool.submit(sum, numbers.as_slice())).collect();
        assert!(handles[..4].iter().all(JoinHandle::cancel));
        assert!(first.cancel_running());
        let results: Vec<_> = handles.into_iter().map(JoinHandle::join).collect();
        assert!(results[..4].iter().all(never_started), "{results:?}");
        assert!(results[4..].iter().all(|result| *result == Ok(1 << 17)), "{results:?}");
        std::fs::remove_file(scratch.file("0")).expect("the mark of the first");
    }
}

fn calls_of_a_stopped_worker_are_cancelled(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let first = running(&pool, &scratch);
    let behind: Vec<_> = (1..4).map(|item| pool.submit(pass, (directory(&scratch), item))).collect();
    let pid = Pid::from_raw(active_children()[0].pid().cast_signed());
    kill(pid, Signal::SIGSTOP).expect("a worker that can be stopped");
    assert!(behind.iter().all(JoinHandle::cancel));
    assert!(!first.cancel() && first.cancel_running());
    assert!(is_cancelled(&first.join(), Execution::Unknown));
    assert!(behind.into_iter().all(|handle| never_started(&handle.join())));
    assert_eq!(pool.call(square, 4), Ok(16));
}

fn cancelling_races_the_start(method: StartMethod) {
    let pool = pool(method, 2);
    for _ in 0..support::rounds(2) {
        let scratch = Scratch::new();
        let handles: Vec<_> = (0..600).map(|item| pool.submit(mark, (directory(&scratch), item))).collect();
        let cancelled: Vec<bool> = thread::scope(|scope| {
            let chunks: Vec<_> = handles.chunks(200).collect();
            let threads = chunks
                .into_iter()
                .map(|chunk| scope.spawn(move || chunk.iter().rev().map(JoinHandle::cancel).rev().collect::<Vec<_>>()));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
        });
        for (item, (handle, cancelled)) in (0..).zip(handles.into_iter().zip(cancelled)) {
            let result = handle.join();
            assert!(if cancelled { never_started(&result) } else { result == Ok(()) }, "{item}: {result:?}");
            assert_eq!(has_begun(&scratch, item), !cancelled, "{item}");
        }
    }
}

fn killing_races_the_end(method: StartMethod) {
    let pool = pool(method, 2);
    for _ in 0..support::rounds(5) {
        let handles: Vec<_> = (0..40).map(|x| pool.submit(square, x)).collect();
        let mut killed = 0;
        for handle in handles.iter().skip(3).step_by(7) {
            killed += usize::from(handle.cancel_running());
        }
        let results: Vec<_> = (0i64..).zip(handles.into_iter().map(JoinHandle::join)).collect();
        for (x, result) in &results {
            let as_chosen = x % 7 == 3 && matches!(result, Err(error) if *error.kind() == ErrorKind::Cancelled);
            assert!(as_chosen || *result == Ok(x * x), "{x}: {result:?}");
        }
        // A result that came before the worker was dead stands.
        let failed = results.iter().filter(|(_, result)| result.is_err()).count();
        assert!(failed <= killed, "{failed} of {killed}: {results:?}");
    }
}
