//! Signal masks and dispositions.
//!
//! Owns: nothing. Runs in: any process; each function says which. Never: installs a handler (see `crash` for the one there is).
#![expect(unsafe_code, reason = "setting dispositions, and looking into a signal set")]

use std::os::fd::OwnedFd;

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::fd::above_stdio;

/// Signals by number, as they travel.
pub(crate) use nix::libc::{SIGABRT as ABRT, SIGINT as INT, SIGKILL as KILL, SIGTERM as TERM};

/// A signal mask as it travels: bit n - 1 stands for signal n.
pub(crate) type Mask = u64;

/// The signals that this thread blocks.
pub(crate) fn mask() -> Mask {
    let mut set = SigSet::empty();
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, None, Some(&mut set));
    let raw = *set.as_ref();
    (1..=64).filter(|signal| is_member(&raw, *signal)).fold(0, |mask, signal| mask | 1 << (signal - 1))
}

/// Blocks exactly the signals of `mask` in this thread.
pub(crate) fn set_mask(mask: Mask) {
    let mut raw = *SigSet::empty().as_ref();
    for signal in (1..=64).filter(|signal| mask & 1 << (signal - 1) != 0) {
        // SAFETY: `raw` is an initialised set, borrowed for the call, and 1 to 64 are signal numbers.
        unsafe { libc::sigaddset(&raw mut raw, signal) };
    }
    // SAFETY: `raw` is an initialised set.
    let set = unsafe { SigSet::from_sigset_t_unchecked(raw) };
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&set), None);
}

/// Blocks every signal in this thread, so that no handler runs on it, and none gets lost. Returns the mask before.
///
/// Runs in: the parent, around starting our thread; the fork server, around a fork.
pub(crate) fn block_all() -> Mask {
    let before = mask();
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
    before
}

/// Blocks `SIGCHLD` and returns a descriptor that is readable while one is pending.
///
/// Runs in: the fork server.
pub(crate) fn child_events() -> nix::Result<OwnedFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    above_stdio(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?.into())
}

/// Reads away what [`child_events`] has to say; the children themselves tell the rest.
pub(crate) fn drain_child_events(events: &OwnedFd) {
    let mut buffer = [0; 1024];
    while nix::unistd::read(events, &mut buffer).is_ok_and(|len| len > 0) {}
}

/// Signals that a terminal or an administrator sends to everybody: the fork server leaves the answer to its parent.
const FOR_THE_PARENT: [Signal; 5] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGPIPE];

/// Makes this process deaf to [`FOR_THE_PARENT`].
///
/// Runs in: the fork server, and a child that was asked for so.
pub(crate) fn ignore_terminal() {
    for signal in FOR_THE_PARENT {
        set_handler(signal, SigHandler::SigIgn);
    }
}

/// Every disposition as a new Rust program has it: the default, and `SIGPIPE` ignored.
///
/// Runs in: a child, before user code.
pub(crate) fn restore_dispositions() {
    for signal in FOR_THE_PARENT {
        set_handler(signal, SigHandler::SigDfl);
    }
    set_handler(Signal::SIGPIPE, SigHandler::SigIgn);
}

fn set_handler(signal: Signal, handler: SigHandler) {
    // SAFETY: neither of the two handlers runs any code.
    let _ = unsafe { nix::sys::signal::signal(signal, handler) };
}

fn is_member(set: &libc::sigset_t, signal: i32) -> bool {
    // SAFETY: `set` is an initialised set, borrowed for the call.
    (unsafe { libc::sigismember(set, signal) }) == 1
}
