//! Which worker has which calls, and which calls wait: everything that the pool's mutex guards.
//!
//! Owns: the places, the backlog, and the office of the leader. Runs in: the parent, under the mutex.
//! Never: wakes a thread, starts or kills a process itself: what is owed is put into [`Effects`], and paid after the mutex is
//! released. Only a worker that dozes is woken on the spot, by the call that is given to it.
//!
//! | file | what of it |
//! |---|---|
//! | this one | calls are taken, given out, taken back, and settled |
//! | `replies` | replies are taken, and which workers have to ring for one |
//! | `supervision` | workers come, and end |
//! | `starts` | workers that could not be started are tried again, or the pool closes |
//! | `recycle` | workers leave that were not killed |
//! | `departures` | how long those may take that leave or die, and what is settled then |
//! | `deadlines` | calls are ended that have taken too long, or are not wanted any more |

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::call::{Call, QueuedCall, Waiters};
use super::callbacks::Callback;
use super::config::PoolConfig;
use super::departures::Leaving;
use super::effects::Effects;
use super::load_index::LoadIndex;
use super::metrics::Metrics;
use super::pending_limit::PendingLimit;
use super::slot::{Request, Slot};
use super::starts::Starts;
use crate::error::{Direction, Error, ErrorKind, Execution, Result, why};
use crate::link::window::MAX_IN_FLIGHT;
use crate::link::{Body, FD_RETRY_TIME, Payload, Reply, is_temporary};
use crate::sys::Errno;

/// After so many calls that were submitted while all workers were busy, the submitting thread looks for replies.
const RARELY: u32 = MAX_IN_FLIGHT;

/// How soon handles are tried again that could not be sent because too many are under way.
const SOON: Duration = Duration::from_millis(2);

/// Everything under the mutex.
#[derive(Debug)]
pub(super) struct Scheduler {
    pub(super) config: Arc<PoolConfig>,
    pub(super) slots: Vec<Slot>,
    /// Where each worker stands, kept up to date by [`Scheduler::update_load`].
    pub(super) levels: LoadIndex,
    pub(super) backlog: VecDeque<QueuedCall>,
    /// Workers that were sent home or killed, and may not have ended yet.
    pub(super) leaving: Vec<Leaving>,
    pub(super) phase: Phase,
    pub(super) leader: Leader,
    /// What every worker that has something to answer was told: to ring for each reply, and to ring when it runs dry.
    pub(super) notify_flags: (bool, bool),
    /// Threads that wait while another one leads.
    pub(super) followers: Vec<Thread>,
    /// Calls with replies that must be taken though no thread waits: futures and callbacks wait for them, or they have
    /// handles, which are memory that is not given back before.
    pub(super) interest: usize,
    /// There is one more since the workers were told.
    more_interest: bool,
    /// Since when calls cannot be given out because too many descriptors are under way.
    refused_since: Option<Instant>,
    /// Calls with a timeout that workers have: so the next one's time begins when this one's reply is heard of.
    pub(super) timed: usize,
    /// When the next look at the deadlines is due, and the next look at idle workers.
    pub(super) alarm: Option<Instant>,
    pub(super) idle_alarm: bool,
    /// The last call went to a worker that had to be woken, so its reply is not near.
    pub(super) last_worker_was_parked: bool,
    pub(super) starts: Starts,
    /// The first finalizer that failed after the pool was closed.
    pub(super) finalizer_failure: Option<Error>,
    /// Workers that the builder waits for.
    pub(super) awaiting_ready: Arc<AtomicUsize>,
    /// Calls that are not settled; also read without the mutex.
    pub(super) outstanding: Arc<AtomicUsize>,
    pub(super) limit: Arc<PendingLimit>,
    /// What is counted and measured, and for which observers.
    pub(super) metrics: Metrics,
    /// Workers that were given calls which they do not see yet; empty but for the time in which calls are given out.
    unpublished: Vec<usize>,
    /// Calls that were submitted while all were busy, since replies were last looked for.
    unlooked: u32,
    /// What is done once the mutex is released; taken by [`Scheduler::take_effects`].
    pub(super) effects: Effects,
    /// What `collect_from` fills and empties.
    pub(super) replies: Vec<(Request, Reply)>,
}

/// Whether a thread leads: looks for replies on behalf of all waiting threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    /// None does. The reactor hears a worker's bell.
    None,
    /// One does, and looks.
    Polling,
    /// One does, and sleeps in the pool's epoll set.
    Parked,
}

/// What the pool still does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes calls.
    Open,
    /// Takes none, and finishes those it has.
    Closing(Error),
    /// Takes none, and has none.
    Ended(Error),
}

impl Scheduler {
    pub(super) fn new(config: Arc<PoolConfig>, slots: usize) -> Self {
        let mut scheduler = Self {
            config,
            slots: Vec::new(),
            levels: LoadIndex::default(),
            backlog: VecDeque::new(),
            leaving: Vec::new(),
            phase: Phase::Open,
            leader: Leader::None,
            notify_flags: (false, false),
            followers: Vec::new(),
            interest: 0,
            more_interest: false,
            refused_since: None,
            timed: 0,
            alarm: None,
            idle_alarm: false,
            last_worker_was_parked: false,
            starts: Starts::default(),
            finalizer_failure: None,
            awaiting_ready: Arc::default(),
            outstanding: Arc::default(),
            limit: Arc::new(PendingLimit::unbounded()),
            metrics: Metrics::new(),
            unpublished: Vec::new(),
            unlooked: 0,
            effects: Effects::default(),
            replies: Vec::new(),
        };
        scheduler.make_room(slots);
        scheduler
    }

    /// Takes what is to be done once the mutex is released.
    pub(super) fn take_effects(&mut self) -> Effects {
        Effects { events: self.metrics.take_events(), ..std::mem::take(&mut self.effects) }
    }

    pub(super) fn outstanding(&self) -> &Arc<AtomicUsize> {
        &self.outstanding
    }

    pub(super) fn limit(&self) -> &Arc<PendingLimit> {
        &self.limit
    }

    /// Why the pool takes no more calls, if it takes none.
    pub(super) fn refusal(&self) -> Option<&Error> {
        match &self.phase {
            Phase::Open => None,
            Phase::Closing(error) | Phase::Ended(error) => Some(error),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    /// How many workers the pool is to have.
    pub(super) fn workers(&self) -> usize {
        self.slots.iter().filter(|slot| slot.wanted).count()
    }

    /// The first finalizer that failed after the pool was closed.
    pub(super) fn finalizer_failure(&self) -> Option<Error> {
        self.finalizer_failure.clone()
    }

    /// A permit was not used: wakes a thread that waits for one.
    pub(super) fn release_permit(&mut self) {
        self.effects.wake.extend(self.limit.release().map(Waiters::of));
        // The leader may be the thread that waits for a permit.
        self.effects.wake_leader |= self.leader == Leader::Parked;
    }

    /// Why the pool has ended, if it has.
    pub(super) fn failure(&self) -> Option<Error> {
        if let Phase::Ended(error) = &self.phase { Some(error.clone()) } else { None }
    }

    /// Has places up to this many.
    pub(super) fn make_room(&mut self, slots: usize) {
        while self.slots.len() < slots {
            self.slots.push(Slot::empty());
        }
        self.levels.grow(slots);
    }

    /// Takes a call, and gives it out if a worker can have it; false if the pool takes none.
    pub(super) fn submit(&mut self, queued: QueuedCall) -> bool {
        if !self.admit(&queued.call) {
            return false;
        }
        self.effects.watch_links = true;
        self.backlog.push_back(queued);
        self.dispatch_backlog();
        if self.leader == Leader::None && self.work_waits() {
            if self.notify_flags.1 {
                // Workers will ring when they go idle. Until then, replies are taken now and then: each look takes a cache
                // line from a worker that is busy.
                self.unlooked += 1;
                if self.unlooked >= RARELY {
                    self.unlooked = 0;
                    self.collect_some();
                }
            } else {
                self.update_notify_flags();
            }
        }
        true
    }

    /// Counts a call; or settles it and returns false if the pool takes none.
    pub(super) fn admit(&mut self, call: &Arc<Call>) -> bool {
        if let Some(error) = self.refusal() {
            // Its handle is not there yet, so no thread waits.
            drop(call.settle(Err(error.clone())));
            return false;
        }
        let others = self.outstanding.fetch_add(1, SeqCst);
        self.metrics.submitted(&call.times, others);
        true
    }

    /// Calls were abandoned: those that no worker has claimed are cancelled, also those that were given out.
    pub(super) fn cancel_abandoned(&mut self) {
        for number in self.levels.watched().to_vec() {
            self.reclaim(number, usize::MAX);
        }
        let (abandoned, wanted) =
            self.backlog.drain(..).partition::<Vec<_>, _>(|queued| queued.call.abandoned.load(Relaxed));
        self.backlog.extend(wanted);
        for QueuedCall { call, .. } in abandoned {
            self.settle_call(&call, Err(Error::new(ErrorKind::Cancelled, Execution::NotStarted)));
        }
        self.dispatch_backlog();
        // A worker may have answered while it still saw calls behind, and rung no bell.
        self.collect();
        self.rebalance();
    }

    /// Has `waker` told when `call` is settled.
    pub(super) fn register_waker(&mut self, call: &Arc<Call>, waker: Waker) {
        match call.set_waker(waker) {
            Some(before) => self.effects.drop_unlocked.push(before),
            None => self.interest += 1,
        }
        if self.leader == Leader::None {
            // Enters the word into every link, and takes what came before it was seen.
            self.step_down();
        }
    }

    /// Has `callback` called once `call` is settled; gives it back if it is.
    pub(super) fn register_callback(&mut self, call: &Call, callback: Callback) -> Option<Callback> {
        let back = call.add_callback(callback);
        if back.is_none() {
            self.interest += 1;
            self.refresh_notify_flags();
        }
        back
    }

    /// Takes back up to `most` of the calls that a worker has not claimed, never its setup or initializer, which are the
    /// oldest. They go back to the front of the backlog.
    pub(super) fn reclaim(&mut self, number: usize, most: usize) -> usize {
        let Some(worker) = self.slots[number].worker_mut() else { return 0 };
        let most = u32::try_from(worker.load().min(most)).unwrap_or(u32::MAX);
        let back = worker.caller.take_back(most);
        worker.given -= back.len() as u64;
        let timed = back.iter().filter(|(asked, _)| asked.is_timed()).count();
        worker.timed -= timed;
        self.timed -= timed;
        let count = back.len();
        self.requeue(back);
        self.update_load(number);
        count
    }

    pub(super) fn requeue(&mut self, unclaimed: Vec<(Request, Payload)>) {
        for (asked, payload) in unclaimed.into_iter().rev() {
            if let Request::Call(call) = asked {
                call.set_worker(None);
                self.backlog.push_front(QueuedCall { call, payload });
            }
        }
    }

    /// Gives out what waits, as far as there is room: to the idle worker that was used last, else to the least loaded.
    pub(super) fn dispatch_backlog(&mut self) {
        if let Phase::Ended(error) = &self.phase {
            self.fail_backlog(&error.clone());
        }
        while let Some(first) = self.backlog.front() {
            if first.call.is_settled() {
                // It was cancelled where it stood.
                self.backlog.pop_front();
                continue;
            }
            // Descriptors travel first, which is simplest when nothing else does.
            let plain = first.payload.is_plain();
            let number = if plain { self.levels.least() } else { self.levels.idle() };
            let Some(number) = number else { break };
            if let Some(queued) = self.backlog.pop_front()
                && !self.assign(number, queued)
            {
                break;
            }
        }
        while let Some(number) = self.unpublished.pop() {
            if let Some(worker) = self.slots[number].worker_mut() {
                worker.caller.publish();
                self.last_worker_was_parked = worker.caller.wake();
            }
        }
        if std::mem::take(&mut self.more_interest) {
            self.refresh_notify_flags();
        }
        self.start_for_backlog();
    }

    /// Moves calls from the fullest worker to those that have none.
    pub(super) fn rebalance(&mut self) {
        while self.backlog.is_empty() && self.levels.idle().is_some() {
            let Some((fullest, behind)) = self.levels.fullest() else { return };
            if self.reclaim(fullest, behind.div_ceil(2)) == 0 {
                return;
            }
            // It rings only when it is dry, and what it answered just now it may have answered before we made it so.
            self.collect_from(fullest);
            self.dispatch_backlog();
        }
    }

    /// Gives a call to a worker. False: it waits again, for some moments.
    fn assign(&mut self, number: usize, queued: QueuedCall) -> bool {
        let Some(worker) = self.slots[number].worker_mut() else {
            self.backlog.push_front(queued);
            return true;
        };
        let QueuedCall { call, payload } = queued;
        let limit = call.options.timeout;
        let first = worker.load() == 0;
        worker.set_notify_flags(self.notify_flags.0, self.notify_flags.1);
        call.set_worker(Some(number));
        self.metrics.given(&call.times);
        let has_handles = !payload.handles().is_empty();
        if has_handles && !call.reply_watched.load(Relaxed) {
            call.reply_watched.store(true, Relaxed);
            self.interest += 1;
            self.more_interest = true;
        }
        let (kind, request) = (call.kind(), (call.index, call.options.memory_limit));
        if let Err((errno, payload, asked)) = worker.caller.write(kind, request, payload, Request::Call(call)) {
            return self.assign_failed(number, errno, (asked, payload));
        }
        if has_handles {
            self.refused_since = None;
        }
        if worker.caller.written() == 1 {
            self.unpublished.push(number);
        }
        worker.given += 1;
        if let Some(limit) = limit {
            let now = Instant::now();
            worker.timed += 1;
            self.timed += 1;
            if first {
                worker.since = Some(now);
            }
            self.set_alarm(now.checked_add(limit));
        }
        self.update_load(number);
        if limit.is_some() {
            self.set_alarm(self.due(number));
        }
        self.prestart_standby(number);
        true
    }

    /// A call could not be given to a worker. False: it waits again, for some moments.
    #[cold]
    fn assign_failed(&mut self, number: usize, errno: Errno, (asked, payload): (Request, Payload)) -> bool {
        let Request::Call(call) = asked else { return true };
        let now = Instant::now();
        call.set_worker(None);
        match (errno, self.slots[number].worker_mut()) {
            (Errno::EPIPE | Errno::ECONNRESET, Some(worker)) => {
                // It is dead, or as good as dead: its end will be reported, and the call has not begun.
                worker.shut = true;
                self.effects.kill.push(Arc::clone(&worker.record));
                self.backlog.push_front(QueuedCall { call, payload });
                self.update_load(number);
            }
            _ if is_temporary(errno) && self.refused_since.get_or_insert(now).elapsed() < FD_RETRY_TIME => {
                // Other workers are about to take theirs, or other processes of this user are.
                self.backlog.push_front(QueuedCall { call, payload });
                self.set_alarm(now.checked_add(SOON));
                return false;
            }
            _ => {
                let reason = format!("they cannot be handed over: {}", why(errno));
                let kind = ErrorKind::CannotEncode { direction: Direction::Arguments, reason };
                self.settle_call(&call, Err(Error::new(kind, Execution::NotStarted)));
            }
        }
        true
    }

    /// Puts a place where it belongs among the others, after anything about it has changed.
    pub(super) fn update_load(&mut self, number: usize) {
        let slot = &self.slots[number];
        let rank = slot.rank();
        self.levels.watch(number, slot.worker().is_some_and(|worker| worker.caller.in_flight() > 0));
        let idle = rank.is_some_and(|rank| rank.load == 0);
        self.levels.put(number, rank);
        if idle {
            self.on_idle(number);
        } else if let Some(worker) = self.slots[number].worker_mut() {
            worker.idle_since = None;
        }
    }

    pub(super) fn settle_call(&mut self, call: &Arc<Call>, outcome: Result<Body>) {
        self.metrics.settled(call);
        if self.metrics.at_calls() {
            self.see_settled(call, outcome.as_ref().err());
        }
        let waiters = call.settle(outcome);
        let reply_watched = call.reply_watched.load(Relaxed);
        self.interest = self.interest.saturating_sub(waiters.interest() + usize::from(reply_watched));
        if reply_watched {
            call.reply_watched.store(false, Relaxed);
        }
        if !waiters.is_empty() {
            self.effects.wake.push(waiters);
        }
        self.effects.wake.extend(self.limit.release().map(Waiters::of));
        self.effects.wake_leader |= self.leader == Leader::Parked;
        self.outstanding.fetch_sub(1, SeqCst);
    }

    pub(super) fn fail_backlog(&mut self, error: &Error) {
        while let Some(QueuedCall { call, .. }) = self.backlog.pop_front() {
            if !call.is_settled() {
                self.settle_call(&call, Err(error.clone()));
            }
        }
    }

    /// Whether workers need every processor there is.
    pub(super) fn is_crowded(&self) -> bool {
        self.levels.watched().len() >= self.config.processors
    }

    /// Whether calls wait that another worker could run.
    pub(super) fn work_waits(&self) -> bool {
        !self.backlog.is_empty() || self.levels.behind() > 0
    }
}
