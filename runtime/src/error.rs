//! Every way a call or a process can fail, and every sentence that says so.
//!
//! Owns: [`Error`], its kinds, and their wording. Runs in: any process.
//! Never: decides what to do about a failure; that is its caller's business.

use std::fmt;

use nix::errno::Errno;
use nix::sys::signal::Signal;

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call has no result, or a process could not be had: who, what, and while doing what.
///
/// The text is made for people; programs look at [`Error::kind`] and [`Error::execution`].
///
/// # Examples
/// ```
/// use process_task::{ErrorKind, Execution, process_task};
///
/// #[process_task]
/// fn divide(a: i32, b: i32) -> i32 { a / b }
///
/// let error = divide.spawn(1, 0).join().unwrap_err();
/// assert!(matches!(error.kind(), ErrorKind::Panicked { .. }));
/// assert_eq!(error.execution(), Execution::Finished);
/// assert!(error.to_string().contains("attempt to divide by zero"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    execution: Execution,
    task: Option<&'static str>,
    process: Option<(String, u32)>,
}

/// The kinds of [`Error`].
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
        /// What the process managed to say before it died, such as the text of a panic that aborts.
        last_words: Option<String>,
    },
    /// The task used up its stack.
    StackOverflow,
    /// The process ended by itself before the task returned. Code 0 is no success either.
    #[non_exhaustive]
    Exited {
        /// The exit code.
        code: i32,
    },
    /// The time given was over.
    TimedOut,
    /// The call was taken back before it started.
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
    /// The process wrote something into shared memory that the protocol does not allow, and was killed.
    #[non_exhaustive]
    ProtocolViolation {
        /// Which check failed.
        reason: String,
    },
    /// The caller asked for something that makes no sense.
    #[non_exhaustive]
    InvalidInput {
        /// What, and what would be right.
        reason: String,
    },
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

impl Error {
    pub(crate) fn new(kind: ErrorKind, execution: Execution) -> Self {
        Self(Box::new(Inner { kind, execution, task: None, process: None }))
    }

    /// The process never started: `step` was refused with `errno`.
    pub(crate) fn could_not_start(step: impl Into<String>, errno: Errno) -> Self {
        let errno = errno as i32;
        Self::new(ErrorKind::CouldNotStart { step: step.into(), errno }, Execution::NotStarted)
    }

    pub(crate) fn closed(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::Closed { reason: reason.into() }, Execution::NotStarted)
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput { reason: reason.into() }, Execution::NotStarted)
    }

    /// Adds which task was to run.
    pub(crate) fn in_task(mut self, task: &'static str) -> Self {
        self.0.task.get_or_insert(task);
        self
    }

    /// Adds in which process it happened.
    pub(crate) fn in_process(mut self, name: &str, pid: u32) -> Self {
        self.0.process.get_or_insert_with(|| (name.to_owned(), pid));
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Whether the task may have run.
    #[must_use]
    pub fn execution(&self) -> Execution {
        self.0.execution
    }

    /// The task it happened to, as `module::name`.
    #[must_use]
    pub fn task(&self) -> Option<&'static str> {
        self.0.task
    }

    /// The name and the process id of the process it happened in.
    #[must_use]
    pub fn process(&self) -> Option<(&str, u32)> {
        self.0.process.as_ref().map(|(name, pid)| (name.as_str(), *pid))
    }
}

impl std::error::Error for Error {}

impl fmt::Debug for Error {
    /// As `main` prints it: the sentence, then the backtrace if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        match &self.0.kind {
            ErrorKind::Panicked { backtrace: Some(trace), .. } => write!(f, "\n{trace}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, task, process, .. } = &*self.0;
        let who = Who(process.as_ref());
        let running = While(" while running", *task);
        let of = While(" of", *task);
        match kind {
            ErrorKind::CouldNotStart { step, errno } => {
                write!(f, "could not start {who}{}: {step}", While(" for", *task))?;
                if *errno == 0 { Ok(()) } else { write!(f, ": {}", Errno::from_raw(*errno).desc()) }
            }
            ErrorKind::Panicked { message, location, .. } => {
                write!(f, "{who} panicked{running}")?;
                if let Some(location) = location {
                    write!(f, " at {location}")?;
                }
                write!(f, ": {message}")
            }
            ErrorKind::Killed { signal, core_dumped, last_words } => {
                write!(f, "{who} was killed by {}{running}", SignalName(*signal))?;
                if *core_dumped {
                    f.write_str(" (core dumped)")?;
                }
                last_words.as_ref().map_or(Ok(()), |words| write!(f, ": {words}"))
            }
            ErrorKind::StackOverflow => write!(f, "{who} overflowed its stack{running}"),
            ErrorKind::Exited { code } => match task {
                Some(task) => write!(f, "{who} exited with code {code} before `{task}` returned"),
                None => write!(f, "{who} exited with code {code}"),
            },
            ErrorKind::TimedOut => write!(f, "{who} ran out of time{running}"),
            ErrorKind::Cancelled => write!(f, "the call{of} was cancelled before it started"),
            ErrorKind::CannotEncode { direction, reason } => {
                write!(f, "cannot encode the {direction}{of}: {reason}")
            }
            ErrorKind::CannotDecode { direction, reason } => {
                write!(f, "cannot decode the {direction}{of}: {reason}")
            }
            ErrorKind::UnknownTask => write!(
                f,
                "task{} is not in the registry of this program; a dependency that is listed in Cargo.toml but never named in \
                 the source is not linked, and its tasks are missing: `use` the crate where the program starts",
                While("", *task)
            ),
            ErrorKind::BinaryMismatch => write!(
                f,
                "{who} was not started from the same binary as this program, so its tasks cannot be trusted to be the same"
            ),
            ErrorKind::Closed { reason } => write!(f, "the pool is closed: {reason}"),
            ErrorKind::ProtocolViolation { reason } => {
                write!(f, "{who} broke the protocol{running} and was killed: {reason}")
            }
            ErrorKind::InvalidInput { reason } => f.write_str(reason),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arguments => "arguments",
            Self::Result => "result",
        })
    }
}

/// `worker 3 (pid 4127)`, or `a process` where it has no name yet.
struct Who<'a>(Option<&'a (String, u32)>);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((name, 0)) => write!(f, "process `{name}`"),
            Some((name, pid)) => write!(f, "process `{name}` (pid {pid})"),
            None => f.write_str("a process"),
        }
    }
}

/// What a task was doing, with its name, or nothing.
struct While(&'static str, Option<&'static str>);

impl fmt::Display for While {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.1.map_or(Ok(()), |task| write!(f, "{} `{task}`", self.0))
    }
}

struct SignalName(i32);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_say_who_what_and_while_doing_what() {
        let killed = ErrorKind::Killed { signal: 9, core_dumped: false, last_words: None };
        let error = Error::new(killed, Execution::Unknown).in_process("pool-3", 4127).in_task("demo::square");
        assert_eq!(error.to_string(), "process `pool-3` (pid 4127) was killed by SIGKILL while running `demo::square`");
        let error = Error::could_not_start("fork", Errno::EAGAIN).in_task("demo::square");
        assert_eq!(error.to_string(), "could not start a process for `demo::square`: fork: Try again");
    }

    #[test]
    fn the_first_context_stays() {
        let error = Error::closed("terminated").in_task("inner").in_task("outer");
        assert_eq!(error.task(), Some("inner"));
    }
}
