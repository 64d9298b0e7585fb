//! What can go wrong, which way a value was going, and whether the task ran.
//!
//! Runs in: any process. The wording is in `sentences`.

use std::path::PathBuf;
use std::time::Duration;

/// The kinds of [`Error`](super::Error).
///
/// # Examples
/// ```
/// use process_task::{ErrorKind, process_task};
///
/// #[process_task]
/// fn leave(code: i32) { std::process::exit(code) }
///
/// let error = leave.spawn(3).join().unwrap_err();
/// match error.kind() {
///     ErrorKind::Exited { code, .. } => assert_eq!(*code, 3),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The process never came to the point of running anything.
    #[non_exhaustive]
    CouldNotStart {
        /// What was being done, for example `fork` or `change to the working directory`.
        step: String,
        /// The error number of the kernel, 0 if it was not the kernel that refused.
        errno: i32,
    },
    /// The task panicked.
    #[non_exhaustive]
    Panicked {
        /// The panic's message; a payload that is not a string is said to be of unknown type.
        message: String,
        /// `file:line:column` of the panic.
        location: Option<String>,
        /// The backtrace, when `RUST_BACKTRACE` asks for one.
        backtrace: Option<String>,
    },
    /// The process was ended by a signal while it ran the task.
    #[non_exhaustive]
    Killed {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
        /// Why, if it is known: the text of a panic that aborts, or the limit of memory that the process had, since a failed
        /// allocation aborts.
        message: Option<String>,
    },
    /// The process, or a program that it started, read from the terminal. That stops a process in the background, where all of
    /// ours are, and nothing would have continued it; so it was killed. See [`Stdio::inherit`](crate::Stdio::inherit).
    #[non_exhaustive]
    NeedsTerminal {
        /// The signal that had stopped it: SIGTTIN, or SIGTTOU where it changed the terminal.
        signal: i32,
    },
    /// The task used up its stack: commonly 8 MiB, whatever `RLIMIT_STACK` (`ulimit -s`) allows when the process is started.
    /// A program that raises its own soft limit before it starts processes or pools gives them more. Or the task does its
    /// work on a thread of the size that it needs ([`std::thread::Builder::stack_size`]; `RUST_MIN_STACK` acts there, too).
    StackOverflow,
    /// The process ended by itself before the task returned. Code 0 is no success either.
    #[non_exhaustive]
    Exited {
        /// The exit code.
        code: i32,
    },
    /// The call took longer than it may, and its process was killed for that. It is told when that process is dead. One that
    /// cannot die, because it sleeps uninterruptibly in the kernel, is given up after 30 seconds, and the text says so.
    #[non_exhaustive]
    TimedOut {
        /// How long it was allowed to take.
        limit: Duration,
        /// How long it had taken when that was noticed.
        elapsed: Duration,
    },
    /// The call was taken back: before it started, or while it ran, and then its worker was killed. See
    /// [`Error::execution`](super::Error::execution).
    Cancelled,
    /// A value could not be turned into bytes.
    #[non_exhaustive]
    CannotEncode {
        /// Which way the value was going.
        direction: Direction,
        /// What the serialiser said.
        reason: String,
    },
    /// Bytes could not be turned into a value.
    #[non_exhaustive]
    CannotDecode {
        /// Which way the value was going.
        direction: Direction,
        /// What the deserialiser said.
        reason: String,
    },
    /// The task is not in the registry of the program.
    UnknownTask,
    /// The process that answered was not started from the same binary.
    BinaryMismatch,
    /// The pool takes no more calls.
    #[non_exhaustive]
    Closed {
        /// Why it was closed.
        reason: String,
    },
    /// The channel has no message now, or the listener no connection.
    Empty,
    /// The channel has no room now.
    Full,
    /// The time that the caller gave is over, and what it waited for has not happened. Nothing was taken, and nothing was done.
    Elapsed,
    /// No process has the other end of the channel any more, by drop or by death, or the queue is closed.
    Disconnected,
    /// A message, or an item of a queue, is longer than the channel carries.
    #[non_exhaustive]
    TooLong {
        /// How long it is, in bytes.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The peer of a connection to, or from, a process that shares no ancestor could not show that it has the key, or was not
    /// let in.
    #[doc(alias = "AuthenticationError")]
    #[non_exhaustive]
    PeerRefused {
        /// What it could not show.
        reason: String,
    },
    /// The kernel, or the network, refused what a channel asked for.
    #[non_exhaustive]
    ChannelFailed {
        /// What was being done, for example `make a socket pair`.
        step: String,
        /// The error number of the kernel.
        errno: i32,
    },
    /// The process wrote something into shared memory that the protocol does not allow, and was killed.
    #[non_exhaustive]
    ProtocolViolation {
        /// Which check failed.
        reason: String,
    },
    /// Memory for processes to share could not be had.
    #[non_exhaustive]
    CannotShare {
        /// What was being done, for example ``reserve 800000000 bytes for `[f64]` ``.
        step: String,
        /// The error number of the kernel.
        errno: i32,
    },
    /// A file that was asked for could not be written.
    #[non_exhaustive]
    CannotWrite {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The manager in which the object lived has ended, and the object with it. The error's process names it.
    #[non_exhaustive]
    ManagerGone {
        /// The manager's name.
        name: String,
        /// Its process id.
        pid: u32,
        /// The signal that ended it, where it is known: in the process that started it.
        signal: Option<i32>,
    },
    /// A method that had the object for itself panicked, and may have left it half changed.
    Poisoned,
    /// The caller asked for something that makes no sense, such as a number of 0 where at least 1 is needed.
    ///
    /// One rule holds for such a 0, of workers, calls, items, bytes, processors or peers: it is this error, and no panic. It
    /// comes from the function that gets the number and returns a `Result`, else from the one that uses it: `build` and `spawn`
    /// of a builder, `accept` of a listener, and the results of `imap`. A [`Duration`] of 0 is no mistake.
    #[non_exhaustive]
    InvalidInput {
        /// What, and what would be right.
        reason: String,
    },
}

impl ErrorKind {
    /// The error number of the kernel, for the kinds that have one.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::CouldNotStart { errno, .. } | Self::ChannelFailed { errno, .. } | Self::CannotShare { errno, .. } => {
                Some(*errno)
            }
            _ => None,
        }
    }
}

/// Which way a value was going when it could not be encoded or decoded.
///
/// # Examples
/// ```
/// use process_task::{Direction, ErrorKind, process_task};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Odd(#[serde(deserialize_with = "odd")] u32);
///
/// fn odd<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
///     let number = u32::deserialize(from)?;
///     if number % 2 == 1 { Ok(number) } else { Err(serde::de::Error::custom("it is even")) }
/// }
///
/// #[process_task]
/// fn half(number: Odd) -> u32 { number.0 / 2 }
///
/// let error = half.spawn(Odd(4)).join().unwrap_err();
/// assert!(matches!(error.kind(), ErrorKind::CannotDecode { direction: Direction::Arguments, .. }));
/// assert!(error.to_string().contains("it is even"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the caller to the task.
    Arguments,
    /// From the task to the caller.
    Result,
    /// Through a channel.
    Message,
}

/// Whether the task may have run, for callers that must not run it twice.
///
/// # Examples
/// ```
/// use process_task::{Execution, Pool, process_task};
///
/// #[process_task]
/// fn pay(amount: u32) -> u32 { amount }
///
/// let pool = Pool::new()?;
/// pool.close();
/// let error = pool.call(pay, 100).unwrap_err();
/// assert_eq!(error.execution(), Execution::NotStarted);       // safe to try elsewhere
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// No part of it ran.
    NotStarted,
    /// It ran to its end, or to its panic.
    Finished,
    /// It was running when its process died.
    Unknown,
}
