//! Lets go of the fork server, where what has changed cannot be seen.
//!
//! Runs in: the parent. Processes that were started before are not touched.

use crate::error::Result;
use crate::supervisor::existing_supervisor;
use crate::sys::rights;

/// Starts a new fork server on the calling thread, with its rights. Processes that are asked for from now on come from it.
///
/// This happens by itself when a process is asked for and the kernel shows that the asking thread has other rights than the
/// fork server: ids, groups, capabilities, `no_new_privs`, the number of seccomp filters, root directory, namespaces, control
/// group, session. What is not shown, or not looked at, needs this call: a Landlock ruleset, what a seccomp notifier or a security
/// module has changed, the session keyring, and a niceness or scheduling class that others have raised. Before the first process of the program, there is nothing to let go of.
///
/// Call it on the thread that has restricted itself. Workers that a pool replaces later have these restrictions too, also those of
/// pools that were built before; workers and processes that run already keep what they have.
///
/// # Errors
/// The new fork server could not be started, for example because a filter refuses `execve`. Processes that are asked for
/// later will try again, and never have the rights from before.
///
/// # Examples
/// ```
/// use process_task::process_task;
///
/// #[process_task]
/// fn square(x: i64) -> i64 { x * x }
///
/// assert_eq!(square.spawn(3).join()?, 9);
/// // … here the program restricts itself by Landlock …
/// process_task::start_afresh()?;
/// assert_eq!(square.spawn(4).join()?, 16);
/// # process_task::Result::Ok(())
/// ```
pub fn start_afresh() -> Result<()> {
    rights::invalidate_all();
    existing_supervisor().map_or(Ok(()), |supervisor| supervisor.start_afresh())
}
