//! Resource limits, niceness, and the CPUs that a process may use.
//!
//! Owns: nothing. Runs in: a parent reads them, a child sets them on itself.
#![expect(unsafe_code, reason = "nix has no wrapper for getpriority(2) and setpriority(2)")]

use std::ops::RangeInclusive;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

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

/// `getcpu(2)`: the CPU that this thread runs on.
pub(crate) fn current_cpu() -> u32 {
    nix::sched::sched_getcpu().ok().and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// Moves this thread to another CPU, if it may use one. Its affinity stays as it was.
pub(crate) fn leave_current_cpu() {
    let own = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(own) else { return };
    let mut others = allowed;
    let here = usize::try_from(current_cpu()).unwrap_or(0);
    if others.unset(here).is_ok() && (0..CpuSet::count()).any(|cpu| others.is_set(cpu) == Ok(true)) {
        let _ = sched_setaffinity(own, &others);
        let _ = sched_setaffinity(own, &allowed);
    }
}

/// `sched_getaffinity(2)`: the CPUs that this thread may run on; none if the kernel does not say.
pub(crate) fn cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true)).collect()
}

/// Returns the CPUs that this machine may come to have.
pub(crate) fn possible_cpus() -> Vec<RangeInclusive<usize>> {
    listed_cpus("/sys/devices/system/cpu/possible")
}

/// Returns the CPUs that are online.
pub(crate) fn online_cpus() -> Vec<RangeInclusive<usize>> {
    listed_cpus("/sys/devices/system/cpu/online")
}

/// Reads a list such as `0-3,8`; where the kernel does not say, all numbers that a set can hold.
fn listed_cpus(path: &str) -> Vec<RangeInclusive<usize>> {
    let listed = std::fs::read_to_string(path).ok().and_then(|text| parse_cpus(&text));
    listed.unwrap_or_else(|| vec![0..=CpuSet::count() - 1])
}

fn parse_cpus(text: &str) -> Option<Vec<RangeInclusive<usize>>> {
    let range = |part: &str| {
        let (start, end) = part.split_once('-').unwrap_or((part, part));
        Some(start.parse().ok()?..=end.parse().ok()?)
    };
    text.trim().split(',').map(range).collect()
}

/// `sched_setaffinity(2)`: the CPUs that this thread may run on.
pub(crate) fn set_cpus(cpus: &[usize]) -> nix::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_parsed() {
        assert_eq!(parse_cpus("0-3,8,10-11\n"), Some(vec![0..=3, 8..=8, 10..=11]));
        assert_eq!(parse_cpus("0\n"), Some(vec![0..=0]));
        assert_eq!((parse_cpus("\n"), parse_cpus("x-3")), (None, None));
        assert!(online_cpus().iter().any(|range| range.contains(&0)));
    }
}
