//! The thread whose rights a process gets.
//!
//! Runs in: the parent.
//! Invariant: a worker has the rights of the thread that asked for it, not of the one that replaces workers.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use crate::error::{Error, Result};
use crate::sys::attributes::{self, Attribute};
use crate::sys::rights::{self, Rights};
use crate::sys::{Errno, fd, process};

thread_local! {
    /// Gone when the thread is gone, since another thread may get its number then.
    static LIFE: Arc<()> = Arc::new(());
}

/// The thread that built a pool. Its workers have the rights that it has when they are started.
#[derive(Clone, Debug)]
pub(crate) struct Requester {
    name: Option<PathBuf>,
    thread: i32,
    life: Weak<()>,
    rights: Arc<Rights>,
    /// Those of the main thread at that moment, where they are others: then this thread has restricted itself alone.
    program: Option<Rights>,
}

impl Requester {
    /// This thread.
    ///
    /// # Errors
    /// As [`rights_of_this_thread`].
    pub(crate) fn new() -> Result<Self> {
        let own = rights_of_this_thread(None)?;
        let program = Self::program()?.filter(|program| !program.same(&own));
        let (name, thread) = (rights::thread_name(), process::own_tid());
        Ok(Self { name, thread, life: LIFE.with(Arc::downgrade), rights: Arc::new(own), program })
    }

    /// What the program's first thread may do.
    fn program() -> Result<Option<Rights>> {
        rights::main_thread_name().map_or(Ok(None), |name| Rights::of(&name)).map_err(reading)
    }

    /// Scheduling and the like of the thread, while it lives.
    pub(crate) fn attributes(&self) -> Option<Vec<Attribute>> {
        let name = self.name.as_deref().filter(|_| self.life.strong_count() > 0)?;
        Some(attributes::of_thread(Some((self.thread, name))))
    }

    /// Where the working directory of the thread is found; if it has ended, that of the program's first thread. `None` if it had
    /// restricted itself alone before: another thread's directory may be outside of its root.
    pub(crate) fn directory(&self) -> Option<CString> {
        let here = Some(c".".to_owned());
        if self.life.strong_count() > 0 {
            let Some(name) = self.name.as_deref().filter(|_| process::own_tid() != self.thread) else { return here };
            // With the dot, it is found only if it may be gone to, as this thread's is.
            return CString::new(Path::new("/proc").join(name).join("cwd/.").into_os_string().into_vec()).ok();
        }
        if self.program.is_some() {
            return None;
        }
        let first = c"/proc/self/cwd/.";
        if fd::own_dir_id(first).is_some() { Some(first.to_owned()) } else { here }
    }

    /// What the thread may do now. If it has ended, what the program's first thread may do now; if it had restricted itself
    /// alone, what it could do then.
    ///
    /// # Errors
    /// Nothing tells any more what it may do.
    pub(crate) fn rights(&self) -> Result<Arc<Rights>> {
        let lives = self.life.strong_count() > 0;
        if lives && process::own_tid() == self.thread {
            return rights_of_this_thread(Some(&self.rights)).map(Arc::new);
        }
        let step = "find out which rights the thread has, or had, that built the pool (is /proc mounted?)";
        let unknown = || Error::could_not_start(step, Errno::ESRCH);
        match &self.program {
            _ if lives => {
                let now = self.name.as_deref().map_or(Ok(None), Rights::of).map_err(reading)?;
                now.map(Arc::new).ok_or_else(unknown)
            }
            // This may be a thread that has restricted itself, or that such a thread has started.
            None => match Self::program()?.filter(Rights::is_of_living_thread) {
                Some(program) => Ok(Arc::new(program)),
                None => rights_of_this_thread(Some(&self.rights)).map(Arc::new),
            },
            Some(program) => {
                let unchanged = Self::program()?.is_some_and(|now| now.same(program));
                unchanged.then(|| Arc::clone(&self.rights)).ok_or_else(unknown)
            }
        }
    }
}

/// Whether a thread with these rights has restricted itself alone: the program's first thread has others, and can look up
/// this one's.
pub(super) fn is_restricted_alone(rights: &Rights) -> bool {
    matches!(Requester::program(), Ok(Some(program)) if !program.same(rights) && program.sees_groups_as(rights))
}

/// What this thread may do; see [`Rights::of_this_thread`].
///
/// # Errors
/// It cannot be found out for the moment.
pub(super) fn rights_of_this_thread(before: Option<&Rights>) -> Result<Rights> {
    Rights::of_this_thread(before).map_err(reading)
}

fn reading(errno: Errno) -> Error {
    Error::could_not_start("find out what this process may do", errno)
}
