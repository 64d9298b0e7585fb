//! A process that goes one instruction at a time, and is killed or stopped after as many as a test likes: so every moment of an
//! operation has its turn, also those that last for nanoseconds.
//!
//! Runs in: the test process, on the thread that follows. Never: follows a process that it did not start.

use std::hint::spin_loop;
use std::sync::atomic::Ordering::SeqCst;

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use process_task::Process;

use crate::support::shared_counter::{Stage, until, until_killed};

/// What makes glibc copy in a loop of moves of 32 bytes, not by one instruction that is a step for each byte: three
/// quarters of the steps of an operation with a long item.
pub(crate) const SHORT_COPIES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1000000000");

const READY: u32 = 1;
const BEGUN: u32 = 2;
const DONE: u32 = 3;

/// In the process: does `operation` as soon as a tracer follows, says so, and waits to be killed.
pub(crate) fn followed(stage: &Stage, operation: impl FnOnce()) {
    stage.store(READY, SeqCst);
    while stage.load(SeqCst) < BEGUN {
        spin_loop();
    }
    operation();
    stage.store(DONE, SeqCst);
    until_killed();
}

/// A process that stands still in the middle of its operation.
pub(crate) struct Followed {
    pid: Pid,
    process: Process<()>,
    /// How many instructions it has done, and whether it has come to the end of the operation.
    pub(crate) steps: usize,
    pub(crate) is_done: bool,
}

impl Followed {
    /// Lets the process do so many instructions of its operation, or all of them.
    pub(crate) fn follow(process: Process<()>, stage: &Stage, most: usize) -> Self {
        until(stage, READY);
        let pid = Pid::from_raw(process.pid().expect("it was started").cast_signed());
        ptrace::seize(pid, ptrace::Options::empty()).expect("a process that can be followed");
        ptrace::interrupt(pid).expect("it is followed");
        // They take turns: on one processor that takes a quarter of the time.
        let mut here = CpuSet::new();
        here.set(sched_getcpu().expect("a processor")).expect("one of those there are");
        for one in [pid, Pid::from_raw(0)] {
            sched_setaffinity(one, &here).expect("a processor that it may use");
        }
        let mut followed = Self { pid, process, steps: 0, is_done: false };
        followed.is_still();
        stage.store(BEGUN, SeqCst);
        while followed.steps < most && !followed.is_done {
            ptrace::step(pid, None).expect("it stands still");
            followed.is_still();
            followed.steps += 1;
            followed.is_done = stage.load(SeqCst) == DONE;
        }
        followed
    }

    fn is_still(&self) {
        let status = waitpid(self.pid, Some(WaitPidFlag::__WALL));
        let still = matches!(status, Ok(WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..)));
        assert!(still, "it does not stand still: {status:?}");
    }

    /// Kills it where it stands. Whether it had come to the end of its operation.
    pub(crate) fn kill(self) -> bool {
        kill(self.pid, Signal::SIGKILL).expect("it is there");
        while !matches!(waitpid(self.pid, Some(WaitPidFlag::__WALL)), Ok(WaitStatus::Signaled(..))) {}
        self.process.join().expect_err("it was killed");
        self.is_done
    }

    /// Lets it go on, to the end of the operation, and kills it then.
    pub(crate) fn go_on(self, stage: &Stage) {
        ptrace::detach(self.pid, None).expect("it stands still");
        until(stage, DONE);
        self.process.kill().expect("it is there");
        self.process.join().expect_err("it was killed");
    }
}

/// Calls `each` for moments of an operation, as numbers of instructions: `count` of the `all` that it takes.
pub(crate) fn moments(all: usize, count: usize, mut each: impl FnMut(usize)) {
    (0..count).for_each(|number| each(all * number / count + number * 7 % (all / count).max(1)));
}
