//! A file that the user named, whose failed writes are errors and never signals.
//!
//! Owns: [`QuietFile`]. Runs in: any process. Invariant: no disposition is changed, since it belongs to the whole program.
//!
//! The kernel sends SIGXFSZ to a thread that writes beyond `RLIMIT_FSIZE`, and SIGPIPE where the reader of a FIFO is gone.
//! Both end a program by default. They go to the thread that writes. So that thread blocks them, and consumes the signal that
//! its own write has raised.
#![expect(unsafe_code, reason = "sigpending(2) and sigtimedwait(2)")]

use std::fs::File;
use std::io::{self, Write};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

/// A file whose writes raise no signal.
#[derive(Debug)]
pub(crate) struct QuietFile(pub(crate) File);

impl Write for QuietFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        without_signals(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn without_signals<R>(write: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    let own: SigSet = [Signal::SIGXFSZ, Signal::SIGPIPE].into_iter().collect();
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&own), Some(&mut before))?;
    // A signal that is pending already is meant for the program.
    let pending = pending();
    let written = write();
    let raised = match written.as_ref().err().and_then(io::Error::raw_os_error).map(Errno::from_raw) {
        Some(Errno::EFBIG) => Some(Signal::SIGXFSZ),
        Some(Errno::EPIPE) => Some(Signal::SIGPIPE),
        _ => None,
    };
    if let Some(raised) = raised.filter(|raised| !pending.contains(*raised)) {
        consume(raised);
    }
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    written
}

/// Returns the signals that are pending for this thread, or for the process.
fn pending() -> SigSet {
    let mut raw = *SigSet::empty().as_ref();
    // SAFETY: `raw` is borrowed for the call, which fills it.
    unsafe { libc::sigpending(&raw mut raw) };
    // SAFETY: `raw` is an initialised set.
    unsafe { SigSet::from_sigset_t_unchecked(raw) }
}

/// Consumes a signal that this thread blocks, if it is pending.
fn consume(signal: Signal) {
    let set: SigSet = [signal].into_iter().collect();
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: set and time are borrowed for the call, and nothing is to be told of the signal.
    while unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &raw const now) } == -1
        && Errno::last() == Errno::EINTR
    {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::signal;

    #[test]
    fn write_without_reader_is_an_error_and_leaves_no_signal() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mask = signal::mask();
        let mut quiet = QuietFile(File::from(std::os::fd::OwnedFd::from(writer)));
        let error = quiet.write(b"text").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EPIPE as i32));
        assert!(!pending().contains(Signal::SIGPIPE) && signal::mask() == mask);
    }
}
