//! Why something did not go into a channel, which comes back then, or did not come out of one.
//!
//! Owns: the errors of queues and connections, and how they become an [`Error`]. Runs in: any process.
//! Never: keeps what the caller wanted to hand over.

use std::fmt;

use crate::codec::CodecError;
use crate::error::{Direction, Error, ErrorKind, Execution};
use crate::sys::Errno;

/// An error that gives back what was to be handed over.
macro_rules! giving_back {
    ($(#[$doc:meta])* $Error:ident, $Kind:ident) => {
        $(#[$doc])*
        pub struct $Error<T> {
            kind: $Kind,
            value: T,
        }

        impl<T> $Error<T> {
            pub(crate) fn new(kind: $Kind, value: T) -> Self {
                Self { kind, value }
            }

            /// What went wrong.
            #[must_use]
            pub fn kind(&self) -> &$Kind {
                &self.kind
            }

            /// What was to be handed over, as it was.
            #[must_use]
            pub fn into_inner(self) -> T {
                self.value
            }
        }

        impl<T> fmt::Display for $Error<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Error::from(self.kind.clone()).fmt(f)
            }
        }

        impl<T> fmt::Debug for $Error<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Error)).field("kind", &self.kind).finish_non_exhaustive()
            }
        }

        impl<T> std::error::Error for $Error<T> {}

        impl<T> From<$Error<T>> for Error {
            /// The value is dropped.
            fn from(error: $Error<T>) -> Self {
                Self::from(error.kind)
            }
        }
    };
}

giving_back! {
    /// Why a queue did not take an item, which is inside.
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::{PutErrorKind, Queue};
    ///
    /// let queue = Queue::bounded(1)?;
    /// queue.send("first".to_owned())?;
    /// let error = queue.try_send("second".to_owned()).unwrap_err();
    /// assert_eq!(*error.kind(), PutErrorKind::Full);
    /// assert_eq!(error.into_inner(), "second");
    /// # process_task::Result::Ok(())
    /// ```
    PutError, PutErrorKind
}

giving_back! {
    /// Why a connection did not take a message, which is inside.
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::{SendErrorKind, one_way};
    ///
    /// let (sender, receiver) = one_way::<String>()?;
    /// drop(receiver);
    /// let error = sender.send("hello".to_owned()).unwrap_err();
    /// assert_eq!(*error.kind(), SendErrorKind::Disconnected);
    /// assert_eq!(error.into_inner(), "hello");
    /// # process_task::Result::Ok(())
    /// ```
    SendError, SendErrorKind
}

/// The kinds of [`PutError`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PutErrorKind {
    /// There was no room, as long as the caller was ready to wait.
    Full,
    /// The queue is closed, or every consumer is gone, in every process.
    #[doc(alias = "ShutDown")]
    Closed,
    /// The item alone is longer than all that the queue may hold.
    #[non_exhaustive]
    TooLong {
        /// How long it is, in bytes.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The item could not be turned into bytes.
    #[non_exhaustive]
    CannotEncode {
        /// What the serialiser said.
        reason: String,
    },
    /// The kernel refused what was needed, such as memory.
    #[non_exhaustive]
    Failed {
        /// What was being done.
        step: &'static str,
        /// The error number of the kernel.
        errno: i32,
    },
}

/// The kinds of [`SendError`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// There was no room, as long as the caller was ready to wait.
    Full,
    /// The other end is gone: dropped, or its process has died.
    #[doc(alias = "BrokenPipeError")]
    Disconnected,
    /// The message is longer than the connection carries.
    #[non_exhaustive]
    TooLong {
        /// How long it is, in bytes.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The message could not be turned into bytes.
    #[non_exhaustive]
    CannotEncode {
        /// What the serialiser said.
        reason: String,
    },
    /// The kernel refused what was needed, such as memory.
    #[non_exhaustive]
    Failed {
        /// What was being done.
        step: &'static str,
        /// The error number of the kernel.
        errno: i32,
    },
}

/// Why no item came out of a queue.
///
/// # Examples
/// ```
/// use process_task::channel::{GetError, Queue};
///
/// let queue = Queue::<u32>::unbounded()?;
/// assert_eq!(queue.try_recv(), Err(GetError::Empty));
/// queue.close();
/// assert_eq!(queue.try_recv(), Err(GetError::Closed));
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetError {
    /// There was none, as long as the caller was ready to wait.
    Empty,
    /// There is none left, and none will come: the queue is closed, or every producer is gone, in every process.
    Closed,
    /// One came, but no value could be made of it. It is gone.
    #[non_exhaustive]
    CannotDecode {
        /// What the deserialiser said.
        reason: String,
    },
    /// The kernel refused what was needed, such as room for a descriptor. The item is still there.
    #[non_exhaustive]
    Failed {
        /// What was being done.
        step: &'static str,
        /// The error number of the kernel.
        errno: i32,
    },
    /// The queue's memory was written over by a process that has no business there.
    #[non_exhaustive]
    Corrupt {
        /// What is wrong.
        reason: &'static str,
    },
}

/// Why no message came out of a connection.
///
/// # Examples
/// ```
/// use process_task::channel::{RecvError, one_way};
///
/// let (sender, receiver) = one_way::<u32>()?;
/// assert_eq!(receiver.try_recv(), Err(RecvError::Empty));
/// sender.send(7)?;
/// drop(sender);
/// assert_eq!(receiver.recv(), Ok(7));
/// assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvError {
    /// There was none, as long as the caller was ready to wait.
    Empty,
    /// The other end is gone, dropped or with its process, and everything that it sent was read.
    #[doc(alias = "EOFError")]
    Disconnected,
    /// One came, but no value could be made of it. It is gone.
    #[non_exhaustive]
    CannotDecode {
        /// What the deserialiser said.
        reason: String,
    },
    /// The kernel refused what was needed, or the other side broke the rules of the connection.
    #[non_exhaustive]
    Failed {
        /// What was being done.
        step: &'static str,
        /// The error number of the kernel.
        errno: i32,
    },
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, Execution::NotStarted)
}

fn failed(step: &'static str, errno: i32) -> Error {
    error(ErrorKind::ChannelFailed { step: step.to_owned(), errno })
}

fn cannot_encode(reason: String) -> Error {
    error(ErrorKind::CannotEncode { direction: Direction::Message, reason })
}

fn cannot_decode(reason: String) -> Error {
    error(ErrorKind::CannotDecode { direction: Direction::Message, reason })
}

fn too_long(bytes: usize, limit: usize) -> Error {
    cannot_encode(format!("it is {bytes} bytes long, and at most {limit} fit"))
}

/// A channel could not be made, or not be used: `step` was refused with `errno`.
pub(crate) fn channel_failed(step: &'static str, errno: Errno) -> Error {
    failed(step, errno as i32)
}

impl From<PutErrorKind> for Error {
    fn from(kind: PutErrorKind) -> Self {
        match kind {
            PutErrorKind::Full => error(ErrorKind::Full),
            PutErrorKind::Closed => error(ErrorKind::QueueClosed),
            PutErrorKind::TooLong { bytes, limit } => too_long(bytes, limit),
            PutErrorKind::CannotEncode { reason } => cannot_encode(reason),
            PutErrorKind::Failed { step, errno } => failed(step, errno),
        }
    }
}

impl From<SendErrorKind> for Error {
    fn from(kind: SendErrorKind) -> Self {
        match kind {
            SendErrorKind::Full => error(ErrorKind::Full),
            SendErrorKind::Disconnected => error(ErrorKind::Disconnected),
            SendErrorKind::TooLong { bytes, limit } => too_long(bytes, limit),
            SendErrorKind::CannotEncode { reason } => cannot_encode(reason),
            SendErrorKind::Failed { step, errno } => failed(step, errno),
        }
    }
}

impl From<GetError> for Error {
    fn from(of: GetError) -> Self {
        match of {
            GetError::Empty => error(ErrorKind::Empty),
            GetError::Closed => error(ErrorKind::QueueClosed),
            GetError::CannotDecode { reason } => cannot_decode(reason),
            GetError::Failed { step, errno } => failed(step, errno),
            GetError::Corrupt { reason } => error(ErrorKind::ProtocolViolation { reason: reason.to_owned() }),
        }
    }
}

impl From<RecvError> for Error {
    fn from(of: RecvError) -> Self {
        match of {
            RecvError::Empty => error(ErrorKind::Empty),
            RecvError::Disconnected => error(ErrorKind::Disconnected),
            RecvError::CannotDecode { reason } => cannot_decode(reason),
            RecvError::Failed { step, errno } => failed(step, errno),
        }
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Error::from(self.clone()).fmt(f)
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Error::from(self.clone()).fmt(f)
    }
}

impl std::error::Error for GetError {}
impl std::error::Error for RecvError {}

macro_rules! of_codec {
    ($($Error:ident::$Variant:ident)*) => { $(
        impl From<CodecError> for $Error {
            fn from(error: CodecError) -> Self {
                Self::$Variant { reason: error.to_string() }
            }
        }
    )* };
}
of_codec!(PutErrorKind::CannotEncode SendErrorKind::CannotEncode GetError::CannotDecode RecvError::CannotDecode);
