//! What this process knows of its children and of its fork servers, and the events that change it.
//!
//! Runs in: the parent; events on the reactor's thread, the rest on any.
//! Invariant: nothing here waits for a task, or for a child that runs one. To start a fork server takes a wait.
//!
//! The host may call `fork()`: the copy finds another generation number than its supervisor's, and starts afresh with a supervisor, a
//! fork server and spares of its own.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::child_handle::ChildHandle;
use super::child_table::{ChildTable, is_answer, refused};
use super::notices;
use super::server::ForkServer;
use super::servers::{ForkServers, check_namespaces};
use crate::codec::message::from_bytes;
use crate::error::{Error, Result};
use crate::link::message::{ChildId, FromServer, ToServer};
use crate::reactor::{Hooks, Reactor, lost_error, reactor};
use crate::shared::proc_table::{self, DEATH_GRACE, ProcId};
use crate::sys::identity::{self, Unready};
use crate::sys::mutex::MutexExt as _;
use crate::sys::poll::{self, Trigger};
use crate::sys::{Errno, fd, held, process, signal, socket};

/// How long the fork server may take to end its children once our end of its socket is closed. It takes milliseconds.
const CHILDREN_EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often to look which processes live: no descriptor is left that would tell.
const LIVENESS_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// See the top of this file.
pub(crate) struct Supervisor {
    reactor: Arc<Reactor>,
    /// How many spares to keep. Asked once: the answer is read from files.
    pub(super) spares: usize,
    pub(super) servers: ForkServers,
    table: Mutex<ChildTable>,
}

static SUPERVISOR: Mutex<Option<Arc<Supervisor>>> = Mutex::new(None);

/// The supervisor of this process, if it has ever started a child.
pub(crate) fn existing_supervisor() -> Option<Arc<Supervisor>> {
    SUPERVISOR.lock_unpoisoned().as_ref().filter(|supervisor| supervisor.reactor.is_of_this_process()).cloned()
}

/// The supervisor of this process, made at first use.
///
/// # Errors
/// This process may start none, or there is no [reactor](reactor()). The next call tries again.
pub(crate) fn supervisor() -> Result<Arc<Supervisor>> {
    if held::is_lost() {
        return Err(lost_error());
    }
    let mut supervisor = SUPERVISOR.lock_unpoisoned();
    if let Some(supervisor) = supervisor.as_ref().filter(|supervisor| supervisor.reactor.is_of_this_process()) {
        return Ok(Arc::clone(supervisor));
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
    let new = Supervisor::start()?;
    // In a copy made by `fork()`, the original's supervisor is left alone: its locks may be held by threads that are not here.
    if let Some(originals) = supervisor.replace(Arc::clone(&new)) {
        let _ = Arc::into_raw(originals);
    }
    Ok(new)
}

impl Supervisor {
    fn start() -> Result<Arc<Self>> {
        let reactor = reactor()?;
        let supervisor = Arc::new(Self {
            reactor: Arc::clone(&reactor),
            spares: spares_wanted(),
            servers: ForkServers::default(),
            table: Mutex::default(),
        });
        reactor.set_hooks(Arc::<Self>::clone(&supervisor));
        Ok(supervisor)
    }

    /// The thread that handles the supervisor's events.
    pub(crate) fn reactor(&self) -> &Arc<Reactor> {
        &self.reactor
    }

    /// Every child that was handed out and has not ended.
    pub(crate) fn children(&self) -> Vec<Arc<ChildHandle>> {
        let table = self.table();
        let mut living: Vec<_> = table.children.values().filter(|record| record.sequence() > 0).cloned().collect();
        living.sort_by_key(|record| record.sequence());
        living
    }

    /// A fork server has written, or has room for more.
    pub(super) fn read_server(self: &Arc<Self>, epoch: u64) {
        let Some(server) = self.servers.of(epoch) else { return };
        server.flush();
        loop {
            match socket::receive(server.socket()) {
                // Closed, and soon to be found dead. Until then there is nothing to hear.
                Ok((bytes, _)) if bytes.is_empty() => return self.reactor.deregister(server.socket()),
                Ok((bytes, fds)) => {
                    if let Ok(message) = from_bytes(&bytes) {
                        self.handle_message(&server, message, fds);
                    }
                }
                Err(Errno::EMFILE) => self.reply_dropped(&server),
                Err(Errno::EAGAIN) => return,
                Err(_) => return self.reactor.deregister(server.socket()),
            }
        }
    }

    fn handle_message(&self, server: &Arc<ForkServer>, message: FromServer, fds: Vec<OwnedFd>) {
        debug_assert!(is_answer(&message) || fds.is_empty());
        match message {
            FromServer::Started { id, pid, member } => {
                let (Some(pidfd), Some(member)) = (fds.into_iter().next(), ProcId::from_bits(member)) else { return };
                let started = self.table().started(server, (id, pid, member), pidfd);
                if let Some((started, child)) = started {
                    started(Ok(child));
                } else if !self.servers.is_present(server.epoch) {
                    self.dismiss_unused();
                }
            }
            FromServer::NotStarted { id, step, errno } => {
                let starting = self.table().take(id);
                if let Some(starting) = starting {
                    (starting.started)(Err(refused(step, errno)));
                }
            }
            FromServer::Ended { id, status } => self.child_exited(id, status),
            FromServer::Stopped { id, signal, for_good } => self.child_stopped(id, Some(signal), for_good),
            FromServer::Continued { id } => self.child_stopped(id, None, false),
            FromServer::NotAlone { of_constructors, of_preloads } => {
                notices::warn_multithreaded(&of_constructors, &of_preloads);
            }
            FromServer::Ready { .. } | FromServer::PreloadPanicked { .. } | FromServer::GaveUp { .. } => {}
        }
    }

    /// A message came without its descriptors, which the kernel dropped since our table is full: it was the answer to the
    /// oldest request. That child is not handed out without its pidfd.
    fn reply_dropped(&self, server: &Arc<ForkServer>) {
        let oldest = self.table().take_oldest(server.epoch);
        if let Some((id, started)) = oldest {
            server.send(&ToServer::Signal { id, signal: signal::KILL }, Vec::new());
            started(Err(Error::could_not_start("receive the new process's pidfd", Errno::EMFILE)));
        }
    }

    pub(super) fn child_exited(&self, id: ChildId, status: process::RawStatus) {
        let (record, spare, token) = {
            let mut table = self.table();
            let at = table.spares.iter().position(|spare| spare.record.id == id);
            let spare = at.map(|at| table.spares.remove(at));
            (table.children.remove(&id), spare, table.orphans.remove(&id))
        };
        if let Some(record) = record {
            if let Some(token) = token {
                self.reactor.deregister(record.pidfd());
                self.reactor.remove_handler(token);
            }
            record.set_exited(status);
            if !self.servers.is_present(record.server().epoch) {
                self.dismiss_unused();
            }
        }
        drop(spare);
    }

    /// The fork server is dead, and its children will be: each is settled when its own pidfd says so.
    pub(super) fn server_exited(self: &Arc<Self>, epoch: u64) {
        self.read_server(epoch);
        let Some(server) = self.servers.forget(epoch) else { return };
        server.unwatch();
        process::reap_quietly(server.pidfd());
        proc_table::report_exit(server.member, true);
        let (supervisor, lost) = (Arc::downgrade(self), proc_table::children_of(server.member));
        self.reactor.after(DEATH_GRACE, move || {
            if let Some(supervisor) = supervisor.upgrade() {
                supervisor.table().forget(lost);
            }
        });
        let orphans: Vec<_> = {
            let table = self.table();
            table.children.values().filter(|record| record.server().epoch == epoch).cloned().collect()
        };
        for orphan in orphans {
            // The kernel kills it when its maker dies; this makes sure.
            let _ = fd::signal(orphan.pidfd(), signal::KILL);
            orphan.kill_group();
            self.watch_orphan(&orphan);
        }
        let (again, tried_twice) = self.table().fail_over(epoch);
        for started in tried_twice {
            started(Err(Error::could_not_start(
                "ask two fork servers for it, of which both were killed",
                Errno::ECONNRESET,
            )));
        }
        for (how, started) in again {
            self.request(how, Arc::clone(&server.rights), started);
        }
    }

    /// Settles a child whose fork server is dead when its pidfd becomes readable.
    fn watch_orphan(self: &Arc<Self>, orphan: &Arc<ChildHandle>) {
        let (supervisor, id) = (Arc::downgrade(self), orphan.id);
        let token = self.reactor.on_ready(move || {
            if let Some(supervisor) = supervisor.upgrade() {
                supervisor.child_exited(id, signal::KILL);
            }
        });
        self.table().orphans.insert(id, token);
        if self.reactor.register(orphan.pidfd(), token, Trigger::Level).is_err() {
            // No descriptor of ours can fail to be watched but for want of kernel memory; then look by waiting.
            let _ = poll::readable([orphan.pidfd()], None);
            self.child_exited(id, signal::KILL);
        }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, ChildTable> {
        self.table.lock_unpoisoned()
    }
}

impl Hooks for Supervisor {
    fn before_poll(self: Arc<Self>) -> bool {
        self.replenish_spares()
    }

    fn lost(self: Arc<Self>) {
        let starting = std::mem::take(&mut self.table().starting);
        for request in starting {
            (request.started)(Err(lost_error()));
        }
    }

    /// The fork server has seen the end of its socket. It kills every child, and says in shared memory that each has ended.
    fn after_loss(self: Arc<Self>) {
        let children: Vec<_> = self.table().children.values().cloned().collect();
        let deadline = Instant::now() + CHILDREN_EXIT_TIMEOUT;
        while children.iter().any(|child| proc_table::is_alive(child.member)) && Instant::now() < deadline {
            std::thread::sleep(LIVENESS_CHECK_INTERVAL);
        }
        for child in &children {
            child.set_exited(signal::KILL);
        }
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("reactor", &self.reactor).finish_non_exhaustive()
    }
}

/// Enough for a burst, and few enough to cost nothing.
fn spares_wanted() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}
