//! [`SharedRanges`]: memory that many processes write, each a range of its own.
//!
//! Owns: the lock of each range. Runs in: any process.
//! Invariant: a range has one holder at a time, in all processes together.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{LockResult, Mutex, MutexGuard, PoisonError, TryLockError, TryLockResult};
use crate::error::Error;
use crate::shared::mutable::freeze;
use crate::shared::raw_ranges::RawRanges;
use crate::shared::{FreezeError, Shareable, Shared, SharedMut};

/// Values in shared memory that many processes write at once, each range by one holder at a time.
///
/// Made by [`SharedMut::split`]. A handle is cloned and passed to tasks like a [`Shared`]. [`freeze`](Self::freeze) turns the
/// whole into a [`Shared<[T]>`](Shared) once the other handles are gone.
///
/// # Examples
/// ```
/// use process_task::{Pool, SharedMut, SharedRanges, process_task};
///
/// #[process_task]
/// fn fill_row(row: usize, rows: SharedRanges<f64>) {
///     let mut values = rows.write(row).unwrap();
///     values.fill(row as f64);
/// }
///
/// let rows = SharedMut::<[f64]>::zeroed(300)?.split(100)?;      // three rows of 100
/// Pool::new()?.map(fill_row, (0..rows.len()).map(|row| (row, rows.clone())))?;
/// let matrix = rows.freeze()?;
/// assert_eq!((matrix[0], matrix[150], matrix[299]), (0.0, 1.0, 2.0));
/// # process_task::Result::Ok(())
/// ```
///
/// # If the other process dies
/// A range is poisoned when its holder was killed, or panicked: the next [`write`](Self::write) gets it inside the error,
/// half written as it may be. The other ranges do not notice.
pub struct SharedRanges<T> {
    ranges: RawRanges<T>,
    locks: Shared<[Mutex<()>]>,
}

impl<T: Shareable + Send> SharedMut<[T]> {
    /// Splits the values into ranges of `len` values, of which the last may have fewer, for many processes to write.
    ///
    /// # Errors
    /// `len` is zero, or there is no memory for the locks. The handle is inside the error.
    ///
    /// # Examples
    /// ```
    /// use process_task::SharedMut;
    ///
    /// let parts = SharedMut::<[u8]>::from_slice(b"hello world")?.split(4)?;
    /// assert_eq!((parts.len(), parts.range(2)), (3, 8..11));
    /// parts.write(2).unwrap().make_ascii_uppercase();
    /// assert_eq!(parts.freeze()?[..], *b"hello woRLD");
    /// # process_task::Result::Ok(())
    /// ```
    pub fn split(self, len: usize) -> Result<SharedRanges<T>, FreezeError<Self>> {
        if len == 0 {
            let error = Error::invalid(
                "the length of a range must be at least 1, not 0; give the length of the whole for one range",
            );
            return Err(FreezeError { error, handle: self });
        }
        let locks = match Shared::from_iter((0..self.len().div_ceil(len)).map(|_| Mutex::new(()))) {
            Ok(locks) => locks,
            Err(error) => return Err(FreezeError { error, handle: self }),
        };
        match RawRanges::split(self.into_region(), len, locks.region().identity()) {
            Ok(ranges) => Ok(SharedRanges { ranges, locks }),
            Err(region) => {
                let error = Error::invalid(
                    "memory that another handle or process has, too, cannot be split: do so before it is shared",
                );
                Err(FreezeError { error, handle: Self::holding(region) })
            }
        }
    }
}

impl<T: Shareable + Send> SharedRanges<T> {
    /// Returns the number of ranges.
    #[must_use]
    pub fn len(&self) -> usize {
        self.locks.len()
    }

    /// Returns whether there is no range, because there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    /// Returns the indices, among all values, of those in range `index`; empty if there is no such range.
    #[must_use]
    pub fn range(&self, index: usize) -> Range<usize> {
        self.ranges.range(index)
    }

    /// Locks range `index` for writing, waiting as long as another thread has it.
    ///
    /// # Errors
    /// The last holder panicked or was killed; the range is inside the error, as it was left.
    ///
    /// # Panics
    /// If there is no such range.
    ///
    /// # If the other process dies
    /// A killed holder poisons the range. A killed waiter costs nothing.
    ///
    /// # Examples
    /// ```
    /// use process_task::{SharedMut, SharedRanges, process_task};
    ///
    /// #[process_task]
    /// fn break_off(ranges: SharedRanges<i32>) {
    ///     let mut values = ranges.write(0).unwrap();
    ///     values[0] = 1;
    ///     std::process::abort();
    /// }
    ///
    /// let ranges = SharedMut::<[i32]>::zeroed(4)?.split(2)?;
    /// break_off.spawn(ranges.clone()).join().unwrap_err();
    /// let half = ranges.write(0).unwrap_err().into_inner();      // as it was left
    /// assert_eq!(half[..], [1, 0]);
    /// # process_task::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn write(&self, index: usize) -> LockResult<RangeGuard<'_, T>> {
        let guard = |lock| RangeGuard { values: self.ranges.lend(index), _lock: lock };
        self.locks[index].lock().map(guard).map_err(|poison| PoisonError::new(guard(poison.into_inner())))
    }

    /// Locks range `index` for writing, unless it is held.
    ///
    /// # Errors
    /// The range is held (`WouldBlock`), or the last holder panicked or was killed (`Poisoned`, with the range inside).
    ///
    /// # Panics
    /// If there is no such range.
    ///
    /// # If the other process dies
    /// A killed holder poisons the range.
    ///
    /// # Examples
    /// ```
    /// use process_task::SharedMut;
    /// use process_task::sync::TryLockError;
    ///
    /// let parts = SharedMut::<[u8]>::zeroed(10)?.split(5)?;
    /// let mut first = parts.write(0).unwrap();
    /// first[4] = 1;
    /// assert!(matches!(parts.try_write(0), Err(TryLockError::WouldBlock)));
    /// assert!(parts.try_write(1).is_ok());
    /// # process_task::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn try_write(&self, index: usize) -> TryLockResult<RangeGuard<'_, T>> {
        let guard = |lock| RangeGuard { values: self.ranges.lend(index), _lock: lock };
        self.locks[index].try_lock().map(guard).map_err(|error| match error {
            TryLockError::Poisoned(poison) => PoisonError::new(guard(poison.into_inner())).into(),
            TryLockError::WouldBlock => TryLockError::WouldBlock,
        })
    }

    /// Turns it into memory that all can read and no process can write, without a copy. From now on the kernel refuses
    /// every write.
    ///
    /// # Errors
    /// Some handle still exists after a second, in this process or another. This one is inside the error. (If the kernel
    /// does not even map it again here, it can only be frozen, and not written.)
    ///
    /// # If the other process dies
    /// Its handles are gone.
    pub fn freeze(self) -> Result<Shared<[T]>, FreezeError<Self>> {
        let Self { ranges, locks } = self;
        freeze(ranges.into_region()).map(Shared::<[T]>::holding).map_err(|(error, region)| {
            let handle = Self { ranges: RawRanges::of_region(region), locks };
            FreezeError { error, handle }
        })
    }
}

impl<T> Clone for SharedRanges<T> {
    /// Another handle of the same memory.
    fn clone(&self) -> Self {
        Self { ranges: self.ranges.clone(), locks: self.locks.clone() }
    }
}

impl<T> PartialEq for SharedRanges<T> {
    /// Returns whether both are handles of the same memory. The values are not compared.
    fn eq(&self, other: &Self) -> bool {
        self.locks == other.locks
    }
}

impl<T> Eq for SharedRanges<T> {}

impl<T> fmt::Debug for SharedRanges<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRanges").field("len", &self.locks.len()).finish_non_exhaustive()
    }
}

impl<T: Shareable + Send> Serialize for SharedRanges<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.ranges.attach().map_err(S::Error::custom)?, &self.locks).serialize(serializer)
    }
}

impl<'de, T: Shareable + Send> Deserialize<'de> for SharedRanges<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (index, locks) = <(u32, Shared<[Mutex<()>]>)>::deserialize(deserializer)?;
        let ranges = RawRanges::received(index, &locks).map_err(D::Error::custom)?;
        Ok(Self { ranges, locks })
    }
}

/// One range of a [`SharedRanges`], for writing. Dropping it unlocks the range.
#[must_use = "if unused the range unlocks at once"]
pub struct RangeGuard<'a, T> {
    // Before the lock, so that it is dropped before the lock is released.
    values: &'a mut [T],
    _lock: MutexGuard<'a, ()>,
}

#[cfg(feature = "ndarray")]
impl<T> RangeGuard<'_, T> {
    /// Returns the values of the range as an array of this shape, for writing.
    ///
    /// Only with the feature `ndarray`.
    ///
    /// # Errors
    /// The shape needs more values than there are.
    ///
    /// # Examples
    /// ```
    /// use process_task::SharedMut;
    ///
    /// let blocks = SharedMut::<[u8]>::zeroed(8)?.split(4)?;
    /// blocks.write(1).unwrap().view_mut((2, 2)).expect("four values")[(1, 0)] = 7;
    /// assert_eq!(blocks.freeze()?[..], [0, 0, 0, 0, 0, 0, 7, 0]);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn view_mut<D: ndarray::Dimension>(
        &mut self,
        shape: impl Into<ndarray::StrideShape<D>>,
    ) -> Result<ndarray::ArrayViewMut<'_, T, D>, ndarray::ShapeError> {
        ndarray::ArrayViewMut::from_shape(shape, self)
    }
}

impl<T> Deref for RangeGuard<'_, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.values
    }
}

impl<T> DerefMut for RangeGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.values
    }
}

impl<T: fmt::Debug> fmt::Debug for RangeGuard<'_, T> {
    /// As the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values.fmt(f)
    }
}
