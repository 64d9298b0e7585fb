//! How much of its stack a thread has left, for code that recurses as deep as its input says.
//!
//! Owns: for each thread, where its stack begins to be scarce. Runs in: any process.
//! Never: guesses. Of a stack that the kernel and glibc do not know as this thread's, nothing is said.
#![expect(unsafe_code, reason = "nix has no wrapper for pthread_getattr_np(3)")]

use std::cell::Cell;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr::{self, null_mut};

use nix::libc;

/// What has to be left, if a quarter of the stack is not less.
const SPARE: usize = 128 << 10;

/// Not measured yet: everywhere may be scarce.
const UNKNOWN: (usize, usize) = (0, usize::MAX);

thread_local! {
    /// From where to where the stack is scarce.
    static SCARCE: Cell<(usize, usize)> = const { Cell::new(UNKNOWN) };
}

/// Whether this thread has so little stack left that code which may choose its depth should go no deeper.
#[inline]
pub(crate) fn is_scarce() -> bool {
    let mark = Cell::new(0_u8);
    let here = ptr::from_ref(&mark).addr();
    is_scarce_at(here) && (SCARCE.get() != UNKNOWN || found_scarce(here))
}

#[inline]
fn is_scarce_at(here: usize) -> bool {
    let (from, to) = SCARCE.get();
    from <= here && here < to
}

#[cold]
fn found_scarce(here: usize) -> bool {
    find();
    is_scarce_at(here)
}

/// Looks where this thread's stack is, again if its limit has changed. The lowest address of it.
pub(crate) fn find() -> usize {
    let Range { start, end } = bounds();
    SCARCE.set((start, start.saturating_add(SPARE.min((end - start) / 4))));
    start
}

/// `pthread_getattr_np(3)`: from where to where this thread's stack may reach under its present limit.
fn bounds() -> Range<usize> {
    // SAFETY: all zero is a place to put an attribute object into.
    let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
    // SAFETY: takes nothing and returns this thread's handle.
    let thread = unsafe { libc::pthread_self() };
    // SAFETY: initialises `attributes`, which is borrowed for the call.
    if unsafe { libc::pthread_getattr_np(thread, &raw mut attributes) } != 0 {
        return 0..0;
    }
    let (mut low, mut size) = (null_mut::<c_void>(), 0);
    // SAFETY: `attributes` was initialised by the call above; the two results are borrowed for the call.
    unsafe { libc::pthread_attr_getstack(&raw const attributes, &raw mut low, &raw mut size) };
    // SAFETY: `attributes` was initialised by the call above, and is not used again.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    low.addr()..low.addr().saturating_add(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes down as long as it may. How much is left then.
    fn dive(bottom: usize) -> usize {
        let memory = std::hint::black_box([0_u8; 1024]);
        let here = ptr::from_ref(&memory).addr();
        if is_scarce() { here - bottom } else { dive(std::hint::black_box(bottom)) }
    }

    #[test]
    fn a_stack_is_scarce_near_its_end_and_nowhere_else() {
        // One that is asked for may have been a larger one's before.
        let thread =
            |size| std::thread::Builder::new().stack_size(size).spawn(|| (bounds().len(), dive(bounds().start)));
        for size in [1 << 20, 128 << 10] {
            let (len, left) = thread(size).unwrap().join().unwrap();
            let spare = SPARE.min(len / 4);
            assert!(len >= size && (spare - (8 << 10)..spare + (8 << 10)).contains(&left), "{left} of {len}");
        }
    }
}
