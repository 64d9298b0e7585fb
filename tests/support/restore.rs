//! What a test changes for its whole process, and what puts it back when the test is over, also by a panic.
//!
//! Runs in: the test process, while no other test of it runs.

use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Uid, seteuid};

/// Puts back a limit of this process.
pub(crate) struct Limit(Resource, (u64, u64));

/// Sets the soft limit until the guard is dropped, to the hard limit at most.
pub(crate) fn soft_limit(resource: Resource, most: u64) -> Limit {
    let before = getrlimit(resource).expect("a limit");
    setrlimit(resource, most.min(before.1), before.1).expect("a limit that can be set");
    Limit(resource, before)
}

impl Drop for Limit {
    fn drop(&mut self) {
        setrlimit(self.0, self.1.0, self.1.1).expect("a limit that can be set back");
    }
}

/// Puts back the working directory of this process.
pub(crate) struct Directory(PathBuf);

/// Changes the working directory until the guard is dropped.
pub(crate) fn current_dir(path: &Path) -> Directory {
    let before = std::env::current_dir().expect("a directory");
    std::env::set_current_dir(path).expect("a directory to be in");
    Directory(before)
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::env::set_current_dir(&self.0).expect("the directory from before");
    }
}

/// A user without rights that no other process is: the kernel counts the processes of a user, and the descriptors on their way.
pub(crate) fn lone_user() -> Uid {
    Uid::from_raw(60_000 + std::process::id() % 5_000)
}

/// Puts back the effective user of this process.
pub(crate) struct User(Uid);

/// Changes the effective user until the guard is dropped, if that is root.
pub(crate) fn no_longer_root() -> User {
    let before = Uid::effective();
    if before.is_root() {
        seteuid(lone_user()).expect("root may be another user");
    }
    User(before)
}

impl Drop for User {
    fn drop(&mut self) {
        seteuid(self.0).expect("the user from before");
    }
}

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// Puts back the panic hook of this process.
pub(crate) struct PanicHook(Option<Hook>);

/// Keeps the panic hook: what is set meanwhile goes when the guard is dropped.
pub(crate) fn kept_panic_hook() -> PanicHook {
    let before = panic::take_hook();
    PanicHook(Some(before))
}

/// Sets a panic hook that says nothing, until the guard is dropped.
pub(crate) fn quiet_panics() -> PanicHook {
    let kept = kept_panic_hook();
    panic::set_hook(Box::new(|_| {}));
    kept
}

impl Drop for PanicHook {
    fn drop(&mut self) {
        // std allows no change of the hook while a thread panics; the process of this test is then about to end.
        if let Some(before) = self.0.take().filter(|_| !thread::panicking()) {
            panic::set_hook(before);
        }
    }
}
