//! Why a value did not go into a channel, which comes back then, or did not come out of one.
//!
//! Owns: the errors of queues and connections, and how they become an [`Error`]. Runs in: any process.
//!
//! The names are crossbeam's, with one variant more: `Failed`, for what a channel between processes meets and one
//! between threads does not. Inside, only the forms that do not wait are used, [`NotSent`] and [`TryRecvError`]; what users
//! call turns them into the others.

use std::fmt;

use crate::codec::CodecError;
use crate::error::{Direction, Error, ErrorKind, Execution};
use crate::sys::Errno;

/// Why a message or an item was not sent: it is in each variant, and [`into_inner`](Self::into_inner) gives it back.
///
/// # Examples
/// ```
/// use process_task::channel::{SendError, one_way};
///
/// let (sender, receiver) = one_way::<String>()?;
/// drop(receiver);
/// let error = sender.send("hello".to_owned()).unwrap_err();
/// assert_eq!(error, SendError::Disconnected("hello".to_owned()));
/// assert_eq!(error.into_inner(), "hello");
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum SendError<T> {
    /// Every receiver is gone, by drop or with its process, or the queue is closed.
    #[doc(alias("ShutDown", "BrokenPipeError"))]
    Disconnected(T),
    /// It could not be encoded, is [too long](ErrorKind::TooLong), or the kernel refused what was needed, such as memory.
    Failed(T, Error),
}

/// Why a message or an item could not be sent at once: as [`SendError`], or there is no room.
///
/// # Examples
/// ```
/// use process_task::channel::{Queue, TrySendError};
///
/// let queue = Queue::bounded(1)?;
/// queue.try_send(1)?;
/// assert_eq!(queue.try_send(2), Err(TrySendError::Full(2)));
/// queue.close();
/// assert_eq!(queue.try_send(3), Err(TrySendError::Disconnected(3)));
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room now.
    Full(T),
    /// Every receiver is gone, by drop or with its process, or the queue is closed.
    #[doc(alias("ShutDown", "BrokenPipeError"))]
    Disconnected(T),
    /// It could not be encoded, is [too long](ErrorKind::TooLong), or the kernel refused what was needed, such as memory.
    Failed(T, Error),
}

/// Why a message or an item was not sent in time: as [`SendError`], or no room came free.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use process_task::channel::{Queue, SendTimeoutError};
///
/// let queue = Queue::bounded(1)?;
/// queue.send(1)?;
/// assert_eq!(queue.send_timeout(2, Duration::from_millis(1)), Err(SendTimeoutError::Timeout(2)));
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum SendTimeoutError<T> {
    /// No room came free in time.
    #[doc(alias = "Full")]
    Timeout(T),
    /// Every receiver is gone, by drop or with its process, or the queue is closed.
    #[doc(alias("ShutDown", "BrokenPipeError"))]
    Disconnected(T),
    /// It could not be encoded, is [too long](ErrorKind::TooLong), or the kernel refused what was needed, such as memory.
    Failed(T, Error),
}

/// Why nothing was received.
///
/// # Examples
/// ```
/// use process_task::channel::{RecvError, one_way};
///
/// let (sender, receiver) = one_way::<u32>()?;
/// sender.send(7)?;
/// drop(sender);
/// assert_eq!(receiver.recv(), Ok(7));
/// assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// Everything was received, and nothing more will come: every sender is gone, by drop or with its process, or the queue is
    /// closed.
    #[doc(alias("ShutDown", "EOFError"))]
    Disconnected,
    /// What came [cannot be decoded](ErrorKind::CannotDecode), and is gone; or the kernel refused what was needed, such as
    /// room for a descriptor, or the other side broke the rules of the channel. What a queue's kernel refused stays in the queue.
    Failed(Error),
}

/// Why nothing was received at once: as [`RecvError`], or nothing is there.
///
/// # Examples
/// ```
/// use process_task::channel::{Queue, TryRecvError};
///
/// let queue = Queue::<u32>::unbounded()?;
/// assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
/// queue.close();
/// assert_eq!(queue.try_recv(), Err(TryRecvError::Disconnected));
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// Nothing is there now.
    Empty,
    /// Everything was received, and nothing more will come: every sender is gone, by drop or with its process, or the queue is
    /// closed.
    #[doc(alias("ShutDown", "EOFError"))]
    Disconnected,
    /// As [`RecvError::Failed`].
    Failed(Error),
}

/// Why nothing was received in time: as [`RecvError`], or nothing came.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use process_task::channel::{RecvTimeoutError, one_way};
///
/// let (_sender, receiver) = one_way::<u32>()?;
/// assert_eq!(receiver.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecvTimeoutError {
    /// Nothing came in time.
    #[doc(alias = "Empty")]
    Timeout,
    /// Everything was received, and nothing more will come: every sender is gone, by drop or with its process, or the queue is
    /// closed.
    #[doc(alias("ShutDown", "EOFError"))]
    Disconnected,
    /// As [`RecvError::Failed`].
    Failed(Error),
}

/// What the inside of a channel says of a value that it does not own.
pub(crate) type NotSent = TrySendError<()>;

/// The methods of an error that gives back what was to be sent; `$Waited` is the variant for a want of room.
macro_rules! gives_back {
    ($Error:ident $(, $Waited:ident $is_waited:ident $kind:ident)?) => {
        impl<T> $Error<T> {
            /// What was to be sent, as it was.
            #[must_use]
            pub fn into_inner(self) -> T {
                match self {
                    $(Self::$Waited(value) => value,)?
                    Self::Disconnected(value) | Self::Failed(value, _) => value,
                }
            }

            $(
                #[doc = concat!("Whether it is [`", stringify!($Waited), "`](Self::", stringify!($Waited), ").")]
                #[must_use]
                pub fn $is_waited(&self) -> bool {
                    matches!(self, Self::$Waited(_))
                }
            )?

            /// Whether it is [`Disconnected`](Self::Disconnected).
            #[must_use]
            pub fn is_disconnected(&self) -> bool {
                matches!(self, Self::Disconnected(_))
            }

            /// Why it [failed](Self::Failed), if it did.
            #[must_use]
            pub fn failure(&self) -> Option<&Error> {
                match self {
                    Self::Failed(_, error) => Some(error),
                    _ => None,
                }
            }

            /// What it is as an [`Error`].
            fn to_error(&self) -> Error {
                match self {
                    $(Self::$Waited(_) => error(ErrorKind::$kind),)?
                    Self::Disconnected(_) => error(ErrorKind::Disconnected),
                    Self::Failed(_, error) => error.clone(),
                }
            }
        }

        impl<T> fmt::Display for $Error<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.to_error().fmt(f)
            }
        }

        impl<T> fmt::Debug for $Error<T> {
            /// Without the value, which need not be printable.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$Waited(_) => f.write_str(concat!(stringify!($Waited), "(..)")),)?
                    Self::Disconnected(_) => f.write_str("Disconnected(..)"),
                    Self::Failed(_, error) => write!(f, "Failed(.., {error:?})"),
                }
            }
        }

        impl<T> std::error::Error for $Error<T> {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.failure()?.source()
            }
        }

        impl<T> From<$Error<T>> for Error {
            /// The value is dropped.
            fn from(error: $Error<T>) -> Self {
                error.to_error()
            }
        }
    };
}

gives_back!(SendError);
gives_back!(TrySendError, Full is_full Full);
gives_back!(SendTimeoutError, Timeout is_timeout Elapsed);

/// The methods of an error of a receiver; `$Waited` is the variant for a want of messages.
macro_rules! has_nothing {
    ($Error:ident $(, $Waited:ident $is_waited:ident $kind:ident)?) => {
        impl $Error {
            $(
                #[doc = concat!("Whether it is [`", stringify!($Waited), "`](Self::", stringify!($Waited), ").")]
                #[must_use]
                pub fn $is_waited(&self) -> bool {
                    matches!(self, Self::$Waited)
                }
            )?

            /// Whether it is [`Disconnected`](Self::Disconnected).
            #[must_use]
            pub fn is_disconnected(&self) -> bool {
                matches!(self, Self::Disconnected)
            }

            /// Why it [failed](Self::Failed), if it did.
            #[must_use]
            pub fn failure(&self) -> Option<&Error> {
                match self {
                    Self::Failed(error) => Some(error),
                    _ => None,
                }
            }

            /// What it is as an [`Error`].
            fn to_error(&self) -> Error {
                match self {
                    $(Self::$Waited => error(ErrorKind::$kind),)?
                    Self::Disconnected => error(ErrorKind::Disconnected),
                    Self::Failed(error) => error.clone(),
                }
            }
        }

        impl fmt::Display for $Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.to_error().fmt(f)
            }
        }

        impl std::error::Error for $Error {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.failure()?.source()
            }
        }

        impl From<$Error> for Error {
            fn from(error: $Error) -> Self {
                error.to_error()
            }
        }
    };
}

has_nothing!(RecvError);
has_nothing!(TryRecvError, Empty is_empty Empty);
has_nothing!(RecvTimeoutError, Timeout is_timeout Elapsed);

impl<T> From<SendError<T>> for TrySendError<T> {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::Disconnected(value) => Self::Disconnected(value),
            SendError::Failed(value, error) => Self::Failed(value, error),
        }
    }
}

impl<T> From<SendError<T>> for SendTimeoutError<T> {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::Disconnected(value) => Self::Disconnected(value),
            SendError::Failed(value, error) => Self::Failed(value, error),
        }
    }
}

impl From<RecvError> for TryRecvError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Disconnected => Self::Disconnected,
            RecvError::Failed(error) => Self::Failed(error),
        }
    }
}

impl From<RecvError> for RecvTimeoutError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Disconnected => Self::Disconnected,
            RecvError::Failed(error) => Self::Failed(error),
        }
    }
}

impl<T> TrySendError<T> {
    /// What a caller hears that waited without a limit, and so never for want of room.
    #[cold]
    pub(super) fn without_limit(self) -> SendError<T> {
        match self {
            Self::Full(value) => SendError::Failed(value, error(ErrorKind::Full)),
            Self::Disconnected(value) => SendError::Disconnected(value),
            Self::Failed(value, error) => SendError::Failed(value, error),
        }
    }

    /// What a caller hears that waited for some time.
    #[cold]
    pub(super) fn in_time(self) -> SendTimeoutError<T> {
        match self {
            Self::Full(value) => SendTimeoutError::Timeout(value),
            Self::Disconnected(value) => SendTimeoutError::Disconnected(value),
            Self::Failed(value, error) => SendTimeoutError::Failed(value, error),
        }
    }
}

impl NotSent {
    /// Gives `value` back with it.
    #[cold]
    pub(super) fn with<T>(self, value: T) -> TrySendError<T> {
        match self {
            Self::Full(()) => TrySendError::Full(value),
            Self::Disconnected(()) => TrySendError::Disconnected(value),
            Self::Failed((), error) => TrySendError::Failed(value, error),
        }
    }

    /// `step` was refused with `errno`.
    #[cold]
    pub(super) fn failed(step: &'static str, errno: Errno) -> Self {
        Self::Failed((), channel_failed(step, errno))
    }

    /// Longer than it may be, which is `limit`.
    #[cold]
    pub(super) fn too_long(bytes: usize, limit: usize) -> Self {
        Self::Failed((), error(ErrorKind::TooLong { bytes, limit }))
    }
}

impl TryRecvError {
    /// What a caller hears that waited without a limit, and so never for want of a message.
    #[cold]
    pub(super) fn without_limit(self) -> RecvError {
        match self {
            Self::Empty => RecvError::Failed(error(ErrorKind::Empty)),
            Self::Disconnected => RecvError::Disconnected,
            Self::Failed(error) => RecvError::Failed(error),
        }
    }

    /// What a caller hears that waited for some time.
    #[cold]
    pub(super) fn in_time(self) -> RecvTimeoutError {
        match self {
            Self::Empty => RecvTimeoutError::Timeout,
            Self::Disconnected => RecvTimeoutError::Disconnected,
            Self::Failed(error) => RecvTimeoutError::Failed(error),
        }
    }

    /// `step` was refused with `errno`.
    #[cold]
    pub(super) fn failed(step: &'static str, errno: Errno) -> Self {
        Self::Failed(channel_failed(step, errno))
    }
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, Execution::NotStarted)
}

/// A channel could not be made, or not be used: `step` was refused with `errno`.
pub(crate) fn channel_failed(step: &'static str, errno: Errno) -> Error {
    error(ErrorKind::ChannelFailed { step: step.to_owned(), errno: errno as i32 })
}

impl From<CodecError> for NotSent {
    fn from(cause: CodecError) -> Self {
        Self::Failed((), error(ErrorKind::CannotEncode { direction: Direction::Message, reason: cause.to_string() }))
    }
}

impl From<CodecError> for TryRecvError {
    fn from(cause: CodecError) -> Self {
        Self::Failed(error(ErrorKind::CannotDecode { direction: Direction::Message, reason: cause.to_string() }))
    }
}
