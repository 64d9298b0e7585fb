//! The credentials of a socket's peer: `SO_PEERCRED`.
//!
//! Owns: nothing. Runs in: any process. The caller decides which user is trusted.

use std::os::fd::BorrowedFd;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

/// `getsockopt(SO_PEERCRED)`: the user of the process that connected, or listens, at the other end.
pub(crate) fn peer_user(socket: BorrowedFd<'_>) -> nix::Result<u32> {
    Ok(getsockopt(&socket, sockopt::PeerCredentials)?.uid())
}

/// Returns the effective user of this process.
pub(crate) fn own_user() -> u32 {
    geteuid().as_raw()
}
