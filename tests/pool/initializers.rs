//! What a pool promises about the options of its initializer's and its finalizer's task: each acts, or is refused.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how fast anything is.

use std::fs;
use std::time::Duration;

use crate::support::processes::alive;
use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually};
use process_task::{
    ErrorKind, Pool, PoolBuilder, ShutdownMode, StartMethod, WorkerState, active_children, process_task, worker_state,
};

under_every_start_method! {
    hanging_initializer_times_out_and_build_names_it,
    initializer_that_dies_is_tried_as_often_as_it_says,
    initializer_in_time_is_not_ended,
    hanging_initializer_of_a_later_worker_closes_the_pool,
    hanging_initializer_with_a_grace_ends_build,
    hanging_initializer_is_seen_in_stats,
    memory_limits_act_in_initializers_and_finalizers,
    retries_of_a_finalizer_are_refused,
    initializer_that_hangs_twice_is_tried_again,
}

const SHORT: Duration = Duration::from_millis(150);

#[process_task]
fn hang() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Hangs as long as there are fewer than `times` notes in the directory, of which it leaves one more.
#[process_task]
fn hang_at_first(directory: &str, times: usize) {
    let before = fs::read_dir(directory).expect("a directory").count();
    fs::write(format!("{directory}/{before}"), "").expect("a directory");
    if before < times {
        hang();
    }
}

/// Leaves one more note in the directory, and dies.
#[process_task]
fn note_and_die(directory: &str) {
    let before = fs::read_dir(directory).expect("a directory").count();
    fs::write(format!("{directory}/{before}"), "").expect("a directory");
    std::process::abort();
}

#[process_task]
fn hang_if_there(path: &str) {
    if std::path::Path::new(path).exists() {
        hang();
    }
}

#[process_task]
fn own_id() -> u32 {
    std::process::id()
}

#[process_task]
fn see_the_limit() {
    *worker_state::<bool>() = Vec::<u8>::new().try_reserve(4 << 30).is_err();
}

#[process_task]
fn was_limited() -> bool {
    *worker_state::<bool>()
}

#[process_task]
fn note_the_limit(path: &str) {
    let limited = Vec::<u8>::new().try_reserve(4 << 30).is_err();
    fs::write(path, limited.to_string()).expect("a file");
}

fn builder(method: StartMethod, workers: usize) -> PoolBuilder {
    Pool::builder().workers(workers).start_method(method)
}

fn notes(scratch: &Scratch) -> usize {
    fs::read_dir(scratch.path()).expect("a directory").count()
}

fn directory(scratch: &Scratch) -> &str {
    scratch.path().to_str().expect("a path in UTF-8")
}

fn hanging_initializer_times_out_and_build_names_it(method: StartMethod) {
    for builder in [builder(method, 2), builder(method, 2).idle_timeout(Duration::from_mins(1))] {
        let error = builder.initializer(hang.timeout(SHORT), ()).build().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("the initializer of its workers failed") && text.contains("::hang"), "{text}");
        assert!(text.contains("longer than the limit of 150ms"), "{text}");
        eventually("its workers have ended", PATIENCE, || active_children().is_empty());
    }
}

fn initializer_that_hangs_twice_is_tried_again(method: StartMethod) {
    let scratch = Scratch::new();
    let limit = Duration::from_secs(2);
    let task = hang_at_first.timeout(limit).retries(2);
    let pool = builder(method, 1).initializer(task, (directory(&scratch), 2)).build().unwrap();
    pool.call(own_id, ()).unwrap();
    assert_eq!(notes(&scratch), 3);
    assert!(pool.stats().start_failure.is_none());
    let scratch = Scratch::new();
    let task = hang_at_first.timeout(SHORT).retries(1);
    let error = builder(method, 1).initializer(task, (directory(&scratch), 9)).build().unwrap_err();
    assert!(error.to_string().contains("the last of 2 attempts"), "{error}");
    assert!(notes(&scratch) <= 2);
}

fn initializer_that_dies_is_tried_as_often_as_it_says(method: StartMethod) {
    for (retries, attempts) in [(1, 2), (6, 7), (0, 4)] {
        let scratch = Scratch::new();
        let task = note_and_die.retries(retries);
        let error = builder(method, 1).initializer(task, directory(&scratch)).build().unwrap_err();
        assert_eq!(notes(&scratch), attempts, "{error}");
        assert!(error.to_string().contains("::note_and_die") && error.to_string().contains("SIGABRT"), "{error}");
    }
}

fn initializer_in_time_is_not_ended(method: StartMethod) {
    let pool = builder(method, 2).initializer(see_the_limit.timeout(Duration::from_mins(1)), ()).build().unwrap();
    let worker = pool.call(own_id, ()).unwrap();
    // A limit that is over only later ends nothing.
    let pool_2 = builder(method, 1).initializer(see_the_limit.timeout(SHORT * 4), ()).build();
    std::thread::sleep(SHORT * 5);
    assert!(pool_2.is_err() || pool_2.unwrap().call(was_limited, ()).is_ok());
    assert!(alive(worker));
}

fn hanging_initializer_of_a_later_worker_closes_the_pool(method: StartMethod) {
    let scratch = Scratch::new();
    let task = hang_if_there.timeout(Duration::from_secs(1));
    let pool = builder(method, 1).initializer(task, &scratch.file("obstacle")).build().unwrap();
    let worker = pool.call(own_id, ()).unwrap();
    fs::write(scratch.file("obstacle"), "").unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker.cast_signed()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let mut error = None;
    eventually("the pool closes", PATIENCE, || {
        error = pool.call(own_id, ()).err();
        error.as_ref().is_some_and(|error| matches!(error.kind(), ErrorKind::Closed { .. }))
    });
    assert!(error.unwrap().to_string().contains("::hang_if_there"));
}

fn hanging_initializer_with_a_grace_ends_build(method: StartMethod) {
    let grace = Duration::from_hours(1);
    let error = builder(method, 1).termination_grace(grace).initializer(hang.timeout(SHORT), ()).build().unwrap_err();
    assert!(error.to_string().contains("::hang"), "{error}");
}

fn hanging_initializer_is_seen_in_stats(method: StartMethod) {
    let pool = builder(method, 1).initializer(hang, ()).lazy().build().unwrap();
    let waiting = pool.submit(own_id, ());
    eventually("it is at its initializer", PATIENCE, || pool.stats().workers[0].state == WorkerState::Initializing);
    assert!(pool.stats().workers[0].pid.is_some() && pool.stats().to_string().contains(" in init "));
    pool.kill();
    assert!(waiting.join().is_err());
}

fn memory_limits_act_in_initializers_and_finalizers(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.file("limited");
    let pool = builder(method, 1)
        .initializer(see_the_limit.memory_limit(2 << 30), ())
        .finalizer(note_the_limit.memory_limit(2 << 30), &path)
        .build()
        .unwrap();
    assert!(pool.call(was_limited, ()).unwrap(), "the initializer was not limited");
    pool.call(see_the_limit, ()).unwrap();
    assert!(!pool.call(was_limited, ()).unwrap(), "calls are limited too");
    pool.shutdown(ShutdownMode::Finish).unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "true", "the finalizer was not limited");
}

fn retries_of_a_finalizer_are_refused(method: StartMethod) {
    let error = builder(method, 1).finalizer(hang.retries(2), ()).build().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    assert!(error.to_string().contains("retries(0)") && error.task().unwrap().ends_with("::hang"), "{error}");
}
