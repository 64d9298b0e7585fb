//! What a parent knows of one child: its pid, its pidfd, whether it is stopped, and how it ended.
//!
//! Runs in: the parent; the reactor's thread writes, any thread reads.
//! Invariant: how a child ended comes from the fork server, which alone may reap it; the kernel is not asked here.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::server::ForkServer;
use crate::call::outcome::Exit;
use crate::link::message::{ChildId, ToServer};
use crate::shared::proc_table::{self, ProcId};
use crate::sys::cgroup::OomKills;
use crate::sys::held::HeldFd;
use crate::sys::mutex::MutexExt as _;
use crate::sys::process::RawStatus;
use crate::sys::{self, Errno, fd, poll};

/// How long a killed process may take to be dead. It takes milliseconds, more if much memory has to be given back. A
/// process that sleeps in the kernel and cannot be interrupted (state `D`) takes as long as what it sleeps for.
pub(crate) const MAX_DEATH_TIME: Duration = Duration::from_secs(30);

/// How often to look whether a killed process is dead though its end was not reported.
pub(crate) const DEATH_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What a call's error says when its process was killed and is not dead.
pub(crate) fn not_dead_note() -> String {
    format!("{MAX_DEATH_TIME:?} after SIGKILL its process had not ended, and may run on")
}

/// One child, from the fork server's word that it exists.
pub(crate) struct ChildHandle {
    pub(crate) id: ChildId,
    pub(crate) pid: u32,
    pub(crate) member: ProcId,
    pidfd: HeldFd,
    server: Arc<ForkServer>,
    /// Empty as long as it is a spare.
    name: Mutex<String>,
    sequence: AtomicU64,
    /// How many processes the kernel had killed for want of memory when this one was handed out.
    oom_kills: OnceLock<OomKills>,
    end: Mutex<ExitState>,
    ended: Condvar,
    stop: Mutex<StopState>,
}

/// What is called when a child is stopped, by which signal, and when it is continued.
type StopWatcher = Arc<dyn Fn(Option<i32>) + Send + Sync>;

#[derive(Default)]
struct StopState {
    /// The signal that has stopped it, while it is stopped.
    signal: Option<i32>,
    /// The signal that has stopped it in the background of its terminal. It is killed for that.
    for_good: Option<i32>,
    watcher: Option<StopWatcher>,
}

#[derive(Default)]
struct ExitState {
    status: Option<RawStatus>,
    /// What the kernel's OOM killer has done meanwhile, if the process was killed by SIGKILL.
    oom: Option<String>,
    watcher: Option<Box<dyn FnOnce() + Send>>,
}

impl ChildHandle {
    pub(super) fn new(id: ChildId, pid: u32, member: ProcId, pidfd: OwnedFd, server: Arc<ForkServer>) -> Self {
        Self {
            id,
            pid,
            member,
            pidfd: pidfd.into(),
            server,
            name: Mutex::default(),
            sequence: AtomicU64::new(0),
            oom_kills: OnceLock::new(),
            end: Mutex::default(),
            ended: Condvar::new(),
            stop: Mutex::default(),
        }
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(crate) fn server(&self) -> &Arc<ForkServer> {
        &self.server
    }

    pub(crate) fn name(&self) -> String {
        self.name.lock_unpoisoned().clone()
    }

    /// Hands it out under this name.
    pub(crate) fn set_name(&self, name: &str) {
        static HANDED_OUT: AtomicU64 = AtomicU64::new(1);
        name.clone_into(&mut self.name.lock_unpoisoned());
        let _ = self.oom_kills.set(lately());
        self.sequence.store(HANDED_OUT.fetch_add(1, Relaxed), Relaxed);
    }

    /// Its sequence number among the children that were handed out; 0 for a spare.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence.load(Relaxed)
    }

    /// Kills what the child has started, as its fork server would have done, which is dead. The kernel has done so before, where it
    /// could (see [`hangup`](crate::sys::hangup)); an older one can only do that. The group is the one that the child led at first:
    /// if it has left that for its parent's, none is killed.
    pub(crate) fn kill_group(&self) {
        if !self.pidfd.is_gone() {
            let _ = fd::signal_group(self.pidfd.as_fd(), sys::signal::KILL);
        }
    }

    /// The signal that has stopped it, while it is stopped.
    pub(crate) fn stopped_by(&self) -> Option<i32> {
        let signal = self.stop.lock_unpoisoned().signal;
        signal.filter(|_| self.status().is_none())
    }

    /// Calls `watcher` on the reactor's thread when it is stopped, with the signal, and when it is continued (`None`). Calls it at
    /// once, on this thread, if it is stopped.
    pub(crate) fn on_stop(&self, watcher: impl Fn(Option<i32>) + Send + Sync + 'static) {
        let watcher: StopWatcher = Arc::new(watcher);
        let mut stop = self.stop.lock_unpoisoned();
        stop.watcher = Some(Arc::clone(&watcher));
        let signal = stop.signal;
        drop(stop);
        if signal.is_some() {
            watcher(signal);
        }
    }

    /// The fork server says that it was stopped, or continued. Tells the watchers if that is news.
    pub(super) fn stopped(&self, signal: Option<i32>, for_good: bool) {
        let mut stop = self.stop.lock_unpoisoned();
        let before = std::mem::replace(&mut stop.signal, signal);
        if for_good {
            stop.for_good = signal;
        }
        let watcher = stop.watcher.clone().filter(|_| before != signal);
        drop(stop);
        if let Some(watcher) = watcher {
            watcher(signal);
        }
    }

    /// How it ended, if it has.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.end.lock_unpoisoned().status.map(ExitStatus::from_raw)
    }

    /// Whether it is dead, also if its end was not reported, because its fork server is stopped.
    pub(crate) fn is_dead(&self) -> bool {
        let ended = || poll::readable([self.pidfd()], Some(Instant::now())) == Ok([true]);
        self.status().is_some() || !self.pidfd.is_gone() && ended()
    }

    /// Waits for its end; `None` if `deadline` came first.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<ExitStatus> {
        let mut end = self.end.lock_unpoisoned();
        loop {
            if let Some(status) = end.status {
                return Some(ExitStatus::from_raw(status));
            }
            end = match deadline {
                None => self.ended.wait(end).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    self.ended.wait_timeout(end, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Calls `watcher` on the reactor's thread when it ends; at once, on this thread, if it has ended.
    pub(crate) fn on_exit(&self, watcher: impl FnOnce() + Send + 'static) {
        let mut end = self.end.lock_unpoisoned();
        if end.status.is_none() {
            end.watcher = Some(Box::new(watcher));
        } else {
            drop(end);
            watcher();
        }
    }

    /// What there is to know of its exit, which had this status.
    pub(crate) fn exit(&self, status: ExitStatus) -> Exit {
        let oom_note = self.end.lock_unpoisoned().oom.clone();
        let background_signal = self.stop.lock_unpoisoned().for_good;
        Exit { status, oom_note, background_signal }
    }

    /// It has ended: tells the watchers. A second report is ignored.
    pub(super) fn set_exited(&self, status: RawStatus) {
        let killed = ExitStatus::from_raw(status).signal() == Some(sys::signal::KILL);
        // Files are read before any lock is taken.
        let oom = self.oom_kills.get().filter(|_| killed).and_then(|before| OomKills::now().since(*before));
        let mut end = self.end.lock_unpoisoned();
        if end.status.is_some() {
            return;
        }
        // The fork server has said so, if it lives.
        proc_table::report_exit(self.member, status != 0);
        end.status = Some(status);
        end.oom = oom;
        let watcher = end.watcher.take();
        drop(end);
        let watched_stops = self.stop.lock_unpoisoned().watcher.take();
        drop(watched_stops);
        self.ended.notify_all();
        if let Some(watcher) = watcher {
            watcher();
        }
    }

    /// Sends `signal` to its whole group, through the fork server, which alone knows that the group is still its own.
    ///
    /// The leader gets SIGKILL at once; the rest of the group gets it when the leader is reaped.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), Errno> {
        if self.status().is_some() || self.pidfd.is_gone() {
            return Ok(());
        }
        let directly = || fd::signal(self.pidfd.as_fd(), signal);
        let sent = match signal {
            // A child that has the rights from before this process gave its own up is out of reach, but not for its maker.
            sys::signal::KILL => match directly() {
                Err(Errno::EPERM) if self.signal_by_server(signal) => Ok(()),
                other => other,
            },
            _ if self.signal_by_server(signal) => Ok(()),
            _ => directly(),
        };
        match sent {
            Err(sys::Errno::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// False if the fork server is gone.
    fn signal_by_server(&self, signal: i32) -> bool {
        self.server.send(&ToServer::Signal { id: self.id, signal }, Vec::new())
    }
}

impl fmt::Debug for ChildHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = self.status();
        f.debug_struct("ChildHandle").field("pid", &self.pid).field("ended", &ended).finish_non_exhaustive()
    }
}

/// How many processes the kernel had killed for want of memory a moment ago: files are read once a second at most.
fn lately() -> OomKills {
    static LAST: Mutex<Option<(Instant, OomKills)>> = Mutex::new(None);
    let mut last = LAST.lock_unpoisoned();
    match *last {
        Some((at, kills)) if at.elapsed() < Duration::from_secs(1) => kills,
        _ => last.insert((Instant::now(), OomKills::now())).1,
    }
}
