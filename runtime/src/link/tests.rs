//! What the window promises to one thread and to two; `tests/model.rs` says the same of every interleaving.
//!
//! Runs in: the test's process.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;

use super::window::{LOOK_AHEAD, Window, claim, push, take_back};

#[test]
fn what_is_pushed_is_claimed_once_or_taken_back() {
    // Close to the end of both counters, so that they wrap.
    let word = AtomicU64::new(u64::from(u32::MAX - 1) << 32 | u64::from(u32::MAX - 1));
    assert!(!claim(&word));
    (0..5).for_each(|_| push(&word));
    assert!(claim(&word));
    assert_eq!(take_back(&word, 2), 2);
    assert!(claim(&word) && claim(&word));
    assert!(!claim(&word));
    assert_eq!(take_back(&word, 9), 0);
    assert_eq!(Window::look(&word).unclaimed(), 0);
}

#[test]
fn threads_that_claim_and_take_back_never_meet() {
    let word = AtomicU64::new(0);
    let mut pushed = 0u32;
    let (mut back, mut claimed) = (0u32, 0u32);
    std::thread::scope(|scope| {
        let child = scope.spawn(|| {
            let mut claimed = 0u32;
            while word.load(Acquire) != u64::MAX {
                claimed += u32::from(claim(&word));
                if claimed % 64 == 63 {
                    std::thread::yield_now();
                }
                if claimed >= 10_000 {
                    break;
                }
            }
            claimed
        });
        while !child.is_finished() {
            if Window::look(&word).unclaimed() < LOOK_AHEAD {
                push(&word);
                pushed += 1;
            } else {
                back += take_back(&word, 3);
            }
        }
        claimed = child.join().unwrap();
    });
    assert_eq!(pushed, claimed + back + Window::look(&word).unclaimed());
}
