//! [`SharedMut`]: values in memory that can be shared, as long as one process owns them alone.
//!
//! Owns: the way from memory that one process writes to memory that all read. Runs in: any process.
//! Invariant: a `SharedMut` is never sent. It is turned into a [`Shared`] or [`SharedRanges`](crate::SharedRanges) first.
#![expect(unsafe_code, reason = "references to values in mapped memory")]

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::region::{Region, RegionWriter};
use super::slice::filled;
use crate::error::{Error, Result};
use crate::shared::{Shareable, Shared};
use crate::sys::Errno;
use crate::sys::memory::Access;

/// Values in memory that can be shared, but is not yet. One process can write them like a `&mut [T]`.
///
/// [`freeze`](Self::freeze) turns it into a [`Shared<[T]>`](Shared) without a copy, and [`split`](Self::split) into a
/// [`SharedRanges`](crate::SharedRanges), in which many processes write different parts.
///
/// # Examples
/// ```
/// use process_task::{SharedMut, process_task};
///
/// #[process_task]
/// fn last(values: process_task::Shared<[f64]>) -> Option<f64> { values.last().copied() }
///
/// let mut squares = SharedMut::<[f64]>::zeroed(1000)?;
/// for (value, root) in squares.iter_mut().zip(0_u32..) {
///     *value = f64::from(root * root);
/// }
/// let squares = squares.freeze()?;
/// assert_eq!(last.spawn(squares.clone()).join()?, Some(998_001.0));
/// # process_task::Result::Ok(())
/// ```
pub struct SharedMut<T: ?Sized> {
    values: NonNull<T>,
    region: Arc<Region>,
}

// SAFETY: as for a `Box<[T]>`: the handle has the values alone, and no other process maps them for writing.
unsafe impl<T: Send> Send for SharedMut<[T]> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for SharedMut<[T]> {}

impl<T: Shareable + Send> SharedMut<[T]> {
    /// Creates `count` values of zero bytes.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for them.
    ///
    /// # Examples
    /// ```
    /// use process_task::SharedMut;
    ///
    /// let mut pixels = SharedMut::<[[u8; 3]]>::zeroed(1024 * 768)?;
    /// pixels[1024] = [255, 0, 0];
    /// assert_eq!(pixels[..1025].iter().filter(|pixel| **pixel != [0; 3]).count(), 1);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn zeroed(count: usize) -> Result<Self>
    where
        T: bytemuck::Zeroable,
    {
        Ok(Self::holding(Arc::new(Region::zeroed(Shared::<[T]>::region_type(), count, Access::Write)?)))
    }

    /// Copies `values`.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for them.
    ///
    /// # Examples
    /// ```
    /// use process_task::SharedMut;
    ///
    /// let mut words = SharedMut::<[u32]>::from_slice(&[3, 1, 2])?;
    /// words.sort();
    /// assert_eq!(words.freeze()?[..], [1, 2, 3]);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn from_slice(values: &[T]) -> Result<Self>
    where
        T: Copy,
    {
        let mut writer = RegionWriter::new(Shared::<[T]>::region_type())?;
        writer.append(values)?;
        Ok(Self::holding(Arc::new(writer.finish(Access::Write)?)))
    }

    /// Moves what `values` yields into memory that can be shared. Their number need not be known before.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for them.
    ///
    /// # Examples
    /// ```
    /// use process_task::SharedMut;
    ///
    /// let mut lengths = SharedMut::<[usize]>::from_iter("to be or not".split(' ').map(str::len))?;
    /// lengths.reverse();
    /// assert_eq!(lengths[..], [3, 2, 2, 2]);
    /// # process_task::Result::Ok(())
    /// ```
    #[expect(clippy::should_implement_trait, reason = "the trait's cannot fail")]
    pub fn from_iter(values: impl IntoIterator<Item = T>) -> Result<Self> {
        Ok(Self::holding(Arc::new(filled(values)?.finish(Access::Write)?)))
    }

    /// Turns it into memory that all can read and no process can write, without a copy. From now on the kernel refuses
    /// every write.
    ///
    /// # Errors
    /// Some process still maps the memory for writing after a second: a copy of this one, made by `fork()`. The handle is
    /// inside the error. (If the kernel does not even map it again here, that handle is empty, but can be frozen.)
    ///
    /// # Examples
    /// ```
    /// use process_task::{Shared, SharedMut};
    ///
    /// let mut table = SharedMut::<[u64]>::zeroed(90)?;
    /// table[1] = 1;
    /// for index in 2..table.len() {
    ///     table[index] = table[index - 1] + table[index - 2];
    /// }
    /// let table: Shared<[u64]> = table.freeze()?;
    /// assert_eq!(table[89], 1_779_979_416_004_714_189);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn freeze(self) -> std::result::Result<Shared<[T]>, FreezeError<Self>> {
        let Self { region, .. } = self;
        freeze(region)
            .map(Shared::holding)
            .map_err(|(error, region)| FreezeError { error, handle: Self::holding(region) })
    }

    /// Returns the region.
    pub(crate) fn into_region(self) -> Arc<Region> {
        self.region
    }

    /// Returns the handle of a region that has no other.
    pub(crate) fn holding(region: Arc<Region>) -> Self {
        const { assert!(T::FROZEN, "what changes behind `&` needs no `SharedMut`: use `Shared`") };
        let count = if region.is_writable() { region.count() } else { 0 };
        let values = NonNull::slice_from_raw_parts(region.values().cast(), count);
        Self { values, region }
    }
}

/// How long [`freeze`] waits for other processes to drop their handles.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(1);

/// Seals a region once no other process has it mapped. Returns it with the error if that does not happen in time.
pub(crate) fn freeze(mut region: Arc<Region>) -> std::result::Result<Arc<Region>, (Error, Arc<Region>)> {
    let deadline = Instant::now() + FREEZE_TIMEOUT;
    loop {
        match Region::freeze(region) {
            Ok(frozen) => return Ok(frozen),
            Err((Errno::EBUSY, back)) if Instant::now() < deadline => region = back,
            Err((errno, back)) => {
                let why =
                    if errno == Errno::EBUSY { "freeze memory that others can still write" } else { "freeze memory" };
                return Err((Error::cannot_share(why, errno), back));
            }
        }
        // Polling, because the kernel reports to no process when a mapping goes.
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl<T> Deref for SharedMut<[T]> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the region holds that many `T`s there (`holding`), and is mapped as long as `region` lives; no other
        // process writes them.
        unsafe { self.values.as_ref() }
    }
}

impl<T> DerefMut for SharedMut<[T]> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; it is mapped for writing (`holding`), the handle is borrowed mutably, cannot be cloned and
        // does not travel, so nothing else reads or writes them.
        unsafe { self.values.as_mut() }
    }
}

impl<T> AsRef<[T]> for SharedMut<[T]> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T> AsMut<[T]> for SharedMut<[T]> {
    fn as_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<T: fmt::Debug> fmt::Debug for SharedMut<[T]> {
    /// Formats as the values do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Why memory could not be frozen or split, and its handle.
///
/// `?` turns it into an [`Error`], and drops the handle.
///
/// # Examples
/// ```
/// use process_task::SharedMut;
///
/// let values = SharedMut::<[u8]>::zeroed(100)?;
/// let error = values.split(0).unwrap_err();                   // ranges of nothing
/// assert!(error.to_string().contains("at least 1, not 0"));
/// let mut values = error.into_inner();
/// values[3] = 7;
/// # process_task::Result::Ok(())
/// ```
pub struct FreezeError<H> {
    pub(crate) error: Error,
    pub(crate) handle: H,
}

impl<H> FreezeError<H> {
    /// Returns what went wrong.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Returns the handle, as it was.
    #[must_use]
    pub fn into_inner(self) -> H {
        self.handle
    }
}

impl<H> From<FreezeError<H>> for Error {
    fn from(error: FreezeError<H>) -> Self {
        error.error
    }
}

impl<H> fmt::Display for FreezeError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<H> fmt::Debug for FreezeError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl<H> std::error::Error for FreezeError<H> {}
