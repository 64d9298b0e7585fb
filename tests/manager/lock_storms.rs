//! Clients that are killed at any moment while they hold and wait for what a manager gives out: all of it comes back.
//!
//! Runs in: the test process, its tasks, and managers.

use std::sync::PoisonError;
use std::time::Duration;

use crate::objects::{manager, until_objects};
use crate::support::chaos::{Herd, start};
use crate::support::{PATIENCE, eventually};
use process_task::managed::{Condition, Dict, Event, JoinableQueue, Lock, Queue, ReentrantLock, Semaphore};
use process_task::{ErrorKind, Process, StartMethod, process_task};
use serde::{Deserialize, Serialize};

under_every_start_method! { within 300 seconds; killed_clients_leave_nothing_held }

/// How long a churning process waits at most.
const SHORT: Duration = Duration::from_millis(3);

/// Number of items that are lent, and of permits.
const ITEMS: usize = 5;

#[derive(Clone, Serialize, Deserialize)]
struct Given {
    lock: Lock,
    changed: Condition,
    reentrant: ReentrantLock,
    permits: Semaphore,
    jobs: JoinableQueue<u64>,
    full: Queue<u64>,
    never: Event,
    counts: Dict<u64, u64>,
}

#[process_task]
#[expect(clippy::unnecessary_wraps, reason = "an update may take the value out")]
fn add(old: Option<u64>, more: u64) -> Option<u64> {
    Some(old.unwrap_or(0) + more)
}

/// Fails by a time-out, or not at all.
#[track_caller]
fn may_be_late<T>(outcome: process_task::Result<T>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Elapsed), "{error}");
            None
        }
    }
}

/// Takes, waits and gives back, until it is killed.
#[process_task]
fn take_and_wait(given: &Given) {
    let hasty = given.lock.with_timeout(SHORT);
    for round in 0_u64.. {
        let guard = may_be_late(hasty.lock()).map(|locked| locked.unwrap_or_else(PoisonError::into_inner));
        if let Some(guard) = guard {
            given.changed.notify_one().unwrap();
            if round % 3 == 0 {
                drop(may_be_late(given.changed.wait(guard)));
            }
        }
        let outer = given.reentrant.lock().unwrap();
        let inner = given.reentrant.lock().unwrap();
        drop((outer, inner));
        drop(may_be_late(given.permits.with_timeout(SHORT).acquire()));
        drop(may_be_late(given.jobs.with_timeout(SHORT).recv()));
        may_be_late(given.full.with_timeout(SHORT).send(round));
        may_be_late(given.never.with_timeout(SHORT).wait());
        given.counts.update(&(round % 3), add, 1).unwrap();
        let half = given.counts.iter().take(2).count();
        assert!(half <= 2);
    }
}

fn killed_clients_leave_nothing_held(method: StartMethod) {
    const CLIENTS: usize = 4;
    let manager = manager(method);
    let lock = Lock::new(&manager).unwrap();
    let given = Given {
        changed: lock.condition().unwrap(),
        lock,
        reentrant: ReentrantLock::new(&manager).unwrap(),
        permits: Semaphore::new(&manager, ITEMS as u64).unwrap(),
        jobs: JoinableQueue::unbounded(&manager).unwrap(),
        full: Queue::bounded(&manager, 1).unwrap(),
        never: Event::new(&manager).unwrap(),
        counts: Dict::new(&manager).unwrap(),
    };
    (0..ITEMS as u64).for_each(|job| given.jobs.send(job).unwrap());
    let mut herd = Herd::new(CLIENTS, |_| -> Process<()> { start(method, take_and_wait, &given) });
    herd.hunt(|_| (), |_| ());
    herd.kill();
    eventually("this process is the only client", PATIENCE, || manager.stats().unwrap().clients() == 1);
    assert!(!given.lock.is_locked().unwrap() && !given.reentrant.is_locked().unwrap());
    assert_eq!(given.permits.available().unwrap(), ITEMS as u64);
    assert_eq!((given.jobs.len().unwrap(), given.jobs.unfinished().unwrap()), (ITEMS, ITEMS));
    let mut jobs: Vec<_> = (0..ITEMS).map(|_| given.jobs.try_recv().unwrap().unwrap()).collect();
    jobs.sort_by_key(|job| **job);
    assert_eq!(jobs.iter().map(|job| **job).collect::<Vec<_>>(), (0..ITEMS as u64).collect::<Vec<_>>());
    drop(jobs);
    assert_eq!(given.changed.notify_all().unwrap(), 0);
    assert!(given.full.len().unwrap() <= 1);
    assert!(given.counts.to_vec().unwrap().iter().all(|(_, count)| *count > 0));
    drop(given);
    until_objects(&manager, 0);
}
