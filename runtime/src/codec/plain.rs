//! The plain format: values that travel as one copy of their memory.
//!
//! Owns: the bytes of every type that [`Plain`] is implemented for. Never: asks serde.
//! Runs in: the parent and the child.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use super::number::{for_each_primitive, fresh_vec};
use super::{Again, CodecError, Format, Number, Reader, Writer};

/// Values with a plain encoding: numbers, `bool`, `char`, `()`, owned strings and paths, `Vec`, `Box<[…]>` and arrays of
/// numbers, and `Option` and `Result` of such.
pub trait Plain: Sized {
    /// Appends the value.
    ///
    /// # Errors
    /// There is no memory for its bytes.
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError>;

    /// Takes the next value.
    ///
    /// # Errors
    /// The next bytes are no such value.
    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError>;
}

/// The plain format.
#[derive(Clone, Copy, Debug)]
pub struct AsPlain;

impl<'a, T: Plain> Format<'a, T> for AsPlain {
    #[inline]
    fn encode(value: &T, writer: &mut Writer<'_>, _: Again) -> Result<(), CodecError> {
        value.put(writer)
    }

    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<T, CodecError> {
        T::get(reader)
    }
}

/// Appends a length, then the bytes.
#[inline]
pub(super) fn put_counted_bytes(bytes: &[u8], writer: &mut Writer<'_>) -> Result<(), CodecError> {
    writer.put_len(bytes.len())?;
    writer.put_bytes(bytes)
}

/// Takes what [`put_counted_bytes`] appended.
#[inline]
pub(super) fn take_counted_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], CodecError> {
    let len = reader.take_len()?;
    reader.take(len)
}

/// Takes a counted string.
#[inline]
pub(super) fn take_str<'a>(reader: &mut Reader<'a>) -> Result<&'a str, CodecError> {
    std::str::from_utf8(take_counted_bytes(reader)?)
        .map_err(|error| CodecError::new(format!("the payload is corrupt: {error}")))
}

/// Appends a count, then the numbers.
#[inline]
pub(super) fn put_numbers<T: Number>(numbers: &[T], writer: &mut Writer<'_>) -> Result<(), CodecError> {
    writer.put_len(numbers.len())?;
    writer.put_aligned(bytemuck::cast_slice(numbers))
}

macro_rules! plain_primitive {
    ($($T:ty)*) => { $(
        impl Plain for $T {
            #[inline]
            fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
                writer.put_bytes(&self.to_ne_bytes())
            }

            #[inline]
            fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
                Ok(Self::from_ne_bytes(reader.take_array()?))
            }
        }
    )* };
}
for_each_primitive!(plain_primitive);

impl Plain for () {
    #[inline]
    fn put(&self, _: &mut Writer<'_>) -> Result<(), CodecError> {
        Ok(())
    }

    #[inline]
    fn get(_: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(())
    }
}

impl Plain for bool {
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        u8::from(*self).put(writer)
    }

    #[inline]
    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        match u8::get(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(CodecError::bad_variant("bool", other)),
        }
    }
}

impl Plain for char {
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        u32::from(*self).put(writer)
    }

    #[inline]
    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let scalar = u32::get(reader)?;
        char::from_u32(scalar).ok_or_else(|| CodecError::bad_variant("char", scalar))
    }
}

impl Plain for String {
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        put_counted_bytes(self.as_bytes(), writer)
    }

    #[inline]
    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        take_str(reader).map(str::to_owned)
    }
}

impl Plain for OsString {
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        put_counted_bytes(self.as_bytes(), writer)
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        take_counted_bytes(reader).map(|bytes| Self::from_vec(bytes.to_vec()))
    }
}

impl Plain for PathBuf {
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        put_counted_bytes(self.as_os_str().as_bytes(), writer)
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        OsString::get(reader).map(Self::from)
    }
}

impl<T: Number> Plain for Vec<T> {
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        put_numbers(self, writer)
    }

    #[inline]
    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let count = reader.take_len()?;
        Ok(fresh_vec(reader.take_numbers::<T>(count)?, count))
    }
}

impl<T: Number> Plain for Box<[T]> {
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        put_numbers(self, writer)
    }

    #[inline]
    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        // The vector is exactly full, so this moves nothing.
        Vec::get(reader).map(Vec::into_boxed_slice)
    }
}

impl<T: Number, const N: usize> Plain for [T; N] {
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.put_aligned(bytemuck::cast_slice(self))
    }

    #[inline]
    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        reader.take_numbers::<T>(N).map(bytemuck::pod_read_unaligned)
    }
}

impl<T: Plain> Plain for Option<T> {
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        match self {
            None => 0_u8.put(writer),
            Some(value) => {
                1_u8.put(writer)?;
                value.put(writer)
            }
        }
    }

    #[inline]
    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        match u8::get(reader)? {
            0 => Ok(None),
            1 => T::get(reader).map(Some),
            other => Err(CodecError::bad_variant("variant of Option", other)),
        }
    }
}

impl<T: Plain, E: Plain> Plain for Result<T, E> {
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        match self {
            Ok(value) => {
                0_u8.put(writer)?;
                value.put(writer)
            }
            Err(error) => {
                1_u8.put(writer)?;
                error.put(writer)
            }
        }
    }

    #[inline]
    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        match u8::get(reader)? {
            0 => T::get(reader).map(Ok),
            1 => E::get(reader).map(Err),
            other => Err(CodecError::bad_variant("variant of Result", other)),
        }
    }
}
