//! Paths inside other values, which need not be UTF-8, though serde's own way for them asks for it.
//!
//! Owns: how a path is told from other types where generic code writes it, and where it reads one. Runs in: every process.
//! Never: writes a path that is UTF-8 in another way than serde would.
//!
//! A path is written as its bytes, which are what a string of them would be. A path inside a type that writes it as itself
//! (`#[serde(transparent)]`, `untagged`) is not seen here, and is refused by serde.

use std::any::type_name;
use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use serde::de::{Error, Visitor};

use crate::sys::specialize;

/// What serde says of a path that it refuses.
pub(super) const REFUSAL: &str = "path contains invalid UTF-8 characters";

/// The bytes of `value`, if it is a path that serde would refuse; or a reference to one, which is what serde makes of an element.
#[inline]
pub(super) fn refused<T: ?Sized>(value: &T) -> Option<&[u8]> {
    if cfg!(debug_assertions) && !is_named_path::<T>() {
        return None;
    }
    macro_rules! of {
        ($($P:ty,)*) => { $(
            if let Some(path) = specialize::as_ref::<T, $P>(value).or_else(|| specialize::as_borrowed::<T, $P>(value)) {
                return only_odd(path);
            }
        )* };
    }
    of!(PathBuf, Box<Path>, Arc<Path>, Rc<Path>, Box<PathBuf>, Arc<PathBuf>, Rc<PathBuf>,);
    let borrowed = specialize::as_path(value).or_else(|| specialize::as_borrowed::<T, Path>(value));
    if let Some(path) = borrowed.or_else(|| specialize::as_borrowed_twice::<T, Path>(value)) {
        return only_odd(path);
    }
    if let Some(path) = specialize::as_borrowed_twice::<T, PathBuf>(value) {
        return only_odd(path);
    }
    let cow = specialize::as_cow::<T, Path>(value).or_else(|| specialize::as_borrowed_cow::<T, Path>(value));
    cow.and_then(|path: &Cow<'_, Path>| only_odd(path))
}

/// Whether `T` has the name of a path, or of what holds or refers to one.
///
/// Only for builds in which the compiler does not find out that the types differ: this is a fifth of the work of comparing them.
fn is_named_path<T: ?Sized>() -> bool {
    let name = type_name::<T>().as_bytes();
    let name = name.strip_suffix(b">").unwrap_or(name);
    name.ends_with(b"::Path") || name.ends_with(b"::PathBuf")
}

fn only_odd(path: &Path) -> Option<&[u8]> {
    path.to_str().is_none().then(|| path.as_os_str().as_bytes())
}

/// Whether a visitor makes a path. The compiler knows the answer.
#[inline]
pub(super) fn makes_path<'a, V: Visitor<'a>>() -> bool {
    specialize::is::<V::Value, PathBuf>()
}

/// Shows text to a visitor; to that of a path also what is no UTF-8.
#[inline]
pub(super) fn visit_text<'a, V: Visitor<'a>, E: Error>(bytes: &'a [u8], visitor: V) -> Result<V::Value, E> {
    match std::str::from_utf8(bytes) {
        Ok(text) => visitor.visit_borrowed_str(text),
        Err(error) => {
            odd_path::<V>(bytes).ok_or_else(|| E::custom(format_args!("it has text that is no UTF-8: {error}")))
        }
    }
}

/// What serde's own visitor of paths would make of these bytes, if paths had no need to be UTF-8.
fn odd_path<'a, V: Visitor<'a>>(bytes: &[u8]) -> Option<V::Value> {
    // Another visitor may make something else of a text than the path that it is.
    let name = type_name::<V>();
    let is_plain = makes_path::<V>() && name.contains("serde") && name.contains("::PathBufVisitor");
    is_plain.then(|| specialize::into(PathBuf::from(OsString::from_vec(bytes.to_vec())))).flatten()
}

/// A visitor of a path, which is asked for as bytes.
pub(super) struct PathBytes<V>(pub(super) V);

impl<'a, V: Visitor<'a>> Visitor<'a> for PathBytes<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'a [u8]) -> Result<V::Value, E> {
        visit_text(bytes, self.0)
    }
}
