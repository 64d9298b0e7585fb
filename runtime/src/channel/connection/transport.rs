//! The transport of a connection: a local socket, or a remote one.
//!
//! Owns: the seam between the two. Runs in: any process.
//! Never: looks into a message. It takes bytes, and gives the same bytes, whole.

use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use super::scratch::Scratch;
use super::seqpacket::SeqPacket;
use crate::channel::error::{NotSent, TryRecvError};
use crate::codec::handles::Received;
use crate::codec::message_format::{of_message, to_message};
use crate::codec::{CodecError, Encoded, Message, Spill};
use crate::sync::deadline::Deadline;
use crate::sys::{self, poll, socket};

/// What carries messages further than a socket of this machine: as bytes, without handles.
///
/// Called from any number of threads at a time; two of them may receive, and each gets a message of its own.
pub(crate) trait Remote: fmt::Debug + Send + Sync + UnwindSafe + RefUnwindSafe {
    /// The most bytes that a message may have.
    fn longest(&self) -> usize;

    /// Sends a message of at most [`longest`](Self::longest) bytes, whole.
    ///
    /// # Errors
    /// `NotSent::Full` if it would have to wait longer than `deadline`, and then nothing was sent;
    /// `NotSent::Disconnected`; `NotSent::Failed`.
    fn send_bytes(&self, bytes: &[u8], deadline: Deadline) -> Result<(), NotSent>;

    /// Receives a message into `bytes`, which is what it consists of afterwards.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] if none came as long as `deadline` lasts; [`TryRecvError::Disconnected`]; [`TryRecvError::Failed`].
    fn recv_bytes(&self, bytes: &mut Vec<u8>, deadline: Deadline) -> Result<(), TryRecvError>;

    /// Whether a message, or the end, is there; waits for it as long as `deadline` lasts.
    ///
    /// # Errors
    /// The kernel refuses.
    fn poll(&self, deadline: Deadline) -> sys::Result<bool>;

    /// What is readable when there may be a message, or the end.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// Sets the most bytes that a message may have, in each direction.
    fn set_longest(&self, bytes: usize);

    /// Number of bytes that have come, and that have left.
    fn traffic(&self) -> (u64, u64);

    /// Ends both directions at once: threads that send or receive find the connection closed.
    fn shut_down(&self);
}

/// What carries the messages of a connection.
#[derive(Clone, Debug)]
pub(super) enum Transport {
    /// A socket of this machine.
    Local(Arc<SeqPacket>),
    /// Something that reaches further.
    Remote(Arc<dyn Remote>),
}

impl Transport {
    /// Sends a message.
    #[inline]
    pub(super) fn send<T: Message>(&self, value: &T, deadline: Deadline) -> Result<(), NotSent> {
        match self {
            Self::Local(local) => local.send(value, deadline),
            Self::Remote(remote) => send_far(&**remote, value, deadline),
        }
    }

    /// Receives a message.
    #[inline]
    pub(super) fn recv<T: Message>(&self, deadline: Deadline) -> Result<T, TryRecvError> {
        match self {
            Self::Local(local) => local.recv(deadline),
            Self::Remote(remote) => recv_far(&**remote, deadline),
        }
    }

    /// Sets the most bytes that a message may have: one of those that come, and over the network also one that is sent.
    pub(super) fn set_longest(&self, bytes: usize) {
        match self {
            Self::Local(local) => local.set_longest(bytes),
            Self::Remote(remote) => remote.set_longest(bytes),
        }
    }

    /// Number of bytes that have come, and that have left. `None`: the kernel knows when the other end is gone.
    pub(super) fn traffic(&self) -> Option<(u64, u64)> {
        match self {
            Self::Local(_) => None,
            Self::Remote(remote) => Some(remote.traffic()),
        }
    }

    /// Ends both directions at once.
    pub(super) fn shut_down(&self) {
        match self {
            Self::Local(local) => socket::shut_down(local.as_fd()),
            Self::Remote(remote) => remote.shut_down(),
        }
    }

    /// Whether a message, or the end, is there; waits for it as long as `deadline` lasts.
    pub(super) fn poll(&self, deadline: Deadline) -> sys::Result<bool> {
        match self {
            Self::Local(local) => Ok(poll::readable([local.as_fd()], deadline.instant())? == [true]),
            Self::Remote(remote) => remote.poll(deadline),
        }
    }

    /// What is readable when there may be a message, or the end.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Local(local) => local.as_fd(),
            Self::Remote(remote) => remote.as_fd(),
        }
    }
}

/// Memory that never grows, and remembers that it should have.
struct NotSendable(Option<usize>);

impl Spill for NotSendable {
    fn grow(&mut self, _: usize, capacity: usize) -> std::io::Result<()> {
        self.0 = Some(capacity);
        Err(std::io::ErrorKind::FileTooLarge.into())
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut []
    }
}

fn send_far<T: Message>(remote: &dyn Remote, value: &T, deadline: Deadline) -> Result<(), NotSent> {
    let (limit, mut scratch, mut spill) = (remote.longest(), Scratch::take(), NotSendable(None));
    let encoded = to_message(value, scratch.take_buffer(), (limit, &mut spill));
    let (payload, handles) = encoded.map_err(|error| match spill.0 {
        Some(bytes) => NotSent::too_long(bytes, limit),
        None => error.into(),
    })?;
    if !handles.is_empty() {
        return Err(
            CodecError::new("what processes share cannot go to another machine; send a copy of the value").into()
        );
    }
    let Encoded::Small(bytes) = payload else { return Err(CodecError::new("it does not fit").into()) };
    let sent = remote.send_bytes(&bytes, deadline);
    scratch.put_back(bytes);
    sent
}

fn recv_far<T: Message>(remote: &dyn Remote, deadline: Deadline) -> Result<T, TryRecvError> {
    let mut scratch = Scratch::take();
    let mut bytes = scratch.take_buffer();
    let value = remote.recv_bytes(&mut bytes, deadline).and_then(|()| Ok(of_message(&bytes, &Received::default())?));
    scratch.put_back(bytes);
    value
}
