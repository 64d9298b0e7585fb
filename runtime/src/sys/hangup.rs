//! The kernel kills the process group of each child when the fork server ends, however that ends.
//!
//! Owns: in a child, the read end that it keeps. Runs in: the fork server and its children.
//! Never: writes to the pipe. One byte would kill every group.
//!
//! The fork server has the only write end of a pipe ([`ServerEnd`]). Each child has a read end, with an open file description of
//! its own ([`ChildEnd`]). That description is asynchronous (`O_ASYNC`), its signal is SIGKILL, and its owner is the process group
//! that the child leads. When the write end is closed, the kernel signals each owner. No process of ours has to live for
//! that, and the kernel knows a group as itself: a number that was given out again means nothing to it.
//!
//! Why the read end is opened anew for each child, and in the fork server: a duplicate would share its owner with all
//! others. The child itself would have to look up its own `/proc` entry first, which takes twice as long. Only the
//! server may hold the write end, so the pipe is made after the preloads have run.
//!
//! # What each death costs
//!
//! | what is killed | what kills what the tasks have started |
//! |---|---|
//! | a child | the server, before it reaps the child. The read end is closed with the child |
//! | the server | the kernel: it closes descriptors before it sends `PR_SET_PDEATHSIG`. The parent does so once more |
//! | the parent | the server |
//! | the parent and the server, in either order | the kernel |
//! | both, and a child in the same moment | perhaps nothing: the child's read end may be closed before the server's write end |
//!
//! A new child has a copy of the write end, and could hold up the hang-up. It closes that copy when it leaves the server's loop
//! or executes; until then it has started nothing, and `PR_SET_PDEATHSIG` ends it with the server.
//!
//! # What the kernel does not kill in this way
//!
//! The signal needs the permission that `kill(2)` needs, of the child as it was when it armed its end. Other than there, `CAP_KILL` in
//! a user namespace does not count. The first process of a PID namespace ignores the signal.
//!
//! A read end is opened by way of `/proc`. A child without one, or one that closes all descriptors, is as safe as without this file:
//! `PR_SET_PDEATHSIG` ends the child, and the parent kills its group.
#![expect(unsafe_code, reason = "nix has no wrapper for F_SETOWN and F_SETSIG")]

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{getpid, pipe2};

use super::fd::above_stdio;
use super::mutex::MutexExt as _;
use super::retry;

/// From `<fcntl.h>`; the crate `libc` does not have it for every C library.
const F_SETSIG: i32 = 10;

/// The write end. Invariant: it stays open as long as the fork server lives, or the server's children are killed.
#[derive(Debug)]
pub(crate) struct ServerEnd {
    _writer: OwnedFd,
    /// Names the pipe in this process.
    path: String,
}

impl ServerEnd {
    /// Runs in: the fork server, after everything that could start a process with a copy of the write end.
    pub(crate) fn new() -> nix::Result<Self> {
        let (_, writer) = pipe2(OFlag::O_CLOEXEC)?;
        let writer = above_stdio(writer)?;
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        Ok(Self { _writer: writer, path })
    }

    /// Opens the read end of the next child.
    ///
    /// A duplicate would share one description, and so one owner, with all others. Opened in the server and not in the child, because
    /// the kernel has to look up this path once for the server, and would have to for each new process.
    ///
    /// Runs in: the fork server, before it forks.
    pub(crate) fn child_end(&self) -> nix::Result<ChildEnd> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let reader = retry(|| open(self.path.as_str(), flags, Mode::empty()))?;
        above_stdio(reader).map(ChildEnd)
    }
}

/// The read end of one child.
#[derive(Debug)]
pub(crate) struct ChildEnd(OwnedFd);

impl ChildEnd {
    /// The read end that was armed before this process was executed.
    pub(crate) fn inherited(reader: OwnedFd) -> Self {
        Self(reader)
    }

    /// Has the process group that this process leads killed when the write end is closed.
    ///
    /// Runs in: a new child, once it would end with the server, and before it starts anything.
    pub(crate) fn arm(self) -> nix::Result<Self> {
        let raw = self.0.as_raw_fd();
        // SAFETY: takes three numbers and touches no memory; the descriptor is open. A negative number is that of a group.
        Errno::result(unsafe { libc::fcntl(raw, libc::F_SETOWN, -getpid().as_raw()) })?;
        // SAFETY: as above.
        Errno::result(unsafe { libc::fcntl(raw, F_SETSIG, libc::SIGKILL) })?;
        fcntl(&self.0, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_ASYNC))?;
        Ok(self)
    }

    /// Keeps it as long as this process lives, or until [`give_up`].
    pub(crate) fn keep(self) {
        *kept() = Some(self);
    }
}

impl AsFd for ChildEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Closes what this process [keeps](ChildEnd::keep).
///
/// Runs in: a child that has left the group that it led, before user code.
pub(crate) fn give_up() {
    *kept() = None;
}

fn kept() -> MutexGuard<'static, Option<ChildEnd>> {
    static KEPT: Mutex<Option<ChildEnd>> = Mutex::new(None);
    KEPT.lock_unpoisoned()
}
