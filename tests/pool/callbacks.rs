//! What a pool promises to those that set callbacks: each is called once, may do anything, and does no harm.
//!
//! Runs in: the test process, callbacks on the pool's thread for them; its tasks run in workers.
//! Never: depends on how fast anything is.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually};
use nix::sys::signal::{Signal, raise};
use process_task::{
    Direction, Error, ErrorKind, JoinHandle, Pool, StartMethod, WaitFor, as_completed, process_task, wait,
};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

under_every_start_method! {
    callbacks_run_once_in_the_order_in_which_they_were_set,
    a_callback_gets_the_error_that_joining_gives,
    what_is_settled_is_called_back_at_once_on_this_thread,
    other_completions_call_back_without_a_waiter,
    a_callback_that_blocks_delays_only_callbacks,
    panicking_callback_leaves_the_pool_working,
    what_a_callback_holds_is_released,
    a_result_whose_code_panics_is_an_error_for_a_callback,
    a_callback_may_submit_and_wait,
    callbacks_submit_each_other_in_a_chain,
    every_fault_is_told_to_a_callback_that_submits_it,
    a_callback_may_close_the_pool,
    a_callback_may_terminate_the_pool,
    a_callback_may_drop_the_pool,
    callbacks_of_two_pools_may_drop_each_others,
    dropping_the_pool_waits_for_callbacks,
    threads_set_callbacks_while_others_wait,
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
fn fail() {
    panic!("as told")
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

/// A value that fails, or panics, where it is told to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Encoding,
    Decoding,
    PanicDecoding,
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if *self == Self::Encoding {
            return Err(S::Error::custom("cannot be written"));
        }
        to.serialize_u8(*self as u8)
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u8::deserialize(from)? {
            2 => Err(D::Error::custom("cannot be read")),
            3 => panic!("must not be read"),
            _ => Ok(Self::None),
        }
    }
}

#[process_task]
fn swallow(_: Fault) {}

#[process_task]
fn give(fault: u8) -> Fault {
    match fault {
        1 => Fault::Encoding,
        2 => Fault::Decoding,
        3 => Fault::PanicDecoding,
        _ => Fault::None,
    }
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().expect("a pool")
}

/// What `receiver` gets, within a test's patience.
fn next<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).expect("a callback that is called")
}

/// A callback that sends the result on.
fn send<R: Send + 'static>(sender: &Sender<Result<R, Error>>) -> impl FnOnce(Result<R, Error>) + Send + 'static {
    let sender = sender.clone();
    move |result| sender.send(result).expect("the test listens")
}

fn callbacks_run_once_in_the_order_in_which_they_were_set(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let handle = pool.submit(pass, (scratch.file("gate").as_str(), 4));
    let (sender, receiver) = channel();
    for number in 0..5 {
        let sender = sender.clone();
        handle.on_done(move |result| sender.send((number, result)).expect("the test listens"));
    }
    drop(sender);
    assert!(receiver.try_recv().is_err());
    open_gate(&scratch);
    let called: Vec<_> = (0..5).map(|_| next(&receiver)).collect();
    assert_eq!(called, (0..5).map(|number| (number, Ok(4))).collect::<Vec<_>>());
    assert!(receiver.recv().is_err(), "all callbacks are gone");
    assert_eq!(handle.join(), Ok(4));
}

fn a_callback_gets_the_error_that_joining_gives(method: StartMethod) {
    let pool = pool(method, 2);
    let (sender, receiver) = channel();
    for handle in [pool.submit(fail, ()), pool.submit(signal_itself, 9), pool.submit(leave, 99)] {
        handle.on_done(send(&sender));
        let error = next(&receiver).expect_err("a fault");
        assert_eq!(Err(error), handle.join());
    }
    let undecodable = pool.submit(give, 2);
    let (sender, receiver) = channel();
    undecodable.on_done(send(&sender));
    assert_eq!(next(&receiver), undecodable.join());
}

fn what_is_settled_is_called_back_at_once_on_this_thread(method: StartMethod) {
    let pool = pool(method, 1);
    let (sender, receiver) = channel();
    let call_back = |handle: &JoinHandle<i64>| {
        let sender = sender.clone();
        handle.on_done(move |result| sender.send((thread::current().id(), result)).expect("the test listens"));
        let (on, result) = receiver.try_recv().expect("it is called already");
        assert_eq!(on, thread::current().id());
        result
    };
    let done = pool.submit(square, 3);
    assert!(done.wait_timeout(Duration::MAX).is_ok());
    assert_eq!((call_back(&done), call_back(&done)), (Ok(9), Ok(9)));
    pool.close();
    let refused = call_back(&pool.submit(square, 3)).expect_err("the pool is closed");
    assert!(matches!(refused.kind(), ErrorKind::Closed { .. }), "{refused}");
    drop(pool);
    assert_eq!(call_back(&done), Ok(9));
    done.on_done(|_| panic!("which does no harm here either"));
    assert_eq!(done.join(), Ok(9));
}

fn other_completions_call_back_without_a_waiter(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let (sender, receiver) = channel();
    for item in 0..20 {
        let sender = sender.clone();
        let handle = pool.submit(pass, (scratch.file("gate").as_str(), item));
        handle.on_done(move |result| {
            sender.send((thread::current().name().map(str::to_owned), result)).expect("the test listens");
        });
    }
    open_gate(&scratch);
    let mut items: Vec<_> = (0..20)
        .map(|_| {
            let (name, item) = next(&receiver);
            assert_eq!(name.as_deref(), Some("pool-callbacks"));
            item.expect("an item")
        })
        .collect();
    items.sort_unstable();
    assert_eq!(items, (0..20).collect::<Vec<_>>());
}

fn a_callback_that_blocks_delays_only_callbacks(method: StartMethod) {
    let pool = pool(method, 2);
    let (open, wait_here) = channel::<()>();
    let (sender, receiver) = channel();
    let first = pool.submit(square, 1);
    // If the call is settled by now, this thread would be the one to block.
    let scratch = Scratch::new();
    let slow = pool.submit(pass, (scratch.file("gate").as_str(), 1));
    slow.on_done(move |_| wait_here.recv_timeout(PATIENCE).expect("to be let go"));
    slow.on_done(send(&sender));
    open_gate(&scratch);
    assert_eq!((slow.join(), first.join()), (Ok(1), Ok(1)));
    // The reactor's thread is not the one that blocks: it replaces workers.
    for _ in 0..3 {
        assert!(pool.call(leave, 3).is_err());
        assert_eq!(pool.map(square, 0..20), Ok((0..20).map(|x| x * x).collect()));
    }
    assert!(receiver.try_recv().is_err());
    open.send(()).expect("the task waits");
    assert_eq!(next(&receiver), Ok(1));
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("a payload's own panic");
    }
}

fn panicking_callback_leaves_the_pool_working(method: StartMethod) {
    let pool = pool(method, 2);
    let scratch = Scratch::new();
    let (sender, receiver) = channel();
    let handle = pool.submit(pass, (scratch.file("gate").as_str(), 7));
    handle.on_done(|_| panic!("a callback's panic"));
    handle.on_done(send(&sender));
    handle.on_done(|_| std::panic::panic_any(PanicsWhenDropped));
    handle.on_done(send(&sender));
    open_gate(&scratch);
    assert_eq!((next(&receiver), next(&receiver)), (Ok(7), Ok(7)));
    assert_eq!(handle.join(), Ok(7));
    assert_eq!(pool.map(square, 0..50), Ok((0..50).map(|x| x * x).collect()));
}

fn what_a_callback_holds_is_released(method: StartMethod) {
    let pool = pool(method, 1);
    let scratch = Scratch::new();
    let held = Arc::new(());
    let first = pool.submit(pass, (scratch.file("gate").as_str(), 7));
    let handles: Vec<_> = (0..20).map(|x| pool.submit(square, x)).collect();
    for handle in &handles {
        let held = Arc::clone(&held);
        handle.on_done(move |_| drop(held));
    }
    let dies_with_panic = Arc::clone(&held);
    first.on_done(move |_| {
        assert!(Arc::strong_count(&dies_with_panic) == 0, "harmless");
    });
    assert!(handles[4].cancel());
    drop(pool.submit(square, 3));
    eventually("the callback of the cancelled call is gone", PATIENCE, || Arc::strong_count(&held) == 21);
    open_gate(&scratch);
    eventually("every callback is gone", PATIENCE, || Arc::strong_count(&held) == 1);
    assert_eq!(handles.into_iter().filter(JoinHandle::is_finished).count(), 20);
}

fn a_result_whose_code_panics_is_an_error_for_a_callback(method: StartMethod) {
    let pool = pool(method, 1);
    let (sender, receiver) = channel();
    pool.submit(give, 3).on_done(send(&sender));
    let error = next(&receiver).expect_err("it cannot be read");
    assert!(matches!(error.kind(), ErrorKind::CannotDecode { direction: Direction::Result, .. }), "{error}");
    assert_eq!(pool.call(give, 0), Ok(Fault::None));
}

fn a_callback_may_submit_and_wait(method: StartMethod) {
    let pool = Arc::new(pool(method, 2));
    let (sender, receiver) = channel();
    let inner = Arc::clone(&pool);
    let scratch = Scratch::new();
    let handle = pool.submit(pass, (scratch.file("gate").as_str(), 7));
    handle.on_done(move |_| {
        let pool = inner;
        let squares = || (0..10).map(|x| pool.submit(square, x));
        let waited = wait(squares(), WaitFor::All, None).done.len();
        let completed = as_completed(squares()).filter_map(|handle| handle.join().ok()).count();
        let mapped = pool.map(square, 0..10).map(|squares| squares.len());
        let lazy = pool.imap_unordered(square, 0..10).flatten().count();
        // Of a call that is settled, on this thread; of another, after this callback.
        let settled = pool.submit(square, 4);
        let _ = settled.wait_timeout(Duration::MAX).is_ok();
        settled.on_done(|_| panic!("harmless"));
        sender.send((pool.call(square, 5), waited, completed, mapped, lazy)).expect("the test listens");
    });
    open_gate(&scratch);
    assert_eq!(next(&receiver), (Ok(25), 10, 10, Ok(10), 10));
}

/// Submits the square of `left`, whose callback submits that of the number before.
fn chain(pool: &Arc<Pool>, left: i64, sum: i64, sender: Sender<i64>) {
    let inner = Arc::clone(pool);
    pool.submit(square, left).on_done(move |result| {
        let sum = sum + result.expect("a square");
        if left == 0 { sender.send(sum).expect("the test listens") } else { chain(&inner, left - 1, sum, sender) }
    });
}

fn callbacks_submit_each_other_in_a_chain(method: StartMethod) {
    let pool = Arc::new(pool(method, 2));
    let (sender, receiver) = channel();
    for _ in 0..4 {
        chain(&pool, 50, 0, sender.clone());
    }
    // The chain has pools of its own to hold on to.
    drop(pool);
    for _ in 0..4 {
        assert_eq!(next(&receiver), (0..=50).map(|x| x * x).sum::<i64>());
    }
}

fn every_fault_is_told_to_a_callback_that_submits_it(method: StartMethod) {
    let pool = Arc::new(pool(method, 2));
    let (sender, receiver) = channel();
    let inner = Arc::clone(&pool);
    let scratch = Scratch::new();
    pool.submit(pass, (scratch.file("gate").as_str(), 7)).on_done(move |_| {
        let pool = inner;
        let faults = [
            pool.call(swallow, Fault::Encoding),
            pool.call(swallow, Fault::Decoding),
            pool.call(swallow, Fault::PanicDecoding),
            pool.call(fail, ()),
            pool.call(leave, 0),
            pool.call(leave, 99),
            pool.call(signal_itself, Signal::SIGSEGV as i32),
            pool.call(give, 1).map(drop),
            pool.call(give, 2).map(drop),
        ];
        sender.send((faults, pool.call(square, 3))).expect("the test listens");
    });
    open_gate(&scratch);
    let (faults, after) = next(&receiver);
    assert_eq!(after, Ok(9));
    let kinds = faults.map(|fault| match fault.expect_err("a fault").kind() {
        ErrorKind::CannotEncode { direction, .. } => format!("cannot encode the {direction}"),
        ErrorKind::CannotDecode { direction, .. } => format!("cannot decode the {direction}"),
        ErrorKind::Panicked { message, .. } => message.clone(),
        ErrorKind::Exited { code, .. } => format!("exit {code}"),
        ErrorKind::Killed { signal, .. } => format!("signal {signal}"),
        other => format!("{other:?}"),
    });
    let expected = [
        "cannot encode the arguments",
        "cannot decode the arguments",
        "must not be read",
        "as told",
        "exit 0",
        "exit 99",
        "signal 11",
        "cannot encode the result",
        "cannot decode the result",
    ];
    assert_eq!(kinds, expected);
}

fn a_callback_may_close_the_pool(method: StartMethod) {
    let pool = Arc::new(pool(method, 1));
    let scratch = Scratch::new();
    let handles: Vec<_> = (0..5).map(|item| pool.submit(pass, (scratch.file("gate").as_str(), item))).collect();
    let inner = Arc::clone(&pool);
    let (sender, receiver) = channel();
    handles[0].on_done(move |_| {
        inner.close();
        sender.send(inner.call(square, 2)).expect("the test listens");
    });
    open_gate(&scratch);
    assert!(next(&receiver).is_err());
    let items: Vec<_> = handles.into_iter().map(JoinHandle::join).collect();
    assert_eq!(items, (0..5).map(Ok).collect::<Vec<_>>());
}

fn a_callback_may_terminate_the_pool(method: StartMethod) {
    let pool = Arc::new(pool(method, 2));
    let (first, shut) = (Scratch::new(), Scratch::new());
    let trigger = pool.submit(pass, (first.file("gate").as_str(), 0));
    let handles: Vec<_> = (0..20).map(|item| pool.submit(pass, (shut.file("gate").as_str(), item))).collect();
    let (sender, receiver) = channel();
    for handle in &handles {
        handle.on_done(send(&sender));
    }
    let inner = Arc::clone(&pool);
    trigger.on_done(move |_| inner.kill());
    open_gate(&first);
    for _ in 0..20 {
        let error = next(&receiver).expect_err("the gate is shut");
        assert!(matches!(error.kind(), ErrorKind::Killed { signal: 9, .. } | ErrorKind::Cancelled), "{error}");
    }
    assert_eq!(trigger.join(), Ok(0));
    assert!(pool.call(square, 1).is_err());
}

fn a_callback_may_drop_the_pool(method: StartMethod) {
    let pool = Arc::new(pool(method, 2));
    let scratch = Scratch::new();
    let handle = pool.submit(pass, (scratch.file("gate").as_str(), 0));
    let (sender, receiver) = channel();
    let (own, inner) = (sender.clone(), Arc::clone(&pool));
    handle.on_done(move |result| {
        drop(inner);
        own.send(result).expect("the test listens");
    });
    handle.on_done(send(&sender));
    drop(pool);
    open_gate(&scratch);
    assert_eq!((next(&receiver), next(&receiver)), (Ok(0), Ok(0)));
}

fn callbacks_of_two_pools_may_drop_each_others(method: StartMethod) {
    let pools = [Arc::new(pool(method, 1)), Arc::new(pool(method, 1))];
    let scratch = Scratch::new();
    let both_run = Arc::new(std::sync::Barrier::new(2));
    let (sender, receiver) = channel();
    for (own, other) in [(0, 1), (1, 0)] {
        let handle = pools[own].submit(pass, (scratch.file("gate").as_str(), 0));
        let (other, both_run, own) = (Arc::clone(&pools[other]), Arc::clone(&both_run), sender.clone());
        handle.on_done(move |result| {
            both_run.wait();
            drop(other);
            own.send(result).expect("the test listens");
        });
        handle.on_done(send(&sender));
    }
    drop(pools);
    open_gate(&scratch);
    (0..4).for_each(|_| assert_eq!(next(&receiver), Ok(0)));
}

fn dropping_the_pool_waits_for_callbacks(method: StartMethod) {
    let called = Arc::new(AtomicUsize::new(0));
    let pool = pool(method, 2);
    for x in 0..50 {
        let called = Arc::clone(&called);
        pool.submit(square, x).on_done(move |_| {
            thread::yield_now();
            called.fetch_add(1, SeqCst);
        });
    }
    drop(pool);
    assert_eq!(called.load(SeqCst), 50);
}

fn threads_set_callbacks_while_others_wait(method: StartMethod) {
    let scratch = Scratch::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let pool = pool(method, 3);
    thread::scope(|scope| {
        for thread in 0..4u32 {
            let (pool, seen, scratch) = (&pool, &seen, &scratch);
            scope.spawn(move || {
                let gate = format!("{}/gate", directory(scratch));
                for item in 0..100 {
                    let seen = Arc::clone(seen);
                    let handle = pool.submit(pass, (gate.as_str(), thread * 100 + item));
                    handle.on_done(move |result| seen.lock().expect("no panic").push(result.expect("an item")));
                }
            });
        }
        scope.spawn(|| {
            open_gate(&scratch);
            (0..200).for_each(|x| assert_eq!(pool.call(square, x), Ok(x * x)));
        });
    });
    eventually("every callback is called", PATIENCE, || seen.lock().expect("no panic").len() >= 400);
    let mut seen = std::mem::take(&mut *seen.lock().expect("no panic"));
    seen.sort_unstable();
    assert_eq!(seen, (0..400).collect::<Vec<_>>());
}
