//! Sleeping on a word of shared memory: `futex(2)`.
//!
//! Owns: nothing. Runs in: any process. Never: spins; that is its caller's choice.
//!
//! # Safety
//!
//! The one unsafe operation is the syscall. Its pointers come from references, so they are aligned and mapped for the
//! length of the call.
#![expect(unsafe_code, reason = "nix has no wrapper for futex(2)")]

use std::sync::atomic::AtomicU32;

use nix::libc;

/// `futex(word, FUTEX_WAIT, expected, NULL)`: sleeps while `*word == expected`.
///
/// Returns when woken, when the word had another value, and for no reason at all: callers look again.
/// There is no `FUTEX_PRIVATE_FLAG`, on purpose: the waker is another process, and a private wait can only be found
/// from inside the waiter's own address space.
pub(crate) fn wait(word: &AtomicU32, expected: u32) {
    let no_timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: `word` is borrowed across the call, and a null timeout is allowed.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, no_timeout) };
}

/// `futex(word, FUTEX_WAKE, 1)`: wakes one sleeper, if there is one.
pub(crate) fn wake(word: &AtomicU32) {
    // SAFETY: `word` is borrowed across the call; FUTEX_WAKE takes its address as a key and does not touch it.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}
