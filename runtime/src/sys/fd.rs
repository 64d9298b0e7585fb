//! Descriptors: kept away from 0, 1 and 2, and compared by the file that they are open on.
//!
//! Owns: nothing; returns owned descriptors. Runs in: any process.
//! Invariant: every descriptor made here is close-on-exec.
//!
//! Why our descriptors stay above 2, and a process of ours opens `/dev/null` on those of 0 to 2 that are closed:
//! otherwise a memory could become its stdout.
#![expect(unsafe_code, reason = "nix has no wrapper for pidfd_open(2), pidfd_send_signal(2) and statx(2)")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::stat::{Mode, fstat};

use super::retry;

/// Moves `fd` above 2, so that it never becomes a standard stream of a program that closed its own.
pub(crate) fn above_stdio(fd: OwnedFd) -> nix::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { duplicate(fd.as_fd()) }
}

/// `fcntl(F_DUPFD_CLOEXEC, 3)`: another descriptor for the same file, above 2.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: fcntl just returned this descriptor, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Returns the descriptor of number `raw`, open or not, to look at what it is; `None` for a standard stream.
pub(crate) fn from_number(raw: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: the number is not -1; whether it is open is for the call that uses it to find out.
    (raw > 2).then(|| unsafe { BorrowedFd::borrow_raw(raw) })
}

/// Takes over the descriptor of number `raw`, which was checked by [`from_number`], and makes it close on exec.
///
/// Runs in: a child, before `main`.
pub(crate) fn inherited(raw: RawFd) -> nix::Result<OwnedFd> {
    let borrowed = from_number(raw).ok_or(Errno::EBADF)?;
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: the number is open, and was made for this process by the one that started it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Lets the next image of this process inherit `fd`.
///
/// Runs in: a new child, between fork and exec.
pub(crate) fn leave_open_on_exec(fd: BorrowedFd<'_>) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}

/// Opens `/dev/null` on each of 0, 1 and 2 that is closed, or a later `open` becomes a standard stream.
///
/// Runs in: a child, before anything else is opened.
pub(crate) fn open_null_on_closed_stdio() {
    loop {
        match open("/dev/null", OFlag::O_RDWR, Mode::empty()) {
            // The lowest free number is handed out, so this one fills a gap: keep it open for good.
            Ok(fd) if fd.as_raw_fd() < 3 => std::mem::drop(std::os::fd::IntoRawFd::into_raw_fd(fd)),
            Ok(_) | Err(_) => return,
        }
    }
}

/// Opens `/dev/null` for reading and writing.
pub(crate) fn dev_null() -> nix::Result<OwnedFd> {
    above_stdio(retry(|| open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()))?)
}

/// Opens a directory, only to change to it.
pub(crate) fn directory(path: &std::path::Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    above_stdio(retry(|| open(path, flags, Mode::empty()))?)
}

/// `fchdir(2)`: makes `directory` the working directory of this process.
pub(crate) fn change_directory(directory: BorrowedFd<'_>) -> nix::Result<()> {
    nix::unistd::fchdir(directory)
}

/// Identifies a file: device, inode number, and type.
pub(crate) type FileId = (u64, u64, u32);

/// Returns the file that `fd` is open on, or `None` if it is closed.
pub(crate) fn file_id(fd: BorrowedFd<'_>) -> Option<FileId> {
    let stat = fstat(fd).ok()?;
    Some((stat.st_dev, stat.st_ino, stat.st_mode & libc::S_IFMT))
}

/// Identifies a directory: the file, and the mount that it was reached by. The same directory may be mounted twice, of
/// which once read-only.
pub(crate) type DirId = (FileId, u64);

/// `STATX_MNT_ID` and, from Linux 6.8, `STATX_MNT_ID_UNIQUE`: a number that is not given out again.
const MOUNT: u32 = 0x1000 | 0x4000;

/// Returns the directory that a path leads to, or `None` if it leads nowhere. A relative path begins at `from`.
pub(crate) fn dir_id(from: BorrowedFd<'_>, path: &std::ffi::CStr) -> Option<DirId> {
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let wanted = libc::STATX_TYPE | libc::STATX_INO | MOUNT;
    // SAFETY: the kernel reads a string and writes one structure, both borrowed for the call.
    let answer = unsafe { libc::statx(from.as_raw_fd(), path.as_ptr(), 0, wanted, found.as_mut_ptr()) };
    if answer == 0 {
        // SAFETY: zeroes are a valid value, and so is what the kernel has written over them.
        let found = unsafe { found.assume_init() };
        let device = u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor);
        return Some(((device, found.stx_ino, u32::from(found.stx_mode) & libc::S_IFMT), found.stx_mnt_id));
    }
    // A filter may refuse it. Then the mount is unknown.
    let stat = nix::sys::stat::fstatat(from, path, AtFlags::empty()).ok()?;
    Some(((stat.st_dev, stat.st_ino, stat.st_mode & libc::S_IFMT), 0))
}

/// As [`dir_id`], from this thread's working directory.
pub(crate) fn own_dir_id(path: &std::ffi::CStr) -> Option<DirId> {
    dir_id(nix::fcntl::AT_FDCWD, path)
}

/// Returns one of the standard streams of this process, open or not.
pub(crate) fn stdio(number: RawFd) -> BorrowedFd<'static> {
    debug_assert!((0..3).contains(&number));
    // SAFETY: the number is not -1; whether it is open is for the call that uses it to find out.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// `dup2(fd, number)` for a standard stream.
pub(crate) fn replace_stdio(fd: BorrowedFd<'_>, number: RawFd) -> nix::Result<()> {
    // SAFETY: dup2 takes two numbers and touches no memory; `number` is a standard stream, which no owner has.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// `eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)`: a counter that `poll` and `epoll` can wait for.
pub(crate) fn eventfd() -> nix::Result<OwnedFd> {
    above_stdio(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?.into())
}

/// Adds one to an [`eventfd`]. A full counter wakes as well, so no error is reported.
pub(crate) fn notify(eventfd: BorrowedFd<'_>) {
    let _ = nix::unistd::write(eventfd, &1u64.to_ne_bytes());
}

/// As [`notify`]; returns false if the descriptor is not open any more.
pub(crate) fn try_notify(eventfd: BorrowedFd<'_>) -> bool {
    nix::unistd::write(eventfd, &1u64.to_ne_bytes()) != Err(Errno::EBADF)
}

/// Resets an [`eventfd`] to zero.
pub(crate) fn drain(eventfd: BorrowedFd<'_>) {
    let _ = nix::unistd::read(eventfd, &mut [0; 8]);
}

/// `pidfd_open(pid, 0)`: a descriptor that becomes readable when the process has ended.
pub(crate) fn pidfd(pid: nix::unistd::Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and touches no memory.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let raw = RawFd::try_from(raw).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just returned this descriptor, and nothing else knows its number.
    above_stdio(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// `pidfd_send_signal(pidfd, signal, NULL, 0)`: never reaches another process, since a pidfd is not reused.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    let (fd, no_info) = (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: a null `info` is allowed, and the descriptor is borrowed across the call.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) };
    Errno::result(answer).map(drop)
}

/// As [`signal`], for the whole process group that the process leads or led: as long as the group has members, its number
/// is not given to another one. Linux 6.9; `EINVAL` before.
pub(crate) fn signal_group(leader: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;
    let (fd, no_info) = (leader.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: a null `info` is allowed, and the descriptor is borrowed across the call.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, PIDFD_SIGNAL_PROCESS_GROUP) };
    Errno::result(answer).map(drop)
}
