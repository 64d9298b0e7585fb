//! The one call of a process: its link, and its outcome, which is found once and kept.
//!
//! Runs in: the parent, on the thread that asks.
//! Invariant: replies are collected once more before a process counts as dead.
//!
//! | the child dies | the caller gets |
//! |---|---|
//! | forked, before it claims the call | what another process answers; the end's kind, with `NotStarted`, after three |
//! | executed, before it claims the call | the end's kind, with `NotStarted` |
//! | between the claim and the reply | the end's kind, with `Unknown` |
//! | after the reply | the reply |
//! | because we killed it, when its time was over and it had not replied | `TimedOut` |
//! | not, 30 seconds after it was killed for that | `TimedOut`, which says so |
//!
//! Why a call that a dying spare never claimed goes to another process: a spare whose fork server was just killed
//! still looks alive.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::call::outcome;
use crate::codec::message::to_bytes;
use crate::error::{Error, ErrorKind, Execution, Result};
use crate::link::frame::FrameKind;
use crate::link::message::Setup;
use crate::link::{Body, Caller, Payload};
use crate::reactor::{EventHandler, Reactor, TimerKey, Token, existing_reactor, wake};
use crate::supervisor::{
    ChildHandle, DEATH_CHECK_INTERVAL, MAX_DEATH_TIME, SetupFor, SpawnAttributes, SpawnedChild, StartRequest,
    hand_over, not_dead_note, setup, supervisor, tell_of_stop,
};
use crate::sys::held::HeldFd;
use crate::sys::mutex::MutexExt as _;
use crate::sys::poll::{self, Trigger};
use crate::sys::{self, Errno, signal};

/// What a request on this link was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Setup,
    Call,
}

/// The longest wait before the next look: if the program closes descriptors that it did not open, nothing is left to ring.
const RECHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How many requests come before the call.
const REQUESTS_BEFORE_CALL: u32 = 1;

/// What a process is asked for, and another one if it dies before it has begun.
pub(super) struct SpawnRequest {
    pub(super) task: &'static str,
    /// The task's place in the registry.
    pub(super) index: u32,
    /// What the process is to become, if another one has to be asked for.
    pub(super) options: SpawnAttributes,
    pub(super) umask: Option<u32>,
    /// Whether the process ignores the signals that ask to end.
    pub(super) ignores_termination: bool,
    /// How long the call may take, from the moment that a process has it.
    pub(super) limit: Option<Duration>,
}

/// Asks whether a child that was prepared may have the call.
pub(super) type IsRight<'f> = Option<&'f dyn Fn(&ChildHandle) -> Result<bool>>;

/// Why a child did not get a call.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// It is not the right one for this call.
    Wrong(Payload),
    Failed(Error),
}

impl From<Errno> for NotStarted {
    fn from(errno: Errno) -> Self {
        Self::Failed(Error::could_not_start("hand over the call", errno))
    }
}

/// The one call of a process.
pub(super) struct SpawnedCall {
    pub(super) record: Arc<ChildHandle>,
    order: Arc<SpawnRequest>,
    since: Instant,
    /// `None` once the outcome is known or the handle is dropped.
    caller: Mutex<Option<Caller<RequestKind>>>,
    outcome: OnceLock<Result<Body>>,
    bell: Arc<HeldFd>,
    waker: Mutex<Option<Waker>>,
    /// The reactor's token for this process, once a future awaits the result.
    token: OnceLock<(Arc<Reactor>, Token)>,
    /// What will end the process if it takes too long.
    timer: OnceLock<TimerKey>,
    /// How long the call had taken when the process was killed because of that.
    timed_out: OnceLock<Duration>,
    /// How many more processes may be tried if this one dies before it claims the call.
    tries: AtomicU32,
    /// SIGKILL was sent to it from here.
    killed: AtomicBool,
    /// The process that has the call instead, because this one died before it claimed it.
    successor: OnceLock<Arc<SpawnedCall>>,
}

impl SpawnedCall {
    /// Gives `child` its setup and its call. While the child puts the setup on, `is_right` says whether it is to have the call.
    ///
    /// # Errors
    /// The call, if it was not given out, and why. The child is ended.
    pub(super) fn start(
        child: SpawnedChild,
        order: Arc<SpawnRequest>,
        (setup, descriptors): (Setup, Vec<OwnedFd>),
        call: Payload,
        (tries, is_right): (u32, IsRight<'_>),
    ) -> std::result::Result<Arc<Self>, NotStarted> {
        let SpawnedChild { record, link } = child;
        let bell = Arc::clone(link.bell());
        let mut caller = Caller::new(link.for_single_call());
        let pushed = (|| {
            hand_over(&caller, &descriptors)?;
            let setup = Payload::of_bytes(&to_bytes(&setup))?;
            caller
                .push(FrameKind::Setup, 0, setup, RequestKind::Setup)
                .map_err(|(errno, ..)| NotStarted::from(errno))?;
            if let Some(is_right) = is_right {
                caller.wake();
                match is_right(&record) {
                    Ok(true) => {}
                    Ok(false) => return Err(NotStarted::Wrong(call)),
                    Err(error) => return Err(NotStarted::Failed(error)),
                }
            }
            caller.push(FrameKind::Call, order.index, call, RequestKind::Call).map_err(|(errno, ..)| errno.into())
        })();
        if let Err(why) = pushed {
            let _ = record.signal(signal::KILL);
            return Err(why);
        }
        caller.wake();
        let running = Arc::new(Self {
            record,
            order,
            since: Instant::now(),
            caller: Mutex::new(Some(caller)),
            outcome: OnceLock::new(),
            bell,
            waker: Mutex::default(),
            token: OnceLock::new(),
            timer: OnceLock::new(),
            timed_out: OnceLock::new(),
            tries: AtomicU32::new(tries),
            killed: AtomicBool::new(false),
            successor: OnceLock::new(),
        });
        let (record, task) = (Arc::downgrade(&running.record), running.order.task);
        running.record.on_stop(move |signal| {
            if let Some(record) = record.upgrade() {
                tell_of_stop(&record, task, signal);
            }
        });
        running.set_timer();
        // Held until the end is known, so that the reactor's thread unmaps the link, and not the thread that joins.
        let watcher = Arc::clone(&running);
        running.record.on_exit(move || watcher.ended());
        Ok(running)
    }

    /// Sees to it that the process is killed when its time is over. Before its end is watched, where this is undone.
    fn set_timer(self: &Arc<Self>) {
        let (Some(limit), Some(reactor)) = (self.order.limit, existing_reactor()) else { return };
        let running = Arc::downgrade(self);
        let timer = reactor.timer(limit, move || {
            if let Some(running) = running.upgrade() {
                running.on_timeout();
            }
        });
        if let Some(timer) = timer {
            let _ = self.timer.set(timer);
        }
    }

    /// The call's time is over: the process is killed, unless it has replied.
    ///
    /// Runs in: the parent, on the reactor's thread.
    fn on_timeout(self: Arc<Self>) {
        if self.outcome().is_none() {
            let _ = self.timed_out.set(self.since.elapsed());
            let _ = self.signal(signal::KILL);
            self.expect_death(Instant::now().checked_add(MAX_DEATH_TIME));
        }
    }

    /// The process was killed for its time: its call is settled when it is dead, or else at `last`.
    fn expect_death(self: Arc<Self>, last: Option<Instant>) {
        let Some(reactor) = existing_reactor() else { return };
        let running = Arc::downgrade(&self);
        reactor.after(DEATH_CHECK_INTERVAL, move || {
            let Some(running) = running.upgrade().filter(|running| running.outcome().is_none()) else { return };
            let (Some(limit), Some(elapsed)) = (running.order.limit, running.timed_out.get().copied()) else { return };
            let error = Error::new(ErrorKind::TimedOut { limit, elapsed }, Execution::Unknown);
            if running.record.is_dead() {
                running.give_up(error);
            } else if last.is_some_and(|last| Instant::now() >= last) {
                running.give_up(error.with_note(not_dead_note()));
            } else {
                running.expect_death(last);
            }
        });
    }

    /// The process that has the call now.
    pub(super) fn latest(self: &Arc<Self>) -> &Arc<Self> {
        let mut latest = self;
        while let Some(successor) = latest.successor.get() {
            latest = successor;
        }
        latest
    }

    /// Asks the process to end, or ends it if it would not hear that.
    pub(super) fn terminate(&self) -> std::result::Result<(), Errno> {
        self.signal(if self.order.ignores_termination { signal::KILL } else { signal::TERM })
    }

    /// Sends `signal` to the process, which is not tried again if it dies of it.
    pub(super) fn signal(&self, signal: i32) -> std::result::Result<(), Errno> {
        self.tries.store(0, SeqCst);
        self.killed.fetch_or(signal == signal::KILL, SeqCst);
        self.record.signal(signal)
    }

    /// The outcome, if it is known by now.
    pub(super) fn outcome(&self) -> Option<&Result<Body>> {
        if self.outcome.get().is_none() {
            self.poll();
        }
        self.outcome.get()
    }

    /// Waits for the outcome; `None` if `deadline` came first, or another process has the call now.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Option<&Result<Body>> {
        self.wait_by(|bell| {
            let look_again = Instant::now() + RECHECK_INTERVAL;
            let until = deadline.map_or(look_again, |deadline| deadline.min(look_again));
            poll::readable([bell], Some(until)).map(|[rang]| rang || until == look_again)
        })
    }

    /// As [`SpawnedCall::wait`], where `sleep` waits until the bell rings, or says that it does so no longer.
    pub(super) fn wait_by(&self, mut sleep: impl FnMut(BorrowedFd<'_>) -> sys::Result<bool>) -> Option<&Result<Body>> {
        loop {
            if let Some(outcome) = self.outcome() {
                return Some(outcome);
            }
            if self.successor.get().is_some() {
                return None;
            }
            // Without looking first: the process was woken a moment ago, perhaps on this very processor.
            self.set_notify_reply();
            if let Some(outcome) = self.outcome() {
                return Some(outcome);
            }
            let rang = sleep(self.bell.as_fd());
            self.bell.drain();
            if rang == Ok(false) {
                return self.outcome();
            }
        }
    }

    /// Registers `waker`, to be woken when there may be an outcome. Returns the token of its handler.
    ///
    /// # Errors
    /// The kernel has no memory to watch one more descriptor.
    pub(super) fn register_waker(
        self: &Arc<Self>,
        reactor: &Arc<Reactor>,
        waker: &Waker,
    ) -> std::result::Result<Token, Errno> {
        self.waker().replace(waker.clone());
        let is_new = self.token.get().is_none();
        let (_, token) = self.token.get_or_init(|| {
            let handler: Arc<dyn EventHandler> = Arc::<Self>::clone(self);
            (Arc::clone(reactor), reactor.add_handler(handler))
        });
        if is_new {
            reactor.register(self.bell.as_fd(), *token, Trigger::Edge)?;
        }
        self.set_notify_reply();
        Ok(*token)
    }

    /// Asks the child to notify the doorbell for its reply. There is only one reply, so the flag is never cleared.
    fn set_notify_reply(&self) {
        if let Some(caller) = &*self.caller.lock_unpoisoned() {
            caller.set_notify_reply(true);
        }
    }

    /// The handle is gone: the reactor forgets the process, and a link that still works is left to the child.
    pub(super) fn release(&self) {
        let mut caller = self.caller.lock_unpoisoned();
        // With a time limit, a reply has to be seen: a process that has replied is not killed.
        let unseen = self.outcome.get().is_none() && self.order.limit.is_none();
        if unseen && caller.as_ref().is_some_and(|caller| caller.claimed() > REQUESTS_BEFORE_CALL) {
            *caller = None;
        }
        drop(caller);
        if let Some((reactor, token)) = self.token.get() {
            reactor.deregister(self.bell.as_fd());
            reactor.remove_handler(*token);
        }
        // A future that is gone keeps nothing of its executor's until the child's end.
        let waker = self.waker().take();
        drop(waker);
    }

    /// Adds to `error` which task it was, and in which process.
    pub(super) fn describe(&self, error: Error) -> Error {
        error.in_process(&self.record.name(), self.record.pid).in_task(self.order.task)
    }

    /// Takes the reply if there is one, or finds the process dead.
    fn poll(&self) {
        // Asked before the replies are taken: then a reply that came before the end is not missed.
        let ended = self.record.status();
        let mut caller = self.caller.lock_unpoisoned();
        let Some(caller) = &mut *caller else { return };
        let mut found = None;
        let collected = caller.collect(|asked, reply| {
            if asked == RequestKind::Call || reply.kind != FrameKind::Done {
                found.get_or_insert_with(|| outcome::of_reply(reply));
            }
        });
        if let Err(violation) = collected {
            let _ = self.record.signal(signal::KILL);
            // Settled when it is dead; otherwise a caller that makes the work again might have two processes at it.
            found = ended.map(|_| Err(outcome::of_violation(violation.0)));
            if found.is_none() {
                return;
            }
        }
        if let (None, Some(status)) = (&found, ended) {
            let claimed = caller.claimed() > REQUESTS_BEFORE_CALL;
            // If another process may be tried, `ended` is about to decide about it.
            if claimed || self.tries.load(SeqCst) == 0 {
                let execution = if claimed { Execution::Unknown } else { Execution::NotStarted };
                found = Some(Err(match (self.timed_out.get(), self.order.limit) {
                    (Some(&elapsed), Some(limit)) if status.signal() == Some(signal::KILL) => {
                        Error::new(ErrorKind::TimedOut { limit, elapsed }, execution)
                    }
                    _ => outcome::of_exit(self.record.exit(status), caller, execution),
                }));
            }
        }
        if let Some(found) = found {
            let _ = self.outcome.set(found.map_err(|error| self.describe(error)));
        }
    }

    /// The process is gone. If it never claimed its call, another one gets it, and this is not reported.
    ///
    /// Runs in: the parent, on the reactor's thread.
    fn ended(self: Arc<Self>) {
        if let (Some(timer), Some(reactor)) = (self.timer.get(), existing_reactor()) {
            reactor.cancel(*timer);
        }
        if let Some((call, tries)) = self.unclaimed() {
            return self.retry_elsewhere(call, tries);
        }
        let returned = self.outcome.get().is_some_and(Result::is_ok);
        if returned && self.record.status().and_then(|status| status.signal()) == Some(signal::KILL) {
            self.tell_of_forced_end();
        }
        // What was beside the call is not held any more, whether its outcome is ever asked for or not.
        if self.outcome.get().is_some() {
            let caller = self.caller.lock_unpoisoned().take();
            drop(caller);
        }
        self.tell();
    }

    /// The task has returned, and then the process was killed: since it took too long to exit, unless another process
    /// killed it.
    fn tell_of_forced_end(&self) {
        if self.killed.load(SeqCst) {
            return;
        }
        let (process, pid, task) = (self.record.name(), self.record.pid, self.order.task);
        // A subscriber is the program's code, and this is the reactor's thread.
        let told = catch_unwind(|| {
            warn!(target: "process_task", process, pid, task, "process was killed while it exited, after its result");
        });
        if let Err(payload) = told {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        }
    }

    /// Takes the call back that a dead process has not claimed, if it may be given to another one.
    fn unclaimed(&self) -> Option<(Payload, u32)> {
        if self.outcome().is_some() {
            return None;
        }
        let mut caller = self.caller.lock_unpoisoned();
        let tries = self.tries.swap(0, SeqCst).checked_sub(1)?;
        if caller.as_ref()?.claimed() > REQUESTS_BEFORE_CALL {
            return None;
        }
        let (_, call) = caller.take()?.in_flight_at_exit().unclaimed.pop()?;
        Some((call, tries))
    }

    fn retry_elsewhere(self: Arc<Self>, call: Payload, tries: u32) {
        let supervisor = match supervisor() {
            Ok(supervisor) => supervisor,
            Err(error) => return self.give_up(error),
        };
        let rights = Arc::clone(self.record.server().rights());
        let started = move |child: Result<SpawnedChild>| {
            let next = child.and_then(|child| {
                let name = self.record.name();
                child.record.set_name(&name);
                let base = child.record.server().base();
                let made =
                    setup(SetupFor { base, name: &name, once: true, umask: self.order.umask }, &self.order.options)?;
                Self::start(child, Arc::clone(&self.order), made, call, (tries, None)).map_err(|why| match why {
                    NotStarted::Failed(error) => error,
                    NotStarted::Wrong(_) => Error::could_not_start("hand over the call", Errno::EPERM),
                })
            });
            match next {
                Ok(next) => {
                    let _ = self.successor.set(next);
                    self.tell();
                }
                Err(error) => self.give_up(error),
            }
        };
        supervisor.start_child_later(StartRequest::forked(), rights, Box::new(started));
    }

    fn give_up(self: Arc<Self>, error: Error) {
        let _ = self.outcome.set(Err(self.describe(error)));
        self.tell();
    }

    /// Tells the waiting threads and futures that there is something to see.
    fn tell(self: Arc<Self>) {
        self.bell.notify();
        self.ready();
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock_unpoisoned()
    }
}

impl EventHandler for SpawnedCall {
    fn ready(self: Arc<Self>) {
        let waker = self.waker().take();
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

impl fmt::Debug for SpawnedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signal = self.record.status().and_then(|status| status.signal());
        f.debug_struct("SpawnedCall").field("record", &self.record).field("signal", &signal).finish_non_exhaustive()
    }
}
