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

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::{SigHandler, Signal, kill};
use nix::unistd::Pid;
use process_task::StartMethod;

use crate::support::subprocess::{Victim, args};
use crate::support::{PATIENCE, eventually};

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
        for end in [&pty.master, &pty.slave] {
            // Or the program would keep its own terminal from being closed.
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("a descriptor that is open");
        }
        let streams: [OwnedFd; 3] = [(); 3].map(|()| pty.slave.try_clone().expect("a descriptor"));
        let [stdin, stdout, stderr] = streams;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let begin = || {
            nix::unistd::setsid()?;
            // A test that runs in the background, or under `nohup`, ignores some of them.
            for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU] {
                // SAFETY: no handler runs.
                unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
            }
            // SAFETY: stdin is open on the terminal, and the call takes no memory.
            let made = unsafe { nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0) };
            if made == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: between fork and exec, the closure makes system calls and nothing else.
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

/// Starts a victim that is the only program of its terminal.
pub(crate) fn alone(scene: &str, method: StartMethod) -> (Pty, Victim) {
    let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
    command.args(args());
    let pty = Pty::control(&mut command);
    (pty, Victim::start_as(command, scene, method))
}

/// Starts a victim as the foreground job of an interactive shell.
pub(crate) fn below_shell(scene: &str, method: StartMethod) -> (Pty, Victim) {
    below_shell_as("", scene, method)
}

/// Starts a victim as a job of an interactive shell, in the background with `&`.
pub(crate) fn below_shell_as(job: &str, scene: &str, method: StartMethod) -> (Pty, Victim) {
    let mut command = Command::new("sh");
    command
        .arg("-i")
        .env("PS1", "ready> ")
        .env("PROGRAM", std::env::current_exe().expect("the test binary has a path"));
    let mut pty = Pty::control(&mut command);
    let victim = Victim::start_as(command, scene, method);
    pty.wait_for("ready> ");
    pty.write(&format!("\"$PROGRAM\" {} {job}\n", args().join(" ")));
    (pty, victim)
}

/// Waits until the victim has reached `point`, while the terminal shows what it prints.
pub(crate) fn wait_until(pty: &mut Pty, victim: &Victim, point: &str) {
    let mut look = || {
        assert_eq!(victim.said(), "", "{}", pty.seen());
        pty.seen();
        victim.on_stage(point).exists()
    };
    eventually(point, PATIENCE, &mut look);
}

/// Waits for the end of a scene that was played by a program alone in its terminal.
pub(crate) fn ends_well(pty: &mut Pty, mut victim: Victim) {
    wait_until(pty, &victim, "played");
    eventually("the program ends", PATIENCE, || {
        pty.seen();
        victim.child.try_wait().expect("the victim is our child").is_some()
    });
    let status = victim.finish();
    assert!(status.success(), "{status}: {}", pty.seen());
    victim.leaves_no_process();
}

/// Waits for the end of a scene that was played by a job of a shell.
pub(crate) fn job_ends_well(pty: &mut Pty, victim: &Victim) {
    wait_until(pty, victim, "played");
    eventually("the program ends", PATIENCE, || victim.family().is_empty());
}

pub(crate) fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("a process that is there");
}
