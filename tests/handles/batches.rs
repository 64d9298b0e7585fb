//! What handles of shared memory promise where calls travel many in a frame, and around the calls of each worker.
//!
//! Runs in: the test process; its tasks run in workers, some of which end in the middle. Never: counts on time.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::support::regions::{Inode, builder, inode, pool, signal, workers};
use crate::support::{PATIENCE, eventually, processes, rounds};
use nix::sys::signal::{Signal, raise};
use process_task::{ErrorKind, Execution, Pool, Shared, StartMethod, process_task, worker_state};

under_every_start_method! {
    within 240 seconds;
    all_items_of_a_map_have_the_same_memory,
    each_item_of_a_map_has_memory_of_its_own,
    results_of_a_map_hold_memory_that_workers_made,
    what_fails_in_a_batch_with_handles_costs_its_item_only,
    a_death_in_a_batch_with_handles_costs_its_item_only,
    workers_killed_under_maps_with_handles_leave_no_memory,
    an_item_may_have_many_handles_whatever_is_before_it,
    results_that_are_long_bring_their_handles,
    every_worker_begins_and_ends_with_its_handles,
}

type Marks = Shared<[AtomicU32]>;

fn marks(count: usize) -> Marks {
    Shared::<[AtomicU32]>::zeroed(count).expect("a little memory")
}

fn made(marks: &Marks) -> impl Iterator<Item = u32> {
    marks.iter().map(|mark| mark.load(SeqCst))
}

#[process_task]
fn mark_one(marks: Marks, at: usize) -> usize {
    marks[at].fetch_add(1, SeqCst);
    at
}

fn all_items_of_a_map_have_the_same_memory(method: StartMethod) {
    for workers in [1, 2] {
        let pool = pool(method, workers);
        let all = marks(3_000);
        let memory = inode(&all);
        let results = pool.map(mark_one, (0..3_000).map(|at| (all.clone(), at)));
        assert_eq!(results, Ok((0..3_000).collect()));
        assert!(made(&all).all(|times| times == 1));
        assert_eq!(memory.holders(), BTreeSet::from([std::process::id()]));
        drop(all);
        memory.is_gone();
    }
}

#[process_task]
fn add(own: Shared<AtomicU64>, all: Shared<AtomicU64>, more: u64) -> Shared<AtomicU64> {
    own.fetch_add(more, SeqCst);
    all.fetch_add(more, SeqCst);
    own
}

fn each_item_of_a_map_has_memory_of_its_own(method: StartMethod) {
    let pool = pool(method, 2);
    let all = Shared::new(AtomicU64::new(0)).expect("a little memory");
    let own: Vec<_> = (0..400).map(|at| Shared::new(AtomicU64::new(at)).expect("a little memory")).collect();
    let items = (1..).zip(&own).map(|(more, own)| (own.clone(), all.clone(), more));
    let back = pool.map(add, items).expect("every result");
    // What comes back is what went, mapped once.
    assert!(back.iter().zip(&own).all(|(back, own)| back == own && std::ptr::eq(&raw const **back, &raw const **own)));
    assert!((0..).zip(&back).all(|(at, back)| back.load(SeqCst) == 2 * at + 1));
    assert_eq!(all.load(SeqCst), 400 * 401 / 2);
    let memory: Vec<_> = own.iter().chain([&all]).step_by(80).map(inode).collect();
    drop((own, back, all));
    memory.into_iter().for_each(Inode::is_gone);
}

#[process_task]
fn make(value: u64) -> Option<Shared<u64>> {
    (!value.is_multiple_of(3)).then(|| Shared::new(value).expect("a little memory"))
}

fn results_of_a_map_hold_memory_that_workers_made(method: StartMethod) {
    let pool = pool(method, 2);
    let results = pool.map(make, 0..300).expect("every result");
    let right = |(at, made): (u64, &Option<Shared<u64>>)| made.as_deref().copied() == (at % 3 != 0).then_some(at);
    assert!((0..).zip(&results).all(right));
    let different: BTreeSet<_> = results.iter().flatten().map(inode).collect();
    assert_eq!(different.len(), 200);
    different.iter().step_by(50).for_each(|memory| memory.is_ours_alone());
    drop(results);
    different.into_iter().step_by(50).for_each(Inode::is_gone);
    let one_by_one = pool.imap(make, 0..30).map(|result| result.expect("a result"));
    assert!((0..).zip(one_by_one).all(|(at, made)| right((at, &made))));
    let unordered = pool.imap_unordered(make, 0..30).map(|result| result.expect("a result"));
    assert_eq!(unordered.flatten().map(|made| *made).collect::<BTreeSet<_>>().len(), 20);
}

/// Marks its item, then does what `deed` says if the item is the one.
#[process_task]
fn mark_or_fail(marks: Marks, at: usize, deed: u32) -> Marks {
    marks[at].fetch_add(1, SeqCst);
    match deed {
        1 => panic!("item {at}"),
        2 => raise(Signal::SIGKILL).expect("a signal that can be raised"),
        3 => std::process::abort(),
        _ => {}
    }
    marks
}

/// How far a map comes of which item 613 fails in this way, and with what; every item before it is made once.
fn fail_at_613(pool: &Pool, deed: u32) -> process_task::Error {
    let all = marks(900);
    let (memory, mut done) = (inode(&all), 0);
    let items = (0..900).map(|at| (all.clone(), at, if at == 613 { deed } else { 0 }));
    let results = pool.on_progress(|now, _| done = now).map(mark_or_fail, items);
    let error = results.expect_err("an item fails");
    assert_eq!(done, 613, "{error}");
    let left = pool.map(mark_one, (0..900).map(|at| (all.clone(), at))).expect("the pool goes on");
    assert_eq!(left.len(), 900);
    for (at, times) in made(&all).enumerate() {
        // Once by each map; the first may have come further than the item that failed.
        assert!(times == 2 || (at > 613 && times == 1), "item {at} was marked {times} times");
    }
    drop(all);
    memory.is_gone();
    error
}

fn what_fails_in_a_batch_with_handles_costs_its_item_only(method: StartMethod) {
    let pool = pool(method, 2);
    let error = fail_at_613(&pool, 1);
    assert!(matches!(error.kind(), ErrorKind::Panicked { message, .. } if message == "item 613"), "{error}");
    assert_eq!(error.execution(), Execution::Finished);
}

fn a_death_in_a_batch_with_handles_costs_its_item_only(method: StartMethod) {
    let pool = pool(method, 2);
    for (deed, sent) in [(2, 9), (3, 6)] {
        let error = fail_at_613(&pool, deed);
        assert!(matches!(error.kind(), ErrorKind::Killed { signal, .. } if *signal == sent), "{error}");
        assert_eq!(error.execution(), Execution::Unknown);
    }
}

fn workers_killed_under_maps_with_handles_leave_no_memory(method: StartMethod) {
    const ITEMS: usize = 400;
    let pool = pool(method, 2);
    let (mut failed, rounds) = (0, rounds(40));
    for round in 0..rounds {
        let all = marks(ITEMS);
        let memory = inode(&all);
        // Some items bring memory of their own, some give the common one back.
        let items = (0..ITEMS).map(|at| {
            let own = (at % 5 == 0).then(|| marks(1));
            (all.clone(), own, at)
        });
        let when = 1 + round * 37 % (ITEMS - 1);
        let mut killed = false;
        let results = pool
            .on_progress(|now, _| {
                if now >= when && !killed {
                    killed = true;
                    let all = workers();
                    all.get(round % all.len().max(1)).into_iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
                }
            })
            .map(mark_both, items);
        assert!(killed);
        match results {
            Ok(results) => {
                assert!(made(&all).all(|times| times == 1), "round {round}");
                assert!(results.into_iter().enumerate().all(|(at, back)| back.is_some() == (at % 7 == 0)));
            }
            Err(error) => {
                failed += 1;
                assert!(matches!(error.kind(), ErrorKind::Killed { signal: 9, .. }), "{error}");
                assert!(made(&all).all(|times| times <= 1), "round {round}");
            }
        }
        drop(all);
        memory.is_gone();
        eventually("both workers are there", PATIENCE, || workers().len() == 2);
    }
    assert!(failed < rounds, "all {rounds} maps failed");
}

#[process_task]
fn mark_both(all: Marks, own: Option<Marks>, at: usize) -> Option<Marks> {
    all[at].fetch_add(1, SeqCst);
    own.map(|own| own[0].fetch_add(1, SeqCst));
    at.is_multiple_of(7).then_some(all)
}

#[process_task]
fn how_many(handles: Vec<Shared<AtomicU64>>) -> usize {
    handles.len()
}

fn an_item_may_have_many_handles_whatever_is_before_it(method: StartMethod) {
    let pool = pool(method, 1);
    let some = |count: usize| (0..count).map(|_| Shared::new(AtomicU64::new(0)).expect("a little memory"));
    let (few, many): (Vec<_>, Vec<_>) = (some(40).collect(), some(1_000).collect());
    let last = inode(&many[999]);
    for lead in 2_000..2_005 {
        let items = (0..4_000).map(|at| match at {
            _ if at == lead => few.clone(),
            _ if at == lead + 1 => many.clone(),
            _ => Vec::new(),
        });
        let expected = (0..4_000).map(|at| [40, 1_000].get(usize::wrapping_sub(at, lead)).copied().unwrap_or(0));
        assert_eq!(pool.map(how_many, items), Ok(expected.collect()));
    }
    drop((few, many));
    last.is_gone();
}

#[process_task]
fn make_long(len: usize) -> (Vec<u16>, Shared<u64>, Vec<u16>) {
    (vec![7; len], Shared::new(len as u64).expect("a little memory"), vec![9; len])
}

fn results_that_are_long_bring_their_handles(method: StartMethod) {
    let pool = pool(method, 2);
    let lengths = (0..120).map(|at| if at % 10 == 7 { 50_000 + at } else { at });
    let results = pool.map(make_long, lengths.clone()).expect("every result");
    for (len, (before, made, behind)) in lengths.zip(results) {
        assert_eq!((before.len(), *made, behind.len()), (len, len as u64, len));
        assert!(before.iter().all(|one| *one == 7) && behind.iter().all(|one| *one == 9));
    }
    let text = "long".repeat(30_000);
    let items = (0..60).map(|at| (if at % 9 == 4 { text.as_str() } else { "" }, marks(1)));
    assert_eq!(pool.map(length, items), Ok((0..60).map(|at| if at % 9 == 4 { 120_001 } else { 1 }).collect()));
}

#[process_task]
fn length(text: &str, marks: Marks) -> usize {
    text.len() + marks.len()
}

#[process_task]
fn begin(counts: Marks) {
    counts[0].fetch_add(1, SeqCst);
    *worker_state::<Option<Marks>>() = Some(counts);
}

#[process_task]
fn end(counts: &Marks) {
    counts[2].fetch_add(1, SeqCst);
}

#[process_task]
fn between() -> u32 {
    worker_state::<Option<Marks>>().as_ref().map_or(0, |counts| counts[1].fetch_add(1, SeqCst))
}

fn every_worker_begins_and_ends_with_its_handles(method: StartMethod) {
    let counts = marks(3);
    let memory = inode(&counts);
    let pool = builder(method, 2)
        .initializer(begin, counts.clone())
        .finalizer(end, &counts)
        .max_calls_per_worker(3)
        .build()
        .expect("a pool");
    for _ in 0..30 {
        pool.call(between, ()).expect("a call");
    }
    let so_many = |at: usize| counts[at].load(SeqCst);
    assert!(so_many(0) >= 10 && so_many(1) == 30);
    // One that is killed does not end as it should, and its successor begins with the same memory.
    let victim = workers()[0];
    signal(victim, Signal::SIGKILL);
    eventually("it is dead", PATIENCE, || !processes::alive(victim));
    for _ in 0..6 {
        pool.call(between, ()).expect("a call");
    }
    assert_eq!(so_many(1), 36);
    drop(pool);
    let (begun, ended) = (so_many(0), so_many(2));
    // Each has made three calls at most. One that comes when the pool has ended is not asked to end as it should.
    assert!(ended <= begun && ended >= 36 / 3 - 1, "{begun} have begun, {ended} have ended");
    memory.is_ours_alone();
    drop(counts);
    memory.is_gone();
}
