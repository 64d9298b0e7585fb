//! An asymmetric fence, with a cheap half for the frequent side and an expensive half for the rare one: `membarrier(2)`.
//!
//! Owns: whether the kernel interrupts this process for it. Runs in: any process.
//! Invariant: one of the two threads runs [`light`], the other one [`barrier_all`]. Neither orders anything alone.
//!
//! Two threads that each write one word and then read the other's need a fence in between, or each may miss what the other
//! wrote. Here one of them has only a compiler fence. The other asks the kernel to interrupt each processor that runs a
//! thread which may be in between. That is a fence to each of these threads; a thread that is not running had one when it
//! was stopped.
//!
//! Why not two fences: with an exchange to give it back, a lock and its unlock took 11 ns instead of 7. A queue
//! waited for the producer's last writes to reach the other processor. A process registers before it shares its first
//! memory. With one thread that costs 3 us. With more it takes the kernel 10 ms, so another thread does it, and
//! fences are whole until then. Where the kernel refuses, sleepers look again each millisecond.

#![expect(unsafe_code, reason = "nix has no wrapper for membarrier(2)")]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, compiler_fence, fence};

use nix::libc;

use super::process;

/// Whether this process is registered with the kernel. A copy made by `fork()` is registered as well.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Registers this process for [`barrier_all`] of any process, if it has one thread: then it costs 3 us.
///
/// It may be called at any time, so a program that shares nothing need not call it at all. Until the kernel has answered,
/// [`light`] is a full fence. The kernel answers once it will interrupt all threads of this process.
pub(crate) fn register_if_alone() {
    if !REGISTERED.load(Relaxed) && process::thread_count() == 1 {
        register();
    }
}

/// As [`register_if_alone`], also with more threads. Then the kernel takes 5 to 15 ms, on a thread made for it.
pub(crate) fn register_in_background() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    register_if_alone();
    if !REGISTERED.load(Relaxed) && !ASKED.swap(true, Relaxed) {
        // If no thread can be made, fences stay full.
        let _ = std::thread::Builder::new().name("process-task".to_owned()).spawn(register);
    }
}

fn register() {
    REGISTERED.store(run(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED), Release);
}

/// The cheap half. A thread that runs [`barrier_all`] later sees what this thread wrote before, or this thread sees what that
/// one wrote before.
#[inline]
pub(crate) fn light() {
    // Acquire: a thread that finds the process registered also sees what was written before a `barrier_all` that came earlier.
    if REGISTERED.load(Acquire) {
        compiler_fence(SeqCst);
    } else {
        fence(SeqCst);
    }
}

/// The expensive half. Returns false if the kernel does not support it.
#[must_use = "without it, writes of other threads may be missed"]
pub(crate) fn barrier_all() -> bool {
    fence(SeqCst);
    run(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED)
}

fn run(command: i32) -> bool {
    let none: libc::c_int = 0;
    // SAFETY: the call has no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, none, none) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, AtomicU64};

    #[test]
    fn one_of_two_writers_sees_the_other() {
        one_of_two_sees_the_other(|_| ());
    }

    #[test]
    fn registration_between_two_reads_misses_no_write() {
        one_of_two_sees_the_other(|round| {
            if round == 1000 {
                register();
            }
        });
        assert!(REGISTERED.load(Relaxed));
    }

    fn one_of_two_sees_the_other(before_round: impl Fn(u32)) {
        const ROUNDS: u32 = 20_000;
        let (often, seldom) = (AtomicU64::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            // For each round, the last turn that did not see it.
            let unseen = scope.spawn(|| {
                let mut unseen = vec![0];
                for turn in 1.. {
                    often.store(turn, Relaxed);
                    light();
                    let seen = seldom.load(Relaxed);
                    unseen.resize(seen as usize + 1, turn - 1);
                    if seen == ROUNDS {
                        break;
                    }
                }
                unseen
            });
            while often.load(Relaxed) == 0 {
                std::thread::yield_now();
            }
            let mut turns = vec![0];
            for round in 1..=ROUNDS {
                before_round(round);
                seldom.store(round, Relaxed);
                assert!(barrier_all(), "the kernel does not do it");
                turns.push(often.load(Relaxed));
            }
            for (round, (turn, unseen)) in turns.into_iter().zip(unseen.join().unwrap()).enumerate() {
                assert!(unseen <= turn, "round {round} and turn {unseen} saw nothing of each other");
            }
        });
    }
}
