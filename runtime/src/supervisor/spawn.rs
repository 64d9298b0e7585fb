//! Asks the right fork server for children: the one that has the rights of the asking thread.
//!
//! Runs in: the parent, on the asking thread; on the reactor's for spares, and for workers that replace others.
//! Invariant: a child that runs a call may do what the asking thread may do, and nothing else.
//!
//! A spare most likely has the right rights, and to find out takes as long as waking it. So a spawn sends the setup first, asks
//! [`Supervisor::is_right`] while the spare applies it, and then sends the call, or kills the spare.

use std::sync::{Arc, mpsc};

use super::child_handle::ChildHandle;
use super::child_table::{OnStarted, SpawnedChild, StartRequest, make_link};
use super::events::Supervisor;
use super::exec_context::ExecContext;
use super::requester::{is_restricted_alone, rights_of_this_thread};
use super::server::{ForkServer, START_TIMEOUT};
use super::servers::ServerLease;
use crate::error::{Error, Result};
use crate::link::StartMethod;
use crate::reactor::{Token, lost_error};
use crate::sys::rights::Rights;
use crate::sys::{Errno, held, signal};

impl Supervisor {
    /// A spare that most likely has the rights and the umask of this thread, and that umask, for a caller that prepares it while
    /// it wakes and asks [`is_right`](Self::is_right) before it gives it a call.
    pub(crate) fn likely_child(self: &Arc<Self>, how: &StartRequest) -> Option<(SpawnedChild, Option<u32>)> {
        let umask = self.servers.last_umask()?;
        self.spare(how).map(|spare| (spare, Some(umask)))
    }

    /// Whether a child that was prepared with `umask` has the rights and the umask of this thread.
    ///
    /// # Errors
    /// It cannot be found out for the moment.
    pub(crate) fn is_right(&self, child: &ChildHandle, umask: Option<u32>) -> Result<bool> {
        let rights = rights_of_this_thread(self.servers.last_rights().as_deref())?;
        self.servers.note_umask(rights.umask());
        Ok(child.server().rights.same(&rights) && rights.umask() == umask)
    }

    /// A new child with the rights of this thread, waiting until it is there; and this process's umask, found on the way.
    ///
    /// # Errors
    /// It could not be started; the step says why.
    pub(crate) fn start_child(self: &Arc<Self>, how: StartRequest) -> Result<(SpawnedChild, Option<u32>)> {
        // Before a spare is woken: it goes to sleep again if it is given nothing meanwhile.
        let rights = rights_of_this_thread(self.servers.last_rights().as_deref())?;
        let umask = rights.umask();
        self.servers.note_umask(umask);
        match self.spare(&how) {
            Some(spare) if spare.record.server().rights.same(&rights) => return Ok((spare, umask)),
            Some(spare) => drop(spare.record.signal(signal::KILL)),
            None => {}
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let started = move |child| {
            // The caller waits no more: the child must not wait for ever either.
            if let Err(mpsc::SendError(Ok(SpawnedChild { record, .. }))) = sender.send(child) {
                let _ = record.signal(signal::KILL);
            }
        };
        self.request(how, Arc::new(rights), Box::new(started));
        let late = |_| Error::could_not_start("wait for the fork server", Errno::ETIMEDOUT);
        receiver.recv_timeout(START_TIMEOUT).map_err(late)?.map(|child| (child, umask))
    }

    /// Calls `started` with a new child that has these rights: at once if there is a spare, else on the reactor's thread.
    pub(crate) fn start_child_later(self: &Arc<Self>, how: StartRequest, rights: Arc<Rights>, started: OnStarted) {
        match self.spare(&how) {
            Some(spare) if spare.record.server().rights.same(&rights) => return started(Ok(spare)),
            Some(spare) => drop(spare.record.signal(signal::KILL)),
            None => {}
        }
        self.request(how, rights, started);
    }

    /// Makes the next children come from a fork server with this thread's rights. Starts one if there is none, as after
    /// [`rights::invalidate_all`](crate::sys::rights::invalidate_all).
    ///
    /// # Errors
    /// It could not be started.
    pub(crate) fn start_afresh(self: &Arc<Self>) -> Result<()> {
        self.server(&Arc::new(rights_of_this_thread(None)?)).map(drop)
    }

    /// A child that is there already, awake and waiting for its first request.
    fn spare(&self, how: &StartRequest) -> Option<SpawnedChild> {
        if how.method() != StartMethod::ForkServer {
            return None;
        }
        let mut table = self.table();
        table.wanted_spares = self.spares;
        let spare = table.take_spare()?;
        let last = table.spares.is_empty();
        drop(table);
        spare.link.wake();
        if last {
            // Otherwise the next end that is reported makes the thread look at the stock, at no cost to us.
            self.reactor().interrupt();
        }
        Some(spare)
    }

    pub(super) fn request(self: &Arc<Self>, how: StartRequest, rights: Arc<Rights>, started: OnStarted) {
        if held::is_lost() {
            return started(Err(lost_error()));
        }
        let server = match self.server(&rights) {
            Ok(server) => server,
            Err(error) => return started(Err(error)),
        };
        let (link, theirs) = match make_link() {
            Ok(made) => made,
            Err(error) => return started(Err(error)),
        };
        let exec_context = how.exec_context.clone();
        // Entered and sent under one lock, so that requests stand in the table in the order in which they are answered.
        let mut table = self.table();
        let (id, message) = table.enter(&server, how, link, started);
        // If this is refused, the fork server's death is about to be reported, and takes this request with it.
        let _accepted = match exec_context.as_deref().map_or(Ok(Vec::new()), ExecContext::duplicate) {
            Ok(exec_context) => server.send(&message, [theirs].into_iter().chain(exec_context).collect()),
            Err(errno) => {
                let refused = table.take(id);
                drop(table);
                let error = || Error::could_not_start("duplicate descriptors for the process", errno);
                return refused.map_or((), |refused| (refused.started)(Err(error())));
            }
        };
        if self.servers.of(server.epoch).is_none() || held::is_lost() {
            // It died in between, and what was asked of it has been settled already, but for this.
            let late = table.take(id);
            drop(table);
            return late.map_or((), |late| self.request(late.how, rights, late.started));
        }
        drop(table);
    }

    /// The fork server that was started with these rights, started if there is none.
    fn server(self: &Arc<Self>, rights: &Arc<Rights>) -> Result<ServerLease> {
        let watch = |server: &ForkServer| {
            let tokens =
                (self.on_ready(server.epoch, Self::read_server), self.on_ready(server.epoch, Self::server_exited));
            let at = |errno| Error::could_not_start("watch the fork server", errno);
            server.watch(self.reactor(), tokens).map_err(at)
        };
        let found = self.servers.with(rights, watch)?;
        if found.replaced {
            // Whatever the program has given up, the thread that starts processes in the place of others gives up too. What a
            // thread has given up alone is its own affair: other threads' pools go on with the program's rights.
            if !self.reactor().is_own_thread() && !is_restricted_alone(&found.server.rights) {
                self.reactor().start_thread()?;
            }
            self.dismiss_unused();
        }
        Ok(found.server)
    }

    /// A handler that calls `handle` with the number of a fork server.
    fn on_ready(self: &Arc<Self>, epoch: u64, handle: fn(&Arc<Self>, u64)) -> Token {
        let supervisor = Arc::downgrade(self);
        self.reactor().on_ready(move || {
            if let Some(supervisor) = supervisor.upgrade() {
                handle(&supervisor, epoch);
            }
        })
    }

    /// Ends spares of fork servers that make no children any more, and fork servers that have none.
    pub(super) fn dismiss_unused(&self) {
        let mut table = self.table();
        let old = table.take_spares_but(|epoch| self.servers.is_present(epoch));
        let needed = table.epochs();
        // Under the same lock, or a child could be entered in between, and would end with its server.
        self.servers.dismiss(|epoch| needed.contains(&epoch));
        drop(table);
        for spare in old {
            let _ = spare.record.signal(signal::KILL);
        }
    }

    /// Asks for one of the spares that are missing; true if more are.
    pub(super) fn replenish_spares(self: &Arc<Self>) -> bool {
        let missing = self.table().missing_spares();
        if missing > 0 {
            let supervisor = Arc::downgrade(self);
            // Called only if there is none: a spare that was made is in the table already.
            let stock = move |spare: Result<SpawnedChild>| {
                if let (Err(_), Some(supervisor)) = (spare, supervisor.upgrade()) {
                    // No caller waits for it: the next one that does will hear why.
                    supervisor.table().wanted_spares = 0;
                }
            };
            // Without a server, the first one is being started, and its first word brings us here again.
            let Some(rights) = self.servers.last_rights() else { return false };
            self.request(StartRequest::spare(), rights, Box::new(stock));
        }
        missing > 1
    }
}
