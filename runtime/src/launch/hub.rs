//! What this process knows of its children and of its fork servers, and the events that change it.
//!
//! Owns: [`Hub`]. Runs in: the parent; events on the reactor's thread, the rest on any.
//! Invariant: nothing here waits for a child, or for a lock that is held while its holder waits for one.
//!
//! The host may call `fork()`: the copy finds another generation number than its hub's, and starts afresh with a hub, a
//! fork server and spares of its own.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::notices;
use super::record::Record;
use super::requests::{Books, is_answer, refused};
use super::server::Server;
use super::servers::{Servers, check_namespaces};
use crate::codec::message::from_bytes;
use crate::error::{Error, Result};
use crate::link::message::{ChildId, FromServer, ToServer};
use crate::reactor::{Hooks, Reactor, lost_error, reactor};
use crate::shared::members::{self, GRACE, Member};
use crate::sys::identity::{self, Unready};
use crate::sys::poll::{self, Report};
use crate::sys::{Errno, fd, held, membarrier, process, signal, socket};

/// How long the fork server may take to end its children once our end of its socket is closed. It takes milliseconds.
const END_OF_CHILDREN: Duration = Duration::from_secs(2);

/// How often to look which processes live: no descriptor is left that would tell.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// See the top of this file.
pub(crate) struct Hub {
    reactor: Arc<Reactor>,
    /// How many spares to keep. Asked once: the answer is read from files.
    pub(super) spares: usize,
    pub(super) servers: Servers,
    books: Mutex<Books>,
}

static HUB: Mutex<Option<Arc<Hub>>> = Mutex::new(None);

/// The hub of this process, if it has ever started a child.
pub(crate) fn existing_hub() -> Option<Arc<Hub>> {
    lock(&HUB).as_ref().filter(|hub| hub.reactor.is_of_this_process()).cloned()
}

/// The hub of this process, made at first use.
///
/// # Errors
/// This process may start none, or there is no [reactor](reactor()). The next call tries again.
pub(crate) fn hub() -> Result<Arc<Hub>> {
    if held::is_lost() {
        return Err(lost_error());
    }
    let mut hub = lock(&HUB);
    if let Some(hub) = hub.as_ref().filter(|hub| hub.reactor.is_of_this_process()) {
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
        // Before there is a second thread, or the kernel takes long for it. It may start a thread of its own.
        let mask = signal::block_all();
        membarrier::register_soon();
        signal::set_mask(mask);
        let reactor = reactor()?;
        let hub = Arc::new(Self {
            reactor: Arc::clone(&reactor),
            spares: spares_wanted(),
            servers: Servers::default(),
            books: Mutex::default(),
        });
        reactor.set_hooks(Arc::<Self>::clone(&hub));
        Ok(hub)
    }

    /// The thread that handles the hub's events.
    pub(crate) fn reactor(&self) -> &Arc<Reactor> {
        &self.reactor
    }

    /// Every child that was handed out and has not ended.
    pub(crate) fn living(&self) -> Vec<Arc<Record>> {
        let books = self.books();
        let mut living: Vec<_> = books.children.values().filter(|record| record.turn() > 0).cloned().collect();
        living.sort_by_key(|record| record.turn());
        living
    }

    /// A fork server has written, or has room for more.
    pub(super) fn hear(self: &Arc<Self>, epoch: u64) {
        let Some(server) = self.servers.of(epoch) else { return };
        server.flush();
        loop {
            match socket::receive(server.socket()) {
                // Closed, and soon to be found dead. Until then there is nothing to hear.
                Ok((bytes, _)) if bytes.is_empty() => return self.reactor.deregister(server.socket()),
                Ok((bytes, fds)) => {
                    if let Ok(message) = from_bytes(&bytes) {
                        self.act(&server, message, fds);
                    }
                }
                Err(Errno::EMFILE) => self.answer_was_lost(&server),
                Err(Errno::EAGAIN) => return,
                Err(_) => return self.reactor.deregister(server.socket()),
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

    pub(super) fn ended(&self, id: ChildId, status: process::RawStatus) {
        let (record, spare, token) = {
            let mut books = self.books();
            let at = books.spares.iter().position(|spare| spare.record.id == id);
            let spare = at.map(|at| books.spares.remove(at));
            (books.children.remove(&id), spare, books.orphans.remove(&id))
        };
        if let Some(record) = record {
            if let Some(token) = token {
                self.reactor.deregister(record.pidfd());
                self.reactor.remove_handler(token);
            }
            record.ended(status);
            if !self.servers.is_present(record.server().epoch) {
                self.let_go_of_the_old();
            }
        }
        drop(spare);
    }

    /// The fork server is dead, and its children will be: each is settled when its own pidfd says so.
    pub(super) fn server_ended(self: &Arc<Self>, epoch: u64) {
        self.hear(epoch);
        let Some(server) = self.servers.forget(epoch) else { return };
        server.unwatch();
        process::reap_quietly(server.pidfd());
        members::end(server.member, true);
        let (hub, lost) = (Arc::downgrade(self), members::made_by(server.member));
        self.reactor.after(GRACE, move || {
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
            self.watch_orphan(&orphan);
        }
        let (again, tried_twice) = self.books().orphaned(epoch);
        for started in tried_twice {
            started(Err(Error::could_not_start("ask the fork server, which was killed twice", Errno::ECONNRESET)));
        }
        for (how, started) in again {
            self.request(how, Arc::clone(&server.rights), started);
        }
    }

    /// Settles a child whose fork server is dead when its pidfd becomes readable.
    fn watch_orphan(self: &Arc<Self>, orphan: &Arc<Record>) {
        let (hub, id) = (Arc::downgrade(self), orphan.id);
        let token = self.reactor.on_ready(move || {
            if let Some(hub) = hub.upgrade() {
                hub.ended(id, signal::KILL);
            }
        });
        self.books().orphans.insert(id, token);
        if self.reactor.register(orphan.pidfd(), token, Report::Level).is_err() {
            // No descriptor of ours can fail to be watched but for want of kernel memory; then look by waiting.
            let _ = poll::readable([orphan.pidfd()], None);
            self.ended(id, signal::KILL);
        }
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }
}

impl Hooks for Hub {
    fn before_poll(self: Arc<Self>) -> bool {
        self.refill()
    }

    fn lost(self: Arc<Self>) {
        let starting = std::mem::take(&mut self.books().starting);
        for request in starting {
            (request.started)(Err(lost_error()));
        }
    }

    /// The fork server has seen the end of its socket. It kills every child, and says in shared memory that each has ended.
    fn after_loss(self: Arc<Self>) {
        let children: Vec<_> = self.books().children.values().cloned().collect();
        let deadline = Instant::now() + END_OF_CHILDREN;
        while children.iter().any(|child| members::lives(child.member)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN);
        }
        for child in &children {
            child.ended(signal::KILL);
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("reactor", &self.reactor).finish_non_exhaustive()
    }
}

/// Enough for a burst, and few enough to cost nothing.
fn spares_wanted() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
