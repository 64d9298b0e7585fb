//! What a pool promises to those that wait for many of its calls, or for those of several pools.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how fast anything is.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::eventually;
use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::scratch::Scratch;
use nix::sys::signal::{Signal, raise};
use process_task::{
    Error, ErrorKind, JoinHandle, Pool, StartMethod, WaitFor, WaitOutcome, as_completed, process_task, wait,
};

under_every_start_method! {
    waiting_for_the_first_returns_with_what_is_done,
    waiting_for_the_first_error_returns_with_it,
    waiting_for_all_counts_failures_too,
    a_time_out_is_no_error,
    nothing_to_wait_for_is_done,
    waiting_for_the_first_again_and_again_drains_all,
    as_completed_gives_what_is_settled_first,
    as_completed_gives_each_handle_once,
    as_completed_goes_on_after_the_time_is_over,
    as_completed_outlives_the_pool,
    a_set_that_is_dropped_detaches_its_calls,
    calls_of_several_pools_are_waited_for_together,
    calls_of_several_pools_are_given_as_they_are_finished,
    threads_wait_for_sets_while_others_wait_for_calls,
    call_wakes_all_its_waiters,
    panicking_waker_leaves_the_pool_working,
    what_was_given_out_is_released,
    a_map_waits_no_longer_than_told,
    closing_amid_submissions_gives_a_value_or_says_so,
}

#[test]
fn a_hundred_thousand_calls_are_given_as_they_are_finished() {
    support::promise(|| {
        let pool = pool(StartMethod::ForkServer, 2);
        let mut left: i64 = 100_000;
        let mut sum = 0;
        for handle in as_completed((0..left).map(|x| pool.submit(square, x))) {
            sum += handle.join().expect("a square");
            left -= 1;
        }
        assert_eq!((left, sum), (0, (0..100_000).map(|x| x * x).sum()));
        let waited = wait((0..100_000).map(|x| pool.submit(square, x)), WaitFor::All, None);
        assert_eq!((waited.done.len(), waited.pending.len()), (100_000, 0));
    });
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

/// Returns `item` when the file `gate` exists.
#[process_task]
fn pass(gate: &str, item: u32) -> u32 {
    wait_for(gate);
    item
}

/// [`pass`] for the item 0, the others return at once.
#[process_task]
fn pass_if(gate: &str, item: u32) -> u32 {
    if item == 0 {
        wait_for(gate);
    }
    item
}

/// Panics once the file `gate` exists.
#[process_task]
fn fail(gate: &str) -> u32 {
    wait_for(gate);
    panic!("as told")
}

/// Leaves a file, for calls whose results no thread asks for.
#[process_task]
fn mark(directory: &str, item: u32) {
    std::fs::write(format!("{directory}/{item}"), "").expect("a directory that can be written to");
}

#[process_task]
fn fill(len: usize, byte: u8) -> Vec<u8> {
    vec![byte; len]
}

#[process_task]
fn die() -> u32 {
    raise(Signal::SIGKILL).expect("a signal that can be raised");
    0
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().expect("a pool")
}

/// What those that are done gave, and how many are not.
fn taken(waited: WaitOutcome<u32>) -> (Vec<Result<u32, Error>>, usize) {
    (waited.done.into_iter().map(JoinHandle::join).collect(), waited.pending.len())
}

fn waiting_for_the_first_returns_with_what_is_done(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let gate = scratch.file("gate");
    let submit = |item| pool.submit(pass_if, (gate.as_str(), item));
    let waited = wait([submit(0), submit(7)], WaitFor::First, None);
    assert_eq!(waited.pending.len(), 1);
    assert_eq!(waited.done.iter().map(JoinHandle::is_finished).collect::<Vec<_>>(), [true]);
    let done = waited.done.into_iter().next().expect("the one that does not wait");
    let shut = waited.pending.into_iter().next().expect("the one that waits");
    // One that is settled already is enough.
    let waited = wait([shut, done], WaitFor::First, None);
    assert_eq!((waited.done.len(), waited.pending.len()), (1, 1));
    open_gate(&scratch);
    let mut both = waited.pending;
    both.extend(waited.done);
    assert_eq!(taken(wait(both, WaitFor::All, None)), (vec![Ok(0), Ok(7)], 0));
}

fn waiting_for_the_first_error_returns_with_it(method: StartMethod) {
    let pool = pool(method, 2);
    let (shut, failing) = (Scratch::new(), Scratch::new());
    let waits = pool.submit(pass, (shut.file("gate").as_str(), 1));
    let fails = pool.submit(fail, failing.file("gate").as_str());
    let waited = wait([waits, fails], WaitFor::FirstError, Some(Duration::from_millis(20)));
    assert_eq!((waited.done.len(), waited.pending.len()), (0, 2));
    open_gate(&failing);
    let waited = wait(waited.pending, WaitFor::FirstError, None);
    assert_eq!((waited.done.len(), waited.pending.len()), (1, 1));
    // A failure that is known already is enough, too.
    let both: Vec<_> = waited.pending.into_iter().chain(waited.done).collect();
    let waited = wait(both, WaitFor::FirstError, None);
    assert_eq!((waited.done.len(), waited.pending.len()), (1, 1));
    let error = waited.done.into_iter().next().expect("a failure").join().expect_err("a failure");
    assert!(error.to_string().contains("as told"), "{error}");
    open_gate(&shut);
    let more: Vec<_> = (2..30).map(|item| pool.submit(pass_if, (shut.file("gate").as_str(), item))).collect();
    let all = wait(waited.pending.into_iter().chain(more), WaitFor::FirstError, None);
    assert_eq!(taken(all), ((1..30).map(Ok).collect(), 0), "where none fails, all are waited for");
}

fn waiting_for_all_counts_failures_too(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    open_gate(&scratch);
    let gate = scratch.file("gate");
    let handles = [
        pool.submit(pass, (gate.as_str(), 1)),
        pool.submit(fail, gate.as_str()),
        pool.submit(die, ()),
        pool.submit(pass, (gate.as_str(), 4)),
    ];
    let (done, pending) = taken(wait(handles, WaitFor::All, None));
    assert_eq!((&done[0], &done[3], pending), (&Ok(1), &Ok(4), 0), "in the order in which they were given");
    assert!(matches!(done[1].as_ref().map_err(Error::kind), Err(ErrorKind::Panicked { .. })), "{done:?}");
    assert!(matches!(done[2].as_ref().map_err(Error::kind), Err(ErrorKind::Killed { .. })), "{done:?}");
    pool.close();
    let refused = wait((0..3).map(|x| pool.submit(square, x)), WaitFor::First, None);
    assert_eq!((refused.done.len(), refused.pending.len()), (3, 0));
}

fn a_time_out_is_no_error(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let gate = scratch.file("gate");
    let handles = [0, 1, 2].map(|item| pool.submit(pass_if, (gate.as_str(), item)));
    assert!(handles[1].wait_timeout(Duration::MAX).is_ok() && handles[2].wait_timeout(Duration::MAX).is_ok());
    let start = Instant::now();
    let waited = wait(handles, WaitFor::All, Some(Duration::from_millis(30)));
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!((waited.done.len(), waited.pending.len()), (2, 1));
    let again = wait(waited.pending, WaitFor::First, Some(Duration::ZERO));
    assert_eq!((again.done.len(), again.pending.len()), (0, 1));
    open_gate(&scratch);
    assert_eq!(taken(wait(again.pending, WaitFor::First, Some(Duration::MAX))), (vec![Ok(0)], 0));
    assert_eq!(taken(waited_again(waited.done)), (vec![Ok(1), Ok(2)], 0));
}

fn waited_again(done: Vec<JoinHandle<u32>>) -> WaitOutcome<u32> {
    wait(done, WaitFor::All, Some(Duration::ZERO))
}

fn nothing_to_wait_for_is_done(_: StartMethod) {
    for when in [WaitFor::First, WaitFor::FirstError, WaitFor::All] {
        let waited = wait(Vec::<JoinHandle<()>>::new(), when, None);
        assert!(waited.done.is_empty() && waited.pending.is_empty());
    }
    let mut nothing = as_completed(Vec::<JoinHandle<()>>::new());
    assert_eq!(nothing.len(), 0);
    assert!(nothing.next().is_none() && matches!(nothing.next_timeout(Duration::MAX), Ok(None)));
}

fn waiting_for_the_first_again_and_again_drains_all(method: StartMethod) {
    let pool = pool(method, 2);
    let mut pending: Vec<_> = (0..300).map(|x| pool.submit(square, x)).collect();
    let mut squares = Vec::new();
    while !pending.is_empty() {
        let waited = wait(pending, WaitFor::First, None);
        assert!(!waited.done.is_empty());
        squares.extend(waited.done.into_iter().map(|handle| handle.join().expect("a square")));
        pending = waited.pending;
    }
    squares.sort_unstable();
    assert_eq!(squares, (0..300).map(|x| x * x).collect::<Vec<_>>());
}

fn as_completed_gives_what_is_settled_first(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let gate = scratch.file("gate");
    let late = pool.submit(pass_if, (gate.as_str(), 0));
    let settled: Vec<_> = (1..20).map(|item| pool.submit(pass_if, (gate.as_str(), item))).collect();
    assert!(settled.iter().all(|handle| handle.wait_timeout(Duration::MAX).is_ok()));
    let mut completed = as_completed([late].into_iter().chain(settled));
    let first: Vec<_> = completed.by_ref().take(19).map(JoinHandle::join).collect();
    assert_eq!(first, (1..20).map(Ok).collect::<Vec<_>>());
    open_gate(&scratch);
    assert_eq!(completed.next().map(JoinHandle::join), Some(Ok(0)));
    assert!(completed.next().is_none());
}

fn as_completed_gives_each_handle_once(method: StartMethod) {
    let pool = pool(method, 3);
    let mut completed = as_completed((0..500).map(|x| pool.submit(square, x)));
    let mut squares = Vec::new();
    for left in (0..500).rev() {
        let handle = completed.next().expect("one more");
        assert!(handle.is_finished());
        squares.push(handle.join().expect("a square"));
        assert_eq!((completed.len(), completed.size_hint()), (left, (left, Some(left))));
    }
    assert!(completed.next().is_none() && completed.next().is_none());
    squares.sort_unstable();
    assert_eq!(squares, (0..500).map(|x| x * x).collect::<Vec<_>>());
}

fn as_completed_goes_on_after_the_time_is_over(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let gate = scratch.file("gate");
    let handles = [0, 1].map(|item| pool.submit(pass_if, (gate.as_str(), item)));
    assert!(handles[1].wait_timeout(Duration::MAX).is_ok());
    let mut completed = as_completed(handles);
    let first = completed.next_timeout(Duration::ZERO).expect("it is settled").expect("one of two");
    assert_eq!(first.join(), Ok(1));
    for _ in 0..3 {
        let elapsed = completed.next_timeout(Duration::from_millis(3)).expect_err("the gate is shut");
        assert_eq!(elapsed.to_string(), "timed out with 1 call unfinished");
    }
    open_gate(&scratch);
    let last = completed.next_timeout(Duration::MAX).expect("the gate is open").expect("two of two");
    assert_eq!(last.join(), Ok(0));
    assert!(matches!(completed.next_timeout(Duration::ZERO), Ok(None)));
}

fn as_completed_outlives_the_pool(method: StartMethod) {
    let pool = pool(method, 2);
    let (one, other) = ((0..40).map(|x| pool.submit(square, x)), (40..50).map(|x| pool.submit(square, x)));
    let (completed, other) = (as_completed(one), other.collect::<Vec<_>>());
    drop(pool);
    assert_eq!(completed.map(|handle| handle.join().expect("a square")).sum::<i64>(), (0..40).map(|x| x * x).sum());
    assert_eq!(wait(other, WaitFor::All, None).done.len(), 10);
}

fn a_set_that_is_dropped_detaches_its_calls(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let gate = scratch.file("gate");
    let mut completed = as_completed((0..10).map(|item| pool.submit(pass, (gate.as_str(), item))));
    assert!(completed.next_timeout(Duration::ZERO).is_err());
    drop(completed);
    drop(as_completed((0..10).map(|item| pool.submit(mark, (directory(&scratch), item)))));
    drop(wait((10..20).map(|item| pool.submit(mark, (directory(&scratch), item))), WaitFor::All, Some(Duration::ZERO)));
    open_gate(&scratch);
    drop(pool);
    assert_eq!(std::fs::read_dir(scratch.path()).expect("the directory").count(), 20 + 1);
}

fn calls_of_several_pools_are_waited_for_together(method: StartMethod) {
    let pools = [pool(method, 1), pool(method, 2), pool(StartMethod::ForkServer, 1)];
    let shut = Scratch::new();
    let gate = shut.file("gate");
    let submit = |item: u32| pools[item as usize % 3].submit(pass_if, (gate.as_str(), item));
    for _ in 0..30 {
        let waited = wait([1, 2].map(submit), WaitFor::All, None);
        assert_eq!(taken(waited), (vec![Ok(1), Ok(2)], 0));
    }
    let waited = wait([submit(0), submit(4), pools[2].submit(die, ())], WaitFor::First, None);
    assert!(!waited.done.is_empty() && waited.pending.iter().any(|handle| !handle.is_finished()));
    let rest = waited.done.into_iter().chain(waited.pending);
    let waited = wait(rest, WaitFor::FirstError, None);
    assert!(waited.pending.iter().any(|handle| !handle.is_finished()));
    let (done, pending) = (waited.done.len(), waited.pending.len());
    assert!(done + pending == 3 && pending >= 1);
    let waited = wait(waited.pending, WaitFor::All, Some(Duration::from_millis(20)));
    assert_eq!(waited.pending.len(), 1);
    open_gate(&shut);
    assert_eq!(taken(wait(waited.pending, WaitFor::All, None)), (vec![Ok(0)], 0));
}

fn calls_of_several_pools_are_given_as_they_are_finished(method: StartMethod) {
    let pools = [pool(method, 1), pool(method, 1)];
    let scratch = Scratch::new();
    let gate = scratch.file("gate");
    let late = pools[0].submit(pass_if, (gate.as_str(), 0));
    let calls = (1..60).map(|item: u32| pools[1].submit(pass_if, (gate.as_str(), item)));
    let mut completed = as_completed([late].into_iter().chain(calls));
    let mut seen: Vec<_> = completed.by_ref().take(59).map(|handle| handle.join().expect("an item")).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..60).collect::<Vec<_>>());
    assert_eq!(completed.next_timeout(Duration::from_millis(5)).map(drop).map_err(|late| late.unfinished()), Err(1));
    open_gate(&scratch);
    assert_eq!(completed.next().map(JoinHandle::join), Some(Ok(0)));
    assert!(completed.next().is_none());
    // No thread listens any more, and both pools are as they were.
    assert!(pools.iter().all(|pool| pool.map(square, 0..50) == Ok((0..50).map(|x| x * x).collect())));
}

fn threads_wait_for_sets_while_others_wait_for_calls(method: StartMethod) {
    let pools = [pool(method, 2), pool(method, 2)];
    let squares = |from: i64| (from..from + 40).map(move |x| x * x).sum::<i64>();
    thread::scope(|scope| {
        for thread in 0..6usize {
            let pools = &pools;
            scope.spawn(move || {
                for round in 0..10i64 {
                    let one = &pools[thread % 2];
                    let handles = (round..round + 40).map(|x| match thread {
                        // Two threads mix their pools, the others have one.
                        0 | 1 => pools[usize::from(x % 2 == 0)].submit(square, x),
                        _ => one.submit(square, x),
                    });
                    let sum: i64 = match thread {
                        0 | 2 => as_completed(handles).map(|handle| handle.join().expect("a square")).sum(),
                        1 | 3 => {
                            let done = wait(handles, WaitFor::All, None).done;
                            done.into_iter().map(|handle| handle.join().expect("a square")).sum()
                        }
                        4 => handles.map(|handle| handle.join().expect("a square")).sum(),
                        _ => one.imap_unordered(square, round..round + 40).map(Result::unwrap).sum(),
                    };
                    assert_eq!(sum, squares(round));
                }
            });
        }
    });
}

fn call_wakes_all_its_waiters(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let mut handle = pool.submit(pass, (scratch.file("gate").as_str(), 9));
    let told = Arc::new(Told(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&told));
    assert!(pin!(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
    let (sender, results) = std::sync::mpsc::channel();
    handle.on_done(move |result| sender.send(result).expect("the test listens"));
    let waited = wait([handle], WaitFor::All, Some(Duration::from_millis(5)));
    let mut completed = as_completed(waited.pending);
    assert!(completed.next_timeout(Duration::from_millis(5)).is_err());
    open_gate(&scratch);
    assert_eq!(completed.next().expect("it is settled").join(), Ok(9));
    assert_eq!(results.recv(), Ok(Ok(9)));
    eventually("the future was told", Duration::from_secs(20), || told.0.load(SeqCst));
}

struct Told(AtomicBool);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker's panic");
    }
}

fn panicking_waker_leaves_the_pool_working(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let mut handles: Vec<_> = (0..4).map(|item| pool.submit(pass, (scratch.file("gate").as_str(), item))).collect();
    let waker = Waker::from(Arc::new(Panics));
    for handle in &mut handles {
        assert!(pin!(handle).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let told = Arc::new(Told(AtomicBool::new(false)));
    let mut last = pool.submit(pass, (scratch.file("gate").as_str(), 4));
    assert!(pin!(&mut last).poll(&mut Context::from_waker(&Waker::from(Arc::clone(&told)))).is_pending());
    open_gate(&scratch);
    eventually("the last is told", Duration::from_secs(20), || told.0.load(SeqCst));
    assert_eq!(handles.into_iter().map(JoinHandle::join).collect::<Vec<_>>(), (0..4).map(Ok).collect::<Vec<_>>());
    assert_eq!((last.join(), pool.call(square, 3)), (Ok(4), Ok(9)));
}

fn what_was_given_out_is_released(method: StartMethod) {
    let pool = pool(method, 2);
    let mapped = || support::census::census().memfds;
    let before = mapped();
    // Long results stay where they are until their handles are gone.
    let waited = wait((0..40).map(|byte| pool.submit(fill, (1 << 20, byte))), WaitFor::All, None);
    let full = mapped();
    assert!(full >= before + 30, "{before}, then {full}");
    let mut completed = as_completed(waited.done);
    for byte in 0..40 {
        assert_eq!(completed.next().expect("one more").join(), Ok(vec![byte; 1 << 20]));
    }
    // Each worker keeps a few parcels, to use them again.
    assert!(mapped() + 20 <= full, "{before}, then {full}, then {}", mapped());
    assert!(completed.next().is_none());
}

fn a_map_waits_no_longer_than_told(method: StartMethod) {
    let pool = pool(method, 3);
    let scratch = Scratch::new();
    let gate = scratch.file("gate");
    let mut ordered = pool.imap(pass_if, [1, 2, 0, 3].map(|item| (gate.as_str(), item)));
    assert_eq!((ordered.next_timeout(Duration::MAX), ordered.next()), (Ok(Some(Ok(1))), Some(Ok(2))));
    let elapsed = ordered.next_timeout(Duration::from_millis(5)).expect_err("the gate is shut");
    assert_eq!(elapsed.unfinished(), 2);
    let mut unordered = pool.imap_unordered(pass_if, [0, 4].map(|item| (gate.as_str(), item)));
    assert_eq!(unordered.next_timeout(Duration::MAX), Ok(Some(Ok(4))));
    let elapsed = unordered.next_timeout(Duration::from_millis(5)).expect_err("the gate is shut");
    assert_eq!(elapsed.unfinished(), 1);
    open_gate(&scratch);
    assert_eq!(ordered.next_timeout(Duration::MAX), Ok(Some(Ok(0))));
    assert_eq!(
        (ordered.next_timeout(Duration::MAX), ordered.next_timeout(Duration::ZERO)),
        (Ok(Some(Ok(3))), Ok(None))
    );
    assert_eq!(unordered.next_timeout(Duration::MAX), Ok(Some(Ok(0))));
    assert_eq!((unordered.next_timeout(Duration::ZERO), unordered.next()), (Ok(None), None));
}

fn closing_amid_submissions_gives_a_value_or_says_so(method: StartMethod) {
    for _ in 0..support::rounds(2) {
        let pool = pool(method, 2);
        thread::scope(|scope| {
            let submitters: Vec<_> =
                (0..3).map(|_| scope.spawn(|| (0..400).map(|x| pool.submit(square, x)).collect::<Vec<_>>())).collect();
            eventually("a worker has begun", Duration::from_secs(20), || pool.call(square, 1).is_ok());
            pool.close();
            for handles in submitters.into_iter().map(|thread| thread.join().expect("a thread")) {
                for (x, result) in (0i64..).zip(handles.into_iter().map(JoinHandle::join)) {
                    match result {
                        Ok(result) => assert_eq!(result, x * x),
                        Err(error) => assert!(matches!(error.kind(), ErrorKind::Closed { .. }), "{error}"),
                    }
                }
            }
        });
    }
}
