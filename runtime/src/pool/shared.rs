//! What a pool's handles share: the schedule, and the ways to wait.
//!
//! Owns: the pool's epoll set and its handler in the reactor. Runs in: the parent, on any thread.
//! Never: runs user code, wakes a thread, or starts a worker while it holds the mutex.

use std::fmt;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::call::{Call, Queued};
use super::callbacks::Callbacks;
use super::config::PoolConfig;
use super::inline;
use super::leader::AllCalls;
use super::metrics::tell;
use super::pending_limit::{PendingLimit, PendingPermit};
use super::scheduler::{Owed, Phase, Scheduler, Start};
use super::slot::{Request, SlotState, Worker};
use crate::codec::message::to_bytes;
use crate::error::{Error, Result};
use crate::link::frame::Kind;
use crate::link::{Caller, IDLE, Payload, SharedStock, Spin};
use crate::reactor::{EventHandler, Token};
use crate::supervisor::{
    ChildHandle, OnStarted, SetupFor, SpawnedChild, StartRequest, Supervisor, hand_over, setup_of_worker,
};
use crate::sys::held::Held;
use crate::sys::poll::{self, Report};
use crate::sys::{Errno, fd, forked, rights, signal};

/// How often to look whether workers have set themselves up, while `build` waits for that alone.
const SETTING_UP: Duration = Duration::from_millis(1);

/// How often the links of workers with calls are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The part of a pool that its handles and workers refer to.
pub(super) struct Shared {
    supervisor: Arc<Supervisor>,
    /// The reactor's token for bells that no thread of the pool hears.
    token: OnceLock<Token>,
    generation: u64,
    pub(super) plan: Arc<PoolConfig>,
    pub(super) scheduler: Mutex<Scheduler>,
    /// Told when a worker that was asked for is there, or never will be, and when one that was leaving has ended.
    arrived: Condvar,
    pub(super) outstanding: Arc<AtomicUsize>,
    /// The workers' bells, and the kick, for the leader to sleep on.
    pub(super) set: poll::Set,
    /// Wakes the leader when another thread has settled a call.
    wake_leader: Held,
    /// How long leaders look before they sleep.
    pub(super) spin: Spin,
    pub(super) stock: SharedStock,
    /// A thread is about to look at memory that may be idle.
    tending: AtomicBool,
    /// A thread is about to look at the links of workers that have calls.
    watching: AtomicBool,
    pub(super) callbacks: Callbacks,
    pub(super) room: Arc<PendingLimit>,
}

impl Shared {
    pub(super) fn new(supervisor: Arc<Supervisor>, plan: PoolConfig, workers: usize) -> Result<Arc<Self>> {
        let at = |step: &'static str| move |errno: Errno| Error::could_not_start(step, errno);
        let set = poll::Set::new().map_err(at("make an epoll set"))?;
        let wake_leader = Held::from(fd::event().map_err(at("make an eventfd"))?);
        set.add(wake_leader.as_fd(), 0, Report::Ring).map_err(at("watch an eventfd"))?;
        let plan = Arc::new(plan);
        let scheduler = Scheduler::new(Arc::clone(&plan), workers);
        let (outstanding, room) = (Arc::clone(&scheduler.outstanding), Arc::clone(&scheduler.room));
        let shared = Arc::new(Self {
            supervisor,
            token: OnceLock::new(),
            generation: forked::generation(),
            plan,
            scheduler: Mutex::new(scheduler),
            arrived: Condvar::new(),
            outstanding,
            set,
            wake_leader,
            spin: Spin::new(),
            stock: SharedStock::default(),
            tending: AtomicBool::new(false),
            watching: AtomicBool::new(false),
            callbacks: Callbacks::default(),
            room,
        });
        let handler: Arc<dyn EventHandler> = Arc::<Self>::clone(&shared);
        let _ = shared.token.set(shared.supervisor.reactor().add_handler(handler));
        let tended = Arc::downgrade(&shared);
        shared.stock.when_kept(move || {
            if let Some(shared) = tended.upgrade() {
                shared.tend_later();
            }
        });
        Ok(shared)
    }

    /// Whether this process is a copy, made by `fork()`, of the one that the pool belongs to.
    pub(super) fn is_foreign(&self) -> bool {
        self.generation != forked::generation()
    }

    pub(super) fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `change` under the mutex, then pays what it owes.
    pub(super) fn update<R>(self: &Arc<Self>, change: impl FnOnce(&mut Scheduler, &mut Owed) -> R) -> R {
        let mut owed = Owed::default();
        let result = change(&mut self.scheduler(), &mut owed);
        self.pay(owed);
        result
    }

    /// Takes a call, which keeps its place until it is settled; or settles it at once.
    pub(super) fn submit(self: &Arc<Self>, call: Arc<Call>, payload: Payload, slot: PendingPermit<'_>) {
        let taken = if inline::is_on() {
            self.run_inline(&call, &payload)
        } else {
            self.update(|scheduler, owed| scheduler.submit(Queued { call, payload }, owed))
        };
        if taken {
            slot.keep();
        }
    }

    /// Pays what is owed, with no lock held.
    pub(super) fn pay(self: &Arc<Self>, owed: Owed) {
        // First, so that a thread that is woken finds it told.
        tell(owed.events);
        if owed.wake_leader {
            self.wake_leader.ring();
        }
        owed.wake.into_iter().for_each(|waiters| waiters.wake(&self.callbacks));
        if let Some(follower) = owed.follower {
            follower.unpark();
        }
        for record in owed.kill {
            let _ = record.signal(signal::KILL);
        }
        for record in owed.end {
            self.end(&record);
        }
        for start in owed.start {
            match start.pause {
                None => self.start(start),
                Some(pause) => self.later(pause, move |shared| shared.start(start)),
            }
        }
        if let Some(due) = owed.alarm {
            let pause = due.saturating_duration_since(Instant::now());
            self.later(pause, |shared| {
                shared.update(Scheduler::check_deadlines);
                shared.arrived.notify_all();
            });
        }
        if owed.watch {
            self.watch_later();
        }
        if owed.tend {
            self.tend_later();
        }
        if let Some(pause) = owed.idle_alarm {
            self.later(pause, |shared| shared.update(Scheduler::check_idle));
        }
    }

    /// Does `what` after `pause`, on the reactor's thread, if the pool still exists then.
    fn later(self: &Arc<Self>, pause: Duration, what: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let shared = Arc::downgrade(self);
        self.supervisor.reactor().after(pause, move || {
            if let Some(shared) = shared.upgrade() {
                what(&shared);
            }
        });
    }

    /// Sees to it that links are looked at while calls have no result.
    fn watch_later(self: &Arc<Self>) {
        if !self.watching.load(Relaxed) && !self.watching.swap(true, SeqCst) {
            self.later(LOOK_EVERY, |shared| {
                shared.watching.store(false, SeqCst);
                if shared.outstanding.load(SeqCst) > 0 {
                    shared.update(Scheduler::check_links);
                    shared.watch_later();
                }
            });
        }
    }

    /// Sees to it that memory for long payloads is given back when it has been idle for some time.
    fn tend_later(self: &Arc<Self>) {
        if !self.is_foreign() && !self.tending.swap(true, SeqCst) {
            self.later(IDLE, Self::tend);
        }
    }

    fn tend(self: &Arc<Self>) {
        self.tending.store(false, SeqCst);
        // Half of the time, since looks come early, and the clock goes in steps.
        let (gone, warm) = self.stock.give_back(IDLE / 2);
        let arrivals = self.scheduler().tend(&gone);
        if warm || arrivals {
            self.tend_later();
        }
    }

    /// Ends a worker: at once, or by asking first and killing after the grace that the pool gives.
    fn end(self: &Arc<Self>, record: &Arc<ChildHandle>) {
        match self.plan.grace {
            None => {
                let _ = record.signal(signal::KILL);
            }
            Some(grace) => {
                let _ = record.signal(signal::TERM);
                // Its pidfd is not kept open for the length of a grace that it does not need.
                let record = Arc::downgrade(record);
                self.later(grace, move |_| {
                    if let Some(record) = record.upgrade() {
                        let _ = record.signal(signal::KILL);
                    }
                });
            }
        }
    }

    /// Asks for a worker for a place, if one is still wanted there.
    fn start(self: &Arc<Self>, start: Start) {
        if !self.scheduler().confirm_start(start) {
            return;
        }
        let (shared, number) = (Arc::clone(self), start.number);
        let started = move |child| {
            if let Err(error) = shared.started(number, child) {
                shared.update(|scheduler, owed| scheduler.start_failed(number, &error, owed));
            }
            shared.arrived.notify_all();
        };
        self.ask(Box::new(started));
    }

    /// Asks for a child.
    fn ask(&self, started: OnStarted) {
        let options = &self.plan.options;
        let asked = options.rights().and_then(|rights| Ok((rights, StartRequest::of(options)?)));
        match asked {
            Ok((rights, how)) => self.supervisor.start_child_later(how, rights, started),
            Err(error) => started(Err(error)),
        }
    }

    /// Starts the first workers, and waits until all are there, and initialized.
    pub(super) fn start_all(self: &Arc<Self>, workers: usize) -> Result<()> {
        if inline::is_on() {
            return inline::begin(&self.plan);
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        let awaiting_ready = {
            let mut scheduler = self.scheduler();
            for slot in &mut scheduler.slots {
                slot.state = SlotState::Starting;
                slot.pending_starts = 1;
            }
            scheduler.awaiting_ready.store(workers, SeqCst);
            Arc::clone(&scheduler.awaiting_ready)
        };
        for number in 0..workers {
            let (shared, sender) = (Arc::clone(self), sender.clone());
            let started = move |child| {
                let result = shared.started(number, child);
                if result.is_err() {
                    let slot = &mut shared.scheduler().slots[number];
                    slot.state = SlotState::Vacant;
                    slot.pending_starts = 0;
                }
                shared.arrived.notify_all();
                drop(sender.send(result));
            };
            self.ask(Box::new(started));
        }
        drop(sender);
        receiver.into_iter().take(workers).collect::<Result<()>>()?;
        if self.plan.initializer.is_none() && !self.plan.may_be_refused {
            return Ok(());
        }
        // A worker sends no notification when its setup is finished.
        let look_again = || self.plan.initializer.is_none().then(|| Instant::now() + SETTING_UP);
        while !self.wait(&|| awaiting_ready.load(SeqCst) == 0, &AllCalls, look_again()) {}
        match &self.scheduler().phase {
            Phase::Ended(error) => Err(error.clone()),
            Phase::Open | Phase::Closing(_) => Ok(()),
        }
    }

    /// A child is there, or could not be had, for a place. Gives it its setup.
    fn started(self: &Arc<Self>, number: usize, child: Result<SpawnedChild>) -> Result<()> {
        let name = format!("{}-{number}", self.plan.name);
        let SpawnedChild { record, link } = child.map_err(|error| error.in_process(&name, 0))?;
        record.set_name(&name);
        let bell = Arc::clone(link.bell());
        let link = link.for_many().map_err(|errno| {
            let _ = record.signal(signal::KILL);
            Error::could_not_start("reserve the link's memory", errno).in_process(&name, record.pid)
        })?;
        let mut caller = Caller::new(link);
        let prepared = self.prepare(&record, &mut caller, (&name, number), bell.as_fd());
        if let Err(error) = prepared {
            let _ = record.signal(signal::KILL);
            return Err(error.in_process(&name, record.pid));
        }
        let worker = Worker::new(Arc::clone(&record), caller, self.plan.quota);
        if !self.update(|scheduler, owed| {
            worker.caller.wake();
            scheduler.attach_worker(number, worker, owed)
        }) {
            let _ = record.signal(signal::KILL);
        }
        let (shared, stopped) = (Arc::downgrade(self), Arc::downgrade(&record));
        record.on_stop(move |signal| {
            if let (Some(shared), Some(record)) = (shared.upgrade(), stopped.upgrade()) {
                shared.update(|scheduler, owed| scheduler.see_stop(number, &record, signal, owed));
            }
        });
        let (shared, ended) = (Arc::downgrade(self), Arc::clone(&record));
        record.on_exit(move || {
            if let Some(shared) = shared.upgrade() {
                shared.supervisor.reactor().deregister(bell.as_fd());
                let status = ended.status().unwrap_or(ExitStatus::from_raw(signal::KILL));
                shared.update(|scheduler, owed| scheduler.ended(number, &ended, status, owed));
                shared.arrived.notify_all();
            }
        });
        Ok(())
    }

    fn prepare(
        &self,
        record: &ChildHandle,
        caller: &mut Caller<Request>,
        (name, number): (&str, usize),
        bell: std::os::fd::BorrowedFd<'_>,
    ) -> Result<()> {
        let at = |step: &'static str| move |errno: Errno| Error::could_not_start(step, errno);
        let worker = SetupFor { base: record.server().base(), name, once: false, umask: rights::umask() };
        let (setup, descriptors) = setup_of_worker(worker, &self.plan.options, number)?;
        hand_over(caller, &descriptors).map_err(at("hand over descriptors"))?;
        let setup = Payload::of_bytes(&to_bytes(&setup)).map_err(at("find memory for the setup"))?;
        let pushed = caller.push(Kind::Setup, 0, setup, Request::Setup);
        pushed.map_err(|(errno, ..)| at("hand over the setup")(errno))?;
        if let Some(initializer) = &self.plan.initializer {
            let unknown = || Error::unknown_task().in_task(initializer.task().name());
            let index = initializer.task().index().ok_or_else(unknown)?;
            let payload = initializer.payload().map_err(at("find memory for the initializer's arguments"))?;
            let request = (index, initializer.options().memory_limit);
            let written = caller.write(Kind::Call, request, payload, Request::Initializer);
            written.map_err(|(errno, ..)| at("hand over the initializer's arguments")(errno))?;
            caller.publish();
        }
        // The pool's own set first: a leader that sleeps there is woken rather than the reactor.
        self.set.add(bell, 0, Report::RingOne).map_err(at("watch a worker"))?;
        let token = self.token.get();
        let watched = token.map_or(Ok(()), |token| self.supervisor.reactor().register(bell, *token, Report::RingOne));
        watched.map_err(at("watch a worker"))
    }

    /// Ends everything now.
    pub(super) fn terminate(self: &Arc<Self>) {
        self.update(|scheduler, owed| scheduler.terminate(Error::closed("`kill` was called"), owed));
    }

    /// Waits until every call is settled, sends the workers home, and waits for their end, and
    /// that of the callbacks; false if `deadline` came first.
    pub(super) fn finish(self: &Arc<Self>, deadline: Option<Instant>) -> bool {
        let outstanding = Arc::clone(&self.outstanding);
        while !self.wait(&|| outstanding.load(SeqCst) == 0, &AllCalls, deadline) {
            if deadline.is_some_and(|at| Instant::now() >= at) {
                return false;
            }
        }
        if inline::is_on() && matches!(self.scheduler().phase, Phase::Closing(_)) {
            let ended = inline::end(&self.plan);
            if let Err(error) = ended {
                self.update(|scheduler, owed| scheduler.see_failed_finalizer(0, error, owed));
            }
        }
        loop {
            self.update(Scheduler::stop_all);
            let scheduler = self.scheduler();
            if !scheduler.is_starting() && scheduler.leaving.is_empty() {
                break;
            }
            // A worker that comes now is sent away, and is among the leaving then.
            match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                None => drop(self.arrived.wait(scheduler).unwrap_or_else(PoisonError::into_inner)),
                Some(Duration::ZERO) => return false,
                Some(left) => {
                    drop(self.arrived.wait_timeout(scheduler, left).unwrap_or_else(PoisonError::into_inner));
                }
            }
        }
        if !self.callbacks.finish(deadline) {
            return false;
        }
        if let Some(token) = self.token.get() {
            self.supervisor.reactor().remove_handler(*token);
        }
        true
    }
}

/// Why a pool ends whose descriptors the program has closed.
const LOST_DESCRIPTORS: &str = "this program has closed descriptors that it did not open, those of the pool among them";

impl EventHandler for Shared {
    fn lost(self: Arc<Self>) {
        self.update(|scheduler, owed| scheduler.terminate(Error::closed(LOST_DESCRIPTORS), owed));
    }

    /// A bell rang that no leader heard: takes the replies, and gives out what waits.
    fn ready(self: Arc<Self>) {
        self.update(|scheduler, owed| {
            scheduler.collect(owed);
            scheduler.refresh_notify_flags(owed);
        });
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.plan.name).finish_non_exhaustive()
    }
}
