//! One end of a connection.
//!
//! Owns: [`Connection`]. Runs in: any process. Never: loses the value of a message that was not sent.

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::seqpacket::SeqPacket;
use super::transport::{Remote, Transport};
use crate::channel::error::channel_failed;
use crate::channel::{RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError};
use crate::codec::handles::{self, Handle};
use crate::codec::{CodecError, Message};
use crate::error::Result;
use crate::sync::deadline::Deadline;
use crate::sys::{self, socket};

/// One end of a connection: it sends `A` and receives `B`.
///
/// Made by [`pipe`] and [`one_way`]. Messages arrive whole, in order, and one by one, however long they are. What the other end
/// sent is kept until it is received, also when that end is gone by then.
///
/// An end can be an argument or a result of a task, and a message of another connection, with or without messages in it
/// that have not been received yet. What a message holds may be ends, too, and [`Shared`](crate::Shared) memory: 252 of
/// them at most.
///
/// Threads may use one end at the same time; each message goes to one of them. An end is not `Clone`: that the other end is
/// gone says something only where each end has one holder. A caller that passes a reference to a task shows its end to it,
/// and both have it until the task is done.
///
/// # How much fits
///
/// A sender waits where there is no room: for some hundred short messages, which lie in the kernel's buffers, or for eight that
/// are longer than 32 KiB, in shared memory of 64 MiB at most. A message of any length fits where no other long one is waiting.
/// Two processes that both send, and receive only then, may wait for each other for ever:
/// [`send_timeout`](Self::send_timeout) and [`try_send`](Self::try_send) give the message back instead.
///
/// That shared memory is used again by the next long messages. It is given back when 100 short ones have followed, or the end
/// is dropped; if a message is longer than 64 MiB, as soon as it has been received.
///
/// # Examples
/// ```
/// use process_task::channel::{Connection, pipe};
/// use process_task::process_task;
///
/// #[process_task]
/// fn measure(words: Connection<usize, String>) -> usize {
///     let mut count = 0;
///     for word in &words {
///         words.send(word.unwrap().len()).unwrap();
///         count += 1;
///     }
///     count
/// }
///
/// let (mine, theirs) = pipe::<String, usize>()?;
/// let process = measure.spawn(theirs);
/// mine.send("hello".to_owned())?;
/// assert_eq!(mine.recv()?, 5);
/// drop(mine);                                              // the end, for the other one
/// assert_eq!(process.join()?, 1);
/// # process_task::Result::Ok(())
/// ```
///
/// # If the other process dies
/// What it had sent is received, each message whole; then comes [`Disconnected`](RecvError::Disconnected). A message that it was
/// sending when it died never was. Sending to it gives the message back; messages that it had not received are lost with it.
///
/// A caller that gave an end to a task keeps a copy of it until the call is answered, since the call may have to go to
/// another process. So a death is heard of at once, but an end that a task drops is heard of when the task is done.
pub struct Connection<A, B> {
    transport: Transport,
    types: PhantomData<fn(A) -> B>,
}

/// The sending end of a connection that goes one way: it receives [`Infallible`], of which there are no values.
///
/// `Infallible` is no [`Message`], so a sender cannot receive. The compiler then says that `Infallible` does not satisfy
/// `Message`:
///
/// ```compile_fail,E0599
/// # use process_task::channel::one_way;
/// let (sender, receiver) = one_way::<u32>()?;
/// sender.recv()?;
/// # process_task::Result::Ok(())
/// ```
pub type Sender<T> = Connection<T, Infallible>;

/// The receiving end of a connection that goes one way: it sends [`Infallible`], of which there are no values.
/// So it cannot send:
///
/// ```compile_fail,E0599
/// # use process_task::channel::one_way;
/// let (sender, receiver) = one_way::<u32>()?;
/// receiver.send(7)?;
/// # process_task::Result::Ok(())
/// ```
pub type Receiver<T> = Connection<Infallible, T>;

/// Makes two ends: one sends `A` and receives `B`, the other does the reverse.
///
/// # Examples
/// ```
/// use process_task::channel::pipe;
///
/// let (one, other) = pipe::<u32, String>()?;
/// one.send(7)?;
/// other.send(format!("{} is the number", other.recv()?))?;
/// assert_eq!(one.recv()?, "7 is the number");
/// # process_task::Result::Ok(())
/// ```
///
/// # Errors
/// [`ChannelFailed`](crate::ErrorKind::ChannelFailed): no more descriptors can be had.
#[doc(alias = "Pipe")]
pub fn pipe<A: Message, B: Message>() -> Result<(Connection<A, B>, Connection<B, A>)> {
    ends()
}

/// Makes two ends, of which one sends and one receives.
///
/// # Examples
/// ```
/// use process_task::channel::{Sender, one_way};
/// use process_task::process_task;
///
/// #[process_task]
/// fn squares(numbers: Vec<u64>, out: Sender<u64>) {
///     numbers.iter().for_each(|number| out.send(number * number).unwrap());
/// }
///
/// let (sender, receiver) = one_way()?;
/// let process = squares.spawn(vec![1, 2, 3], sender);
/// assert_eq!(receiver.iter().collect::<Result<Vec<_>, _>>()?, [1, 4, 9]);
/// process.join()?;
/// # process_task::Result::Ok(())
/// ```
///
/// # Errors
/// [`ChannelFailed`](crate::ErrorKind::ChannelFailed): no more descriptors can be had.
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
    /// Over a socket of this machine, of kind `SOCK_SEQPACKET`. Its other end belongs to a [`Connection`], too.
    pub(crate) fn local(socket: OwnedFd) -> sys::Result<Self> {
        SeqPacket::new(socket).map(|local| Self::over(Transport::Local(Arc::new(local))))
    }

    /// Over something that reaches further.
    #[cfg_attr(not(feature = "tcp"), expect(dead_code, reason = "only features make one"))]
    pub(crate) fn remote(remote: Arc<dyn Remote>) -> Self {
        Self::over(Transport::Remote(remote))
    }

    fn over(transport: Transport) -> Self {
        Self { transport, types: PhantomData }
    }
}

impl<A: Message, B> Connection<A, B> {
    /// Sends a message, as soon as there is room for it. It need not have been received when this returns.
    ///
    /// # Errors
    /// The message is inside the error.
    /// - [`Disconnected`](SendError::Disconnected): the other end is gone.
    /// - [`Failed`](SendError::Failed): [`CannotEncode`](crate::ErrorKind::CannotEncode), its `Serialize` refuses, or it has
    ///   too many handles; [`TooLong`](crate::ErrorKind::TooLong); or
    ///   [`ChannelFailed`](crate::ErrorKind::ChannelFailed), there is no memory or no descriptor for a long message, or this
    ///   user has more descriptors on their way than may be. Nothing was sent.
    ///
    /// # If the other process dies
    /// Returns `Disconnected`, also if it was waiting for room, within 50 milliseconds of the death.
    #[doc(alias = "send_bytes")]
    pub fn send(&self, message: A) -> std::result::Result<(), SendError<A>> {
        self.send_within(message, Deadline::Never).map_err(TrySendError::without_limit)
    }

    /// Sends a message if there is room for it now.
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::one_way;
    ///
    /// let (sender, _receiver) = one_way()?;
    /// let error = loop {
    ///     if let Err(error) = sender.try_send("again".to_owned()) {
    ///         break error;
    ///     }
    /// };
    /// assert!(error.is_full());
    /// assert_eq!(error.into_inner(), "again");
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Full`](TrySendError::Full): there is no room, or not for its handles.
    ///
    /// # If the other process dies
    /// As [`send`](Self::send).
    pub fn try_send(&self, message: A) -> std::result::Result<(), TrySendError<A>> {
        self.send_within(message, Deadline::Now)
    }

    /// As [`send`](Self::send), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Timeout`](SendTimeoutError::Timeout) when the time is over.
    ///
    /// # If the other process dies
    /// As [`send`](Self::send). One that is only stopped costs the time-out.
    pub fn send_timeout(&self, message: A, timeout: Duration) -> std::result::Result<(), SendTimeoutError<A>> {
        self.send_within(message, Deadline::after(timeout)).map_err(TrySendError::in_time)
    }

    #[inline]
    fn send_within(&self, message: A, deadline: Deadline) -> std::result::Result<(), TrySendError<A>> {
        self.transport.send(&message, deadline).map_err(|refused| refused.with(message))
    }
}

impl<A, B: Message> Connection<A, B> {
    /// Receives the next message, as soon as it is there.
    ///
    /// # Errors
    /// - [`Disconnected`](RecvError::Disconnected): the other end is gone, and everything that it sent was received.
    /// - [`Failed`](RecvError::Failed) with [`CannotDecode`](crate::ErrorKind::CannotDecode): its `Deserialize` refuses, or its
    ///   handles could not be received because this process has as many descriptors open as it may. That message is gone; the
    ///   next one is not.
    /// - `Failed` with [`ChannelFailed`](crate::ErrorKind::ChannelFailed): what came was not sent by a `Connection`, or the
    ///   kernel refuses.
    ///
    /// # If the other process dies
    /// Returns what it had sent, message by message, then `Disconnected`.
    #[doc(alias("recv_bytes", "recv_bytes_into"))]
    pub fn recv(&self) -> std::result::Result<B, RecvError> {
        self.transport.recv(Deadline::Never).map_err(TryRecvError::without_limit)
    }

    /// Receives the next message if it is there.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Empty`](TryRecvError::Empty).
    ///
    /// # If the other process dies
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> std::result::Result<B, TryRecvError> {
        self.transport.recv(Deadline::Now)
    }

    /// As [`recv`](Self::recv), but waits no longer than `timeout`.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use process_task::channel::{RecvTimeoutError, one_way};
    ///
    /// let (_sender, receiver) = one_way::<String>()?;
    /// assert_eq!(receiver.recv_timeout(Duration::from_millis(10)), Err(RecvTimeoutError::Timeout));
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Timeout`](RecvTimeoutError::Timeout) when the time is over.
    ///
    /// # If the other process dies
    /// As [`recv`](Self::recv). One that is only stopped costs the time-out.
    pub fn recv_timeout(&self, timeout: Duration) -> std::result::Result<B, RecvTimeoutError> {
        self.transport.recv(Deadline::after(timeout)).map_err(TryRecvError::in_time)
    }

    /// Sets the most bytes that a message may have: one of those that come, and over the network also one that is sent.
    pub(crate) fn set_longest(&self, bytes: usize) {
        self.transport.set_longest(bytes);
    }

    /// Number of bytes that have come, and that have left. `None`: both ends are on this machine.
    pub(crate) fn traffic(&self) -> Option<(u64, u64)> {
        self.transport.traffic()
    }

    /// Ends both directions at once: threads that send or receive find the connection closed.
    pub(crate) fn shut_down(&self) {
        self.transport.shut_down();
    }

    /// Whether a message, or the end, is there; waits for it no longer than `timeout`. Takes nothing.
    ///
    /// For several connections at once, there is [`wait_readable`](crate::channel::wait_readable).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use process_task::channel::one_way;
    ///
    /// let (sender, receiver) = one_way()?;
    /// assert!(!receiver.is_ready_timeout(Duration::ZERO)?);
    /// sender.send(())?;
    /// assert!(receiver.is_ready_timeout(Duration::from_secs(10))?);
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// [`ChannelFailed`](crate::ErrorKind::ChannelFailed): the kernel refuses.
    ///
    /// # If the other process dies
    /// Its end is there: true.
    #[doc(alias = "poll")]
    pub fn is_ready_timeout(&self, timeout: Duration) -> Result<bool> {
        self.transport.poll(Deadline::after(timeout)).map_err(|errno| channel_failed("wait for a message", errno))
    }
}

impl<A, B> AsFd for Connection<A, B> {
    /// What is readable when a message, or the end, is there: for [`wait_readable`](crate::channel::wait_readable), `poll`
    /// and `epoll`. What is read from it or written to it past the connection breaks the messages on their way.
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
            Transport::Local(local) => handles::attach(Arc::clone(local) as Arc<dyn Handle>),
            Transport::Remote(_) => Err(CodecError::new(
                "a connection to another machine cannot travel; open one in the process that needs it",
            )),
        };
        index.map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de, A, B> Deserialize<'de> for Connection<A, B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let local = handles::open(u32::deserialize(deserializer)?, SeqPacket::arrived).map_err(D::Error::custom)?;
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
        assert_eq!(one.try_recv(), Err(TryRecvError::Empty));
        drop(other);
        assert_eq!(one.recv_timeout(Duration::from_secs(1)), Err(RecvTimeoutError::Disconnected));
        assert_eq!(one.send(9).unwrap_err().into_inner(), 9);
    }

    #[test]
    fn end_goes_to_other_threads_and_survives_panics() {
        fn goes<T: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
        goes::<Connection<std::rc::Rc<u8>, std::cell::Cell<u8>>>();
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
