//! What a manager runs before it takes calls, and what `start` says where that fails.
//!
//! Runs in: the test process, and managers. Also the rows MG07 and MG08 of the list of Python's cases: an initializer runs
//! once, and a manager that was shut down leaves nothing.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::objects::{CounterProxy, until_objects};
use crate::support::shared_counter::{Stage, reach, stage as new_stage};
use process_task::{ErrorKind, Execution, Manager, StartMethod, active_children, process_task};

under_every_start_method! {
    initializer_runs_once_before_any_call,
    initializer_that_panics_is_the_error_of_start,
    initializer_that_ends_its_process_is_told_of,
    initializer_that_takes_too_long_is_killed,
    initializer_with_options_that_do_not_act_is_refused,
    manager_that_was_shut_down_leaves_nothing,
}

static RUNS: AtomicU32 = AtomicU32::new(0);

#[process_task]
fn begin(stage: &Stage, by: u32) {
    RUNS.fetch_add(by, SeqCst);
    reach(stage);
}

#[process_task]
fn runs() -> u32 {
    RUNS.load(SeqCst)
}

fn initializer_runs_once_before_any_call(method: StartMethod) {
    let stage = new_stage();
    let manager = Manager::builder().start_method(method).initializer(begin, (&stage, 7)).start().unwrap();
    assert_eq!(stage.load(SeqCst), 1);
    assert_eq!(manager.call(runs, ()).unwrap(), 7);
    assert_eq!(manager.call(runs, ()).unwrap(), 7);
    assert_eq!(stage.load(SeqCst), 1);
    assert_eq!(RUNS.load(SeqCst), 0, "it ran in the manager");
}

#[process_task]
fn fail(why: &str) {
    panic!("not today: {why}");
}

fn initializer_that_panics_is_the_error_of_start(method: StartMethod) {
    let started = Manager::builder().name("unlucky").start_method(method).initializer(fail, "rain").start();
    let error = started.unwrap_err();
    match error.kind() {
        ErrorKind::Panicked { message, location, .. } => {
            assert_eq!(message, "not today: rain");
            assert!(location.as_ref().unwrap().contains("starts.rs"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(error.execution(), Execution::Finished);
    assert!(error.task().unwrap().ends_with("::fail"), "{error}");
    assert_eq!(error.process().unwrap().0, "unlucky");
}

#[process_task]
#[expect(clippy::exit, reason = "what is tested is that it ends its process")]
fn leave(code: i32) {
    std::process::exit(code);
}

fn initializer_that_ends_its_process_is_told_of(method: StartMethod) {
    let error = Manager::builder().start_method(method).initializer(leave, 3).start().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Exited { code: 3, .. }), "{error}");
    assert!(error.to_string().contains("initializer"), "{error}");
    assert!(error.to_string().contains("leave"), "{error}");
}

#[process_task]
fn dawdle(stage: &Stage) {
    reach(stage);
    std::thread::sleep(Duration::from_secs(50));
}

fn initializer_that_takes_too_long_is_killed(method: StartMethod) {
    let (stage, limit, since) = (new_stage(), Duration::from_millis(80), Instant::now());
    let started = Manager::builder().start_method(method).initializer(dawdle.timeout(limit), &stage).start();
    let error = started.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut { limit: its, .. } if *its == limit), "{error}");
    assert!(error.task().unwrap().ends_with("::dawdle"), "{error}");
    assert!(since.elapsed() >= limit && since.elapsed() < Duration::from_secs(20));
    assert_eq!(stage.load(SeqCst), 1);
}

fn initializer_with_options_that_do_not_act_is_refused(method: StartMethod) {
    let stage = new_stage();
    let builder = || Manager::builder().start_method(method);
    let error = builder().initializer(begin.retries(1), (&stage, 1)).start().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    assert!(error.to_string().contains("retries"), "{error}");
    let error = builder().initializer(begin.memory_limit(1 << 30), (&stage, 1)).start().unwrap_err();
    assert!(error.to_string().contains("memory limit"), "{error}");
    assert_eq!(stage.load(SeqCst), 0);
}

fn manager_that_was_shut_down_leaves_nothing(method: StartMethod) {
    let before = active_children().len();
    let manager = Manager::builder().start_method(method).start().unwrap();
    assert_eq!(active_children().len(), before + 1);
    let counter = CounterProxy::new(&manager, 1).unwrap();
    until_objects(&manager, 1);
    drop(counter);
    until_objects(&manager, 0);
    manager.shutdown().unwrap();
    assert_eq!(active_children().len(), before);
}
