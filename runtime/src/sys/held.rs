//! Descriptors that a parent keeps for long, in a program that may close what it did not open: `close_range(3, ~0)`, as
//! daemons do.
//!
//! Owns: the flag that this has happened, and [`CloseDetector`], which detects it. Runs in: a parent.
//! Invariant: once the program has closed everything, no number is closed or written to: another file may have it by then.
//!
//! A detector is a pipe of which both ends are here. `poll(2)` keeps what it polls open while it sleeps, so if all numbers are
//! closed, the reading end is still polled, and reports a hang-up because the writing end is gone.
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

/// Set once, and never cleared.
static LOST: AtomicBool = AtomicBool::new(false);

/// Notes that the program has closed what it did not open. From now on no number of this library is used any more.
pub(crate) fn mark_lost() {
    LOST.store(true, Release);
}

/// Returns whether the program has closed what it did not open.
pub(crate) fn is_lost() -> bool {
    LOST.load(Acquire)
}

/// A descriptor that is closed when this is dropped, unless its number may be another file's.
#[derive(Debug)]
pub(crate) struct HeldFd {
    fd: ManuallyDrop<OwnedFd>,
    /// Made after the loss, and not touched by it.
    made_after_loss: bool,
}

impl HeldFd {
    /// Returns whether its number must not be used any more.
    pub(crate) fn is_gone(&self) -> bool {
        !self.made_after_loss && is_lost()
    }

    /// For an [eventfd](fd::eventfd): adds one, unless something with a name, a socket or a pipe has its number.
    pub(crate) fn notify(&self) {
        let is_anonymous = |stat: libc::stat| stat.st_mode & libc::S_IFMT == 0;
        if !self.is_gone() && fstat(self).is_ok_and(is_anonymous) {
            fd::notify(self.as_fd());
        }
    }

    /// For an [eventfd](fd::eventfd): sets it back to zero.
    pub(crate) fn drain(&self) {
        if !self.is_gone() {
            fd::drain(self.as_fd());
        }
    }
}

impl From<OwnedFd> for HeldFd {
    fn from(fd: OwnedFd) -> Self {
        Self { fd: ManuallyDrop::new(fd), made_after_loss: is_lost() }
    }
}

impl AsFd for HeldFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for HeldFd {
    fn drop(&mut self) {
        if !self.is_gone() {
            // SAFETY: this is the only place where it is dropped, and it is not used after it.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

/// Detects that the program has closed all descriptors.
#[derive(Debug)]
pub(crate) struct CloseDetector {
    reader: HeldFd,
    /// Its end is what the reader reports.
    _writer: HeldFd,
    identity: Option<fd::FileId>,
}

impl CloseDetector {
    pub(crate) fn new() -> nix::Result<Self> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (reader, writer) = (fd::above_stdio(reader)?, fd::above_stdio(writer)?);
        let identity = fd::file_id(reader.as_fd());
        Ok(Self { reader: reader.into(), _writer: writer.into(), identity })
    }

    /// Sleeps until `other` is readable, or `deadline` comes. Returns false if the program has closed everything.
    pub(crate) fn wait_readable(&self, other: BorrowedFd<'_>, deadline: Option<Instant>) -> bool {
        // Closed while this thread was not asleep: its number may be another file's.
        self.identity == fd::file_id(self.reader.as_fd())
            && poll::readable([other, self.reader.as_fd()], deadline).is_ok_and(|[_, cut]| !cut)
    }
}
