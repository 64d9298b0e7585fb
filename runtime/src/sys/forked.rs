//! Notices that the host program called `fork()`: the copy must not use what belongs to the original.
//!
//! Owns: the generation counter, and two kinds of statics that a copy finds as new: [`Own`] and [`Gate`].
//! Runs in: any process. Never: costs a system call to ask.
#![expect(unsafe_code, reason = "nix has no wrapper for pthread_atfork(3)")]

use std::num::NonZeroU32;
use std::sync::Once;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::libc;

static GENERATION: AtomicU32 = AtomicU32::new(0);

/// How many `fork()`s lie between this process and the one that was started by exec.
///
/// Code that keeps something for one process only notes the number, and compares it before use.
pub(crate) fn generation() -> u64 {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // SAFETY: the handler only adds to an atomic, which is allowed after fork.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    });
    GENERATION.load(Relaxed).into()
}

extern "C" fn forked() {
    GENERATION.fetch_add(1, Relaxed);
}

/// A number that belongs to one process: a copy made by `fork()` finds that it has none.
///
/// It stands above the generation that it was set in, so a look is two loads, and a reset costs nothing. A thread that sees
/// the number also sees what was done before it was set.
#[derive(Debug)]
pub(crate) struct Own(AtomicU64);

impl Own {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The number, if this very process has set it.
    #[inline]
    pub(crate) fn get(&self) -> Option<NonZeroU32> {
        let word = self.0.load(Acquire);
        let number = NonZeroU32::new((word >> 32) as u32)?;
        (word & u64::from(u32::MAX) == u64::from(GENERATION.load(Relaxed))).then_some(number)
    }

    pub(crate) fn set(&self, number: NonZeroU32) {
        let generation = generation() & u64::from(u32::MAX);
        self.0.store(u64::from(number.get()) << 32 | generation, Release);
    }
}

/// A lock for what a process does once: open in a copy made by `fork()`, even if a thread that is not there held it.
///
/// A waiting thread yields its processor: what the gate guards must be short, and consistent at any moment.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU64);

impl Gate {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Waits until no other thread of this process is inside.
    pub(crate) fn enter(&self) -> Inside<'_> {
        let inside = generation() + 1;
        loop {
            let seen = self.0.load(Relaxed);
            if seen != inside && self.0.compare_exchange(seen, inside, Acquire, Relaxed).is_ok() {
                return Inside(&self.0);
            }
            std::thread::yield_now();
        }
    }
}

/// The [`Gate`] is shut behind this thread until it is dropped.
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a AtomicU64);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.store(0, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_as_long_as_the_process_is_the_same() {
        let own = Own::new();
        assert_eq!(own.get(), None);
        for number in [1, u32::MAX] {
            own.set(NonZeroU32::new(number).unwrap());
            assert_eq!(own.get(), NonZeroU32::new(number));
        }
    }

    #[test]
    fn one_thread_at_a_time_is_inside() {
        static GATE: Gate = Gate::new();
        let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let _inside = GATE.enter();
                        most.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                        inside.fetch_sub(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(most.load(Relaxed), 1);
    }
}
