//! What handles of shared memory promise whatever becomes of the processes that have them: every call is settled once, the
//! memory is the same for all, and it is gone when the last handle is.
//!
//! Runs in: the test process; its tasks run in workers, and many of those are killed.
//! Never: counts on time. Which processes have the memory is read from the system's own lists.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::thread;
use std::time::Duration;

use crate::support::regions::{self, builder, inode, pool, signal, workers};
use crate::support::{PATIENCE, eventually, processes, rounds};
use nix::sys::signal::{Signal, raise};
use process_task::{
    Error, ErrorKind, Execution, JoinHandle, Pool, ProcessBuilder, Shared, SharedMut, SharedRanges, StartMethod,
    process_task, worker_state,
};

under_every_start_method! {
    within 240 seconds;
    workers_killed_at_any_moment_cost_their_call_and_no_memory,
    processes_killed_at_any_moment_leave_no_memory,
    a_call_that_is_made_again_has_its_handles_again,
    a_call_cancelled_before_it_starts_lets_go_of_its_handles,
    a_call_cancelled_while_it_runs_lets_go_of_its_handles,
    a_call_whose_time_is_over_lets_go_of_its_handles,
    fork_server_killed_under_calls_with_handles_costs_no_memory,
    a_killed_pool_lets_go_of_all_handles,
    a_handle_that_a_worker_keeps_lives_as_long_as_the_worker,
    a_handle_goes_through_pools_in_workers,
    a_worker_that_has_answered_has_let_go_of_what_changes,
    memory_is_frozen_right_after_the_calls_that_wrote_it,
    unread_result_holds_no_memory_for_ever,
}

/// What each call has done: whether it began, and whether it came to its end.
type Marks = Shared<[AtomicU32]>;

fn marks(count: usize) -> Marks {
    Shared::<[AtomicU32]>::zeroed(count).expect("a little memory")
}

#[process_task]
fn work(marks: Marks, at: usize) -> (usize, Marks) {
    marks[at].fetch_add(1, SeqCst);
    // So that some are killed here.
    (0..100).for_each(|_| std::hint::spin_loop());
    marks[at].fetch_add(1 << 16, SeqCst);
    (at, marks)
}

/// A moment that is another one in each round.
fn moment(round: usize) {
    (0..round * 7919 % 60_000).for_each(|_| std::hint::spin_loop());
}

fn was_killed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Killed { signal: 9, .. })
}

fn workers_killed_at_any_moment_cost_their_call_and_no_memory(method: StartMethod) {
    const CALLS: usize = 12;
    let pool = pool(method, 2);
    let (lost, rounds) = (Cell::new(0), rounds(50));
    // On, as long as no worker was killed in the middle of a call.
    for round in (0..).take_while(|round| *round < rounds || lost.get() == 0) {
        assert!(round < 20 * rounds, "no call was hit in {round} rounds");
        let marks = marks(CALLS);
        let memory = inode(&marks);
        let mut calls: Vec<_> = (0..CALLS).map(|at| Some(pool.submit(work, (marks.clone(), at)))).collect();
        // Some of the results are there before a process dies.
        let first = round % CALLS;
        let joined = |calls: &mut Vec<Option<JoinHandle<(usize, Marks)>>>, at: usize| {
            let outcome = calls[at].take().expect("it is joined once").join();
            let did = marks[at].load(SeqCst);
            match outcome {
                Ok((back, same)) => {
                    assert_eq!((back, did), (at, 1 << 16 | 1), "call {at} in round {round}");
                    assert!(same == marks && std::ptr::eq(&raw const *same, &raw const *marks), "it is mapped twice");
                    0
                }
                Err(error) => {
                    assert!(was_killed(&error) && error.execution() == Execution::Unknown, "{error}");
                    assert!([0, 1, 1 << 16 | 1].contains(&did), "call {at} did {did:x} in round {round}");
                    1
                }
            }
        };
        (0..first).for_each(|at| lost.update(|lost| lost + joined(&mut calls, at)));
        moment(round);
        let all = workers();
        all.get(round % all.len().max(1)).into_iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
        let now: usize = (first..CALLS).map(|at| joined(&mut calls, at)).sum();
        assert!(now <= 1, "one death in round {round} cost {now} calls");
        lost.update(|lost| lost + now);
        drop(marks);
        if round % 10 == 0 || round + 1 >= rounds {
            memory.is_gone();
        }
    }
    assert_eq!(pool.call(work, (marks(1), 0)).expect("the pool goes on").0, 0);
}

fn processes_killed_at_any_moment_leave_no_memory(method: StartMethod) {
    for round in 0..rounds(50) / 5 {
        let marks = marks(1);
        let memory = inode(&marks);
        let process = ProcessBuilder::new().start_method(method).spawn(work, (marks.clone(), 0)).expect("a process");
        moment(round * 9);
        process.kill().expect("it is ours");
        match process.join() {
            Ok((at, same)) => assert!(at == 0 && same == marks && marks[0].load(SeqCst) == 1 << 16 | 1),
            Err(error) => assert!(was_killed(&error), "{error}"),
        }
        drop(marks);
        memory.is_gone();
    }
}

/// Is killed by itself, but for the last time.
#[process_task]
fn die_first(tries: Shared<AtomicU32>, deaths: u32) -> Shared<AtomicU32> {
    if tries.fetch_add(1, SeqCst) < deaths {
        raise(Signal::SIGKILL).expect("a signal that can be raised");
    }
    tries
}

fn a_call_that_is_made_again_has_its_handles_again(method: StartMethod) {
    let pool = pool(method, 2);
    let tries: Vec<_> = (0..8).map(|_| Shared::new(AtomicU32::new(0)).expect("a little memory")).collect();
    let calls: Vec<_> = tries.iter().map(|one| pool.submit(die_first.retries(3), (one.clone(), 3))).collect();
    for (call, own) in calls.into_iter().zip(&tries) {
        let back = call.join().expect("the fourth try works");
        assert!(back == *own && own.load(SeqCst) == 4);
    }
    let error = pool.call(die_first.retries(1), (tries[0].clone(), 9)).expect_err("it dies twice");
    assert!(was_killed(&error) && tries[0].load(SeqCst) == 6, "{error}");
    let memory: Vec<_> = tries.iter().map(inode).collect();
    drop(tries);
    memory.into_iter().for_each(regions::Inode::is_gone);
}

/// Says that it has begun, and waits until it is told to end.
#[process_task]
fn wait_in(gate: Shared<[AtomicBool; 2]>) {
    gate[0].store(true, SeqCst);
    while !gate[1].load(SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
}

fn gate() -> Shared<[AtomicBool; 2]> {
    Shared::new([const { AtomicBool::new(false) }; 2]).expect("a little memory")
}

fn begins(gate: &Shared<[AtomicBool; 2]>) {
    eventually("the call runs", PATIENCE, || gate[0].load(SeqCst));
}

fn a_call_cancelled_before_it_starts_lets_go_of_its_handles(method: StartMethod) {
    let pool = pool(method, 1);
    let gate = gate();
    let first = pool.submit(wait_in, gate.clone());
    begins(&gate);
    let marks = marks(30);
    let memory = inode(&marks);
    let calls: Vec<_> = (0..30).map(|at| pool.submit(work, (marks.clone(), at))).collect();
    for call in calls {
        assert!(call.cancel());
        let error = call.join().expect_err("it was cancelled");
        assert_eq!((error.kind(), error.execution()), (&ErrorKind::Cancelled, Execution::NotStarted));
    }
    assert!(marks.iter().all(|mark| mark.load(SeqCst) == 0));
    memory.is_ours_alone();
    drop(marks);
    memory.is_gone();
    gate[1].store(true, SeqCst);
    assert_eq!(first.join(), Ok(()));
}

fn a_call_cancelled_while_it_runs_lets_go_of_its_handles(method: StartMethod) {
    let pool = pool(method, 2);
    for _ in 0..5 {
        let gate = gate();
        let memory = inode(&gate);
        let call = pool.submit(wait_in, gate.clone());
        begins(&gate);
        assert!(call.cancel_running());
        assert_eq!(call.join().expect_err("it was cancelled").kind(), &ErrorKind::Cancelled);
        memory.is_ours_alone();
        drop(gate);
        memory.is_gone();
    }
    // A worker that does not even take what it was given.
    let marks = marks(1);
    let memory = inode(&marks);
    for worker in workers() {
        signal(worker, Signal::SIGSTOP);
    }
    let call = pool.submit(work, (marks.clone(), 0));
    let cancelled = call.cancel_running();
    let outcome = call.join();
    for worker in workers() {
        signal(worker, Signal::SIGCONT);
    }
    let error = outcome.expect_err("it was cancelled");
    assert_eq!((cancelled, error.kind(), error.execution()), (true, &ErrorKind::Cancelled, Execution::NotStarted));
    assert_eq!(marks[0].load(SeqCst), 0);
    drop(marks);
    memory.is_gone();
}

fn a_call_whose_time_is_over_lets_go_of_its_handles(method: StartMethod) {
    let pool = pool(method, 2);
    let limited = wait_in.timeout(Duration::from_millis(60));
    let gates: Vec<_> = (0..4).map(|_| gate()).collect();
    let memory: Vec<_> = gates.iter().map(inode).collect();
    let calls: Vec<_> = gates.iter().map(|gate| pool.submit(limited, gate.clone())).collect();
    for call in calls {
        let error = call.join().expect_err("the gate stays shut");
        assert!(matches!(error.kind(), ErrorKind::TimedOut { .. }), "{error}");
    }
    let alone = ProcessBuilder::new().start_method(method).spawn(limited, gates[0].clone()).expect("a process");
    assert!(matches!(alone.join().expect_err("the gate stays shut").kind(), ErrorKind::TimedOut { .. }));
    drop(gates);
    memory.into_iter().for_each(regions::Inode::is_gone);
    assert_eq!(pool.call(work, (marks(1), 0)).expect("the pool goes on").0, 0);
}

fn fork_server_killed_under_calls_with_handles_costs_no_memory(method: StartMethod) {
    let pool = pool(method, 2);
    for round in 0..6 {
        let marks = marks(40);
        let memory = inode(&marks);
        let mut server = None;
        eventually("there is a fork server", PATIENCE, || {
            // A worker whose maker is dead, and that is about to end, is the child of another process.
            let is_ours = |pid: &u32| processes::descendants().get(pid).is_some_and(|one| one.name == "fork-server");
            server = workers().iter().filter_map(|worker| processes::parent_of(*worker)).find(is_ours);
            server.is_some()
        });
        let calls: Vec<_> = (0..40).map(|at| pool.submit(work, (marks.clone(), at))).collect();
        moment(round);
        signal(server.expect("it was found"), Signal::SIGKILL);
        for (at, call) in calls.into_iter().enumerate() {
            match call.join() {
                Ok((back, same)) => assert!(back == at && same == marks && marks[at].load(SeqCst) == 1 << 16 | 1),
                Err(error) => {
                    assert!(was_killed(&error), "{error}");
                    assert!(marks[at].load(SeqCst) & 0xffff <= 1);
                }
            }
        }
        drop(marks);
        memory.is_gone();
        eventually("both workers are there again", PATIENCE, || workers().len() == 2);
    }
}

fn a_killed_pool_lets_go_of_all_handles(method: StartMethod) {
    let pool = pool(method, 2);
    let gates: Vec<_> = (0..8).map(|_| gate()).collect();
    let memory: Vec<_> = gates.iter().map(inode).collect();
    let calls: Vec<_> = gates.iter().map(|gate| pool.submit(wait_in, gate.clone())).collect();
    eventually("two calls run", PATIENCE, || gates.iter().filter(|gate| gate[0].load(SeqCst)).count() == 2);
    pool.kill();
    for call in calls {
        let error = call.join().expect_err("the pool has ended");
        assert!(was_killed(&error) || *error.kind() == ErrorKind::Cancelled, "{error}");
    }
    assert_eq!(gates.iter().filter(|gate| gate[0].load(SeqCst)).count(), 2);
    drop(gates);
    memory.into_iter().for_each(regions::Inode::is_gone);
}

type Kept = Vec<Shared<AtomicU64>>;

#[process_task]
fn keep(handle: Shared<AtomicU64>) -> u32 {
    worker_state::<Kept>().push(handle);
    std::process::id()
}

#[process_task]
fn kept() -> Kept {
    worker_state::<Kept>().iter().inspect(|one| _ = one.fetch_add(1, SeqCst)).cloned().collect()
}

fn a_handle_that_a_worker_keeps_lives_as_long_as_the_worker(method: StartMethod) {
    let pool = pool(method, 1);
    let own = Shared::new(AtomicU64::new(41)).expect("a little memory");
    let memory = inode(&own);
    let worker = pool.call(keep, own.clone()).expect("it is kept");
    assert_eq!(memory.holders(), BTreeSet::from([worker, std::process::id()]));
    drop(own);
    assert_eq!(memory.holders(), BTreeSet::from([worker]));
    let back = pool.call(kept, ()).expect("it is given back");
    assert_eq!((back.len(), back[0].load(SeqCst), inode(&back[0])), (1, 42, memory));
    let again = pool.call(kept, ()).expect("it is given back");
    assert!(std::ptr::eq(&raw const *again[0], &raw const *back[0]), "one memory is mapped once");
    drop((back, again));
    assert_eq!(memory.holders(), BTreeSet::from([worker]));
    signal(worker, Signal::SIGKILL);
    memory.is_gone();
    eventually("another worker is there", PATIENCE, || workers().iter().any(|other| *other != worker));
    assert!(pool.call(kept, ()).expect("the pool goes on").is_empty());
}

#[process_task]
fn deeper(depth: u32, counted: Shared<AtomicU64>) -> Shared<AtomicU64> {
    counted.fetch_add(1, SeqCst);
    if depth == 0 {
        return counted;
    }
    let pool = Pool::builder().workers(1).build().expect("a pool in a worker");
    let all = pool.map(deeper, (0..3).map(|_| (depth - 1, counted.clone()))).expect("calls of calls");
    assert!(all.iter().all(|one| *one == counted), "another memory came back");
    counted
}

#[process_task]
fn hold_below(gate: Shared<[AtomicBool; 2]>) {
    let pool = Pool::builder().workers(1).build().expect("a pool in a worker");
    drop(pool.call(wait_in, gate));
}

fn a_handle_goes_through_pools_in_workers(method: StartMethod) {
    let pool = pool(method, 1);
    let counted = Shared::new(AtomicU64::new(0)).expect("a little memory");
    let memory = inode(&counted);
    let back = pool.call(deeper, (2, counted.clone())).expect("three pools, one in the other");
    assert!(back == counted && counted.load(SeqCst) == 1 + 3 + 9);
    drop((back, counted));
    memory.is_gone();
    let gate = gate();
    let memory = inode(&gate);
    let call = pool.submit(hold_below, gate.clone());
    begins(&gate);
    signal(workers()[0], Signal::SIGKILL);
    assert!(was_killed(&call.join().expect_err("the one in between is dead")));
    memory.is_ours_alone();
    drop(gate);
    memory.is_gone();
}

#[process_task]
fn end_in_some_way(marks: Marks, extra: Vec<Marks>, how: u32) -> u32 {
    marks[0].fetch_add(1, SeqCst);
    assert!(how != 1, "it panics with {} handles", extra.len());
    how
}

fn a_worker_that_has_answered_has_let_go_of_what_changes(method: StartMethod) {
    let pool = pool(method, 1);
    let ours = BTreeSet::from([std::process::id()]);
    let (own, others) = (marks(1), vec![marks(3), marks(4)]);
    for round in 0..rounds(50) / 2 {
        let how = u32::from(round % 3 == 1);
        let result = pool.call(end_in_some_way, (own.clone(), others.clone(), how));
        for memory in [&own, &others[0], &others[1]].map(inode) {
            assert_eq!(memory.holders(), ours, "round {round}");
        }
        assert_eq!(result.is_err(), how == 1);
    }
    let items = (0..200).map(|_| (own.clone(), others.clone(), 0));
    assert_eq!(pool.map(end_in_some_way, items).expect("all of them").len(), 200);
    assert_eq!(inode(&own).holders(), ours);
}

#[process_task]
fn fill(ranges: SharedRanges<u64>, at: usize) {
    let values = ranges.range(at);
    for (value, number) in ranges.write(at).expect("no process died").iter_mut().zip(values) {
        *value = number as u64;
    }
}

fn memory_is_frozen_right_after_the_calls_that_wrote_it(method: StartMethod) {
    let pool = pool(method, 2);
    for round in 0..rounds(50) / 3 {
        let ranges = SharedMut::<[u64]>::zeroed(1000).and_then(|all| Ok(all.split(100)?)).expect("a little memory");
        if round % 2 == 0 {
            pool.map(fill, (0..ranges.len()).map(|at| (ranges.clone(), at))).expect("all are filled");
        } else {
            let calls: Vec<_> = (0..ranges.len()).map(|at| pool.submit(fill, (ranges.clone(), at))).collect();
            assert!(calls.into_iter().all(|call| call.join() == Ok(())));
        }
        let frozen = ranges.freeze().expect("no process has it any more");
        assert!(frozen.iter().copied().eq(0..1000), "round {round}");
        let memory = inode(&frozen);
        assert_eq!(pool.call(sum, frozen), Ok(999 * 500));
        memory.is_gone();
    }
}

#[process_task]
fn sum(values: Shared<[u64]>) -> u64 {
    values.iter().sum()
}

#[process_task]
fn make(value: u64) -> Shared<u64> {
    Shared::new(value).expect("a little memory")
}

fn unread_result_holds_no_memory_for_ever(method: StartMethod) {
    let pool = pool(method, 1);
    let detached = marks(1);
    let memory = inode(&detached);
    drop((pool.submit(work, (detached.clone(), 0)), detached));
    // Though no thread uses the pool meanwhile.
    memory.is_gone();
    let marks = marks(3);
    let memory = inode(&marks);
    drop(pool.submit(work, (marks.clone(), 0)));
    let asked = pool.submit(work, (marks.clone(), 1));
    assert!(asked.wait_timeout(PATIENCE).is_ok(), "it is finished");
    // The handle that was joined, and the one that is dropped unread, each let go of what came.
    assert!(asked.join().expect("it worked").1 == marks);
    let unread = pool.submit(work, (marks.clone(), 2));
    assert!(unread.wait_timeout(PATIENCE).is_ok(), "it is finished");
    drop((unread, marks));
    memory.is_gone();
    let made = pool.call(make, 7).expect("memory that a worker made");
    let memory = inode(&made);
    assert_eq!(*made, 7);
    memory.is_ours_alone();
    drop(made);
    memory.is_gone();
    drop(builder(method, 1));
}
