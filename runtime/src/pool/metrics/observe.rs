//! Where the schedule says what it does.
//!
//! Owns: [`Metrics`]. Runs in: the parent, under the mutex. Never: looks at a clock for a call unless an observer wants to
//! know.
//!
//! A call's time on a timeline begins when its worker can have begun it: when it was given out, or when the reply to the
//! one before it was taken. It ends when its own reply is taken; several replies that are taken at once share the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;

use super::event::{EventKind, PoolEvent, WorkerRef};
use super::latency::{Sampling, Stamp};
use super::recorder::Recorder;
use crate::error::Error;
use crate::link::Reply;
use crate::pool::call::Call;
use crate::pool::scheduler::{Phase, Scheduler};
use crate::pool::slot::{Request, Worker};
use crate::supervisor::{ChildHandle, MAX_DEATH_TIME};

/// What a pool knows of its own doing, and which observers want to know it.
#[derive(Debug)]
pub(in crate::pool) struct Metrics {
    /// Moments are counted from here, in nanoseconds.
    epoch: Instant,
    pub(super) sampling: Sampling,
    pub(super) settled: u64,
    pub(super) recorder: Option<Arc<Recorder>>,
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

/// When what happened to a call, as far as an observer wants to know.
#[derive(Debug, Default)]
pub(in crate::pool) struct CallTimes {
    submitted: Stamp,
    /// When a worker got it, in nanoseconds since the pool was made.
    given: AtomicU64,
}

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

    /// Whether the workers have to ring for each reply, so that its time is known.
    pub(in crate::pool) fn are_exact(&self) -> bool {
        self.recorder.is_some()
    }

    /// Whether an observer wants to know of each call.
    #[inline]
    pub(in crate::pool) fn at_calls(&self) -> bool {
        self.are_exact() || LevelFilter::current() >= LevelFilter::TRACE
    }

    /// A call was submitted, with so many others that are not settled.
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

    /// Takes what happened, to be told once the mutex is released.
    pub(in crate::pool) fn take_events(&mut self) -> Vec<NotedEvent> {
        std::mem::take(&mut self.events)
    }

    fn note_now(&mut self, who: Option<WorkerRef>, what: impl FnOnce() -> EventKind) {
        self.note(self.now(), who, what);
    }

    /// Records an event, if there are observers.
    fn note(&mut self, at: u64, who: Option<WorkerRef>, what: impl FnOnce() -> EventKind) {
        if self.are_exact() || LevelFilter::current() > LevelFilter::OFF {
            self.events.push((PoolEvent { at, who, what: what() }, self.recorder.clone()));
        }
    }
}

impl Scheduler {
    /// These replies of one worker were taken at once.
    #[inline]
    pub(in crate::pool) fn see_replies(&mut self, replies: &[(Request, Reply)]) {
        if self.metrics.at_calls() {
            let calls = replies.iter().filter(|(asked, _)| matches!(asked, Request::Call(_)));
            self.metrics.replies = calls.count() as u64;
        }
    }

    /// A call is about to be settled; the worker that had it can still be told.
    #[cold]
    pub(in crate::pool) fn see_settled(&mut self, call: &Call, error: Option<&Error>) {
        let (at, began) = self.times(call);
        let who = self.who_had(call, error);
        let (task, calls, error) = (call.task, call.settles(), error.cloned());
        self.metrics.note(at, who, || EventKind::Settled { task, calls, began, error });
    }

    /// A call has failed, and is to be made once more; the worker that had it can still be told.
    pub(in crate::pool) fn see_retry(&mut self, call: &Call, error: &Error) {
        let (at, began) = self.times(call);
        let (who, attempts) = (self.who_had(call, Some(error)), call.attempts().len());
        self.metrics.note(at, who, || EventKind::Retried { task: call.task, attempts, began, error: error.clone() });
    }

    /// A worker is there, and can be given calls.
    pub(in crate::pool) fn see_arrival(&mut self, number: usize) {
        let (at, who) = (self.metrics.now(), self.who(number));
        let tally = &mut self.slots[number].tally;
        tally.arrived(at);
        let again = tally.restarts() > 0;
        self.metrics.note(at, who, || EventKind::Started { again });
    }

    /// A worker gets no more calls: its times are summed up.
    pub(in crate::pool) fn see_departure(&mut self, number: usize, worker: &Worker) {
        let now = self.metrics.now();
        self.slots[number].tally.left(worker.caller.busy(), now);
    }

    /// The worker in this place is told to end, because it is not needed any more.
    pub(in crate::pool) fn see_leaving(&mut self, number: usize) {
        if let Some(who) = self.who(number) {
            self.metrics.note_now(Some(who), || EventKind::Left);
        }
    }

    /// A worker was stopped by a signal, or continued.
    pub(in crate::pool) fn on_worker_stop(&mut self, number: usize, record: &ChildHandle, signal: Option<i32>) {
        let worker = self.slots[number].worker().filter(|worker| worker.record.pid == record.pid);
        // Its setup may be answered and not collected yet, so the oldest call need not be the first of what it has.
        let mut calls = worker.into_iter().flat_map(|worker| worker.caller.tags());
        let task = calls.find_map(|asked| if let Request::Call(call) = asked { Some(call.task) } else { None });
        let who = WorkerRef { slot: number, name: record.name(), pid: record.pid };
        let what = signal.map_or(EventKind::Continued, |signal| EventKind::Stopped { task, signal });
        self.metrics.note_now(Some(who), || what);
    }

    /// A worker has ended that was not told to, while it ran `task`.
    pub(in crate::pool) fn see_death(&mut self, number: usize, error: Error, task: Option<&'static str>) {
        let (name, pid) = error.process().map_or((String::new(), 0), |(name, pid)| (name.to_owned(), pid));
        let who = WorkerRef { slot: number, name, pid };
        self.metrics.note_now(Some(who), || EventKind::Died { task, error });
    }

    /// A worker has ended that was killed, because of what it ran.
    pub(in crate::pool) fn see_kill(
        &mut self,
        number: usize,
        record: &ChildHandle,
        cause: &Error,
        task: Option<&'static str>,
    ) {
        let who = Some(who_is(number, record));
        self.metrics.note_now(who, || EventKind::Killed { task, cause: cause.clone() });
    }

    /// A worker that leaves is killed, since it took longer than `limit` for its finalizer, or to exit.
    pub(in crate::pool) fn see_forced(
        &mut self,
        number: usize,
        record: &ChildHandle,
        (finalizing, limit): (bool, Duration),
    ) {
        self.metrics.forced += 1;
        let finalizer = self.config.finalizer.as_ref().filter(|_| finalizing);
        let task = finalizer.map(|finalizer| finalizer.task().name());
        let who = Some(who_is(number, record));
        self.metrics.note_now(who, || EventKind::Forced { task, limit });
    }

    /// A worker that was killed does not end.
    pub(in crate::pool) fn see_stuck(&mut self, number: usize, record: &ChildHandle) {
        let who = Some(who_is(number, record));
        self.metrics.note_now(who, || EventKind::Stuck { waited: MAX_DEATH_TIME });
    }

    /// A finalizer has failed, or was killed.
    pub(in crate::pool) fn see_failed_finalizer(&mut self, number: usize, error: Error) {
        let error = error.with_note("it ran as the finalizer of its worker");
        self.metrics.failed_finalizers += 1;
        if self.phase != Phase::Open {
            self.finalizer_failure.get_or_insert_with(|| error.clone());
        }
        let who = error.process().map(|(name, pid)| WorkerRef { slot: number, name: name.to_owned(), pid });
        self.metrics.note_now(who, || EventKind::NotFinalized { error });
    }

    /// A worker could not be started, and is tried again after `pause`.
    pub(in crate::pool) fn see_failed_start(&mut self, number: usize, error: &Error, pause: Duration) {
        let who = WorkerRef { slot: number, name: format!("{}-{number}", self.config.name), pid: 0 };
        let failures = self.starts.failed;
        let what = || EventKind::NotStarted { error: error.clone(), failures, pause };
        self.metrics.note_now(Some(who), what);
    }

    /// The worker in this place is about to be killed, because its call has taken too long.
    pub(in crate::pool) fn see_time_out(&mut self, number: usize, limit: Duration) {
        let task = match self.slots[number].worker().and_then(|worker| worker.caller.front()) {
            Some(Request::Call(call)) => call.task,
            _ => return,
        };
        self.metrics.note_now(self.who(number), || EventKind::TimedOut { task, limit });
    }

    /// The pool takes no more calls.
    pub(in crate::pool) fn see_closing(&mut self, cause: &Error, failed: bool) {
        self.metrics.note_now(None, || EventKind::Closed { cause: cause.clone(), failed });
    }

    /// A recording begins: tells it which workers are there.
    pub(super) fn see_who_is_there(&mut self) {
        let at = self.metrics.now();
        for number in 0..self.slots.len() {
            self.slots[number].tally.last_reply = at;
            if let Some(who) = self.who(number) {
                let again = self.slots[number].tally.restarts() > 0;
                self.metrics.note(at, Some(who), || EventKind::Started { again });
            }
        }
    }

    /// When a call ended, and when it began, both not earlier than the one before it ended.
    fn times(&mut self, call: &Call) -> (u64, u64) {
        let now = self.metrics.now();
        let Some(slot) = call.worker().and_then(|number| self.slots.get_mut(number)) else { return (now, now) };
        let began = slot.tally.last_reply.max(call.times.given.load(Relaxed)).min(now);
        let sharing = self.metrics.replies.max(1);
        self.metrics.replies = sharing - 1;
        let ended = began + (now - began) / sharing;
        slot.tally.last_reply = ended;
        (ended, began)
    }

    fn who(&self, number: usize) -> Option<WorkerRef> {
        let record = &self.slots[number].worker()?.record;
        Some(WorkerRef { slot: number, name: record.name(), pid: record.pid })
    }

    /// The worker that had a call; where it is gone, `error` says which it was.
    fn who_had(&self, call: &Call, error: Option<&Error>) -> Option<WorkerRef> {
        let slot = call.worker()?;
        let named = |(name, pid): (&str, u32)| WorkerRef { slot, name: name.to_owned(), pid };
        self.who(slot).or_else(|| error?.process().map(named))
    }
}

fn who_is(slot: usize, record: &ChildHandle) -> WorkerRef {
    WorkerRef { slot, name: record.name(), pid: record.pid }
}
