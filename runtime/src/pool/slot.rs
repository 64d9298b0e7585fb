//! One place for a worker in a pool, and where in its life the worker is.
//!
//! Owns: the states. Runs in: the parent, under the schedule's mutex. Never: is written by a child.

use std::sync::Arc;
use std::time::Instant;

use super::call::Call;
use super::departures::Dying;
use super::load_index::Load;
use super::metrics::SlotStats;
use crate::link::Caller;
use crate::supervisor::ChildHandle;

/// What a request to a worker was.
#[derive(Debug)]
pub(super) enum Request {
    Setup,
    Initializer,
    Finalizer,
    Call(Arc<Call>),
}

/// A worker's place. It outlives the worker, which may be replaced.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: SlotState,
    /// The one that takes over when the worker has made as many calls as it may make. It has no call.
    pub(super) standby: Option<Box<Worker>>,
    /// How many children were asked for and are not there yet.
    pub(super) pending_starts: usize,
    /// Whether the pool wants a worker here.
    pub(super) wanted: bool,
    /// What was done here.
    pub(super) tally: SlotStats,
}

/// Where a worker is in its life.
#[derive(Debug)]
pub(super) enum SlotState {
    /// No worker, and none requested.
    Vacant,
    /// To be asked for, perhaps after a pause. Costs nothing.
    Backoff,
    /// Asked for. Has no call, so its failure costs none.
    Starting,
    /// There. Its death costs the one call that it has claimed, if any.
    Ready(Box<Worker>),
    /// Killed, or about to be, and not known to be dead. What it was running is settled, or made again, when it is.
    Dying(Box<Dying>),
}

/// A worker that can be given calls.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) record: Arc<ChildHandle>,
    pub(super) caller: Caller<Request>,
    /// What we have last written to the link's two words.
    notify_flags: (bool, bool),
    /// How many of its setup and its initializer it has not answered.
    pub(super) setup_pending: usize,
    /// Whether there is an initializer among these.
    pub(super) initializing: bool,
    /// It could not become that, and said so; its end is no further news.
    pub(super) setup_failed: bool,
    /// How many calls it was given, and did not give back; and how many it may be given.
    pub(super) given: u64,
    quota: u64,
    /// It gets no more calls for another reason, and goes when it has answered those that it has.
    pub(super) shut: bool,
    /// How many of its calls have a timeout.
    pub(super) timed: usize,
    /// When the oldest of its calls began at the earliest, if an observer wants to know.
    pub(super) since: Option<Instant>,
    /// Since when it has claimed no call though it had some, and how many it had claimed then, once that is noticed.
    pub(super) unresponsive_since: Option<(Instant, u32)>,
    /// Since when it has had nothing to do, likewise.
    pub(super) idle_since: Option<Instant>,
}

impl Request {
    /// Whether it is a call that may take a certain time only.
    pub(super) fn is_timed(&self) -> bool {
        matches!(self, Self::Call(call) if call.options.timeout.is_some())
    }
}

impl Worker {
    /// One that was given its setup, and perhaps its initializer.
    pub(super) fn new(record: Arc<ChildHandle>, caller: Caller<Request>, quota: Option<u64>) -> Self {
        let setup_pending = caller.in_flight();
        Self {
            record,
            caller,
            notify_flags: (false, false),
            setup_pending,
            initializing: setup_pending > 1,
            setup_failed: false,
            given: 0,
            quota: quota.unwrap_or(u64::MAX),
            shut: false,
            timed: 0,
            since: None,
            unresponsive_since: None,
            idle_since: None,
        }
    }

    /// How many calls it has not answered. Its setup is no call: one that waits behind nothing else is about to run, and
    /// need not be given to another worker.
    pub(super) fn load(&self) -> usize {
        self.caller.in_flight().saturating_sub(self.setup_pending)
    }

    /// The task that it runs, as far as is known.
    pub(super) fn task(&self) -> Option<&'static str> {
        match self.caller.running()? {
            Request::Call(call) => Some(call.task),
            Request::Setup | Request::Initializer | Request::Finalizer => None,
        }
    }

    /// Whether it has begun its initializer, and has not answered.
    pub(super) fn is_in_initializer(&self) -> bool {
        matches!(self.caller.running(), Some(Request::Initializer))
    }

    /// How many more calls it may be given.
    pub(super) fn left(&self) -> u64 {
        if self.shut { 0 } else { self.quota.saturating_sub(self.given) }
    }

    /// Says whether it has to ring, for each reply, and when it runs dry.
    pub(super) fn set_notify_flags(&mut self, asleep: bool, hungry: bool) {
        let before = std::mem::replace(&mut self.notify_flags, (asleep, hungry));
        if before.0 != asleep {
            self.caller.set_notify_reply(asleep);
        }
        if before.1 != hungry {
            self.caller.set_notify_idle(hungry);
        }
    }
}

impl Slot {
    pub(super) fn empty() -> Self {
        Self { state: SlotState::Vacant, standby: None, pending_starts: 0, wanted: true, tally: SlotStats::default() }
    }

    pub(super) fn worker(&self) -> Option<&Worker> {
        match &self.state {
            SlotState::Ready(worker) => Some(worker),
            _ => None,
        }
    }

    pub(super) fn worker_mut(&mut self) -> Option<&mut Worker> {
        match &mut self.state {
            SlotState::Ready(worker) => Some(worker),
            _ => None,
        }
    }

    /// The worker and its standby, as far as they are there.
    pub(super) fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        let worker = if let SlotState::Ready(worker) = &mut self.state { Some(worker) } else { None };
        worker.into_iter().chain(&mut self.standby).map(|worker| &mut **worker)
    }

    /// Where it stands among the others: nowhere as long as its worker may still turn out to be unfit.
    pub(super) fn rank(&self) -> Option<Load> {
        let worker = self.worker().filter(|worker| !worker.initializing)?;
        let open = self.wanted && worker.left() > 0 && worker.caller.has_room();
        Some(Load { load: worker.load(), open })
    }
}
