//! The controlling terminal of a session.
//!
//! Owns: nothing. Runs in: the parent, and the fork server. Invariant: no call makes a terminal the session's, or changes one.

use std::os::fd::BorrowedFd;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat, major, minor};
use nix::unistd::tcgetpgrp;

/// Returns whether this process has a controlling terminal.
pub(crate) fn is_there() -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    super::retry(|| open("/dev/tty", flags, Mode::empty())).is_ok()
}

/// Returns whether `fd` is open on the controlling terminal of this process.
pub(crate) fn is_open_on(fd: BorrowedFd<'_>) -> bool {
    // The other end of a pseudo-terminal answers as the terminal itself would.
    let is_other_end = || fstat(fd).is_ok_and(|file| (major(file.st_rdev), minor(file.st_rdev)) == (5, 2));
    tcgetpgrp(fd).is_ok() && !is_other_end()
}
