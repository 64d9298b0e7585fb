//! Which worker has which calls, and which calls wait: everything that the pool's mutex guards.
//!
//! Owns: the places, the backlog, and the office of the leader. Runs in: the parent, under the mutex.
//! Never: wakes a thread, starts or kills a process itself: what is owed is put into [`Owed`], and paid after the mutex is
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

use super::call::{Call, Queued, Waiters};
use super::callbacks::Callback;
use super::config::Plan;
use super::departures::Leaving;
use super::load_index::Levels;
use super::metrics::{Looks, Noted};
use super::pending_limit::Room;
use super::slot::{Asked, Place};
use super::starts::Starts;
use crate::error::{Direction, Error, ErrorKind, Execution, Result, why};
use crate::launch::Record;
use crate::link::window::LOOK_AHEAD;
use crate::link::{Body, PATIENCE, Payload, Reply, is_temporary};
use crate::sys::Errno;

/// After so many calls that were submitted while all workers were busy, the submitting thread looks for replies.
const RARELY: u32 = LOOK_AHEAD;

/// How soon handles are tried again that could not be sent because too many are under way.
const SOON: Duration = Duration::from_millis(2);

/// Everything under the mutex.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) plan: Arc<Plan>,
    pub(super) places: Vec<Place>,
    /// Where each worker stands, kept up to date by [`Schedule::sort_in`].
    pub(super) levels: Levels,
    pub(super) backlog: VecDeque<Queued>,
    /// Workers that were sent home or killed, and may not have ended yet.
    pub(super) leaving: Vec<Leaving>,
    pub(super) phase: Phase,
    pub(super) office: Office,
    /// What every worker that has something to answer was told: to ring for each reply, and to ring when it runs dry.
    pub(super) told: (bool, bool),
    /// Threads that wait while another one leads.
    pub(super) followers: Vec<Thread>,
    /// Calls with replies that must be taken though no thread waits: futures and callbacks wait for them, or they have
    /// handles, which are memory that is not given back before.
    pub(super) awaited: usize,
    /// There is one more since the workers were told.
    more_awaited: bool,
    /// Since when calls cannot be given out because too many descriptors are under way.
    refused_since: Option<Instant>,
    /// Calls with a timeout that workers have: so the next one's time begins when this one's reply is heard of.
    pub(super) timed: usize,
    /// When the next look at the deadlines is due, and the next look at idle workers.
    pub(super) alarm: Option<Instant>,
    pub(super) idle_alarm: bool,
    /// The last call went to a worker that had to be woken, so its reply is not near.
    pub(super) far: bool,
    pub(super) starts: Starts,
    /// The first finalizer that failed after the pool was closed.
    pub(super) finalizer_failure: Option<Error>,
    /// Workers that the builder waits for.
    pub(super) unready: Arc<AtomicUsize>,
    /// Calls that are not settled; also read without the mutex.
    pub(super) outstanding: Arc<AtomicUsize>,
    pub(super) room: Arc<Room>,
    /// What is counted and measured, and for which observers.
    pub(super) looks: Looks,
    /// Workers that were given calls which they do not see yet; empty but for the time in which calls are given out.
    unpublished: Vec<usize>,
    /// Calls that were submitted while all were busy, since replies were last looked for.
    unlooked: u32,
    /// What `collect_from` fills and empties.
    pub(super) replies: Vec<(Asked, Reply)>,
}

/// Whether a thread leads: looks for replies on behalf of all waiting threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Office {
    /// None does. The hub hears a worker's bell.
    Vacant,
    /// One does, and looks.
    Awake,
    /// One does, and sleeps in the pool's epoll set.
    Asleep,
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

/// What is to be done once the mutex is released.
#[derive(Debug, Default)]
#[must_use = "somebody would wait for ever"]
pub(super) struct Owed {
    pub(super) wake: Vec<Waiters>,
    pub(super) follower: Option<Thread>,
    pub(super) kill: Vec<Arc<Record>>,
    /// To be asked to end first, and killed after the plan's grace.
    pub(super) end: Vec<Arc<Record>>,
    pub(super) start: Vec<Start>,
    /// Wakers that were replaced: what their destructors do must not meet the mutex.
    pub(super) forget: Vec<Waker>,
    /// When the deadlines are to be looked at, and in how long the idle workers.
    pub(super) alarm: Option<Instant>,
    pub(super) idle_alarm: Option<Duration>,
    /// A call was submitted, and its worker is to be looked at while it has no result.
    pub(super) watch: bool,
    /// Memory of a reply is mapped, which is to be looked at later.
    pub(super) tend: bool,
    /// Another thread than the leader has settled a call.
    pub(super) kick: bool,
    /// What observers are to be told.
    pub(super) events: Vec<Noted>,
}

/// A child that is to be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) number: usize,
    pub(super) pause: Option<Duration>,
    /// It is to stand by; otherwise the place is empty.
    pub(super) standby: bool,
}

impl Schedule {
    pub(super) fn new(plan: Arc<Plan>, places: usize) -> Self {
        let mut schedule = Self {
            plan,
            places: Vec::new(),
            levels: Levels::default(),
            backlog: VecDeque::new(),
            leaving: Vec::new(),
            phase: Phase::Open,
            office: Office::Vacant,
            told: (false, false),
            followers: Vec::new(),
            awaited: 0,
            more_awaited: false,
            refused_since: None,
            timed: 0,
            alarm: None,
            idle_alarm: false,
            far: false,
            starts: Starts::default(),
            finalizer_failure: None,
            unready: Arc::default(),
            outstanding: Arc::default(),
            room: Arc::new(Room::unbounded()),
            looks: Looks::new(),
            unpublished: Vec::new(),
            unlooked: 0,
            replies: Vec::new(),
        };
        schedule.make_room(places);
        schedule
    }

    /// Has places up to this many.
    pub(super) fn make_room(&mut self, places: usize) {
        while self.places.len() < places {
            self.places.push(Place::empty());
        }
        self.levels.grow(places);
    }

    /// Takes a call, and gives it out if a worker can have it; false if the pool takes none.
    pub(super) fn submit(&mut self, queued: Queued, owed: &mut Owed) -> bool {
        if let Phase::Closing(error) | Phase::Ended(error) = &self.phase {
            // Its handle is not there yet, so no thread waits.
            drop(queued.call.settle(Err(error.clone())));
            return false;
        }
        let others = self.outstanding.fetch_add(1, SeqCst);
        self.looks.submitted(&queued.call.stamps, others);
        owed.watch = true;
        self.backlog.push_back(queued);
        self.pump(owed);
        if self.office == Office::Vacant && self.work_waits() {
            if self.told.1 {
                // Workers will ring when they go idle. Until then, replies are taken now and then: each look takes a cache
                // line from a worker that is busy.
                self.unlooked += 1;
                if self.unlooked >= RARELY {
                    self.unlooked = 0;
                    self.collect_some(owed);
                }
            } else {
                self.say_who_rings(owed);
            }
        }
        true
    }

    /// Calls were abandoned: those that no worker has claimed are cancelled, also those that were given out.
    pub(super) fn cancel_abandoned(&mut self, owed: &mut Owed) {
        for number in self.levels.watched().to_vec() {
            self.take_back(number, usize::MAX, owed);
        }
        let (abandoned, wanted) =
            self.backlog.drain(..).partition::<Vec<_>, _>(|queued| queued.call.abandoned.load(Relaxed));
        self.backlog.extend(wanted);
        for Queued { call, .. } in abandoned {
            self.settle(&call, Err(Error::new(ErrorKind::Cancelled, Execution::NotStarted)), owed);
        }
        self.pump(owed);
        // A worker may have answered while it still saw calls behind, and rung no bell.
        self.collect(owed);
        self.level(owed);
    }

    /// Has `waker` told when `call` is settled.
    pub(super) fn wait_later(&mut self, call: &Arc<Call>, waker: Waker, owed: &mut Owed) {
        match call.set_waker(waker) {
            Some(before) => owed.forget.push(before),
            None => self.awaited += 1,
        }
        if self.office == Office::Vacant {
            // Enters the word into every link, and takes what came before it was seen.
            self.leave_office(owed);
        }
    }

    /// Has `callback` called once `call` is settled; gives it back if it is.
    pub(super) fn call_back_later(&mut self, call: &Call, callback: Callback, owed: &mut Owed) -> Option<Callback> {
        let back = call.add_callback(callback);
        if back.is_none() {
            self.awaited += 1;
            self.renew_words(owed);
        }
        back
    }

    /// Takes back up to `most` of the calls that a worker has not claimed, never its setup or initializer, which are the
    /// oldest. They go back to the front of the backlog.
    pub(super) fn take_back(&mut self, number: usize, most: usize, owed: &mut Owed) -> usize {
        let Some(worker) = self.places[number].worker_mut() else { return 0 };
        let most = u32::try_from(worker.load().min(most)).unwrap_or(u32::MAX);
        let back = worker.caller.take_back(most);
        worker.given -= back.len() as u64;
        let timed = back.iter().filter(|(asked, _)| asked.is_timed()).count();
        worker.timed -= timed;
        self.timed -= timed;
        let count = back.len();
        self.requeue(back);
        self.sort_in(number, owed);
        count
    }

    pub(super) fn requeue(&mut self, unclaimed: Vec<(Asked, Payload)>) {
        for (asked, payload) in unclaimed.into_iter().rev() {
            if let Asked::Call(call) = asked {
                call.set_holder(None);
                self.backlog.push_front(Queued { call, payload });
            }
        }
    }

    /// Gives out what waits, as far as there is room: to the idle worker that was used last, else to the least loaded.
    pub(super) fn pump(&mut self, owed: &mut Owed) {
        if let Phase::Ended(error) = &self.phase {
            self.fail_backlog(&error.clone(), owed);
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
                && !self.give(number, queued, owed)
            {
                break;
            }
        }
        while let Some(number) = self.unpublished.pop() {
            if let Some(worker) = self.places[number].worker_mut() {
                worker.caller.publish();
                self.far = worker.caller.wake();
            }
        }
        if std::mem::take(&mut self.more_awaited) {
            self.renew_words(owed);
        }
        self.staff_for_work(owed);
    }

    /// Moves calls from the fullest worker to those that have none.
    pub(super) fn level(&mut self, owed: &mut Owed) {
        while self.backlog.is_empty() && self.levels.idle().is_some() {
            let Some((fullest, behind)) = self.levels.fullest() else { return };
            if self.take_back(fullest, behind.div_ceil(2), owed) == 0 {
                return;
            }
            // It rings only when it is dry, and what it answered just now it may have answered before we made it so.
            self.collect_from(fullest, owed);
            self.pump(owed);
        }
    }

    /// Gives a call to a worker. False: it waits again, for some moments.
    fn give(&mut self, number: usize, queued: Queued, owed: &mut Owed) -> bool {
        let Some(worker) = self.places[number].worker_mut() else {
            self.backlog.push_front(queued);
            return true;
        };
        let Queued { call, payload } = queued;
        let limit = call.options.timeout;
        let first = worker.load() == 0;
        worker.tell(self.told.0, self.told.1);
        call.set_holder(Some(number));
        self.looks.given(&call.stamps);
        let has_handles = !payload.handles().is_empty();
        if has_handles && !call.heard.load(Relaxed) {
            call.heard.store(true, Relaxed);
            self.awaited += 1;
            self.more_awaited = true;
        }
        let (kind, request) = (call.kind(), (call.index, call.options.memory_limit));
        if let Err((errno, payload, asked)) = worker.caller.write(kind, request, payload, Asked::Call(call)) {
            return self.cannot_give(number, errno, (asked, payload), owed);
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
            self.set_alarm(now.checked_add(limit), owed);
        }
        self.sort_in(number, owed);
        if limit.is_some() {
            self.set_alarm(self.due(number), owed);
        }
        self.count_call(number, owed);
        true
    }

    /// A call could not be given to a worker. False: it waits again, for some moments.
    #[cold]
    fn cannot_give(
        &mut self,
        number: usize,
        errno: Errno,
        (asked, payload): (Asked, Payload),
        owed: &mut Owed,
    ) -> bool {
        let Asked::Call(call) = asked else { return true };
        let now = Instant::now();
        call.set_holder(None);
        match (errno, self.places[number].worker_mut()) {
            (Errno::EPIPE | Errno::ECONNRESET, Some(worker)) => {
                // It is dead, or as good as dead: its end will be reported, and the call has not begun.
                worker.shut = true;
                owed.kill.push(Arc::clone(&worker.record));
                self.backlog.push_front(Queued { call, payload });
                self.sort_in(number, owed);
            }
            _ if is_temporary(errno) && self.refused_since.get_or_insert(now).elapsed() < PATIENCE => {
                // Other workers are about to take theirs, or other processes of this user are.
                self.backlog.push_front(Queued { call, payload });
                self.set_alarm(now.checked_add(SOON), owed);
                return false;
            }
            _ => {
                let reason = format!("they cannot be handed over: {}", why(errno));
                let kind = ErrorKind::CannotEncode { direction: Direction::Arguments, reason };
                self.settle(&call, Err(Error::new(kind, Execution::NotStarted)), owed);
            }
        }
        true
    }

    /// Puts a place where it belongs among the others, after anything about it has changed.
    pub(super) fn sort_in(&mut self, number: usize, owed: &mut Owed) {
        let place = &self.places[number];
        let rank = place.rank();
        self.levels.watch(number, place.worker().is_some_and(|worker| worker.caller.in_flight() > 0));
        let idle = rank.is_some_and(|rank| rank.load == 0);
        self.levels.put(number, rank);
        if idle {
            self.has_nothing_to_do(number, owed);
        } else if let Some(worker) = self.places[number].worker_mut() {
            worker.idle_since = None;
        }
    }

    pub(super) fn settle(&mut self, call: &Arc<Call>, outcome: Result<Body>, owed: &mut Owed) {
        self.looks.settled(call);
        if self.looks.at_calls() {
            self.see_settled(call, outcome.as_ref().err(), owed);
        }
        let waiters = call.settle(outcome);
        let heard = call.heard.load(Relaxed);
        self.awaited = self.awaited.saturating_sub(waiters.awaited() + usize::from(heard));
        if heard {
            call.heard.store(false, Relaxed);
        }
        if !waiters.is_empty() {
            owed.wake.push(waiters);
        }
        owed.wake.extend(self.room.give_back().map(Waiters::of));
        owed.kick |= self.office == Office::Asleep;
        self.outstanding.fetch_sub(1, SeqCst);
    }

    pub(super) fn fail_backlog(&mut self, error: &Error, owed: &mut Owed) {
        while let Some(Queued { call, .. }) = self.backlog.pop_front() {
            if !call.is_settled() {
                self.settle(&call, Err(error.clone()), owed);
            }
        }
    }

    /// Whether workers need every processor there is.
    pub(super) fn is_crowded(&self) -> bool {
        self.levels.watched().len() >= self.plan.processors
    }

    /// Whether calls wait that another worker could run.
    pub(super) fn work_waits(&self) -> bool {
        !self.backlog.is_empty() || self.levels.behind() > 0
    }
}
