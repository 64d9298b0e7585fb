//! Record locks, `fcntl(2)`'s: marks on a file that the kernel takes away when the process that made them ends.
//!
//! Owns: nothing. Runs in: any process. Never: waits for a lock.
//!
//! They belong to the process, not to the descriptor: a copy made by `fork()` does not inherit them, threads share them, and
//! closing *any* descriptor that the process has for the file gives all of them up. The other kind, which belongs to an
//! open file (`F_OFD_SETLK`), would be held on by every copy.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::retry;

/// `fcntl(F_SETLK, F_WRLCK)`: marks byte `at` of the file as this process's; false if it is another's.
pub(crate) fn take(fd: BorrowedFd<'_>, at: u32) -> nix::Result<bool> {
    match retry(|| fcntl(fd, FcntlArg::F_SETLK(&byte(at, libc::F_WRLCK)))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// `fcntl(F_SETLK, F_UNLCK)`: byte `at` is free, if it was this process's.
pub(crate) fn give_up(fd: BorrowedFd<'_>, at: u32) {
    let _ = retry(|| fcntl(fd, FcntlArg::F_SETLK(&byte(at, libc::F_UNLCK))));
}

/// `fcntl(F_GETLK)`: whether another process has byte `at`. Of a process's own marks it says nothing.
pub(crate) fn is_anothers(fd: BorrowedFd<'_>, at: u32) -> nix::Result<bool> {
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
    fn ones_own_marks_are_not_anothers() {
        let fd = memory::create("test", 4096).unwrap();
        assert_eq!(take(fd.as_fd(), 7), Ok(true));
        assert_eq!(take(fd.as_fd(), 7), Ok(true), "it is this process's already");
        assert_eq!(is_anothers(fd.as_fd(), 7), Ok(false));
        give_up(fd.as_fd(), 7);
        assert_eq!(is_anothers(fd.as_fd(), 7), Ok(false));
    }
}
