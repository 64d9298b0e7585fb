//! The ranges of memory that is split for writing, each lent to one holder at a time.
//!
//! Owns: the arithmetic of ranges. Runs in: any process.
//! Never: says which process may write; the locks of [`SharedRanges`](crate::SharedRanges) do.
#![expect(unsafe_code, reason = "references to values in mapped memory")]

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::handle::put;
use super::region::{Kind, Region};
use crate::codec::CodecError;
use crate::codec::handles;
use crate::shared::{Shareable, Shared};
use crate::sys::fd::Identity;

/// A region of `T`s, in ranges.
#[derive(Debug)]
pub(crate) struct Parts<T> {
    region: Arc<Region>,
    values: PhantomData<T>,
}

impl<T> Clone for Parts<T> {
    fn clone(&self) -> Self {
        Self { region: Arc::clone(&self.region), values: PhantomData }
    }
}

impl<T: Shareable + Send> Parts<T> {
    /// Splits a region that is the caller's alone into ranges of `len` values, with locks in the region `locks`. If it is not, it
    /// comes back.
    pub(crate) fn split(region: Arc<Region>, len: usize, locks: Identity) -> Result<Self, Arc<Region>> {
        let mut region = Arc::try_unwrap(region)?;
        region.split(len, locks);
        // From now on others may get it.
        Ok(Self { region: region.enter(), values: PhantomData })
    }

    /// Puts it beside the payload that this thread encodes.
    pub(crate) fn put(&self) -> Result<u32, CodecError> {
        put(&self.region)
    }

    /// What came beside the payload that this thread decodes, if `locks` are its locks.
    pub(crate) fn arrived<L: Shareable>(index: u32, locks: &Shared<[L]>) -> Result<Self, CodecError> {
        let region = handles::take(index, Region::open)?;
        region.check_ranges(&Kind::of::<[T], T>(), locks.region())?;
        Ok(Self { region, values: PhantomData })
    }

    /// The indices of the values in range `at`.
    pub(crate) fn range(&self, at: usize) -> Range<usize> {
        let (len, count) = (self.region.range(), self.region.count());
        let start = at.saturating_mul(len).min(count);
        start..start.saturating_add(len).min(count)
    }

    /// The values of range `at`, for writing.
    ///
    /// The caller vouches, by the lock of that range, that no other thread has them while the slice lives.
    #[expect(clippy::mut_from_ref, reason = "a lock in shared memory says who may write, as in a `Mutex`")]
    pub(crate) fn lend(&self, at: usize) -> &mut [T] {
        let range = self.range(at);
        assert!(self.region.is_writable(), "the kernel refused to map this memory again when it could not be frozen");
        // SAFETY: `range` keeps it inside the values, of which the region holds that many (`split`, `arrived`).
        let start: NonNull<T> = unsafe { self.region.values().cast::<T>().add(range.start) };
        let mut values = NonNull::slice_from_raw_parts(start, range.len());
        // SAFETY: mapped for writing as long as `self` lives; `T`s, whatever became of their last writer (duty 3 of
        // `Shareable`); and the caller holds the lock of this range, which the region's header names for all.
        unsafe { values.as_mut() }
    }

    pub(crate) fn into_region(self) -> Arc<Region> {
        self.region
    }

    /// What [`Self::into_region`] gave.
    pub(crate) fn of_region(region: Arc<Region>) -> Self {
        Self { region, values: PhantomData }
    }
}
