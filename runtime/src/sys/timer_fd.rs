//! A timer that `poll` and `epoll` can wait for: `timerfd_create(2)`.
//!
//! Owns: [`MonotonicTimer`]. Runs in: any process.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::time::Instant;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::fd::above_stdio;

/// `timerfd_create(CLOCK_MONOTONIC)`: a descriptor that is readable from some moment on.
#[derive(Debug)]
pub(crate) struct MonotonicTimer(TimerFd);

impl MonotonicTimer {
    #[expect(unsafe_code, reason = "nix makes a timer of nothing but a number")]
    pub(crate) fn new() -> nix::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let raw = above_stdio(timer.into())?.into_raw_fd();
        // SAFETY: the number is that of a timer, and its only owner has just given it up.
        Ok(Self(unsafe { TimerFd::from_raw_fd(raw) }))
    }

    /// Readable from `at` on, or not any more.
    pub(crate) fn set(&self, at: Option<Instant>) -> nix::Result<()> {
        match at {
            None => self.0.unset(),
            Some(at) => {
                // Zero would be never.
                let left = at.saturating_duration_since(Instant::now()).max(std::time::Duration::from_nanos(1));
                self.0.set(Expiration::OneShot(TimeSpec::from(left)), TimerSetTimeFlags::empty())
            }
        }
    }
}

impl AsFd for MonotonicTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll;
    use std::time::Duration;

    #[test]
    fn a_timer_is_readable_from_its_moment_on() {
        let timer = MonotonicTimer::new().unwrap();
        let now = || poll::readable([timer.as_fd()], Some(Instant::now())).unwrap()[0];
        assert!(!now());
        let at = Instant::now() + Duration::from_millis(20);
        timer.set(Some(at)).unwrap();
        assert_eq!(poll::readable([timer.as_fd()], None).unwrap(), [true]);
        assert!(Instant::now() >= at && now());
        timer.set(None).unwrap();
        assert!(!now());
        timer.set(Some(at)).unwrap();
        assert_eq!(poll::readable([timer.as_fd()], None).unwrap(), [true], "it is past already");
    }
}
