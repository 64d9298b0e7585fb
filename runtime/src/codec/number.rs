//! The types that are encoded as their memory, and how runs of them cross the boundary between bytes and values.
//!
//! Owns: the one function in which a payload's bytes become a fresh `Vec` of numbers. Never: copies twice.
//! Runs in: every process.

use bytemuck::PodCastError;

use super::{ALIGNMENT, CodecError};
use crate::sys::memory;

/// A plain number, or an array of such: every bit pattern is a value, and there is no padding.
///
/// `bool` and `char` are not among them: not every byte is a `bool`.
pub trait Number: bytemuck::Pod {}

/// Calls `$macro` with every primitive number type.
macro_rules! for_each_primitive {
    ($macro:ident) => {
        $macro!(u8 i8 u16 i16 u32 i32 u64 i64 u128 i128 usize isize f32 f64);
    };
}
pub(super) use for_each_primitive;

macro_rules! number {
    ($($T:ty)*) => { $(
        const _: () = assert!(align_of::<$T>() <= ALIGNMENT);
        impl Number for $T {}
    )* };
}
for_each_primitive!(number);

impl<T: Number, const N: usize> Number for [T; N] {}

/// The numbers that `bytes` are.
///
/// # Errors
/// `bytes` begin at an address that is no multiple of `T`'s alignment, or end in the middle of a number.
#[inline]
pub(super) fn lend_slice<T: Number>(bytes: &[u8]) -> Result<&[T], CodecError> {
    // An empty run may begin anywhere.
    if bytes.is_empty() {
        return Ok(&[]);
    }
    bytemuck::try_cast_slice(bytes).map_err(bad_cast)
}

/// A `Vec` with the `count` numbers that `bytes` are: the one copy of the plain format.
///
/// `bytes` must be exactly as long as that many numbers; where they begin costs time, not correctness.
#[inline]
pub(super) fn fresh_vec<T: Number>(bytes: &[u8], count: usize) -> Vec<T> {
    debug_assert_eq!(bytes.len(), count * size_of::<T>());
    if size_of::<T>() == 0 {
        return vec![T::zeroed(); count];
    }
    match lend_slice(bytes) {
        Ok(numbers) => vec_of(numbers),
        Err(_) => bytemuck::allocation::pod_collect_to_vec(bytes),
    }
}

/// From how many bytes on huge pages pay: the first touch of small ones costs more than the copying.
const MUCH: usize = 4 << 20;

/// Makes a `Vec` of `numbers`, in memory of its own.
#[inline]
fn vec_of<T: Number>(numbers: &[T]) -> Vec<T> {
    let mut vec = Vec::with_capacity(numbers.len());
    if size_of_val(numbers) >= MUCH {
        memory::prefer_huge_pages(vec.spare_capacity_mut());
    }
    vec.extend_from_slice(numbers);
    vec
}

#[cold]
fn bad_cast(error: PodCastError) -> CodecError {
    CodecError::new(format!("the payload is corrupt: {error}"))
}
