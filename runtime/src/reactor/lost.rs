//! What is said once the program has closed descriptors that it did not open, the reactor's among them.
//!
//! Runs in: the process that this happens in, on any thread.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::Error;
use crate::sys::Errno;

/// What every use gets from now on.
pub(crate) fn error() -> Error {
    let step = "reach the processes that were started: this program has closed descriptors that it did not open (close_range, or a \
                loop over all numbers), which has to be done before the first process is started";
    Error::could_not_start(step, Errno::EBADF)
}

/// Writes to stderr, once in a program, that descriptors were closed. No caller waits that could be told.
pub(super) fn report() {
    static REPORTED: AtomicBool = AtomicBool::new(false);
    if !REPORTED.swap(true, Relaxed) {
        let _ = writeln!(
            std::io::stderr(),
            "process-task: this program has closed descriptors that it did not open, ours among them: its processes are lost, \
             and no others can be started"
        );
    }
}
