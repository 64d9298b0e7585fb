//! The CPUs: on which one a thread runs, on which ones it may run, and which there are.
//!
//! Runs in: any process.

use std::ops::RangeInclusive;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// `getcpu(2)`: the CPU that this thread runs on.
pub(crate) fn current() -> u32 {
    nix::sched::sched_getcpu().ok().and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// Moves this thread to another CPU, if it may use one. Its affinity stays as it was.
pub(crate) fn leave_current() {
    let own = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(own) else { return };
    let mut others = allowed;
    let here = usize::try_from(current()).unwrap_or(0);
    if others.unset(here).is_ok() && (0..CpuSet::count()).any(|cpu| others.is_set(cpu) == Ok(true)) {
        let _ = sched_setaffinity(own, &others);
        let _ = sched_setaffinity(own, &allowed);
    }
}

/// `sched_getaffinity(2)`: the CPUs that this thread may run on; none if the kernel does not say.
pub(crate) fn allowed() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true)).collect()
}

/// Returns the CPUs that this machine may come to have.
pub(crate) fn possible() -> Vec<RangeInclusive<usize>> {
    listed("/sys/devices/system/cpu/possible")
}

/// Returns the CPUs that are online.
pub(crate) fn online() -> Vec<RangeInclusive<usize>> {
    listed("/sys/devices/system/cpu/online")
}

/// Reads a list such as `0-3,8`; where the kernel does not say, all numbers that a set can hold.
fn listed(path: &str) -> Vec<RangeInclusive<usize>> {
    let found = std::fs::read_to_string(path).ok().and_then(|text| parse(&text));
    found.unwrap_or_else(|| vec![0..=CpuSet::count() - 1])
}

fn parse(text: &str) -> Option<Vec<RangeInclusive<usize>>> {
    let range = |part: &str| {
        let (start, end) = part.split_once('-').unwrap_or((part, part));
        Some(start.parse().ok()?..=end.parse().ok()?)
    };
    text.trim().split(',').map(range).collect()
}

/// `sched_setaffinity(2)`: the CPUs that this thread may run on.
pub(crate) fn set_allowed(cpus: &[usize]) -> nix::Result<()> {
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
        assert_eq!(parse("0-3,8,10-11\n"), Some(vec![0..=3, 8..=8, 10..=11]));
        assert_eq!(parse("0\n"), Some(vec![0..=0]));
        assert_eq!((parse("\n"), parse("x-3")), (None, None));
        assert!(online().iter().any(|range| range.contains(&0)));
    }
}
