//! The clock that is cheap to read, and the same for every process.
//!
//! Owns: nothing. Runs in: any process. Reading it is no system call: the kernel keeps the time in memory that all map.
#![expect(unsafe_code, reason = "nix's wrapper takes three times as long as the clock itself")]

use nix::libc;

/// `clock_gettime(CLOCK_MONOTONIC_COARSE)`: nanoseconds since the machine was started, as of the kernel's last tick.
///
/// It goes in steps of 1 to 10 ms, at 3 ns a look. A difference of two looks is wrong by up to a step, and right on average.
#[inline]
pub(crate) fn coarse() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is borrowed for the length of the call.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    // The call fails only for a clock that the kernel does not have, and this one is older than any that we run on.
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn coarse_clock_advances() {
        let (first, end) = (coarse(), Instant::now() + Duration::from_secs(10));
        while coarse() == first {
            assert!(Instant::now() < end, "the clock stands still");
        }
        assert!(coarse() > first);
    }
}
