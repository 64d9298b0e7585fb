//! What a pool promises while no process dies: every way to ask, in order, lazily, from any thread, until it is closed.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how fast anything is.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::executor::{block_on, waker_of_this_thread};
use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::scratch::Scratch;
use process_task::{ErrorKind, Execution, JoinHandle, Pool, StartMethod, active_children, current, process_task};

under_every_start_method! {
    map_equals_the_sequential_result,
    imap_yields_in_the_order_of_its_items,
    imap_unordered_yields_every_result_once,
    imap_unordered_yields_the_finished_first,
    lazy_maps_read_a_bounded_number_of_items_ahead,
    lazy_maps_are_as_exact_in_size_as_their_input,
    empty_inputs_give_empty_results,
    a_panicking_input_leaves_the_pool_usable,
    map_reports_the_first_error_in_the_items_order,
    imap_goes_on_after_an_error,
    no_workers_are_refused,
    workers_are_named_and_counted,
    a_handle_is_waited_for_as_long_as_told,
    threads_share_one_handle,
    a_waiting_thread_is_told_after_all_others_have_left,
    a_handle_is_a_future,
    a_future_is_told_though_its_handle_was_waited_for_meanwhile,
    handles_outlive_their_pool,
    a_closed_pool_finishes_and_refuses,
    a_dropped_pool_finishes_what_was_submitted,
    a_killed_pool_kills_and_cancels,
    calls_one_at_a_time_use_one_worker,
    short_calls_pass_a_long_one_while_a_worker_is_idle,
    threads_share_one_pool,
    a_pool_outlives_the_thread_that_made_it,
    calls_without_a_waiter_are_made,
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn add(a: i32, b: i32) -> i32 {
    a + b
}

#[process_task]
fn length(text: &str) -> usize {
    text.len()
}

#[process_task]
fn pid() -> u32 {
    std::process::id()
}

#[process_task]
fn name_of_worker() -> String {
    current().name().to_owned()
}

/// Panics on multiples of five.
#[process_task]
fn picky(x: u32) -> u32 {
    assert!(!x.is_multiple_of(5), "{x} is a multiple of five");
    x
}

/// Leaves a file beside `gate`, and returns when that exists.
#[process_task]
fn pass(gate: &str) -> u32 {
    std::fs::write(format!("{gate}-{}", std::process::id()), "").expect("a directory that can be written to");
    wait_for(gate);
    std::process::id()
}

/// [`pass`] for one item of several, the others return at once.
#[process_task]
fn pass_if(gate: &str, item: u32) -> u32 {
    if item == 0 {
        wait_for(gate);
    }
    item
}

/// Leaves a file, for calls whose results no thread asks for.
#[process_task]
fn mark(directory: &str, item: u32) {
    std::fs::write(format!("{directory}/{item}"), "").expect("a directory that can be written to");
}

fn entries(scratch: &Scratch) -> usize {
    std::fs::read_dir(scratch.path()).expect("the directory").count()
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().expect("a pool")
}

fn map_equals_the_sequential_result(method: StartMethod) {
    let pool = pool(method, 3);
    assert_eq!(pool.call(square, 7), Ok(49));
    let expected: Vec<i64> = (0..1000).map(*square).collect();
    assert_eq!(pool.map(square, 0..1000), Ok(expected));
    assert_eq!(pool.map(add, [(1, 2), (3, 4), (-5, 5)]), Ok(vec![3, 7, 0]));
    assert_eq!(pool.map(length, "one\nthree\n\nx".lines()), Ok(vec![3, 5, 0, 1]));
}

fn imap_yields_in_the_order_of_its_items(method: StartMethod) {
    let pool = pool(method, 2);
    let results: Result<Vec<_>, _> = pool.imap(square, 0..500).collect();
    assert_eq!(results, Ok((0..500).map(|x| x * x).collect()));
}

fn imap_unordered_yields_every_result_once(method: StartMethod) {
    let pool = pool(method, 3);
    let mut results: Vec<i64> = pool.imap_unordered(square, 0..500).map(Result::unwrap).collect();
    results.sort_unstable();
    assert_eq!(results, (0..500).map(|x| x * x).collect::<Vec<_>>());
}

fn imap_unordered_yields_the_finished_first(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let gate = scratch.file("gate");
    let mut results = pool.imap_unordered(pass_if, (0..40).map(|item| (gate.as_str(), item)));
    let mut seen: Vec<u32> = results.by_ref().take(39).map(Result::unwrap).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..40).collect::<Vec<_>>());
    open_gate(&scratch);
    assert_eq!(results.next(), Some(Ok(0)));
    assert!(results.next().is_none() && results.next().is_none());
}

fn lazy_maps_read_a_bounded_number_of_items_ahead(method: StartMethod) {
    let pool = pool(method, 2);
    let read = Cell::new(0usize);
    let endless = || {
        read.set(0);
        std::iter::from_fn(|| {
            read.set(read.get() + 1);
            Some(i64::try_from(read.get()).expect("a small number"))
        })
    };
    let mut ordered = pool.imap(square, endless());
    assert_eq!(read.get(), 0);
    for n in 1..=100usize {
        let root = i64::try_from(n).expect("a small number");
        assert_eq!(ordered.next(), Some(Ok(root * root)));
        assert!(read.get() <= n + 64, "{} items were read for {n} results", read.get());
    }
    drop(ordered);
    let mut unordered = pool.imap_unordered(square, endless());
    assert_eq!(read.get(), 0);
    for n in 1..=100 {
        unordered.next().expect("an endless iterator").expect("a square");
        assert!(read.get() <= n + 64, "{} items were read for {n} results", read.get());
    }
    drop(unordered);
    assert_eq!(pool.call(square, 3), Ok(9));
}

fn lazy_maps_are_as_exact_in_size_as_their_input(method: StartMethod) {
    let pool = pool(method, 2);
    let mut ordered = pool.imap(square, 0..30i64);
    let mut unordered = pool.imap_unordered(square, (0..30).collect::<Vec<i64>>());
    for left in (0..30).rev() {
        assert!(ordered.next().is_some() && unordered.next().is_some());
        assert_eq!((ordered.size_hint(), unordered.len()), ((left, Some(left)), left));
    }
    let half = pool.imap(square, (0..30).filter(|x| x % 2 == 0));
    assert_eq!(half.size_hint(), (0, Some(30)));
}

fn empty_inputs_give_empty_results(method: StartMethod) {
    let pool = pool(method, 1);
    assert_eq!(pool.map(square, []), Ok(vec![]));
    assert!(pool.imap(square, []).next().is_none());
    assert!(pool.imap_unordered(square, std::iter::empty()).next().is_none());
}

fn a_panicking_input_leaves_the_pool_usable(method: StartMethod) {
    let pool = pool(method, 2);
    let bad = |at: i64| (0..10i64).inspect(move |x| assert!(*x != at, "no item {at}"));
    for at in [0, 3, 9] {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.map(square, bad(at))));
        let text = *caught.expect_err("the input's panic").downcast::<String>().expect("a formatted message");
        assert_eq!(text, format!("no item {at}"));
        let mut lazy = pool.imap_unordered(square, bad(at));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| while lazy.next().is_some() {}))
            .expect_err("the input's panic");
        assert_eq!(pool.call(square, at), Ok(at * at));
    }
}

fn map_reports_the_first_error_in_the_items_order(method: StartMethod) {
    let pool = pool(method, 2);
    let error = pool.map(picky, 1..100).expect_err("five is refused");
    assert!(error.to_string().contains("5 is a multiple of five"), "{error}");
    assert!(
        matches!(error.kind(), ErrorKind::Panicked { location: Some(at), .. } if at.contains("calls.rs")),
        "{error}"
    );
    assert_eq!((error.execution(), error.task()), (Execution::Finished, Some("pool::calls::picky")));
    assert_eq!(pool.map(picky, [1, 2]), Ok(vec![1, 2]));
}

fn imap_goes_on_after_an_error(method: StartMethod) {
    let pool = pool(method, 2);
    let refused: Vec<_> = (1..=20).zip(pool.imap(picky, 1..=20)).filter(|(_, result)| result.is_err()).collect();
    let refused: Vec<u32> = refused.into_iter().map(|(x, _)| x).collect();
    assert_eq!(refused, [5, 10, 15, 20]);
    assert_eq!(pool.imap_unordered(picky, 1..=20).flatten().count(), 16);
}

fn no_workers_are_refused(method: StartMethod) {
    let error = Pool::builder().workers(0).start_method(method).build().expect_err("no workers");
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    assert_eq!(error.execution(), Execution::NotStarted);
}

fn workers_are_named_and_counted(method: StartMethod) {
    let pool = Pool::builder().workers(3).name("scanner").start_method(method).build().expect("a pool");
    assert_eq!((pool.workers(), active_children().len()), (3, 3));
    let names: BTreeSet<String> = pool.map(name_of_worker, [(); 60]).expect("names").into_iter().collect();
    let possible = ["scanner-0", "scanner-1", "scanner-2"].map(str::to_owned);
    assert!(!names.is_empty() && names.iter().all(|name| possible.contains(name)), "{names:?}");
    let living: BTreeSet<String> = active_children().iter().map(|child| child.name().to_owned()).collect();
    assert_eq!(living, BTreeSet::from(possible));
}

fn a_handle_is_waited_for_as_long_as_told(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let handle = pool.submit(pass, &scratch.file("gate"));
    assert!(!handle.is_finished() && handle.wait_timeout(Duration::ZERO).is_err());
    let start = Instant::now();
    assert!(handle.wait_timeout(Duration::from_millis(50)).is_err());
    assert!(start.elapsed() >= Duration::from_millis(50));
    let handle = handle.join_timeout(Duration::from_millis(5)).expect_err("the handle").into_inner();
    open_gate(&scratch);
    assert!(
        handle.wait_timeout(Duration::MAX).is_ok()
            && handle.is_finished()
            && handle.wait_timeout(Duration::ZERO).is_ok()
    );
    let worker = active_children()[0].pid();
    assert_eq!(handle.join_timeout(Duration::ZERO).map_err(drop), Ok(Ok(worker)));
    eventually("a result is seen without waiting", Duration::from_secs(10), {
        let handle = pool.submit(square, 4);
        move || handle.is_finished()
    });
}

fn threads_share_one_handle(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let shared = pool.submit(pass, &scratch.file("gate"));
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..6).map(|_| scope.spawn(|| shared.wait_timeout(Duration::MAX).is_ok())).collect();
        let other = scope.spawn(|| (0..200).all(|x| pool.call(square, x) == Ok(x * x)));
        assert!(other.join().expect("a thread"));
        open_gate(&scratch);
        assert!(waiters.into_iter().all(|waiter| waiter.join().expect("a thread")));
    });
}

fn a_waiting_thread_is_told_after_all_others_have_left(method: StartMethod) {
    let pool = pool(method, 2);
    let (one, other) = (Scratch::new(), Scratch::new());
    let (first, last) = (pool.submit(pass, &one.file("gate")), pool.submit(pass, &other.file("gate")));
    // The pauses only make it likely that the threads come in this order, which is the one that may go wrong.
    let enter = |handle: &JoinHandle<u32>| {
        thread::sleep(Duration::from_millis(20));
        assert!(handle.wait_timeout(Duration::MAX).is_ok());
    };
    thread::scope(|scope| {
        let mut leaving = vec![scope.spawn(|| enter(&first))];
        thread::sleep(Duration::from_millis(20));
        let stays = scope.spawn(|| enter(&last));
        thread::sleep(Duration::from_millis(20));
        leaving.extend((0..3).map(|_| scope.spawn(|| enter(&first))));
        thread::sleep(Duration::from_millis(60));
        open_gate(&one);
        for thread in leaving {
            thread.join().expect("a thread");
        }
        open_gate(&other);
        stays.join().expect("a thread");
    });
}

fn a_handle_is_a_future(method: StartMethod) {
    let pool = pool(method, 2);
    assert_eq!(block_on(pool.submit(square, 5)), Ok(25));
    assert!(block_on(pool.submit(picky, 5)).is_err());
    let scratch = Scratch::new();
    let waiting = pool.submit(pass, &scratch.file("gate"));
    let all = async {
        let handles: Vec<JoinHandle<i64>> = (0..100).map(|x| pool.submit(square, x)).collect();
        let mut sum = 0;
        for handle in handles {
            sum += handle.await?;
        }
        open_gate(&scratch);
        waiting.await.map(|_| sum)
    };
    assert_eq!(block_on(all), Ok((0..100).map(|x| x * x).sum()));
}

fn a_future_is_told_though_its_handle_was_waited_for_meanwhile(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let mut handle = pool.submit(pass, &scratch.file("gate"));
    let waker = waker_of_this_thread();
    let mut context = Context::from_waker(&waker);
    assert!(pin!(&mut handle).poll(&mut context).is_pending());
    let long_one = pool.submit(pass, &scratch.file("gate"));
    thread::scope(|scope| {
        // Another thread leads, so the wait below follows.
        let leader = scope.spawn(|| long_one.join());
        assert!(handle.wait_timeout(Duration::from_millis(50)).is_err());
        open_gate(&scratch);
        while !handle.is_finished() {
            thread::park_timeout(Duration::from_secs(40));
        }
        assert!(leader.join().expect("a thread").is_ok());
    });
    assert!(matches!(pin!(&mut handle).poll(&mut context), Poll::Ready(Ok(_))));
}

fn handles_outlive_their_pool(method: StartMethod) {
    let pool = pool(method, 2);
    let handles: Vec<_> = (0..50).map(|x| pool.submit(square, x)).collect();
    drop(pool);
    assert!(handles.iter().all(JoinHandle::is_finished));
    let squares: Vec<_> = handles.into_iter().map(|handle| handle.join().expect("a square")).collect();
    assert_eq!(squares, (0..50).map(|x| x * x).collect::<Vec<_>>());
}

fn a_closed_pool_finishes_and_refuses(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let first = pool.submit(pass, &scratch.file("gate"));
    let queued: Vec<_> = (0..40).map(|x| pool.submit(square, x)).collect();
    pool.close();
    pool.close();
    let refused = [pool.call(square, 1).map(drop), pool.map(square, 0..3).map(drop)];
    for error in refused.map(|result| result.expect_err("the pool is closed")) {
        assert!(matches!(error.kind(), ErrorKind::Closed { .. }), "{error}");
        assert_eq!(error.execution(), Execution::NotStarted);
    }
    assert!(pool.imap(square, 0..3).all(|result| result.is_err()));
    open_gate(&scratch);
    assert!(first.join().is_ok());
    assert!((0i64..).zip(queued).all(|(x, handle)| handle.join() == Ok(x * x)));
}

fn a_dropped_pool_finishes_what_was_submitted(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 2);
    (0..100).for_each(|item| drop(pool.submit(mark, (directory(&scratch), item))));
    drop(pool);
    assert_eq!(entries(&scratch), 100);
    assert!(active_children().is_empty());
}

fn a_killed_pool_kills_and_cancels(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 2);
    let handles: Vec<_> = (0..50).map(|_| pool.submit(pass, &scratch.file("gate"))).collect();
    eventually("both workers run something", Duration::from_secs(20), || entries(&scratch) == 2);
    pool.kill();
    pool.kill();
    let errors: Vec<_> = handles.into_iter().map(|handle| handle.join().expect_err("the gate is shut")).collect();
    let killed = errors.iter().filter(|error| matches!(error.kind(), ErrorKind::Killed { signal: 9, .. })).count();
    let cancelled = errors.iter().filter(|error| *error.kind() == ErrorKind::Cancelled).count();
    assert!(killed == 2 && cancelled == 48, "{killed} killed, {cancelled} cancelled: {errors:?}");
    for error in errors {
        let expected = if *error.kind() == ErrorKind::Cancelled { Execution::NotStarted } else { Execution::Unknown };
        assert_eq!(error.execution(), expected, "{error}");
    }
    assert!(matches!(pool.call(square, 1).expect_err("it has ended").kind(), ErrorKind::Closed { .. }));
}

fn calls_one_at_a_time_use_one_worker(method: StartMethod) {
    let pool = pool(method, 4);
    // The last one used is asked first; the first call may still find its worker being set up.
    let pids: BTreeSet<u32> = (0..50).map(|_| pool.call(pid, ()).expect("a pid")).collect();
    assert!(pids.len() <= 2, "{pids:?}");
}

fn short_calls_pass_a_long_one_while_a_worker_is_idle(method: StartMethod) {
    let pool = pool(method, 2);
    for _ in 0..10 {
        let scratch = Scratch::new();
        let gate = scratch.file("gate");
        let mut handles: Vec<_> = (1..60).map(|item| pool.submit(pass_if, (gate.as_str(), item))).collect();
        let long_one = pool.submit(pass_if, (gate.as_str(), 0));
        handles.extend((60..200).map(|item| pool.submit(pass_if, (gate.as_str(), item))));
        assert!((1..).zip(handles).all(|(item, handle)| handle.join() == Ok(item)));
        assert!(!long_one.is_finished());
        open_gate(&scratch);
        assert_eq!(long_one.join(), Ok(0));
    }
}

fn threads_share_one_pool(method: StartMethod) {
    let pool = pool(method, 3);
    thread::scope(|scope| {
        for thread in 0..8i64 {
            let pool = &pool;
            scope.spawn(move || match thread % 4 {
                0 => (0..300).for_each(|x| assert_eq!(pool.call(square, x), Ok(x * x))),
                1 => assert_eq!(pool.map(square, 0..3000), Ok((0..3000).map(|x| x * x).collect())),
                2 => assert_eq!(pool.imap_unordered(square, 0..1000).map(Result::unwrap).sum::<i64>(), 332_833_500),
                _ => (0..300).for_each(|x| assert_eq!(block_on(pool.submit(square, x)), Ok(x * x))),
            });
        }
    });
}

fn a_pool_outlives_the_thread_that_made_it(method: StartMethod) {
    let pool = thread::spawn(move || pool(method, 2)).join().expect("a thread that makes a pool");
    let before: BTreeSet<u32> = active_children().iter().map(process_task::ProcessInfo::pid).collect();
    assert_eq!(pool.map(square, 0..100), Ok((0..100).map(|x| x * x).collect()));
    thread::scope(|scope| scope.spawn(|| assert_eq!(pool.call(square, 4), Ok(16))).join()).expect("a thread");
    let after: BTreeSet<u32> = active_children().iter().map(process_task::ProcessInfo::pid).collect();
    assert_eq!(before, after);
}

fn calls_without_a_waiter_are_made(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 2);
    (0..200).for_each(|item| drop(pool.submit(mark, (directory(&scratch), item))));
    eventually("200 calls are made while no thread asks", Duration::from_secs(30), || entries(&scratch) == 200);
}
