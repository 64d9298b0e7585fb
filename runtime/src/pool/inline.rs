//! Tasks of pools in the calling process, for debugging: `PROCESS_TASK_INLINE=1`.
//!
//! Runs in: the parent, on the thread that submits. No mutex is held while a task runs, so a task may use the pool that runs
//! it.
//!
//! A call goes the same way as to a worker, but for the link: its arguments are encoded, the task's stub decodes them,
//! runs the function and encodes what it returned, and the handle decodes that. So a value that cannot travel fails here
//! too, in the same words, and only what takes another process is different: nothing survives an `exit` or a crash, and
//! nothing can be interrupted.

use std::ffi::OsStr;
use std::sync::{Once, OnceLock};

use super::config::PoolConfig;
use crate::call::{EncodedCall, outcome, panics, run_one};
use crate::codec::handles::Received;
use crate::error::{Error, Result};
use crate::link::frame::FrameKind;
use crate::link::{Body, BufferWriter, Payload, Reply, SharedBufferPool};
use crate::process::current;
use crate::task::lookup;

/// The variable that has tasks run in the calling process.
const VARIABLE: &str = "PROCESS_TASK_INLINE";

/// Whether tasks that are handed to pools run in this process.
pub(super) fn is_on() -> bool {
    static ON: OnceLock<bool> = OnceLock::new();
    *ON.get_or_init(|| std::env::var_os(VARIABLE).is_some_and(|value| says_yes(&value)))
}

fn says_yes(value: &OsStr) -> bool {
    value == "1" || value == "true"
}

/// Runs what each worker would run before its first call: once, since there is one process.
///
/// # Errors
/// It failed.
pub(super) fn begin(config: &PoolConfig) -> Result<()> {
    let failed = |error| Error::closed(format!("the initializer of its workers failed: {error}"));
    config.initializer.as_ref().map_or(Ok(()), run_encoded).map_err(failed)
}

/// Runs what each worker would run after its last call.
///
/// # Errors
/// It failed.
pub(super) fn end(config: &PoolConfig) -> Result<()> {
    config.finalizer.as_ref().map_or(Ok(()), run_encoded)
}

fn run_encoded(call: &EncodedCall) -> Result<()> {
    let name = call.task().name();
    let unknown = Error::unknown_task;
    let index = call.task().task_index().ok_or_else(unknown);
    let no_memory = |errno| Error::could_not_start("find memory for its arguments", errno);
    let outcome = index.and_then(|index| run(index, &call.payload().map_err(no_memory)?));
    outcome.map(drop).map_err(|error| error.in_task(name))
}

/// Makes one call of the task that has this number in the registry.
pub(super) fn run(task: u32, arguments: &Payload) -> Result<Body> {
    let own = current();
    outcome::of_reply(reply(task, arguments)).map_err(|error| error.in_process(own.name(), own.pid()))
}

/// What a worker would answer.
fn reply(task: u32, arguments: &Payload) -> Reply {
    static HOOK: Once = Once::new();
    HOOK.call_once(panics::install_hook);
    let Some(task) = lookup(task) else { return Reply::new(FrameKind::UnknownTask, Body::of_bytes(&[])) };
    // A copy, because small payloads are nowhere aligned but in a ring.
    let received = Received::of_own(arguments.handles());
    let arguments = Body::of_bytes(arguments.bytes());
    let filling = BufferWriter::new(&SharedBufferPool::default());
    let (kind, payload) = run_one(task, arguments.bytes().unwrap_or_default(), &received, filling, || ());
    Reply::new(kind, Body::of_bytes(payload.bytes()).with(Received::of_own(payload.handles())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_values_say_yes() {
        let yes = |value: &str| says_yes(OsStr::new(value));
        assert_eq!(
            ["1", "true", "", "0", "false", "yes", "11"].map(yes),
            [true, true, false, false, false, false, false]
        );
    }
}
