//! A host program that is showered with signals gets every result all the same.
//!
//! Runs in: the test process, which handles SIGUSR1 for good; the tasks in children.
//! Never: shares its process with tests that mind.
#![expect(unsafe_code, reason = "a signal handler, and a signal for one thread")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use process_task::{ProcessBuilder, StartMethod, process_task};

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Relaxed);
}

/// Handles SIGUSR1 without restarting system calls, while `body` runs.
fn handling(body: impl FnOnce()) {
    let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing but count.
    let before = unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    body();
    // SAFETY: this is what was there before.
    unsafe { sigaction(Signal::SIGUSR1, &before) }.unwrap();
}

/// Runs `body` on this thread, under a storm of SIGUSR1 at it.
fn in_a_storm(body: impl FnOnce()) {
    let (process, target) = (nix::unistd::getpid().as_raw(), nix::unistd::gettid().as_raw());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                // SAFETY: takes numbers only; the thread of that number waits for this one to end.
                unsafe { libc::syscall(libc::SYS_tgkill, process, target, libc::SIGUSR1) };
                thread::sleep(Duration::from_micros(200));
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        over.store(true, Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

under_every_start_method! {
    results_and_ends_survive_a_storm_of_signals,
    children_do_not_inherit_the_hosts_handlers,
}

#[process_task]
fn square_slowly(x: i64) -> i64 {
    thread::sleep(Duration::from_millis(20));
    x * x
}

fn results_and_ends_survive_a_storm_of_signals(method: StartMethod) {
    let before = HANDLED.load(Relaxed);
    let under_fire = || {
        for x in 0..10 {
            let mut process = ProcessBuilder::new().start_method(method).spawn(square_slowly, x).unwrap();
            assert!(process.wait_timeout(Duration::from_millis(1)).is_err());
            assert_eq!(process.wait().unwrap().code(), Some(0));
            assert_eq!(process.join().unwrap(), x * x);
            assert_eq!(square_slowly.spawn(-x).join().unwrap(), x * x);
        }
    };
    handling(|| in_a_storm(under_fire));
    assert!(HANDLED.load(Relaxed) > before + 50, "there was no storm");
}

/// The handlers of this process: its caught and its ignored signals.
#[process_task]
fn dispositions() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().filter(|line| line.starts_with("SigCgt") || line.starts_with("SigIgn")).map(str::to_owned).collect()
}

fn children_do_not_inherit_the_hosts_handlers(method: StartMethod) {
    let mut seen = vec![];
    handling(|| seen = ProcessBuilder::new().start_method(method).spawn(dispositions, ()).unwrap().join().unwrap());
    let bits = |line: &String| u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
    let bit = |signal: Signal| 1_u64 << (signal as i32 - 1);
    // Beyond the signals with names lie those that belong to the C library.
    let named = bit(Signal::SIGSYS) * 2 - 1;
    let (ignored, caught) = (bits(&seen[0]) & named, bits(&seen[1]));
    // Below a terminal, children print though they are in its background.
    let terminal = if std::fs::File::open("/dev/tty").is_ok() { bit(Signal::SIGTTOU) } else { 0 };
    assert_eq!(ignored, bit(Signal::SIGPIPE) | terminal, "{seen:?}");
    // Two of ours, for stack overflows.
    assert_eq!(caught, bit(Signal::SIGSEGV) | bit(Signal::SIGBUS), "{seen:?}");
}
