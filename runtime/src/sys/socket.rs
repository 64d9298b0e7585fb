//! Short messages with descriptors beside them, over a `SOCK_SEQPACKET` pair: [`packet`] for a caller that never waits.
//!
//! Runs in: any process.
//! Invariant: no call blocks or loses a descriptor in silence.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, getsockopt, recv, socketpair, sockopt};

use super::fd::above_stdio;
use super::{packet, retry};

/// The most descriptors that one message carries.
pub(crate) const MAX_DESCRIPTORS: usize = 64;

/// The longest message.
pub(crate) const MAX_MESSAGE: usize = 1024;

/// `socketpair(AF_UNIX, SOCK_SEQPACKET)`: two ends that keep messages apart.
pub(crate) fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((above_stdio(a)?, above_stdio(b)?))
}

/// Sends one message, whole, with `descriptors` beside it.
///
/// # Errors
/// `EAGAIN` if it would have to wait; `EPIPE` if the other end is closed.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> nix::Result<()> {
    debug_assert!(bytes.len() <= MAX_MESSAGE && descriptors.len() <= MAX_DESCRIPTORS);
    packet::send(socket, (bytes, &[]), descriptors)
}

/// Receives one message, and the descriptors beside it; no bytes mean that the other end is closed.
///
/// # Errors
/// `EAGAIN` if there is none; `EMFILE` if descriptors were dropped because the table of this
/// process is full (the message, and those for which there was room, are gone, too); `EMSGSIZE` if it was longer than [`MAX_MESSAGE`].
pub(crate) fn receive(socket: BorrowedFd<'_>) -> nix::Result<(Vec<u8>, Vec<OwnedFd>)> {
    take_next(socket, MsgFlags::empty())
}

/// As [`receive`], but the message stays there, and its descriptors with it: what is returned are others for the same files.
///
/// # Errors
/// As [`receive`]; the message is not gone.
pub(crate) fn look(socket: BorrowedFd<'_>) -> nix::Result<(Vec<u8>, Vec<OwnedFd>)> {
    take_next(socket, MsgFlags::MSG_PEEK)
}

fn take_next(socket: BorrowedFd<'_>, more: MsgFlags) -> nix::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut bytes, mut beside) = (vec![0; MAX_MESSAGE], vec![0; packet::BESIDE]);
    let packet = packet::receive_with(socket, &mut bytes, &mut beside, MsgFlags::MSG_DONTWAIT | more)?;
    if packet.lost {
        return Err(Errno::EMFILE);
    }
    bytes.truncate(packet.len);
    Ok((bytes, packet.descriptors))
}

/// As [`receive`], from a process that has ended or is about to, and may have left our own last message unread: the kernel
/// tells of that once, as `ECONNRESET`, before it hands out what the process has sent.
pub(crate) fn receive_last(socket: BorrowedFd<'_>) -> nix::Result<(Vec<u8>, Vec<OwnedFd>)> {
    match receive(socket) {
        Err(Errno::ECONNRESET) => receive(socket),
        other => other,
    }
}

/// `shutdown(SHUT_WR)`: the other end reads what was sent, and then that there will be no more.
pub(crate) fn say_no_more(socket: BorrowedFd<'_>) {
    let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Write);
}

/// `shutdown(SHUT_RDWR)`: neither end sends any more, and what waits at them is woken.
pub(crate) fn shut_down(socket: BorrowedFd<'_>) {
    let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
}

/// The effective user and group of the process that made the pair that `socket` is an end of, at that moment.
pub(crate) fn maker(socket: BorrowedFd<'_>) -> nix::Result<(u32, u32)> {
    let maker = getsockopt(&socket, sockopt::PeerCredentials)?;
    Ok((maker.uid(), maker.gid()))
}

/// The message that waits on `fd`, and stays there with its descriptors.
///
/// # Errors
/// `ENOTSOCK`, `EPROTOTYPE`: it is no socket, or none of this kind; `EAGAIN` if nothing waits.
pub(crate) fn peek(fd: BorrowedFd<'_>) -> nix::Result<Vec<u8>> {
    if getsockopt(&fd, sockopt::SockType)? != SockType::SeqPacket {
        return Err(Errno::EPROTOTYPE);
    }
    let mut bytes = vec![0; MAX_MESSAGE];
    let len = retry(|| recv(fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT))?;
    bytes.truncate(len);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn last_message_of_a_peer_that_read_nothing_is_received() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"never read", &[]).unwrap();
        send(b.as_fd(), b"why", &[]).unwrap();
        drop(b);
        assert_eq!(receive_last(a.as_fd()).unwrap().0, b"why");
    }

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"one", &[a.as_fd(), b.as_fd()]).unwrap();
        send(a.as_fd(), b"two", &[]).unwrap();
        let (bytes, fds) = receive(b.as_fd()).unwrap();
        assert_eq!((&bytes[..], fds.len()), (&b"one"[..], 2));
        assert_eq!(peek(b.as_fd()).unwrap(), b"two");
        assert_eq!(look(b.as_fd()).unwrap().0, b"two");
        assert_eq!(receive(b.as_fd()).unwrap().0, b"two");
        assert_eq!(receive(b.as_fd()).unwrap_err(), Errno::EAGAIN);
        drop((a, fds));
        assert_eq!(receive(b.as_fd()).unwrap().0, b"");
    }
}
