//! What a pool promises about its workers' lives: how they begin, what they keep, when they are replaced, sent home, added
//! and taken away, and how a pool ends.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how fast anything is.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::eventually;
use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::scratch::Scratch;
use process_task::{
    ErrorKind, Execution, Pool, PoolBuilder, ShutdownMode, StartMethod, active_children, process_task, worker_state,
};

under_every_start_method! {
    initializer_runs_once_in_each_worker_before_its_calls,
    a_failing_initializer_is_what_build_reports,
    initializer_that_dies_again_and_again_fails_the_build,
    an_initializer_that_fails_later_closes_the_pool,
    arguments_that_cannot_be_encoded_are_what_build_reports,
    a_replaced_worker_is_initialized_too,
    a_finalizer_runs_in_each_worker_that_is_sent_home,
    each_worker_keeps_its_state_and_a_new_one_begins_anew,
    a_worker_makes_as_many_calls_as_it_may,
    a_standby_never_works_beside_the_one_that_it_stands_by_for,
    replacing_workers_loses_nothing,
    a_quota_of_none_is_refused,
    a_lazy_pool_starts_a_worker_when_there_is_work,
    a_lazy_pool_starts_as_many_as_there_is_work_for,
    idle_workers_go_and_come_back,
    a_pool_grows,
    a_pool_shrinks_and_finishes_what_runs,
    a_pool_is_resized_again_and_again_under_load,
    a_pool_of_none_is_refused,
    an_open_pool_cannot_be_joined,
    a_closed_pool_is_joined_as_often_as_one_likes,
    a_join_waits_no_longer_than_told,
    a_shutdown_finishes_or_cancels_what_is_pending,
    tasks_may_have_pools_but_not_for_ever,
}

#[process_task]
fn own_id() -> u32 {
    std::process::id()
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn prepare(value: u64) {
    *worker_state::<Vec<u64>>() = vec![value];
}

/// What the initializer left, how often this was asked, and by which process.
#[process_task]
fn prepared() -> (Vec<u64>, u32) {
    let mut state = worker_state::<Vec<u64>>();
    let before = state.clone();
    let calls = state.len() as u64;
    state.push(calls);
    (before, std::process::id())
}

#[process_task]
fn count_calls(gate: &str) -> (u32, u32) {
    if !gate.is_empty() {
        wait_for(gate);
    }
    let mut calls = worker_state::<u32>();
    *calls += 1;
    (std::process::id(), *calls)
}

#[process_task]
fn fail(why: &str) {
    panic!("{why}");
}

#[process_task]
fn fail_if_there(path: &str) {
    assert!(!std::path::Path::new(path).exists(), "it is there");
}

#[process_task]
#[expect(clippy::exit, reason = "that is what this task is for")]
fn leave(code: i32) {
    std::process::exit(code);
}

#[process_task]
fn note(directory: &str) {
    std::fs::write(format!("{directory}/{}", std::process::id()), "").expect("a directory to write to");
}

#[process_task]
fn pass(gate: &str) -> u32 {
    wait_for(gate);
    std::process::id()
}

struct Unwilling;

impl serde::Serialize for Unwilling {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}

impl<'de> serde::Deserialize<'de> for Unwilling {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

#[process_task]
fn take(_value: Unwilling) {}

/// Makes a pool in this worker, which makes one in its own, and so on; says how deep it came, or what was said then.
#[process_task]
fn nest(deeper: u32) -> Result<u32, String> {
    if deeper == 0 {
        return Ok(0);
    }
    let pool = Pool::builder().workers(1).build().map_err(|error| error.to_string())?;
    let below = pool.call(nest, deeper - 1).map_err(|error| error.to_string())??;
    Ok(below + 1)
}

fn builder(method: StartMethod, workers: usize) -> PoolBuilder {
    Pool::builder().workers(workers).start_method(method)
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn goes_on(pool: &Pool) {
    assert_eq!(pool.map(square, 0..50).unwrap(), (0..50).map(|x| x * x).collect::<Vec<_>>());
}

fn initializer_runs_once_in_each_worker_before_its_calls(method: StartMethod) {
    let pool = builder(method, 2).initializer(prepare, 77).build().unwrap();
    for _ in 0..20 {
        let (state, _) = pool.call(prepared, ()).unwrap();
        assert_eq!(state[0], 77);
        // It counts up, and is not reset.
        assert!(state[1..].iter().zip(1..).all(|(entry, place)| *entry == place), "{state:?}");
    }
}

fn a_failing_initializer_is_what_build_reports(method: StartMethod) {
    let error = builder(method, 2).initializer(fail, "no licence").build().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed { .. }), "{error:?}");
    assert!(error.to_string().contains("initializer"), "{error}");
    assert!(error.to_string().contains("no licence"), "{error}");
    assert!(active_children().is_empty());
}

fn initializer_that_dies_again_and_again_fails_the_build(method: StartMethod) {
    // Also where workers are not started anew before there is work for them.
    for builder in [builder(method, 1), builder(method, 1).idle_timeout(Duration::from_secs(20))] {
        let error = builder.initializer(leave, 7).build().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed { .. }), "{error:?}");
        assert!(error.to_string().contains("code 7"), "{error}");
    }
    assert!(active_children().is_empty());
}

fn an_initializer_that_fails_later_closes_the_pool(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = builder(method, 1).initializer(fail_if_there, &scratch.file("obstacle")).build().unwrap();
    let worker = pool.call(own_id, ()).unwrap();
    std::fs::write(scratch.file("obstacle"), "").unwrap();
    kill(worker);
    let mut error = None;
    eventually("the pool closes", Duration::from_secs(20), || {
        error = pool.call(own_id, ()).err();
        error.as_ref().is_some_and(|error| matches!(error.kind(), ErrorKind::Closed { .. }))
    });
    assert!(error.unwrap().to_string().contains("it is there"));
}

fn arguments_that_cannot_be_encoded_are_what_build_reports(method: StartMethod) {
    for builder in [builder(method, 1).initializer(take, Unwilling), builder(method, 1).finalizer(take, Unwilling)] {
        let error = builder.build().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::CannotEncode { .. }), "{error:?}");
        assert!(error.to_string().contains("not today"), "{error}");
    }
}

fn a_replaced_worker_is_initialized_too(method: StartMethod) {
    let pool = builder(method, 1).initializer(prepare, 5).build().unwrap();
    let (first, worker) = pool.call(prepared, ()).unwrap();
    assert_eq!(first, [5]);
    kill(worker);
    eventually("another worker answers", Duration::from_secs(20), || {
        // The call that is given to the dying one fails.
        pool.call(prepared, ()).is_ok_and(|(state, id)| {
            assert!(id == worker || state[0] == 5);
            id != worker
        })
    });
}

fn a_finalizer_runs_in_each_worker_that_is_sent_home(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = builder(method, 3).finalizer(note, directory(&scratch)).build().unwrap();
    goes_on(&pool);
    let workers: BTreeSet<u32> = active_children().iter().map(process_task::ProcessInfo::pid).collect();
    assert_eq!(workers.len(), 3);
    drop(pool);
    let noted = std::fs::read_dir(scratch.path()).unwrap();
    let noted: BTreeSet<u32> =
        noted.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    assert_eq!(noted, workers);
}

fn each_worker_keeps_its_state_and_a_new_one_begins_anew(method: StartMethod) {
    let pool = builder(method, 1).build().unwrap();
    let (worker, _) = pool.call(count_calls, "").unwrap();
    assert_eq!(pool.call(count_calls, "").unwrap(), (worker, 2));
    assert_eq!(pool.call(count_calls, "").unwrap(), (worker, 3));
    kill(worker);
    eventually("another worker answers", Duration::from_secs(20), || {
        pool.call(count_calls, "").is_ok_and(|(id, calls)| {
            assert!(id == worker || calls == 1);
            id != worker
        })
    });
    // Called as a function, it has a state of this thread's.
    assert_eq!(count_calls("").1, 1);
}

fn a_worker_makes_as_many_calls_as_it_may(method: StartMethod) {
    let pool = builder(method, 1).max_calls_per_worker(3).build().unwrap();
    let calls: Vec<_> = (0..12).map(|_| pool.call(count_calls, "").unwrap()).collect();
    for three in calls.chunks(3) {
        assert_eq!(three.iter().map(|(_, calls)| *calls).collect::<Vec<_>>(), [1, 2, 3], "{calls:?}");
        assert!(three.iter().all(|(id, _)| *id == three[0].0));
    }
    let workers: BTreeSet<u32> = calls.iter().map(|(id, _)| *id).collect();
    assert_eq!(workers.len(), 4);
    assert_eq!(pool.workers(), 1);
}

fn a_standby_never_works_beside_the_one_that_it_stands_by_for(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = builder(method, 1).max_calls_per_worker(2).build().unwrap();
    let last = [pool.submit(count_calls, ""), pool.submit(count_calls, &scratch.file("gate"))];
    let next = pool.submit(own_id, ());
    eventually("its standby is there", Duration::from_secs(20), || active_children().len() == 2);
    assert!(next.wait_timeout(Duration::from_millis(50)).is_err());
    open_gate(&scratch);
    let last = last.map(|call| call.join().unwrap().0);
    assert!(last[0] == last[1] && next.join().unwrap() != last[0]);
}

fn replacing_workers_loses_nothing(method: StartMethod) {
    let pool = builder(method, 2).max_calls_per_worker(7).build().unwrap();
    let calls: Vec<_> = (0..500).map(|x| pool.submit(square, x)).collect();
    assert!((0i64..).zip(calls).all(|(x, call)| call.join() == Ok(x * x)));
    assert_eq!(pool.map(square, 0..100).unwrap(), (0..100).map(|x| x * x).collect::<Vec<_>>());
}

fn a_quota_of_none_is_refused(method: StartMethod) {
    let error = builder(method, 1).max_calls_per_worker(0).build().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
}

fn a_lazy_pool_starts_a_worker_when_there_is_work(method: StartMethod) {
    let pool = builder(method, 4).lazy().build().unwrap();
    assert!(active_children().is_empty());
    let ids: BTreeSet<u32> = (0..5).map(|_| pool.call(own_id, ()).unwrap()).collect();
    assert_eq!((ids.len(), active_children().len()), (1, 1));
    drop(pool);
    drop(builder(method, 4).lazy().build().unwrap());
}

fn a_lazy_pool_starts_as_many_as_there_is_work_for(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = builder(method, 3).lazy().build().unwrap();
    let calls: Vec<_> = (0..6).map(|_| pool.submit(pass, &scratch.file("gate"))).collect();
    eventually("all workers are there", Duration::from_secs(20), || active_children().len() == 3);
    open_gate(&scratch);
    let ids: BTreeSet<u32> = calls.into_iter().map(|call| call.join().unwrap()).collect();
    assert_eq!(ids.len(), 3);
}

fn idle_workers_go_and_come_back(method: StartMethod) {
    let pool = builder(method, 2).idle_timeout(Duration::from_millis(30)).build().unwrap();
    for round in 0..3 {
        assert_eq!(pool.call(square, round).unwrap(), round * round);
        eventually("idle workers leave", Duration::from_secs(20), || active_children().is_empty());
    }
    goes_on(&pool);
}

fn a_pool_grows(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = builder(method, 1).build().unwrap();
    let calls: Vec<_> = (0..4).map(|_| pool.submit(pass, &scratch.file("gate"))).collect();
    pool.resize(3).unwrap();
    assert_eq!(pool.workers(), 3);
    eventually("the new workers are there", Duration::from_secs(20), || active_children().len() == 3);
    eventually("three calls run", Duration::from_secs(20), || {
        calls.iter().filter(|call| call.is_running()).count() == 3
    });
    open_gate(&scratch);
    let ids: BTreeSet<u32> = calls.into_iter().map(|call| call.join().unwrap()).collect();
    assert_eq!(ids.len(), 3);
}

fn a_pool_shrinks_and_finishes_what_runs(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = builder(method, 4).build().unwrap();
    let calls: Vec<_> = (0..8).map(|_| pool.submit(pass, &scratch.file("gate"))).collect();
    eventually("four calls run", Duration::from_secs(20), || {
        calls.iter().filter(|call| call.is_running()).count() == 4
    });
    pool.resize(1).unwrap();
    assert_eq!(pool.workers(), 1);
    assert_eq!(active_children().len(), 4);
    open_gate(&scratch);
    assert!(calls.into_iter().all(|call| call.join().is_ok()));
    eventually("three workers leave", Duration::from_secs(20), || active_children().len() == 1);
    goes_on(&pool);
}

fn a_pool_is_resized_again_and_again_under_load(method: StartMethod) {
    let pool = builder(method, 1).build().unwrap();
    let calls: Vec<_> = (0..300)
        .map(|x| {
            if x % 10 == 0 {
                pool.resize(1 + usize::try_from(x / 10 * 7 % 5).unwrap()).unwrap();
            }
            pool.submit(square, x)
        })
        .collect();
    assert!((0i64..).zip(calls).all(|(x, call)| call.join() == Ok(x * x)));
    pool.resize(2).unwrap();
    eventually("two workers are left", Duration::from_secs(20), || active_children().len() == 2);
}

fn a_pool_of_none_is_refused(method: StartMethod) {
    let pool = builder(method, 1).build().unwrap();
    assert!(matches!(pool.resize(0).unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
    assert_eq!(pool.workers(), 1);
    pool.close();
    assert!(matches!(pool.resize(2).unwrap_err().kind(), ErrorKind::Closed { .. }));
}

fn an_open_pool_cannot_be_joined(method: StartMethod) {
    let pool = builder(method, 1).build().unwrap();
    assert!(matches!(pool.wait_ended().unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
    goes_on(&pool);
}

fn a_closed_pool_is_joined_as_often_as_one_likes(method: StartMethod) {
    let pool = builder(method, 2).build().unwrap();
    let calls: Vec<_> = (0..40).map(|x| pool.submit(square, x)).collect();
    pool.close();
    std::thread::scope(|scope| {
        (0..3).for_each(|_| drop(scope.spawn(|| pool.wait_ended().unwrap())));
    });
    assert!(calls.iter().all(process_task::JoinHandle::is_finished));
    assert!(active_children().is_empty());
    pool.wait_ended().unwrap();
    pool.shutdown(ShutdownMode::Finish).unwrap();
    pool.kill();
}

fn a_join_waits_no_longer_than_told(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = builder(method, 1).build().unwrap();
    let call = pool.submit(pass, &scratch.file("gate"));
    pool.close();
    assert!(pool.wait_ended_timeout(Duration::from_millis(20)).is_err());
    open_gate(&scratch);
    assert!(pool.wait_ended_timeout(Duration::from_secs(20)).is_ok_and(|ended| ended.is_ok()));
    assert!(call.is_finished());
}

fn a_shutdown_finishes_or_cancels_what_is_pending(method: StartMethod) {
    for pending in [ShutdownMode::Finish, ShutdownMode::Cancel] {
        let scratch = Scratch::new();
        let pool = builder(method, 2).build().unwrap();
        let calls: Vec<_> = (0..50).map(|_| pool.submit(pass, &scratch.file("gate"))).collect();
        eventually("two calls run", Duration::from_secs(20), || {
            calls.iter().filter(|call| call.is_running()).count() == 2
        });
        std::thread::scope(|scope| {
            let end = scope.spawn(|| pool.shutdown(pending));
            if pending == ShutdownMode::Cancel {
                eventually("the others are cancelled", Duration::from_secs(20), || {
                    calls.iter().filter(|call| call.is_finished()).count() == 48
                });
            }
            open_gate(&scratch);
            end.join().unwrap().unwrap();
        });
        assert!(active_children().is_empty());
        let results: Vec<_> = calls.into_iter().map(process_task::JoinHandle::join).collect();
        let made = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(made, if pending == ShutdownMode::Finish { 50 } else { 2 });
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!((error.kind(), error.execution()), (&ErrorKind::Cancelled, Execution::NotStarted));
        }
    }
}

fn tasks_may_have_pools_but_not_for_ever(method: StartMethod) {
    let pool = builder(method, 1).build().unwrap();
    assert_eq!(pool.call(nest, 3).unwrap(), Ok(3));
    let error = pool.call(nest, 20).unwrap().unwrap_err();
    assert!(error.contains("10 deep"), "{error}");
}
