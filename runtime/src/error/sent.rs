//! An error on its way to another process.
//!
//! Runs in: a manager, which sends what a call of its pool ended with, and its clients.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Direction, Error, ErrorKind, Execution};

/// An [`Error`] as it travels, but for its task, which the receiver knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SentError(Box<SentParts>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SentParts {
    #[serde(with = "KindAsSent")]
    kind: ErrorKind,
    #[serde(with = "ExecutionAsSent")]
    execution: Execution,
    process: Option<(String, u32)>,
    attempts: Vec<SentError>,
    notes: Vec<String>,
}

impl SentError {
    pub(crate) fn of(error: &Error) -> Self {
        let inner = &error.0;
        Self(Box::new(SentParts {
            kind: inner.kind.clone(),
            execution: inner.execution,
            process: inner.process.clone(),
            attempts: inner.attempts.iter().map(Self::of).collect(),
            notes: inner.notes.clone(),
        }))
    }

    pub(crate) fn into_error(self, task: Option<&'static str>) -> Error {
        let SentParts { kind, execution, process, attempts, notes } = *self.0;
        let mut error = Error::new(kind, execution);
        error.0.process = process;
        error.0.task = task;
        error.0.notes = notes;
        error.after(attempts.into_iter().map(|attempt| attempt.into_error(task)).collect())
    }
}

/// The variants of [`ErrorKind`], which itself is no type that travels.
#[derive(Serialize, Deserialize)]
#[serde(remote = "ErrorKind")]
enum KindAsSent {
    CouldNotStart {
        step: String,
        errno: i32,
    },
    Panicked {
        message: String,
        location: Option<String>,
        backtrace: Option<String>,
    },
    Killed {
        signal: i32,
        core_dumped: bool,
        message: Option<String>,
    },
    NeedsTerminal {
        signal: i32,
    },
    StackOverflow,
    Exited {
        code: i32,
    },
    TimedOut {
        limit: Duration,
        elapsed: Duration,
    },
    Cancelled,
    CannotEncode {
        #[serde(with = "DirectionAsSent")]
        direction: Direction,
        reason: String,
    },
    CannotDecode {
        #[serde(with = "DirectionAsSent")]
        direction: Direction,
        reason: String,
    },
    UnknownTask,
    BinaryMismatch,
    Closed {
        reason: String,
    },
    Empty,
    Full,
    Elapsed,
    Disconnected,
    TooLong {
        bytes: usize,
        limit: usize,
    },
    PeerRefused {
        reason: String,
    },
    ChannelFailed {
        step: String,
        errno: i32,
    },
    ProtocolViolation {
        reason: String,
    },
    CannotShare {
        step: String,
        errno: i32,
    },
    CannotWrite {
        path: PathBuf,
        reason: String,
    },
    ManagerGone {
        name: String,
        pid: u32,
        signal: Option<i32>,
    },
    Poisoned,
    InvalidInput {
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Direction")]
enum DirectionAsSent {
    Arguments,
    Result,
    Message,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Execution")]
enum ExecutionAsSent {
    NotStarted,
    Finished,
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Errno;

    #[test]
    fn error_arrives_as_it_was_sent() {
        let kind = ErrorKind::Killed { signal: 9, core_dumped: true, message: Some("why".to_owned()) };
        let first = Error::could_not_start("fork", Errno::EAGAIN).in_process("worker-1", 7).with_note("a note");
        let error = Error::new(kind, Execution::Unknown).in_process("worker-0", 5).after(vec![first]).in_task("half");
        let arrived = SentError::of(&error).into_error(Some("half"));
        assert_eq!(arrived.to_string(), error.to_string());
        assert_eq!(
            (arrived.kind(), arrived.execution(), arrived.process()),
            (error.kind(), error.execution(), error.process())
        );
        assert_eq!(arrived.attempts()[0].kind(), error.attempts()[0].kind());
    }
}
