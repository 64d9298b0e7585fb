//! What happens when a preload starts a thread: forking is not safe any more, so children are executed.
//!
//! Runs in: a victim, its fork server, and its children. Never: starts a thread in the fork server of another test.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::support;
use crate::support::subprocess::{self, reached};
use process_task::{Pool, StartMethod, process_task};

static LOADED: AtomicBool = AtomicBool::new(false);

#[process_task::preload]
fn start_a_thread() {
    if subprocess::scene().is_none_or(|(scene, _)| scene != "thread of a preload") {
        return;
    }
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
    support::promise(|| subprocess::plays("thread of a preload", StartMethod::ForkServer));
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    if subprocess::scene().is_none() {
        return;
    }
    subprocess::say_panics();
    assert!(!was_forked.spawn().join().unwrap());
    let pool = Pool::builder().workers(2).build().unwrap();
    assert_eq!(pool.map(was_forked, [(), (), ()]).unwrap(), [false; 3]);
    drop(pool);
    reached("played");
}
