//! A terminal of a test's own: a pseudo-terminal, and a program in a session that it controls.
//!
//! Runs in: the test process. Never: blocks in a read, so that a test's deadlines act.
#![expect(unsafe_code, reason = "has a program begin in a session of its own")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;

use crate::support::eventually;

/// The side of a terminal where a person would sit.
#[derive(Debug)]
pub(crate) struct Pty {
    keyboard_and_screen: File,
    seen: String,
}

impl Pty {
    /// Makes a terminal, and lets `command` start in a new session that it controls, in its foreground.
    pub(crate) fn control(command: &mut Command) -> Self {
        let pty = openpty(None, None).expect("a pseudo-terminal");
        let streams: [OwnedFd; 3] = [(); 3].map(|()| pty.slave.try_clone().expect("a descriptor"));
        let [stdin, stdout, stderr] = streams;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let begin = || {
            nix::unistd::setsid()?;
            // SAFETY: stdin is open on the terminal, and the call takes no memory.
            let made = unsafe { nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0) };
            if made == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: between fork and exec, the closure makes two system calls and nothing else.
        unsafe { command.pre_exec(begin) };
        let flags = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        fcntl(&pty.master, flags).expect("a descriptor that need not block");
        Self { keyboard_and_screen: File::from(pty.master), seen: String::new() }
    }

    /// Types `text`.
    pub(crate) fn write(&mut self, text: &str) {
        self.keyboard_and_screen.write_all(text.as_bytes()).expect("room for a few characters");
    }

    /// All that the terminal has shown so far.
    pub(crate) fn seen(&mut self) -> &str {
        let mut buffer = [0; 4096];
        // It fails when there is nothing to read, or when no process has the terminal open.
        while let Ok(len @ 1..) = self.keyboard_and_screen.read(&mut buffer) {
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..len]));
        }
        &self.seen
    }

    /// Waits until the terminal shows `text`.
    pub(crate) fn wait_for(&mut self, text: &str) {
        eventually(text, Duration::from_secs(40), || self.seen().contains(text));
    }
}
