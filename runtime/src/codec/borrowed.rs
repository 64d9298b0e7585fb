//! Parameters that are lent straight from the payload, without any copy.
//!
//! Owns: the list of such types. Never: allocates.
//! Runs in: the parent to write them, the child to lend them.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::number::lend_slice;
use super::plain::{put_counted_bytes, put_numbers, take_counted_bytes, take_str};
use super::{Again, CodecError, Lend, Number, Reader, Store, Writer};

/// Unsized values that are encoded as they are: `str`, `[number]`, `Path`, `OsStr`, `CStr`.
pub trait Borrowable {
    /// Appends the value.
    ///
    /// # Errors
    /// There is no memory for its bytes.
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError>;

    /// Finds the next value in the payload.
    ///
    /// # Errors
    /// The next bytes are no such value.
    fn find<'a>(reader: &mut Reader<'a>) -> Result<&'a Self, CodecError>;
}

/// Lends from the payload.
#[derive(Clone, Copy, Debug)]
pub struct AsBorrowed;

impl<'a, T: ?Sized + 'a> Store<'a, T> for AsBorrowed {
    type Storage = &'a T;
}

impl<'a, T: Borrowable + ?Sized + 'a> Lend<'a, T> for AsBorrowed {
    #[inline]
    fn push(value: &T, writer: &mut Writer<'_>, _: Again) -> Result<(), CodecError> {
        value.put(writer)
    }

    #[inline]
    fn pull(reader: &mut Reader<'a>) -> Result<&'a T, CodecError> {
        T::find(reader)
    }

    #[inline]
    fn lend<'s>(storage: &'s &'a T) -> &'s T {
        storage
    }
}

impl Borrowable for str {
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        put_counted_bytes(self.as_bytes(), writer)
    }

    #[inline]
    fn find<'a>(reader: &mut Reader<'a>) -> Result<&'a Self, CodecError> {
        take_str(reader)
    }
}

impl<T: Number> Borrowable for [T] {
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        put_numbers(self, writer)
    }

    #[inline]
    fn find<'a>(reader: &mut Reader<'a>) -> Result<&'a Self, CodecError> {
        let count = reader.take_len()?;
        lend_slice(reader.take_numbers::<T>(count)?)
    }
}

impl Borrowable for OsStr {
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        put_counted_bytes(self.as_bytes(), writer)
    }

    fn find<'a>(reader: &mut Reader<'a>) -> Result<&'a Self, CodecError> {
        take_counted_bytes(reader).map(Self::from_bytes)
    }
}

impl Borrowable for Path {
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        Borrowable::put(self.as_os_str(), writer)
    }

    fn find<'a>(reader: &mut Reader<'a>) -> Result<&'a Self, CodecError> {
        OsStr::find(reader).map(Self::new)
    }
}

impl Borrowable for CStr {
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        put_counted_bytes(self.to_bytes_with_nul(), writer)
    }

    fn find<'a>(reader: &mut Reader<'a>) -> Result<&'a Self, CodecError> {
        let bytes = take_counted_bytes(reader)?;
        Self::from_bytes_with_nul(bytes).map_err(|error| CodecError::new(error.to_string()))
    }
}
