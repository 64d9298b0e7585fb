//! What a joinable queue promises: what is lent comes back unless its holder says that it is done, and a
//! thread that waits for all of it hears of the last.
//!
//! Runs in: the test process; its tasks in children. Never: relies on how fast anything is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::fork_copy;
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until, until_killed};
use crate::support::{PATIENCE, eventually, promise};
use process_task::channel::{Item, JoinableQueue, QueueLimits, RecvError, RecvTimeoutError, TryRecvError};
use process_task::{Error, ErrorKind, Pool, Process, ProcessBuilder, Shared, StartMethod, Task, process_task};
use serde::{Deserialize, Deserializer, Serialize, de};

under_every_start_method! {
    every_job_is_done,
    what_a_killed_process_had_comes_back_first,
    what_a_process_had_that_ended_in_any_way_comes_back,
    a_process_that_lives_keeps_what_it_has,
    try_recv_gets_what_a_dead_copy_had,
    join_hears_of_the_last_item_done_elsewhere,
    closed_queue_ends_when_no_item_can_come_back,
    a_process_that_waits_on_a_closed_queue_gets_what_comes_back,
    a_thousand_that_one_process_had_come_back,
}

fn start<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> Process<T::Output> {
    ProcessBuilder::new().start_method(method).spawn(task, args).unwrap()
}

const A_WHILE: Duration = Duration::from_millis(80);

fn finish<T>(mut item: Item<'_, T>) -> T
where
    T: Clone,
{
    item.done();
    item.clone()
}

#[test]
fn an_item_counts_until_it_is_dropped_after_it_was_done() {
    promise(|| {
        let queue = JoinableQueue::unbounded().unwrap();
        assert!(queue.wait_all_done_timeout(Duration::ZERO).is_ok(), "nothing was ever put");
        queue.wait_all_done();
        (1..=3).for_each(|number| queue.send(number).unwrap());
        assert_eq!((queue.len(), queue.unfinished()), (3, 3));

        let first = queue.recv().unwrap();
        let mut second = queue.try_recv().unwrap();
        assert_eq!((*first, *second, queue.len(), queue.unfinished()), (1, 2, 1, 3));
        second.done();
        assert_eq!(queue.unfinished(), 3, "it is not dropped yet");
        drop(second);
        assert_eq!((queue.len(), queue.unfinished()), (1, 2));
        // What comes back comes first, and as it was put.
        let mut first = first;
        *first += 100;
        drop(first);
        let since = Instant::now();
        assert!(queue.wait_all_done_timeout(A_WHILE).is_err());
        assert!(since.elapsed() >= A_WHILE);
        let first = queue.recv_timeout(Duration::ZERO).unwrap();
        assert_eq!(*first, 1);
        queue.task_done(first);
        assert_eq!(finish(queue.recv().unwrap()), 3);
        assert_eq!((queue.len(), queue.unfinished()), (0, 0));
        assert!(
            queue.wait_all_done_timeout(Duration::ZERO).is_ok() && queue.wait_all_done_timeout(Duration::MAX).is_ok()
        );
        assert_eq!(queue.try_recv().map(|_| ()), Err(TryRecvError::Empty));
    });
}

#[test]
fn a_forgotten_item_and_one_in_a_panic_are_not_done() {
    promise(|| {
        let queue = JoinableQueue::unbounded().unwrap();
        (1..=2).for_each(|number| queue.send(number).unwrap());
        let panics = AssertUnwindSafe(|| {
            let _item = queue.recv().unwrap();
            panic!("in the middle of it");
        });
        assert!(catch_unwind(panics).is_err());
        assert_eq!(finish(queue.recv().unwrap()), 1);
        let forgotten = std::mem::ManuallyDrop::new(queue.recv().unwrap());
        assert_eq!((queue.try_recv().map(|_| ()), queue.unfinished()), (Err(TryRecvError::Empty), 1));
        assert_eq!(finish(std::mem::ManuallyDrop::into_inner(forgotten)), 2);
        queue.wait_all_done();
    });
}

/// Cannot be decoded if it is 1, and panics if it is 2 and it has been read before.
#[derive(Serialize, Clone, PartialEq, Debug)]
struct Fragile(u8);

static BROKE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            1 => Err(de::Error::custom("it does not like to come out")),
            2 if !BROKE.swap(true, std::sync::atomic::Ordering::SeqCst) => panic!("it breaks"),
            number => Ok(Self(number)),
        }
    }
}

#[test]
fn undecodable_item_is_done_and_panicking_one_comes_back() {
    promise(|| {
        let queue = JoinableQueue::unbounded().unwrap();
        // The first of a type is read where it is put, too.
        queue.send(Fragile(0)).unwrap();
        assert_eq!(finish(queue.recv().unwrap()), Fragile(0));
        (1..=3).for_each(|number| queue.send(Fragile(number)).unwrap());
        assert!(
            matches!(queue.recv(), Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { reason, .. } if reason.contains("come out")))
        );
        assert_eq!(queue.unfinished(), 2);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(queue.recv()))).is_err());
        assert_eq!(queue.unfinished(), 2);
        assert_eq!(finish(queue.recv().unwrap()), Fragile(2));
        assert_eq!(finish(queue.recv().unwrap()), Fragile(3));
        queue.wait_all_done();
    });
}

#[test]
fn limits_count_what_waits_and_not_what_is_lent() {
    promise(|| {
        let queue = JoinableQueue::bounded(2).unwrap();
        (1..=2).for_each(|number| queue.send(number).unwrap());
        assert!(queue.try_send(3).unwrap_err().is_full());
        let lent = queue.recv().unwrap();
        queue.try_send(3).unwrap();
        assert!(queue.try_send(4).unwrap_err().is_full());
        drop(lent);
        assert_eq!((queue.unfinished(), queue.len()), (3, 2));
        assert_eq!([(); 3].map(|()| finish(queue.recv().unwrap())), [1, 2, 3]);

        let queue = JoinableQueue::with_limits(QueueLimits { items: 100, bytes: 1100 }).unwrap();
        assert_eq!((0..100).take_while(|_| queue.try_send(vec![1u8; 300]).is_ok()).count(), 3);
        let lent: Vec<_> = (0..3).map(|_| queue.recv().unwrap()).collect();
        assert_eq!((0..100).take_while(|_| queue.try_send(vec![2u8; 300]).is_ok()).count(), 3);
        drop(lent);
        assert!(JoinableQueue::<u8>::bounded(0).is_err());
    });
}

#[test]
fn handles_cannot_be_lent() {
    promise(|| {
        let queue = JoinableQueue::unbounded().unwrap();
        let region = Shared::new(5u32).unwrap();
        let error = queue.send(region.clone()).unwrap_err();
        assert!(
            matches!(error.failure().map(Error::kind), Some(ErrorKind::CannotEncode { .. }))
                && error.to_string().contains("JoinableQueue")
        );
        assert!(error.into_inner() == region && queue.unfinished() == 0);
    });
}

#[process_task]
fn work(jobs: JoinableQueue<u64>) -> u64 {
    let mut sum = 0;
    while let Ok(mut job) = jobs.recv() {
        sum += *job;
        job.done();
    }
    sum
}

fn every_job_is_done(method: StartMethod) {
    let jobs = JoinableQueue::bounded(10).unwrap();
    let workers: Vec<_> = (0..3).map(|_| start(method, work, jobs.clone())).collect();
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let in_a_pool = pool.submit(work, jobs.clone());
    (1..=5000).for_each(|job| jobs.send(job).unwrap());
    jobs.wait_all_done();
    assert_eq!(jobs.unfinished(), 0);
    jobs.close();
    let sum: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert_eq!(sum + in_a_pool.join().unwrap(), (1..=5000).sum());
}

/// Borrows so many, says so, and keeps them.
#[process_task]
fn keep(queue: JoinableQueue<u64>, count: usize, stage: &Stage) {
    let _items: Vec<_> = (0..count).map(|_| queue.recv().unwrap()).collect();
    reach(stage);
    until_killed();
}

fn what_a_killed_process_had_comes_back_first(method: StartMethod) {
    let mut times = vec![];
    while times.iter().all(|time| *time >= Duration::from_millis(100)) {
        assert!(times.len() < 20, "it takes too long: {times:?}");
        let (queue, stage) = (JoinableQueue::unbounded().unwrap(), new_stage());
        (1..=4).for_each(|number| queue.send(number).unwrap());
        let process = start(method, keep, (queue.clone(), 2, &stage));
        until(&stage, 1);
        assert_eq!([finish(queue.recv().unwrap()), finish(queue.recv().unwrap())], [3, 4]);
        assert_eq!(queue.try_recv().map(|_| ()), Err(TryRecvError::Empty));
        let waits = queue.clone();
        let waits =
            thread::spawn(move || (finish(waits.recv().unwrap()), finish(waits.recv().unwrap()), Instant::now()));
        process.kill().unwrap();
        let since = Instant::now();
        let (first, second, at) = waits.join().unwrap();
        assert_eq!((first, second), (1, 2));
        times.push(at.saturating_duration_since(since));
        queue.wait_all_done();
        process.join().unwrap_err();
    }
}

#[process_task]
#[expect(clippy::exit, reason = "that is what is tried")]
fn end_with_one(queue: JoinableQueue<u64>, how: u32) {
    let mut item = queue.recv().unwrap();
    // Said, but not dropped.
    item.done();
    match how {
        0 => std::process::exit(0),
        1 => std::process::abort(),
        2 => _ = std::mem::ManuallyDrop::new(item),
        _ => nix::sys::signal::raise(nix::sys::signal::SIGKILL).unwrap(),
    }
}

#[process_task]
fn panic_with_one(queue: JoinableQueue<u64>) {
    let _item = queue.recv().unwrap();
    panic!("in the middle of it");
}

fn what_a_process_had_that_ended_in_any_way_comes_back(method: StartMethod) {
    let queue = JoinableQueue::unbounded().unwrap();
    queue.send(7).unwrap();
    for how in 0..4 {
        assert_eq!(start(method, end_with_one, (queue.clone(), how)).join().is_ok(), how == 2);
        eventually("it has come back", PATIENCE, || queue.recv_timeout(A_WHILE).is_ok());
    }
    start(method, panic_with_one, queue.clone()).join().unwrap_err();
    assert_eq!(*queue.recv_timeout(PATIENCE).unwrap(), 7);
    // Also where the process lives on.
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    pool.call(panic_with_one, queue.clone()).unwrap_err();
    assert_eq!((queue.unfinished(), finish(queue.recv_timeout(PATIENCE).unwrap())), (1, 7));
    queue.wait_all_done();
}

fn a_process_that_lives_keeps_what_it_has(method: StartMethod) {
    let (queue, stage) = (JoinableQueue::unbounded().unwrap(), new_stage());
    queue.send(1).unwrap();
    let process = start(method, keep, (queue.clone(), 1, &stage));
    until(&stage, 1);
    let pid = nix::unistd::Pid::from_raw(process.pid().unwrap().cast_signed());
    for signal in [nix::sys::signal::SIGSTOP, nix::sys::signal::SIGCONT] {
        nix::sys::signal::kill(pid, signal).unwrap();
        assert_eq!(queue.recv_timeout(Duration::from_millis(200)).map(|_| ()), Err(RecvTimeoutError::Timeout));
        assert!(queue.wait_all_done_timeout(A_WHILE).is_err());
    }
    process.kill().unwrap();
    assert_eq!(finish(queue.recv().unwrap()), 1);
}

/// Only tries to borrow what a copy of this process had.
#[process_task]
fn try_after_a_copy(stage: &Stage) {
    let queue = JoinableQueue::unbounded().unwrap();
    queue.send(7).unwrap();
    let has_it = || {
        let _item = std::mem::ManuallyDrop::new(queue.recv().unwrap());
        reach(stage);
        until(stage, 2);
    };
    let lets_go = || {
        until(stage, 1);
        assert_eq!(queue.try_recv().map(|_| ()), Err(TryRecvError::Empty));
        reach(stage);
    };
    fork_copy::beside_a_copy(has_it, lets_go);
    eventually("it has come back", PATIENCE, || queue.try_recv().is_ok_and(|item| finish(item) == 7));
    queue.wait_all_done();
}

fn try_recv_gets_what_a_dead_copy_had(method: StartMethod) {
    start(method, try_after_a_copy, &new_stage()).join().unwrap();
}

#[process_task]
fn finish_at(queue: JoinableQueue<u64>, stage: &Stage) {
    let item = queue.recv().unwrap();
    reach(stage);
    until(stage, 2);
    queue.task_done(item);
}

fn join_hears_of_the_last_item_done_elsewhere(method: StartMethod) {
    let (queue, stage) = (JoinableQueue::unbounded().unwrap(), new_stage());
    queue.send(1).unwrap();
    let process = start(method, finish_at, (queue.clone(), &stage));
    until(&stage, 1);
    let joins: Vec<_> =
        (0..3).map(|_| queue.clone()).map(|queue| thread::spawn(move || queue.wait_all_done())).collect();
    assert!(queue.wait_all_done_timeout(A_WHILE).is_err());
    reach(&stage);
    for join in joins {
        join.join().unwrap();
    }
    assert_eq!(queue.unfinished(), 0);
    process.join().unwrap();
}

fn closed_queue_ends_when_no_item_can_come_back(method: StartMethod) {
    let (queue, stage) = (JoinableQueue::unbounded().unwrap(), new_stage());
    queue.send(1).unwrap();
    let process = start(method, finish_at, (queue.clone(), &stage));
    until(&stage, 1);
    queue.close();
    assert!(queue.send(2).unwrap_err().is_disconnected());
    assert_eq!(queue.recv_timeout(A_WHILE).map(|_| ()), Err(RecvTimeoutError::Timeout));
    let waits = queue.clone();
    let waits = thread::spawn(move || waits.recv().map(|_| ()));
    reach(&stage);
    assert_eq!(waits.join().unwrap(), Err(RecvError::Disconnected));
    assert_eq!(queue.try_recv().map(|_| ()), Err(TryRecvError::Disconnected));
    process.join().unwrap();
}

fn a_process_that_waits_on_a_closed_queue_gets_what_comes_back(method: StartMethod) {
    let (queue, stage) = (JoinableQueue::unbounded().unwrap(), new_stage());
    (1..=2).for_each(|number| queue.send(number).unwrap());
    let process = start(method, keep, (queue.clone(), 2, &stage));
    until(&stage, 1);
    queue.close();
    let worker = start(method, work, queue.clone());
    assert!(queue.wait_all_done_timeout(A_WHILE).is_err());
    process.kill().unwrap();
    queue.wait_all_done();
    assert_eq!(worker.join().unwrap(), 3);
}

fn a_thousand_that_one_process_had_come_back(method: StartMethod) {
    let (queue, stage) = (JoinableQueue::unbounded().unwrap(), new_stage());
    (0..3000).for_each(|number| queue.send(number).unwrap());
    let process = start(method, keep, (queue.clone(), 1000, &stage));
    until(&stage, 1);
    assert_eq!((queue.len(), queue.unfinished()), (2000, 3000));
    process.kill().unwrap();
    process.join().unwrap_err();
    let mut all: Vec<_> = (0..3000).map(|_| finish(queue.recv_timeout(PATIENCE).unwrap())).collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..3000));
    queue.wait_all_done();
}
