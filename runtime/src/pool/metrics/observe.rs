//! What the scheduler counts and records as it goes.
//!
//! Runs in: the parent, under the mutex. No clock is read for a call unless an observer wants to know.
//!
//! A call's time on a timeline begins when its worker can have begun it: when it was given out, or when the reply to the
//! one before it was taken. It ends when its own reply is taken; several replies that are taken at once share the time.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;

use super::event::{EventKind, PoolEvent, WorkerRef};
use super::latency::{CallTimes, Sampling};
use super::recorder::Recorder;
use super::slot_stats::SlotStats;
use crate::error::Error;
use crate::link::Reply;
use crate::pool::call::Call;
use crate::pool::slot::Request;
use crate::supervisor::MAX_DEATH_TIME;

/// What a pool knows of its own doing, and which observers want to know it.
#[derive(Debug)]
pub(in crate::pool) struct Metrics {
    /// Moments are counted from here, in nanoseconds.
    epoch: Instant,
    pub(super) sampling: Sampling,
    pub(super) settled: u64,
    recorder: Option<Arc<Recorder>>,
    /// How many replies to calls were taken at once, and are not settled yet.
    replies: u64,
    /// How many workers were killed because they did not end in time, and how many finalizers have failed.
    pub(super) forced: u64,
    pub(super) failed_finalizers: u64,
    /// What happened and was not told yet.
    events: Vec<NotedEvent>,
}

/// Something that happened, and the file that it goes into.
pub(in crate::pool) type NotedEvent = (PoolEvent, Option<Arc<Recorder>>);

impl Metrics {
    pub(in crate::pool) fn new() -> Self {
        let epoch = Instant::now();
        Self {
            epoch,
            sampling: Sampling::since(epoch),
            settled: 0,
            recorder: None,
            replies: 0,
            forced: 0,
            failed_finalizers: 0,
            events: Vec::new(),
        }
    }

    /// The present moment.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether the workers have to notify of each reply, so that its time is known.
    pub(in crate::pool) fn are_exact(&self) -> bool {
        self.recorder.is_some()
    }

    /// Whether an observer wants to know of each call.
    #[inline]
    pub(in crate::pool) fn at_calls(&self) -> bool {
        self.are_exact() || LevelFilter::current() >= LevelFilter::TRACE
    }

    /// A call was submitted, with `others` others that are not settled.
    #[inline]
    pub(in crate::pool) fn submitted(&mut self, stamps: &CallTimes, others: usize) {
        self.sampling.submitted(&stamps.submitted, others);
    }

    /// A worker got a call.
    #[inline]
    pub(in crate::pool) fn given(&self, stamps: &CallTimes) {
        if self.are_exact() {
            stamps.given.store(self.now(), Relaxed);
        }
    }

    /// A call is about to be settled.
    #[inline]
    pub(in crate::pool) fn settled(&mut self, call: &Call) {
        self.settled += u64::from(call.settles());
        self.sampling.settled(&call.times.submitted);
    }

    /// The timeline that is being recorded.
    pub(in crate::pool) fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.as_ref()
    }

    pub(in crate::pool) fn set_recorder(&mut self, recorder: Option<Arc<Recorder>>) {
        self.recorder = recorder;
    }

    #[inline]
    pub(in crate::pool) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Takes what happened, to be told once the mutex is released.
    pub(in crate::pool) fn take_events(&mut self) -> Vec<NotedEvent> {
        std::mem::take(&mut self.events)
    }

    fn note_now(&mut self, worker: Option<WorkerRef>, what: impl FnOnce() -> EventKind) {
        self.note(self.now(), worker, what);
    }

    /// Records an event, if there are observers.
    fn note(&mut self, at: u64, worker: Option<WorkerRef>, what: impl FnOnce() -> EventKind) {
        if self.are_exact() || LevelFilter::current() > LevelFilter::OFF {
            self.events.push((PoolEvent { at, worker, what: what() }, self.recorder.clone()));
        }
    }

    /// These replies of one worker were taken at once.
    #[inline]
    pub(in crate::pool) fn record_replies(&mut self, replies: &[(Request, Reply)]) {
        if self.at_calls() {
            let calls = replies.iter().filter(|(request, _)| matches!(request, Request::Call(_)));
            self.replies = calls.count() as u64;
        }
    }

    /// A call is about to be settled; `slot` is that of the worker that had it.
    #[cold]
    pub(in crate::pool) fn record_settled(
        &mut self,
        call: &Call,
        slot: Option<&mut SlotStats>,
        worker: Option<WorkerRef>,
        error: Option<&Error>,
    ) {
        let (at, began) = self.times(call, slot);
        let (task, calls, error) = (call.task, call.settles(), error.cloned());
        self.note(at, worker, || EventKind::Settled { task, calls, began, error });
    }

    /// A call has failed, and is made once more; `slot` is that of the worker that had it.
    pub(in crate::pool) fn record_retry(
        &mut self,
        call: &Call,
        slot: Option<&mut SlotStats>,
        worker: Option<WorkerRef>,
        error: &Error,
    ) {
        let (at, began) = self.times(call, slot);
        let attempts = call.attempts().len();
        self.note(at, worker, || EventKind::Retried { task: call.task, attempts, began, error: error.clone() });
    }

    /// A worker is there, and can be given calls.
    pub(in crate::pool) fn record_arrival(&mut self, slot: &mut SlotStats, worker: Option<WorkerRef>) {
        let at = self.now();
        slot.arrived(at);
        let again = slot.restarts() > 0;
        self.note(at, worker, || EventKind::Started { again });
    }

    /// A recording begins, and this worker is there already.
    pub(in crate::pool) fn record_presence(&mut self, slot: &mut SlotStats, worker: Option<WorkerRef>) {
        let at = self.now();
        slot.last_reply = at;
        if worker.is_some() {
            let again = slot.restarts() > 0;
            self.note(at, worker, || EventKind::Started { again });
        }
    }

    /// A worker gets no more calls: its times are summed up.
    pub(in crate::pool) fn record_departure(&self, slot: &mut SlotStats, busy: Duration) {
        slot.left(busy, self.now());
    }

    /// A worker is told to end, because it is not needed any more.
    pub(in crate::pool) fn record_leaving(&mut self, worker: Option<WorkerRef>) {
        if worker.is_some() {
            self.note_now(worker, || EventKind::Left);
        }
    }

    /// A worker was stopped by a signal while it had `task`, or continued.
    pub(in crate::pool) fn record_stop(&mut self, worker: WorkerRef, task: Option<&'static str>, signal: Option<i32>) {
        let what = signal.map_or(EventKind::Continued, |signal| EventKind::Stopped { task, signal });
        self.note_now(Some(worker), || what);
    }

    /// A worker has ended that was not told to, while it ran `task`.
    pub(in crate::pool) fn record_death(&mut self, slot: usize, error: Error, task: Option<&'static str>) {
        let unnamed = WorkerRef { slot, name: String::new(), pid: 0 };
        let worker = WorkerRef::of_error(slot, &error).unwrap_or(unnamed);
        self.note_now(Some(worker), || EventKind::Died { task, error });
    }

    /// A worker has ended that was killed, because of what it ran.
    pub(in crate::pool) fn record_kill(&mut self, worker: WorkerRef, cause: &Error, task: Option<&'static str>) {
        self.note_now(Some(worker), || EventKind::Killed { task, cause: cause.clone() });
    }

    /// A worker that leaves is killed, since it took longer than `limit` for its finalizer, which is `task`, or to exit.
    pub(in crate::pool) fn record_forced_end(
        &mut self,
        worker: WorkerRef,
        task: Option<&'static str>,
        limit: Duration,
    ) {
        self.forced += 1;
        self.note_now(Some(worker), || EventKind::Forced { task, limit });
    }

    /// A worker that was killed does not end.
    pub(in crate::pool) fn record_stuck(&mut self, worker: WorkerRef) {
        self.note_now(Some(worker), || EventKind::Stuck { waited: MAX_DEATH_TIME });
    }

    /// A finalizer has failed, or was killed.
    pub(in crate::pool) fn record_failed_finalizer(&mut self, slot: usize, error: Error) {
        self.failed_finalizers += 1;
        let worker = WorkerRef::of_error(slot, &error);
        self.note_now(worker, || EventKind::NotFinalized { error });
    }

    /// A worker could not be started, `failures` times in a row, and is tried again after `pause`.
    pub(in crate::pool) fn record_failed_start(
        &mut self,
        worker: WorkerRef,
        error: &Error,
        (failures, pause): (usize, Duration),
    ) {
        self.note_now(Some(worker), || EventKind::NotStarted { error: error.clone(), failures, pause });
    }

    /// A worker is about to be killed, because its call has taken too long.
    pub(in crate::pool) fn record_time_out(&mut self, worker: Option<WorkerRef>, task: &'static str, limit: Duration) {
        self.note_now(worker, || EventKind::TimedOut { task, limit });
    }

    /// The pool takes no more calls.
    pub(in crate::pool) fn record_closing(&mut self, cause: &Error, failed: bool) {
        self.note_now(None, || EventKind::Closed { cause: cause.clone(), failed });
    }

    /// When a call ended, and when it began, both not earlier than the one before it ended.
    fn times(&mut self, call: &Call, slot: Option<&mut SlotStats>) -> (u64, u64) {
        let now = self.now();
        let Some(slot) = slot else { return (now, now) };
        let began = slot.last_reply.max(call.times.given.load(Relaxed)).min(now);
        let sharing = self.replies.max(1);
        self.replies = sharing - 1;
        let ended = began + (now - began) / sharing;
        slot.last_reply = ended;
        (ended, began)
    }
}
