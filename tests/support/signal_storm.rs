//! A process that is showered with signals.
//!
//! Runs in: a child, so that no other process's signals are touched. Never: restarts a system call that a signal has ended.
#![expect(unsafe_code, reason = "a signal handler, and a timer of the kernel")]

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// How many signals this process has handled.
pub(crate) static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Relaxed);
}

/// From now on this process gets a signal every tenth of a millisecond, and no system call is restarted.
pub(crate) fn storm() {
    let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing but count.
    unsafe { sigaction(Signal::SIGALRM, &action) }.unwrap();
    let often = libc::timeval { tv_sec: 0, tv_usec: 100 };
    let timer = libc::itimerval { it_interval: often, it_value: often };
    // SAFETY: `timer` is borrowed across the call, and nothing asks for what was there before.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    assert_eq!(set, 0);
}
