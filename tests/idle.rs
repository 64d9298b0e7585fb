//! A pool that has nothing to do uses no processor time: not in the parent, not in a worker, not in the fork server.
//!
//! Runs in: a test program of its own: beside other tests, which keep the processors busy, less would be seen.

mod support;

use std::time::Duration;

use process_task::{Pool, process_task};
use support::processes;

#[test]
fn an_idle_pool_uses_no_processor_time() {
    support::promise(|| {
        let pool = Pool::builder().workers(4).build().unwrap();
        assert_eq!(pool.map(square, 0..1000).unwrap()[999], 998_001);
        // Spares are made, and each thread that looks before it sleeps has done so.
        std::thread::sleep(Duration::from_millis(300));
        let family: Vec<u32> = processes::descendants().into_keys().chain([std::process::id()]).collect();
        let before: Vec<u64> = family.iter().map(|pid| used(*pid)).collect();
        std::thread::sleep(Duration::from_secs(2));
        for (pid, before) in family.iter().zip(before) {
            let used = used(*pid) - before;
            assert!(used < 2_000_000, "process {pid} has used {used} ns: {}", processes::table());
        }
        drop(pool);
    });
}

/// Nanoseconds of processor time, of all threads of a process.
fn used(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        stat.split_whitespace().next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0)
    };
    threads.filter_map(Result::ok).map(of).sum()
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}
