//! Sleeping on a word of shared memory: `futex(2)`.
//!
//! Owns: nothing. Runs in: any process. Spinning is the caller's choice.
//!
//! # Safety
//!
//! The one unsafe operation is the syscall. Its pointers come from references, so they are aligned and mapped for the
//! length of the call.
#![expect(unsafe_code, reason = "nix has no wrapper for futex(2)")]

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use nix::libc;

/// `futex(word, FUTEX_WAIT, expected, NULL)`: sleeps while `*word == expected`.
///
/// Returns when woken, when the word had another value, or for no reason: callers look again.
/// There is no `FUTEX_PRIVATE_FLAG`, on purpose: the waker is another process, and a private wait can only be found
/// from inside the waiter's own address space.
pub(crate) fn wait(word: &AtomicU32, expected: u32) {
    let no_timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: `word` is borrowed across the call, and a null timeout is allowed.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, no_timeout) };
}

/// `futex(word, FUTEX_WAIT, expected, timeout)`: as [`wait`], for at most `timeout`, by the monotonic clock.
///
/// Does not say why it returned. A signal ends it early, so callers look at the clock themselves.
pub(crate) fn wait_until(word: &AtomicU32, expected: u32, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
    };
    // SAFETY: `word` and `timeout` are borrowed across the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &raw const timeout) };
}

/// `futex(word, FUTEX_WAKE, count)`: wakes up to `count` sleepers, and returns how many it woke.
pub(crate) fn wake(word: &AtomicU32, count: u32) -> u32 {
    let count = libc::c_int::try_from(count).unwrap_or(libc::c_int::MAX);
    // SAFETY: `word` is borrowed across the call; FUTEX_WAKE takes its address as a key and does not touch it.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    // It fails only for an address that is not mapped.
    u32::try_from(woken).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn wait_ends_with_its_timeout_or_at_another_value() {
        let word = AtomicU32::new(5);
        let start = Instant::now();
        wait_until(&word, 4, Duration::from_mins(10));
        wait_until(&word, 5, Duration::from_millis(1));
        assert!(start.elapsed() < Duration::from_secs(500));
    }

    #[test]
    fn wake_ends_all_waits() {
        let word = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let sleepers = [(); 2].map(|()| scope.spawn(|| wait_until(&word, 0, Duration::from_mins(10))));
            while sleepers.iter().any(|sleeper| !sleeper.is_finished()) {
                wake(&word, u32::MAX);
                std::thread::yield_now();
            }
        });
    }
}
