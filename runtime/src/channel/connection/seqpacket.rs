//! A `SOCK_SEQPACKET` socket: packets that arrive whole or not at all, with descriptors beside them.
//!
//! Owns: [`SeqPacket`], one end. Runs in: any process. Invariant: a packet is checked against what came before it is used.
//!
//! Why `ETOOMANYREFS` is tried again for a second, from both ends: the kernel counts descriptors under way. A user
//! may have no more of them in sockets than one process may have open, all its processes together.
//!
//! # A packet
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 7 | [`WHOLE`]: the message follows; [`PARCEL`]: it is in the parcel, and that one's descriptor comes first |
//! | 8 to 15 | how long the message is |
//! | 16 to the end | the message, if it follows |
//!
//! The handles of the message are beside it, in order. A socket with a name joins processes that share no ancestor, to which
//! handles mean nothing: none go, and those that come are closed. An empty message is a packet all the same: only the end of the
//! connection is none.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use super::parcel::{IncomingBuffers, MessageWriter, OutgoingBuffers, ROOM_CHECK_INTERVAL};
use super::scratch::Scratch;
use crate::channel::error::{NotSent, TryRecvError};
use crate::codec::handles::{Handle, Handles, Received};
use crate::codec::message_format::{of_message, to_message};
use crate::codec::{CodecError, Encoded, Message};
use crate::link;
use crate::sync::deadline::Deadline;
use crate::sys::packet::{self, Packet};
use crate::sys::{self, Errno, poll};

/// How long a packet's head is.
pub(super) const HEAD: usize = 16;

/// The longest message that goes as one packet.
pub(super) const MAX_PACKET_BYTES: usize = 32 << 10;

/// The most handles of one message: a parcel may go beside them.
const MOST_HANDLES: usize = packet::MOST_DESCRIPTORS - 1;

/// The message follows.
const WHOLE: u64 = u64::from_ne_bytes(*b"pt whole");

/// The message is in a parcel.
const PARCEL: u64 = u64::from_ne_bytes(*b"ptparcel");

/// One end of a socket.
#[derive(Debug)]
pub(crate) struct SeqPacket {
    socket: OwnedFd,
    /// The longest message that goes as one packet here.
    longest: usize,
    /// The longest message that is received.
    longest_incoming: AtomicUsize,
    /// The other end belongs to a process of another family.
    is_named: bool,
    outgoing: OutgoingBuffers,
    incoming: IncomingBuffers,
}

impl SeqPacket {
    /// An end of a socket that was made for this, here or in another process.
    pub(super) fn new(socket: OwnedFd) -> sys::Result<Self> {
        let longest = packet::longest(&socket)?.saturating_sub(HEAD).min(MAX_PACKET_BYTES);
        let is_named = packet::has_name(socket.as_fd());
        Ok(Self {
            socket,
            longest,
            longest_incoming: AtomicUsize::new(usize::MAX),
            is_named,
            outgoing: OutgoingBuffers::default(),
            incoming: IncomingBuffers::default(),
        })
    }

    /// An end that came from another process.
    pub(super) fn arrived(descriptor: OwnedFd) -> Result<Arc<Self>, CodecError> {
        let corrupt = || CodecError::new("the payload is corrupt: what came with it is no end of a connection");
        if !packet::is_one(descriptor.as_fd()) {
            return Err(corrupt());
        }
        Ok(Arc::new(Self::new(descriptor).map_err(|_| corrupt())?))
    }

    /// Sets the most bytes of a message that is received. A longer one is an error, and costs no memory.
    pub(super) fn set_longest(&self, bytes: usize) {
        self.longest_incoming.store(bytes, Relaxed);
    }

    #[inline]
    pub(super) fn send<T: Message>(&self, value: &T, deadline: Deadline) -> Result<(), NotSent> {
        let mut scratch = Scratch::take();
        let mut filling = MessageWriter::new(&self.outgoing, self.as_fd(), deadline);
        let encoded = to_message(value, scratch.take_buffer(), (self.longest, &mut filling));
        let (payload, handles) = match encoded {
            Ok(encoded) => encoded,
            Err(error) => return Err(filling.failure.take().unwrap_or_else(|| error.into())),
        };
        match payload {
            Encoded::Small(bytes) => {
                let sent = self.send_packet((WHOLE, bytes.len()), &bytes, (None, &handles), deadline);
                scratch.put_back(bytes);
                self.outgoing.short();
                sent
            }
            Encoded::Spilled(len) => {
                filling.sent(|parcel| self.send_packet((PARCEL, len), &[], (Some(parcel.as_fd()), &handles), deadline))
            }
        }
    }

    fn send_packet(
        &self,
        (kind, len): (u64, usize),
        bytes: &[u8],
        (parcel, handles): (Option<BorrowedFd<'_>>, &Handles),
        deadline: Deadline,
    ) -> Result<(), NotSent> {
        if self.is_named && !handles.is_empty() {
            return Err(CodecError::new(STRANGERS).into());
        }
        if handles.len() > MOST_HANDLES {
            return Err(CodecError::new(format!(
                "more than {MOST_HANDLES} handles cannot go with one message; send several messages"
            ))
            .into());
        }
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&kind.to_ne_bytes());
        head[8..].copy_from_slice(&(len as u64).to_ne_bytes());
        if parcel.is_none() && handles.is_empty() {
            return self.send_parts((&head, bytes), &[], deadline);
        }
        let descriptors: Vec<_> = parcel.into_iter().chain(handles.descriptors()).collect();
        self.send_parts((&head, bytes), &descriptors, deadline)
    }

    fn send_parts(
        &self,
        parts: (&[u8], &[u8]),
        descriptors: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), NotSent> {
        let mut tried_since = None;
        loop {
            match packet::send(self.as_fd(), parts, descriptors) {
                Ok(()) => return Ok(()),
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN | Errno::ECONNREFUSED) => {
                    return Err(NotSent::Disconnected(()));
                }
                Err(Errno::EAGAIN) => self.wait_for_room(deadline)?,
                Err(Errno::ETOOMANYREFS) if deadline == Deadline::Now => return Err(NotSent::Full(())),
                Err(errno) if link::is_temporary(errno) && deadline != Deadline::Now => {
                    let since: &mut Instant = tried_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= link::FD_RETRY_TIME {
                        return Err(failed_to_send(errno));
                    }
                    if deadline.is_over() {
                        return Err(NotSent::Full(()));
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                Err(errno) => return Err(failed_to_send(errno)),
            }
        }
    }

    /// Waits until there may be room. The kernel says so only once three quarters are free, and a reader of half may now
    /// wait for this side: so it is tried again every so often.
    fn wait_for_room(&self, deadline: Deadline) -> Result<(), NotSent> {
        if deadline.is_over() {
            return Err(NotSent::Full(()));
        }
        let again = Instant::now() + ROOM_CHECK_INTERVAL;
        let until = deadline.instant().map_or(again, |deadline| deadline.min(again));
        poll::writable(self.as_fd(), Some(until)).map(drop).map_err(failed_to_send)
    }

    #[inline]
    pub(super) fn recv<T: Message>(&self, deadline: Deadline) -> Result<T, TryRecvError> {
        let mut scratch = Scratch::take();
        let (bytes, beside) = scratch.packet();
        let Packet { len, descriptors, lost } = self.receive(bytes, beside, deadline)?;
        let (kind, message) = read_head(&bytes[..len])?;
        match &bytes[HEAD..len] {
            bytes if kind == WHOLE && bytes.len() == message => {
                self.incoming.short();
                let received = if lost { lost_handles() } else { self.received(descriptors) };
                Ok(of_message(bytes, &received)?)
            }
            [] if kind == PARCEL => self.recv_parcel(message, descriptors, lost),
            _ => Err(broken()),
        }
    }

    #[cold]
    fn recv_parcel<T: Message>(&self, len: usize, mut beside: Vec<OwnedFd>, lost: bool) -> Result<T, TryRecvError> {
        if lost {
            return Err(CodecError::new(format!("it could not be received: {NO_ROOM}")).into());
        }
        if len > self.longest_incoming.load(Relaxed) {
            return Err(TryRecvError::failed("receive a message that is longer than allowed", Errno::EMSGSIZE));
        }
        if beside.is_empty() {
            return Err(broken());
        }
        let parcel = beside.remove(0);
        let opened = self.incoming.open(parcel, len);
        let message = opened.map_err(|errno| TryRecvError::failed("map a long message", errno))?;
        Ok(of_message(message.bytes(), &self.received(beside))?)
    }

    #[inline]
    fn received(&self, descriptors: Vec<OwnedFd>) -> Received {
        if self.is_named && !descriptors.is_empty() {
            return Received::lost(descriptors.len(), STRANGERS);
        }
        Received::new(descriptors)
    }

    fn receive(&self, bytes: &mut [u8], beside: &mut [u8], deadline: Deadline) -> Result<Packet, TryRecvError> {
        loop {
            match packet::receive(self.as_fd(), bytes, beside, deadline == Deadline::Never) {
                Ok(Packet { len: 0, .. }) => {
                    self.incoming.clear();
                    return Err(TryRecvError::Disconnected);
                }
                Ok(packet) => return Ok(packet),
                // The other side has gone without reading all that we sent; what it sent itself comes next.
                Err(Errno::ECONNRESET) => {}
                Err(Errno::EAGAIN) if deadline == Deadline::Now => return Err(TryRecvError::Empty),
                Err(Errno::EAGAIN) => match poll::readable([self.as_fd()], deadline.instant()) {
                    Ok([true]) => {}
                    Ok([false]) => return Err(TryRecvError::Empty),
                    Err(errno) => return Err(failed_to_receive(errno)),
                },
                Err(errno) => return Err(failed_to_receive(errno)),
            }
        }
    }
}

impl AsFd for SeqPacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Handle for SeqPacket {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn is_cacheable(&self) -> bool {
        false
    }

    fn is_end(&self) -> bool {
        true
    }
}

/// What is said of handles that could not be received.
const NO_ROOM: &str = "this process has as many descriptors open as it may";

/// What is said of handles that would go to a process of another family, or came from one.
const STRANGERS: &str = "what processes share goes to those that have it from a common ancestor, and not to a process that \
     connected; send a copy of the value";

#[cold]
fn lost_handles() -> Received {
    Received::lost(packet::MOST_DESCRIPTORS, NO_ROOM)
}

fn read_head(packet: &[u8]) -> Result<(u64, usize), TryRecvError> {
    let (kind, rest) = packet.split_first_chunk().ok_or_else(broken)?;
    let len = u64::from_ne_bytes(*rest.first_chunk().ok_or_else(broken)?);
    Ok((u64::from_ne_bytes(*kind), usize::try_from(len).map_err(|_| broken())?))
}

#[cold]
fn broken() -> TryRecvError {
    TryRecvError::failed("read a message: what came was not sent by a `Connection`", Errno::EPROTO)
}

#[cold]
fn failed_to_receive(errno: Errno) -> TryRecvError {
    TryRecvError::failed("receive a message", errno)
}

#[cold]
fn failed_to_send(errno: Errno) -> NotSent {
    NotSent::failed("send a message", errno)
}
