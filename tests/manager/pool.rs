//! A pool in a manager: calls of many processes, their errors, and what deaths cost.
//!
//! Runs in: the test process, the processes that it starts, managers, and the workers of their pools.

use std::collections::HashSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};

use crate::objects::{manager, until_objects};
use crate::support::executor::block_on;
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until, until_killed};
use crate::support::{PATIENCE, eventually, processes};
use process_task::managed::Pool;
use process_task::{
    ErrorKind, Execution, ProcessBuilder, Shared, StartMethod, WorkerState, process_object, process_task,
};

under_every_start_method! {
    within 120 seconds;
    pool_runs_calls_of_many_processes,
    pool_maps_in_order_and_reads_as_it_goes,
    values_with_descriptors_pass_through_a_pool,
    pool_call_fails_as_in_a_pool_of_ones_own,
    killed_worker_costs_its_call_alone,
    pool_call_that_is_late_or_cancelled_is_not_begun,
    calls_of_a_killed_client_are_abandoned,
    pool_calls_hold_no_thread_of_the_manager,
    pool_ends_with_its_manager,
    pool_ends_with_its_last_proxy,
    pool_is_used_by_objects_of_its_manager,
    map_that_fails_makes_no_later_calls,
    pool_that_was_closed_or_killed_says_so,
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn own_pid() -> u32 {
    std::process::id()
}

#[process_task]
fn use_pool(pool: Pool, from: i64) -> (i64, HashSet<u32>) {
    let pids = (0..20).map(|_| pool.submit(own_pid, ())).map(|call| call.join().unwrap()).collect();
    (pool.map(square, from..from + 100).unwrap().into_iter().sum(), pids)
}

fn pool_runs_calls_of_many_processes(method: StartMethod) {
    let manager = manager(method);
    let pool = Pool::new(&manager, 2).unwrap();
    assert_eq!((pool.workers().unwrap(), pool.call(square, 12).unwrap()), (2, 144));
    let start = |from| ProcessBuilder::new().start_method(method).spawn(use_pool, (pool.clone(), from)).unwrap();
    let users = [0, 100, 200].map(start);
    let mut pids = HashSet::new();
    for (user, from) in users.into_iter().zip([0, 100, 200]) {
        let (sum, its) = user.join().unwrap();
        assert_eq!(sum, (from..from + 100).map(|x| x * x).sum::<i64>());
        pids.extend(its);
    }
    assert!(!pids.is_empty() && pids.len() <= 2, "{pids:?}");
    assert!(!pids.contains(&manager.pid()) && !pids.contains(&std::process::id()));
    let stats = pool.stats().unwrap();
    let of_workers: HashSet<_> = stats.workers.iter().filter_map(|worker| worker.pid).collect();
    assert!(pids.is_subset(&of_workers), "{pids:?}, {stats}");
    assert_eq!((stats.settled, stats.in_flight, stats.queued), (1 + 3 * 120, 0, 0));
    assert!(stats.latency.count() > 0 && stats.latency.p50() <= stats.latency.max());
    let error = Pool::new(&manager, 0).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
}

fn pool_maps_in_order_and_reads_as_it_goes(method: StartMethod) {
    let manager = manager(method);
    let pool = Pool::new(&manager, 2).unwrap();
    let squares = pool.map(square, 0..3000).unwrap();
    assert!(squares.into_iter().eq((0..3000).map(|x| x * x)));
    assert_eq!(pool.map(square, []).unwrap(), [0; 0]);
    let long: Vec<_> = (0..20).map(|at| vec![at; 200_000]).collect();
    let lengths = pool.map(length, long.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(lengths, [200_000; 20]);
}

#[process_task]
fn length(bytes: &[u8]) -> usize {
    bytes.len()
}

#[process_task]
fn reach_and_return(stage: Stage) -> Stage {
    reach(&stage);
    stage
}

fn values_with_descriptors_pass_through_a_pool(method: StartMethod) {
    let manager = manager(method);
    let pool = Pool::new(&manager, 2).unwrap();
    let stages = [(); 5].map(|()| new_stage());
    let back = pool.map(reach_and_return, stages.iter().cloned()).unwrap();
    for (stage, back) in stages.iter().zip(&back) {
        assert_eq!(stage.load(std::sync::atomic::Ordering::SeqCst), 1);
        reach(back);
        assert_eq!(stage.load(std::sync::atomic::Ordering::SeqCst), 2);
    }
    let text = Shared::new(7u64).unwrap();
    assert_eq!(pool.call(read, text).unwrap(), 7);
}

#[process_task]
fn read(number: Shared<u64>) -> u64 {
    *number
}

#[process_task]
fn fail(how: u32) -> u32 {
    match how {
        0 => panic!("on purpose: {how}"),
        1 => raise(Signal::SIGKILL).map_or(0, |()| 0),
        2 => until_killed(),
        other => other,
    }
}

fn pool_call_fails_as_in_a_pool_of_ones_own(method: StartMethod) {
    let manager = manager(method);
    let pool = Pool::new(&manager, 1).unwrap();
    let error = pool.call(fail, 0).unwrap_err();
    match error.kind() {
        ErrorKind::Panicked { message, location, .. } => {
            assert_eq!(message, "on purpose: 0");
            assert!(location.as_ref().unwrap().contains("pool.rs"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(error.execution(), Execution::Finished);
    assert!(error.task().unwrap().ends_with("::fail"), "{error}");
    let error = pool.call(fail, 1).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { signal: 9, .. }), "{error}");
    assert_eq!((error.execution(), error.process().unwrap().0), (Execution::Unknown, "worker-0"));
    let error = pool.call(fail.retries(2), 1).unwrap_err();
    assert_eq!(error.attempts().len(), 2);
    let limit = Duration::from_millis(50);
    let error = pool.call(fail.timeout(limit), 2).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut { limit: its, .. } if *its == limit), "{error}");
    assert_eq!(pool.call(fail, 3).unwrap(), 3);
}

fn killed_worker_costs_its_call_alone(method: StartMethod) {
    let manager = manager(method);
    let pool = Pool::new(&manager, 2).unwrap();
    let calls: Vec<_> = (0..200).map(|at| pool.submit(fail, if at % 20 == 7 { 1 } else { at + 100 })).collect();
    for (call, at) in calls.into_iter().zip(0..) {
        match call.join() {
            Ok(number) => assert_eq!(number, at + 100),
            Err(error) => {
                assert_eq!(at % 20, 7);
                assert!(matches!(error.kind(), ErrorKind::Killed { signal: 9, .. }), "{error}");
            }
        }
    }
}

#[process_task]
fn stay(stage: &Stage, gate: u32) -> u32 {
    reach(stage);
    until(stage, gate);
    gate
}

#[process_task]
fn count(runs: &Stage) {
    reach(runs);
}

fn pool_call_that_is_late_or_cancelled_is_not_begun(method: StartMethod) {
    let manager = manager(method);
    let pool = Pool::new(&manager, 1).unwrap();
    let (stage, runs) = (new_stage(), new_stage());
    let first = pool.submit(stay, (&stage, 2));
    until(&stage, 1);
    let since = Instant::now();
    let error = pool.with_timeout(Duration::from_millis(60)).call(count, &runs).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Elapsed);
    assert!(since.elapsed() < Duration::from_secs(20));
    pool.submit(count, &runs).cancel();
    let last = pool.submit(count, &runs);
    assert!(!last.is_finished());
    eventually("the calls that were given up are taken back", PATIENCE, || {
        let stats = pool.stats().unwrap();
        stats.queued + stats.in_flight == 2
    });
    reach(&stage);
    assert_eq!(first.join().unwrap(), 2);
    last.join().unwrap();
    assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), 1);
    let calls: Vec<_> = (0..20).map(|x| pool.submit(square, x)).collect();
    let squares: Vec<_> = block_on(async {
        let mut squares = Vec::new();
        for call in calls {
            squares.push(call.await.unwrap());
        }
        squares
    });
    assert!(squares.into_iter().eq((0..20).map(|x| x * x)));
}

#[process_task]
fn submit_and_wait(pool: Pool, stage: &Stage, runs: &Stage) {
    let _first = pool.submit(stay, (stage, 3));
    let _calls: Vec<_> = (0..50).map(|_| pool.submit(count, runs)).collect();
    until(stage, 1);
    reach(stage);
    until_killed();
}

fn calls_of_a_killed_client_are_abandoned(method: StartMethod) {
    let manager = manager(method);
    let pool = Pool::new(&manager, 1).unwrap();
    let (stage, runs) = (new_stage(), new_stage());
    let args = (pool.clone(), &stage, &runs);
    let client = ProcessBuilder::new().start_method(method).spawn(submit_and_wait, args).unwrap();
    until(&stage, 2);
    eventually("all calls have come to the pool", PATIENCE, || {
        let stats = pool.stats().unwrap();
        stats.queued + stats.in_flight == 51
    });
    client.kill().unwrap();
    drop(client.join());
    eventually("those that no worker has begun are taken back", PATIENCE, || {
        let stats = pool.stats().unwrap();
        stats.queued + stats.in_flight == 1
    });
    reach(&stage);
    // What the worker of the dead client's call does next is another's.
    assert_eq!(pool.call(square, 4).unwrap(), 16);
    assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), 0);
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

fn pool_calls_hold_no_thread_of_the_manager(method: StartMethod) {
    let manager = manager(method);
    let pool = Pool::new(&manager, 1).unwrap();
    let (stage, runs) = (new_stage(), new_stage());
    let first = pool.submit(stay, (&stage, 2));
    until(&stage, 1);
    let before = threads(manager.pid());
    let calls: Vec<_> = (0..2000).map(|_| pool.submit(count, &runs)).collect();
    eventually("all calls have come to the pool", PATIENCE, || {
        let stats = pool.stats().unwrap();
        stats.queued + stats.in_flight == 2001
    });
    // A thread that was made while one was kept from running ends within a second.
    eventually("the manager has no more threads", PATIENCE, || threads(manager.pid()) <= before + 3);
    reach(&stage);
    first.join().unwrap();
    for call in calls {
        call.join().unwrap();
    }
    assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), 2000);
}

fn workers_are_gone(pids: &[u32]) {
    eventually("the workers have ended", PATIENCE, || {
        let alive = processes::descendants();
        pids.iter().all(|pid| !alive.contains_key(pid) && !fs::exists(format!("/proc/{pid}")).unwrap_or(true))
    });
}

fn pids(pool: &Pool) -> Vec<u32> {
    pool.stats().unwrap().workers.iter().filter_map(|worker| worker.pid).collect()
}

fn pool_ends_with_its_manager(method: StartMethod) {
    let manager = manager(method);
    let pool = Pool::new(&manager, 2).unwrap();
    let stage = new_stage();
    let calls: Vec<_> = (0..10).map(|_| pool.submit(stay, (&stage, 99))).collect();
    until(&stage, 2);
    let workers = pids(&pool);
    assert_eq!(workers.len(), 2);
    manager.kill().unwrap();
    let since = Instant::now();
    for call in calls {
        let error = call.join().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error}");
    }
    let error = pool.map(square, 0..10).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error}");
    assert!(since.elapsed() < Duration::from_secs(10));
    workers_are_gone(&workers);
}

fn pool_ends_with_its_last_proxy(method: StartMethod) {
    let manager = manager(method);
    let (pool, runs) = (Pool::new(&manager, 2).unwrap(), new_stage());
    let workers = pids(&pool);
    for _ in 0..100 {
        drop(pool.submit(count, &runs));
    }
    drop(pool);
    until_objects(&manager, 0);
    workers_are_gone(&workers);
    assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), 100, "calls that were submitted are made");
}

/// Has a pool of its own manager make calls.
struct Summer {
    pool: Pool,
}

#[process_object]
impl Summer {
    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool }
    }

    pub(crate) fn sum_of_squares(&self, most: i64) -> i64 {
        self.pool.map(square, 0..most).unwrap().into_iter().sum::<i64>() + self.pool.call(square, most).unwrap()
    }
}

fn pool_is_used_by_objects_of_its_manager(method: StartMethod) {
    let manager = manager(method);
    let summer = SummerProxy::new(&manager, Pool::new(&manager, 2).unwrap()).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(summer.sum_of_squares(4).unwrap(), 30));
        }
    });
}

#[process_task]
fn fail_at_first(number: u32, runs: &Stage) {
    reach(runs);
    assert!(number > 0, "the first fails");
    thread::sleep(Duration::from_millis(20));
}

fn map_that_fails_makes_no_later_calls(method: StartMethod) {
    let manager = manager(method);
    let (pool, runs) = (Pool::new(&manager, 1).unwrap(), new_stage());
    let error = pool.map(fail_at_first, (0..2000).map(|number| (number, &runs))).unwrap_err();
    assert!(error.to_string().contains("the first fails"), "{error}");
    assert_eq!(pool.call(square, 2).unwrap(), 4);
    let made = runs.load(std::sync::atomic::Ordering::SeqCst);
    assert!(made < 300, "{made} calls were made");
    assert_eq!(pool.stats().unwrap().queued, 0);
}

fn pool_that_was_closed_or_killed_says_so(method: StartMethod) {
    let manager = manager(method);
    let (closed, killed) = (Pool::new(&manager, 1).unwrap(), Pool::new(&manager, 1).unwrap());
    let stage = new_stage();
    let call = closed.submit(stay, (&stage, 2));
    until(&stage, 1);
    closed.close().unwrap();
    let error = closed.call(square, 1).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed { .. }), "{error}");
    reach(&stage);
    assert_eq!(call.join().unwrap(), 2);
    let call = killed.submit(stay, (&stage, 99));
    until(&stage, 3);
    killed.kill().unwrap();
    assert!(call.join().is_err());
    assert!(killed.stats().unwrap().workers.iter().all(|worker| worker.state != WorkerState::Busy));
}
