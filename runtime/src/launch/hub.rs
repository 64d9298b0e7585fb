//! The event loop: one thread in the parent polls the fork server's socket and pidfd, and the eventfds (bells) that no
//! other thread is waiting on.
//!
//! Owns: the epoll set, and through it the order in which ends become known. Runs in: the parent; the loop on a thread of
//! its own, the rest on any. Never: waits for a child, or for a lock that is held while its holder waits for one.
//!
//! The thread is started with the first child and stays. The host may call `fork()`: the copy finds another generation
//! number than its hub's, and starts afresh with a hub, a fork server and spares of its own.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::record::Record;
use super::requests::{Books, is_answer, refused};
use super::server::Server;
use super::servers::{Servers, check_namespaces};
use super::timers::{Timer, Timers};
use super::{lost, notices};
use crate::codec::message::from_bytes;
use crate::error::{Error, Result};
use crate::link::identity::{self, Unready};
use crate::link::message::{ChildId, FromServer, ToServer};
use crate::shared::members::{self, GRACE, Member};
use crate::sys::held::{self, Held, Wire};
use crate::sys::poll::{self, Report};
use crate::sys::socket;
use crate::sys::{self, Errno, fd, forked, membarrier, process, signal};

/// Something that wants to know when one of its bells rings. Called on the hub's thread, which it must not keep.
pub(crate) trait Source: Send + Sync {
    fn rang(self: Arc<Self>);

    /// The program has closed descriptors that it did not open: nothing is heard from here on. To be followed by `rang`.
    fn lost(self: Arc<Self>) {}
}

/// Wakes a future. A waker is its executor's code: if it panics, that must not end the hub's thread, or the thread that
/// calls.
pub(crate) fn wake(waker: Waker) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        // Its destructor is not ours either.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    }
}

/// The books of this process, and the thread that keeps them.
pub(crate) struct Hub {
    generation: u64,
    /// How many spares to keep. Asked once: the answer is read from files.
    pub(super) spares: usize,
    pub(super) set: poll::Set,
    /// Makes the thread look again.
    pub(super) kick: Held,
    /// Cut when the program closes what is not its own.
    wire: Wire,
    pub(super) servers: Servers,
    /// The thread that does this hub's work, and how many there were before it.
    thread: Mutex<Option<JoinHandle<()>>>,
    turn: AtomicU64,
    books: Mutex<Books>,
    pub(super) sources: Mutex<HashMap<u64, Arc<dyn Source>>>,
    timers: Mutex<Timers>,
    last_token: AtomicU64,
}

// The last three bits of a token say what it is, the others which.
const KICK: u64 = 0;
pub(super) const SERVER: u64 = 1;
pub(super) const SERVER_ENDED: u64 = 2;
const ORPHAN_ENDED: u64 = 3;
const BELL: u64 = 4;
pub(super) const KINDS: u64 = 8;

static HUB: Mutex<Option<Arc<Hub>>> = Mutex::new(None);

/// The hub of this process, if it has ever started a child.
pub(crate) fn existing_hub() -> Option<Arc<Hub>> {
    lock(&HUB).as_ref().filter(|hub| hub.generation == forked::generation()).cloned()
}

/// The hub of this process, made at first use.
///
/// # Errors
/// Its descriptors or its thread could not be had. The next call tries again.
pub(crate) fn hub() -> Result<Arc<Hub>> {
    if held::is_lost() {
        return Err(lost::error());
    }
    let mut hub = lock(&HUB);
    if let Some(hub) = hub.as_ref().filter(|hub| hub.generation == forked::generation()) {
        return Ok(Arc::clone(hub));
    }
    if let Some(unready) = identity::unready() {
        return Err(Error::invalid(match unready {
            Unready::Server => {
                "this is the fork server, which only prepares itself: a preload, a constructor, or what they initialise, such \
                 as a `LazyLock`, may not start processes or pools, which would need a fork server that does the same, and so \
                 on without end; start them in `main`, in an initializer, or in a task"
            }
            Unready::Child => {
                "this process has just been executed to run a task, and is not ready: a constructor, or what it initialises, may \
                 not start processes or pools, which would do the same, and so on without end; start them in `main`, in an \
                 initializer, or in a task"
            }
        }));
    }
    if identity::depth() >= identity::DEEPEST {
        return Err(Error::invalid(format!(
            "this process was started by a task of a task, and so on, {} deep, and may start no further ones; does a task \
             start itself?",
            identity::DEEPEST
        )));
    }
    check_namespaces()?;
    let new = Hub::start()?;
    // In a copy made by `fork()`, the original's hub is left alone: its locks may be held by threads that are not here.
    if let Some(originals) = hub.replace(Arc::clone(&new)) {
        let _ = Arc::into_raw(originals);
    }
    Ok(new)
}

impl Hub {
    fn start() -> Result<Arc<Self>> {
        let at = |step: &'static str| move |errno: Errno| Error::could_not_start(step, errno);
        let set = poll::Set::new().map_err(at("make an epoll set"))?;
        let kick = Held::from(fd::event().map_err(at("make an eventfd"))?);
        let wire = Wire::new().map_err(at("make a pipe"))?;
        set.add(kick.as_fd(), KICK, Report::Ring).map_err(at("watch an eventfd"))?;
        let hub = Arc::new(Self {
            generation: forked::generation(),
            spares: spares_wanted(),
            set,
            kick,
            wire,
            servers: Servers::default(),
            thread: Mutex::default(),
            turn: AtomicU64::new(0),
            books: Mutex::default(),
            sources: Mutex::default(),
            timers: Mutex::default(),
            last_token: AtomicU64::new(0),
        });
        let mask = signal::block_all();
        membarrier::register_soon();
        signal::set_mask(mask);
        hub.start_thread()?;
        Ok(hub)
    }

    /// Has the work done by a new thread, which has the rights of this one. It begins when the one before it has ended.
    pub(super) fn start_thread(self: &Arc<Self>) -> Result<()> {
        let mut thread = lock(&self.thread);
        let turn = self.turn.load(SeqCst) + 1;
        let (hub, before) = (Arc::clone(self), Arc::new(Mutex::new(thread.take())));
        let before_it = Arc::clone(&before);
        let work = move || {
            let before = lock(&before_it).take();
            if let Some(before) = before {
                let _ = before.join();
            }
            hub.run(turn);
        };
        let mask = signal::block_all();
        let new = std::thread::Builder::new().name("process-task".to_owned()).spawn(work);
        signal::set_mask(mask);
        match new {
            Ok(new) => *thread = Some(new),
            Err(error) => {
                *thread = lock(&before).take();
                return Err(super::context::preparing("start a thread", &error));
            }
        }
        self.turn.store(turn, SeqCst);
        self.kick.ring();
        Ok(())
    }

    pub(super) fn is_own_thread(&self) -> bool {
        lock(&self.thread).as_ref().is_some_and(|thread| thread.thread().id() == std::thread::current().id())
    }

    /// Every child that was handed out and has not ended.
    pub(crate) fn living(&self) -> Vec<Arc<Record>> {
        let books = self.books();
        let mut living: Vec<_> = books.children.values().filter(|record| record.turn() > 0).cloned().collect();
        living.sort_by_key(|record| record.turn());
        living
    }

    /// A token under which [`Hub::listen`] reports to `source`.
    pub(crate) fn register(&self, source: Arc<dyn Source>) -> u64 {
        let token = self.last_token.fetch_add(KINDS, Relaxed) + KINDS + BELL;
        lock(&self.sources).insert(token, source);
        token
    }

    pub(crate) fn deregister(&self, token: u64) {
        let source = lock(&self.sources).remove(&token);
        drop(source);
    }

    /// Tells the source of `token` when `bell` rings.
    pub(crate) fn listen(&self, bell: BorrowedFd<'_>, token: u64, report: Report) -> sys::Result<()> {
        self.set.add(bell, token, report)
    }

    /// Tells the source of `token` once more of a bell that [is heard once](Report::Once).
    pub(crate) fn listen_again(&self, bell: BorrowedFd<'_>, token: u64) -> sys::Result<()> {
        self.set.again(bell, token)
    }

    pub(crate) fn stop_listening(&self, bell: BorrowedFd<'_>) {
        self.set.remove(bell);
    }

    /// Does `what` after `pause`, on the hub's thread. `None` if that is beyond the clock's end: then it never does.
    pub(crate) fn timer(&self, pause: Duration, what: impl FnOnce() + Send + 'static) -> Option<Timer> {
        let mut timers = lock(&self.timers);
        let timer = timers.enter(pause, Box::new(what))?;
        let next = timers.is_next(timer);
        drop(timers);
        if next {
            // The thread sleeps longer than it now may.
            self.kick.ring();
        }
        Some(timer)
    }

    /// [`Hub::timer`], for what is never cancelled.
    pub(crate) fn after(&self, pause: Duration, what: impl FnOnce() + Send + 'static) {
        let _ = self.timer(pause, what);
    }

    /// Forgets what was to be done later; it may be under way.
    pub(crate) fn cancel(&self, timer: Timer) {
        let forgotten = lock(&self.timers).cancel(timer);
        drop(forgotten);
    }

    /// The hub's thread, until another one takes its place.
    fn run(self: Arc<Self>, turn: u64) {
        let mut tokens = Vec::new();
        // A thread that has just been started may be here before its turn is noted.
        while self.turn.load(SeqCst) <= turn {
            // While spares are missing, they are made between two looks.
            let deadline = if self.refill() { Some(Instant::now()) } else { self.do_what_is_due() };
            let holds = self.wire.holds_until_readable(self.set.as_fd(), deadline);
            if !holds || self.set.wait(&mut tokens, Some(Instant::now())).is_err() {
                return self.lose();
            }
            for token in &tokens {
                let which = token / KINDS;
                match token % KINDS {
                    SERVER => self.hear(which),
                    SERVER_ENDED => self.server_ended(which),
                    ORPHAN_ENDED => self.ended(which, signal::KILL),
                    BELL => {
                        let source = lock(&self.sources).get(token).cloned();
                        if let Some(source) = source {
                            source.rang();
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Does what was put off until now; returns when the next is due.
    fn do_what_is_due(&self) -> Option<Instant> {
        let due = lock(&self.timers).due();
        for what in due {
            what();
        }
        lock(&self.timers).next()
    }

    fn hear(self: &Arc<Self>, epoch: u64) {
        let Some(server) = self.servers.of(epoch) else { return };
        if !server.flush() {
            let _ = self.set.also_writable(server.socket(), epoch * KINDS + SERVER, false);
        }
        loop {
            match socket::receive(server.socket()) {
                // Closed, and soon to be found dead. Until then there is nothing to hear.
                Ok((bytes, _)) if bytes.is_empty() => return self.set.remove(server.socket()),
                Ok((bytes, fds)) => {
                    if let Ok(message) = from_bytes(&bytes) {
                        self.act(&server, message, fds);
                    }
                }
                Err(Errno::EMFILE) => self.answer_was_lost(&server),
                Err(Errno::EAGAIN) => return,
                Err(_) => return self.set.remove(server.socket()),
            }
        }
    }

    fn act(&self, server: &Arc<Server>, message: FromServer, fds: Vec<OwnedFd>) {
        debug_assert!(is_answer(&message) || fds.is_empty());
        match message {
            FromServer::Started { id, pid, member } => {
                let (Some(pidfd), Some(member)) = (fds.into_iter().next(), Member::of_bits(member)) else { return };
                let started = self.books().started(server, (id, pid, member), pidfd);
                if let Some((started, child)) = started {
                    started(Ok(child));
                } else if !self.servers.is_present(server.epoch) {
                    self.let_go_of_the_old();
                }
            }
            FromServer::NotStarted { id, step, errno } => {
                let starting = self.books().take(id);
                if let Some(starting) = starting {
                    (starting.started)(Err(refused(step, errno)));
                }
            }
            FromServer::Ended { id, status } => self.ended(id, status),
            FromServer::Stopped { id, signal, for_good } => self.stopped(id, Some(signal), for_good),
            FromServer::Continued { id } => self.stopped(id, None, false),
            FromServer::NotAlone { of_constructors, of_preloads } => {
                notices::not_alone(&of_constructors, &of_preloads);
            }
            FromServer::Ready { .. } | FromServer::PreloadPanicked { .. } | FromServer::GaveUp { .. } => {}
        }
    }

    /// A message came without its descriptors, which the kernel dropped since our table is full: it was the answer to the
    /// oldest request. That child is not handed out without its pidfd.
    fn answer_was_lost(&self, server: &Arc<Server>) {
        let oldest = self.books().take_oldest(server.epoch);
        if let Some((id, started)) = oldest {
            server.send(&ToServer::Signal { id, signal: signal::KILL }, Vec::new());
            started(Err(Error::could_not_start("receive the new process's pidfd", Errno::EMFILE)));
        }
    }

    fn ended(&self, id: ChildId, status: process::RawStatus) {
        let (record, spare) = {
            let mut books = self.books();
            let at = books.spares.iter().position(|spare| spare.record.id == id);
            let spare = at.map(|at| books.spares.remove(at));
            (books.children.remove(&id), spare)
        };
        if let Some(record) = record {
            self.set.remove(record.pidfd());
            record.ended(status);
            if !self.servers.is_present(record.server().epoch) {
                self.let_go_of_the_old();
            }
        }
        drop(spare);
    }

    /// The fork server is dead, and its children will be: each is settled when its own pidfd says so.
    fn server_ended(self: &Arc<Self>, epoch: u64) {
        self.hear(epoch);
        let Some(server) = self.servers.forget(epoch) else { return };
        self.set.remove(server.pidfd());
        self.set.remove(server.socket());
        process::reap_quietly(server.pidfd());
        members::end(server.member, true);
        let (hub, lost) = (Arc::downgrade(self), members::made_by(server.member));
        self.after(GRACE, move || {
            if let Some(hub) = hub.upgrade() {
                hub.books().forget(lost);
            }
        });
        let orphans: Vec<_> = {
            let books = self.books();
            books.children.values().filter(|record| record.server().epoch == epoch).cloned().collect()
        };
        for orphan in orphans {
            // The kernel kills it when its maker dies; this makes sure.
            let _ = fd::signal(orphan.pidfd(), signal::KILL);
            orphan.kill_group();
            if self.set.add(orphan.pidfd(), orphan.id * KINDS + ORPHAN_ENDED, Report::Level).is_err() {
                // No descriptor of ours can fail to be watched but for want of kernel memory; then look by waiting.
                let _ = poll::readable([orphan.pidfd()], None);
                self.ended(orphan.id, signal::KILL);
            }
        }
        let (again, tried_twice) = self.books().orphaned(epoch);
        for started in tried_twice {
            started(Err(Error::could_not_start("ask the fork server, which was killed twice,", Errno::ECONNRESET)));
        }
        for (how, started) in again {
            self.request(how, Arc::clone(&server.rights), started);
        }
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Enough for a burst, and few enough to cost nothing.
fn spares_wanted() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
