//! A fence with a cheap half for what is done often and a dear one for what is done seldom: `membarrier(2)`.
//!
//! Owns: whether this process is one of those that the kernel interrupts. Runs in: any process.
//! Never: orders anything by itself; one of the two threads in question runs [`light`], the other one [`heavy`].
//!
//! Two threads that each write one word and then read the other's need a fence in between, or each may miss what the other
//! wrote. Here one of them has only a compiler fence. The other asks the kernel to interrupt each processor that runs a
//! thread which may be in between. That is a fence to each of these threads; a thread that is not running had one when it
//! was stopped.

#![expect(unsafe_code, reason = "nix has no wrapper for membarrier(2)")]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, compiler_fence, fence};

use nix::libc;

use super::process;

/// Whether the kernel knows this process. A copy made by `fork()` is known as well.
static KNOWN: AtomicBool = AtomicBool::new(false);

/// Has this process interrupted whenever a thread of any process runs [`heavy`], if it has one thread: then it costs 3 us.
///
/// It may come at any time, so a program that shares nothing need not make the call at all. Until the kernel has answered,
/// [`light`] is a whole fence. The answer comes once all threads of this process will be interrupted.
pub(crate) fn register_if_alone() {
    if !KNOWN.load(Relaxed) && process::thread_count() == 1 {
        register();
    }
}

/// As [`register_if_alone`], also with more threads: then the kernel takes 5 to 15 ms, on a thread that ends with it.
pub(crate) fn register_soon() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    register_if_alone();
    if !KNOWN.load(Relaxed) && !ASKED.swap(true, Relaxed) {
        // Without a thread for it, fences are what they are now.
        let _ = std::thread::Builder::new().name("process-task".to_owned()).spawn(register);
    }
}

fn register() {
    KNOWN.store(run(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED), Release);
}

/// The cheap half: what this thread has written is seen by a thread that has run [`heavy`] since, or this thread sees what
/// that one wrote before.
#[inline]
pub(crate) fn light() {
    // Acquire: a thread that finds the process known also sees what was written before a `heavy` that did not know it yet.
    if KNOWN.load(Acquire) {
        compiler_fence(SeqCst);
    } else {
        fence(SeqCst);
    }
}

/// The dear half. False: the kernel does not do it.
#[must_use = "without it, what others wrote may be missed"]
pub(crate) fn heavy() -> bool {
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
    fn of_two_that_write_and_then_look_one_sees_what_the_other_wrote() {
        one_of_two_sees_the_other(|_| ());
    }

    #[test]
    fn registering_between_two_looks_misses_nothing() {
        one_of_two_sees_the_other(|round| {
            if round == 1000 {
                register();
            }
        });
        assert!(KNOWN.load(Relaxed));
    }

    fn one_of_two_sees_the_other(before_round: impl Fn(u32)) {
        const ROUNDS: u32 = 20_000;
        let (often, seldom) = (AtomicU64::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            // In which turn each round was not seen yet, for the last time.
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
                assert!(heavy(), "the kernel does not do it");
                turns.push(often.load(Relaxed));
            }
            for (round, (turn, unseen)) in turns.into_iter().zip(unseen.join().unwrap()).enumerate() {
                assert!(unseen <= turn, "round {round} and turn {unseen} saw nothing of each other");
            }
        });
    }
}
