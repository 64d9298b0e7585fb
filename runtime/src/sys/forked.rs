//! Notices that the host program called `fork()`: the copy must not use what belongs to the original.
//!
//! Owns: the generation counter. Runs in: any process. Never: costs a system call to ask.
#![expect(unsafe_code, reason = "nix has no wrapper for pthread_atfork(3)")]

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::libc;

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// How many `fork()`s lie between this process and the one that was started by exec.
///
/// Whoever keeps something that belongs to one process notes the number, and compares.
pub(crate) fn generation() -> u64 {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // SAFETY: the handler only adds to an atomic, which is allowed after fork.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    });
    GENERATION.load(Relaxed)
}

extern "C" fn forked() {
    GENERATION.fetch_add(1, Relaxed);
}
