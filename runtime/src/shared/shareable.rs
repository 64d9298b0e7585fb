//! Which types may live in memory that several processes map.
//!
//! Owns: [`Shareable`], and its implementations for types of the standard library. Runs in: any process; it compiles to
//! nothing. Invariant: no such type contains an address, or a value that half a write could make invalid.
#![expect(unsafe_code, reason = "the duties of types of the standard library")]

use std::marker::PhantomData;
use std::num::{Saturating, Wrapping};
use std::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
    AtomicUsize,
};

/// Types with values that can live in memory that several processes map: what a [`Shared`](crate::Shared) can hold.
///
/// Numbers, `bool`, atomics, the primitives of [`sync`](crate::sync), and arrays, slices and tuples of these are. Structs of them
/// become so by `#[derive(Shareable)]`, and so do enums without fields that are `#[repr(u8)]` or `#[repr(i8)]`.
///
/// What is not: anything with an address in it (`&T`, `Box`, `String`, `Vec`, functions: another process has other things at
/// that address), anything with a destructor (no process could know that it is the last), and anything of which not all
/// mixtures of bytes are values (`char`, `Option`, `NonZero`, enums with fields: a process may be killed between two
/// bytes, and the others would see the mixture).
///
/// # Safety
/// 1. No value holds a pointer, a reference, a function, or any other address, nor what only means something in one process
///    or one thread, such as a descriptor.
/// 2. The type has no destructor. (Checked where a value is put into shared memory.)
/// 3. Any mixture, byte by byte, of two values is a value, as a writer may be killed half way. Of what is written through
///    atomics this asks nothing more than that every sequence of such writes may end anywhere.
/// 4. Its alignment is at most 4,096. (Checked likewise.)
/// 5. [`FROZEN`](Self::FROZEN) is true only if no byte of a value can change behind a `&` to it.
///
/// # Examples
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use process_task::{Pool, Shareable, Shared, process_task};
///
/// #[derive(Shareable)]
/// struct Progress { files: AtomicU64, bytes: AtomicU64 }
///
/// #[process_task]
/// fn read(size: u64, progress: &Shared<Progress>) {
///     progress.files.fetch_add(1, Relaxed);
///     progress.bytes.fetch_add(size, Relaxed);
/// }
///
/// let progress = Shared::new(Progress { files: AtomicU64::new(0), bytes: AtomicU64::new(0) })?;
/// Pool::new()?.map(read, [(10, &progress), (20, &progress)])?;
/// assert_eq!((progress.files.load(Relaxed), progress.bytes.load(Relaxed)), (2, 30));
/// # process_task::Result::Ok(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot live in shared memory",
    label = "not a type that several processes can use in one memory",
    note = "numbers, `bool`, atomics and the primitives of `process_task::sync` can, and so can arrays, slices and tuples of them",
    note = "structs of these can with `#[derive(process_task::Shareable)]`",
    note = "`String`, `Vec`, `Box` and references point into the memory of one process: use `Shared::<[u8]>::from_slice(text.as_bytes())` for text, a `Shared<[T]>` for a `Vec<T>`, or pass the value as an argument",
    note = "std's locks work in one process only: use those of `process_task::sync`, such as `Shared<sync::Mutex<T>>`",
    note = "`char`, `Option` and other enums with fields cannot: a process may be killed between two bytes of such a value"
)]
pub unsafe trait Shareable: Sync + 'static {
    /// Whether a value stays as it is while it is shared: nothing in it can be changed through a `&`.
    ///
    /// Such memory is sealed: the kernel refuses every write to it.
    const FROZEN: bool;
}

/// Duties that every type here meets: the standard library documents each as plain memory (1, 2, 4).
macro_rules! shareable {
    ($reason:literal, $frozen:literal: $($T:ty)*) => { $(
        #[diagnostic::do_not_recommend]
        // SAFETY: plain memory (duties 1, 2 and 4); for 3 and 5 see the reason at the macro's call.
        unsafe impl Shareable for $T {
            const FROZEN: bool = $frozen;
        }
    )* };
}

shareable! { "3: every pattern of bits is a number", true:
    u8 i8 u16 i16 u32 i32 u64 i64 u128 i128 usize isize f32 f64
}
shareable! { "3: one byte, so a mixture of two is one of the two", true: bool }
shareable! { "3: nothing to mix", true: () }
shareable! { "3: as the number or `bool` inside; 5: they change through `&`", false:
    AtomicBool AtomicU8 AtomicI8 AtomicU16 AtomicI16 AtomicU32 AtomicI32 AtomicU64 AtomicI64 AtomicUsize AtomicIsize
}

#[diagnostic::do_not_recommend]
// SAFETY: zero bytes, whatever `T` is.
unsafe impl<T: ?Sized + Sync + 'static> Shareable for PhantomData<T> {
    const FROZEN: bool = true;
}

#[diagnostic::do_not_recommend]
// SAFETY: a `T`, by another name.
unsafe impl<T: Shareable> Shareable for Wrapping<T> {
    const FROZEN: bool = T::FROZEN;
}

#[diagnostic::do_not_recommend]
// SAFETY: a `T`, by another name.
unsafe impl<T: Shareable> Shareable for Saturating<T> {
    const FROZEN: bool = T::FROZEN;
}

#[diagnostic::do_not_recommend]
// SAFETY: each element meets the duties by itself.
unsafe impl<T: Shareable, const N: usize> Shareable for [T; N] {
    const FROZEN: bool = T::FROZEN;
}

#[diagnostic::do_not_recommend]
// SAFETY: each element meets the duties by itself. The length is no part of the memory.
unsafe impl<T: Shareable> Shareable for [T] {
    const FROZEN: bool = T::FROZEN;
}

macro_rules! tuples {
    ($first:ident $($rest:ident)*) => {
        #[diagnostic::do_not_recommend]
        // SAFETY: each member meets the duties by itself, and no value is in what lies between them.
        unsafe impl<$first: Shareable, $($rest: Shareable),*> Shareable for ($first, $($rest,)*) {
            const FROZEN: bool = $first::FROZEN $(&& $rest::FROZEN)*;
        }
        tuples!($($rest)*);
    };
    () => {};
}
tuples!(A B C D E F G H I J K L);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changing_field_unfreezes_the_whole() {
        const { assert!(<(u8, [f64; 3], bool)>::FROZEN) };
        const { assert!(!<(u8, [(AtomicU32, bool); 3], bool)>::FROZEN) };
        const { assert!(<[PhantomData<String>; 2]>::FROZEN) };
        const { assert!(!<[AtomicBool]>::FROZEN) };
    }
}
