//! What a process or a thread has beside its rights, and what a child can give itself: umask, scheduling, and the like.
//!
//! Owns: nothing. Runs in: a parent reads them, a child sets them on itself. Never: changes another process.
#![expect(
    unsafe_code,
    reason = "nix has no wrapper for ioprio_get(2), sched_getscheduler(2) and some options of prctl(2)"
)]

use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{Mode, umask};
use serde::{Deserialize, Serialize};

use super::{limits, rights};

/// One of them, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Attribute {
    Umask(u32),
    /// `/proc/self/oom_score_adj`.
    OomScore(i32),
    /// `PR_SET_THP_DISABLE`.
    NoHugePages(bool),
    /// `PR_SET_DUMPABLE`.
    Dumpable(bool),
    /// Nanoseconds.
    TimerSlack(u64),
    /// Class and level in one number, as `ioprio_set(2)` takes them.
    IoPriority(i32),
    Niceness(i32),
    /// A policy, and the priority within it.
    Scheduling(i32, i32),
    /// No more of each than this; see [`rights::keep_capabilities`].
    Capabilities(rights::Capabilities),
}

/// `IOPRIO_WHO_PROCESS`.
const PROCESS: i32 = 1;
/// Where the class stands in an I/O priority.
const CLASS_SHIFT: i32 = 13;

/// Those of this process, but for the umask, which only `/proc` shows. What the kernel does not tell is left out.
pub(crate) fn of_process() -> Vec<Attribute> {
    let score = rights::read("/proc/self/oom_score_adj").unwrap_or_default();
    let score = std::str::from_utf8(&score).ok().and_then(|score| score.trim().parse().ok());
    let flag = |option| {
        // SAFETY: takes numbers and touches no memory.
        let answer = unsafe { libc::prctl(option, 0, 0, 0, 0) };
        (answer >= 0).then_some(answer == 1)
    };
    let huge = flag(libc::PR_GET_THP_DISABLE).map(Attribute::NoHugePages);
    let dumpable = flag(libc::PR_GET_DUMPABLE).map(Attribute::Dumpable);
    [score.map(Attribute::OomScore), huge, dumpable].into_iter().flatten().collect()
}

/// Those of a thread of this process, given by its number and its [name](rights::thread_name); of this one, if none is given.
/// What the kernel does not tell is left out.
pub(crate) fn of_thread(other: Option<(i32, &Path)>) -> Vec<Attribute> {
    let number = other.map_or(0, |(number, _)| number);
    let slack = match other {
        // SAFETY: takes numbers and touches no memory.
        None => u64::try_from(unsafe { libc::prctl(libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) }).ok(),
        Some((_, name)) => name.file_name().and_then(|name| {
            let slack = rights::read(&format!("/proc/{}/timerslack_ns", name.to_string_lossy())).unwrap_or_default();
            std::str::from_utf8(&slack).ok()?.trim().parse().ok()
        }),
    };
    // SAFETY: takes numbers and touches no memory.
    let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, PROCESS, number) };
    let priority = i32::try_from(priority).ok().filter(|priority| *priority >= 0);
    // Without a class, the level says nothing, and may not be set.
    let priority = priority.map(|priority| if priority >> CLASS_SHIFT == 0 { 0 } else { priority });
    // Before the policy: a thread may leave `SCHED_IDLE` only if it could take its niceness, too.
    let niceness = Some(Attribute::Niceness(limits::niceness(number)));
    [slack.map(Attribute::TimerSlack), priority.map(Attribute::IoPriority), niceness, scheduling(number)]
        .into_iter()
        .flatten()
        .collect()
}

fn scheduling(thread: i32) -> Option<Attribute> {
    // SAFETY: takes a number and touches no memory.
    let policy = unsafe { libc::sched_getscheduler(thread) };
    let mut parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel writes one structure, which is borrowed for the call.
    let answer = unsafe { libc::sched_getparam(thread, &raw mut parameters) };
    if policy < 0 || answer < 0 {
        return None;
    }
    // A thread that asks for it has children with the ordinary policy.
    let ordinary = policy & libc::SCHED_RESET_ON_FORK != 0 && policy != libc::SCHED_RESET_ON_FORK | libc::SCHED_IDLE;
    Some(if ordinary {
        Attribute::Scheduling(libc::SCHED_OTHER, 0)
    } else {
        Attribute::Scheduling(policy & !libc::SCHED_RESET_ON_FORK, parameters.sched_priority)
    })
}

impl Attribute {
    /// Gives it to this process and its only thread.
    ///
    /// Runs in: a child, before any user code.
    pub(crate) fn set(self) -> nix::Result<()> {
        match self {
            Self::Umask(mask) => {
                umask(Mode::from_bits_truncate(mask));
                Ok(())
            }
            Self::OomScore(score) => {
                std::fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(|error| super::errno_of(&error))
            }
            Self::NoHugePages(on) => set_option(libc::PR_SET_THP_DISABLE, u64::from(on)),
            Self::Dumpable(on) => set_option(libc::PR_SET_DUMPABLE, u64::from(on)),
            Self::TimerSlack(nanoseconds) => set_option(libc::PR_SET_TIMERSLACK, nanoseconds),
            Self::IoPriority(priority) => set_io_priority(priority),
            Self::Niceness(niceness) => limits::set_niceness(niceness),
            Self::Scheduling(policy, priority) => set_scheduling(policy, priority),
            Self::Capabilities(wanted) => rights::keep_capabilities(wanted),
        }
    }

    /// As [`set`](Self::set), but goes on as before where that takes a privilege: what an administrator raised for a running
    /// program, as by `renice` or `chrt`, its children cannot take for themselves.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub(crate) fn inherit(self) -> nix::Result<()> {
        let is_favour =
            matches!(self, Self::OomScore(_) | Self::IoPriority(_) | Self::Niceness(_) | Self::Scheduling(..));
        match self.set() {
            Err(Errno::EPERM | Errno::EACCES) if is_favour => Ok(()),
            answer => answer,
        }
    }

    /// What an error calls the step of setting it.
    pub(crate) fn step(self) -> &'static str {
        match self {
            Self::Umask(_) => "set its umask",
            Self::OomScore(_) => "set its oom_score_adj",
            Self::NoHugePages(_) => "set whether it has huge pages",
            Self::Dumpable(_) => "set whether it can be dumped",
            Self::TimerSlack(_) => "set its timer slack",
            Self::IoPriority(_) => "set its I/O priority",
            Self::Niceness(_) => "set its niceness",
            Self::Scheduling(..) => "set its scheduling class",
            Self::Capabilities(_) => "give up capabilities",
        }
    }
}

fn set_io_priority(priority: i32) -> nix::Result<()> {
    // SAFETY: takes numbers and touches no memory.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, priority) }).map(drop)
}

fn set_scheduling(policy: i32, priority: i32) -> nix::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel reads one structure, which is borrowed for the call.
    Errno::result(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)
}

fn set_option(option: i32, value: u64) -> nix::Result<()> {
    // SAFETY: takes numbers and touches no memory.
    Errno::result(unsafe { libc::prctl(option, value, 0, 0, 0) }).map(drop)
}
