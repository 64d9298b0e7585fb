//! Meeting unrelated processes: sockets that listen, in a directory or at a port, and the identity of the peer.
//!
//! Owns: [`Timer`]. Runs in: any process. Never: judges a directory or a user; it says which user owns what.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockopt, listen, socket, sockopt,
};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::{UnlinkatFlags, geteuid, mkdir, unlinkat};

use super::fd::above_stdio;
use super::retry;

/// How many may stand before a listening socket without being let in: more are kept waiting by the kernel.
const BACKLOG: i32 = 128;

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

/// The user that this process acts for.
pub(crate) fn own_user() -> u32 {
    geteuid().as_raw()
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
    listen(&socket, Backlog::new(BACKLOG)?)?;
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

/// Whether a process listens at `name` in `folder`.
pub(crate) fn somebody_listens(folder: BorrowedFd<'_>, name: &Path) -> nix::Result<bool> {
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

/// `getsockopt(SO_PEERCRED)`: the user of the process that connected, or listens, at the other end.
pub(crate) fn peer_user(socket: BorrowedFd<'_>) -> nix::Result<u32> {
    Ok(getsockopt(&socket, sockopt::PeerCredentials)?.uid())
}

/// Has the kernel ask, when nothing came for half a minute, whether the other machine is still there.
///
/// There is no `TCP_USER_TIMEOUT`, on purpose: it would also end connections when the peer only takes long to read.
#[cfg(feature = "tcp")]
pub(crate) fn keep_alive(socket: BorrowedFd<'_>) -> nix::Result<()> {
    use nix::sys::socket::setsockopt;
    setsockopt(&socket, sockopt::KeepAlive, &true)?;
    setsockopt(&socket, sockopt::TcpKeepIdle, &30)?;
    setsockopt(&socket, sockopt::TcpKeepInterval, &10)?;
    setsockopt(&socket, sockopt::TcpKeepCount, &3)
}

/// `ioctl(SIOCOUTQ)`: how many bytes the other machine has not confirmed yet.
#[cfg(feature = "tcp")]
#[expect(unsafe_code, reason = "nix has no wrapper for ioctl_sockios(2)")]
pub(crate) fn under_way(socket: BorrowedFd<'_>) -> nix::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is borrowed for the length of the call, which writes one int into it.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    Errno::result(answer).map(|_| bytes.unsigned_abs())
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

/// `timerfd_create(CLOCK_MONOTONIC)`: a descriptor that is readable from some moment on.
#[derive(Debug)]
pub(crate) struct Timer(TimerFd);

impl Timer {
    #[expect(unsafe_code, reason = "nix makes a timer of nothing but a number")]
    pub(crate) fn new() -> nix::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let raw = above_stdio(timer.into())?.into_raw_fd();
        // SAFETY: the number is that of a timer, and its only owner has just given it up.
        Ok(Self(unsafe { TimerFd::from_raw_fd(raw) }))
    }

    /// Readable from `at` on, or not any more.
    pub(crate) fn set(&self, at: Option<Instant>) -> nix::Result<()> {
        match at {
            None => self.0.unset(),
            Some(at) => {
                // Zero would be never.
                let left = at.saturating_duration_since(Instant::now()).max(std::time::Duration::from_nanos(1));
                self.0.set(Expiration::OneShot(TimeSpec::from(left)), TimerSetTimeFlags::empty())
            }
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll;
    use std::time::Duration;

    #[test]
    fn a_timer_is_readable_from_its_moment_on() {
        let timer = Timer::new().unwrap();
        let now = || poll::readable([timer.as_fd()], Some(Instant::now())).unwrap()[0];
        assert!(!now());
        let at = Instant::now() + Duration::from_millis(20);
        timer.set(Some(at)).unwrap();
        assert_eq!(poll::readable([timer.as_fd()], None).unwrap(), [true]);
        assert!(Instant::now() >= at && now());
        timer.set(None).unwrap();
        assert!(!now());
        timer.set(Some(at)).unwrap();
        assert_eq!(poll::readable([timer.as_fd()], None).unwrap(), [true], "it is past already");
    }
}
