//! A fence with a cheap half for what is done often and a dear one for what is done seldom: `membarrier(2)`.
//!
//! Owns: whether this process is one of those that the kernel interrupts. Runs in: any process.
//! Never: orders anything by itself; one of the two threads in question runs [`light`], the other one [`heavy`].
//!
//! Two threads that each write one word and then read the other's need a fence in between, or each may miss what the other
//! wrote. Here one of them has none, but for the compiler. The other asks the kernel to interrupt all processors on which
//! somebody runs who may be in between, which is a fence to each of these; and who does not run had one when it stopped.

#![expect(unsafe_code, reason = "nix has no wrapper for membarrier(2)")]

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, compiler_fence, fence};

use nix::libc;

/// Whether the kernel knows this process. A copy made by `fork()` is known as well.
static KNOWN: AtomicBool = AtomicBool::new(false);

/// Has this process interrupted whenever anybody runs [`heavy`].
///
/// Runs in: every process, before `main`: as long as there is one thread it costs half a microsecond.
pub(crate) fn register() {
    KNOWN.store(run(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED), Relaxed);
}

/// The cheap half: what this thread has written is seen by whoever has run [`heavy`], or this thread sees what
/// that one wrote before.
#[inline]
pub(crate) fn light() {
    if KNOWN.load(Relaxed) {
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
