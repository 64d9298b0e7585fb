//! Detects that the host program called `fork()`: the copy must not use what belongs to the original.
//!
//! Owns: the generation counter, and two kinds of statics that are new in a copy: [`ProcessLocal`] and [`ForkSafeLock`].
//! Runs in: any process. Asking costs no system call.
#![expect(unsafe_code, reason = "nix has no wrapper for pthread_atfork(3)")]

use std::num::NonZeroU32;
use std::sync::Once;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::libc;

static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Returns the number of `fork()`s between this process and the one that was started by exec.
///
/// Code that keeps something for one process only stores this number beside it, and compares it before use.
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

/// A number that belongs to one process. It is unset in a copy made by `fork()`.
///
/// The word contains the generation in which it was set, so reading it is two loads, and a reset costs nothing. A thread that
/// sees the number also sees what was done before it was set.
#[derive(Debug)]
pub(crate) struct ProcessLocal(AtomicU64);

impl ProcessLocal {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Returns the number, if this process has set it.
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

/// A lock for initialization. It is free in a copy made by `fork()`, even if a thread that the copy does not have held it.
///
/// A waiting thread yields its CPU. What the lock guards must be short, and consistent at any moment.
#[derive(Debug)]
pub(crate) struct ForkSafeLock(AtomicU64);

impl ForkSafeLock {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes the lock, waiting until no other thread of this process holds it.
    pub(crate) fn lock(&self) -> ForkSafeGuard<'_> {
        let inside = generation() + 1;
        loop {
            let seen = self.0.load(Relaxed);
            if seen != inside && self.0.compare_exchange(seen, inside, Acquire, Relaxed).is_ok() {
                return ForkSafeGuard(&self.0);
            }
            std::thread::yield_now();
        }
    }
}

/// Holds a [`ForkSafeLock`] until dropped.
#[derive(Debug)]
pub(crate) struct ForkSafeGuard<'a>(&'a AtomicU64);

impl Drop for ForkSafeGuard<'_> {
    fn drop(&mut self) {
        self.0.store(0, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_local_number_stays_in_its_process() {
        let own = ProcessLocal::new();
        assert_eq!(own.get(), None);
        for number in [1, u32::MAX] {
            own.set(NonZeroU32::new(number).unwrap());
            assert_eq!(own.get(), NonZeroU32::new(number));
        }
    }

    #[test]
    fn one_thread_at_a_time_holds_the_lock() {
        static LOCK: ForkSafeLock = ForkSafeLock::new();
        let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let _inside = LOCK.lock();
                        most.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                        inside.fetch_sub(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(most.load(Relaxed), 1);
    }
}
