//! A pool that gives up, after a minute: its one test takes longer than any other, and its name has the harness begin with it.
//!
//! Runs in: the test process; its tasks run in workers.

use std::time::{Duration, Instant};

use process_task::{ErrorKind, StartMethod};

use crate::starts::{FullTable, builder, kill_all, square};
use crate::support;

/// A pool of each start method, without a worker and without a descriptor for a minute.
#[test]
fn pool_that_has_no_worker_for_a_minute_closes() {
    support::promise_within(Duration::from_mins(3), || {
        let pools = [StartMethod::ForkServer, StartMethod::Exec].map(|method| builder(method, 1).build().unwrap());
        let mut full = FullTable::new();
        for pool in &pools {
            kill_all(pool, || full.fill());
        }
        let waiting = pools.each_ref().map(|pool| pool.submit(square, 3));
        let since = Instant::now();
        let errors = waiting.map(|call| call.join().unwrap_err());
        let waited = since.elapsed();
        drop(full);
        for error in errors {
            assert!(matches!(error.kind(), ErrorKind::Closed { .. }), "{error}");
            assert!(error.to_string().contains("no worker could be started for "), "{error}");
        }
        assert!(waited > Duration::from_secs(30), "{waited:?}");
        drop(pools);
        support::warm_up();
    });
}
