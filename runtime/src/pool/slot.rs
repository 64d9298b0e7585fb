//! One slot for a worker in a pool, and where in its life the worker is.
//!
//! Runs in: the parent, under the scheduler's mutex.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call::{Call, QueuedCall};
use super::death::Dying;
use super::load_index::Load;
use super::metrics::{SlotStats, WorkerRef};
use crate::link::{Caller, InFlightAtExit, PartialBatch, Payload};
use crate::supervisor::ChildHandle;

/// How often to check a worker that has calls with a timeout and has not begun to work. A worker sends no notification when
/// its setup is finished.
pub(super) const SETUP_CHECK: Duration = Duration::from_millis(5);

/// What a request to a worker was.
#[derive(Debug)]
pub(super) enum Request {
    Setup,
    Initializer,
    Finalizer,
    Call(Arc<Call>),
}

/// A worker's slot. It outlives the worker, which may be replaced.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: SlotState,
    /// The one that takes over when the worker has made as many calls as it may make. It has no call.
    pub(super) standby: Option<Box<Worker>>,
    /// How many children were asked for and are not there yet.
    pub(super) pending_starts: usize,
    /// Whether the pool wants a worker here.
    pub(super) enabled: bool,
    /// What was done here.
    pub(super) stats: SlotStats,
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

/// What had ended in a slot.
pub(super) enum Ended {
    Standby(Box<Worker>),
    Worker(Box<Worker>),
    Dying(Box<Dying>),
    /// Another worker is in the slot by now.
    Other,
}

/// What a worker had when it ended, or was about to be killed.
pub(super) struct CallsAtExit {
    /// What it was running; more than one call if it cannot be believed.
    pub(super) running: Vec<QueuedCall>,
    /// What was answered of a batch that it was running.
    pub(super) salvaged: Option<PartialBatch>,
    /// What it had not begun, in its order.
    pub(super) unclaimed: Vec<QueuedCall>,
}

/// When a worker notifies the parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NotifyFlags {
    /// After each reply.
    pub(super) reply: bool,
    /// When it goes idle.
    pub(super) idle: bool,
}

/// A worker that can be given calls.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) record: Arc<ChildHandle>,
    pub(super) caller: Caller<Request>,
    /// What was last written to the link's two flags.
    notify_flags: NotifyFlags,
    /// How many of its setup and its initializer it has not answered.
    pub(super) setup_pending: usize,
    /// Whether there is an initializer among these.
    pub(super) initializing: bool,
    /// Its setup or its initializer failed, and it has said so: its exit is not reported again.
    pub(super) setup_failed: bool,
    /// How many calls it was given and did not give back; below, how many it may be given.
    pub(super) given: u64,
    quota: u64,
    /// It gets no more calls for another reason, and goes when it has answered those that it has.
    pub(super) draining: bool,
    /// How many of its calls have a timeout.
    pub(super) timed: usize,
    /// When the oldest of its calls began at the earliest, if an observer wants to know.
    pub(super) since: Option<Instant>,
    /// Since when it has claimed no call though it had some, and how many it had claimed then, once that is noticed.
    pub(super) unresponsive_since: Option<(Instant, u32)>,
    /// Since when it has had nothing to do, if idle workers are to leave.
    pub(super) idle_since: Option<Instant>,
}

impl Request {
    /// Whether it is a call that may take a certain time only.
    pub(super) fn is_timed(&self) -> bool {
        matches!(self, Self::Call(call) if call.options.timeout.is_some())
    }

    /// The call that it is, with its arguments.
    fn into_call(self, payload: Payload) -> Option<QueuedCall> {
        if let Self::Call(call) = self { Some(QueuedCall { call, payload }) } else { None }
    }
}

impl Worker {
    /// One that was given its setup, and perhaps its initializer.
    pub(super) fn new(record: Arc<ChildHandle>, caller: Caller<Request>, quota: Option<u64>) -> Self {
        let setup_pending = caller.in_flight();
        Self {
            record,
            caller,
            notify_flags: NotifyFlags::default(),
            setup_pending,
            initializing: setup_pending > 1,
            setup_failed: false,
            given: 0,
            quota: quota.unwrap_or(u64::MAX),
            draining: false,
            timed: 0,
            since: None,
            unresponsive_since: None,
            idle_since: None,
        }
    }

    /// How many calls it has not answered. Its setup is no call: one that waits behind nothing else is about to run, and
    /// need not be given to another worker.
    #[inline]
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
        if self.draining { 0 } else { self.quota.saturating_sub(self.given) }
    }

    /// Tells it when to notify the parent.
    pub(super) fn set_notify_flags(&mut self, flags: NotifyFlags) {
        let before = std::mem::replace(&mut self.notify_flags, flags);
        if before.reply != flags.reply {
            self.caller.set_notify_reply(flags.reply);
        }
        if before.idle != flags.idle {
            self.caller.set_notify_idle(flags.idle);
        }
    }

    /// It has answered its setup, or else its initializer, and whether that is `done`. Returns how many of both it has not
    /// answered.
    pub(super) fn setup_answered(&mut self, setup: bool, done: bool) -> usize {
        self.setup_pending -= 1;
        if done {
            self.initializing &= setup;
        } else {
            self.setup_failed = true;
        }
        self.setup_pending
    }

    /// Takes back up to `most` of the calls that it has not claimed, never its setup or initializer, which are the oldest.
    /// Returns how many of them have a timeout, too.
    pub(super) fn take_back(&mut self, most: usize) -> (Vec<QueuedCall>, usize) {
        let most = u32::try_from(self.load().min(most)).unwrap_or(u32::MAX);
        let back = self.caller.take_back(most);
        self.given -= back.len() as u64;
        let timed = back.iter().filter(|(request, _)| request.is_timed()).count();
        self.timed -= timed;
        (back.into_iter().filter_map(|(request, payload)| request.into_call(payload)).collect(), timed)
    }

    /// Sorts what it has, once it is dead and its last replies are collected; or when it is about to be killed.
    pub(super) fn in_flight_at_exit(self) -> CallsAtExit {
        let InFlightAtExit { mut running, salvaged, mut unclaimed } = self.caller.in_flight_at_exit();
        let next = unclaimed.first().filter(|_| running.is_empty() && self.setup_pending == 0);
        if let Some((Request::Call(call), _)) = next
            && call.is_poison_pill()
        {
            running.push(unclaimed.remove(0));
        }
        let calls = |requests: Vec<(Request, Payload)>| {
            requests.into_iter().filter_map(|(request, payload)| request.into_call(payload)).collect()
        };
        CallsAtExit { running: calls(running), salvaged, unclaimed: calls(unclaimed) }
    }

    /// Since when it has claimed no call though it had some: since the last check that found it so, or else since `given`.
    /// `None` if it has claimed one, as far as is known.
    pub(super) fn unresponsive_since(&mut self, given: Option<Instant>) -> Option<Instant> {
        if self.load() > 0 {
            return None;
        }
        let claimed = self.caller.claimed();
        let known = self.unresponsive_since.filter(|(_, before)| *before == claimed).map(|(since, _)| since);
        let since = known.or(given)?;
        self.unresponsive_since = Some((since, claimed));
        Some(since)
    }

    /// When the call that it is running has taken too long, and how long that may take.
    pub(super) fn due(&self) -> Option<(Instant, Duration)> {
        let Request::Call(call) = self.caller.front()? else { return None };
        let limit = call.options.timeout?;
        Some((self.since?.checked_add(limit)?, limit))
    }

    /// As [`due`](Self::due), for anything that it does; an initializer may take `initializer_limit`.
    pub(super) fn next_check(&self, initializer_limit: Option<Duration>) -> Option<Instant> {
        if self.initializing
            && let Some(limit) = initializer_limit
        {
            return self.since.map_or_else(|| Some(Instant::now() + SETUP_CHECK), |since| since.checked_add(limit));
        }
        if self.setup_pending > 0 && self.timed > 0 {
            return Some(Instant::now() + SETUP_CHECK);
        }
        self.due().map(|(due, _)| due)
    }
}

impl Slot {
    pub(super) fn vacant() -> Self {
        Self { state: SlotState::Vacant, standby: None, pending_starts: 0, enabled: true, stats: SlotStats::default() }
    }

    #[inline]
    pub(super) fn worker(&self) -> Option<&Worker> {
        match &self.state {
            SlotState::Ready(worker) => Some(worker),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn worker_mut(&mut self) -> Option<&mut Worker> {
        match &mut self.state {
            SlotState::Ready(worker) => Some(worker),
            _ => None,
        }
    }

    pub(super) fn is_vacant(&self) -> bool {
        matches!(self.state, SlotState::Vacant)
    }

    /// The worker and its standby, as far as they are there.
    pub(super) fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        let worker = if let SlotState::Ready(worker) = &mut self.state { Some(worker) } else { None };
        worker.into_iter().chain(&mut self.standby).map(|worker| &mut **worker)
    }

    /// Takes the worker out, if it is there. The slot is vacant then.
    pub(super) fn take_worker(&mut self) -> Option<Box<Worker>> {
        match std::mem::replace(&mut self.state, SlotState::Vacant) {
            SlotState::Ready(worker) => Some(worker),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Takes a worker out that was killed and is not known to be dead. The slot is vacant then.
    pub(super) fn take_dying(&mut self) -> Option<Box<Dying>> {
        match std::mem::replace(&mut self.state, SlotState::Vacant) {
            SlotState::Dying(dying) => Some(dying),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// A worker is there that was asked for: it gets the slot, or becomes the standby. False if it is not needed any more.
    pub(super) fn attach(&mut self, worker: Worker, ended: bool) -> bool {
        self.pending_starts -= 1;
        let starting = matches!(self.state, SlotState::Starting);
        let has_room = starting || self.standby.is_none();
        if ended || !self.enabled || !has_room {
            if starting {
                self.state = SlotState::Vacant;
            }
            return false;
        }
        if starting {
            self.state = SlotState::Ready(Box::new(worker));
        } else {
            self.standby = Some(Box::new(worker));
        }
        true
    }

    /// Sets whether the pool wants a worker here. Returns the standby, if none is wanted.
    pub(super) fn set_enabled(&mut self, enabled: bool) -> Option<Box<Worker>> {
        self.enabled = enabled;
        if enabled {
            return None;
        }
        if matches!(self.state, SlotState::Backoff) {
            self.state = SlotState::Vacant;
        }
        self.standby.take()
    }

    /// Takes the process with this record out, which has ended.
    pub(super) fn take_ended(&mut self, record: &Arc<ChildHandle>) -> Ended {
        if let Some(standby) = self.standby.take_if(|standby| Arc::ptr_eq(&standby.record, record)) {
            return Ended::Standby(standby);
        }
        match std::mem::replace(&mut self.state, SlotState::Vacant) {
            SlotState::Ready(worker) if Arc::ptr_eq(&worker.record, record) => Ended::Worker(worker),
            SlotState::Dying(dying) if Arc::ptr_eq(&dying.record, record) => Ended::Dying(dying),
            other => {
                self.state = other;
                Ended::Other
            }
        }
    }

    /// The worker's number, name and process id.
    pub(super) fn worker_ref(&self, number: usize) -> Option<WorkerRef> {
        Some(WorkerRef::of(number, &self.worker()?.record))
    }

    /// Where it stands among the others: in no list while its worker may still turn out to be unfit.
    #[inline]
    pub(super) fn load(&self) -> Option<Load> {
        let worker = self.worker().filter(|worker| !worker.initializing)?;
        let open = self.enabled && worker.left() > 0 && worker.caller.has_room();
        Some(Load { load: worker.load(), open })
    }
}
