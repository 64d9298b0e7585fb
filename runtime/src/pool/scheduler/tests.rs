//! What [`Scheduler::settle`] finds, without any process: starts, failures, and what a closed pool does with its calls.
//!
//! Runs in: a test process.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::Scheduler;
use crate::error::{Error, ErrorKind};
use crate::link::Payload;
use crate::pool::call::{Call, QueuedCall};
use crate::pool::config::PoolConfig;
use crate::pool::leadership::Leader;
use crate::pool::slot::{NotifyFlags, SlotState};
use crate::supervisor::SpawnAttributes;
use crate::sys::Errno;
use crate::task::Options;

/// A pool that starts workers when there is work for them, or at once.
fn scheduler(slots: usize, eager: bool) -> Scheduler {
    let config = PoolConfig {
        processors: 2,
        name: "worker".to_owned(),
        options: SpawnAttributes::default(),
        initializer: None,
        finalizer: None,
        quota: None,
        may_be_refused: false,
        eager,
        idle_timeout: None,
        grace: None,
        exit_timeout: None,
    };
    Scheduler::new(Arc::new(config), slots)
}

fn submit(scheduler: &mut Scheduler) -> Arc<Call> {
    let call = Arc::new(Call::new("task", 0, Options::new()));
    scheduler.submit(QueuedCall { call: Arc::clone(&call), payload: Payload::small(Vec::new()) });
    scheduler.settle();
    call
}

/// The slots for which a worker is to be started now.
fn starts(scheduler: &mut Scheduler) -> Vec<usize> {
    scheduler.take_effects().unwrap_or_default().workers.start.iter().map(|start| start.number).collect()
}

#[test]
fn each_waiting_call_starts_one_worker() {
    let mut scheduler = scheduler(2, false);
    assert!(starts(&mut scheduler).is_empty());
    submit(&mut scheduler);
    assert_eq!(starts(&mut scheduler), [0]);
    scheduler.settle();
    assert!(starts(&mut scheduler).is_empty(), "nothing has changed");
    let start = crate::pool::effects::Start { number: 0, pause: None, standby: false };
    assert!(scheduler.workers.confirm_start(start));
    assert!(!scheduler.workers.confirm_start(start), "it was confirmed");
    submit(&mut scheduler);
    assert_eq!(starts(&mut scheduler), [1]);
    submit(&mut scheduler);
    assert!(starts(&mut scheduler).is_empty(), "there are two slots");
}

#[test]
fn failed_start_is_tried_again_while_work_waits() {
    let mut scheduler = scheduler(1, false);
    let call = submit(&mut scheduler);
    let error = Error::could_not_start("fork", Errno::EAGAIN);
    for _ in 0..3 {
        let effects = scheduler.take_effects().unwrap_or_default();
        let [start] = effects.workers.start[..] else { panic!("{:?}", effects.workers.start) };
        assert!(scheduler.workers.confirm_start(start));
        scheduler.workers.start_failed(0, &error);
        scheduler.settle();
        assert!(!call.is_settled());
    }
}

#[test]
fn starts_that_are_not_confirmed_yet_count() {
    let mut scheduler = scheduler(4, false);
    let _calls = [submit(&mut scheduler), submit(&mut scheduler)];
    let effects = scheduler.take_effects().unwrap();
    let [first, second] = effects.workers.start[..] else { panic!("{:?}", effects.workers.start) };
    assert!(scheduler.workers.confirm_start(first));
    scheduler.settle();
    assert!(starts(&mut scheduler).is_empty(), "two calls wait, and two workers come");
    assert!(scheduler.workers.confirm_start(second));
    scheduler.workers.start_failed(first.number, &Error::could_not_start("fork", Errno::EAGAIN));
    scheduler.settle();
    assert_eq!(starts(&mut scheduler), [first.number], "it is tried again, and no other slot is tried instead");
}

#[test]
fn pool_that_was_killed_starts_no_worker() {
    let mut scheduler = scheduler(1, false);
    let call = submit(&mut scheduler);
    let start = scheduler.take_effects().unwrap().workers.start[0];
    scheduler.terminate(Error::closed("`kill` was called"));
    scheduler.settle();
    assert!(call.has_failed());
    assert!(!scheduler.workers.confirm_start(start));
}

#[test]
fn lasting_failure_fails_every_call() {
    let mut scheduler = scheduler(1, false);
    let call = submit(&mut scheduler);
    let start = scheduler.take_effects().unwrap().workers.start[0];
    assert!(scheduler.workers.confirm_start(start));
    scheduler.workers.start_failed(0, &Error::could_not_start("execute", Errno::ENOEXEC));
    scheduler.settle();
    assert!(call.has_failed());
    assert_eq!(scheduler.outstanding().load(SeqCst), 0);
    assert!(starts(&mut scheduler).is_empty());
    assert!(submit(&mut scheduler).has_failed());
}

#[test]
fn closed_pool_keeps_its_calls_and_takes_none() {
    let mut scheduler = scheduler(1, false);
    let before = submit(&mut scheduler);
    scheduler.close(Error::closed("test"));
    let after = submit(&mut scheduler);
    assert!(!before.is_settled() && after.has_failed());
    scheduler.terminate(Error::closed("test"));
    scheduler.settle();
    let error = before.outcome().unwrap().as_ref().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Cancelled);
}

#[test]
fn abandoned_call_is_cancelled_in_the_backlog() {
    let mut scheduler = scheduler(1, false);
    let (kept, abandoned) = (submit(&mut scheduler), submit(&mut scheduler));
    abandoned.abandon();
    scheduler.cancel_abandoned();
    scheduler.settle();
    assert!(abandoned.was_cancelled() && !kept.is_settled());
    assert!(scheduler.cancel(&kept, false));
    assert_eq!(scheduler.outstanding().load(SeqCst), 0);
}

#[test]
fn waiting_call_raises_the_flag_for_idle_workers() {
    let mut scheduler = scheduler(1, false);
    submit(&mut scheduler);
    assert_eq!(scheduler.leadership.flags(), NotifyFlags { reply: false, idle: true });
    scheduler.become_leader();
    scheduler.settle();
    assert_eq!(scheduler.leadership.flags(), NotifyFlags::default());
    scheduler.step_down();
    scheduler.settle();
    assert_eq!(scheduler.leadership.leader(), Leader::None);
    assert_eq!(scheduler.leadership.flags(), NotifyFlags { reply: false, idle: true });
}

#[test]
fn eager_pool_fills_new_slots_at_once() {
    let mut scheduler = scheduler(1, true);
    scheduler.resize(3);
    scheduler.settle();
    let mut started = starts(&mut scheduler);
    started.sort_unstable();
    assert_eq!(started, [0, 1, 2]);
    scheduler.resize(1);
    scheduler.settle();
    assert_eq!(scheduler.workers.count(), 1);
    let vacant = |number: usize| matches!(scheduler.workers.slots.get(number).state, SlotState::Vacant);
    assert!(!vacant(0) && vacant(1) && vacant(2));
}
