//! Turns what a child answered, or how it ended, into what the caller is told.
//!
//! Runs in: the parent.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use crate::codec::message::from_bytes;
use crate::error::{Direction, Error, ErrorKind, Execution, Result, why};
use crate::link::frame::FrameKind;
use crate::link::message::{FromChild, PanicReport, SetupRefusal};
use crate::link::{Body, Caller, Reply};
use crate::sys::{Errno, signal};

/// What a reply to a call says: the bytes of a result, or what went wrong.
pub(crate) fn of_reply(reply: Reply) -> Result<Body> {
    let text = |body: &Body| body.bytes().map_or_else(lost, |bytes| String::from_utf8_lossy(bytes).into_owned());
    let direction = Direction::Arguments;
    match reply.kind {
        FrameKind::Done => match reply.body {
            Body::Lost(errno) => {
                let reason = lost(errno);
                Err(Error::new(ErrorKind::CannotDecode { direction: Direction::Result, reason }, Execution::Finished))
            }
            body => Ok(body),
        },
        FrameKind::Panicked => {
            let report = reply.body.bytes().ok().and_then(|bytes| from_bytes(bytes).ok());
            let PanicReport { message, location, backtrace } = report.unwrap_or_default();
            Err(Error::new(ErrorKind::Panicked { message, location, backtrace }, Execution::Finished))
        }
        FrameKind::BadArguments => {
            let reason = text(&reply.body);
            Err(Error::new(ErrorKind::CannotDecode { direction, reason }, Execution::NotStarted))
        }
        FrameKind::BadResult => {
            let direction = Direction::Result;
            let reason = text(&reply.body);
            Err(Error::new(ErrorKind::CannotEncode { direction, reason }, Execution::Finished))
        }
        FrameKind::UnknownTask => Err(Error::new(ErrorKind::UnknownTask, Execution::NotStarted)),
        FrameKind::BadSetup => {
            let refusal = reply.body.bytes().ok().and_then(|bytes| from_bytes(bytes).ok());
            let refusal = refusal.unwrap_or(SetupRefusal { step: "set the process up".to_owned(), errno: 0 });
            Err(Error::could_not_start(refusal.step, Errno::from_raw(refusal.errno)))
        }
        FrameKind::Skip | FrameKind::Setup | FrameKind::Call | FrameKind::Batch | FrameKind::Results => {
            let reason = "a reply of a request's kind".to_owned();
            Err(Error::new(ErrorKind::ProtocolViolation { reason }, Execution::Unknown))
        }
    }
}

/// As [`of_exit`], of the status alone.
fn of_status<T>(status: ExitStatus, caller: &Caller<T>, execution: Execution) -> Error {
    if execution == Execution::NotStarted {
        match caller.excuse() {
            Some(FromChild::Mismatch { .. }) => return Error::new(ErrorKind::BinaryMismatch, execution),
            Some(FromChild::NotExecuted { step, errno }) => {
                return Error::could_not_start(step, Errno::from_raw(errno));
            }
            _ => {}
        }
    }
    let (overflowed, crash_note) = caller.crash_note();
    let kind = match (status.signal(), status.code()) {
        // Also with a code: a sanitizer reports the overflow, and exits.
        (signal, code) if overflowed && (signal.is_some() || code != Some(0)) => ErrorKind::StackOverflow,
        (Some(signal), _) => {
            // Only an abort follows from a panic; what else kills a process has its own reasons.
            let message = crash_note.filter(|_| signal == signal::ABRT);
            ErrorKind::Killed { signal, core_dumped: status.core_dumped(), message }
        }
        (None, code) => ErrorKind::Exited { code: code.unwrap_or(0) },
    };
    Error::new(kind, execution)
}

/// How a process ended, as its supervisor knows it.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    /// What the kernel's OOM killer did meanwhile, if the process was killed by SIGKILL.
    pub(crate) oom_note: Option<String>,
    /// The signal with which its terminal stopped it in the background, which is why it was killed.
    pub(crate) background_signal: Option<i32>,
}

/// What the exit of a process means for a call that it had; `execution` says whether the call may have run.
pub(crate) fn of_exit<T>(exit: Exit, caller: &Caller<T>, execution: Execution) -> Error {
    let Exit { status, oom_note, background_signal } = exit;
    let background = background_signal.filter(|_| status.signal() == Some(signal::KILL));
    let needs_terminal = background.map(|signal| Error::new(ErrorKind::NeedsTerminal { signal }, execution));
    let error = needs_terminal.unwrap_or_else(|| of_status(status, caller, execution));
    match oom_note {
        Some(note) if matches!(error.kind(), ErrorKind::Killed { .. }) => error.with_note(note),
        _ => error,
    }
}

/// A child wrote what the protocol does not allow.
pub(crate) fn of_violation(reason: &str) -> Error {
    Error::new(ErrorKind::ProtocolViolation { reason: reason.to_owned() }, Execution::Unknown)
}

fn lost(errno: Errno) -> String {
    format!("the parcel that holds it could not be received: {}", why(errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Callee, Link};

    #[test]
    fn a_child_of_another_build_takes_no_call_and_says_so() {
        let (link, theirs) = Link::new(1).unwrap();
        let caller = Caller::<()>::new(link);
        assert_eq!(Callee::open(theirs, 2).unwrap_err(), Errno::EXDEV);
        let error = of_status(ExitStatus::from_raw(1 << 8), &caller, Execution::NotStarted);
        assert_eq!(error, Error::new(ErrorKind::BinaryMismatch, Execution::NotStarted));
    }
}
