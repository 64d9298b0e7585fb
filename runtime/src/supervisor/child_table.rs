//! The table of all children of this process, and the requests for new ones.
//!
//! Runs in: the parent, on any thread.
//! Invariant: no callback runs while the table is locked.
//!
//! | a child is | its death costs |
//! |---|---|
//! | asked for ([`ChildTable::starting`]) | nothing: it has no call yet; it is asked for once more if its server died |
//! | a spare ([`ChildTable::spares`]) | nothing: it leaves the stock |
//! | handed out ([`ChildTable::children`] only) | what its owner gave it; the owner's watcher is called |
//!
//! Why any child of the fork server can be a spare, also for a builder with options: streams and the working
//! directory travel as descriptors beside the setup frame. All else is in the frame, as a difference to the fork
//! server's own state. So `ProcessBuilder` costs no fork of its own; only `StartMethod::Exec` is made on demand.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::attributes::SpawnAttributes;
use super::child_handle::ChildHandle;
use super::exec_context::ExecContext;
use super::server::ForkServer;
use crate::error::{Error, Result};
use crate::link::message::{ChildId, FromServer, ToServer};
use crate::link::{Link, StartMethod};
use crate::reactor::Token;
use crate::shared::proc_table::{self, ProcId};
use crate::sys::{Errno, poll};
use crate::task::fingerprint;

/// A child that is there and has not been asked for anything.
#[derive(Debug)]
pub(crate) struct SpawnedChild {
    pub(crate) record: Arc<ChildHandle>,
    pub(crate) link: Link,
}

/// What happens when a child is there, or is known never to be.
pub(crate) type OnStarted = Box<dyn FnOnce(Result<SpawnedChild>) + Send>;

/// Every child of this process.
#[derive(Default)]
pub(super) struct ChildTable {
    last_id: ChildId,
    /// In the order in which the server answers.
    pub(super) starting: Vec<PendingStart>,
    pub(super) children: HashMap<ChildId, Arc<ChildHandle>>,
    pub(super) spares: Vec<SpawnedChild>,
    /// Children whose fork server is dead: the reactor watches their pidfds under these tokens.
    pub(super) orphans: HashMap<ChildId, Token>,
    /// How many spares there should be; 0 until the first child is asked for.
    pub(super) wanted_spares: usize,
}

pub(super) struct PendingStart {
    id: ChildId,
    epoch: u64,
    link: Link,
    pub(super) how: StartRequest,
    pub(super) started: OnStarted,
}

/// How a child is asked for.
#[derive(Clone, Debug)]
pub(crate) struct StartRequest {
    /// What it is executed with, if it is.
    pub(super) exec_context: Option<Arc<ExecContext>>,
    /// Whether it is for the stock.
    spare: bool,
    second_try: bool,
}

impl StartRequest {
    /// A child that a thread waits for; executed with `exec_context`, if there is one, and forked otherwise.
    fn with(exec_context: Option<ExecContext>) -> Self {
        Self { exec_context: exec_context.map(Arc::new), spare: false, second_try: false }
    }

    /// A child with these options.
    ///
    /// # Errors
    /// As [`ExecContext::new`].
    pub(crate) fn of(options: &SpawnAttributes) -> Result<Self> {
        let executed = options.method == StartMethod::Exec;
        executed.then(|| ExecContext::new(options)).transpose().map(Self::with)
    }

    /// A forked child.
    pub(crate) fn forked() -> Self {
        Self::with(None)
    }

    pub(super) fn spare() -> Self {
        Self { exec_context: None, spare: true, second_try: false }
    }

    pub(super) fn method(&self) -> StartMethod {
        if self.exec_context.is_some() { StartMethod::Exec } else { StartMethod::ForkServer }
    }
}

impl ChildTable {
    /// The spare that was made first and is alive; the dead ones before it are forgotten.
    pub(super) fn take_spare(&mut self) -> Option<SpawnedChild> {
        while !self.spares.is_empty() {
            let spare = self.spares.remove(0);
            if poll::readable([spare.record.pidfd()], Some(Instant::now())) == Ok([false]) {
                return Some(spare);
            }
        }
        None
    }

    /// Takes out of the stock the spares of each server for which `keep`, given its number, is false.
    pub(super) fn take_spares_but(&mut self, keep: impl Fn(u64) -> bool) -> Vec<SpawnedChild> {
        self.spares.extract_if(.., |spare| !keep(spare.record.server().epoch)).collect()
    }

    /// The servers that have children, or are to make some.
    pub(super) fn epochs(&self) -> HashSet<u64> {
        let have = self.children.values().map(|record| record.server().epoch);
        have.chain(self.starting.iter().map(|starting| starting.epoch)).collect()
    }

    /// Spares that are missing and not asked for.
    pub(super) fn missing_spares(&self) -> usize {
        let coming = self.starting.iter().filter(|starting| starting.how.spare).count();
        self.wanted_spares.saturating_sub(self.spares.len() + coming)
    }

    /// Enters a request, and returns the message that makes it.
    pub(super) fn enter(
        &mut self,
        server: &ForkServer,
        how: StartRequest,
        link: Link,
        started: OnStarted,
    ) -> (ChildId, ToServer) {
        self.last_id += 1;
        let (id, epoch) = (self.last_id, server.epoch);
        let method = how.method();
        self.starting.push(PendingStart { id, epoch, link, how, started });
        (id, ToServer::Start { id, method })
    }

    /// The fork server has made a child: returns the thread that asked for it, and the child; `None` if it was for the
    /// stock.
    pub(super) fn started(
        &mut self,
        server: &Arc<ForkServer>,
        (id, pid, member): (ChildId, u32, ProcId),
        pidfd: OwnedFd,
    ) -> Option<(OnStarted, SpawnedChild)> {
        let mut starting = self.take(id)?;
        let like_it = |one: &&mut PendingStart| {
            !one.how.spare && one.how.method() == StartMethod::ForkServer && one.epoch == server.epoch
        };
        if starting.how.spare
            && let Some(waiting) = self.starting.iter_mut().find(like_it)
        {
            // A caller waits already for one like it: the one that was asked for on its behalf becomes the spare.
            std::mem::swap(&mut waiting.started, &mut starting.started);
            (waiting.how.spare, starting.how.spare) = (true, false);
        }
        let record = Arc::new(ChildHandle::new(id, pid, member, pidfd, Arc::clone(server)));
        self.children.insert(id, Arc::clone(&record));
        let child = SpawnedChild { record, link: starting.link };
        if starting.how.spare {
            // In the same step: no other thread may see it as a child that was handed out.
            self.spares.push(child);
            return None;
        }
        Some((starting.started, child))
    }

    pub(super) fn take(&mut self, id: ChildId) -> Option<PendingStart> {
        let at = self.starting.iter().position(|starting| starting.id == id)?;
        Some(self.starting.remove(at))
    }

    /// The request that the server answers next: the oldest. Its answer was lost because our descriptor table is full.
    pub(super) fn take_oldest(&mut self, epoch: u64) -> Option<(ChildId, OnStarted)> {
        let at = self.starting.iter().position(|starting| starting.epoch == epoch)?;
        let starting = self.starting.remove(at);
        Some((starting.id, starting.started))
    }

    /// Says of `lost`, which a fork server made that is dead for long, that they have ended: all but those that this process
    /// holds a pidfd of, which are told of by that.
    pub(super) fn forget(&self, lost: Vec<ProcId>) {
        let known = |member| self.children.values().any(|record| record.member == member);
        lost.into_iter().filter(|member| !known(*member)).for_each(|member| proc_table::report_exit(member, true));
    }

    /// The fork server is dead: what was asked of it and may be asked again, and what may not.
    pub(super) fn fail_over(&mut self, epoch: u64) -> (Vec<(StartRequest, OnStarted)>, Vec<OnStarted>) {
        let all = std::mem::take(&mut self.starting);
        let (of_it, others) = all.into_iter().partition(|starting| starting.epoch == epoch);
        self.starting = others;
        let of_it: Vec<PendingStart> = of_it;
        let (tried_twice, again): (Vec<_>, Vec<_>) = of_it.into_iter().partition(|starting| starting.how.second_try);
        let again =
            again.into_iter().map(|starting| (StartRequest { second_try: true, ..starting.how }, starting.started));
        (again.collect(), tried_twice.into_iter().map(|starting| starting.started).collect())
    }
}

/// A link for a child that will be asked for, and the child's end of it.
pub(super) fn make_link() -> Result<(Link, OwnedFd)> {
    Link::new(fingerprint()).map_err(|(step, errno)| Error::could_not_start(step, errno))
}

/// The error that a fork server's refusal stands for.
pub(super) fn refused(step: String, errno: i32) -> Error {
    Error::could_not_start(step, Errno::from_raw(errno))
}

/// Whether a message of the fork server ends a request.
pub(super) fn is_answer(message: &FromServer) -> bool {
    matches!(message, FromServer::Started { .. } | FromServer::NotStarted { .. })
}
