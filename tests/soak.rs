//! Everything at once for as long as is asked: calls of every kind, while workers and the fork server are killed.
//!
//! Runs in: the test process; its tasks run in workers. Never: signals a process that this test did not start.
//!
//! Four seconds, or as many as `PROCESS_TASK_SOAK_SECONDS` says, half of them under each start method. Each call that runs
//! leaves its number in a file, and each outcome is written down by the thread that waited for it, so that a call that was lost,
//! settled twice, run twice, or said to have run when it did not, is found.

mod support;

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_task::{ErrorKind, Execution, JoinHandle, Pool, StartMethod, active_children, process_task};
use support::soak_load::{self, Load, Random, Report};
use support::{eventually, processes};

under_every_start_method! {
    within 900 seconds;
    kills_lose_and_repeat_no_call,
    many_threads_submit_cancel_and_resize_while_workers_die,
    two_hundred_and_fifty_six_workers_die_at_once,
}

fn seconds() -> Duration {
    let seconds = std::env::var("PROCESS_TASK_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(4.0) / 2.0)
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).name("victim").start_method(method).build().expect("a pool")
}

fn workers() -> Vec<u32> {
    let living = active_children();
    // One that was only just asked for has no name yet.
    living.iter().filter(|child| child.name().starts_with("victim-")).map(process_task::ProcessInfo::pid).collect()
}

fn shoot(pid: u32) -> bool {
    // It may have ended by itself.
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).is_ok()
}

/// Kills a worker every few milliseconds until `end`, and says how many it hit. It waits while starts fail: a pool closes
/// when too many workers in a row die before their first call, as they would on a machine that has much else to do.
fn kill_workers(pool: &Pool, end: Instant) -> usize {
    let mut random = Random::new(1);
    let mut kills = 0;
    while Instant::now() < end {
        thread::sleep(Duration::from_micros(random.below(8000)));
        let living = workers();
        if living.len() > 1 && pool.stats().start_failure.is_none() {
            let victim = living[usize::try_from(random.below(living.len() as u64)).expect("an index")];
            kills += usize::from(shoot(victim));
        }
    }
    kills
}

/// Kills the fork server, with every worker, about once a second, but not so shortly before `end` that nothing follows.
fn kill_servers(end: Instant) -> usize {
    let mut kills = 0;
    let mut next = Instant::now() + Duration::from_millis(700);
    while next < end {
        thread::sleep(Duration::from_millis(20));
        if Instant::now() < next {
            continue;
        }
        let own = std::process::id();
        let server = processes::descendants()
            .into_iter()
            .find(|(_, entry)| entry.parent == own && entry.state != 'Z' && entry.name == "fork-server");
        if let Some((pid, _)) = server {
            kills += usize::from(shoot(pid));
            next = Instant::now() + Duration::from_millis(1100);
        }
    }
    kills
}

fn resize(pool: &Pool, end: Instant) {
    let mut random = Random::new(2);
    while Instant::now() < end {
        thread::sleep(Duration::from_millis(20 + random.below(60)));
        pool.resize(2 + usize::try_from(random.below(5)).expect("a size")).expect("the pool is open");
    }
    pool.resize(4).expect("the pool is open");
}

fn kills_lose_and_repeat_no_call(method: StartMethod) {
    let load = Load::new(pool(method, 4));
    let (kills, servers, settled) = thread::scope(|scope| {
        let threads = [
            scope.spawn(|| load.submit_and_join(1)),
            scope.spawn(|| load.submit_and_join(150)),
            scope.spawn(|| load.submit_and_await()),
            scope.spawn(|| load.submit_and_cancel()),
            scope.spawn(|| load.submit_with_deadlines()),
            scope.spawn(|| load.submit_with_retries()),
            scope.spawn(|| load.be_called_back()),
            scope.spawn(|| load.imap()),
            scope.spawn(|| load.map()),
        ];
        let end = Instant::now() + seconds();
        let servers = scope.spawn(move || kill_servers(end));
        let pool = &load.pool;
        scope.spawn(move || resize(pool, end));
        let kills = kill_workers(pool, end);
        load.over.store(true, Relaxed);
        let servers = servers.join().expect("a thread");
        let settled: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect();
        (kills, servers, settled)
    });
    // The pool as it is after all that, with none of its four places empty.
    let goes_on: Vec<_> = (0..200).map(|_| load.submit()).collect();
    let settled = settled.into_iter().chain(goes_on.into_iter().map(soak_load::One::join)).collect();
    eventually("the pool is full again", support::PATIENCE, || workers().len() == 4);
    let Report { calls, good, cancelled, late, killed, in_failed_maps } = load.check(settled);
    println!(
        "{method:?}: {calls} calls: {good} good, {cancelled} cancelled, {late} too late, {killed} lost to the death of \
         their workers, {in_failed_maps} in maps that failed for that; {kills} workers and {servers} fork servers killed; lost 0, double 0"
    );
    // A fork server takes all workers with it, of which there were six at the most, and those that it was about to start.
    assert!(killed <= kills + 12 * servers, "{killed} calls were lost to {kills} kills");
    assert!(good > 100 && kills > 10, "only {good} calls, {kills} kills");
}

fn many_threads_submit_cancel_and_resize_while_workers_die(method: StartMethod) {
    let load = Load::new(pool(method, 4));
    let (kills, settled) = thread::scope(|scope| {
        let load = &load;
        let threads: Vec<_> = (0..64).map(|seed| scope.spawn(move || load.at_random(3 + seed))).collect();
        let kills = kill_workers(&load.pool, Instant::now() + seconds() / 2);
        load.over.store(true, Relaxed);
        let settled: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect();
        (kills, settled)
    });
    load.pool.resize(4).expect("the pool is open");
    eventually("the pool is full again", support::PATIENCE, || workers().len() == 4);
    let Report { calls, good, cancelled, killed, .. } = load.check(settled);
    println!("{method:?}: {calls} calls: {good} good, {cancelled} cancelled, {killed} lost; {kills} workers killed");
    assert!(good > 64 && kills > 3, "only {good} calls, {kills} kills");
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn sleep() {
    thread::sleep(Duration::from_secs(100));
}

fn two_hundred_and_fifty_six_workers_die_at_once(method: StartMethod) {
    const CROWD: usize = 256;
    let pool = pool(method, CROWD);
    let asleep: Vec<_> = (0..CROWD).map(|_| pool.submit(sleep, ())).collect();
    eventually("all are at work", Duration::from_mins(1), || asleep.iter().all(JoinHandle::is_running));
    let behind: Vec<_> = (0..1000).map(|x| (x, pool.submit(square, x))).collect();
    let first = workers();
    assert_eq!(first.len(), CROWD);
    assert!(first.iter().all(|worker| shoot(*worker)));
    let mut died: Vec<u32> = asleep
        .into_iter()
        .map(|call| {
            let error = call.join().expect_err("its worker was killed");
            assert!(matches!(error.kind(), ErrorKind::Killed { signal: 9, .. }), "{error}");
            assert_eq!(error.execution(), Execution::Unknown);
            error.process().expect("the worker").1
        })
        .collect();
    died.sort_unstable();
    died.dedup();
    assert_eq!(died.len(), CROWD, "each death cost one call");
    for (x, call) in behind {
        assert_eq!(call.join(), Ok(x * x));
    }
    eventually("all are replaced", Duration::from_mins(1), || {
        let now = workers();
        now.len() == CROWD && !now.iter().any(|worker| first.contains(worker))
    });
    assert_eq!(pool.map(square, 0..1000), Ok((0..1000).map(|x| x * x).collect()));
}
