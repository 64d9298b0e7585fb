//! Memory for long arguments and results is given back once it idles, by the pool and by its workers, and is counted meanwhile.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how fast memory is given back, but that it is.

use std::fs;

use crate::support::{PATIENCE, eventually};
use process_task::{Pool, StartMethod, active_children, process_task};

under_every_start_method! {
    within 120 seconds;
    what_is_too_long_to_keep_is_given_back_at_once,
    memory_that_is_used_again_and_again_stays,
    long_arguments_are_given_back_after_their_call,
    long_results_are_given_back_after_they_are_read,
    busy_workers_give_memory_back_too,
    result_that_is_read_late_is_given_back_then,
    calls_between_looks_find_their_memory,
}

#[process_task]
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().step_by(4096).map(|byte| u64::from(*byte)).sum()
}

#[process_task]
fn made(len: usize, byte: u8) -> Vec<u8> {
    vec![byte; len]
}

#[process_task]
fn small(x: u64) -> u64 {
    x + 1
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().expect("a pool")
}

/// The bytes of memory for long payloads that are mapped or open in the process, each file once for each of its maps.
fn held_by(pid: u32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let parcels = maps.lines().filter(|line| line.contains("process-task-parcel"));
    let size = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
    };
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = files.filter_map(|file| fs::read_link(file.path()).ok());
    let open = links.filter(|link| link.to_string_lossy().contains("process-task-parcel")).count() as u64;
    parcels.filter_map(size).sum::<u64>() + open
}

fn held() -> u64 {
    let children = active_children().into_iter().map(|child| child.pid());
    children.chain([std::process::id()]).map(held_by).sum()
}

#[track_caller]
fn is_given_back(pool: &Pool) {
    eventually("the pool counts nothing", PATIENCE, || pool.stats().shared_memory == 0);
    eventually("no process has anything mapped or open", PATIENCE, || held() == 0);
}

fn long_arguments_are_given_back_after_their_call(method: StartMethod) {
    // A pool for each length, so that they idle at the same time.
    let pools = [5_000, 100_000, 20 << 20].map(|len| {
        let pool = pool(method, 2);
        let long = vec![1; len];
        let expected = len.div_ceil(4096) as u64;
        // Several at a time, and so one after the other.
        let all: Vec<_> = (0..12).map(|_| pool.submit(sum, &long)).collect();
        assert!(pool.stats().shared_memory >= len as u64);
        assert!(all.into_iter().all(|call| call.join() == Ok(expected)));
        assert_eq!(pool.map(sum, [&long[..]; 5]), Ok(vec![expected; 5]));
        pool
    });
    for pool in pools {
        is_given_back(&pool);
        assert_eq!(pool.call(small, 1), Ok(2));
    }
}

fn long_results_are_given_back_after_they_are_read(method: StartMethod) {
    let pools = [5_000, 100_000, 20 << 20].map(|len| {
        let pool = pool(method, 2);
        let all: Vec<_> = (0..12).map(|byte| pool.submit(made, (len, byte))).collect();
        for (byte, call) in (0..).zip(all) {
            assert!(call.join() == Ok(vec![byte; len]), "{byte} of {len}");
        }
        assert!(pool.map(made, [(len, 7), (len, 9)]) == Ok(vec![vec![7; len], vec![9; len]]));
        pool
    });
    pools.iter().for_each(is_given_back);
}

/// More than is ever kept: no thread waits for it to idle.
fn what_is_too_long_to_keep_is_given_back_at_once(method: StartMethod) {
    let pool = pool(method, 1);
    let len = 257 << 20;
    assert_eq!(pool.call(sum, &vec![1; len]), Ok((len / 4096) as u64));
    let worker = active_children()[0].pid();
    assert_eq!((pool.stats().shared_memory, held_by(std::process::id())), (0, 0));
    eventually("the worker has let go", PATIENCE, || held_by(worker) == 0);
    let result = pool.call(made, (len, 3)).expect("a long result");
    assert!(result.len() == len && result[len - 1] == 3);
    drop(result);
    assert_eq!((pool.stats().shared_memory, held_by(std::process::id())), (0, 0));
    is_given_back(&pool);
}

fn busy_workers_give_memory_back_too(method: StartMethod) {
    let pool = pool(method, 1);
    let long = vec![1; 1 << 20];
    assert_eq!((pool.call(sum, &long), pool.call(made, (1 << 20, 5))), (Ok(256), Ok(vec![5; 1 << 20])));
    let mut rounds = 0;
    eventually("it is given back between short calls", PATIENCE, || {
        // Enough of them that the worker never sleeps for long.
        let calls = (0..200).map(|x| pool.submit(small, x)).collect::<Vec<_>>();
        rounds += 1;
        assert!((0..).zip(calls).all(|(x, call)| call.join() == Ok(x + 1)));
        pool.stats().shared_memory == 0 && held() == 0
    });
    assert_eq!(pool.call(sum, &long), Ok(256));
}

fn result_that_is_read_late_is_given_back_then(method: StartMethod) {
    let pool = pool(method, 1);
    let unread = pool.submit(made, (1 << 20, 5));
    assert!(unread.wait_timeout(PATIENCE).is_ok());
    assert!(pool.stats().shared_memory >= 1 << 20);
    // Long enough that both sides have looked, and found that it is in use.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(pool.stats().shared_memory >= 1 << 20 && held() >= 2 << 20);
    assert_eq!(pool.call(made, (1 << 20, 6)), Ok(vec![6; 1 << 20]));
    assert_eq!(unread.join(), Ok(vec![5; 1 << 20]));
    is_given_back(&pool);
}

fn memory_that_is_used_again_and_again_stays(method: StartMethod) {
    let pool = pool(method, 1);
    let long = vec![1; 1 << 20];
    let end = std::time::Instant::now() + std::time::Duration::from_millis(1500);
    let mut seen = std::collections::BTreeSet::new();
    while std::time::Instant::now() < end {
        assert_eq!(pool.call(sum, &long), Ok(256));
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let parcels = maps.lines().filter(|line| line.contains("process-task-parcel"));
        seen.extend(parcels.filter_map(|line| line.split_whitespace().nth(4).map(str::to_owned)));
    }
    // A machine that stands still for a second may have it given back once or twice.
    assert!(seen.len() <= 3, "{} files", seen.len());
}

/// Long calls at the moments when memory is just being given back: each gets what is its own.
fn calls_between_looks_find_their_memory(method: StartMethod) {
    // A pool for every three pauses, which all last as long.
    let pools = [[2005, 900, 1100], [1995, 995, 1495], [1900, 1005, 1505]].map(|pauses| (pool(method, 2), pauses));
    std::thread::scope(|scope| {
        for (pool, pauses) in &pools {
            scope.spawn(move || calls_between(pool, pauses));
        }
    });
    for (pool, _) in &pools {
        is_given_back(pool);
    }
}

fn calls_between(pool: &Pool, pauses: &[u64]) {
    for pause in pauses {
        for at in 0..4_u8 {
            let long = vec![at; 300_000];
            assert_eq!(pool.call(sum, &long), Ok(u64::from(at) * 74));
            assert_eq!(pool.call(made, (200_000, at)), Ok(vec![at; 200_000]));
        }
        std::thread::sleep(std::time::Duration::from_millis(*pause));
    }
}
