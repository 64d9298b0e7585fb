//! Specialization by type id: treats a value of a generic type as what it is, if that is a known type.
//!
//! Owns: the casts between a type and itself under another name. Runs in: any process.
//! Invariant: no lifetime is extended. Types that borrow are compared without their lifetimes, and lent for no longer.
#![expect(
    unsafe_code,
    reason = "`Any` does this for `'static` types only, and serde's generic methods have no such bound"
)]

use std::any::TypeId;
use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::mem::{ManuallyDrop, transmute_copy};
use std::path::Path;
use std::ptr;

/// Returns a hash of the type, the same for all lifetimes in it. Two types collide about as often as a cosmic ray flips a bit.
#[inline]
pub(crate) fn key<T: ?Sized>() -> u64 {
    /// Keeps the number that a `TypeId` is hashed as.
    struct LastWrite(u64);

    impl Hasher for LastWrite {
        #[inline]
        fn finish(&self) -> u64 {
            self.0
        }

        #[inline]
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
            }
        }

        #[inline]
        fn write_u64(&mut self, number: u64) {
            self.0 = number;
        }
    }

    let mut hasher = LastWrite(0);
    typeid::of::<T>().hash(&mut hasher);
    hasher.finish()
}

/// Returns whether `T` is `U`, up to lifetimes. The compiler evaluates it.
#[inline]
pub(crate) fn is<T: ?Sized, U: ?Sized>() -> bool {
    typeid::of::<T>() == typeid::of::<U>()
}

/// Returns `value` as a `U`, if `T` is `U`, which borrows nothing.
#[inline]
pub(crate) fn as_ref<T: ?Sized, U: 'static>(value: &T) -> Option<&U> {
    // SAFETY: the types are the same, and `U` has no lifetimes that could differ.
    (typeid::of::<T>() == TypeId::of::<U>()).then(|| unsafe { &*ptr::from_ref(value).cast::<U>() })
}

/// Returns `value` as a path, if `T` is `Path`.
#[inline]
pub(crate) fn as_path<T: ?Sized>(value: &T) -> Option<&Path> {
    // SAFETY: the types are the same, so these are two names for one type of reference.
    is::<T, Path>().then(|| unsafe { transmute_copy::<&T, &Path>(&value) })
}

/// Returns `value` as a `U`, if `T` is a reference to a `U`.
#[inline]
pub(crate) fn as_borrowed<'v, T: ?Sized, U: ?Sized + 'static>(value: &'v T) -> Option<&'v U> {
    // SAFETY: `T` is a `&'t U`, and `'t` is at least as long as `'v`, for which a `&'v T` is there.
    is::<T, &'static U>().then(|| unsafe { *ptr::from_ref(value).cast::<&'v U>() })
}

/// Returns `value` as a `U`, if `T` is a reference to a reference to a `U`.
#[inline]
pub(crate) fn as_borrowed_twice<'v, T: ?Sized, U: ?Sized + 'static>(value: &'v T) -> Option<&'v U> {
    // SAFETY: `T` is a `&'t &'u U`, and both lifetimes are at least as long as `'v`, for which a `&'v T` is there.
    is::<T, &'static &'static U>().then(|| unsafe { **ptr::from_ref(value).cast::<&'v &'v U>() })
}

/// Returns `value` as a `Cow`, if `T` is a `Cow` of a `U`.
#[inline]
pub(crate) fn as_cow<'v, T: ?Sized, U: ToOwned + ?Sized + 'static>(value: &'v T) -> Option<&'v Cow<'v, U>> {
    // SAFETY: `T` is a `Cow<'t, U>`, and `'t` is at least as long as `'v`, for which a `&'v T` is there; nothing is written.
    is::<T, Cow<'static, U>>().then(|| unsafe { &*ptr::from_ref(value).cast::<Cow<'v, U>>() })
}

/// `value` as what it is, if `T` is a reference to a `Cow` of a `U`.
#[inline]
pub(crate) fn as_borrowed_cow<'v, T: ?Sized, U: ToOwned + ?Sized + 'static>(value: &'v T) -> Option<&'v Cow<'v, U>> {
    // SAFETY: `T` is a `&'t Cow<'u, U>`, and both lifetimes are at least as long as `'v`; nothing is written.
    is::<T, &'static Cow<'static, U>>().then(|| unsafe { *ptr::from_ref(value).cast::<&'v Cow<'v, U>>() })
}

/// Returns `value` as a `U`, if `T` is `U`, which borrows nothing.
#[inline]
pub(crate) fn into<U: 'static, T>(value: U) -> Option<T> {
    // SAFETY: the types are the same, and the original is not used again.
    is::<T, U>().then(|| unsafe { transmute_copy::<ManuallyDrop<U>, T>(&ManuallyDrop::new(value)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn path<T: ?Sized>(value: &T) -> Option<&Path> {
        as_path(value).or_else(|| as_ref::<T, PathBuf>(value).map(|path| &**path)).or_else(|| as_borrowed(value))
    }

    #[test]
    fn value_is_returned_as_its_own_type_only() {
        let (owned, text) = (PathBuf::from("a/b"), "a/b".to_owned());
        assert_eq!((path(&owned), path(&*owned), path(&&*owned)), (Some(&*owned), Some(&*owned), Some(&*owned)));
        assert_eq!((path(&text), path(&*text), path(&&*text), path(&&owned)), (None, None, None, None));
        assert_eq!(
            (as_borrowed_twice::<_, Path>(&&&*owned), as_borrowed_twice::<_, Path>(&&owned)),
            (Some(&*owned), None)
        );
        let cow: Cow<'_, Path> = Cow::Borrowed(&owned);
        assert_eq!((as_borrowed_cow::<_, Path>(&&cow), as_borrowed_cow::<_, Path>(&cow)), (Some(&cow), None));
        assert_eq!(into::<PathBuf, PathBuf>(owned.clone()), Some(owned));
        assert_eq!(into::<String, PathBuf>(text), None);
    }

    #[test]
    fn key_ignores_lifetimes_only() {
        fn of<'a>(_: &'a str) -> u64 {
            key::<Option<&'a str>>()
        }
        assert_eq!(of(""), key::<Option<&'static str>>());
        assert_ne!(key::<Option<&str>>(), key::<&str>());
        assert_ne!(key::<[u8]>(), key::<[i8]>());
    }
}
