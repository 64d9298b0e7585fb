//! A mapping that begins with atomic words that several processes write.
//!
//! Owns: [`MappedHeader`]. Runs in: any process.
//! Invariant: bytes that another process may write are never behind a plain reference.
#![expect(unsafe_code, reason = "seeing atomic words in mapped memory")]

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU32;

use crate::sys;
use crate::sys::memory::{Access, Map};

/// Where the bytes behind the words begin: at the second page.
const BYTES_OFFSET: usize = 4096;

/// Words at the start of shared memory.
///
/// # Safety
/// 1. Memory that is all zero is a valid value.
/// 2. Every field is an atomic, or an array of atomics: another process may write it at any time.
/// 3. The size is at most one page, and the alignment at most that of a page.
pub(crate) unsafe trait HeaderWords: 'static {}

/// Implements [`HeaderWords`] for structs of atomics, wherever they are declared; the duties are checked as far as can be.
macro_rules! words {
    ($($name:ident { $($field:ident: $check:ty),* $(,)? })*) => { $(
        const _: () = {
            // Duty 2: every field is named here with its type, and these types are atomics or arrays of them.
            fn _fields(words: &$name) {
                $( let _: &$check = &words.$field; )*
            }
            #[expect(unsafe_code, reason = "memory that several processes map")]
            // SAFETY: atomics of zero are valid (duty 1), all fields are atomics (duty 2), and `MappedHeader::map` checks duty 3.
            unsafe impl $crate::shared::HeaderWords for $name {}
        };
    )* };
}
pub(crate) use words;

/// A mapping: words of type `W`, then bytes.
#[derive(Debug)]
pub(crate) struct MappedHeader<W> {
    map: Map,
    words: PhantomData<W>,
}

impl<W: HeaderWords> MappedHeader<W> {
    /// Returns the size of memory with `len` bytes behind the words.
    pub(crate) const fn size_with(len: usize) -> usize {
        BYTES_OFFSET + len
    }

    /// Maps memory that has `len` bytes behind the words.
    pub(crate) fn map(fd: BorrowedFd<'_>, len: usize, access: Access) -> sys::Result<Self> {
        const { assert!(size_of::<W>() <= BYTES_OFFSET && align_of::<W>() <= BYTES_OFFSET, "duty 3 of `HeaderWords`") };
        let map = Map::new(fd, Self::size_with(len), access)?;
        map.populate(2 * BYTES_OFFSET);
        Ok(Self { map, words: PhantomData })
    }

    /// Returns the words. Storing to them through a mapping that is for reading is a fault in the process that stores.
    pub(crate) fn words(&self) -> &W {
        debug_assert!(self.map.len() >= size_of::<W>());
        // SAFETY: the mapping is page-aligned and at least a page long (duty 3 of `HeaderWords`), starts out as zero (duty 1),
        // and what others write to it, they write to atomics (duty 2).
        unsafe { self.map.start().cast::<W>().as_ref() }
    }

    /// Returns a word behind the words; `at` counts from their end, in bytes.
    ///
    /// The caller's protocol reads and writes it as this word only, or else from one thread at a time.
    ///
    /// # Panics
    /// If it does not lie inside, at a multiple of 4. Storing to it through a mapping that is for reading is a fault.
    #[inline]
    pub(crate) fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(size_of::<u32>()) && at < self.map.len() - BYTES_OFFSET - 3, "no word at {at}");
        // SAFETY: the assertion keeps it inside the mapping, which is more than a page long.
        let word = unsafe { self.map.start().add(BYTES_OFFSET + at) };
        // SAFETY: mapped as long as `self` lives, and aligned, as `BYTES_OFFSET` and `at` are; any bytes are such a word.
        unsafe { word.cast::<AtomicU32>().as_ref() }
    }

    /// See [`Map::read`]; `at` counts from the end of the words.
    #[inline]
    pub(crate) fn read(&self, at: usize, into: &mut [u8]) {
        self.map.read(BYTES_OFFSET + at, into);
    }

    /// See [`Map::write`]; `at` counts from the end of the words.
    #[inline]
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        self.map.write(BYTES_OFFSET + at, bytes);
    }

    /// See [`Map::lend`]; `at` counts from the end of the words.
    pub(crate) fn lend(&self, at: usize, len: usize) -> &[u8] {
        self.map.lend(BYTES_OFFSET + at, len)
    }
}
