//! Resource limits and niceness.
//!
//! Owns: nothing. Runs in: a parent reads them, a child sets them on itself.
#![expect(unsafe_code, reason = "nix has no wrapper for getpriority(2) and setpriority(2)")]

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The limits that a request contains, in the order of the message.
const RESOURCES: [Resource; 16] = [
    Resource::RLIMIT_AS,
    Resource::RLIMIT_CORE,
    Resource::RLIMIT_CPU,
    Resource::RLIMIT_DATA,
    Resource::RLIMIT_FSIZE,
    Resource::RLIMIT_LOCKS,
    Resource::RLIMIT_MEMLOCK,
    Resource::RLIMIT_MSGQUEUE,
    Resource::RLIMIT_NICE,
    Resource::RLIMIT_NOFILE,
    Resource::RLIMIT_NPROC,
    Resource::RLIMIT_RSS,
    Resource::RLIMIT_RTPRIO,
    Resource::RLIMIT_RTTIME,
    Resource::RLIMIT_SIGPENDING,
    Resource::RLIMIT_STACK,
];

/// Indices in [`ResourceLimits`] of those that have an option of their own.
pub(crate) const ADDRESS_SPACE: usize = 0;
pub(crate) const CPU_TIME: usize = 2;
pub(crate) const OPEN_FILES: usize = 9;
pub(crate) const STACK: usize = 15;

/// The soft and the hard limit of each resource.
pub(crate) type ResourceLimits = [(u64, u64); RESOURCES.len()];

/// Returns the limits of this process.
pub(crate) fn current() -> ResourceLimits {
    RESOURCES.map(|resource| getrlimit(resource).unwrap_or((libc::RLIM_INFINITY, libc::RLIM_INFINITY)))
}

/// `setrlimit(2)` for the resource at index `place`.
///
/// A soft limit above the hard one is lowered to it. Any process can lower a hard limit; only a privileged one can raise
/// it.
pub(crate) fn set(place: usize, (soft, hard): (u64, u64)) -> nix::Result<()> {
    let resource = *RESOURCES.get(place).ok_or(Errno::EINVAL)?;
    setrlimit(resource, soft.min(hard), hard)
}

/// Returns how many bytes of address space this process may have, if that is limited.
pub(crate) fn address_space() -> Option<u64> {
    getrlimit(Resource::RLIMIT_AS).ok().map(|(soft, _)| soft).filter(|soft| *soft != libc::RLIM_INFINITY)
}

/// Limits this process's address space until the result is dropped. The hard limit stays, so that this can be undone;
/// the user's code can raise the soft one.
#[must_use]
pub(crate) fn limit_address_space(bytes: u64) -> AddressSpaceLimit {
    let before = getrlimit(Resource::RLIMIT_AS).ok();
    if let Some((soft, hard)) = before {
        let _ = setrlimit(Resource::RLIMIT_AS, soft.min(bytes), hard);
    }
    AddressSpaceLimit { before }
}

/// The limits before [`limit_address_space`], which drop restores.
pub(crate) struct AddressSpaceLimit {
    before: Option<(u64, u64)>,
}

impl Drop for AddressSpaceLimit {
    fn drop(&mut self) {
        if let Some((soft, hard)) = self.before {
            let _ = setrlimit(Resource::RLIMIT_AS, soft, hard);
        }
    }
}

/// `getpriority(PRIO_PROCESS, thread)`: the niceness of a thread of this process, -20 to 19; 0 is the calling thread.
pub(crate) fn niceness(thread: i32) -> i32 {
    // SAFETY: takes two numbers and touches no memory.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, thread.unsigned_abs()) }
}

/// `setpriority(PRIO_PROCESS, 0, niceness)`.
pub(crate) fn set_niceness(niceness: i32) -> nix::Result<()> {
    // SAFETY: takes three numbers and touches no memory.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) }).map(drop)
}
