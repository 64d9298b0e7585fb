//! What a pool with a bound promises: never more calls than that, and no thread that waits for room is forgotten.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how fast anything is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::scratch::Scratch;
use crate::support::{self, PATIENCE, eventually, rounds};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_task::channel::{JoinableQueue, Listener};
use process_task::sync::{Event, Semaphore};
use process_task::{
    AsCompleted, Elapsed, Error, ErrorKind, Imap, ImapUnordered, JoinHandle, Pool, Process, StartMethod,
    TrySubmitError, active_children, process_task,
};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};

under_every_start_method! {
    no_room_at_all_is_refused,
    a_full_pool_gives_the_arguments_back,
    a_closed_pool_gives_the_arguments_back_and_says_why,
    a_bounded_pool_makes_submitters_wait,
    many_submitters_find_room_one_after_the_other,
    maps_find_room_in_the_smallest_pool,
    a_map_that_loses_a_worker_makes_no_room_for_others,
    arguments_that_cannot_be_encoded_take_no_place,
    a_dead_worker_makes_room,
    close_wakes_submitters_blocked_for_room,
    kill_wakes_submitters_blocked_for_room,
    callbacks_find_room,
    finished_call_without_a_waiter_makes_room,
    wait_leaves_the_result_for_join,
}

/// What waits for a time gives what its twin without a time gives, or `Elapsed`. That this compiles is the test.
#[test]
fn time_out_gives_what_its_twin_gives_or_elapsed() {
    fn twins<S, T, G>(_: fn(S) -> T, _: fn(S, Duration) -> Result<T, Elapsed<G>>) {}
    type NextTimeout<I> = fn(&mut I, Duration) -> Result<Option<<I as Iterator>::Item>, Elapsed>;
    fn twins_of_made<I: Iterator>(_: fn(&'static Pool) -> I, _: NextTimeout<I>) {}
    twins::<_, _, ()>(JoinHandle::<u8>::wait, JoinHandle::wait_timeout);
    twins::<_, _, JoinHandle<u8>>(JoinHandle::<u8>::join, JoinHandle::join_timeout);
    twins::<_, _, ()>(Process::<u8>::wait, Process::wait_timeout);
    twins::<_, _, ()>(Pool::wait_ended, Pool::wait_ended_timeout);
    twins::<_, _, ()>(AsCompleted::<u8>::next, AsCompleted::next_timeout);
    twins_of_made(|pool| pool.imap(square, [1]), Imap::next_timeout);
    twins_of_made(|pool| pool.imap_unordered(square, [1]), ImapUnordered::next_timeout);
    twins::<_, _, ()>(JoinableQueue::<u8>::wait_all_done, JoinableQueue::wait_all_done_timeout);
    twins::<_, _, ()>(Listener::accept::<u8, u8>, Listener::accept_timeout);
    twins::<_, _, ()>(Event::wait, Event::wait_timeout);
    twins::<_, _, ()>(Semaphore::acquire, Semaphore::acquire_timeout);
}

fn wait_leaves_the_result_for_join(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let handle = pool.submit(pass, (scratch.file("gate").as_str(), 7));
    assert!(handle.wait_timeout(Duration::from_millis(1)).is_err());
    thread::scope(|scope| {
        scope.spawn(|| handle.wait());
        open_gate(&scratch);
    });
    assert!(handle.is_finished());
    handle.wait();
    assert_eq!(handle.join(), Ok(7));
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

#[process_task]
fn mark(directory: &str, item: u32) {
    std::fs::write(format!("{directory}/{item}"), "").expect("a directory that can be written to");
}

#[process_task]
fn die_at(item: u32, last: u32) -> u32 {
    if item == last {
        std::process::abort();
    }
    item
}

/// Cannot be encoded; panics if it is told to.
#[derive(Debug, Deserialize, PartialEq)]
struct Stubborn {
    panics: bool,
}

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        assert!(!self.panics, "must not be written");
        Err(S::Error::custom("cannot be written"))
    }
}

#[process_task]
fn swallow(_: Stubborn) {}

fn pool(method: StartMethod, workers: usize, pending: usize) -> Pool {
    let builder = Pool::builder().workers(workers).max_pending(pending);
    builder.start_method(method).build().expect("a pool")
}

fn is_closed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Closed { .. })
}

fn no_room_at_all_is_refused(method: StartMethod) {
    let error = Pool::builder().workers(1).max_pending(0).start_method(method).build().expect_err("no room");
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
}

fn a_full_pool_gives_the_arguments_back(method: StartMethod) {
    let pool = pool(method, 2, 3);
    let scratch = Scratch::new();
    let gate = scratch.file("gate");
    let handles: Vec<_> =
        (0..3).map(|item| pool.try_submit(pass, (gate.as_str(), item)).expect("there is room")).collect();
    match pool.try_submit(pass, (gate.as_str(), 3)) {
        Err(TrySubmitError::Full(args)) => assert_eq!(args, (gate.as_str(), 3)),
        other => panic!("{other:?}"),
    }
    // Those that are never encoded come back, too.
    match pool.try_submit(swallow, Stubborn { panics: true }) {
        Err(TrySubmitError::Full(args)) => assert_eq!(args, Stubborn { panics: true }),
        other => panic!("{other:?}"),
    }
    open_gate(&scratch);
    let mut again = (gate.as_str(), 3);
    let late = loop {
        match pool.try_submit(pass, again) {
            Ok(handle) => break handle,
            Err(TrySubmitError::Full(args)) => again = args,
            Err(closed) => panic!("{closed}"),
        }
        thread::yield_now();
    };
    assert_eq!(late.join(), Ok(3));
    assert_eq!(handles.into_iter().map(JoinHandle::join).collect::<Vec<_>>(), [Ok(0), Ok(1), Ok(2)]);
    let unbounded = Pool::builder().workers(1).start_method(method).build().expect("a pool");
    let handles: Result<Vec<_>, _> = (0..2000).map(|x| unbounded.try_submit(square, x)).collect();
    assert_eq!(handles.expect("there is always room").len(), 2000);
}

fn a_closed_pool_gives_the_arguments_back_and_says_why(method: StartMethod) {
    let pool = pool(method, 1, 1);
    pool.close();
    for _ in 0..3 {
        match pool.try_submit(square, 5) {
            Err(TrySubmitError::Closed(5, error)) => assert!(is_closed(&error), "{error}"),
            other => panic!("{other:?}"),
        }
        assert!(is_closed(&pool.call(square, 5).expect_err("it is closed")));
    }
}

fn a_bounded_pool_makes_submitters_wait(method: StartMethod) {
    let pool = pool(method, 2, 4);
    let scratch = Scratch::new();
    let gate = scratch.file("gate");
    let submitted = AtomicUsize::new(0);
    thread::scope(|scope| {
        let submitters: Vec<_> = (0..3u32)
            .map(|thread| {
                let (pool, submitted, gate) = (&pool, &submitted, gate.as_str());
                let submit = move |item| {
                    let handle = pool.submit(pass, (gate, item));
                    submitted.fetch_add(1, SeqCst);
                    handle
                };
                scope.spawn(move || (thread * 5..thread * 5 + 5).map(submit).collect::<Vec<_>>())
            })
            .collect();
        eventually("as many as there is room for", PATIENCE, || submitted.load(SeqCst) == 4);
        thread::sleep(Duration::from_millis(30));
        assert_eq!(submitted.load(SeqCst), 4);
        assert!(matches!(pool.try_submit(square, 1), Err(TrySubmitError::Full(1))));
        open_gate(&scratch);
        let handles = submitters.into_iter().flat_map(|thread| thread.join().expect("a thread"));
        assert_eq!(handles.map(|handle| handle.join().expect("an item")).sum::<u32>(), (0..15).sum());
    });
}

fn many_submitters_find_room_one_after_the_other(method: StartMethod) {
    let pool = pool(method, 2, 2);
    thread::scope(|scope| {
        for thread in 0..12i64 {
            let pool = &pool;
            scope.spawn(move || {
                for x in 0..60 {
                    match (thread + x) % 3 {
                        0 => assert_eq!(pool.call(square, x), Ok(x * x)),
                        1 => assert_eq!(pool.submit(square, x).join(), Ok(x * x)),
                        // No thread hears of this one.
                        _ => drop(pool.submit(square, x)),
                    }
                }
            });
        }
    });
    assert_eq!(pool.call(square, 2), Ok(4));
}

fn maps_find_room_in_the_smallest_pool(method: StartMethod) {
    let pool = pool(method, 2, 1);
    let squares: Vec<_> = (0..300).map(|x| x * x).collect();
    assert_eq!(pool.map(square, 0..300), Ok(squares.clone()));
    assert_eq!(pool.imap(square, 0..300).collect::<Result<Vec<_>, _>>(), Ok(squares.clone()));
    let mut unordered: Vec<_> = pool.imap_unordered(square, 0..300).map(Result::unwrap).collect();
    unordered.sort_unstable();
    assert_eq!(unordered, squares);
    let mut given_up = pool.imap(square, 0..);
    assert_eq!((given_up.next(), given_up.next()), (Some(Ok(0)), Some(Ok(1))));
    drop(given_up);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(pool.map(square, 0..300).as_ref(), Ok(&squares)));
        }
    });
}

/// Many items may travel as one call, which becomes two when its worker dies in the middle.
fn a_map_that_loses_a_worker_makes_no_room_for_others(method: StartMethod) {
    let pool = pool(method, 3, 4);
    let scratch = Scratch::new();
    let gate = scratch.file("gate");
    let submit = |item| pool.try_submit(pass, (gate.as_str(), item));
    let mut held: Vec<_> = (0..2).map(|item| submit(item).expect("there is room")).collect();
    for _ in 0..rounds(2) {
        assert_eq!(pool.map(square, 0..100), Ok((0..100).map(|x| x * x).collect()));
        assert!(pool.map(die_at, (0..30_000).map(|item| (item, 15_000))).is_err());
    }
    // Items that are not wanted any more may still be on the way.
    assert_eq!((pool.call(square, 3), pool.call(square, 4)), (Ok(9), Ok(16)));
    eventually("there is room for two", PATIENCE, || {
        held.extend(submit(9));
        held.len() >= 4
    });
    assert!(matches!(submit(9), Err(TrySubmitError::Full(_))));
    open_gate(&scratch);
    assert!(held.into_iter().all(|handle| handle.join().is_ok()));
}

fn arguments_that_cannot_be_encoded_take_no_place(method: StartMethod) {
    let pool = pool(method, 1, 1);
    for _ in 0..3 {
        assert!(pool.call(swallow, Stubborn { panics: false }).is_err());
        let handle = pool.try_submit(swallow, Stubborn { panics: false }).expect("there is room");
        assert!(matches!(handle.join().expect_err("it cannot be written").kind(), ErrorKind::CannotEncode { .. }));
        catch_unwind(AssertUnwindSafe(|| pool.submit(swallow, Stubborn { panics: true }))).expect_err("its panic");
        catch_unwind(AssertUnwindSafe(|| pool.try_submit(swallow, Stubborn { panics: true }).map(drop).is_ok()))
            .expect_err("its panic");
    }
    assert_eq!(pool.try_submit(square, 7).expect("there is room").join(), Ok(49));
}

fn a_dead_worker_makes_room(method: StartMethod) {
    let pool = pool(method, 1, 1);
    let scratch = Scratch::new();
    let lost = pool.submit(pass, (scratch.file("gate").as_str(), 1));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.call(square, 3));
        eventually("a worker is there", PATIENCE, || active_children().len() == 1);
        let pid = active_children()[0].pid();
        // It may not have begun, and then goes on in the next worker, which finds the gate open.
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("a worker that can be killed");
        eventually("the worker is gone", PATIENCE, || !support::processes::alive(pid));
        open_gate(&scratch);
        assert_eq!(waiting.join().expect("a thread"), Ok(9));
    });
    assert!(lost.join().map_err(|error| matches!(error.kind(), ErrorKind::Killed { .. })) != Err(false));
}

fn close_wakes_submitters_blocked_for_room(method: StartMethod) {
    for another_leads in [false, true] {
        let pool = pool(method, 1, 1);
        let scratch = Scratch::new();
        let first = pool.submit(pass, (scratch.file("gate").as_str(), 1));
        thread::scope(|scope| {
            // The pauses only make it likely that the threads wait in this order, which is the one that may go wrong.
            let pause = || thread::sleep(Duration::from_millis(20));
            let leader = another_leads.then(|| scope.spawn(|| first.wait_timeout(Duration::MAX).is_ok()));
            pause();
            let waiting: Vec<_> = (0..5).map(|_| scope.spawn(|| pool.call(square, 3))).collect();
            pause();
            pool.close();
            for thread in waiting {
                assert!(is_closed(&thread.join().expect("a thread").expect_err("it is closed")));
            }
            assert!(!first.is_finished());
            open_gate(&scratch);
            assert!(leader.is_none_or(|leader| leader.join().expect("a thread")));
        });
        assert_eq!(first.join(), Ok(1));
    }
}

fn kill_wakes_submitters_blocked_for_room(method: StartMethod) {
    let pool = pool(method, 1, 2);
    let scratch = Scratch::new();
    let handles = [1, 2].map(|item| pool.submit(pass, (scratch.file("gate").as_str(), item)));
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..5).map(|_| scope.spawn(|| pool.call(square, 3))).collect();
        pool.kill();
        for thread in waiting {
            let error = thread.join().expect("a thread").expect_err("it has ended");
            assert!(is_closed(&error) || *error.kind() == ErrorKind::Cancelled, "{error}");
        }
    });
    assert!(handles.into_iter().all(|handle| handle.join().is_err()));
}

fn callbacks_find_room(method: StartMethod) {
    let pool = Arc::new(pool(method, 1, 1));
    let (sender, receiver) = channel();
    let squares = Arc::new(Mutex::new(Vec::new()));
    for x in 0..20 {
        let (inner, sender, squares) = (Arc::downgrade(&pool), sender.clone(), Arc::clone(&squares));
        pool.submit(square, x).on_done(move |result| {
            let again = inner.upgrade().map(|pool| pool.call(square, result.expect("a square")));
            squares.lock().expect("no panic").push(again);
            sender.send(()).expect("the test listens");
        });
    }
    (0..20).for_each(|_| receiver.recv_timeout(PATIENCE).expect("a callback that is called"));
    let mut squares: Vec<_> = squares.lock().expect("no panic").iter().flatten().flatten().copied().collect();
    squares.sort_unstable();
    assert_eq!(squares, (0..20i64).map(|x| x.pow(4)).collect::<Vec<_>>());
}

fn finished_call_without_a_waiter_makes_room(method: StartMethod) {
    let pool = pool(method, 2, 2);
    let scratch = Scratch::new();
    // Each but the first two waits for one that was let go.
    (0..100).for_each(|item| drop(pool.submit(mark, (directory(&scratch), item))));
    drop(pool);
    assert_eq!(std::fs::read_dir(scratch.path()).expect("the directory").count(), 100);
}
