//! Ten thousand calls of a few processes that wait for one lock, one event, one queue: none holds a thread of the manager.
//!
//! Runs in: the test process, four clients, and a manager.

use std::fs;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use super::raw_event::{EventAnswer, RawEventProxy};
use super::raw_lock::{LockAnswer, RawLockProxy};
use super::raw_queue::{GetAnswer, PutAnswer, RawQueueProxy};
use super::stored::Stored;
use crate::link::StartMethod;
use crate::manager::{Manager, ManagerHandle};
use crate::process::{Process, ProcessBuilder};
use crate::process_task;
use crate::task::Task;

/// Number of clients, and of calls of each.
const CLIENTS: u64 = 4;
const CALLS: u64 = 2500;

/// Longer than that, and something hangs.
const PATIENCE: Duration = Duration::from_mins(2);

fn under_every_start_method(test: impl Fn(&Manager, StartMethod)) {
    for method in [StartMethod::ForkServer, StartMethod::Exec] {
        let manager = Manager::builder().start_method(method).start().unwrap();
        test(&manager, method);
        manager.shutdown().unwrap();
    }
}

fn start<T: Task>(method: StartMethod, task: T, args: impl Fn(u64) -> T::Args<'static>) -> Vec<Process<T::Output>> {
    (0..CLIENTS).map(|at| ProcessBuilder::new().start_method(method).spawn(task, args(at)).unwrap()).collect()
}

fn threads(manager: &ManagerHandle) -> usize {
    fs::read_dir(format!("/proc/{}/task", manager.pid())).unwrap().count()
}

/// The most threads of a manager that has nothing to do for a while: its main thread, the one that watches, the leader, and two
/// that stand by.
const THREADS: usize = 5;

/// Waits until so many calls were begun since `before`, and the manager has no more threads than without any.
fn until_they_wait(manager: &ManagerHandle, before: u64, calls: u64) {
    let end = Instant::now() + PATIENCE;
    loop {
        let (made, threads) = (manager.stats().unwrap().calls() - before, threads(manager));
        if made == calls && threads <= THREADS {
            return;
        }
        assert!(Instant::now() < end, "{made} of {calls} calls, {threads} threads");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Says that the future of a call is to be polled.
struct Ready {
    at: usize,
    ready: Sender<usize>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        let _ = self.ready.send(self.at);
    }
}

fn granted(answer: LockAnswer) -> u64 {
    let LockAnswer::Locked { poisoned: false, grant } = answer else { panic!("{answer:?}") };
    grant
}

/// Takes the lock once with each of its calls, in the order in which they are answered: calls may have begun to wait in
/// another order than they were made in.
#[process_task(crate = crate)]
fn lock_often(lock: RawLockProxy, of: u64) -> u64 {
    let (ready, woken) = mpsc::channel();
    let mut calls: Vec<_> = (of * CALLS..(of + 1) * CALLS).map(|owner| Some(lock.later().lock(owner))).collect();
    (0..calls.len()).for_each(|at| ready.send(at).unwrap());
    let mut got = 0;
    while got < CALLS {
        let at = woken.recv().unwrap();
        let Some(call) = &mut calls[at] else { continue };
        let waker = Arc::new(Ready { at, ready: ready.clone() }).into();
        let Poll::Ready(answer) = Pin::new(call).poll(&mut Context::from_waker(&waker)) else { continue };
        let grant = granted(answer.unwrap());
        calls[at] = None;
        assert_eq!(granted(lock.unlock(grant, false).unwrap()), grant);
        got += 1;
    }
    got
}

#[test]
fn ten_thousand_calls_wait_for_a_lock() {
    under_every_start_method(|manager, method| {
        let lock = RawLockProxy::new(manager, false).unwrap();
        let grant = granted(lock.try_lock(u64::MAX).unwrap());
        let before = manager.stats().unwrap().calls();
        let clients = start(method, lock_often.timeout(PATIENCE), |at| (lock.clone(), at));
        until_they_wait(manager, before, CLIENTS * CALLS);
        assert_eq!(granted(lock.unlock(grant, false).unwrap()), grant);
        let got: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!(got, CLIENTS * CALLS);
        assert!(!lock.is_locked().unwrap());
        // Each of them was two calls.
        assert_eq!(manager.stats().unwrap().calls() - before, 2 * got + 2);
    });
}

#[process_task(crate = crate)]
fn wait_often(event: RawEventProxy) -> usize {
    let calls: Vec<_> = (0..CALLS).map(|_| event.later().wait()).collect();
    calls.into_iter().map(|call| call.join().unwrap()).filter(|answer| *answer == EventAnswer::Set).count()
}

#[test]
fn ten_thousand_calls_wait_for_an_event() {
    under_every_start_method(|manager, method| {
        let event = RawEventProxy::new(manager).unwrap();
        let before = manager.stats().unwrap().calls();
        let clients = start(method, wait_often.timeout(PATIENCE), |_| event.clone());
        until_they_wait(manager, before, CLIENTS * CALLS);
        event.set().unwrap();
        let set: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!(set as u64, CLIENTS * CALLS);
    });
}

#[process_task(crate = crate)]
fn get_often(queue: RawQueueProxy) -> (u64, u64) {
    let calls: Vec<_> = (0..CALLS).map(|_| queue.later().get()).collect();
    let (mut count, mut sum) = (0, 0);
    for call in calls {
        let GetAnswer::Got { item, number } = call.join().unwrap() else { continue };
        assert!(queue.done(number).unwrap());
        (count, sum) = (count + 1, sum + item.value::<u64>().unwrap());
    }
    (count, sum)
}

#[test]
fn ten_thousand_calls_wait_for_items() {
    under_every_start_method(|manager, method| {
        let queue = RawQueueProxy::new(manager, usize::MAX).unwrap();
        let before = manager.stats().unwrap().calls();
        let clients = start(method, get_often.timeout(PATIENCE), |_| queue.clone());
        until_they_wait(manager, before, CLIENTS * CALLS);
        for number in 0..CLIENTS * CALLS {
            assert_eq!(queue.try_put(Stored::of(number).unwrap()).unwrap(), PutAnswer::Done);
        }
        let got = clients.into_iter().map(|client| client.join().unwrap());
        let (count, sum) = got.fold((0, 0), |(count, sum), (more, its)| (count + more, sum + its));
        let all = CLIENTS * CALLS;
        assert_eq!((count, sum), (all, all * (all - 1) / 2));
        assert_eq!((queue.len().unwrap(), queue.unfinished().unwrap()), (0, 0));
    });
}

#[test]
fn killed_clients_take_their_waiting_calls_along() {
    under_every_start_method(|manager, method| {
        let lock = RawLockProxy::new(manager, false).unwrap();
        let grant = granted(lock.try_lock(u64::MAX).unwrap());
        let before = manager.stats().unwrap().calls();
        let mut clients = start(method, lock_often.timeout(PATIENCE), |at| (lock.clone(), at));
        until_they_wait(manager, before, CLIENTS * CALLS);
        for killed in clients.drain(1..) {
            killed.kill().unwrap();
            drop(killed.join());
        }
        assert_eq!(granted(lock.unlock(grant, false).unwrap()), grant);
        assert_eq!(clients.pop().unwrap().join().unwrap(), CALLS);
        assert!(!lock.is_locked().unwrap());
    });
}
