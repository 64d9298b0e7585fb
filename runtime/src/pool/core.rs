//! What a pool's handles share: the schedule, and the ways to wait.
//!
//! Owns: the pool's epoll set and its place in the hub. Runs in: the parent, on any thread.
//! Never: runs user code, wakes a thread, or starts a worker while it holds the mutex.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::call::{Call, Pending, Waiters};
use super::schedule::{Owed, Phase, Schedule};
use super::worker::{Asked, State, Worker};
use crate::codec::message::to_bytes;
use crate::error::{Error, Result};
use crate::launch::{Child, Hub, Options, Record, Source, setup};
use crate::link::frame::Kind;
use crate::link::{Caller, Payload, SharedStock, Spin};
use crate::sys::poll::{self, Report};
use crate::sys::{Errno, fd, forked, signal};

/// The part of a pool that its handles and workers refer to.
pub(super) struct Core {
    hub: Arc<Hub>,
    /// Under which the hub reports bells that nobody else hears.
    token: OnceLock<u64>,
    generation: u64,
    pub(super) name: String,
    options: Options,
    pub(super) schedule: Mutex<Schedule>,
    /// Told when a worker that was asked for is there, or never will be.
    arrived: Condvar,
    pub(super) outstanding: Arc<AtomicUsize>,
    /// The workers' bells, and the kick, for the leader to sleep on.
    pub(super) set: poll::Set,
    /// Wakes the leader when somebody else has settled a call.
    kick: OwnedFd,
    /// How long leaders look before they sleep.
    pub(super) spin: Spin,
    pub(super) stock: SharedStock,
}

impl Core {
    pub(super) fn new(hub: Arc<Hub>, name: String, options: Options, workers: usize) -> Result<Arc<Self>> {
        let at = |step: &'static str| move |errno: Errno| Error::could_not_start(step, errno);
        let set = poll::Set::new().map_err(at("make an epoll set"))?;
        let kick = fd::event().map_err(at("make an eventfd"))?;
        set.add(kick.as_fd(), 0, Report::Ring).map_err(at("watch an eventfd"))?;
        let schedule = Schedule::new(workers);
        let outstanding = Arc::clone(&schedule.outstanding);
        let core = Arc::new(Self {
            hub,
            token: OnceLock::new(),
            generation: forked::generation(),
            name,
            options,
            schedule: Mutex::new(schedule),
            arrived: Condvar::new(),
            outstanding,
            set,
            kick,
            spin: Spin::new(),
            stock: SharedStock::default(),
        });
        let source: Arc<dyn Source> = Arc::<Self>::clone(&core);
        let _ = core.token.set(core.hub.register(source));
        Ok(core)
    }

    /// Whether this process is a copy, made by `fork()`, of the one that the pool belongs to.
    pub(super) fn is_foreign(&self) -> bool {
        self.generation != forked::generation()
    }

    pub(super) fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `change` under the mutex, then pays what it owes.
    pub(super) fn update<R>(self: &Arc<Self>, change: impl FnOnce(&mut Schedule, &mut Owed) -> R) -> R {
        let mut owed = Owed::default();
        let result = change(&mut self.schedule(), &mut owed);
        self.pay(owed);
        result
    }

    pub(super) fn submit(self: &Arc<Self>, call: Arc<Call>, payload: Payload) {
        self.update(|schedule, owed| schedule.submit(Pending { call, payload }, owed));
    }

    /// Pays what is owed, with no lock held.
    pub(super) fn pay(self: &Arc<Self>, owed: Owed) {
        if owed.kick {
            fd::ring(self.kick.as_fd());
        }
        owed.wake.into_iter().for_each(Waiters::wake);
        if let Some(follower) = owed.follower {
            follower.unpark();
        }
        for record in owed.kill {
            let _ = record.signal(signal::KILL);
        }
        for (number, pause) in owed.start {
            let core = Arc::downgrade(self);
            match pause {
                None => self.start(number),
                Some(pause) => self.hub.after(pause, move || {
                    if let Some(core) = core.upgrade() {
                        core.start(number);
                    }
                }),
            }
        }
    }

    /// Asks for a worker for a place, if one is still wanted there.
    fn start(self: &Arc<Self>, number: usize) {
        if !self.schedule().may_start(number) {
            return;
        }
        let core = Arc::clone(self);
        let started = move |child| {
            if let Err(error) = core.started(number, child) {
                core.update(|schedule, owed| schedule.start_failed(number, &error, owed));
            }
            core.arrived.notify_all();
        };
        self.hub.start_child_later(self.options.method, Box::new(started));
    }

    /// Starts the first workers and waits until all are there.
    pub(super) fn start_all(self: &Arc<Self>, workers: usize) -> Result<()> {
        let (sender, receiver) = std::sync::mpsc::channel();
        for number in 0..workers {
            self.schedule().places[number].state = State::Starting;
            let (core, sender) = (Arc::clone(self), sender.clone());
            let started = move |child| {
                let result = core.started(number, child);
                if result.is_err() {
                    core.schedule().places[number].state = State::Empty;
                }
                core.arrived.notify_all();
                drop(sender.send(result));
            };
            self.hub.start_child_later(self.options.method, Box::new(started));
        }
        drop(sender);
        receiver.into_iter().take(workers).collect()
    }

    /// A child is there, or could not be had, for a place. Gives it its setup.
    fn started(self: &Arc<Self>, number: usize, child: Result<Child>) -> Result<()> {
        let name = format!("{}-{number}", self.name);
        let Child { record, link } = child.map_err(|error| error.in_process(&name, 0))?;
        record.set_name(&name);
        let bell = Arc::clone(link.bell());
        let link = link.for_many().map_err(|errno| {
            let _ = record.signal(signal::KILL);
            Error::could_not_start("reserve the link's memory", errno).in_process(&name, record.pid)
        })?;
        let mut caller = Caller::new(link);
        let prepared = self.prepare(&record, &mut caller, &name, bell.as_fd());
        if let Err(error) = prepared {
            let _ = record.signal(signal::KILL);
            return Err(error.in_process(&name, record.pid));
        }
        let dismissed = self.update(|schedule, owed| {
            caller.wake();
            let worker = Worker { record: Arc::clone(&record), caller, proven: false, refused: false };
            if matches!(schedule.phase, Phase::Ended(_)) {
                schedule.places[number].state = State::Leaving(Arc::clone(&record));
                return true;
            }
            schedule.install(number, worker, owed);
            false
        });
        if dismissed {
            let _ = record.signal(signal::KILL);
        }
        let (core, ended) = (Arc::downgrade(self), Arc::clone(&record));
        record.watch(move || {
            if let Some(core) = core.upgrade() {
                core.hub.stop_listening(bell.as_fd());
                let status = ended.status().unwrap_or(ExitStatus::from_raw(signal::KILL));
                core.update(|schedule, owed| schedule.ended(number, &ended, status, owed));
            }
        });
        Ok(())
    }

    fn prepare(
        &self,
        record: &Record,
        caller: &mut Caller<Asked>,
        name: &str,
        bell: std::os::fd::BorrowedFd<'_>,
    ) -> Result<()> {
        let at = |step: &'static str| move |errno: Errno| Error::could_not_start(step, errno);
        let (setup, descriptors) = setup(record.server().base(), &self.options, name, false)?;
        if !descriptors.is_empty() {
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            caller.attach(&descriptors).map_err(at("hand over descriptors"))?;
        }
        let setup = Payload::of_bytes(&to_bytes(&setup)).map_err(at("find memory for the setup"))?;
        let pushed = caller.push(Kind::Setup, 0, setup, Asked::Setup);
        pushed.map_err(|(errno, ..)| at("hand over the setup")(errno))?;
        // The pool's own set first: a leader that sleeps there is woken rather than the hub.
        self.set.add(bell, 0, Report::RingOne).map_err(at("watch a worker"))?;
        let token = self.token.get().copied().unwrap_or_default();
        self.hub.listen(bell, token, Report::RingOne).map_err(at("watch a worker"))
    }

    /// Waits until every call is settled, sends the workers home, and waits for their end.
    pub(super) fn finish(self: &Arc<Self>) {
        let outstanding = Arc::clone(&self.outstanding);
        while !self.wait(&|| outstanding.load(SeqCst) == 0, &std::iter::empty(), None) {}
        let leaving = {
            let mut schedule = self.schedule();
            let mut leaving = schedule.dismiss();
            while schedule.is_starting() {
                schedule = self.arrived.wait(schedule).unwrap_or_else(PoisonError::into_inner);
                leaving = schedule.dismiss();
            }
            leaving
        };
        for record in leaving {
            record.wait(None);
        }
        if let Some(token) = self.token.get() {
            self.hub.deregister(*token);
        }
    }
}

impl Source for Core {
    /// A bell rang that no leader heard: takes the replies, and gives out what waits.
    fn rang(self: Arc<Self>) {
        self.update(|schedule, owed| {
            if schedule.led {
                schedule.collect(owed);
            } else {
                schedule.leave_office(owed);
            }
        });
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("name", &self.name).finish_non_exhaustive()
    }
}
