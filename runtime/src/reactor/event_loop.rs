//! The event loop: an epoll set, an eventfd that interrupts it, timers, and the thread that waits for all of them.
//!
//! Owns: the epoll set, and through it the order in which events are handled. Runs in: any process; the loop on a thread
//! of its own, the rest on any.
//! Invariant: no lock of the reactor is held while a handler runs. Handlers add and remove each other. None waits for a
//! task; the one that replaces a fork server waits until that has started.
//!
//! The thread starts with the first use and stays. It blocks all signals: a handler of the program's never runs on it.
//!
//! Why it sleeps in `poll(2)`, on its epoll set and on one end of a pipe of which it has both: the kernel keeps both
//! open during the sleep. A program that closes all descriptors hangs that end up, and all that wait are told. From
//! then on no number of ours is used or closed, since it may be another file's. Threads that lead or join look at
//! this every half second.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::lost;
use super::timers::{TimerKey, Timers};
use crate::error::{Error, Result};
use crate::sys::held::{self, CloseDetector, HeldFd};
use crate::sys::mutex::MutexExt as _;
use crate::sys::poll::{self, Trigger};
use crate::sys::{self, Errno, atfork, errno_of, fd, identity, membarrier, signal};

/// Handles the events of descriptors. Called on the reactor's thread, which it must not block.
pub(crate) trait EventHandler: Send + Sync {
    /// A descriptor that is registered under this handler's token is ready.
    fn ready(self: Arc<Self>);

    /// The program has closed descriptors that it did not open: nothing is reported from here on. `ready` follows.
    fn lost(self: Arc<Self>) {}
}

/// Work that shares the reactor's thread and belongs to no descriptor: the supervisor's.
pub(crate) trait Hooks: Send + Sync + UnwindSafe + RefUnwindSafe {
    /// Runs before each poll. True: more work is left, so the poll does not sleep.
    fn before_poll(self: Arc<Self>) -> bool;

    /// The program has closed descriptors that it did not open. No handler knows yet.
    fn lost(self: Arc<Self>);

    /// All handlers know that their descriptors are lost; each gets one last `ready` after this.
    fn after_loss(self: Arc<Self>);
}

/// A handler's number, under which it registers descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token(u64);

/// The token of the eventfd that interrupts the loop; it has no handler.
const WAKE_UP: Token = Token(0);

/// See the top of this file.
pub(crate) struct Reactor {
    generation: u64,
    epoll: poll::Epoll,
    /// An eventfd that makes the thread look again.
    wake_up: HeldFd,
    /// Hung up when the program closes what it did not open.
    tripwire: CloseDetector,
    /// The thread that runs the loop, and which one it is: the first, the second…
    thread: Mutex<Option<JoinHandle<()>>>,
    thread_number: AtomicU64,
    handlers: Mutex<HashMap<Token, Arc<dyn EventHandler>>>,
    hooks: OnceLock<Arc<dyn Hooks>>,
    timers: Mutex<Timers>,
    last_token: AtomicU64,
}

static REACTOR: Mutex<Option<Arc<Reactor>>> = Mutex::new(None);

/// The reactor of this process, if it has been used.
pub(crate) fn existing_reactor() -> Option<Arc<Reactor>> {
    REACTOR.lock_unpoisoned().as_ref().filter(|reactor| reactor.is_of_this_process()).cloned()
}

/// The reactor of this process, made at first use.
///
/// # Errors
/// Its descriptors or its thread could not be had; the next call tries again. Or this process only prepares itself: a
/// fork server with a second thread could not fork.
pub(crate) fn reactor() -> Result<Arc<Reactor>> {
    if held::is_lost() {
        return Err(lost::error());
    }
    if identity::unready().is_some() {
        return Err(Error::could_not_start("start a thread in a process that only prepares itself", Errno::EAGAIN));
    }
    let mut reactor = REACTOR.lock_unpoisoned();
    if let Some(reactor) = reactor.as_ref().filter(|reactor| reactor.is_of_this_process()) {
        return Ok(Arc::clone(reactor));
    }
    let new = Reactor::start()?;
    // In a copy made by `fork()`, the original's is left alone: its locks may be held by threads that are not here.
    if let Some(originals) = reactor.replace(Arc::clone(&new)) {
        let _ = Arc::into_raw(originals);
    }
    Ok(new)
}

impl Reactor {
    fn start() -> Result<Arc<Self>> {
        let at = |step: &'static str| move |errno: Errno| Error::could_not_start(step, errno);
        let epoll = poll::Epoll::new().map_err(at("make an epoll set"))?;
        let wake_up = HeldFd::from(fd::eventfd().map_err(at("make an eventfd"))?);
        let tripwire = CloseDetector::new().map_err(at("make a pipe"))?;
        epoll.add(wake_up.as_fd(), WAKE_UP.0, Trigger::Edge).map_err(at("watch an eventfd"))?;
        let reactor = Arc::new(Self {
            generation: atfork::generation(),
            epoll,
            wake_up,
            tripwire,
            thread: Mutex::default(),
            thread_number: AtomicU64::new(0),
            handlers: Mutex::default(),
            hooks: OnceLock::new(),
            timers: Mutex::default(),
            last_token: AtomicU64::new(WAKE_UP.0),
        });
        // Before there is a second thread, or the kernel takes long for it. It may start a thread of its own.
        let mask = signal::block_all();
        membarrier::register_in_background();
        signal::set_mask(mask);
        reactor.start_thread()?;
        Ok(reactor)
    }

    /// Moves the loop to a new thread, which has the calling thread's rights. It begins when the one before it has ended.
    ///
    /// # Errors
    /// There can be no more threads; the present one goes on.
    pub(crate) fn start_thread(self: &Arc<Self>) -> Result<()> {
        let mut thread = self.thread.lock_unpoisoned();
        let number = self.thread_number.load(SeqCst) + 1;
        let (reactor, predecessor) = (Arc::clone(self), Arc::new(Mutex::new(thread.take())));
        let joined = Arc::clone(&predecessor);
        let work = move || {
            let predecessor = joined.lock_unpoisoned().take();
            if let Some(predecessor) = predecessor {
                let _ = predecessor.join();
            }
            reactor.run(number);
        };
        let mask = signal::block_all();
        let new = std::thread::Builder::new().name("process-task".to_owned()).spawn(work);
        signal::set_mask(mask);
        match new {
            Ok(new) => *thread = Some(new),
            Err(error) => {
                *thread = predecessor.lock_unpoisoned().take();
                return Err(Error::could_not_start("start a thread", errno_of(&error)));
            }
        }
        self.thread_number.store(number, SeqCst);
        self.interrupt();
        Ok(())
    }

    /// Whether the calling thread is the one that runs the loop.
    pub(crate) fn is_own_thread(&self) -> bool {
        self.thread.lock_unpoisoned().as_ref().is_some_and(|thread| thread.thread().id() == std::thread::current().id())
    }

    /// False in a copy of its process, made by `fork()`: the epoll set is still the original's.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.generation == atfork::generation()
    }

    /// Sets what runs on this thread beside handlers. Only the first hooks are used.
    pub(crate) fn set_hooks(&self, hooks: Arc<dyn Hooks>) {
        let _ = self.hooks.set(hooks);
    }

    /// Makes the thread leave its poll, and run the hooks and the timers.
    pub(crate) fn interrupt(&self) {
        self.wake_up.notify();
    }

    /// Adds a handler; returns the token for [`Reactor::register`].
    pub(crate) fn add_handler(&self, handler: Arc<dyn EventHandler>) -> Token {
        let token = Token(self.last_token.fetch_add(1, Relaxed) + 1);
        self.handlers.lock_unpoisoned().insert(token, handler);
        token
    }

    /// As [`Reactor::add_handler`], of a function, which is not called after a loss of descriptors.
    pub(crate) fn on_ready(&self, function: impl Fn() + Send + Sync + 'static) -> Token {
        self.add_handler(Arc::new(OnReady(function)))
    }

    /// Removes a handler, which may be running. Its descriptors are to be deregistered, too.
    pub(crate) fn remove_handler(&self, token: Token) {
        let handler = self.handlers.lock_unpoisoned().remove(&token);
        drop(handler);
    }

    /// Reports to the handler of `token` when `fd` is readable.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub(crate) fn register(&self, fd: BorrowedFd<'_>, token: Token, trigger: Trigger) -> sys::Result<()> {
        self.epoll.add(fd, token.0, trigger)
    }

    /// Reports once more of a descriptor that is reported [once](Trigger::OneShot).
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub(crate) fn reregister(&self, fd: BorrowedFd<'_>, token: Token) -> sys::Result<()> {
        self.epoll.rearm(fd, token.0)
    }

    /// Sets whether a descriptor that reports [by level](Trigger::Level) is also reported while it is writable.
    pub(crate) fn set_writable_interest(&self, fd: BorrowedFd<'_>, token: Token, writable: bool) {
        let _ = self.epoll.set_writable(fd, token.0, writable);
    }

    /// Reports `fd` no more.
    pub(crate) fn deregister(&self, fd: BorrowedFd<'_>) {
        self.epoll.remove(fd);
    }

    /// Runs `function` after `delay`, on the reactor's thread. `None` if that is beyond the clock's end: then it never runs.
    pub(crate) fn timer(&self, delay: Duration, function: impl FnOnce() + Send + 'static) -> Option<TimerKey> {
        let mut timers = self.timers.lock_unpoisoned();
        let timer = timers.insert(delay, Box::new(function))?;
        let is_next = timers.is_next(timer);
        drop(timers);
        if is_next {
            // The thread sleeps longer than it now may.
            self.interrupt();
        }
        Some(timer)
    }

    /// [`Reactor::timer`], of which nothing is ever cancelled.
    pub(crate) fn after(&self, delay: Duration, function: impl FnOnce() + Send + 'static) {
        let _ = self.timer(delay, function);
    }

    /// Drops a timer's function, which may be running.
    pub(crate) fn cancel(&self, timer: TimerKey) {
        let cancelled = self.timers.lock_unpoisoned().cancel(timer);
        drop(cancelled);
    }

    /// The loop, until another thread takes over.
    fn run(self: Arc<Self>, number: u64) {
        let mut ready = Vec::new();
        // A thread that has just been started may be here before its number is stored.
        while self.thread_number.load(SeqCst) <= number {
            let is_busy = self.hooks.get().is_some_and(|hooks| Arc::clone(hooks).before_poll());
            let deadline = if is_busy { Some(Instant::now()) } else { self.run_timers() };
            let holds = self.tripwire.wait_readable(self.epoll.as_fd(), deadline);
            if !holds || self.epoll.wait(&mut ready, Some(Instant::now())).is_err() {
                return self.lose();
            }
            for token in &ready {
                let handler = self.handlers.lock_unpoisoned().get(&Token(*token)).cloned();
                if let Some(handler) = handler {
                    handler.ready();
                }
            }
        }
    }

    /// Runs what is due; returns when the next timer is.
    fn run_timers(&self) -> Option<Instant> {
        let due = self.timers.lock_unpoisoned().take_due();
        for function in due {
            function();
        }
        self.timers.lock_unpoisoned().next()
    }

    /// The program has closed descriptors that it did not open. Tells all handlers, as the last that this thread does.
    ///
    /// From here on no number of ours is used, since it may be another file's; see [`held`].
    fn lose(&self) {
        held::mark_lost();
        lost::report();
        let hooks = self.hooks.get();
        if let Some(hooks) = hooks {
            Arc::clone(hooks).lost();
        }
        let handlers: Vec<_> = self.handlers.lock_unpoisoned().values().cloned().collect();
        for handler in handlers.iter().cloned() {
            handler.lost();
        }
        if let Some(hooks) = hooks {
            Arc::clone(hooks).after_loss();
        }
        for handler in handlers {
            handler.ready();
        }
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// A function as a handler.
struct OnReady<F>(F);

impl<F: Fn() + Send + Sync> EventHandler for OnReady<F> {
    fn ready(self: Arc<Self>) {
        if !held::is_lost() {
            (self.0)();
        }
    }
}
