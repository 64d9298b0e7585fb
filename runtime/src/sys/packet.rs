//! Messages of any kind over a `SOCK_SEQPACKET` socket, for callers that may block: a packet arrives as a whole or not at
//! all.
//!
//! Runs in: any process.
//! Invariant: no descriptor is lost in silence, and no signal ends a wait.
#![expect(
    unsafe_code,
    reason = "nix has no wrapper for the ioctl SIOCOUTQ, and recvmsg hands out descriptors as numbers"
)]

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockType, UnixAddr, getpeername, getsockname,
    getsockopt, recvmsg, sendmsg, sockopt,
};
use nix::sys::socket::{SockaddrLike as _, SockaddrStorage};

use super::fd::above_stdio;
use super::retry;

/// The most descriptors that the kernel lets through beside one packet: `SCM_MAX_FD`.
pub(crate) const MOST_DESCRIPTORS: usize = 253;

/// How much memory the descriptors beside a packet need while it is received.
pub(crate) const BESIDE: usize = nix::sys::socket::cmsg_space::<[RawFd; MOST_DESCRIPTORS]>();

/// The longest packet that is copied together before it is sent.
const SHORT: usize = 272;

/// `struct cmsghdr`: its length with all that follows, a level, a type.
const CONTROL_HEADER: usize = size_of::<usize>() + 2 * size_of::<libc::c_int>();

/// What came.
#[derive(Debug)]
pub(crate) struct Packet {
    /// How many bytes; 0: the other end is closed.
    pub(crate) len: usize,
    /// What came beside them.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// There was no room for some descriptors, which are gone: the table of this process is full.
    pub(crate) lost: bool,
}

/// `sendmsg(2)`: `head`, then `bytes`, as one packet, with `descriptors` beside it.
///
/// Does not raise `SIGPIPE`: a library's caller did not ask for one. Does not wait either: the kernel wakes threads that
/// wait for room only when three quarters of it are free.
///
/// # Errors
/// - `EAGAIN`: there is no room.
/// - `EPIPE`, `ECONNRESET`: the other end is closed.
/// - `ETOOMANYREFS`: this user has as many descriptors on their way as may be.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    (head, bytes): (&[u8], &[u8]),
    descriptors: &[BorrowedFd<'_>],
) -> nix::Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    // Much of the cost of a short packet is that the kernel is shown two pieces: copying them together is cheaper.
    let mut together = [0; SHORT];
    if descriptors.is_empty()
        && let Some(all) = together.get_mut(..head.len() + bytes.len())
    {
        all[..head.len()].copy_from_slice(head);
        all[head.len()..].copy_from_slice(bytes);
        return retry(|| nix::sys::socket::send(socket.as_raw_fd(), all, flags)).map(drop);
    }
    let slices = [IoSlice::new(head), IoSlice::new(bytes)];
    if descriptors.is_empty() {
        return retry(|| sendmsg::<()>(socket.as_raw_fd(), &slices, &[], flags, None)).map(drop);
    }
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let beside = [ControlMessage::ScmRights(&raw)];
    retry(|| sendmsg::<()>(socket.as_raw_fd(), &slices, &beside, flags, None)).map(drop)
}

/// `recvmsg(2)`: one packet. `beside` is memory of [`BESIDE`] bytes, to be used again and again.
///
/// # Errors
/// - `EAGAIN`: there is none, and it may not wait.
/// - `ECONNRESET`: the other end was closed before it had read everything. Said once: what it sent is still to be received.
/// - `EMSGSIZE`: the packet was longer than `into`; it is gone.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    into: &mut [u8],
    beside: &mut [u8],
    may_wait: bool,
) -> nix::Result<Packet> {
    let how = if may_wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
    receive_with(socket, into, beside, how)
}

/// As [`receive`], with these flags.
pub(super) fn receive_with(
    socket: BorrowedFd<'_>,
    into: &mut [u8],
    beside: &mut [u8],
    flags: MsgFlags,
) -> nix::Result<Packet> {
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    // What stood there the last time must not be taken for what comes now.
    beside[..CONTROL_HEADER].fill(0);
    let mut descriptors = Vec::new();
    let (len, said) = retry(|| {
        let mut slices = [IoSliceMut::new(into)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(beside), flags)?;
        // A full table makes the kernel drop descriptors without an error: only this flag tells.
        if !message.flags.contains(MsgFlags::MSG_CTRUNC) {
            for beside in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(raw) = beside {
                    descriptors.extend(raw.into_iter().map(take));
                }
            }
        }
        Ok((message.bytes, message.flags))
    })?;
    let lost = said.contains(MsgFlags::MSG_CTRUNC);
    if lost {
        // Those before are open.
        drop(rights(beside));
    }
    if said.contains(MsgFlags::MSG_TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    let descriptors = descriptors.into_iter().map(above_stdio).collect::<nix::Result<_>>()?;
    Ok(Packet { len, descriptors, lost })
}

/// The descriptors of a first control message that the kernel could not finish, which nix keeps to itself.
fn rights(beside: &[u8]) -> Vec<OwnedFd> {
    // `struct cmsghdr`: its length with all that follows, a level, a type; then the numbers.
    let Some((len, rest)) = beside.split_first_chunk() else { return Vec::new() };
    let Some(end) = usize::from_ne_bytes(*len).checked_sub(size_of::<usize>()) else { return Vec::new() };
    let (words, _) = rest.get(..end).unwrap_or_default().as_chunks();
    let mut words = words.iter().map(|word| RawFd::from_ne_bytes(*word));
    if (words.next(), words.next()) != (Some(libc::SOL_SOCKET), Some(libc::SCM_RIGHTS)) {
        return Vec::new();
    }
    words.map(take).collect()
}

fn take(raw: RawFd) -> OwnedFd {
    // SAFETY: recvmsg just put this descriptor into our table, and nothing else knows its number.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Whether a descriptor that came is a socket of this kind.
pub(crate) fn is_one(fd: BorrowedFd<'_>) -> bool {
    let unix = |address: SockaddrStorage| address.family() == Some(AddressFamily::Unix);
    getsockopt(&fd, sockopt::SockType) == Ok(SockType::SeqPacket) && getsockname(fd.as_raw_fd()).is_ok_and(unix)
}

/// Whether the socket, or the one at its other end, had a name by which it was found; those of a pair have none.
pub(crate) fn has_name(fd: BorrowedFd<'_>) -> bool {
    let named = |address: nix::Result<UnixAddr>| address.is_ok_and(|address| address.path().is_some());
    named(getsockname(fd.as_raw_fd())) || named(getpeername(fd.as_raw_fd()))
}

/// The longest packet that the socket takes.
pub(crate) fn longest(socket: &OwnedFd) -> nix::Result<usize> {
    // The kernel's own account of one packet.
    const OVERHEAD: usize = 32;
    Ok(getsockopt(&socket.as_fd(), sockopt::SndBuf)?.saturating_sub(OVERHEAD))
}

/// `ioctl(SIOCOUTQ)`: whether the other end has received all that was sent.
pub(crate) fn is_drained(socket: BorrowedFd<'_>) -> bool {
    let mut unread: libc::c_int = 0;
    // SAFETY: the call stores one `int`, and `unread` is borrowed for it.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
    answer == 0 && unread == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::is_hung_up;
    use crate::sys::socket::pair;

    #[test]
    fn a_packet_arrives_whole_with_its_descriptors() {
        let (a, b) = pair().unwrap();
        let mut beside = vec![0; BESIDE];
        let many = vec![a.as_fd(); MOST_DESCRIPTORS];
        send(a.as_fd(), (b"head", b"body"), &many).unwrap();
        send(a.as_fd(), (b"head", b""), &[]).unwrap();
        let mut bytes = [0; 100];
        let packet = receive(b.as_fd(), &mut bytes, &mut beside, true).unwrap();
        assert_eq!((&bytes[..packet.len], packet.descriptors.len(), packet.lost), (&b"headbody"[..], 253, false));
        drop(packet);
        assert!(!is_drained(a.as_fd()) && is_drained(b.as_fd()) && !is_hung_up(b.as_fd()));
        assert_eq!(receive(b.as_fd(), &mut bytes, &mut beside, true).unwrap().descriptors.len(), 0);
        assert_eq!(receive(b.as_fd(), &mut bytes, &mut beside, false).unwrap_err(), Errno::EAGAIN);
        assert!(is_drained(a.as_fd()));
        drop(a);
        assert!(is_hung_up(b.as_fd()));
        assert_eq!(receive(b.as_fd(), &mut bytes, &mut beside, false).unwrap().len, 0);
    }

    #[test]
    fn a_packet_that_is_too_long_is_an_error() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), (b"long", b"long"), &[a.as_fd()]).unwrap();
        let received = receive(b.as_fd(), &mut [0; 5], &mut vec![0; BESIDE], true);
        assert_eq!(received.unwrap_err(), Errno::EMSGSIZE);
        assert!(is_one(b.as_fd()) && longest(&b).unwrap() > 1024);
        assert!(!is_one(crate::sys::fd::eventfd().unwrap().as_fd()));
    }
}
