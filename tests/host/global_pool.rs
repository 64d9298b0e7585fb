//! What the pool that the whole program shares promises.
//!
//! Runs in: a victim, which has such a pool until it ends. Never: makes one in the test process, where it would stay.

use crate::support;
use crate::support::subprocess::{self, reached};
use process_task::{Pool, StartMethod, process_task};

#[process_task]
fn own_id() -> u32 {
    std::process::id()
}

/// Uses the global pool of the worker that it runs in.
#[process_task]
fn ask_again() -> (u32, u32) {
    let pool = Pool::global().expect("a pool of this worker's own");
    (std::process::id(), pool.call(own_id, ()).expect("a worker of its own"))
}

#[test]
fn global_pool_is_the_same_for_all_threads() {
    support::promise(|| subprocess::plays("global", StartMethod::ForkServer));
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    if subprocess::scene().is_none() {
        return;
    }
    subprocess::say_panics();
    let pool = Pool::global().unwrap();
    let others: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| std::ptr::from_ref(Pool::global().unwrap()).addr())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(others.iter().all(|other| *other == std::ptr::from_ref(pool).addr()));
    assert_ne!(pool.call(own_id, ()).unwrap(), std::process::id());
    let (worker, below) = pool.call(ask_again, ()).unwrap();
    assert!(worker != below && worker != std::process::id() && below != std::process::id());
    reached("played");
}
