//! What a process can say about itself, its parent, and its children.
//!
//! Runs in: any process. The parent is the process that asked for this one, not the fork server that made it.

use std::num::NonZero;

use crate::supervisor::existing_supervisor;
use crate::sys::identity;

/// The name and the process id of a process.
///
/// # Examples
/// ```
/// assert_eq!(process_task::current().pid(), std::process::id());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessInfo {
    name: String,
    pid: u32,
}

impl ProcessInfo {
    /// What the process is called: in a child, what its [`ProcessBuilder`](crate::ProcessBuilder) or pool said; else `main`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    #[must_use]
    #[doc(alias = "id")]
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// The process that runs this.
///
/// # Examples
/// ```
/// use process_task::process_task;
///
/// #[process_task]
/// fn own_name() -> String { process_task::current().name().to_owned() }
///
/// assert_eq!(own_name(), "main");
/// assert_eq!(own_name.spawn().join()?, "own_name");
/// # process_task::Result::Ok(())
/// ```
#[must_use]
pub fn current() -> ProcessInfo {
    let name = identity::get().map_or_else(main_name, |own| own.name.clone());
    ProcessInfo { name, pid: std::process::id() }
}

/// The process that asked for this one, `None` in a program that was not started by this library.
///
/// A child never outlives its parent, so what it says stays true.
///
/// # Examples
/// ```
/// use process_task::process_task;
///
/// #[process_task]
/// fn parent_pid() -> Option<u32> { process_task::parent().map(|parent| parent.pid()) }
///
/// assert_eq!(process_task::parent(), None);
/// assert_eq!(parent_pid.spawn().join()?, Some(std::process::id()));
/// # process_task::Result::Ok(())
/// ```
#[must_use]
pub fn parent() -> Option<ProcessInfo> {
    let (pid, name) = identity::get()?.parent.clone();
    Some(ProcessInfo { name: if name.is_empty() { main_name() } else { name }, pid })
}

/// The processes that this one asked for and that have not ended, workers of pools among them, oldest first.
///
/// # Examples
/// ```
/// use process_task::{Pool, active_children};
///
/// let pool = Pool::builder().workers(2).build()?;
/// assert_eq!(active_children().len(), 2);
/// drop(pool);
/// assert!(active_children().is_empty());
/// # process_task::Result::Ok(())
/// ```
#[must_use]
pub fn active_children() -> Vec<ProcessInfo> {
    let children = existing_supervisor().map(|supervisor| supervisor.children()).unwrap_or_default();
    children.iter().map(|record| ProcessInfo { name: record.name(), pid: record.pid }).collect()
}

/// How many processes can run at the same time: the processors that this one may use, within its cgroup's share. At least 1.
///
/// # Examples
/// ```
/// assert!(process_task::available_parallelism() >= 1);
/// ```
#[must_use]
pub fn available_parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn main_name() -> String {
    "main".to_owned()
}
