//! What a pool promises to those that look: its numbers are right, and its timeline has every call once.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how fast anything is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::scratch::Scratch;
use crate::support::{self, eventually, processes, rounds};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_task::{ErrorKind, JoinHandle, Pool, PoolStats, StartMethod, WorkerState, process_task};
use tinyjson::JsonValue;

under_every_start_method! {
    stats_count_what_was_done,
    stats_tell_what_is_on_the_way,
    stats_tell_how_long_each_worker_was_busy,
    stats_of_a_place_survive_its_worker,
    stats_come_at_once_though_workers_are_stopped,
    stats_of_a_pool_that_has_ended_are_still_there,
    latencies_are_those_of_the_calls,
    a_timeline_has_every_call_once,
    timeline_marks_deaths_and_replacements,
    a_timeline_counts_the_items_that_a_dead_worker_had_made,
    a_timeline_marks_time_outs_and_retries,
    workers_that_are_replaced_in_time_are_counted_as_they_come,
    timeline_is_exact_without_a_waiter,
    a_timeline_begins_and_ends_when_told,
    a_timeline_that_cannot_be_written_is_an_error,
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

/// Panics on multiples of five.
#[process_task]
fn picky(x: u32) -> u32 {
    assert!(!x.is_multiple_of(5), "{x} is a multiple of five");
    x
}

/// Leaves a file, then waits for the gate.
#[process_task]
fn wait_at_gate(directory: &str, item: u32) -> u32 {
    std::fs::write(format!("{directory}/{item}"), "").expect("a directory that can be written to");
    wait_for(&format!("{directory}/gate"));
    item
}

#[process_task]
fn mark(directory: &str) {
    std::fs::write(format!("{directory}/mark"), "").expect("a directory that can be written to");
}

#[process_task]
fn work_for(time: Duration) -> u32 {
    let end = Instant::now() + time;
    while Instant::now() < end {}
    std::process::id()
}

#[process_task]
fn abort() {
    std::process::abort();
}

/// The coarsest step that the workers' clock has on any kernel, at both ends.
const STEPS: Duration = Duration::from_millis(20);

/// Aborts at one item.
#[process_task]
fn deadly(item: u32, last: u32) {
    if item == last {
        std::process::abort();
    }
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().expect("a pool")
}

fn calls(stats: &PoolStats) -> u64 {
    stats.workers.iter().map(|worker| worker.calls).sum()
}

fn signal_all(pids: &[u32], signal: Signal) {
    for pid in pids {
        kill(Pid::from_raw(pid.cast_signed()), signal).expect("a worker that can be signalled");
    }
}

fn stats_count_what_was_done(method: StartMethod) {
    let pool = Pool::builder().workers(3).start_method(method).name("counted").build().expect("a pool");
    let empty = pool.stats();
    assert_eq!((empty.settled, empty.queued, empty.in_flight, calls(&empty)), (0, 0, 0, 0));
    assert_eq!(empty.latency.count(), 0);
    pool.map(square, 0..500).expect("squares");
    let failed = pool.imap(picky, 0..50).filter(Result::is_err).count();
    assert_eq!((pool.call(square, 3), failed), (Ok(9), 10));
    let stats = pool.stats();
    assert_eq!((stats.settled, stats.queued, stats.in_flight, calls(&stats)), (551, 0, 0, 551));
    let names: Vec<_> = stats.workers.iter().map(|worker| worker.name.as_str()).collect();
    assert_eq!(names, ["counted-0", "counted-1", "counted-2"]);
    let family: BTreeSet<u32> = process_task::active_children().iter().map(process_task::ProcessInfo::pid).collect();
    assert_eq!(stats.workers.iter().filter_map(|worker| worker.pid).collect::<BTreeSet<_>>(), family);
    assert!(stats.workers.iter().all(|worker| worker.restarts == 0 && worker.memory > Some(0)));
    let table = stats.to_string();
    assert!(table.lines().count() == 5 && table.contains("0 in flight, 551 settled; latency"), "{table}");
}

fn stats_tell_what_is_on_the_way(method: StartMethod) {
    let (pool, scratch) = (pool(method, 2), Scratch::new());
    let gate: Vec<JoinHandle<u32>> =
        (0..100).map(|item| pool.submit(wait_at_gate, (directory(&scratch), item))).collect();
    eventually("both workers are at the gate", support::PATIENCE, || {
        std::fs::read_dir(scratch.path()).expect("the directory").count() == 2
    });
    let stats = pool.stats();
    assert!(stats.workers.iter().all(|worker| worker.state == WorkerState::Busy), "{stats}");
    assert_eq!((stats.queued + stats.in_flight, stats.settled), (100, 0));
    assert!(stats.in_flight >= 2 && stats.queued > 0, "{stats}");
    open_gate(&scratch);
    assert!(gate.into_iter().map(JoinHandle::join).eq((0..100).map(Ok)));
    let stats = pool.stats();
    assert!(stats.workers.iter().all(|worker| worker.state == WorkerState::Idle), "{stats}");
    assert_eq!((stats.queued, stats.in_flight, stats.settled), (0, 0, 100));
}

fn stats_tell_how_long_each_worker_was_busy(method: StartMethod) {
    let begun = Instant::now();
    let pool = pool(method, 1);
    pool.call(square, 1).expect("a square");
    let before = pool.stats().workers[0].busy;
    let time = Duration::from_millis(150);
    pool.call(work_for, time).expect("work");
    let worker = pool.stats().workers.remove(0);
    assert!(worker.busy + STEPS >= before + time, "{worker:?}");
    assert!(worker.busy + worker.idle <= begun.elapsed(), "{worker:?}");
    thread::sleep(time);
    let later = pool.stats().workers.remove(0);
    assert!(later.idle >= worker.idle + time / 2, "{later:?}");
    let scratch = Scratch::new();
    let running = pool.submit(wait_at_gate, (directory(&scratch), 0));
    eventually("a call that goes on counts already", support::PATIENCE, || {
        pool.stats().workers[0].busy >= later.busy + time
    });
    open_gate(&scratch);
    running.join().expect("the gate");
}

fn stats_of_a_place_survive_its_worker(method: StartMethod) {
    let pool = pool(method, 1);
    let first = pool.call(work_for, Duration::from_millis(60)).expect("work");
    let before = pool.stats().workers.remove(0);
    assert_eq!((before.pid, before.restarts, before.calls), (Some(first), 0, 1));
    pool.call(abort, ()).expect_err("an abort");
    assert_eq!(pool.call(square, 3), Ok(9));
    let after = pool.stats().workers.remove(0);
    assert_eq!((after.restarts, after.calls, after.state), (1, 2, WorkerState::Idle));
    assert!(after.pid.is_some_and(|pid| pid != first), "{after:?}");
    assert!(after.busy >= before.busy && after.idle + STEPS >= before.idle, "{before:?} {after:?}");
}

fn stats_come_at_once_though_workers_are_stopped(method: StartMethod) {
    let (pool, scratch) = (pool(method, 2), Scratch::new());
    let running = pool.submit(wait_at_gate, (directory(&scratch), 0));
    eventually("it is at the gate", support::PATIENCE, || scratch.path().join("0").exists());
    let pids: Vec<u32> = pool.stats().workers.iter().filter_map(|worker| worker.pid).collect();
    signal_all(&pids, Signal::SIGSTOP);
    let stats = pool.stats();
    assert_eq!(stats.workers.iter().filter(|worker| worker.state == WorkerState::Busy).count(), 1, "{stats}");
    assert!(stats.workers.iter().all(|worker| worker.memory > Some(0)), "{stats}");
    signal_all(&pids, Signal::SIGCONT);
    open_gate(&scratch);
    assert_eq!(running.join(), Ok(0));
    let end = Instant::now() + Duration::from_millis(300);
    signal_all(&pids, Signal::SIGKILL);
    while Instant::now() < end {
        // At every stage of a death and a new start.
        assert_eq!(pool.stats().workers.len(), 2);
    }
    eventually("both were replaced", support::PATIENCE, || {
        pool.stats().workers.iter().all(|worker| worker.restarts == 1)
    });
}

fn stats_of_a_pool_that_has_ended_are_still_there(method: StartMethod) {
    let pool = pool(method, 2);
    pool.map(square, 0..20).expect("squares");
    pool.kill();
    let handle = pool.submit(square, 1);
    handle.join().expect_err("a closed pool");
    let stats = pool.stats();
    assert_eq!((stats.settled, calls(&stats)), (20, 20));
    eventually("no process is there any more", support::PATIENCE, || {
        pool.stats().workers.iter().all(|worker| worker.state == WorkerState::Absent && worker.pid.is_none())
    });
}

fn latencies_are_those_of_the_calls(method: StartMethod) {
    let pool = pool(method, 1);
    let (short, long) = (Duration::from_millis(2), Duration::from_millis(40));
    let elapsed = Instant::now();
    for _ in 0..9 {
        pool.call(work_for, short).expect("work");
    }
    pool.call(work_for, long).expect("work");
    let elapsed = elapsed.elapsed();
    let latency = pool.stats().latency;
    let near = |time: Duration| time.mul_f64(0.98);
    assert_eq!(latency.count(), 10);
    assert!(latency.p50() >= near(short) && latency.p90() >= near(short), "{latency:?}");
    assert!(latency.p99() >= near(long) && latency.max() >= near(long), "{latency:?}");
    assert!(latency.mean() >= near((9 * short + long) / 10) && latency.mean() * 9 <= elapsed, "{latency:?}");
}

/// An event of a timeline.
#[derive(Clone, Debug)]
struct Seen {
    name: String,
    phase: String,
    /// When it began and, if it is a call, for how long it lasted, in microseconds.
    begin: f64,
    duration: Option<f64>,
    thread: f64,
    args: HashMap<String, JsonValue>,
}

impl Seen {
    fn read(event: &JsonValue) -> Self {
        let fields: &HashMap<String, JsonValue> = event.get().expect("an event");
        let text = |name: &str| fields[name].get::<String>().expect("a text").clone();
        let number = |name: &str| *fields[name].get::<f64>().expect("a number");
        let same = |number: f64, other: f64| (number - other).abs() < 0.5;
        assert!(same(number("pid"), f64::from(std::process::id())), "{event:?}");
        Self {
            name: text("name"),
            phase: text("ph"),
            begin: number("ts"),
            duration: fields.contains_key("dur").then(|| number("dur")),
            thread: number("tid"),
            args: fields["args"].get().cloned().expect("arguments"),
        }
    }

    fn arg(&self, name: &str) -> &str {
        self.args[name].get::<String>().expect("an argument that is a text")
    }

    fn tid(&self) -> u32 {
        format!("{}", self.thread).parse().expect("a thread's number")
    }

    /// How many calls it stands for.
    fn calls(&self) -> u64 {
        let number = self.args.get("calls").map(|calls| calls.get::<f64>().expect("a number"));
        number.map_or(1, |number| format!("{number}").parse().expect("a whole number"))
    }
}

/// The events of a timeline in order of time.
struct Events(Vec<Seen>);

impl Events {
    fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(path).expect("a timeline");
        let file: JsonValue = text.parse().expect("a timeline that is JSON");
        let events: &Vec<JsonValue> = file["traceEvents"].get().expect("a list of events");
        let mut events: Vec<_> = events.iter().map(Seen::read).collect();
        events.sort_by(|a, b| a.begin.total_cmp(&b.begin));
        Self(events)
    }

    fn of<'a>(&'a self, phase: &'a str) -> impl Iterator<Item = &'a Seen> {
        self.0.iter().filter(move |event| event.phase == phase)
    }

    fn threads(&self) -> BTreeMap<u32, String> {
        let named = self.of("M").filter(|event| event.name == "thread_name");
        named.map(|event| (event.tid(), event.arg("name").to_owned())).collect()
    }

    /// What happened to one worker beside its calls.
    fn marks(&self, tid: u32) -> Vec<&str> {
        self.of("i").filter(|event| event.tid() == tid).map(|event| event.name.as_str()).collect()
    }

    /// How many calls there are of each task and outcome.
    fn calls(&self) -> BTreeMap<(String, String), u64> {
        let mut calls = BTreeMap::new();
        for event in self.of("X") {
            let short = event.arg("task").rsplit("::").next().unwrap();
            assert!(event.name.starts_with(short), "{event:?}");
            *calls.entry((short.to_owned(), event.arg("outcome").to_owned())).or_default() += event.calls();
        }
        calls
    }

    /// Panics if a worker does two things at once, or an event has no worker.
    fn are_one_at_a_time(&self) {
        let threads = self.threads();
        let mut ends = BTreeMap::new();
        for event in self.of("X") {
            let duration = event.duration.expect("a call lasts");
            assert!(threads.contains_key(&event.tid()) && duration >= 0.0, "{event:?}");
            let end = ends.insert(event.tid(), event.begin + duration).unwrap_or(0.0);
            // A nanosecond is what is lost when it is written in microseconds.
            assert!(event.begin + 0.001 >= end, "{event:?} begins before {end}");
        }
    }
}

fn counted(calls: &[(&str, &str, u64)]) -> BTreeMap<(String, String), u64> {
    calls.iter().map(|(task, outcome, count)| (((*task).to_owned(), (*outcome).to_owned()), *count)).collect()
}

fn a_timeline_has_every_call_once(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 2));
    let path = scratch.file("timeline.json");
    let timeline = pool.timeline(&path).expect("a timeline");
    pool.map(square, 0..1000).expect("squares");
    let failed = pool.imap(picky, 0..50).filter(Result::is_err).count();
    let handles: Vec<_> = (0..300).map(|x| pool.submit(square, x)).collect();
    assert!(handles.into_iter().all(|handle| handle.join().is_ok()));
    timeline.finish().expect("a file that can be written");
    let events = Events::read(&path);
    assert_eq!(failed, 10);
    assert_eq!(events.calls(), counted(&[("picky", "Done", 40), ("picky", "Panicked", 10), ("square", "Done", 1300)]));
    events.are_one_at_a_time();
    let threads = events.threads();
    let workers: BTreeMap<_, _> =
        pool.stats().workers.into_iter().zip(1..).map(|(worker, tid)| (tid, worker.name)).collect();
    assert_eq!(threads.into_iter().filter(|(tid, _)| *tid != 0).collect::<BTreeMap<_, _>>(), workers);
    assert_eq!((events.marks(1), events.marks(2)), (vec!["started"], vec!["started"]));
}

fn timeline_marks_deaths_and_replacements(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 1));
    let path = scratch.file("timeline.json");
    let timeline = pool.timeline(&path).expect("a timeline");
    for _ in 0..3 {
        let error = pool.call(abort, ()).expect_err("an abort");
        assert!(matches!(error.kind(), ErrorKind::Killed { signal: 6, .. }), "{error}");
        assert_eq!(pool.call(square, 2), Ok(4));
    }
    drop(pool);
    timeline.finish().expect("a file that can be written");
    let events = Events::read(&path);
    assert_eq!(events.calls(), counted(&[("abort", "Killed", 3), ("square", "Done", 3)]));
    events.are_one_at_a_time();
    let expected = ["started", "died", "restarted", "died", "restarted", "died", "restarted", "left"];
    assert_eq!(events.marks(1), expected);
    assert!(events.of("i").filter(|event| event.name == "died").all(|event| event.arg("error").contains("SIGABRT")));
}

fn a_timeline_counts_the_items_that_a_dead_worker_had_made(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 1));
    let path = scratch.file("timeline.json");
    let timeline = pool.timeline(&path).expect("a timeline");
    // The first items travel alone, until it is known how short they are.
    pool.map(deadly, (0..2000).map(|item| (item, 1500))).expect_err("an abort");
    assert_eq!(pool.call(square, 3), Ok(9));
    timeline.finish().expect("a file that can be written");
    let (events, stats) = (Events::read(&path), pool.stats());
    events.are_one_at_a_time();
    let made = |task: &str, outcome: &str| events.calls()[&(task.to_owned(), outcome.to_owned())];
    assert_eq!(made("deadly", "Killed"), 1);
    // Those behind the deadly one may have been made before it was known that they are not wanted.
    assert!((1500..2000).contains(&made("deadly", "Done")), "{:?}", events.calls());
    assert_eq!(made("deadly", "Done") + made("square", "Done"), calls(&stats));
    assert!(events.of("X").any(|event| event.calls() > 1 && event.name.starts_with("deadly x ")));
    assert!(stats.settled > calls(&stats) && stats.settled <= 2001 && stats.queued + stats.in_flight == 0, "{stats}");
}

fn a_timeline_marks_time_outs_and_retries(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 1));
    let path = scratch.file("timeline.json");
    let timeline = pool.timeline(&path).expect("a timeline");
    let late = wait_at_gate.timeout(Duration::from_millis(50));
    pool.call(late, (directory(&scratch), 0)).expect_err("a time-out");
    pool.call(abort.retries(2), ()).expect_err("three aborts");
    assert_eq!(pool.call(square, 3), Ok(9));
    timeline.finish().expect("a file that can be written");
    let events = Events::read(&path);
    assert_eq!(
        events.calls(),
        counted(&[("abort", "Killed", 3), ("square", "Done", 1), ("wait_at_gate", "TimedOut", 1)])
    );
    events.are_one_at_a_time();
    let mut marks = events.marks(1);
    marks.sort_unstable();
    let expected = ["died", "died", "died", "died", "made again", "made again", "restarted", "restarted", "restarted"];
    assert_eq!(marks, [&expected[..], &["restarted", "started", "timed out"]].concat());
}

fn workers_that_are_replaced_in_time_are_counted_as_they_come(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.file("timeline.json");
    let pool = Pool::builder().workers(1).max_calls_per_worker(10).start_method(method).build().expect("a pool");
    let timeline = pool.timeline(&path).expect("a timeline");
    for x in 0..45 {
        assert_eq!(pool.call(square, x), Ok(x * x));
    }
    let worker = pool.stats().workers.remove(0);
    timeline.finish().expect("a file that can be written");
    assert_eq!((worker.calls, worker.restarts, worker.state), (45, 4, WorkerState::Idle));
    let marks = Events::read(&path).marks(1).join(" ");
    assert_eq!(marks, format!("started{}", " left restarted".repeat(4)));
}

fn timeline_is_exact_without_a_waiter(method: StartMethod) {
    const NOBODY_LOOKS: Duration = Duration::from_millis(100);
    let (scratch, pool) = (Scratch::new(), pool(method, 1));
    let path = scratch.file("timeline.json");
    pool.call(square, 1).expect("a worker that is warm");
    let exact = |_| {
        let timeline = pool.timeline(&path).expect("a timeline");
        let later = pool.submit(mark, directory(&scratch));
        eventually("the task has run", support::PATIENCE, || scratch.path().join("mark").exists());
        std::fs::remove_file(scratch.path().join("mark")).expect("a file that can be removed");
        thread::sleep(NOBODY_LOOKS);
        later.join().expect("a mark");
        timeline.finish().expect("a file that can be written");
        let events = Events::read(&path);
        let duration = events.of("X").next().and_then(|event| event.duration).expect("a call");
        Duration::from_secs_f64(duration / 1e6) < NOBODY_LOOKS
    };
    // A loaded machine may look late; if none was told, it is late every time.
    assert!((0..rounds(20)).any(exact), "the reply is taken when it is asked for, not when it comes");
}

fn a_timeline_begins_and_ends_when_told(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 2));
    let [first, second] = ["first.json", "second.json"].map(|name| scratch.file(name));
    pool.map(square, 0..100).expect("squares");
    let timeline = pool.timeline(&first).expect("a timeline");
    let error = pool.timeline(&second).expect_err("a second timeline");
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    assert!(!std::path::Path::new(&second).exists());
    pool.map(picky, [1, 2, 3]).expect("numbers that are fine");
    drop(timeline);
    pool.map(square, 0..100).expect("squares");
    let timeline = pool.timeline(&second).expect("another timeline");
    pool.call(square, 3).expect("a square");
    timeline.finish().expect("a file that can be written");
    assert_eq!(Events::read(&first).calls(), counted(&[("picky", "Done", 3)]));
    assert_eq!(Events::read(&second).calls(), counted(&[("square", "Done", 1)]));
}

fn a_timeline_that_cannot_be_written_is_an_error(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 1));
    let refused = |path: &str| {
        let error = pool.timeline(path).expect_err("a file that cannot be written");
        assert!(matches!(error.kind(), ErrorKind::CannotWrite { .. }), "{error}");
        assert!(error.to_string().contains(path), "{error}");
    };
    refused(&scratch.file("no/such/directory"));
    refused("/dev/full");
    let timeline = pool.timeline(scratch.file("fine")).expect("a timeline after those that failed");
    timeline.finish().expect("a file that can be written");
    assert!(processes::descendants().len() > 1);
}
