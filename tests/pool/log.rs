//! What a subscriber of `tracing` hears of a pool, and that it may do what it likes.
//!
//! Runs in: the test process, which has one subscriber for all tests of this file; tasks run in workers.
//! Never: is silent about a death.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use crate::support;
use crate::support::eventually;
use crate::support::restore;
use process_task::{Pool, ProcessBuilder, Shared, StartMethod, process_task};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

under_every_start_method! {
    a_subscriber_hears_of_workers_and_calls,
    a_death_is_a_warning_and_the_next_worker_is_told_of,
    a_time_out_is_a_warning_and_a_retry_is_told_of,
    span_is_around_waiting_callers,
    a_cancelled_call_is_no_warning,
    death_says_which_task_ran,
    forced_end_and_failed_finalizer_are_warnings,
    panicking_subscriber_leaves_the_pool_working,
    stopped_worker_is_a_warning_with_task_and_signal,
    stopped_process_is_a_warning_with_task_and_signal,
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn picky(x: u32) -> u32 {
    assert!(!x.is_multiple_of(5), "{x} is a multiple of five");
    x
}

#[process_task]
fn abort() {
    std::process::abort();
}

/// Stops its own process. Returns once that goes on and `told` is set: the kernel does not say of a process that has ended
/// meanwhile that it went on.
#[process_task]
fn stop(told: Shared<AtomicBool>) {
    nix::sys::signal::raise(nix::sys::signal::SIGSTOP).unwrap();
    support::eventually("the test has heard that it goes on", support::PATIENCE, || told.load(SeqCst));
}

#[process_task]
fn sleep() {
    std::thread::sleep(Duration::from_secs(50));
}

/// An event: its level, and its fields as text.
#[derive(Clone, Debug)]
struct Heard {
    level: Level,
    fields: BTreeMap<&'static str, String>,
}

static HEARD: Mutex<Vec<Heard>> = Mutex::new(Vec::new());
static SPANS: Mutex<BTreeMap<u64, String>> = Mutex::new(BTreeMap::new());
/// A test of this file runs: those of other files run as without a subscriber.
static LISTENS: AtomicBool = AtomicBool::new(false);
static PANICS: AtomicBool = AtomicBool::new(false);

thread_local! {
    static INSIDE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "process_task" && LISTENS.load(SeqCst)
    }

    /// Asks again each time: otherwise the first answer would hold for good.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, SeqCst) + 1;
        let mut fields = Fields::default();
        span.record(&mut fields);
        lock(&SPANS).insert(id, format!("{} {}", span.metadata().name(), fields.0["task"]));
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        lock(&HEARD).push(Heard { level: *event.metadata().level(), fields: fields.0 });
        assert!(!PANICS.load(SeqCst), "a subscriber that panics");
    }

    fn enter(&self, span: &Id) {
        INSIDE.with_borrow_mut(|inside| inside.push(lock(&SPANS)[&span.into_u64()].clone()));
    }

    fn exit(&self, _: &Id) {
        INSIDE.with_borrow_mut(|inside| drop(inside.pop()));
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens until it is dropped.
#[must_use]
struct Listening;

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENS.store(false, SeqCst);
    }
}

/// Forgets what was heard before, and listens.
fn listen() -> Listening {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Listener).expect("the only subscriber"));
    lock(&HEARD).clear();
    LISTENS.store(true, SeqCst);
    Listening
}

/// What was heard under this message.
fn heard(message: &str) -> Vec<Heard> {
    lock(&HEARD).iter().filter(|heard| heard.fields["message"] == message).cloned().collect()
}

fn pool(method: StartMethod) -> Pool {
    Pool::builder().workers(1).start_method(method).name("logged").build().expect("a pool")
}

fn a_subscriber_hears_of_workers_and_calls(method: StartMethod) {
    let _listening = listen();
    let pool = pool(method);
    let pid = process_task::active_children()[0].pid().to_string();
    assert_eq!(pool.call(square, 3), Ok(9));
    pool.call(picky, 5).expect_err("a multiple of five");
    drop(pool);
    let started = heard("worker started");
    assert_eq!((started.len(), started[0].level), (1, Level::DEBUG));
    assert_eq!((&*started[0].fields["worker"], &started[0].fields["pid"]), ("logged-0", &pid));
    let calls = heard("call settled");
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(calls.iter().all(|call| call.level == Level::TRACE && call.fields["pid"] == pid));
    assert!(calls.iter().all(|call| call.fields["worker"] == "logged-0" && call.fields["calls"] == "1"));
    assert!(calls[0].fields["task"].ends_with("::square") && !calls[0].fields.contains_key("error"));
    assert!(
        calls[1].fields["task"].ends_with("::picky") && calls[1].fields["error"].contains("5 is a multiple of five")
    );
    assert!(heard("worker died").is_empty());
    assert_eq!((heard("pool closed").len(), heard("worker left").len()), (1, 1));
}

fn a_death_is_a_warning_and_the_next_worker_is_told_of(method: StartMethod) {
    let _listening = listen();
    let pool = pool(method);
    pool.call(abort, ()).expect_err("an abort");
    assert_eq!(pool.call(square, 3), Ok(9));
    let died = heard("worker died");
    assert_eq!((died.len(), died[0].level, &*died[0].fields["worker"]), (1, Level::WARN, "logged-0"));
    assert!(died[0].fields["error"].contains("SIGABRT"), "{died:?}");
    let again = heard("worker restarted");
    assert_eq!((again.len(), again[0].level), (1, Level::DEBUG));
    assert_ne!(again[0].fields["pid"], died[0].fields["pid"]);
}

fn a_time_out_is_a_warning_and_a_retry_is_told_of(method: StartMethod) {
    let _listening = listen();
    let pool = pool(method);
    pool.call(sleep.timeout(Duration::from_millis(50)), ()).expect_err("a time-out");
    pool.call(abort.retries(1), ()).expect_err("two aborts");
    let late = heard("call timed out");
    assert_eq!((late.len(), late[0].level, &*late[0].fields["limit"]), (1, Level::WARN, "50ms"));
    assert!(late[0].fields["task"].ends_with("::sleep") && late[0].fields["worker"] == "logged-0");
    let again = heard("call is made again");
    assert_eq!((again.len(), again[0].level, &*again[0].fields["attempts"]), (1, Level::INFO, "1"));
    assert!(again[0].fields["task"].ends_with("::abort") && again[0].fields["error"].contains("SIGABRT"));
}

fn a_cancelled_call_is_no_warning(method: StartMethod) {
    let _listening = listen();
    let pool = pool(method);
    let call = pool.submit(sleep, ());
    eventually("it runs", support::PATIENCE, || call.is_running());
    assert!(call.cancel_running());
    call.join().expect_err("it is cancelled");
    assert_eq!(pool.call(square, 3), Ok(9));
    let killed = heard("worker was killed");
    assert_eq!((killed.len(), killed[0].level, &*killed[0].fields["worker"]), (1, Level::DEBUG, "logged-0"));
    assert!(
        killed[0].fields["task"].ends_with("::sleep") && killed[0].fields["cause"].contains("cancelled"),
        "{killed:?}"
    );
    let loud: Vec<_> = lock(&HEARD).iter().filter(|heard| heard.level <= Level::WARN).cloned().collect();
    assert!(loud.is_empty(), "{loud:?}");
}

fn death_says_which_task_ran(method: StartMethod) {
    let _listening = listen();
    let pool = pool(method);
    pool.call(abort, ()).expect_err("an abort");
    assert_eq!(pool.call(square, 3), Ok(9));
    let died = heard("worker died");
    assert!(died.len() == 1 && died[0].fields["task"].ends_with("::abort"), "{died:?}");
    // One that ran nothing has no task.
    let idle = process_task::active_children()[0].pid();
    let idle = nix::unistd::Pid::from_raw(idle.cast_signed());
    nix::sys::signal::kill(idle, nix::sys::signal::Signal::SIGKILL).expect("a worker");
    eventually("its death is told", support::PATIENCE, || heard("worker died").len() == 2);
    assert!(!heard("worker died")[1].fields.contains_key("task"));
}

fn forced_end_and_failed_finalizer_are_warnings(method: StartMethod) {
    let _listening = listen();
    let limit = Duration::from_millis(100);
    let builder = Pool::builder().workers(1).start_method(method).name("logged");
    let pool = builder.finalizer(sleep.timeout(limit), ()).build().expect("a pool");
    assert_eq!(pool.call(square, 3), Ok(9));
    pool.shutdown(process_task::ShutdownMode::Finish).expect_err("a finalizer that takes too long");
    let forced = heard("worker did not end in time and is killed");
    assert_eq!((forced.len(), forced[0].level, &*forced[0].fields["limit"]), (1, Level::WARN, "100ms"));
    assert!(forced[0].fields["task"].ends_with("::sleep") && forced[0].fields["worker"] == "logged-0");
    let failed = heard("finalizer failed");
    assert_eq!((failed.len(), failed[0].level), (1, Level::WARN));
    assert!(failed[0].fields["task"].ends_with("::sleep") && failed[0].fields["error"].contains("100ms"));
}

fn span_is_around_waiting_callers(method: StartMethod) {
    let _listening = listen();
    let pool = pool(method);
    let seen = || INSIDE.with_borrow(Clone::clone);
    let mut inside = Vec::new();
    assert!(seen().is_empty());
    pool.map(square, (0..3).inspect(|_| inside = seen())).expect("squares");
    assert_eq!(inside.len(), 1);
    assert!(inside[0].starts_with("map ") && inside[0].ends_with("::square"), "{inside:?}");
    lock(&SPANS).clear();
    pool.call(square, 3).expect("a square");
    assert!(lock(&SPANS).values().any(|span| span.starts_with("call ") && span.ends_with("::square")));
    assert!(seen().is_empty());
}

fn panicking_subscriber_leaves_the_pool_working(method: StartMethod) {
    let _listening = listen();
    let pool = pool(method);
    PANICS.store(true, SeqCst);
    let quiet = restore::quiet_panics();
    let results = pool.map(square, 0..20);
    let died = pool.call(abort, ());
    let after = pool.call(square, 4);
    PANICS.store(false, SeqCst);
    drop(quiet);
    assert_eq!(results, Ok((0..20).map(|x| x * x).collect()));
    assert!(died.is_err());
    assert_eq!(after, Ok(16));
    eventually("the death was told", support::PATIENCE, || heard("worker died").len() == 1);
}

/// Waits for a warning with this message, continues the process that it names, and returns what it says.
fn stopped(message: &str) -> Heard {
    eventually(message, support::PATIENCE, || heard(message).len() == 1);
    let stopped = heard(message).remove(0);
    let pid = stopped.fields["pid"].parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGCONT).unwrap();
    assert_eq!((stopped.level, &*stopped.fields["signal"]), (Level::WARN, "SIGSTOP"));
    assert!(stopped.fields["task"].ends_with("::stop"), "{stopped:?}");
    stopped
}

fn stopped_worker_is_a_warning_with_task_and_signal(method: StartMethod) {
    let _listening = listen();
    let pool = pool(method);
    let told = Shared::new(AtomicBool::new(false)).unwrap();
    let call = pool.submit(stop, told.clone());
    let stopped = stopped("worker stopped");
    assert_eq!(stopped.fields["worker"], "logged-0");
    eventually("it is told that it goes on", support::PATIENCE, || heard("worker continued").len() == 1);
    told.store(true, SeqCst);
    assert_eq!(call.join(), Ok(()));
    assert_eq!(heard("worker continued")[0].fields["pid"], stopped.fields["pid"]);
}

fn stopped_process_is_a_warning_with_task_and_signal(method: StartMethod) {
    let _listening = listen();
    let told = Shared::new(AtomicBool::new(false)).unwrap();
    let process = ProcessBuilder::new().name("still").start_method(method).spawn(stop, told.clone()).unwrap();
    assert_eq!(stopped("process stopped").fields["process"], "still");
    eventually("it is told that it goes on", support::PATIENCE, || heard("process continued").len() == 1);
    told.store(true, SeqCst);
    assert_eq!(process.join(), Ok(()));
}
