//! Memory that is split into ranges for writing, each lent to one holder at a time.
//!
//! Owns: the arithmetic of ranges. Runs in: any process.
//! Invariant: the locks of [`SharedRanges`](crate::SharedRanges) say which process may write; nothing here does.
#![expect(unsafe_code, reason = "references to values in mapped memory")]

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::handle::attach;
use super::region::{Region, RegionType};
use crate::codec::CodecError;
use crate::codec::handles;
use crate::shared::{Shareable, Shared};
use crate::sys::fd::FileId;

/// A region of `T`s, in ranges.
#[derive(Debug)]
pub(crate) struct RawRanges<T> {
    region: Arc<Region>,
    values: PhantomData<T>,
}

impl<T> Clone for RawRanges<T> {
    fn clone(&self) -> Self {
        Self { region: Arc::clone(&self.region), values: PhantomData }
    }
}

impl<T: Shareable + Send> RawRanges<T> {
    /// Splits a region into ranges of `len` values, with locks in the region `locks`. Returns it as the error if the caller does
    /// not own it alone.
    pub(crate) fn split(region: Arc<Region>, len: usize, locks: FileId) -> Result<Self, Arc<Region>> {
        let mut region = Arc::try_unwrap(region)?;
        region.split(len, locks);
        // From now on other processes may get it.
        Ok(Self { region: region.publish(), values: PhantomData })
    }

    /// Attaches it to the payload that this thread encodes.
    pub(crate) fn attach(&self) -> Result<u32, CodecError> {
        attach(&self.region)
    }

    /// Opens attachment `index` of the payload that this thread decodes, and checks that `locks` are its locks.
    pub(crate) fn received<L: Shareable>(index: u32, locks: &Shared<[L]>) -> Result<Self, CodecError> {
        let region = handles::open(index, Region::open)?;
        region.check_ranges(&RegionType::of::<[T], T>(), locks.region())?;
        Ok(Self { region, values: PhantomData })
    }

    /// Returns the indices of the values in range `at`.
    pub(crate) fn range(&self, at: usize) -> Range<usize> {
        let (len, count) = (self.region.range(), self.region.count());
        let start = at.saturating_mul(len).min(count);
        start..start.saturating_add(len).min(count)
    }

    /// Returns the values of range `at` for writing.
    ///
    /// The caller guarantees, by the lock of that range, that no other thread uses them while the slice lives.
    #[expect(clippy::mut_from_ref, reason = "a lock in shared memory says who may write, as in a `Mutex`")]
    pub(crate) fn lend(&self, at: usize) -> &mut [T] {
        let range = self.range(at);
        assert!(self.region.is_writable(), "the kernel refused to map this memory again when it could not be frozen");
        // SAFETY: `range` keeps it inside the values, of which the region holds that many (`split`, `received`).
        let start: NonNull<T> = unsafe { self.region.values().cast::<T>().add(range.start) };
        let mut values = NonNull::slice_from_raw_parts(start, range.len());
        // SAFETY: mapped for writing as long as `self` lives; `T`s, whatever became of their last writer (duty 3 of
        // `Shareable`); and the caller holds the lock of this range, which the region's header names for all.
        unsafe { values.as_mut() }
    }

    pub(crate) fn into_region(self) -> Arc<Region> {
        self.region
    }

    /// The reverse of [`Self::into_region`].
    pub(crate) fn of_region(region: Arc<Region>) -> Self {
        Self { region, values: PhantomData }
    }
}
