//! One end of a connection.
//!
//! Owns: [`Connection`]. Runs in: any process. Never: loses the value of a message that was not sent.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::local::Local;
use super::transport::{Patience, Remote, Transport};
use crate::channel::error::channel_failed;
use crate::channel::{RecvError, SendError};
use crate::codec::handles::{self, Handle};
use crate::codec::{CodecError, Message};
use crate::error::Result;
use crate::sys::{self, socket};

/// One end of a connection, which sends `A` and receives `B`.
pub struct Connection<A, B> {
    transport: Transport,
    types: PhantomData<fn(A) -> B>,
}

/// What is never sent, so that a connection goes one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {}

/// The sending end of a connection that goes one way.
pub type Sender<T> = Connection<T, Nothing>;

/// The receiving end of a connection that goes one way.
pub type Receiver<T> = Connection<Nothing, T>;

/// Makes two ends: one sends `A` and receives `B`, the other does the reverse.
///
/// # Errors
/// No more descriptors can be had.
#[doc(alias = "Pipe")]
pub fn pipe<A: Message, B: Message>() -> Result<(Connection<A, B>, Connection<B, A>)> {
    ends()
}

/// Makes a sending and a receiving end.
///
/// # Errors
/// No more descriptors can be had.
pub fn one_way<T: Message>() -> Result<(Sender<T>, Receiver<T>)> {
    ends()
}

fn ends<A, B>() -> Result<(Connection<A, B>, Connection<B, A>)> {
    let (one, other) = socket::pair().map_err(|errno| channel_failed("make a socket pair", errno))?;
    let of = |socket| Connection::local(socket).map_err(|errno| channel_failed("ask a socket for its size", errno));
    let other = Connection::local(other).map_err(|errno| channel_failed("ask a socket for its size", errno))?;
    Ok((of(one)?, other))
}

impl<A, B> Connection<A, B> {
    /// Over a socket of this machine, of kind `SOCK_SEQPACKET`, whose other end belongs to a [`Connection`], too.
    pub(crate) fn local(socket: OwnedFd) -> sys::Result<Self> {
        Local::new(socket).map(|local| Self::over(Transport::Local(Arc::new(local))))
    }

    /// Over something that reaches further.
    #[expect(dead_code, reason = "only features make one")]
    pub(crate) fn remote(remote: Arc<dyn Remote>) -> Self {
        Self::over(Transport::Remote(remote))
    }

    fn over(transport: Transport) -> Self {
        Self { transport, types: PhantomData }
    }
}

impl<A: Message, B> Connection<A, B> {
    /// Sends a message, as soon as there is room.
    ///
    /// # Errors
    /// The other end is gone, or the message cannot be encoded; it is inside.
    pub fn send(&self, message: A) -> std::result::Result<(), SendError<A>> {
        self.send_within(message, Patience::Endless)
    }

    /// Sends a message if there is room now.
    ///
    /// # Errors
    /// As [`send`](Self::send); there is no room.
    pub fn try_send(&self, message: A) -> std::result::Result<(), SendError<A>> {
        self.send_within(message, Patience::None)
    }

    /// As [`send`](Self::send), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`send`](Self::send); there was no room.
    pub fn send_timeout(&self, message: A, timeout: Duration) -> std::result::Result<(), SendError<A>> {
        self.send_within(message, Patience::of(timeout))
    }

    #[inline]
    fn send_within(&self, message: A, patience: Patience) -> std::result::Result<(), SendError<A>> {
        self.transport.send(&message, patience).map_err(|kind| SendError::new(kind, message))
    }
}

impl<A, B: Message> Connection<A, B> {
    /// Receives the next message, as soon as it is there.
    ///
    /// # Errors
    /// The other end is gone; the message cannot be decoded.
    pub fn recv(&self) -> std::result::Result<B, RecvError> {
        self.transport.recv(Patience::Endless)
    }

    /// Receives the next message if it is there.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); there is none.
    pub fn try_recv(&self) -> std::result::Result<B, RecvError> {
        self.transport.recv(Patience::None)
    }

    /// As [`recv`](Self::recv), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); there was none.
    pub fn recv_timeout(&self, timeout: Duration) -> std::result::Result<B, RecvError> {
        self.transport.recv(Patience::of(timeout))
    }

    /// Whether a message, or the end, is there; waits for it at most `timeout`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn poll(&self, timeout: Duration) -> Result<bool> {
        self.transport.poll(Patience::of(timeout)).map_err(|errno| channel_failed("wait for a message", errno))
    }
}

impl<A, B> AsFd for Connection<A, B> {
    /// What is readable when a message, or the end, is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

impl<A, B> fmt::Debug for Connection<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("over", &self.transport).finish_non_exhaustive()
    }
}

impl<A, B> Serialize for Connection<A, B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let index = match &self.transport {
            Transport::Local(local) => handles::put(Arc::clone(local) as Arc<dyn Handle>),
            Transport::Remote(_) => Err(CodecError::new("a connection to another machine cannot travel")),
        };
        index.map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de, A, B> Deserialize<'de> for Connection<A, B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let local = handles::take(u32::deserialize(deserializer)?, Local::arrived).map_err(D::Error::custom)?;
        Ok(Self::over(Transport::Local(local)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_both_ways() {
        let (one, other) = pipe::<u32, String>().unwrap();
        one.send(7).unwrap();
        other.send("seven".to_owned()).unwrap();
        assert_eq!((other.recv(), one.recv()), (Ok(7), Ok("seven".to_owned())));
        assert_eq!(one.try_recv(), Err(RecvError::Empty));
        drop(other);
        assert_eq!(one.recv_timeout(Duration::from_secs(1)), Err(RecvError::Disconnected));
        assert_eq!(one.send(9).unwrap_err().into_inner(), 9);
    }

    #[test]
    fn an_end_goes_through_another() {
        let (sender, receiver) = one_way::<Sender<u32>>().unwrap();
        let (number, numbers) = one_way().unwrap();
        sender.send(number).unwrap();
        receiver.recv().unwrap().send(7).unwrap();
        assert_eq!((numbers.recv(), numbers.recv()), (Ok(7), Err(RecvError::Disconnected)));
    }
}
