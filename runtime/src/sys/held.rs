//! Descriptors that a parent keeps for long, in a program that may close what is not its own: `close_range(3, ~0)`, as daemons do.
//!
//! Owns: whether that has happened, and [`Wire`], which tells of it. Runs in: a parent.
//! Never: closes a number, or writes to it, once the program has closed everything: it may be another file's by then.
//!
//! A wire is a pipe of which both ends are here. `poll(2)` keeps what it polls open while it sleeps, so if all numbers are
//! closed, the reading end is still polled, and is hung up: the writing end is gone.
#![expect(unsafe_code, reason = "dropping a descriptor, or not")]

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::fstat;

use super::{fd, poll};

/// Set once, and never taken back.
static LOST: AtomicBool = AtomicBool::new(false);

/// Says that the program has closed what it did not open: from now on, no number of ours is used any more.
pub(crate) fn lose() {
    LOST.store(true, Release);
}

/// Whether the program has closed what it did not open.
pub(crate) fn is_lost() -> bool {
    LOST.load(Acquire)
}

/// A descriptor that is closed when this is dropped, unless its number may be another file's.
#[derive(Debug)]
pub(crate) struct Held {
    fd: ManuallyDrop<OwnedFd>,
    /// Made after the loss, and not touched by it.
    late: bool,
}

impl Held {
    /// Whether its number is no longer to be used.
    pub(crate) fn is_gone(&self) -> bool {
        !self.late && is_lost()
    }

    /// For an [event](fd::event): adds one, unless something with a name, a socket or a pipe has its number.
    pub(crate) fn ring(&self) {
        let is_anonymous = |stat: libc::stat| stat.st_mode & libc::S_IFMT == 0;
        if !self.is_gone() && fstat(self).is_ok_and(is_anonymous) {
            fd::ring(self.as_fd());
        }
    }

    /// For an [event](fd::event): sets it back to zero.
    pub(crate) fn quieten(&self) {
        if !self.is_gone() {
            fd::quieten(self.as_fd());
        }
    }
}

impl From<OwnedFd> for Held {
    fn from(fd: OwnedFd) -> Self {
        Self { fd: ManuallyDrop::new(fd), late: is_lost() }
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_gone() {
            // SAFETY: this is the only place where it is dropped, and it is not used after it.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

/// What tells that the program has closed everything.
#[derive(Debug)]
pub(crate) struct Wire {
    reader: Held,
    /// Its end is what is heard.
    _writer: Held,
    identity: Option<fd::Identity>,
}

impl Wire {
    pub(crate) fn new() -> nix::Result<Self> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (reader, writer) = (fd::above_stdio(reader)?, fd::above_stdio(writer)?);
        let identity = fd::identity(reader.as_fd());
        Ok(Self { reader: reader.into(), _writer: writer.into(), identity })
    }

    /// Sleeps until `other` is readable, or `deadline` comes; false if the program has closed everything.
    pub(crate) fn holds_until_readable(&self, other: BorrowedFd<'_>, deadline: Option<Instant>) -> bool {
        // Closed while this thread was not asleep: its number may be another file's.
        self.identity == fd::identity(self.reader.as_fd())
            && poll::readable([other, self.reader.as_fd()], deadline).is_ok_and(|[_, cut]| !cut)
    }
}
