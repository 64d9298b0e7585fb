//! What a pool's builder promises about the surroundings of its workers: the first ones, and those that replace them.
//!
//! Runs in: the test process; the tasks in workers. Never: expects a certain worker to take a call.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_task::{ErrorKind, Execution, Pool, PoolBuilder, StartMethod, active_children, process_task};

under_every_start_method! {
    an_environment_is_that_asked_for,
    a_directory_is_that_asked_for,
    limits_are_those_asked_for,
    a_task_that_exceeds_a_limit_fails_alone,
    niceness_and_processors_are_those_asked_for,
    pinned_workers_have_one_processor_each,
    what_cannot_be_had_is_an_error_that_says_so,
    surroundings_of_one_pool_do_not_reach_the_next,
}

fn builder(method: StartMethod) -> PoolBuilder {
    Pool::builder().workers(2).start_method(method)
}

/// The process ids of all workers, by place.
fn workers(count: usize) -> Vec<u32> {
    let mut children = Vec::new();
    eventually("all workers are there", PATIENCE, || {
        children = active_children();
        children.len() == count
    });
    children.sort_by_key(|child| child.name().rsplit('-').next().unwrap().parse::<usize>().unwrap());
    children.iter().map(process_task::ProcessInfo::pid).collect()
}

/// Checks the first workers of `pool`, then kills them and checks those that replace them.
fn now_and_after_a_death(pool: &Pool, count: usize, check: impl Fn(&Pool, &[u32])) {
    let first = workers(count);
    check(pool, &first);
    for pid in &first {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    }
    eventually("others have replaced them", PATIENCE, || {
        let now = workers(count);
        !now.iter().any(|pid| first.contains(pid))
    });
    check(pool, &workers(count));
}

#[process_task]
fn environment() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().collect()
}

fn an_environment_is_that_asked_for(method: StartMethod) {
    let own = environment();
    let pool = builder(method).env("ADDED", "1").env("PATH", "/nowhere").env_remove("HOME").build().unwrap();
    let mut expected = own.clone();
    expected.insert("ADDED".into(), "1".into());
    expected.insert("PATH".into(), "/nowhere".into());
    expected.remove(&OsString::from("HOME"));
    now_and_after_a_death(&pool, 2, |pool, _| assert_eq!(pool.call(environment, ()).unwrap(), expected));
    drop(pool);
    let pool = builder(method).env("FORGOTTEN", "1").env_clear().env("KEPT", "2").build().unwrap();
    let expected = BTreeMap::from([("KEPT".into(), "2".into())]);
    now_and_after_a_death(&pool, 2, |pool, _| assert_eq!(pool.call(environment, ()).unwrap(), expected));
}

#[process_task]
fn directory() -> PathBuf {
    std::env::current_dir().unwrap()
}

fn a_directory_is_that_asked_for(method: StartMethod) {
    let scratch = Scratch::new();
    let path = fs::canonicalize(scratch.path()).unwrap();
    let pool = builder(method).current_dir(&path).build().unwrap();
    now_and_after_a_death(&pool, 2, |pool, pids| {
        assert_eq!(pool.call(directory, ()).unwrap(), path);
        eventually("all workers are in it", PATIENCE, || {
            pids.iter().all(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == path))
        });
    });
}

#[process_task]
fn own_limits() -> [(u64, u64); 3] {
    [Resource::RLIMIT_AS, Resource::RLIMIT_CPU, Resource::RLIMIT_NOFILE].map(|which| getrlimit(which).unwrap())
}

fn limits_are_those_asked_for(method: StartMethod) {
    let limited = builder(method).memory_limit(3 << 30).cpu_time_limit(Duration::from_millis(7_001));
    let pool = limited.open_files_limit(60).build().unwrap();
    now_and_after_a_death(&pool, 2, |pool, _| {
        assert_eq!(pool.call(own_limits, ()).unwrap().map(|(soft, _)| soft), [3 << 30, 8, 60]);
    });
    drop(pool);
    let pool = builder(method).cpu_time_limit(Duration::ZERO).build().unwrap();
    assert_eq!(pool.call(own_limits, ()).unwrap()[1], (1, 2), "seconds");
    drop(pool);
    let pool = builder(method).build().unwrap();
    assert_eq!(pool.call(own_limits, ()).unwrap(), own_limits());
}

#[process_task]
fn fill_memory(bytes: usize) -> u8 {
    let memory = black_box(vec![1_u8; bytes]);
    memory[bytes / 2]
}

#[process_task]
fn spin() {
    loop {
        black_box(());
    }
}

fn a_task_that_exceeds_a_limit_fails_alone(method: StartMethod) {
    let limited = builder(method).memory_limit(1 << 30).cpu_time_limit(Duration::from_secs(1));
    let pool = limited.build().unwrap();
    let few = pool.map(fill_memory, vec![1 << 20; 20]);
    let (much, long) = (pool.submit(fill_memory, 2 << 30), pool.submit(spin, ()));
    let many: Vec<_> = (0..50).map(|_| pool.submit(fill_memory, 1 << 20)).collect();
    assert_eq!(few.unwrap(), [1; 20]);
    let errors = [(much.join().unwrap_err(), nix::libc::SIGABRT), (long.join().unwrap_err(), nix::libc::SIGXCPU)];
    for (error, expected) in errors {
        assert!(matches!(error.kind(), ErrorKind::Killed { signal, .. } if *signal == expected), "{error}");
        assert_eq!(error.execution(), Execution::Unknown);
    }
    for one in many {
        assert_eq!(one.join().unwrap(), 1);
    }
}

fn status_of(pid: u32, key: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned())
}

fn processors_of(pid: u32) -> Option<String> {
    status_of(pid, "Cpus_allowed_list:")
}

fn niceness_of(pid: u32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok()
}

/// The numbers in a list such as `0-2,5`.
fn numbers(list: &str) -> Vec<usize> {
    let number = |text: &str| text.parse::<usize>().unwrap();
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        number(from)..=number(to)
    };
    list.split(',').flat_map(range).collect()
}

fn niceness_and_processors_are_those_asked_for(method: StartMethod) {
    let own = processors_of(std::process::id()).unwrap();
    let last = *numbers(&own).last().unwrap();
    let pool = builder(method).nice(7).cpus([last]).build().unwrap();
    now_and_after_a_death(&pool, 2, |_, pids| {
        eventually("all workers have them", PATIENCE, || {
            let as_asked = |pid| niceness_of(pid) == Some(7) && processors_of(pid) == Some(last.to_string());
            pids.iter().all(|pid| as_asked(*pid))
        });
    });
    assert_eq!(processors_of(std::process::id()).unwrap(), own);
}

fn pinned_workers_have_one_processor_each(method: StartMethod) {
    let own = numbers(&processors_of(std::process::id()).unwrap());
    let has = |pids: &[u32], processors: &[usize]| {
        eventually("each worker has its own", PATIENCE, || {
            let place = |(number, pid): (usize, &u32)| {
                processors_of(*pid) == Some(processors[number % processors.len()].to_string())
            };
            pids.iter().enumerate().all(place)
        });
    };
    let count = own.len() + 1;
    let pool = builder(method).workers(count).pin().build().unwrap();
    now_and_after_a_death(&pool, count, |_, pids| has(pids, &own));
    drop(pool);
    let chosen: Vec<usize> = own.iter().rev().copied().collect();
    let pool = builder(method).workers(count).cpus(chosen.clone()).pin().build().unwrap();
    now_and_after_a_death(&pool, count, |_, pids| has(pids, &chosen));
}

#[process_task]
fn nothing() {}

fn what_cannot_be_had_is_an_error_that_says_so(method: StartMethod) {
    let failure = |builder: PoolBuilder| builder.build().and_then(|pool| pool.call(nothing, ())).unwrap_err();
    let error = failure(builder(method).env("A=B", "C"));
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    assert!(error.to_string().contains("A=B"), "{error}");
    let error = failure(builder(method).current_dir("/no/such/place"));
    assert!(error.to_string().contains("open the working directory /no/such/place: No such file"), "{error}");
    for processors in [vec![], vec![1_000_000]] {
        for builder in [builder(method), builder(method).pin()] {
            let error = failure(builder.cpus(processors.clone()));
            assert!(error.to_string().contains("choose its processors"), "{error}");
            assert_eq!(error.execution(), Execution::NotStarted);
        }
    }
}

fn surroundings_of_one_pool_do_not_reach_the_next(method: StartMethod) {
    let (own, own_directory) = (environment(), directory());
    for _ in 0..3 {
        let odd = builder(method).env_clear().current_dir("/").nice(9).memory_limit(1 << 32).open_files_limit(64);
        let (odd, plain) = (odd.pin().build().unwrap(), builder(method).build().unwrap());
        assert_eq!(odd.call(directory, ()).unwrap(), Path::new("/"));
        assert!(odd.call(environment, ()).unwrap().is_empty());
        assert_eq!(plain.call(environment, ()).unwrap(), own);
        assert_eq!(plain.call(directory, ()).unwrap(), own_directory);
        assert_eq!(plain.call(own_limits, ()).unwrap(), own_limits());
    }
}
