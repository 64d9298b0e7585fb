//! The fork servers of this process: the present one, and earlier ones that still have children.
//!
//! Runs in: the parent, on any thread.
//! Invariant: a child comes from a server that was started with the rights that are asked for; see [`Rights`].
//!
//! | a server is | it |
//! |---|---|
//! | present | makes children and spares |
//! | retired, because other rights were asked for | watches the children that it has made |
//! | dismissed, because the last of them has ended | ends |
//! | dead | is forgotten when that has been reported |

use std::ops::Deref;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard};

use super::requester::rights_of_this_thread;
use super::server::ForkServer;
use crate::error::{Error, Result};
use crate::sys::Errno;
use crate::sys::mutex::MutexExt as _;
use crate::sys::rights::{self, Rights};

/// See the top of this file.
#[derive(Default)]
pub(super) struct ForkServers {
    list: Mutex<ServerList>,
    /// Held while a server starts. The list is not: the reactor's thread looks into it at each message and at each end.
    starting: Mutex<()>,
}

#[derive(Default)]
struct ServerList {
    last_epoch: u64,
    present: Option<Arc<ForkServer>>,
    /// Retired or dismissed.
    others: Vec<Arc<ForkServer>>,
    /// Those of the server that was present last.
    rights: Option<Arc<Rights>>,
    /// The umask of the thread that asked last.
    umask: Option<u32>,
}

/// A server that a child is about to be asked of. Until this is dropped, it is not dismissed.
pub(super) struct ServerLease(Arc<ForkServer>);

impl ServerLease {
    /// Runs under the lock of the list, which [`ForkServers::dismiss`] takes.
    fn new(server: &Arc<ForkServer>) -> Self {
        server.claims.fetch_add(1, SeqCst);
        Self(Arc::clone(server))
    }
}

impl Deref for ServerLease {
    type Target = Arc<ForkServer>;

    fn deref(&self) -> &Arc<ForkServer> {
        &self.0
    }
}

impl Drop for ServerLease {
    fn drop(&mut self) {
        self.0.claims.fetch_sub(1, SeqCst);
    }
}

/// A server for the rights that were asked for.
pub(super) struct SelectedServer {
    pub(super) server: ServerLease,
    /// Whether another one was present before, which is retired now.
    pub(super) replaced: bool,
}

impl ForkServers {
    /// The server that was started with `rights`, made present. If there is none, this thread starts it, and `watch` is called.
    ///
    /// # Errors
    /// It could not be started; also if this thread has other rights, as only a thread that has them can pass them on.
    pub(super) fn with(
        &self,
        rights: &Arc<Rights>,
        watch: impl FnOnce(&ForkServer) -> Result<()>,
    ) -> Result<SelectedServer> {
        if let Some(found) = self.list().find(rights) {
            return Ok(found);
        }
        let _one_at_a_time = self.starting.lock_unpoisoned();
        // Another thread may have started it meanwhile.
        if let Some(found) = self.list().find(rights) {
            return Ok(found);
        }
        let own = Arc::new(rights_of_this_thread(None)?);
        // Without `/proc`, which would tell, nothing is started: the next step says so.
        if own.is_known() && !own.same(rights) {
            return Err(Error::could_not_start(OTHER_RIGHTS, Errno::EPERM));
        }
        check_namespaces()?;
        let epoch = self.list().next_epoch();
        let server = Arc::new(ForkServer::start(epoch, own)?);
        let mut list = self.list();
        // Under this lock: an event is of a server that stands in the list.
        watch(&server)?;
        Ok(list.make_present(&server))
    }

    /// The rights of the server that is present, or was.
    pub(super) fn last_rights(&self) -> Option<Arc<Rights>> {
        self.list().rights.clone()
    }

    /// The umask that the next child most likely is to have.
    pub(super) fn last_umask(&self) -> Option<u32> {
        self.list().umask
    }

    pub(super) fn note_umask(&self, umask: Option<u32>) {
        self.list().umask = umask;
    }

    /// The server of `epoch`, whatever it is, unless it is dead.
    pub(super) fn of(&self, epoch: u64) -> Option<Arc<ForkServer>> {
        let list = self.list();
        list.present.iter().chain(&list.others).find(|server| server.epoch == epoch).cloned()
    }

    /// Whether the server of `epoch` makes children.
    pub(super) fn is_present(&self, epoch: u64) -> bool {
        self.list().present.as_ref().is_some_and(|server| server.epoch == epoch)
    }

    /// Forgets the server of `epoch`, which is dead.
    pub(super) fn forget(&self, epoch: u64) -> Option<Arc<ForkServer>> {
        let mut list = self.list();
        if let Some(present) = list.present.take_if(|server| server.epoch == epoch) {
            return Some(present);
        }
        let at = list.others.iter().position(|server| server.epoch == epoch)?;
        Some(list.others.remove(at))
    }

    /// Lets each retired server end that is not [claimed](ServerLease), and of which `is_needed` says no.
    ///
    /// Runs under the lock of the table: a claim is given back when its child stands there.
    pub(super) fn dismiss(&self, is_needed: impl Fn(u64) -> bool) {
        let list = self.list();
        let idle = |server: &&Arc<ForkServer>| server.claims.load(SeqCst) == 0 && !is_needed(server.epoch);
        list.others.iter().filter(idle).for_each(|server| server.dismiss());
    }

    fn list(&self) -> MutexGuard<'_, ServerList> {
        self.list.lock_unpoisoned()
    }
}

impl ServerList {
    fn next_epoch(&mut self) -> u64 {
        self.last_epoch += 1;
        self.last_epoch
    }

    /// The server that was started with `rights`, made present.
    fn find(&mut self, rights: &Rights) -> Option<SelectedServer> {
        if let Some(present) = self.present.as_ref().filter(|present| present.rights.same(rights)) {
            return Some(SelectedServer { server: ServerLease::new(present), replaced: false });
        }
        let other = self.take_other(rights)?;
        Some(self.make_present(&other))
    }

    fn make_present(&mut self, server: &Arc<ForkServer>) -> SelectedServer {
        self.rights = Some(Arc::clone(&server.rights));
        let before = self.present.replace(Arc::clone(server));
        let replaced = before.is_some();
        self.others.extend(before);
        SelectedServer { server: ServerLease::new(server), replaced }
    }

    fn take_other(&mut self, rights: &Rights) -> Option<Arc<ForkServer>> {
        let at = self.others.iter().position(|other| !other.is_dismissed() && other.rights.same(rights))?;
        Some(self.others.remove(at))
    }
}

/// Checks that this thread can start the reactor's thread, as it has to with a fork server.
///
/// # Errors
/// It cannot. Found out before a server is started: that would be the first process of the new namespace, and its end would
/// leave the namespace without use.
pub(super) fn check_namespaces() -> Result<()> {
    if rights::has_other_pid_namespace_for_children() {
        Err(Error::could_not_start(CHILDREN_ELSEWHERE, Errno::EINVAL))
    } else {
        Ok(())
    }
}

const CHILDREN_ELSEWHERE: &str = "start a fork server: this thread has unshared the namespace of process ids, and the kernel lets \
    it start no threads; fork, as `unshare --fork` does, and start processes in the copy";

const OTHER_RIGHTS: &str = "start a fork server with the rights of the thread that asked: that thread has restricted itself \
    (`no_new_privs`, a seccomp filter, capabilities, namespaces), and a process that is to replace another one is asked for by a \
    thread that has not; restrict every thread (for seccomp `SECCOMP_FILTER_FLAG_TSYNC`), or call `start_afresh()` on the \
    restricted thread";
