//! The allocator of unit tests, which knows the largest piece of memory that a thread has asked for.
//!
//! Owns: nothing. Runs in: the process of the library's unit tests.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Number of bytes of the largest piece of memory that this thread asks for in `run`.
pub(crate) fn largest_within(run: impl FnOnce()) -> usize {
    LARGEST.set(0);
    run();
    LARGEST.get()
}

fn note(bytes: usize) {
    // A thread that ends has none any more.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
}

// SAFETY: each method does what the system's allocator does, whose results are passed on unchanged; noting a number in a `Cell` that
// needs no destructor allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `System` by a method of this type, with this layout.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note(bytes);
        // SAFETY: as for `dealloc`; the caller keeps the contract for `bytes`.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_piece_is_of_this_thread() {
        assert_eq!(largest_within(|| ()), 0);
        let largest = largest_within(|| {
            drop((vec![1_u8; 1000], vec![0_u8; 5000]));
            std::thread::spawn(|| drop(vec![1_u8; 1 << 20])).join().unwrap();
        });
        assert!((5000..1 << 20).contains(&largest), "{largest}");
    }
}
