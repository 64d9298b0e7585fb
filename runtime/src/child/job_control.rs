//! Job control: stops children when the terminal stops their program, and continues them with it.
//!
//! Runs in: the fork server.
//! Invariant: only children of a stopped program are stopped, and only those that were stopped here are continued.
//!
//! A child leads a process group of its own, so that it can be killed with all that it started, and so that Ctrl-C reaches the
//! program alone. Therefore Ctrl-Z does not reach the child either, nor does the SIGCONT of the shell's `fg`. Where the program
//! has a terminal, its fork server is a member of the program's own process group and gets both.
//!
//! SIGTSTP says that the program may stop: it can also ignore the signal, or handle it and stop later. So the state of the
//! program decides. It is looked at for [`CLOSE_WATCH_TIME`] after each such signal; the children are stopped when the program was. While
//! they are, it is looked at now and then, since a program can also be continued alone.
//!
//! What tasks start is stopped with them. It may be in groups of its own, as the children of a task's own fork server are; so each
//! process below a child that is in no child's group is stopped by itself, parents first, and continued in the other order.
//! A process that has left the session belongs to no job.
//!
//! A program that is stopped alone (`kill -STOP` with its process id) sends no signal to its group, so its children run on. So
//! do those of a program without a terminal.
//!
//! Why the fork server is a member of the program's process group only where there is a terminal: as a member it gets
//! SIGTSTP and SIGCONT, and nothing else says that its parent was stopped. Otherwise a group of its own is better.
//! After `kill -9` of the program's group, the server still kills what tasks have started. The same goes below a
//! task, whose whole group is killed at its end.
//!
//! Why no third process watches from within the program's group: Ctrl-Z would then stop programs that no shell can
//! continue, since the group would not count as orphaned any more.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use crate::sys::process::{self, Pid};
use crate::sys::{fd, signal};

/// How long a program may take to stop after a signal that asks it to, before it counts as one that goes on.
const CLOSE_WATCH_TIME: Duration = Duration::from_secs(1);

/// The pause between two looks during that time.
const SHORT_INTERVAL: Duration = Duration::from_millis(10);

/// The pause between two looks at a program that is stopped.
const LONG_INTERVAL: Duration = Duration::from_millis(250);

/// What the fork server knows of its program's stops.
pub(super) struct JobControl {
    program: Pid,
    /// Until when the program is looked at closely.
    closely: Option<Instant>,
    /// What was stopped because the program was; `None` while it runs.
    stopped: Option<Stopped>,
}

/// Processes that were stopped.
struct Stopped {
    /// Children, each with its group.
    children: BTreeSet<Pid>,
    /// Processes below children, in no child's group. Pidfds, since others reap them.
    others: Vec<OwnedFd>,
}

impl JobControl {
    pub(super) fn of(program: Pid) -> Self {
        Self { program, closely: None, stopped: None }
    }

    /// A signal of job control came.
    pub(super) fn signalled(&mut self) {
        self.closely = Some(Instant::now() + CLOSE_WATCH_TIME);
    }

    /// Whether the program may be about to stop, or to go on.
    pub(super) fn is_unclear(&self) -> bool {
        self.closely.is_some()
    }

    /// Whether the program was stopped, and its children with it.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// When to look again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let pause = if self.is_unclear() { SHORT_INTERVAL } else { LONG_INTERVAL };
        (self.is_unclear() || self.is_stopped()).then(|| Instant::now() + pause)
    }

    /// Looks at the program if there is a reason to; stops or continues `children` when it was.
    pub(super) fn look(&mut self, children: impl Iterator<Item = Pid>) {
        if !self.is_unclear() && !self.is_stopped() {
            return;
        }
        match (process::is_stopped(self.program), self.stopped.take()) {
            (true, None) => {
                self.stopped = Some(Stopped::now(&children.collect()));
                self.closely = None;
            }
            (false, Some(stopped)) => {
                stopped.go_on(children);
                self.closely = None;
            }
            (_, before) => self.stopped = before,
        }
        if self.closely.is_some_and(|until| Instant::now() >= until) {
            self.closely = None;
        }
    }

    /// Whether `child` was stopped because the program was.
    pub(super) fn has_stopped(&self, child: Pid) -> bool {
        self.stopped.as_ref().is_some_and(|stopped| stopped.children.contains(&child))
    }
}

impl Stopped {
    /// Stops `all` children that run, and what is below them.
    fn now(all: &BTreeSet<Pid>) -> Self {
        let runs = |child: &&Pid| process::leads_group(**child) && !process::is_stopped(**child);
        let children: BTreeSet<_> = all.iter().filter(runs).copied().collect();
        for child in &children {
            process::signal_group(*child, signal::STOP);
        }
        let mut others = Vec::new();
        let mut known = all.clone();
        // A process may have started one more while its parent was being stopped.
        while let more = Self::stop_below(&mut known, all)
            && !more.is_empty()
        {
            others.extend(more);
        }
        Self { children, others }
    }

    /// Stops processes below those of `known`, and enters them there.
    fn stop_below(known: &mut BTreeSet<Pid>, children: &BTreeSet<Pid>) -> Vec<OwnedFd> {
        let Some(session) = process::stat(process::own_pid()).map(|own| own.session) else { return Vec::new() };
        let (mut stopped, mut all) = (Vec::new(), process::all());
        all.retain(|(pid, stat)| stat.session == session && !known.contains(pid));
        while let Some(at) = all.iter().position(|(_, stat)| known.contains(&stat.parent)) {
            let (pid, seen) = all.swap_remove(at);
            known.insert(pid);
            if seen.is_stopped || children.contains(&seen.group) {
                continue;
            }
            // If it still has this parent once the pidfd is open, that is a pidfd of the process that was seen.
            let Ok(pidfd) = fd::pidfd(pid) else { continue };
            let is_the_same = process::stat(pid).is_some_and(|now| now.parent == seen.parent);
            if is_the_same && fd::signal(pidfd.as_fd(), signal::STOP).is_ok() {
                stopped.push(pidfd);
            }
        }
        stopped
    }

    /// Continues what was stopped: `all` are the children that have not ended.
    fn go_on(self, all: impl Iterator<Item = Pid>) {
        for other in self.others.iter().rev() {
            let _ = fd::signal(other.as_fd(), signal::CONT);
        }
        for child in all.filter(|child| self.children.contains(child)) {
            process::signal_group(child, signal::CONT);
        }
    }
}
