//! [`Shared`]: a value in memory that several processes map.
//!
//! Owns: the handle, and its way to other processes. Runs in: any process.
//! Invariant: the value is never copied once it is there.
#![expect(unsafe_code, reason = "references to values in mapped memory")]

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::region::{Region, RegionType, RegionWriter};
use crate::codec::CodecError;
use crate::codec::handles;
use crate::error::Result;
use crate::shared::Shareable;
use crate::sys::memory::Access;

/// A value in memory that processes share: what [`Arc`] is to threads.
///
/// Cloning one, or passing one to a task or back as its result, costs the same for 8 bytes and for 8 GiB: all have the same
/// memory. It is freed when the last process drops the last handle, also if that process was killed.
///
/// It can hold every type that is [`Shareable`]. Values change through the primitives of [`sync`](crate::sync) or atomics, as
/// with `Arc`. Values that do not change are sealed, so that the kernel refuses every write to them. For slices, see
/// [`from_slice`](Shared::from_slice), [`from_iter`](Shared::from_iter), [`zeroed`](Shared::zeroed), and
/// [`SharedMut`](crate::SharedMut).
///
/// Two handles are equal if they are handles of the same memory.
///
/// # Examples
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use process_task::{Pool, Shared, process_task};
///
/// #[process_task]
/// fn count(text: &str, words: Shared<AtomicU64>) {
///     words.fetch_add(text.split_whitespace().count() as u64, Relaxed);
/// }
///
/// let words = Shared::new(AtomicU64::new(0))?;
/// let texts = ["to be", "or", "not to be"];
/// Pool::new()?.map(count, texts.map(|text| (text, words.clone())))?;
/// assert_eq!(words.load(Relaxed), 6);
/// # process_task::Result::Ok(())
/// ```
///
/// # Where a handle can be written
///
/// Only as part of an argument or a result of a task, however deep inside. Its `Serialize` and `Deserialize` return an error
/// anywhere else, as bytes in a file cannot carry memory.
#[doc(alias("SharedMemory", "Value", "Array", "RawArray", "RawValue", "ShareableList"))]
pub struct Shared<T: ?Sized> {
    value: NonNull<T>,
    region: Arc<Region>,
}

// SAFETY: a handle gives out `&T` only, and `Shareable` types are `Sync`. Nothing is dropped with the last one.
unsafe impl<T: Shareable + ?Sized> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Shareable + ?Sized> Sync for Shared<T> {}

impl<T: Shareable> Shared<T> {
    /// Moves `value` into memory that can be shared.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for it.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Shared, process_task};
    ///
    /// #[process_task]
    /// fn look(table: Shared<[[f64; 4]; 4]>) -> f64 { table[1][2] }
    ///
    /// let table = Shared::new([[0.5; 4]; 4])?;
    /// assert_eq!(look.spawn(table.clone()).join()?, 0.5);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn new(value: T) -> Result<Self> {
        let mut writer = RegionWriter::new(Self::region_type())?;
        // By value: nothing else owns what it contains.
        writer.append(&[value])?;
        let region = writer.finish(access::<T>())?.publish();
        Ok(Self::holding(region))
    }

    fn region_type() -> RegionType {
        RegionType::of::<T, T>()
    }

    /// Returns a handle of the one value of a region of this type.
    fn holding(region: Arc<Region>) -> Self {
        Self { value: region.values().cast(), region }
    }
}

impl<T: Shareable> Shared<[T]> {
    pub(super) fn region_type() -> RegionType {
        RegionType::of::<[T], T>()
    }

    /// Returns a handle of the values of a region of this type.
    pub(crate) fn holding(region: Arc<Region>) -> Self {
        let value = NonNull::slice_from_raw_parts(region.values().cast(), region.count());
        Self { value, region }
    }
}

/// Returns how memory that holds a `T` is mapped.
pub(super) fn access<T: Shareable + ?Sized>() -> Access {
    if T::FROZEN { Access::Frozen } else { Access::Write }
}

impl<T: ?Sized> Shared<T> {
    /// Returns whether both are handles of the same memory, as `==` does.
    ///
    /// # Examples
    /// ```
    /// use process_task::Shared;
    ///
    /// let (one, other) = (Shared::new(1)?, Shared::new(1)?);
    /// assert!(Shared::ptr_eq(&one, &one.clone()));
    /// assert!(one != other);                                   // the values are equal, the memory is not the same
    /// assert_eq!(*one, *other);
    /// # process_task::Result::Ok(())
    /// ```
    #[must_use]
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.region.identity() == other.region.identity()
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }
}

impl<T: Shareable + ?Sized> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the region holds a `T` there: it was written there (`new` and the like) or its type was checked (`received`). It
        // is mapped as long as `region` lives. `T` means the same in every process (duty 1 of `Shareable`) and is a value
        // whatever became of its writers (duty 3). If it is frozen (duty 5), no process can write to it; else all have
        // `&T`.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    /// Another handle of the same memory.
    fn clone(&self) -> Self {
        Self { value: self.value, region: Arc::clone(&self.region) }
    }
}

impl<T: Shareable + ?Sized> AsRef<T> for Shared<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized> PartialEq for Shared<T> {
    /// Returns whether both are handles of the same memory. The values are not compared.
    fn eq(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

impl<T: ?Sized> Eq for Shared<T> {}

impl<T: ?Sized> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.region.identity().hash(state);
    }
}

impl<T: Shareable + fmt::Debug + ?Sized> fmt::Debug for Shared<T> {
    /// Formats as the value does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: Shareable + fmt::Display + ?Sized> fmt::Display for Shared<T> {
    /// Formats as the value does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: Shareable + ?Sized> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        attach(&self.region).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de, T: Shareable> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let ty = Self::region_type();
        let region = received(u32::deserialize(deserializer)?, &ty).map_err(D::Error::custom)?;
        if region.count() != 1 {
            // Forged: the header names a single value, and there is not one.
            return Err(D::Error::custom(region.type_mismatch(ty.name())));
        }
        Ok(Self::holding(region))
    }
}

impl<'de, T: Shareable> Deserialize<'de> for Shared<[T]> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let region = received(u32::deserialize(deserializer)?, &Self::region_type()).map_err(D::Error::custom)?;
        Ok(Self::holding(region))
    }
}

/// Attaches a region to the payload that this thread encodes.
pub(super) fn attach(region: &Arc<Region>) -> std::result::Result<u32, CodecError> {
    handles::attach(Arc::clone(region) as Arc<dyn handles::Handle>)
}

/// Opens the region that is attachment `index` of the payload that this thread decodes, and checks its type.
fn received(index: u32, ty: &RegionType) -> std::result::Result<Arc<Region>, CodecError> {
    let region = handles::open(index, Region::open)?;
    region.check(ty)?;
    Ok(region)
}
