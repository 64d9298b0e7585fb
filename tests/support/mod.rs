//! What every test stands on: a watchdog, a census of what a test leaves behind, and one test per start method.
//!
//! Runs in: the test process; a task of its own, which does nothing, runs in children.
//! Never: waits for time where it could wait for a condition, and never lets a test hang.
//!
//! A census only means something while no other test of the same process runs, so [`promise`] holds one lock for all.
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
pub(crate) mod single_step;
pub(crate) mod soak_load;
pub(crate) mod subprocess;

use std::cell::Cell;
use std::io::Write as _;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
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
/// `under_every_start_method! { within 300 seconds; a_long_one }`. After `apart`, each is a [`promise_apart`].
#[macro_export]
macro_rules! under_every_start_method {
    ($($name:ident),+ $(,)?) => {
        $crate::under_every_start_method! { within 60 seconds; $($name),+ }
    };
    (within $seconds:literal seconds; $($name:ident),+ $(,)?) => {
        $crate::under_every_start_method! { @ promise_within, fork_server, exec, $seconds; $($name),+ }
    };
    (apart within $seconds:literal seconds; $($name:ident),+ $(,)?) => {
        $crate::under_every_start_method! { @ promise_apart, apart_fork_server, apart_exec, $seconds; $($name),+ }
    };
    (@ $promise:ident, $fork_server:ident, $exec:ident, $seconds:literal; $($name:ident),+) => {
        mod $fork_server {
            $(#[test] fn $name() {
                let limit = std::time::Duration::from_secs($seconds);
                $crate::support::$promise(limit, || super::$name(process_task::StartMethod::ForkServer));
            })+
        }
        mod $exec {
            $(#[test] fn $name() {
                let limit = std::time::Duration::from_secs($seconds);
                $crate::support::$promise(limit, || super::$name(process_task::StartMethod::Exec));
            })+
        }
    };
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The name of the test whose turn it is, for its other threads.
static RUNNING: Mutex<String> = Mutex::new(String::new());

thread_local! {
    static HAS_ITS_TURN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `test` alone in this process, inside a watchdog, between two censuses that must agree.
pub(crate) fn promise(test: impl FnOnce()) {
    promise_within(LIMIT, test);
}

/// [`promise`], with a limit of its own.
pub(crate) fn promise_within(limit: Duration, test: impl FnOnce()) {
    within(limit, || {
        warm_up();
        let before = census::census();
        test();
        census::clean(&before);
    });
}

/// [`promise_within`], in a process of its own, beside the other tests of this one: for a test that mostly waits.
pub(crate) fn promise_apart(limit: Duration, test: impl FnOnce()) {
    if apart::is_here() {
        promise_within(limit, test);
    } else {
        apart::run();
    }
}

/// Runs `body` on this thread, alone in this process; ends the process if it takes longer than `limit`.
pub(crate) fn within<T>(limit: Duration, body: impl FnOnce() -> T) -> T {
    census::register_this_thread();
    if HAS_ITS_TURN.get() {
        return watched(limit, body);
    }
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    HAS_ITS_TURN.set(true);
    let own = thread::current().name().unwrap_or_default().to_owned();
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = own;
    let _back = GiveBack;
    let result = watched(limit, body);
    drop(turn);
    result
}

struct GiveBack;

impl Drop for GiveBack {
    fn drop(&mut self) {
        HAS_ITS_TURN.set(false);
    }
}

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
    let test = test.unwrap_or_else(|| RUNNING.lock().unwrap_or_else(PoisonError::into_inner).clone());
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
