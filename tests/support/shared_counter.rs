//! A number in shared memory by which a test and its processes tell each other how far they are.
//!
//! Runs in: the test process and its children. Never: waits for ever.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use process_task::Shared;

use crate::support::processes;

/// How far things are.
pub(crate) type Stage = Shared<AtomicU32>;

pub(crate) fn stage() -> Stage {
    Shared::new(AtomicU32::new(0)).expect("a few bytes of shared memory")
}

/// One more has come to this point.
pub(crate) fn reach(stage: &Stage) {
    stage.fetch_add(1, SeqCst);
}

/// Waits until so many have come to this point.
pub(crate) fn until(stage: &Stage, count: u32) {
    let end = Instant::now() + Duration::from_secs(40);
    while stage.load(SeqCst) < count {
        assert!(Instant::now() < end, "{count} are waited for, and {} have come", stage.load(SeqCst));
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits to be killed.
pub(crate) fn until_killed() -> ! {
    thread::sleep(Duration::from_secs(50));
    panic!("this process was not killed");
}

/// Waits until that process, which has one thread of its own, sleeps.
pub(crate) fn until_asleep(pid: u32) {
    let end = Instant::now() + Duration::from_secs(40);
    let asleep = |pid| processes::descendants().get(&pid).is_some_and(|entry| entry.state == 'S');
    while !(asleep(pid) && asleep(pid)) {
        assert!(Instant::now() < end, "{pid} does not fall asleep");
        thread::sleep(Duration::from_millis(1));
    }
}
