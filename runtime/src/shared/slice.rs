//! [`Shared<[T]>`](Shared): constructors of slices in memory that several processes map.
//!
//! Owns: the three constructors. Runs in: any process. Invariant: no value is copied more than once.

use super::handle::access;
use super::region::{Region, RegionWriter};
use crate::error::Result;
use crate::shared::{Shareable, Shared};

/// Number of bytes that are collected before they are written.
const WRITE_CHUNK_BYTES: usize = 64 << 10;

impl<T: Shareable> Shared<[T]> {
    /// Copies `values` into memory that can be shared: once, for any number of readers.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for them.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, Shared, process_task};
    ///
    /// #[process_task]
    /// fn sum(values: Shared<[f64]>, from: usize, to: usize) -> f64 { values[from..to].iter().sum() }
    ///
    /// let values = Shared::<[f64]>::from_slice(&[0.5; 1000])?;
    /// let parts = Pool::new()?.map(sum, [(values.clone(), 0, 500), (values, 500, 1000)])?;
    /// assert_eq!(parts, [250.0, 250.0]);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn from_slice(values: &[T]) -> Result<Self>
    where
        T: Copy,
    {
        let mut writer = RegionWriter::new(Self::region_type())?;
        writer.append(values)?;
        Ok(Self::holding(writer.finish(access::<T>())?.publish()))
    }

    /// Moves what `values` yields into memory that can be shared. Their number need not be known before.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for them.
    ///
    /// # Examples
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// use process_task::Shared;
    ///
    /// let counters = Shared::<[AtomicU32]>::from_iter((0..100).map(AtomicU32::new))?;
    /// counters[7].fetch_add(1, Relaxed);
    /// assert_eq!(counters[7].load(Relaxed), 8);
    /// # process_task::Result::Ok(())
    /// ```
    #[expect(clippy::should_implement_trait, reason = "the trait's cannot fail")]
    pub fn from_iter(values: impl IntoIterator<Item = T>) -> Result<Self> {
        Ok(Self::holding(filled(values)?.finish(access::<T>())?.publish()))
    }

    /// Creates `count` values of zero bytes.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for them.
    ///
    /// # Examples
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    /// use process_task::{Shared, process_task};
    ///
    /// #[process_task]
    /// fn tally(text: &[u8], bytes: Shared<[AtomicU64]>) {
    ///     for byte in text {
    ///         bytes[usize::from(*byte)].fetch_add(1, Relaxed);
    ///     }
    /// }
    ///
    /// let bytes = Shared::<[AtomicU64]>::zeroed(256)?;
    /// tally.spawn(b"hello", bytes.clone()).join()?;
    /// assert_eq!(bytes[usize::from(b'l')].load(Relaxed), 2);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn zeroed(count: usize) -> Result<Self>
    where
        T: bytemuck::Zeroable,
    {
        Ok(Self::holding(Region::zeroed(Self::region_type(), count, access::<T>())?.publish()))
    }
}

/// Writes what `values` yields into a new region.
pub(super) fn filled<T: Shareable>(values: impl IntoIterator<Item = T>) -> Result<RegionWriter> {
    let mut writer = RegionWriter::new(Shared::<[T]>::region_type())?;
    let chunk = (WRITE_CHUNK_BYTES / size_of::<T>().max(1)).max(1);
    let mut values = values.into_iter();
    let mut collected = Vec::with_capacity(chunk.min(values.size_hint().0.max(1)));
    loop {
        collected.extend(values.by_ref().take(chunk));
        if collected.is_empty() {
            return Ok(writer);
        }
        writer.append(&collected)?;
        collected.clear();
    }
}
