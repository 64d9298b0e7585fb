//! Which worker has which calls, and which calls wait: everything that the pool's mutex guards.
//!
//! Owns: the places, the backlog, and the office of the leader. Runs in: the parent, under the mutex.
//! Never: wakes a thread, starts or kills anybody itself: what is owed is put into [`Owed`], and paid after the mutex is
//! released. Only a worker that dozes is woken on the spot, by the call that is given to it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::task::Waker;
use std::thread::Thread;
use std::time::Duration;

use super::call::{Call, Pending, Waiters};
use super::worker::{Asked, Place};
use crate::error::{Direction, Error, ErrorKind, Execution, Result};
use crate::launch::{Record, outcome};
use crate::link::frame::Kind;
use crate::link::{Body, Payload};
use crate::sys::Errno;

/// Everything under the mutex.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) places: Vec<Place>,
    pub(super) backlog: VecDeque<Pending>,
    /// Workers with nothing to do, the one used last on top.
    idle: Vec<usize>,
    pub(super) phase: Phase,
    /// A thread leads: it looks for replies, or sleeps until there are some.
    pub(super) led: bool,
    /// The leader sleeps in the pool's epoll set.
    pub(super) sleeping: bool,
    /// Threads that wait while another one leads.
    pub(super) followers: Vec<Thread>,
    /// Calls whose futures wait.
    pub(super) awaited: usize,
    /// The last call went to a worker that had to be woken, so its reply is not near.
    pub(super) far: bool,
    /// Starts that failed since the last that worked.
    pub(super) failed_starts: usize,
    /// Calls that are not settled; also read without the mutex.
    pub(super) outstanding: Arc<AtomicUsize>,
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
    /// Places that want a new worker, and how long to wait first.
    pub(super) start: Vec<(usize, Option<Duration>)>,
    /// Wakers that were replaced: what their destructors do must not meet the mutex.
    pub(super) forget: Vec<Waker>,
    /// Somebody else than the leader has settled a call.
    pub(super) kick: bool,
}

impl Schedule {
    pub(super) fn new(places: usize) -> Self {
        Self {
            places: (0..places).map(|_| Place::empty()).collect(),
            backlog: VecDeque::new(),
            idle: Vec::new(),
            phase: Phase::Open,
            led: false,
            sleeping: false,
            followers: Vec::new(),
            awaited: 0,
            far: false,
            failed_starts: 0,
            outstanding: Arc::default(),
        }
    }

    /// Takes a call, and gives it out if somebody can have it.
    pub(super) fn submit(&mut self, pending: Pending, owed: &mut Owed) {
        if let Phase::Closing(error) | Phase::Ended(error) = &self.phase {
            // Its handle is not there yet, so nobody waits.
            drop(pending.call.settle(Err(error.clone())));
            return;
        }
        self.outstanding.fetch_add(1, SeqCst);
        self.backlog.push_back(pending);
        self.pump(owed);
        if !self.led && self.work_waits() {
            self.places.iter_mut().for_each(|place| place.set_hungry(true));
            // A worker may have run dry before it could see the word; and what is there is taken at no extra cost.
            self.collect(owed);
        }
    }

    /// Calls were abandoned: those that no worker has claimed are cancelled, also those that were given out.
    pub(super) fn cancel_abandoned(&mut self, owed: &mut Owed) {
        for number in 0..self.places.len() {
            // Not its setup, which is the oldest request if it has not been answered.
            let calls = self.places[number].load().and_then(|load| u32::try_from(load).ok()).unwrap_or(0);
            if let Some(worker) = self.places[number].worker_mut() {
                let back = worker.caller.take_back(calls);
                self.requeue(back);
                self.list_if_idle(number);
            }
        }
        let (abandoned, wanted) =
            self.backlog.drain(..).partition::<Vec<_>, _>(|pending| pending.call.abandoned.load(Relaxed));
        self.backlog.extend(wanted);
        for Pending { call, .. } in abandoned {
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
        if !self.led {
            // Enters the word into every link, and takes what came before it was seen.
            self.leave_office(owed);
        }
    }

    /// Takes every reply there is, and gives out what waits; true if there was a reply.
    pub(super) fn collect(&mut self, owed: &mut Owed) -> bool {
        let mut any = false;
        for number in 0..self.places.len() {
            any |= self.collect_from(number, owed);
        }
        if any {
            self.pump(owed);
            self.level(owed);
        }
        any
    }

    /// Whether a worker has answered something that was not taken.
    pub(super) fn has_reply(&self) -> bool {
        self.places.iter().filter_map(Place::worker).any(|worker| worker.caller.has_reply())
    }

    /// Where nobody leads, says to each worker whether it has to ring: a new one, or one that has just been given what a
    /// dead one left, has not heard.
    pub(super) fn renew_words(&mut self, owed: &mut Owed) {
        if !self.led {
            self.leave_office(owed);
        }
    }

    /// The thread that led leaves the office: those who ring from now on are heard by the hub.
    pub(super) fn leave_office(&mut self, owed: &mut Owed) {
        loop {
            let (hungry, asleep) = (self.work_waits(), self.awaited > 0);
            for place in &mut self.places {
                place.set_hungry(hungry);
                place.set_asleep(asleep);
            }
            // A worker that answered before it could see the words has rung no bell.
            if !(hungry || asleep) || !self.collect(owed) {
                break;
            }
        }
        self.led = false;
        self.call_a_leader(owed);
    }

    /// Has a follower woken if nobody leads.
    pub(super) fn call_a_leader(&mut self, owed: &mut Owed) {
        if !self.led && owed.follower.is_none() {
            owed.follower = self.followers.pop();
        }
    }

    /// A thread takes the office: it looks for itself, so nobody need ring.
    pub(super) fn take_office(&mut self) {
        self.led = true;
        self.set_asleep(false);
        self.places.iter_mut().for_each(|place| place.set_hungry(false));
    }

    /// Has every worker ring for each reply, or none.
    pub(super) fn set_asleep(&mut self, asleep: bool) {
        self.places.iter_mut().for_each(|place| place.set_asleep(asleep));
    }

    /// Whether calls wait that another worker could run.
    fn work_waits(&self) -> bool {
        !self.backlog.is_empty() || self.places.iter().filter_map(Place::load).any(|load| load > 1)
    }

    pub(super) fn collect_from(&mut self, number: usize, owed: &mut Owed) -> bool {
        let Some(worker) = self.places[number].worker_mut() else { return false };
        if !worker.caller.has_reply() {
            return false;
        }
        let mut replies = Vec::new();
        let collected = worker.caller.collect(|asked, reply| replies.push((asked, reply)));
        let who = (worker.record.name(), worker.record.pid);
        for (asked, reply) in replies {
            match asked {
                Asked::Setup if reply.kind == Kind::Done => {
                    if let Some(worker) = self.places[number].worker_mut() {
                        worker.proven = true;
                    }
                    self.failed_starts = 0;
                }
                Asked::Setup => {
                    if let Some(worker) = self.places[number].worker_mut() {
                        worker.refused = true;
                    }
                    if let Err(error) = outcome::of_reply(reply) {
                        self.count_failed_start(&error.in_process(&who.0, who.1), owed);
                    }
                }
                Asked::Call(call) => {
                    let described = outcome::of_reply(reply).map_err(|error| error.in_process(&who.0, who.1));
                    self.settle(&call, described, owed);
                }
            }
        }
        if let Err(violation) = collected {
            self.punish(number, violation.0, owed);
        }
        self.list_if_idle(number);
        true
    }

    pub(super) fn requeue(&mut self, unclaimed: Vec<(Asked, Payload)>) {
        for (asked, payload) in unclaimed.into_iter().rev() {
            if let Asked::Call(call) = asked {
                self.backlog.push_front(Pending { call, payload });
            }
        }
    }

    /// Gives out what waits, as far as there is room: to the idle worker that was used last, else to the least loaded.
    pub(super) fn pump(&mut self, owed: &mut Owed) {
        if let Phase::Ended(error) = &self.phase {
            self.fail_backlog(&error.clone(), owed);
        }
        while let Some(first) = self.backlog.front() {
            // A parcel's descriptor may have to travel first, which is simplest when nothing else does.
            let small = matches!(first.payload, Payload::Small(_));
            let number = self.pop_idle().or_else(|| if small { self.least_loaded() } else { None });
            let Some(number) = number else { return };
            if let Some(pending) = self.backlog.pop_front() {
                self.give(number, pending, owed);
            }
        }
    }

    /// Moves calls from the fullest worker to those that have none.
    pub(super) fn level(&mut self, owed: &mut Owed) {
        while self.backlog.is_empty() {
            let waiting = |place: &Place| place.load().map_or(0, |load| load.saturating_sub(1));
            let Some((most, fullest)) = (0..self.places.len()).map(|n| (waiting(&self.places[n]), n)).max() else {
                return;
            };
            if most == 0 || self.idle.is_empty() {
                return;
            }
            let half = u32::try_from(most.div_ceil(2)).unwrap_or(1);
            let back = self.places[fullest].worker_mut().map(|worker| worker.caller.take_back(half));
            let back = back.unwrap_or_default();
            if back.is_empty() {
                return;
            }
            // It rings only when it is dry, and what it answered just now it may have answered before we made it so.
            self.collect_from(fullest, owed);
            self.requeue(back);
            self.pump(owed);
        }
    }

    fn give(&mut self, number: usize, pending: Pending, owed: &mut Owed) {
        let Some(worker) = self.places[number].worker_mut() else { return self.backlog.push_front(pending) };
        let Pending { call, payload } = pending;
        match worker.caller.push(Kind::Call, call.index, payload, Asked::Call(call)) {
            Ok(()) => self.far = worker.caller.wake(),
            Err((Errno::EPIPE | Errno::ECONNRESET, payload, Asked::Call(call))) => {
                // It is dead, or as good as dead: its end will be reported, and the call has not begun.
                owed.kill.extend(self.places[number].worker().map(|worker| Arc::clone(&worker.record)));
                self.backlog.push_front(Pending { call, payload });
            }
            Err((errno, _, asked)) => {
                let reason = format!("they cannot be handed over: {}", errno.desc());
                let kind = ErrorKind::CannotEncode { direction: Direction::Arguments, reason };
                if let Asked::Call(call) = asked {
                    self.settle(&call, Err(Error::new(kind, Execution::NotStarted)), owed);
                }
                self.list_if_idle(number);
            }
        }
    }

    fn least_loaded(&self) -> Option<usize> {
        let room = |number: &usize| self.places[*number].worker().is_some_and(|worker| worker.caller.has_room());
        (0..self.places.len()).filter(room).min_by_key(|number| self.places[*number].load())
    }

    fn pop_idle(&mut self) -> Option<usize> {
        while let Some(number) = self.idle.pop() {
            self.places[number].listed = false;
            if self.is_idle(number) {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn list_if_idle(&mut self, number: usize) {
        if self.is_idle(number) && !std::mem::replace(&mut self.places[number].listed, true) {
            self.idle.push(number);
        }
    }

    /// Whether all that a worker has left to answer is its setup.
    fn is_idle(&self, number: usize) -> bool {
        self.places[number].load() == Some(0)
    }

    pub(super) fn settle(&mut self, call: &Arc<Call>, outcome: Result<Body>, owed: &mut Owed) {
        let waiters = call.settle(outcome);
        if waiters.is_awaited() {
            self.awaited = self.awaited.saturating_sub(1);
        }
        if !waiters.is_empty() {
            owed.wake.push(waiters);
        }
        owed.kick |= self.sleeping;
        self.outstanding.fetch_sub(1, SeqCst);
    }
}
