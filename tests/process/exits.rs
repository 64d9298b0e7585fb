//! What a process promises about its way out after its task has returned: the result stands, and the end has a bound.
//!
//! Runs in: the test process; its tasks run in processes of their own. Never: depends on how fast anything is.
#![expect(unsafe_code, reason = "an exit handler that hangs")]

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use crate::support::processes::alive;
use crate::support::scratch::Scratch;
use crate::support::{self, PATIENCE, eventually};
use process_task::{ErrorKind, ProcessBuilder, StartMethod, active_children, process_task};

under_every_start_method! {
    within 120 seconds;
    hanging_exit_handler_ends_in_five_seconds,
    hanging_exit_handler_ends_when_its_builder_says,
    detached_process_that_hangs_when_it_exits_is_killed,
    exit_in_time_is_not_ended,
    panicked_task_that_hangs_when_it_exits_is_killed,
    timed_out_process_is_dead_when_it_is_joined,
}

const SHORT: Duration = Duration::from_millis(100);

extern "C" fn hang_at_exit() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

extern "C" fn note_at_exit() {
    std::thread::sleep(SHORT);
    let _ = std::fs::write(std::env::var_os("NOTE").expect("a variable"), "left");
}

fn at_exit(handler: extern "C" fn()) {
    // SAFETY: the handler is a function of this program, and takes nothing.
    assert_eq!(unsafe { nix::libc::atexit(handler) }, 0);
}

#[process_task]
fn hang_when_exiting() -> u32 {
    at_exit(hang_at_exit);
    7
}

#[process_task]
fn panic_and_hang() {
    at_exit(hang_at_exit);
    panic!("and then it hangs");
}

#[process_task]
fn note_when_exiting() {
    at_exit(note_at_exit);
}

#[process_task]
fn hang() {
    hang_at_exit();
}

fn hanging_exit_handler_ends_in_five_seconds(method: StartMethod) {
    let mut process = ProcessBuilder::new().start_method(method).spawn(hang_when_exiting, ()).unwrap();
    assert_eq!(process.wait().unwrap().signal(), Some(nix::libc::SIGKILL));
    assert_eq!(process.join(), Ok(7));
}

fn hanging_exit_handler_ends_when_its_builder_says(method: StartMethod) {
    let mut process =
        ProcessBuilder::new().start_method(method).exit_timeout(SHORT).spawn(hang_when_exiting, ()).unwrap();
    let status = process.wait_timeout(PATIENCE).expect("an end").unwrap();
    assert_eq!((status.signal(), process.join()), (Some(nix::libc::SIGKILL), Ok(7)));
    // Not even a moment.
    let mut process =
        ProcessBuilder::new().start_method(method).exit_timeout(Duration::ZERO).spawn(hang_when_exiting, ()).unwrap();
    assert!(process.wait_timeout(PATIENCE).is_ok());
}

fn detached_process_that_hangs_when_it_exits_is_killed(method: StartMethod) {
    ProcessBuilder::new().start_method(method).exit_timeout(SHORT).spawn(hang_when_exiting, ()).unwrap().detach();
    eventually("it is gone", PATIENCE, || active_children().is_empty());
}

fn exit_in_time_is_not_ended(method: StartMethod) {
    let scratch = Scratch::new();
    for limit in [Duration::from_mins(1), Duration::MAX] {
        let note = scratch.file("note");
        let mut process = ProcessBuilder::new()
            .start_method(method)
            .env("NOTE", &note)
            .exit_timeout(limit)
            .spawn(note_when_exiting, ())
            .unwrap();
        assert_eq!(process.wait().unwrap().code(), Some(0));
        assert_eq!(process.join(), Ok(()));
        std::fs::remove_file(note).expect("what the exit handler has written");
    }
}

fn panicked_task_that_hangs_when_it_exits_is_killed(method: StartMethod) {
    let mut process = ProcessBuilder::new().start_method(method).exit_timeout(SHORT).spawn(panic_and_hang, ()).unwrap();
    assert_eq!(process.wait().unwrap().signal(), Some(nix::libc::SIGKILL));
    assert!(matches!(process.join().unwrap_err().kind(), ErrorKind::Panicked { .. }));
}

fn timed_out_process_is_dead_when_it_is_joined(method: StartMethod) {
    for _ in 0..support::rounds(4) {
        let process =
            ProcessBuilder::new().start_method(method).spawn(hang.timeout(Duration::from_millis(5)), ()).unwrap();
        while !process.is_finished() {
            std::hint::spin_loop();
        }
        let pid = process.pid().expect("a process");
        let (dead, error) = (!alive(pid), process.join().unwrap_err());
        assert!(dead && matches!(error.kind(), ErrorKind::TimedOut { .. }), "{error}");
    }
}
