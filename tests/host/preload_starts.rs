//! What runs in a fork server or in a new child before it is ready may not start processes, or there would be no end to them.
//!
//! Runs in: the test process, victims, and what these start. Never: acts before a victim has said in which scene it plays.
#![expect(unsafe_code, reason = "a constructor, as other crates have them")]

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::support::subprocess::{self, Victim, reached};
use process_task::{ErrorKind, Execution, Pool, Process, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    preload_that_starts_processes_gets_errors,
    preload_that_unwraps_the_error_fails_the_start,
    constructor_that_starts_processes_gets_errors,
}

/// What was heard before this process was ready.
static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

static WORKERS: LazyLock<process_task::Result<Pool>> = LazyLock::new(|| Pool::builder().workers(1).build());

#[process_task::preload]
fn start() {
    match subprocess::scene().map(|(scene, _)| scene).as_deref() {
        Some("preload") => attempts(),
        Some("unwraps") => assert_eq!(square.spawn(3).join().unwrap(), 9),
        _ => {}
    }
}

/// A constructor of another crate's, behind ours. In the victim itself, no process was started yet when it runs.
extern "C" fn construct() {
    let begun = || subprocess::stage().join("begun").exists();
    if subprocess::scene().is_some_and(|(scene, _)| scene == "constructor") && begun() {
        attempts();
    }
}

#[used]
// The section is an array of such functions. Its number is above that of sections without one.
#[unsafe(link_section = ".init_array.70000")]
static CONSTRUCT: extern "C" fn() = construct;

fn attempts() {
    let mut errors = vec![square.spawn(3).join().err(), Pool::new().err(), WORKERS.as_ref().err().cloned()];
    errors.push(Pool::global().err());
    errors.push(ProcessBuilder::new().start_method(StartMethod::Exec).spawn(square, 3).err());
    let words = errors.into_iter().map(|error| error.map_or_else(|| "none".to_owned(), |error| error.to_string()));
    HEARD.lock().unwrap_or_else(PoisonError::into_inner).extend(words);
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn heard() -> Vec<String> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A child that is ready may start processes.
#[process_task]
fn nested(x: i64) -> Result<i64, String> {
    square.spawn(x).join().map_err(|error| error.to_string())
}

fn preload_that_starts_processes_gets_errors(method: StartMethod) {
    plays("preload", method);
}

fn preload_that_unwraps_the_error_fails_the_start(method: StartMethod) {
    plays("unwraps", method);
}

fn constructor_that_starts_processes_gets_errors(method: StartMethod) {
    plays("constructor", method);
}

fn plays(scene: &str, method: StartMethod) {
    let mut victim = Victim::start(scene, method);
    victim.wait_for("played");
    // The fork server, its spares, the children of the scene, and the same once more for the one that starts another.
    assert!(victim.family().len() <= 24, "{} processes", victim.family().len());
    let status = victim.finish();
    assert!(status.success(), "{status}");
    victim.leaves_no_process();
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    reached("begun");
    let began = Instant::now();
    let spawn = || ProcessBuilder::new().start_method(method).spawn(heard, ());
    if scene == "unwraps" {
        for error in [spawn().unwrap_err(), Pool::builder().start_method(method).build().unwrap_err()] {
            let is_start = matches!(error.kind(), ErrorKind::CouldNotStart { .. });
            assert!(is_start && error.execution() == Execution::NotStarted, "{error}");
            let text = error.to_string();
            assert!(text.contains("preload") && text.contains("panicked at tests/host/preload_starts.rs"), "{text}");
            assert!(text.contains("this is the fork server"), "{text}");
        }
        assert!(began.elapsed() < Duration::from_secs(15), "it waited for a server that had ended");
    } else {
        let said = spawn().and_then(Process::join).unwrap();
        let forked = method == StartMethod::ForkServer;
        let runs = if scene == "preload" && !forked { 0 } else { 5 };
        assert_eq!(said.len(), runs, "{said:#?}");
        let own = if forked { "this is the fork server" } else { "has just been executed" };
        let expected = |error: &String| error.contains(own) && error.contains("may not start processes");
        assert!(said.iter().all(expected), "{said:#?}");
        let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
        assert_eq!(pool.map(square, 0..4), Ok(vec![0, 1, 4, 9]));
        assert_eq!(pool.call(nested, 7).unwrap(), Ok(49));
    }
    reached("played");
    subprocess::wait_to_go_on();
}
