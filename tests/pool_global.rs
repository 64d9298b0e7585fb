//! What the pool that everybody shares promises.
//!
//! Runs in: the test process, which has such a pool until it ends, and so has this file to itself. Never: has a census, since
//! the pool stays.

mod support;

use std::time::Duration;

use process_task::{ErrorKind, Pool, ShutdownMode, process_task};

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
fn everybody_gets_the_same_pool_and_nobody_may_end_it() {
    support::within(Duration::from_mins(1), || {
        let pool = Pool::global().unwrap();
        let others: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| std::ptr::from_ref(Pool::global().unwrap()).addr())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(others.iter().all(|other| *other == std::ptr::from_ref(pool).addr()));
        for refused in [pool.close(), pool.kill(), pool.shutdown(ShutdownMode::Cancel), pool.join()] {
            let error = refused.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
            assert!(error.to_string().contains("global"), "{error}");
        }
        assert_ne!(pool.call(own_id, ()).unwrap(), std::process::id());
        let (worker, below) = pool.call(ask_again, ()).unwrap();
        assert!(worker != below && worker != std::process::id() && below != std::process::id());
    });
}
