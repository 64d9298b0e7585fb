//! What happens when a preload starts a thread: forking is not safe any more, so children are executed.
//!
//! Runs in: the test's process, the fork server, and its children.

mod support;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use process_task::{Pool, process_task};

static LOADED: AtomicBool = AtomicBool::new(false);

#[process_task::preload]
fn start_a_thread() {
    LOADED.store(true, Relaxed);
    std::thread::spawn(|| {
        loop {
            std::thread::park();
        }
    });
}

#[process_task]
fn was_forked() -> bool {
    LOADED.load(Relaxed)
}

#[test]
fn a_fork_server_with_threads_executes_its_children() {
    support::within(support::PATIENCE, || {
        assert!(!was_forked.spawn().join().unwrap());
        let pool = Pool::builder().workers(2).build().unwrap();
        assert_eq!(pool.map(was_forked, [(), (), ()]).unwrap(), [false; 3]);
    });
}
