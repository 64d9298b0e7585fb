//! What a manager runs before it takes calls, and why one could not be started.
//!
//! Runs in: the process that starts a manager, and the manager, on its main thread.

use serde::{Deserialize, Serialize};

use super::run;
use super::wire::{AlignedBytes, Answer, CallPayload, Status};
use crate::call::EncodedCall;
use crate::codec::handles::Received;
use crate::error::{Error, Result};
use crate::sys::Errno;
use crate::task::lookup;

/// An initializer, on its way to the manager.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FirstCall {
    task: u32,
    arguments: CallPayload,
}

impl FirstCall {
    /// # Errors
    /// The task is not registered, or has options that do not act here.
    pub(super) fn of(call: &EncodedCall) -> Result<Self> {
        let checked = || {
            let options = call.options();
            if options.retries > 0 {
                return Err(Error::invalid("an initializer of a manager is not repeated: take its `retries` back"));
            }
            if options.memory_limit.is_some() {
                return Err(Error::invalid("give the memory limit to the manager, not to its initializer"));
            }
            call.task().task_index().ok_or_else(Error::unknown_task)
        };
        let task = checked().map_err(|error| error.in_task(call.task().name()))?;
        let (bytes, handles) = call.arguments();
        Ok(Self { task, arguments: CallPayload::new(bytes, handles) })
    }

    /// Runs the task.
    ///
    /// # Errors
    /// It panicked, or could not read its arguments.
    ///
    /// Runs in: the manager, before it takes calls.
    pub(super) fn run(self) -> std::result::Result<(), StartFailure> {
        let (arguments, received) = self.arguments.unpack();
        let failed = |status: Status, bytes: &[u8]| {
            Err(StartFailure::Initializer { status: status as u32, reason: AlignedBytes::copied(bytes) })
        };
        let Some(task) = lookup(self.task) else { return failed(Status::UnknownTask, &[]) };
        let outcome = run::execute(task, (arguments.as_slice(), &received), Vec::new());
        received.release();
        if outcome.status == Status::Done { Ok(()) } else { failed(outcome.status, &outcome.bytes) }
    }
}

/// Why a process could not become a manager.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum StartFailure {
    /// This was refused.
    Step(String),
    /// Its initializer failed.
    Initializer { status: u32, reason: AlignedBytes },
}

impl StartFailure {
    /// What [`start`](super::ManagerBuilder::start) returns. `initializer`: its task's name.
    pub(super) fn into_error(self, initializer: Option<&'static str>) -> Error {
        let (status, bytes) = match self {
            Self::Step(reason) => return Error::could_not_start(reason, Errno::UnknownErrno),
            Self::Initializer { status, reason } => (status, reason),
        };
        let status = Status::from_number(status).unwrap_or(Status::BadResult);
        let answer = Answer { status, object: 0, bytes, received: Received::default() };
        let error = answer.checked().err().unwrap_or_else(|| Error::invalid("its initializer failed"));
        error.in_task(initializer.unwrap_or_default())
    }
}
