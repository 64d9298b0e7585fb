//! What a process promises about signals from its first moment on.
//!
//! Runs in: the test's process and its children. Never: relies on which of two things comes first.

use std::time::Duration;

use crate::support;
use process_task::{Pool, ProcessBuilder, StartMethod, process_task};

under_every_start_method! { a_signal_is_heard_from_the_first_moment_on, a_worker_blocks_what_the_pools_builder_blocks }

#[process_task]
fn endless() {
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

/// The signals that the thread which runs tasks blocks, as the kernel writes them.
#[process_task]
fn blocked() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim().to_owned()
}

fn a_signal_is_heard_from_the_first_moment_on(method: StartMethod) {
    for round in 0..support::rounds(15) {
        let mut process = ProcessBuilder::new().start_method(method).spawn(endless, ()).unwrap();
        process.terminate().unwrap();
        let ended = process.wait_timeout(Duration::from_secs(20)).ok();
        if ended.is_none() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        assert!(ended.is_some(), "round {round}: SIGTERM is lost");
    }
}

fn a_worker_blocks_what_the_pools_builder_blocks(method: StartMethod) {
    let pool = Pool::builder().workers(3).start_method(method).build().unwrap();
    for blocks in pool.imap(blocked, std::iter::repeat_n((), 12)) {
        assert_eq!(blocks.unwrap(), blocked());
    }
    // One that replaces another is asked for elsewhere.
    pool.call(end, ()).unwrap_err();
    for blocks in pool.imap(blocked, std::iter::repeat_n((), 12)) {
        assert_eq!(blocks.unwrap(), blocked());
    }
}

#[process_task]
fn end() {
    std::process::abort();
}
