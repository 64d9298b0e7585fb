//! What a pool promises about its end: what was submitted is finished or told that it is not, and nothing is left.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how fast anything is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::scratch::Scratch;
use crate::support::{self, PATIENCE, eventually};
use process_task::{
    Error, ErrorKind, Execution, JoinHandle, Pool, ShutdownMode, StartMethod, active_children, process_task,
};

under_every_start_method! {
    a_shutdown_finishes_every_call,
    a_shutdown_cancels_what_has_not_begun,
    an_open_pool_is_not_joined,
    a_closed_pool_is_joined_as_long_as_told,
    joining_waits_for_callbacks,
    threads_join_one_pool,
    a_callback_may_shut_its_pool_down,
    a_map_that_began_before_the_shutdown_is_whole,
    a_lazy_map_is_told_of_the_shutdown,
    a_pool_ends_once_however_often_it_is_told,
    a_pool_is_killed_while_others_wait_for_it,
    a_pool_that_did_nothing_ends,
    threads_end_a_pool_while_others_use_it,
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
    item
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().expect("a pool")
}

fn begun(scratch: &Scratch) -> usize {
    std::fs::read_dir(scratch.path()).expect("the directory").count()
}

fn is_closed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Closed { .. }) && error.execution() == Execution::NotStarted
}

fn is_cancelled<R>(result: &Result<R, Error>) -> bool {
    matches!(result, Err(error) if *error.kind() == ErrorKind::Cancelled && error.execution() == Execution::NotStarted)
}

fn a_shutdown_finishes_every_call(method: StartMethod) {
    let pool = pool(method, 2);
    let handles: Vec<_> = (0..200).map(|x| pool.submit(square, x)).collect();
    pool.shutdown(ShutdownMode::Finish).unwrap();
    assert!(handles.iter().all(JoinHandle::is_finished));
    assert!(active_children().is_empty());
    assert!((0i64..).zip(handles).all(|(x, handle)| handle.join() == Ok(x * x)));
    assert!(is_closed(&pool.call(square, 1).expect_err("it has ended")));
}

fn a_shutdown_cancels_what_has_not_begun(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let handles: Vec<_> = (0..50).map(|item| pool.submit(pass, (directory(&scratch), item))).collect();
    eventually("both workers run something", PATIENCE, || begun(&scratch) == 2);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let shutdown = scope.spawn(|| {
            let result = pool.shutdown(ShutdownMode::Cancel);
            is_over.store(true, SeqCst);
            result
        });
        let settled = || handles.iter().filter(|handle| handle.is_finished()).count();
        eventually("all but two are cancelled", PATIENCE, || settled() == 48);
        assert!(!is_over.load(SeqCst), "it waits for those that run");
        open_gate(&scratch);
        shutdown.join().expect("a thread").unwrap();
    });
    let results: Vec<_> = (0u32..).zip(handles.into_iter().map(JoinHandle::join)).collect();
    let (cancelled, done): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, result)| is_cancelled(result));
    assert_eq!((cancelled.len(), done.len()), (48, 2));
    assert!(done.iter().all(|(item, result)| *result == Ok(*item)), "{done:?}");
    assert!(active_children().is_empty());
}

fn an_open_pool_is_not_joined(method: StartMethod) {
    let pool = pool(method, 1);
    for refused in [pool.wait_ended(), pool.wait_ended_timeout(Duration::ZERO).expect("an answer at once")] {
        let error = refused.expect_err("it is open");
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    }
    assert_eq!(pool.call(square, 3), Ok(9));
}

fn a_closed_pool_is_joined_as_long_as_told(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let handle = pool.submit(pass, (directory(&scratch), 1));
    pool.close();
    let start = Instant::now();
    assert!(pool.wait_ended_timeout(Duration::from_millis(30)).is_err());
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert!(!handle.is_finished());
    open_gate(&scratch);
    assert_eq!(pool.wait_ended_timeout(Duration::MAX), Ok(Ok(())));
    assert!(handle.is_finished() && active_children().is_empty());
    assert_eq!((pool.wait_ended(), pool.wait_ended_timeout(Duration::ZERO)), (Ok(()), Ok(Ok(()))));
}

fn joining_waits_for_callbacks(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let (open, wait_here) = channel::<()>();
    let called = Arc::new(AtomicUsize::new(0));
    let handle = pool.submit(pass, (directory(&scratch), 1));
    handle.on_done(move |_| wait_here.recv_timeout(PATIENCE).expect("to be let go"));
    for _ in 0..10 {
        let called = Arc::clone(&called);
        handle.on_done(move |_| _ = called.fetch_add(1, SeqCst));
    }
    open_gate(&scratch);
    pool.close();
    assert!(pool.wait_ended_timeout(Duration::from_millis(30)).is_err(), "a callback has not returned");
    eventually("the call is settled", PATIENCE, || handle.is_finished());
    open.send(()).expect("the test waits");
    pool.wait_ended().unwrap();
    assert_eq!(called.load(SeqCst), 10);
}

fn threads_join_one_pool(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let called = Arc::new(AtomicUsize::new(0));
    for item in 0..4 {
        let called = Arc::clone(&called);
        pool.submit(pass, (directory(&scratch), item)).on_done(move |_| _ = called.fetch_add(1, SeqCst));
    }
    pool.close();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    pool.wait_ended().unwrap();
                    called.load(SeqCst)
                })
            })
            .collect();
        open_gate(&scratch);
        assert!(threads.into_iter().all(|thread| thread.join().expect("a thread") == 4));
    });
}

fn a_callback_may_shut_its_pool_down(method: StartMethod) {
    let pool = Arc::new(pool(method, 2));
    let scratch = Scratch::new();
    let handle = pool.submit(pass, (directory(&scratch), 1));
    let inner = Arc::clone(&pool);
    let (sender, receiver) = channel();
    handle.on_done(move |_| {
        let left: Vec<_> = (0..10).map(|x| inner.submit(square, x)).collect();
        let ended = inner.shutdown(ShutdownMode::Finish);
        let squares = left.into_iter().map(JoinHandle::join).collect::<Result<Vec<_>, _>>();
        sender.send((ended, inner.wait_ended(), squares)).expect("the test listens");
    });
    open_gate(&scratch);
    let expected = (Ok(()), Ok(()), Ok((0..10).map(|x| x * x).collect()));
    assert_eq!(receiver.recv_timeout(PATIENCE), Ok(expected));
    assert!(is_closed(&pool.call(square, 1).expect_err("it has ended")));
}

fn a_map_that_began_before_the_shutdown_is_whole(method: StartMethod) {
    for _ in 0..support::rounds(4) {
        let pool = pool(method, 2);
        let (sender, receiver) = channel();
        thread::scope(|scope| {
            let map = scope.spawn(|| {
                let items = (0..300).inspect(|x| _ = (*x == 200).then(|| sender.send(())));
                pool.map(square, items)
            });
            receiver.recv_timeout(PATIENCE).expect("an item that is read");
            pool.shutdown(ShutdownMode::Finish).unwrap();
            match map.join().expect("a thread") {
                Ok(squares) => assert_eq!(squares, (0..300).map(|x| x * x).collect::<Vec<_>>()),
                // Items that it had not submitted by then.
                Err(error) => assert!(is_closed(&error), "{error}"),
            }
        });
    }
}

fn a_lazy_map_is_told_of_the_shutdown(method: StartMethod) {
    let pool = pool(method, 2);
    let mut squares = pool.imap(square, 0..);
    let before: Vec<_> = squares.by_ref().take(20).map(Result::unwrap).collect();
    assert_eq!(before, (0..20).map(|x| x * x).collect::<Vec<_>>());
    pool.shutdown(ShutdownMode::Finish).unwrap();
    let mut rest = squares.skip_while(Result::is_ok);
    assert!((0..5).all(|_| is_closed(&rest.next().expect("an endless input").expect_err("it has ended"))));
}

fn a_pool_ends_once_however_often_it_is_told(method: StartMethod) {
    let pool = pool(method, 2);
    let handle = pool.submit(square, 6);
    pool.close();
    pool.shutdown(ShutdownMode::Finish).unwrap();
    pool.shutdown(ShutdownMode::Cancel).unwrap();
    pool.close();
    pool.wait_ended().unwrap();
    pool.kill();
    pool.kill();
    pool.wait_ended().unwrap();
    assert_eq!(handle.join(), Ok(36));
    assert!(is_closed(&pool.resize(3).expect_err("it has ended")));
    drop(pool);
    assert!(active_children().is_empty());
}

fn a_pool_is_killed_while_others_wait_for_it(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let handles: Vec<_> = (0..20).map(|item| pool.submit(pass, (directory(&scratch), item))).collect();
    eventually("both workers run something", PATIENCE, || begun(&scratch) == 2);
    thread::scope(|scope| {
        let pool = &pool;
        let shutdowns =
            [ShutdownMode::Finish, ShutdownMode::Cancel].map(|rest| scope.spawn(move || pool.shutdown(rest)));
        let waiting = scope.spawn(|| handles[0].wait_timeout(Duration::MAX).is_ok());
        pool.kill();
        assert!(shutdowns.into_iter().all(|thread| thread.join().expect("a thread").is_ok()));
        assert!(waiting.join().expect("a thread"));
    });
    assert!(handles.into_iter().all(|handle| handle.join().is_err()));
    assert!(active_children().is_empty());
}

fn a_pool_that_did_nothing_ends(method: StartMethod) {
    drop(pool(method, 3));
    pool(method, 3).kill();
    pool(method, 3).shutdown(ShutdownMode::Cancel).unwrap();
    let lazy = Pool::builder().workers(3).lazy().start_method(method).build().expect("a pool");
    lazy.shutdown(ShutdownMode::Finish).unwrap();
    assert!(active_children().is_empty());
}

/// Every call is settled, whatever ends the pool and however: with its result, or with why there is none.
fn threads_end_a_pool_while_others_use_it(method: StartMethod) {
    for round in 0..support::rounds(4) {
        let pool = pool(method, 2);
        let called = Arc::new(AtomicUsize::new(0));
        let submitted = thread::scope(|scope| {
            let users: Vec<_> = (0..4i64)
                .map(|user| {
                    let (pool, called) = (&pool, &called);
                    scope.spawn(move || {
                        let mut handles = Vec::new();
                        for x in 0..150 {
                            let handle = pool.submit(square, x);
                            let called = Arc::clone(called);
                            handle.on_done(move |_| _ = called.fetch_add(1, SeqCst));
                            if (x + user) % 5 == 0 {
                                let _ = handle.cancel();
                            }
                            handles.push((x, handle));
                        }
                        for (x, handle) in &handles {
                            assert!(handle.wait_timeout(Duration::MAX).is_ok(), "{x}");
                        }
                        for (x, handle) in handles {
                            let result = handle.join();
                            let fine = result == Ok(x * x) || result.as_ref().is_err_and(is_of_the_end);
                            assert!(fine, "{x}: {result:?}");
                        }
                    })
                })
                .collect();
            let enders: Vec<_> = (0..2)
                .map(|ender| {
                    let pool = &pool;
                    scope.spawn(move || match (round + ender) % 4 {
                        0 => pool.close(),
                        1 => pool.shutdown(ShutdownMode::Finish).unwrap(),
                        2 => pool.shutdown(ShutdownMode::Cancel).unwrap(),
                        _ => pool.kill(),
                    })
                })
                .collect();
            for ender in enders {
                ender.join().expect("a thread");
            }
            let count = users.len();
            for user in users {
                user.join().expect("a thread");
            }
            count * 150
        });
        drop(pool);
        assert_eq!(called.load(SeqCst), submitted);
    }
}

fn is_of_the_end(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Closed { .. } | ErrorKind::Cancelled | ErrorKind::Killed { signal: 9, .. })
}
