//! A socket of this machine: packets that arrive whole or not at all, with descriptors beside them.
//!
//! Owns: [`Local`], one end. Runs in: any process. Never: believes what a packet says before it has compared it with what came.
//!
//! # A packet
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 7 | [`PACKET`]: the message follows |
//! | 8 to 15 | how long it is |
//! | 16 to the end | the message |
//!
//! Its handles are beside it, in order.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::scratch::Scratch;
use super::transport::Patience;
use crate::channel::{RecvError, SendErrorKind};
use crate::codec::by_type::{NoSpill, of_message, to_message};
use crate::codec::handles::{Handle, Handles, Received};
use crate::codec::{CodecError, Message, Payload};
use crate::link;
use crate::sys::packet::{self, Packet};
use crate::sys::{self, Errno, poll};

/// How long a packet's head is.
pub(super) const HEAD: usize = 16;

/// The longest message that goes as one packet.
pub(super) const LONGEST: usize = 32 << 10;

const PACKET: u64 = u64::from_ne_bytes(*b"ptpacket");

/// One end of a socket.
#[derive(Debug)]
pub(crate) struct Local {
    socket: OwnedFd,
    /// The longest message that goes as one packet here.
    longest: usize,
}

impl Local {
    /// An end of a socket that was made for this, here or in another process.
    pub(super) fn new(socket: OwnedFd) -> sys::Result<Self> {
        let longest = packet::longest(&socket)?.saturating_sub(HEAD).min(LONGEST);
        Ok(Self { socket, longest })
    }

    /// An end that came from another process.
    pub(super) fn arrived(descriptor: OwnedFd) -> Result<Arc<Self>, CodecError> {
        let corrupt = || CodecError::new("the payload is corrupt: what came with it is no end of a connection");
        if !packet::is_one(descriptor.as_fd()) {
            return Err(corrupt());
        }
        Ok(Arc::new(Self::new(descriptor).map_err(|_| corrupt())?))
    }

    #[inline]
    pub(super) fn send<T: Message>(&self, value: &T, patience: Patience) -> Result<(), SendErrorKind> {
        let mut scratch = Scratch::take();
        let (payload, handles) = to_message(value, scratch.take_buffer(), (self.longest, &mut NoSpill))?;
        let Payload::Small(bytes) = payload else { return Err(CodecError::new("it does not fit").into()) };
        let sent = self.send_packet(PACKET, &bytes, &handles, patience);
        scratch.put_back(bytes);
        sent
    }

    fn send_packet(&self, kind: u64, bytes: &[u8], handles: &Handles, patience: Patience) -> Result<(), SendErrorKind> {
        if handles.len() > packet::MOST_DESCRIPTORS {
            let most = packet::MOST_DESCRIPTORS;
            return Err(CodecError::new(format!("more than {most} handles cannot go with one message")).into());
        }
        let head = head(kind, bytes.len());
        self.send_parts((&head, bytes), &handles.descriptors(), patience)
    }

    fn send_parts(
        &self,
        parts: (&[u8], &[u8]),
        descriptors: &[BorrowedFd<'_>],
        patience: Patience,
    ) -> Result<(), SendErrorKind> {
        let mut tried_since = None;
        loop {
            match packet::send(self.as_fd(), parts, descriptors, patience == Patience::Endless) {
                Ok(()) => return Ok(()),
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN | Errno::ECONNREFUSED) => {
                    return Err(SendErrorKind::Disconnected);
                }
                Err(Errno::EAGAIN) => self.wait_for_room(patience)?,
                Err(errno) if link::is_temporary(errno) && patience != Patience::None => {
                    let since: &mut Instant = tried_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= link::PATIENCE {
                        return Err(failed_to_send(errno));
                    }
                    if patience.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
                        return Err(SendErrorKind::Full);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                Err(errno) => return Err(failed_to_send(errno)),
            }
        }
    }

    fn wait_for_room(&self, patience: Patience) -> Result<(), SendErrorKind> {
        match patience {
            Patience::None => Err(SendErrorKind::Full),
            Patience::Until(_) | Patience::Endless => match poll::writable(self.as_fd(), patience.deadline()) {
                Ok(true) => Ok(()),
                Ok(false) => Err(SendErrorKind::Full),
                Err(errno) => Err(failed_to_send(errno)),
            },
        }
    }

    #[inline]
    pub(super) fn recv<T: Message>(&self, patience: Patience) -> Result<T, RecvError> {
        let mut scratch = Scratch::take();
        let (bytes, beside) = scratch.packet();
        let packet = self.receive(bytes, beside, patience)?;
        let (kind, len) = read_head(&bytes[..packet.len])?;
        let received = if packet.lost {
            Received::lost(packet::MOST_DESCRIPTORS, Errno::EMFILE.desc())
        } else {
            Received::new(packet.descriptors)
        };
        match &bytes[HEAD..packet.len] {
            message if kind == PACKET && message.len() == len => Ok(of_message(message, &received)?),
            _ => Err(broken()),
        }
    }

    fn receive(&self, bytes: &mut [u8], beside: &mut [u8], patience: Patience) -> Result<Packet, RecvError> {
        loop {
            match packet::receive(self.as_fd(), bytes, beside, patience == Patience::Endless) {
                Ok(Packet { len: 0, .. }) => return Err(RecvError::Disconnected),
                Ok(packet) => return Ok(packet),
                // The other side has gone without reading all that we sent; what it sent itself comes next.
                Err(Errno::ECONNRESET) => {}
                Err(Errno::EAGAIN) if patience == Patience::None => return Err(RecvError::Empty),
                Err(Errno::EAGAIN) => match poll::readable([self.as_fd()], patience.deadline()) {
                    Ok([true]) => {}
                    Ok([false]) => return Err(RecvError::Empty),
                    Err(errno) => return Err(failed_to_receive(errno)),
                },
                Err(errno) => return Err(failed_to_receive(errno)),
            }
        }
    }
}

impl AsFd for Local {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Handle for Local {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn may_linger(&self) -> bool {
        false
    }

    fn is_end(&self) -> bool {
        true
    }
}

fn head(kind: u64, len: usize) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&kind.to_ne_bytes());
    head[8..].copy_from_slice(&(len as u64).to_ne_bytes());
    head
}

fn read_head(packet: &[u8]) -> Result<(u64, usize), RecvError> {
    let (kind, rest) = packet.split_first_chunk().ok_or_else(broken)?;
    let len = u64::from_ne_bytes(*rest.first_chunk().ok_or_else(broken)?);
    Ok((u64::from_ne_bytes(*kind), usize::try_from(len).map_err(|_| broken())?))
}

#[cold]
fn broken() -> RecvError {
    RecvError::Failed {
        step: "read a message, which the other side did not write as one,",
        errno: Errno::EPROTO as i32,
    }
}

#[cold]
fn failed_to_receive(errno: Errno) -> RecvError {
    RecvError::Failed { step: "receive a message", errno: errno as i32 }
}

#[cold]
fn failed_to_send(errno: Errno) -> SendErrorKind {
    SendErrorKind::Failed { step: "send a message", errno: errno as i32 }
}
