//! Unix sockets that listen in a directory, and the directory itself.
//!
//! Owns: nothing. Runs in: any process. The caller decides which owner of a directory is trusted.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open};
use nix::libc;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, socket};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, mkdir, unlinkat};

use super::fd::above_stdio;
use super::retry;

/// Number of connections that wait to be accepted. The kernel keeps further ones waiting.
const MAX_BACKLOG: i32 = 128;

/// `open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)`.
///
/// # Errors
/// `ENOTDIR`, also for a link: a user that may change what it points to would choose the directory.
pub(crate) fn folder(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    above_stdio(retry(|| open(path, flags, Mode::empty()))?)
}

/// `mkdir(path, 0700)`.
pub(crate) fn make_folder(path: &Path) -> nix::Result<()> {
    mkdir(path, Mode::S_IRWXU)
}

/// The owner of a directory, and what other users may do in it.
pub(crate) fn owner(folder: BorrowedFd<'_>) -> nix::Result<(u32, u32)> {
    let stat = fstat(folder)?;
    Ok((stat.st_uid, stat.st_mode & (libc::S_IRWXG | libc::S_IRWXO)))
}

/// `flock(LOCK_EX | LOCK_NB)` on an open directory, until the result is dropped.
///
/// # Errors
/// `EWOULDBLOCK`: another process has it.
pub(crate) fn lock(folder: BorrowedFd<'_>) -> nix::Result<Flock<OwnedFd>> {
    // An open of its own: a lock belongs to that, and a second thread of this process has to wait for it, too.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let own = above_stdio(retry(|| nix::fcntl::openat(folder, ".", flags, Mode::empty()))?)?;
    Flock::lock(own, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)
}

/// `socket`, `bind` and `listen` for messages, at `name` in `folder`.
///
/// # Errors
/// `EADDRINUSE`: something has this name already.
pub(crate) fn listen_at(folder: BorrowedFd<'_>, name: &Path) -> nix::Result<OwnedFd> {
    let socket = seqpacket(SockFlag::SOCK_NONBLOCK)?;
    bind(socket.as_raw_fd(), &address(folder, name)?)?;
    listen(&socket, Backlog::new(MAX_BACKLOG)?)?;
    Ok(socket)
}

/// `connect(2)` to `name` in `folder`, waiting while too many others do so.
///
/// # Errors
/// `ENOENT`: nothing has this name; `ECONNREFUSED`: no process listens there; `EPROTOTYPE`: one does, with a socket that
/// expects no messages.
pub(crate) fn connect_at(folder: BorrowedFd<'_>, name: &Path) -> nix::Result<OwnedFd> {
    let socket = seqpacket(SockFlag::empty())?;
    let address = address(folder, name)?;
    retry(|| connect(socket.as_raw_fd(), &address))?;
    Ok(socket)
}

/// Returns whether a process listens at `name` in `folder`.
pub(crate) fn has_listener(folder: BorrowedFd<'_>, name: &Path) -> nix::Result<bool> {
    let socket = seqpacket(SockFlag::SOCK_NONBLOCK)?;
    match retry(|| connect(socket.as_raw_fd(), &address(folder, name)?)) {
        // A listener that many are waiting for, or one of another kind, is one.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// `unlinkat(folder, name, 0)`.
pub(crate) fn remove(folder: BorrowedFd<'_>, name: &Path) -> nix::Result<()> {
    unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)
}

/// `rmdir(path)`, which leaves alone what is not empty.
pub(crate) fn remove_folder(path: &Path) {
    let _ = std::fs::remove_dir(path);
}

/// Which file `name` in `folder` is, and whether it is a socket; a link is not followed.
pub(crate) fn socket_in(folder: BorrowedFd<'_>, name: &Path) -> nix::Result<(super::fd::FileId, bool)> {
    let stat = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = stat.st_mode & libc::S_IFMT;
    Ok(((stat.st_dev, stat.st_ino, kind), kind == libc::S_IFSOCK))
}

/// `accept4(2)`: the next connection of a listening socket.
///
/// # Errors
/// `EAGAIN`: there is none, or it is gone; `EMFILE`, `ENFILE`, `ENOMEM`, `ENOBUFS`: it has to wait.
pub(crate) fn accept(listening: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    match retry(|| accept4(listening.as_raw_fd(), SockFlag::SOCK_CLOEXEC)) {
        Ok(raw) => above_stdio(owned(raw)),
        // As the manual page asks: errors of the network belong to the connecting peer, which is gone now.
        Err(
            Errno::ECONNABORTED
            | Errno::ENETDOWN
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH,
        ) => Err(Errno::EAGAIN),
        Err(errno) => Err(errno),
    }
}

fn seqpacket(flags: SockFlag) -> nix::Result<OwnedFd> {
    above_stdio(socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | flags, None)?)
}

/// The address of `name` in an open directory: whatever becomes of that directory's own name, and however long it is.
fn address(folder: BorrowedFd<'_>, name: &Path) -> nix::Result<UnixAddr> {
    UnixAddr::new(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
}

#[expect(unsafe_code, reason = "accept4 hands out a descriptor as a number")]
fn owned(raw: RawFd) -> OwnedFd {
    // SAFETY: accept4 just put this descriptor into our table, and nothing else knows its number.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
