//! Asking for children: from the stock of spares, or by a message to the fork server.
//!
//! Owns: the books, in which every child stands from the request to its end. Runs in: the parent, on any thread.
//! Never: calls back while it holds the books.
//!
//! | a child is | its death costs |
//! |---|---|
//! | asked for ([`Books::starting`]) | nothing: nobody has given it a call; it is asked for once more if its server died |
//! | a spare ([`Books::spares`]) | nothing: it leaves the stock |
//! | handed out ([`Books::children`] only) | what its owner gave it; the owner's watcher is called |

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::record::Record;
use super::server::Server;
use crate::error::{Error, Result};
use crate::link::message::{ChildId, FromServer, ToServer};
use crate::link::{Link, StartMethod};
use crate::shared::members::{self, Member};
use crate::sys::{Errno, poll};
use crate::task::fingerprint;

/// A child that is there and has not been asked for anything.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) record: Arc<Record>,
    pub(crate) link: Link,
}

/// What happens when a child is there, or is known never to be.
pub(crate) type Started = Box<dyn FnOnce(Result<Child>) + Send>;

/// Every child of this process.
#[derive(Default)]
pub(super) struct Books {
    last_id: ChildId,
    /// In the order in which the server answers.
    pub(super) starting: Vec<Starting>,
    pub(super) children: HashMap<ChildId, Arc<Record>>,
    pub(super) spares: Vec<Child>,
    /// How many spares there should be; 0 until the first child is asked for.
    pub(super) wanted_spares: usize,
}

pub(super) struct Starting {
    id: ChildId,
    epoch: u64,
    method: StartMethod,
    link: Link,
    second_try: bool,
    /// Whether it is for the stock.
    pub(super) spare: bool,
    pub(super) started: Started,
}

impl Books {
    /// The spare that was made first and is alive; the dead ones before it are forgotten.
    pub(super) fn take_spare(&mut self) -> Option<Child> {
        while !self.spares.is_empty() {
            let spare = self.spares.remove(0);
            if poll::readable([spare.record.pidfd()], Some(Instant::now())) == Ok([false]) {
                return Some(spare);
            }
        }
        None
    }

    /// Spares that are missing and not asked for.
    pub(super) fn missing_spares(&self) -> usize {
        let coming = self.starting.iter().filter(|starting| starting.spare).count();
        self.wanted_spares.saturating_sub(self.spares.len() + coming)
    }

    /// Enters a request, and returns the message that makes it.
    pub(super) fn enter(
        &mut self,
        server: &Server,
        (method, spare, second_try): (StartMethod, bool, bool),
        link: Link,
        started: Started,
    ) -> (ChildId, ToServer) {
        self.last_id += 1;
        let (id, epoch) = (self.last_id, server.epoch);
        self.starting.push(Starting { id, epoch, method, link, second_try, spare, started });
        (id, ToServer::Start { id, method })
    }

    /// The fork server has made a child: who asked for it, and the child; `None` if it was for the stock.
    pub(super) fn started(
        &mut self,
        server: &Arc<Server>,
        (id, pid, member): (ChildId, u32, Member),
        pidfd: OwnedFd,
    ) -> Option<(Started, Child)> {
        let mut starting = self.take(id)?;
        if starting.spare
            && let Some(waiting) =
                self.starting.iter_mut().find(|one| !one.spare && one.method == StartMethod::ForkServer)
        {
            // Somebody waits already for one like it: the one that was asked for on his behalf becomes the spare.
            std::mem::swap(&mut waiting.started, &mut starting.started);
            (waiting.spare, starting.spare) = (true, false);
        }
        let record = Arc::new(Record::new(id, pid, member, pidfd, Arc::clone(server)));
        self.children.insert(id, Arc::clone(&record));
        let child = Child { record, link: starting.link };
        if starting.spare {
            // In the same step: nobody may see it as a child that was handed out.
            self.spares.push(child);
            return None;
        }
        Some((starting.started, child))
    }

    pub(super) fn take(&mut self, id: ChildId) -> Option<Starting> {
        let at = self.starting.iter().position(|starting| starting.id == id)?;
        Some(self.starting.remove(at))
    }

    /// The request that the server answers next: the oldest. Its answer was lost because our descriptor table is full.
    pub(super) fn take_oldest(&mut self, epoch: u64) -> Option<(ChildId, Started)> {
        let at = self.starting.iter().position(|starting| starting.epoch == epoch)?;
        let starting = self.starting.remove(at);
        Some((starting.id, starting.started))
    }

    /// Says of `lost`, which a fork server made that is dead for long, that they have ended: all but those that this process
    /// holds a pidfd of, which are told of by that.
    pub(super) fn forget(&self, lost: Vec<Member>) {
        let known = |member| self.children.values().any(|record| record.member == member);
        lost.into_iter().filter(|member| !known(*member)).for_each(|member| members::end(member, true));
    }

    /// The fork server is dead: what was asked of it and may be asked again, and what may not.
    pub(super) fn orphaned(&mut self, epoch: u64) -> (Vec<(StartMethod, bool, Started)>, Vec<Started>) {
        let all = std::mem::take(&mut self.starting);
        let (of_it, others) = all.into_iter().partition(|starting| starting.epoch == epoch);
        self.starting = others;
        let of_it: Vec<Starting> = of_it;
        let (tried_twice, again): (Vec<_>, Vec<_>) = of_it.into_iter().partition(|starting| starting.second_try);
        let again = again.into_iter().map(|starting| (starting.method, starting.spare, starting.started));
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
