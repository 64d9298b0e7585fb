//! What a pool's handles, threads and workers share: the scheduler behind its mutex, and what the mutex is not needed for.
//!
//! Runs in: the parent, on any thread. The mutex is private to this file: [`Shared::update`] changes the scheduler and
//! runs the effects; [`Shared::inspect`], [`Shared::try_inspect`] and [`Shared::wait_for_change`] read it.
//! Invariant: no user code runs, no thread is woken and no process is started or killed while the mutex is held.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::call::{Call, QueuedCall};
use super::callbacks::Callbacks;
use super::config::PoolConfig;
use super::effects::Effects;
use super::inline;
use super::metrics::emit;
use super::pending_limit::{PendingLimit, TrySubmitError, foreign};
use super::scheduler::Scheduler;
use super::worker_start;
use crate::error::{Error, Result};
use crate::link::{BUFFER_IDLE_TIME, Payload, SharedBufferPool, Spin};
use crate::reactor::{EventHandler, Token};
use crate::supervisor::{ChildHandle, Supervisor};
use crate::sys::held::HeldFd;
use crate::sys::mutex::MutexExt as _;
use crate::sys::poll::{self, Trigger};
use crate::sys::{Errno, atfork, fd, signal};

/// Why a pool ends whose descriptors the program has closed.
const LOST_DESCRIPTORS: &str = "this program has closed descriptors that it did not open, those of the pool among them";

/// How often the links of workers with calls are checked.
const LINK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The part of a pool that its handles and workers refer to.
pub(super) struct Shared {
    pub(super) supervisor: Arc<Supervisor>,
    /// The reactor's token for doorbells that no thread of the pool awaits.
    pub(super) token: OnceLock<Token>,
    generation: u64,
    pub(super) config: Arc<PoolConfig>,
    scheduler: Mutex<Scheduler>,
    /// Notified when workers have come or gone.
    workers_changed: Condvar,
    /// Calls without an outcome.
    pub(super) outstanding: Arc<AtomicUsize>,
    /// The epoll set in which the leader sleeps: the workers' doorbells, which are eventfds, and its own.
    pub(super) set: poll::Epoll,
    /// Wakes the leader when another thread has settled a call.
    leader_bell: HeldFd,
    /// How long leaders spin before they sleep.
    pub(super) spin: Spin,
    pub(super) stock: SharedBufferPool,
    /// A timer is set that trims memory.
    trimming: AtomicBool,
    /// A timer is set that checks links.
    watching: AtomicBool,
    pub(super) callbacks: Callbacks,
    pub(super) limit: Arc<PendingLimit>,
}

impl Shared {
    pub(super) fn new(supervisor: Arc<Supervisor>, config: PoolConfig, workers: usize) -> Result<Arc<Self>> {
        let at = |step: &'static str| move |errno: Errno| Error::could_not_start(step, errno);
        let set = poll::Epoll::new().map_err(at("make an epoll set"))?;
        let leader_bell = HeldFd::from(fd::eventfd().map_err(at("make an eventfd"))?);
        set.add(leader_bell.as_fd(), 0, Trigger::Edge).map_err(at("watch an eventfd"))?;
        let config = Arc::new(config);
        let scheduler = Scheduler::new(Arc::clone(&config), workers);
        let (outstanding, limit) = (Arc::clone(scheduler.outstanding()), Arc::clone(scheduler.limit()));
        let shared = Arc::new(Self {
            supervisor,
            token: OnceLock::new(),
            generation: atfork::generation(),
            config,
            scheduler: Mutex::new(scheduler),
            workers_changed: Condvar::new(),
            outstanding,
            set,
            leader_bell,
            spin: Spin::new(),
            stock: SharedBufferPool::default(),
            trimming: AtomicBool::new(false),
            watching: AtomicBool::new(false),
            callbacks: Callbacks::default(),
            limit,
        });
        let handler: Arc<dyn EventHandler> = Arc::<Self>::clone(&shared);
        let _ = shared.token.set(shared.supervisor.reactor().add_handler(handler));
        let trimmed = Arc::downgrade(&shared);
        shared.stock.on_warm(move || {
            if let Some(shared) = trimmed.upgrade() {
                shared.trim_later();
            }
        });
        Ok(shared)
    }

    /// Whether this process is a copy, made by `fork()`, of the one that the pool belongs to.
    pub(super) fn is_foreign(&self) -> bool {
        self.generation != atfork::generation()
    }

    /// Changes the scheduler under the mutex, settles what follows from that, and runs the effects.
    pub(super) fn update<R>(self: &Arc<Self>, change: impl FnOnce(&mut Scheduler) -> R) -> R {
        let (result, effects) = {
            let mut scheduler = self.lock();
            let result = change(&mut scheduler);
            scheduler.settle();
            (result, scheduler.take_effects())
        };
        if let Some(effects) = effects {
            self.run_effects(effects);
        }
        result
    }

    /// Reads the scheduler under the mutex.
    pub(super) fn inspect<R>(&self, read: impl FnOnce(&Scheduler) -> R) -> R {
        read(&self.lock())
    }

    /// As [`inspect`](Self::inspect), but returns `None` instead of waiting for the mutex.
    pub(super) fn try_inspect<R>(&self, read: impl FnOnce(&Scheduler) -> R) -> Option<R> {
        match self.scheduler.try_lock() {
            Ok(scheduler) => Some(read(&scheduler)),
            Err(TryLockError::Poisoned(scheduler)) => Some(read(&scheduler.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Sleeps until workers have come or gone, unless `done` holds. Returns whether it held before; `None` after `deadline`.
    pub(super) fn wait_for_change(
        &self,
        done: impl FnOnce(&Scheduler) -> bool,
        deadline: Option<Instant>,
    ) -> Option<bool> {
        let scheduler = self.lock();
        if done(&scheduler) {
            return Some(true);
        }
        match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            None => drop(self.workers_changed.wait(scheduler).unwrap_or_else(PoisonError::into_inner)),
            Some(Duration::ZERO) => return None,
            Some(left) => {
                drop(self.workers_changed.wait_timeout(scheduler, left).unwrap_or_else(PoisonError::into_inner));
            }
        }
        Some(false)
    }

    fn lock(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock_unpoisoned()
    }

    /// Runs effects, with no lock held. [`Effects`] has the order.
    fn run_effects(self: &Arc<Self>, effects: Effects) {
        emit(effects.events);
        if effects.wake_leader {
            self.leader_bell.notify();
        }
        effects.wake.into_iter().for_each(|waiters| waiters.wake(&self.callbacks));
        if let Some(follower) = effects.follower {
            follower.unpark();
        }
        for record in effects.workers.kill {
            let _ = record.signal(signal::KILL);
        }
        for record in effects.workers.end {
            self.end(&record);
        }
        for start in effects.workers.start {
            match start.pause {
                None => worker_start::start(self, start),
                Some(pause) => self.later(pause, move |shared| worker_start::start(shared, start)),
            }
        }
        if effects.workers.workers_changed {
            self.workers_changed.notify_all();
        }
        if let Some(due) = effects.workers.alarm {
            let pause = due.saturating_duration_since(Instant::now());
            self.later(pause, |shared| shared.update(Scheduler::check_deadlines));
        }
        if effects.trim_memory {
            self.trim_later();
        }
        if let Some(pause) = effects.workers.idle_alarm {
            self.later(pause, |shared| shared.update(Scheduler::check_idle));
        }
    }

    /// How many workers the pool is to have.
    pub(super) fn workers(&self) -> usize {
        self.inspect(|scheduler| scheduler.workers.count())
    }

    /// Submits a call; or settles it and returns false if the pool is closed.
    fn submit(self: &Arc<Self>, call: Arc<Call>, payload: Payload) -> bool {
        if inline::is_on() {
            return self.run_inline(&call, &payload);
        }
        let taken = self.update(|scheduler| scheduler.submit(QueuedCall { call, payload }));
        if taken {
            self.watch_later();
        }
        taken
    }

    /// Runs a call here and now, and settles it; false if the pool is closed.
    fn run_inline(self: &Arc<Self>, call: &Arc<Call>, payload: &Payload) -> bool {
        let taken = self.update(|scheduler| scheduler.admit(call));
        if taken {
            let outcome = inline::run(call.index, payload);
            self.update(|scheduler| scheduler.settle_call(call, outcome));
        }
        taken
    }

    /// Runs `task` after `pause`, on the reactor's thread, if the pool still exists then.
    fn later(self: &Arc<Self>, pause: Duration, task: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let shared = Arc::downgrade(self);
        self.supervisor.reactor().after(pause, move || {
            if let Some(shared) = shared.upgrade() {
                task(&shared);
            }
        });
    }

    /// Checks links from time to time as long as calls have no outcome.
    fn watch_later(self: &Arc<Self>) {
        if !self.watching.load(Relaxed) && !self.watching.swap(true, SeqCst) {
            self.later(LINK_CHECK_INTERVAL, |shared| {
                shared.watching.store(false, SeqCst);
                if shared.outstanding.load(SeqCst) > 0 {
                    shared.update(Scheduler::check_links);
                    shared.watch_later();
                }
            });
        }
    }

    /// Trims memory for long payloads once it has been idle for some time.
    fn trim_later(self: &Arc<Self>) {
        if !self.is_foreign() && !self.trimming.swap(true, SeqCst) {
            self.later(BUFFER_IDLE_TIME, Self::trim);
        }
    }

    fn trim(self: &Arc<Self>) {
        self.trimming.store(false, SeqCst);
        // Half of the time, since timers fire early, and the clock goes in steps.
        let (gone, warm) = self.stock.give_back(BUFFER_IDLE_TIME / 2);
        let mapped = self.update(|scheduler| scheduler.workers.slots.trim(&gone));
        if warm || mapped {
            self.trim_later();
        }
    }

    /// Ends a worker: at once, or by asking first and killing after the pool's grace.
    fn end(self: &Arc<Self>, record: &Arc<ChildHandle>) {
        match self.config.grace {
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

    /// Ends everything now.
    pub(super) fn terminate(self: &Arc<Self>) {
        self.update(|scheduler| scheduler.terminate(Error::closed("`kill` was called")));
    }
}

/// A place for a call that is about to be submitted. Dropping it releases it.
#[must_use = "the call that it is for would not be counted"]
pub(super) struct PendingPermit<'a>(&'a Arc<Shared>);

impl<'a> PendingPermit<'a> {
    /// The pool that it is a permit of.
    pub(super) fn shared(&self) -> &'a Arc<Shared> {
        self.0
    }

    /// Waits for a permit if there is a bound. A closed pool has one for every call, which then fails.
    pub(super) fn acquire(shared: &'a Arc<Shared>) -> Self {
        let limit = &shared.limit;
        if limit.is_bounded() {
            while !limit.try_acquire() {
                shared.wait(&|| limit.is_open(), &**limit, None);
            }
            limit.wake_next();
        }
        Self(shared)
    }

    /// As [`acquire`](Self::acquire), but at once or not at all, and not in a pool that is closed.
    pub(super) fn try_acquire<A>(
        shared: &'a Arc<Shared>,
        args: A,
    ) -> std::result::Result<(Self, A), TrySubmitError<A>> {
        if shared.is_foreign() {
            return Err(TrySubmitError::Closed(args, foreign()));
        }
        if let Some(error) = shared.inspect(|scheduler| scheduler.workers.refusal().cloned()) {
            return Err(TrySubmitError::Closed(args, error));
        }
        let limit = &shared.limit;
        if limit.is_bounded() {
            if !limit.try_acquire() {
                // Calls that no thread waits for may have been answered.
                shared.update(Scheduler::collect);
                if !limit.try_acquire() {
                    return Err(TrySubmitError::Full(args));
                }
            }
            limit.wake_next();
        }
        Ok((Self(shared), args))
    }

    /// Submits the call, which keeps the permit until it is settled. A pool that is closed settles it at once.
    pub(super) fn submit(self, call: Arc<Call>, payload: Payload) {
        if self.0.submit(call, payload) {
            let _ = std::mem::ManuallyDrop::new(self);
        }
    }
}

impl Drop for PendingPermit<'_> {
    fn drop(&mut self) {
        if self.0.limit.is_bounded() {
            self.0.update(Scheduler::release_permit);
        }
    }
}

impl EventHandler for Shared {
    fn lost(self: Arc<Self>) {
        self.update(|scheduler| scheduler.terminate(Error::closed(LOST_DESCRIPTORS)));
    }

    /// A doorbell rang that no leader heard.
    fn ready(self: Arc<Self>) {
        self.update(Scheduler::on_doorbell);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.config.name).finish_non_exhaustive()
    }
}
