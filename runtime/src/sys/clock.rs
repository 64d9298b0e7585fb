//! The clock that is cheap to read, and the same for every process.
//!
//! Owns: nothing. Runs in: any process. Never: makes a system call; the kernel keeps the time in memory that all map.

use nix::time::{ClockId, clock_gettime};

/// `clock_gettime(CLOCK_MONOTONIC_COARSE)`: nanoseconds since the machine was started, as of the kernel's last tick.
///
/// It goes in steps of 1 to 10 ms, at 5 ns a look. A difference of two looks is wrong by up to a step, and right on average.
pub(crate) fn coarse() -> u64 {
    // It fails only for a clock that the kernel does not have, and this one is older than any kernel that we run on.
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |now| {
        let (seconds, nanoseconds) = (now.tv_sec().cast_unsigned(), now.tv_nsec().cast_unsigned());
        seconds * 1_000_000_000 + nanoseconds
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn it_goes_on() {
        let (first, end) = (coarse(), Instant::now() + Duration::from_secs(10));
        while coarse() == first {
            assert!(Instant::now() < end, "the clock stands still");
        }
        assert!(coarse() > first);
    }
}
