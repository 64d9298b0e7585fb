//! A process that makes a copy of itself, as programs do that know nothing of us.
//!
//! Runs in: a child. Never: leaves the copy behind.
#![expect(unsafe_code, reason = "a process that makes a copy of itself")]

use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// Runs `body` in a copy of this process, and waits until that has exited.
pub(crate) fn in_a_copy(body: impl FnOnce()) {
    beside_a_copy(body, || ());
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
