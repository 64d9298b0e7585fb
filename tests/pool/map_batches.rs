//! What `map` promises while items travel many in a frame: each item is run once, what ends a worker costs the one item
//! that it was running, and no thread waits for an item for longer than that takes.
//!
//! Runs in: the test process; its tasks run in workers, and many of them end those.
//! Never: depends on how many items share a frame, or how fast anything is.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::print_task::print;
use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually, processes, rounds};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use process_task::{Direction, Error, ErrorKind, Execution, Pool, StartMethod, active_children, process_task};
use serde::{Deserialize, Serialize, Serializer, ser};

under_every_start_method! {
    within 120 seconds;
    whatever_ends_a_worker_costs_exactly_its_item,
    whatever_fails_in_an_item_is_that_items_error,
    items_behind_a_crash_in_their_frame_are_run_once,
    a_worker_killed_from_outside_costs_one_item,
    late_item_holds_back_no_other_item,
    a_worker_that_dies_after_its_last_item_costs_nothing,
    a_pool_that_ends_under_a_map_ends_the_map,
    what_had_not_begun_when_an_item_failed_is_cancelled,
}

/// What an item does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Deed {
    Nothing,
    Kill,
    Exit,
    Abort,
    Overflow,
    Panic,
    LongPanic,
    PanicInDrop,
    RefuseResult,
}

/// A result that misbehaves on demand.
#[derive(Debug, Deserialize)]
struct Fragile {
    item: u32,
    deed: Deed,
}

/// Set in workers: a result that panics when it is dropped does so only there.
static IN_A_WORKER: AtomicBool = AtomicBool::new(false);

impl Serialize for Fragile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.deed == Deed::RefuseResult {
            return Err(ser::Error::custom("this result does not travel"));
        }
        (self.item, self.deed).serialize(serializer)
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(
            self.deed != Deed::PanicInDrop || !IN_A_WORKER.load(Relaxed),
            "a result that panics when it is dropped"
        );
    }
}

/// Appends `item` to the file, at once and in one piece.
fn log(path: &str, item: u32) {
    static OPEN: Mutex<Option<(String, File)>> = Mutex::new(None);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if open.as_ref().is_none_or(|(of, _)| of != path) {
        let file = OpenOptions::new().append(true).create(true).open(path).expect("a file that can be written to");
        *open = Some((path.to_owned(), file));
    }
    if let Some((_, file)) = &mut *open {
        file.write_all(&item.to_ne_bytes()).expect("room for four bytes");
    }
}

/// How often each item was begun.
fn logged(scratch: &Scratch) -> BTreeMap<u32, u32> {
    let bytes = std::fs::read(scratch.file("log")).unwrap_or_default();
    let mut times = BTreeMap::new();
    for item in bytes.as_chunks::<4>().0 {
        *times.entry(u32::from_ne_bytes(*item)).or_default() += 1;
    }
    times
}

#[process_task]
#[expect(clippy::exit, reason = "what is tested is that a task may")]
fn act(path: &str, item: u32, deed: Deed) -> Fragile {
    IN_A_WORKER.store(true, Relaxed);
    log(path, item);
    match deed {
        Deed::Nothing | Deed::PanicInDrop | Deed::RefuseResult => {}
        Deed::Kill => raise(Signal::SIGKILL).expect("a signal that can be raised"),
        Deed::Exit => std::process::exit(0),
        Deed::Abort => std::process::abort(),
        Deed::Overflow => drop(overflow(0)),
        Deed::Panic => panic!("item {item}"),
        Deed::LongPanic => panic!("{}", "long ".repeat(2_000)),
    }
    Fragile { item, deed }
}

#[expect(unconditional_recursion, reason = "that is what ends the stack")]
fn overflow(depth: u64) -> u64 {
    let page = std::hint::black_box([depth; 256]);
    overflow(depth + 1) + page[1]
}

#[process_task]
fn square(x: u32) -> u64 {
    u64::from(x) * u64::from(x)
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().expect("a pool")
}

/// Items of which some misbehave.
fn deeds(count: u32, at: &[u32], deed: Deed) -> Vec<(u32, Deed)> {
    (0..count).map(|item| (item, if at.contains(&item) { deed } else { Deed::Nothing })).collect()
}

/// Maps `act` over items; returns how many results came before the error, if there was one.
fn map_deeds(pool: &Pool, scratch: &Scratch, deeds: &[(u32, Deed)]) -> (usize, Result<Vec<Fragile>, Error>) {
    let (path, mut done) = (scratch.file("log"), 0);
    let items = deeds.iter().map(|(item, deed)| (path.as_str(), *item, *deed));
    let results = pool.on_progress(|now, _| done = now).map(act, items);
    (done, results)
}

/// Every item before `failed` was begun once, `failed` as often as told, and those behind it at most once.
#[track_caller]
fn check_log(times: &BTreeMap<u32, u32>, failed: u32, count: u32) {
    for item in 0..count {
        let times = times.get(&item).copied().unwrap_or(0);
        assert!(times == 1 || (item > failed && times == 0), "item {item} was begun {times} times; {failed} failed");
    }
}

fn whatever_ends_a_worker_costs_exactly_its_item(method: StartMethod) {
    for deed in [Deed::Kill, Deed::Exit, Deed::Abort, Deed::Overflow] {
        let scratch = Scratch::new();
        let pool = pool(method, 2);
        let (done, results) = map_deeds(&pool, &scratch, &deeds(900, &[613], deed));
        let error = results.expect_err("a worker has died");
        let expected = match error.kind() {
            ErrorKind::Killed { signal, .. } => *signal == if deed == Deed::Kill { 9 } else { 6 },
            ErrorKind::Exited { code, .. } => deed == Deed::Exit && *code == 0,
            ErrorKind::StackOverflow => deed == Deed::Overflow,
            _ => false,
        };
        assert!(expected, "{deed:?}: {error}");
        assert_eq!((error.execution(), done), (Execution::Unknown, 613), "{deed:?}: {error}");
        // Workers are replaced, and nothing is left of the items that were given out.
        assert_eq!(pool.map(square, 0..500), Ok((0..500).map(*square).collect()));
        drop(pool);
        check_log(&logged(&scratch), 613, 900);
    }
}

fn whatever_fails_in_an_item_is_that_items_error(method: StartMethod) {
    let pool = pool(method, 2);
    for deed in [Deed::Panic, Deed::LongPanic, Deed::PanicInDrop, Deed::RefuseResult] {
        let scratch = Scratch::new();
        let (done, results) = map_deeds(&pool, &scratch, &deeds(900, &[613, 614, 700], deed));
        let error = results.expect_err("an item has failed");
        let expected = match error.kind() {
            ErrorKind::Panicked { message, location, .. } => {
                let text = match deed {
                    Deed::Panic => "item 613".to_owned(),
                    Deed::LongPanic => "long ".repeat(2_000),
                    _ => "a result that panics when it is dropped".to_owned(),
                };
                *message == text && location.as_ref().is_some_and(|place| place.contains("map_batches.rs"))
            }
            ErrorKind::CannotEncode { direction: Direction::Result, reason, .. } => {
                deed == Deed::RefuseResult && reason.contains("does not travel")
            }
            _ => false,
        };
        assert!(expected, "{deed:?}: {error}");
        let names_it = deed == Deed::RefuseResult || error.to_string().contains("worker-");
        assert!(names_it, "the process is missing: {error}");
        assert_eq!((error.execution(), done), (Execution::Finished, 613), "{deed:?}: {error}");
        let left = pool.map(square, 0..2_000).expect("squares");
        assert_eq!(left.len(), 2_000);
        check_log(&logged(&scratch), 613, 900);
    }
}

#[process_task]
fn log_or_wait(gate: &str, path: &str, item: u32, deed: Deed) -> u32 {
    if item == 0 {
        wait_for(gate);
    }
    act(path, item, deed).item
}

fn items_behind_a_crash_in_their_frame_are_run_once(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 2);
    let (gate, path) = (scratch.file("gate"), scratch.file("log"));
    let deaths = [300, 301, 555, 899];
    let deeds = deeds(900, &deaths, Deed::Kill);
    let error = thread::scope(|scope| {
        let items = deeds.iter().map(|(item, deed)| (gate.as_str(), path.as_str(), *item, *deed));
        let mapping = scope.spawn(|| pool.map(log_or_wait, items));
        // The first item blocks the results, so that the deaths are no reason to cancel anything.
        eventually("every other item was run", PATIENCE, || logged(&scratch).len() == 899);
        open_gate(&scratch);
        mapping.join().expect("no panic").expect_err("workers have died")
    });
    assert_eq!(
        (error.execution(), matches!(error.kind(), ErrorKind::Killed { signal: 9, .. })),
        (Execution::Unknown, true)
    );
    drop(pool);
    let times = logged(&scratch);
    assert!((0..900).all(|item| times.get(&item) == Some(&1)), "{times:?}");
}

#[process_task]
fn log_slowly(path: &str, item: u32) -> u32 {
    log(path, item);
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(20) {
        std::hint::spin_loop();
    }
    item
}

fn a_worker_killed_from_outside_costs_one_item(method: StartMethod) {
    let pool = pool(method, 2);
    for round in 0..rounds(4) {
        let scratch = Scratch::new();
        let path = scratch.file("log");
        let (mut done, killed) = (0, Cell::new(None));
        let when = 100 + 371 * round % 4_000;
        let result = pool
            .on_progress(|now, _| {
                done = now;
                if now >= when && killed.get().is_none() {
                    let workers = active_children();
                    let victim = workers.get(round % workers.len().max(1)).map(|worker| worker.pid().cast_signed());
                    killed.set(victim);
                    victim.map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
                }
            })
            .map(log_slowly, (0..6_000).map(|item| (path.as_str(), item)));
        assert!(killed.get().is_some());
        // It may have been killed while it had nothing to do.
        match result {
            Ok(results) => {
                assert_eq!(results, (0..6_000).collect::<Vec<u32>>());
                assert!(logged(&scratch).values().all(|times| *times == 1));
            }
            Err(error) => {
                assert_eq!(error.execution(), Execution::Unknown, "{error}");
                assert_eq!(pool.map(square, 0..9), Ok((0..9).map(*square).collect()));
                // The one that was lost may not have got as far as the log.
                let (times, lost) = (logged(&scratch), u32::try_from(done).expect("few items"));
                let before = (0..lost).all(|item| times.get(&item) == Some(&1));
                assert!(before && times.values().all(|times| *times == 1), "{lost} was lost");
            }
        }
        eventually("both workers are there", PATIENCE, || active_children().len() == 2);
    }
}

#[process_task]
fn late(gate: &str, item: u32) -> u32 {
    match item {
        // Longer than a frame may take that others wait for.
        700 => thread::sleep(Duration::from_millis(30)),
        701 => wait_for(gate),
        _ => {}
    }
    item
}

fn late_item_holds_back_no_other_item(method: StartMethod) {
    // One worker: what stands behind the late item in its frame can only be run by the same one.
    for workers in [1, 2] {
        let scratch = Scratch::new();
        let pool = pool(method, workers);
        let gate = scratch.file("gate");
        let results = pool
            .on_progress(|done, _| {
                // Item 701 ends when the result of 700 is here, which may stand before it in the same frame.
                if done == 701 {
                    open_gate(&scratch);
                }
            })
            .map(late, (0..1_500).map(|item| (gate.as_str(), item)));
        assert_eq!(results, Ok((0..1_500).collect()));
    }
}

#[process_task]
fn print_what_kills(directory: &str, item: u32) -> u32 {
    if item == 600 {
        print(directory, item);
        // The process that writes out what was printed is killed: the worker, when the items of the frame are done.
        setrlimit(Resource::RLIMIT_FSIZE, 0, 0).expect("a limit that can be lowered");
    }
    std::process::id()
}

fn a_worker_that_dies_after_its_last_item_costs_nothing(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 2);
    let place = directory(&scratch);
    let workers = pool.map(print_what_kills, (0..2_000).map(|item| (place, item))).expect("every result");
    assert_eq!(workers.len(), 2_000);
    eventually("the worker has died", PATIENCE, || !processes::alive(workers[600]));
    assert_eq!(std::fs::read_dir(scratch.path()).expect("the directory").count(), 1, "one worker was to print");
}

fn a_pool_that_ends_under_a_map_ends_the_map(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 2);
    let path = scratch.file("log");
    let error = thread::scope(|scope| {
        let mapping = scope.spawn(|| pool.map(log_slowly, (0..).map(|item| (path.as_str(), item))));
        eventually("the map is under way", PATIENCE, || logged(&scratch).len() > 2_000);
        pool.kill();
        mapping.join().expect("no panic").expect_err("the pool has ended")
    });
    assert!(
        matches!(error.kind(), ErrorKind::Killed { .. } | ErrorKind::Cancelled | ErrorKind::Closed { .. }),
        "{error}"
    );
    drop(pool);
    assert!(logged(&scratch).values().all(|times| *times == 1));
}

/// The item that fails.
const FAILING: u32 = 1_001;

#[process_task]
fn fail_then_wait(gate: &str, path: &str, item: u32) -> u32 {
    if item == FAILING {
        // So long that none behind it in its frame is waited for.
        thread::sleep(Duration::from_millis(30));
        panic!("item {item}");
    }
    if item > FAILING {
        wait_for(gate);
    }
    log(path, item);
    item
}

fn what_had_not_begun_when_an_item_failed_is_cancelled(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 2);
    let (gate, path) = (scratch.file("gate"), scratch.file("log"));
    let items = (0..20_000).map(|item| {
        if item == FAILING - 1 {
            // A batch is sent when its next item is late.
            thread::sleep(Duration::from_millis(20));
        }
        if item == FAILING {
            // On a busy machine a batch ends early, and what is left of it would wait for workers that wait at the gate.
            let before = usize::try_from(FAILING).unwrap();
            eventually("the items before it have run", PATIENCE, || logged(&scratch).len() == before);
        }
        (gate.as_str(), path.as_str(), item)
    });
    let error = pool.map(fail_then_wait, items).expect_err("an item panics");
    assert!(matches!(error.kind(), ErrorKind::Panicked { .. }), "{error}");
    open_gate(&scratch);
    drop(pool);
    // Each worker had begun one frame at the most, which has room for less than this.
    let behind = logged(&scratch).range(FAILING..).count();
    assert!(behind < 2 * 150, "{behind} items were begun after the error");
}
