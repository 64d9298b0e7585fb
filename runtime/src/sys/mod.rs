//! The kernel: thin wrappers, each starting from its manual page, and nearly all unsafe code.
//!
//! Owns: every use of `nix` and `libc`. Runs in: any process; each file says which.
//! Invariant: a wrapper reports what the kernel said, and its caller decides what to do.

pub(crate) mod atfork;
pub(crate) mod attributes;
pub(crate) mod cgroup;
pub(crate) mod clock;
#[cfg(test)]
pub(crate) mod counting_alloc;
pub(crate) mod cpu;
pub(crate) mod crash;
pub(crate) mod env;
pub(crate) mod fd;
pub(crate) mod futex;
pub(crate) mod hangup;
pub(crate) mod held;
pub(crate) mod identity;
pub(crate) mod inherit;
pub(crate) mod init;
pub(crate) mod limits;
pub(crate) mod membarrier;
pub(crate) mod memory;
pub(crate) mod mutex;
pub(crate) mod packet;
pub(crate) mod peer_cred;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod quiet_file;
pub(crate) mod record_lock;
pub(crate) mod rights;
pub(crate) mod self_exe;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod spawn;
pub(crate) mod specialize;
pub(crate) mod stack;

#[cfg(feature = "tcp")]
pub(crate) mod tcp;
pub(crate) mod terminal;
pub(crate) mod timer_fd;
pub(crate) mod unix_listener;

pub(crate) use nix::Result;
pub(crate) use nix::errno::Errno;

/// Repeats `call` as long as a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Returns the error number of an [`std::io::Error`], `EIO` if it has none.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
