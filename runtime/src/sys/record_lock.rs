//! Record locks of `fcntl(2)`: locks on bytes of a file that the kernel releases when the process that holds them ends.
//!
//! Owns: nothing. Runs in: any process. No function waits for a lock.
//!
//! They belong to the process, not to the descriptor: a copy made by `fork()` does not inherit them, threads share them, and
//! closing *any* descriptor that the process has for the file releases all of them. The other kind, which belongs to an
//! open file (`F_OFD_SETLK`), would be kept by every copy.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::retry;

/// `fcntl(F_SETLK, F_WRLCK)`: locks byte `at` of the file. Returns false if another process holds it.
pub(crate) fn take(fd: BorrowedFd<'_>, at: u32) -> nix::Result<bool> {
    match retry(|| fcntl(fd, FcntlArg::F_SETLK(&byte(at, libc::F_WRLCK)))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// `fcntl(F_SETLK, F_UNLCK)`: unlocks byte `at`, if this process holds it.
pub(crate) fn release(fd: BorrowedFd<'_>, at: u32) {
    let _ = retry(|| fcntl(fd, FcntlArg::F_SETLK(&byte(at, libc::F_UNLCK))));
}

/// `fcntl(F_GETLK)`: returns whether another process holds byte `at`. A process's own locks are not reported.
pub(crate) fn is_held_elsewhere(fd: BorrowedFd<'_>, at: u32) -> nix::Result<bool> {
    let mut found = byte(at, libc::F_WRLCK);
    retry(|| fcntl(fd, FcntlArg::F_GETLK(&mut found)))?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

fn byte(at: u32, kind: i32) -> libc::flock {
    let short = |number: i32| i16::try_from(number).unwrap_or_default();
    libc::flock { l_type: short(kind), l_whence: short(libc::SEEK_SET), l_start: at.into(), l_len: 1, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory;
    use std::os::fd::AsFd as _;

    #[test]
    fn own_locks_are_not_reported() {
        let fd = memory::create("test", 4096).unwrap();
        assert_eq!(take(fd.as_fd(), 7), Ok(true));
        assert_eq!(take(fd.as_fd(), 7), Ok(true), "it is this process's already");
        assert_eq!(is_held_elsewhere(fd.as_fd(), 7), Ok(false));
        release(fd.as_fd(), 7);
        assert_eq!(is_held_elsewhere(fd.as_fd(), 7), Ok(false));
    }
}
