//! Where the schedule says what it does.
//!
//! Owns: [`Looks`]. Runs in: the parent, under the mutex. Never: looks at a clock for a call unless an observer wants to
//! know.
//!
//! A call's time on a timeline begins when its worker can have begun it: when it was given out, or when the reply to the
//! one before it was taken. It ends when its own reply is taken; several replies that are taken at once share the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;

use super::event::{Event, What, Who};
use super::latency::{Sampling, Stamp};
use super::recorder::Recorder;
use crate::error::Error;
use crate::launch::{LONGEST_DEATH, Record};
use crate::link::Reply;
use crate::pool::call::Call;
use crate::pool::scheduler::{Owed, Phase, Schedule};
use crate::pool::slot::{Asked, Worker};

/// What a pool knows of its own doing, and which observers want to know it.
#[derive(Debug)]
pub(in crate::pool) struct Looks {
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
}

/// Something that happened, and the file that it goes into.
pub(in crate::pool) type Noted = (Event, Option<Arc<Recorder>>);

/// When what happened to a call, as far as an observer wants to know.
#[derive(Debug, Default)]
pub(in crate::pool) struct Stamps {
    submitted: Stamp,
    /// When a worker got it, in nanoseconds since the pool was made.
    given: AtomicU64,
}

impl Looks {
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
    pub(in crate::pool) fn submitted(&mut self, stamps: &Stamps, others: usize) {
        self.sampling.submitted(&stamps.submitted, others);
    }

    /// A worker got a call.
    #[inline]
    pub(in crate::pool) fn given(&self, stamps: &Stamps) {
        if self.are_exact() {
            stamps.given.store(self.now(), Relaxed);
        }
    }

    /// A call is about to be settled.
    #[inline]
    pub(in crate::pool) fn settled(&mut self, call: &Call) {
        self.settled += u64::from(call.settles());
        self.sampling.settled(&call.stamps.submitted);
    }

    /// Records an event, if there are observers.
    fn note(&self, owed: &mut Owed, at: u64, who: Option<Who>, what: impl FnOnce() -> What) {
        if self.are_exact() || LevelFilter::current() > LevelFilter::OFF {
            owed.events.push((Event { at, who, what: what() }, self.recorder.clone()));
        }
    }
}

impl Schedule {
    /// These replies of one worker were taken at once.
    #[inline]
    pub(in crate::pool) fn see_replies(&mut self, replies: &[(Asked, Reply)]) {
        if self.looks.at_calls() {
            let calls = replies.iter().filter(|(asked, _)| matches!(asked, Asked::Call(_)));
            self.looks.replies = calls.count() as u64;
        }
    }

    /// A call is about to be settled; the worker that had it can still be told.
    #[cold]
    pub(in crate::pool) fn see_settled(&mut self, call: &Call, error: Option<&Error>, owed: &mut Owed) {
        let (at, began) = self.times(call);
        let who = self.who_had(call, error);
        let (task, calls, error) = (call.task, call.settles(), error.cloned());
        self.looks.note(owed, at, who, || What::Settled { task, calls, began, error });
    }

    /// A call has failed, and is to be made once more; the worker that had it can still be told.
    pub(in crate::pool) fn see_retry(&mut self, call: &Call, error: &Error, owed: &mut Owed) {
        let (at, began) = self.times(call);
        let (who, attempts) = (self.who_had(call, Some(error)), call.attempts().len());
        self.looks.note(owed, at, who, || What::Retried { task: call.task, attempts, began, error: error.clone() });
    }

    /// A worker is there, and can be given calls.
    pub(in crate::pool) fn see_arrival(&mut self, number: usize, owed: &mut Owed) {
        let (at, who) = (self.looks.now(), self.who(number));
        let tally = &mut self.places[number].tally;
        tally.arrived(at);
        let again = tally.restarts() > 0;
        self.looks.note(owed, at, who, || What::Started { again });
    }

    /// A worker gets no more calls: its times are summed up.
    pub(in crate::pool) fn see_departure(&mut self, number: usize, worker: &Worker) {
        let now = self.looks.now();
        self.places[number].tally.left(worker.caller.busy(), now);
    }

    /// The worker in this place is told to end, because it is not needed any more.
    pub(in crate::pool) fn see_leaving(&mut self, number: usize, owed: &mut Owed) {
        if let Some(who) = self.who(number) {
            self.looks.note(owed, self.looks.now(), Some(who), || What::Left);
        }
    }

    /// A worker was stopped by a signal, or continued.
    pub(in crate::pool) fn see_stop(&mut self, number: usize, record: &Record, signal: Option<i32>, owed: &mut Owed) {
        let worker = self.places[number].worker().filter(|worker| worker.record.pid == record.pid);
        // Its setup may be answered and not collected yet, so the oldest call need not be the first of what it has.
        let mut calls = worker.into_iter().flat_map(|worker| worker.caller.tags());
        let task = calls.find_map(|asked| if let Asked::Call(call) = asked { Some(call.task) } else { None });
        let who = Who { place: number, name: record.name(), pid: record.pid };
        let what = signal.map_or(What::Continued, |signal| What::Stopped { task, signal });
        self.looks.note(owed, self.looks.now(), Some(who), || what);
    }

    /// A worker has ended that was not told to, while it ran `task`.
    pub(in crate::pool) fn see_death(
        &mut self,
        number: usize,
        error: Error,
        task: Option<&'static str>,
        owed: &mut Owed,
    ) {
        let (name, pid) = error.process().map_or((String::new(), 0), |(name, pid)| (name.to_owned(), pid));
        let who = Who { place: number, name, pid };
        self.looks.note(owed, self.looks.now(), Some(who), || What::Died { task, error });
    }

    /// A worker has ended that was killed, because of what it ran.
    pub(in crate::pool) fn see_kill(
        &mut self,
        number: usize,
        record: &Record,
        cause: &Error,
        task: Option<&'static str>,
        owed: &mut Owed,
    ) {
        let who = Some(who_is(number, record));
        self.looks.note(owed, self.looks.now(), who, || What::Killed { task, cause: cause.clone() });
    }

    /// A worker that leaves is killed, since it took longer than `limit` for its finalizer, or to exit.
    pub(in crate::pool) fn see_forced(
        &mut self,
        number: usize,
        record: &Record,
        (finalizing, limit): (bool, Duration),
        owed: &mut Owed,
    ) {
        self.looks.forced += 1;
        let finalizer = self.plan.finalizer.as_ref().filter(|_| finalizing);
        let task = finalizer.map(|finalizer| finalizer.task().name());
        let who = Some(who_is(number, record));
        self.looks.note(owed, self.looks.now(), who, || What::Forced { task, limit });
    }

    /// A worker that was killed does not end.
    pub(in crate::pool) fn see_stuck(&mut self, number: usize, record: &Record, owed: &mut Owed) {
        let who = Some(who_is(number, record));
        self.looks.note(owed, self.looks.now(), who, || What::Stuck { waited: LONGEST_DEATH });
    }

    /// A finalizer has failed, or was killed.
    pub(in crate::pool) fn see_failed_finalizer(&mut self, number: usize, error: Error, owed: &mut Owed) {
        let error = error.with_note("it ran as the finalizer of its worker");
        self.looks.failed_finalizers += 1;
        if self.phase != Phase::Open {
            self.finalizer_failure.get_or_insert_with(|| error.clone());
        }
        let who = error.process().map(|(name, pid)| Who { place: number, name: name.to_owned(), pid });
        self.looks.note(owed, self.looks.now(), who, || What::NotFinalized { error });
    }

    /// A worker could not be started, and is tried again after `pause`.
    pub(in crate::pool) fn see_failed_start(&mut self, number: usize, error: &Error, pause: Duration, owed: &mut Owed) {
        let who = Who { place: number, name: format!("{}-{number}", self.plan.name), pid: 0 };
        let failures = self.starts.failed;
        let what = || What::NotStarted { error: error.clone(), failures, pause };
        self.looks.note(owed, self.looks.now(), Some(who), what);
    }

    /// The worker in this place is about to be killed, because its call has taken too long.
    pub(in crate::pool) fn see_time_out(&mut self, number: usize, limit: Duration, owed: &mut Owed) {
        let task = match self.places[number].worker().and_then(|worker| worker.caller.front()) {
            Some(Asked::Call(call)) => call.task,
            _ => return,
        };
        self.looks.note(owed, self.looks.now(), self.who(number), || What::TimedOut { task, limit });
    }

    /// The pool takes no more calls.
    pub(in crate::pool) fn see_closing(&mut self, cause: &Error, failed: bool, owed: &mut Owed) {
        self.looks.note(owed, self.looks.now(), None, || What::Closed { cause: cause.clone(), failed });
    }

    /// A recording begins: tells it which workers are there.
    pub(super) fn see_who_is_there(&mut self, owed: &mut Owed) {
        let at = self.looks.now();
        for number in 0..self.places.len() {
            self.places[number].tally.last_reply = at;
            if let Some(who) = self.who(number) {
                let again = self.places[number].tally.restarts() > 0;
                self.looks.note(owed, at, Some(who), || What::Started { again });
            }
        }
    }

    /// When a call ended, and when it began, both not earlier than the one before it ended.
    fn times(&mut self, call: &Call) -> (u64, u64) {
        let now = self.looks.now();
        let Some(place) = call.holder().and_then(|number| self.places.get_mut(number)) else { return (now, now) };
        let began = place.tally.last_reply.max(call.stamps.given.load(Relaxed)).min(now);
        let sharing = self.looks.replies.max(1);
        self.looks.replies = sharing - 1;
        let ended = began + (now - began) / sharing;
        place.tally.last_reply = ended;
        (ended, began)
    }

    fn who(&self, number: usize) -> Option<Who> {
        let record = &self.places[number].worker()?.record;
        Some(Who { place: number, name: record.name(), pid: record.pid })
    }

    /// The worker that had a call; where it is gone, `error` says which it was.
    fn who_had(&self, call: &Call, error: Option<&Error>) -> Option<Who> {
        let place = call.holder()?;
        let named = |(name, pid): (&str, u32)| Who { place, name: name.to_owned(), pid };
        self.who(place).or_else(|| error?.process().map(named))
    }
}

fn who_is(place: usize, record: &Record) -> Who {
    Who { place, name: record.name(), pid: record.pid }
}
