//! Options of TCP sockets.
//!
//! Owns: nothing. Runs in: any process.
#![expect(unsafe_code, reason = "nix has no wrapper for ioctl_sockios(2)")]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

/// Makes the kernel probe the other machine when nothing came for half a minute.
///
/// There is no `TCP_USER_TIMEOUT`, on purpose: it would also end connections when the peer only takes long to read.
pub(crate) fn keep_alive(socket: BorrowedFd<'_>) -> nix::Result<()> {
    setsockopt(&socket, sockopt::KeepAlive, &true)?;
    setsockopt(&socket, sockopt::TcpKeepIdle, &30)?;
    setsockopt(&socket, sockopt::TcpKeepInterval, &10)?;
    setsockopt(&socket, sockopt::TcpKeepCount, &3)
}

/// `ioctl(SIOCOUTQ)`: how many bytes the other machine has not confirmed yet.
pub(crate) fn under_way(socket: BorrowedFd<'_>) -> nix::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is borrowed for the length of the call, which writes one int into it.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    Errno::result(answer).map(|_| bytes.unsigned_abs())
}
