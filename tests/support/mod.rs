//! What every test stands on: a watchdog, a census of what a test leaves behind, and one test per start method.
//!
//! Runs in: the test process; a task of its own, which does nothing, runs in children.
//! Never: waits for time where it could wait for a condition, and never lets a test hang.
//!
//! A census only means something while no other test of the same process runs, so [`promise`] gives each a process.
#![expect(dead_code, reason = "each test program needs a part")]

pub(crate) mod apart;
pub(crate) mod census;
pub(crate) mod chaos;
pub(crate) mod executor;
pub(crate) mod file_barrier;
pub(crate) mod filter;
pub(crate) mod fork_copy;
pub(crate) mod hostile_worker;
pub(crate) mod library;
pub(crate) mod link_memory;
pub(crate) mod listener_pair;
pub(crate) mod noise_peer;
pub(crate) mod print_task;
pub(crate) mod processes;
pub(crate) mod programs;
pub(crate) mod pty;
pub(crate) mod queue_memory;
pub(crate) mod regions;
pub(crate) mod restore;
pub(crate) mod restrict;
pub(crate) mod scratch;
pub(crate) mod shared_counter;
pub(crate) mod signal_storm;
pub(crate) mod signals;
pub(crate) mod single_step;
pub(crate) mod soak_load;
pub(crate) mod subprocess;

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use process_task::{ProcessBuilder, StartMethod, process_task};

/// How long a condition may take to come true, within the limit of [`promise`]. Generous: debug builds run on small,
/// loaded machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a promise may take before it counts as broken.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// Makes `fork_server::name` and `exec::name` of every `fn name(StartMethod)`, each a [`promise`].
///
/// `under_every_start_method! { a_promise, another }`, or with a limit of their own
/// `under_every_start_method! { within 300 seconds; a_long_one }`.
#[macro_export]
macro_rules! under_every_start_method {
    ($($name:ident),+ $(,)?) => {
        $crate::under_every_start_method! { within 60 seconds; $($name),+ }
    };
    (within $seconds:literal seconds; $($name:ident),+ $(,)?) => {
        mod fork_server {
            $(#[test] fn $name() {
                let limit = std::time::Duration::from_secs($seconds);
                $crate::support::promise_within(limit, || super::$name(process_task::StartMethod::ForkServer));
            })+
        }
        mod exec {
            $(#[test] fn $name() {
                let limit = std::time::Duration::from_secs($seconds);
                $crate::support::promise_within(limit, || super::$name(process_task::StartMethod::Exec));
            })+
        }
    };
}

/// The name of the test of this process, for its other threads.
static TEST: OnceLock<String> = OnceLock::new();

/// Runs `test` in a process of its own, inside a watchdog, between two censuses that must agree.
pub(crate) fn promise(test: impl FnOnce()) {
    promise_within(LIMIT, test);
}

/// [`promise`], with a limit of its own: times `PROCESS_TASK_ROUNDS`, as what is done in it.
pub(crate) fn promise_within(limit: Duration, test: impl FnOnce()) {
    promise_with(limit, &[], test);
}

/// [`promise_within`], in a process that has these variables from its start.
pub(crate) fn promise_with(limit: Duration, variables: &[(&str, &str)], test: impl FnOnce()) {
    let limit = limit * u32::try_from(rounds(1)).expect("not so many rounds");
    if !apart::is_here() {
        return apart::run(limit, variables);
    }
    let mut test = Some(test);
    run_here(limit, &mut || test.take().expect("it runs once")());
}

/// Runs a test in its own process. No part of [`promise_with`], which the compiler makes once for each test.
fn run_here(limit: Duration, test: &mut dyn FnMut()) {
    apart::end_with_the_harness();
    census::register_this_thread();
    TEST.get_or_init(|| thread::current().name().unwrap_or_default().to_owned());
    watched(limit, || {
        warm_up();
        let before = census::census();
        test();
        census::clean(&before);
    });
}

/// Runs `body` on this thread; ends the process if it takes longer than `limit`.
fn watched<T>(limit: Duration, body: impl FnOnce() -> T) -> T {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let (done, is_done) = sync_channel::<()>(0);
    let watchdog = thread::Builder::new().name(census::WATCHDOG.to_owned()).spawn(move || {
        if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            // Not `eprintln!`, which the harness captures and an abort loses.
            let _ = writeln!(
                std::io::stderr(),
                "{test} has taken longer than {limit:?}; processes: {}",
                processes::table()
            );
            std::process::abort();
        }
    });
    let watchdog = watchdog.expect("a thread for the watchdog");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    drop(done);
    watchdog.join().expect("the watchdog does not panic");
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The module of the test that runs, which is the stem of its file's name.
pub(crate) fn file() -> String {
    let own = thread::current();
    let test = own.name().filter(|name| name.contains("::")).map(str::to_owned);
    let test = test.or_else(|| TEST.get().cloned()).unwrap_or_default();
    test.split("::").next().unwrap_or_default().to_owned()
}

/// Waits until `holds`; panics with `what` if that has not happened before `deadline`.
pub(crate) fn eventually(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !holds() {
        assert!(Instant::now() < end, "this has not come true within {deadline:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// How many rounds a test of chance makes: `least`, times `PROCESS_TASK_ROUNDS`.
pub(crate) fn rounds(least: usize) -> usize {
    let times = std::env::var("PROCESS_TASK_ROUNDS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    least.saturating_mul(times)
}

/// Starts what this process keeps for ever: the reactor's thread, the fork server, and its full stock of spares.
pub(crate) fn warm_up() {
    nothing.spawn().join().expect("a process that does nothing");
    spares_are_ready(0);
}

/// Waits until the stock of spares is full while `running` other children of the fork server live, and their descriptors are open.
pub(crate) fn spares_are_ready(running: usize) {
    // The fork server, and as many spares as the library promises itself: one per processor, 2 to 8.
    let family = 1 + process_task::available_parallelism().clamp(2, 8) + running;
    eventually("the stock of spares is full, and nothing else runs", Duration::from_secs(20), || {
        // A process is there before its pidfd has come.
        let known = census::pidfds() >= family;
        process_task::active_children().len() == running && processes::descendants().len() == family && known
    });
}

#[process_task]
fn nothing() {}

/// Describes processes that are made by `method`.
pub(crate) fn process_builder(method: StartMethod) -> ProcessBuilder {
    let mut builder = ProcessBuilder::new();
    builder.start_method(method);
    builder
}
