//! A process that makes a copy of itself, as programs do that know nothing of us.
//!
//! Runs in: a child. Never: leaves the copy behind.
#![expect(unsafe_code, reason = "a process that makes a copy of itself")]

use std::thread;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::PATIENCE;

/// Runs `body` in a copy of this process, and waits until that has exited.
pub(crate) fn in_a_copy(body: impl FnOnce()) {
    beside_a_copy(body, || ());
}

/// Makes a copy of this process that waits, sends it `signal`, and returns how it has ended.
pub(crate) fn copy_that_is_sent(signal: Signal) -> WaitStatus {
    // SAFETY: the copy makes one system call after the other.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            thread::sleep(PATIENCE);
            // SAFETY: ends the copy, and nothing else of this program runs in it.
            unsafe { libc::_exit(9) };
        }
        ForkResult::Parent { child } => {
            kill(child, signal).unwrap();
            waitpid(child, None).unwrap()
        }
    }
}

/// Runs `body` in a copy of this process and `meanwhile` here, and waits until the copy has exited.
pub(crate) fn beside_a_copy(body: impl FnOnce(), meanwhile: impl FnOnce()) {
    // SAFETY: this process has one thread, or at least none that holds the allocator.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            body();
            // SAFETY: ends the copy, and nothing else of this program runs in it.
            unsafe { libc::_exit(0) };
        }
        ForkResult::Parent { child } => {
            meanwhile();
            assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
        }
    }
}
