//! Signals for one process, by its id, and what is there when they have come.
//!
//! Runs in: the test process.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{PATIENCE, eventually};

/// Sends `signal` to the process.
pub(crate) fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("a process of ours");
}

/// Stops the process, and waits until none of its threads runs.
pub(crate) fn stop(pid: u32) {
    send(pid, Signal::SIGSTOP);
    until_stopped(pid);
}

/// Waits until all threads of the process are stopped.
pub(crate) fn until_stopped(pid: u32) {
    eventually("each thread has stopped", PATIENCE, || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process of ours");
        let stats = threads.map(|thread| fs::read_to_string(thread?.path().join("stat")));
        // One that has ended meanwhile has no such file.
        stats.flatten().all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    });
}

/// Waits until the process has a handler of its own for `signal`.
pub(crate) fn until_caught(pid: u32, signal: Signal) {
    eventually("the signal has a handler", PATIENCE, || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).map(str::trim);
        let caught = caught.and_then(|mask| u64::from_str_radix(mask, 16).ok()).expect("a mask of signals");
        caught >> (signal as i32 - 1) & 1 == 1
    });
}
