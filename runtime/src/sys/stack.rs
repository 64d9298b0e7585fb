//! The space that is left on a thread's stack, for code that recurses as deep as its input asks.
//!
//! Owns: for each thread, the address from which its stack is scarce. Runs in: any process.
//! Invariant: a stack that the kernel and glibc do not know as this thread's never counts as scarce.
#![expect(unsafe_code, reason = "nix has no wrapper for pthread_getattr_np(3)")]

use std::cell::Cell;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr::{self, null_mut};

use nix::libc;

/// Number of bytes that must be left, or a quarter of the stack if that is less.
const SPARE_BYTES: usize = 128 << 10;

/// Not measured yet: every address may be scarce.
const UNKNOWN: (usize, usize) = (0, usize::MAX);

thread_local! {
    /// The range of addresses in which the stack is scarce.
    static SCARCE: Cell<(usize, usize)> = const { Cell::new(UNKNOWN) };
}

/// Returns whether this thread has so little stack left that recursion should end.
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

/// Finds this thread's stack, again if its limit has changed. Returns its lowest address.
pub(crate) fn find() -> usize {
    let Range { start, end } = bounds();
    SCARCE.set((start, start.saturating_add(SPARE_BYTES.min((end - start) / 4))));
    start
}

/// `pthread_getattr_np(3)`: the range that this thread's stack may use under its present limit.
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

    /// Recurses until the stack is scarce, and returns how much is left.
    fn dive(bottom: usize) -> usize {
        let memory = std::hint::black_box([0_u8; 1024]);
        let here = ptr::from_ref(&memory).addr();
        if is_scarce() { here - bottom } else { dive(std::hint::black_box(bottom)) }
    }

    #[test]
    fn stack_is_scarce_near_its_end_only() {
        // One that is asked for may have been a larger one's before.
        let thread =
            |size| std::thread::Builder::new().stack_size(size).spawn(|| (bounds().len(), dive(bounds().start)));
        for size in [1 << 20, 128 << 10] {
            let (len, left) = thread(size).unwrap().join().unwrap();
            let spare = SPARE_BYTES.min(len / 4);
            assert!(len >= size && (spare - (8 << 10)..spare + (8 << 10)).contains(&left), "{left} of {len}");
        }
    }
}
