//! A finished payload, read once from front to back.
//!
//! Owns: how far the reading has come. Gives out: pieces of the payload itself, never copies.
//! Never: reads past the end, or believes a length before comparing it with what is left.
//! Runs in: the child for arguments, the parent for results.

use super::{ALIGNMENT, CodecError, Number};

/// A cursor over the bytes of a payload.
///
/// ```
/// use process_task::__private::Reader;
///
/// let mut reader = Reader::new(b"ab");
/// assert_eq!(reader.take(1).unwrap(), b"a");
/// assert!(reader.take(2).is_err());
/// assert!(reader.finish().is_err(), "b is left over");
/// ```
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    /// How many of `bytes` were read; never more than there are.
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`, which should be at a multiple of [`ALIGNMENT`]: elsewhere, borrowed numbers cannot
    /// be read, and owned ones take longer.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// The payload is shorter.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let Some(piece) = self.rest().get(..len) else {
            return Err(CodecError::too_short(len as u64, self.rest().len()));
        };
        self.at += len;
        Ok(piece)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// The payload is shorter.
    #[inline]
    pub fn take_array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let Some(piece) = self.rest().first_chunk::<N>() else {
            return Err(CodecError::too_short(N as u64, self.rest().len()));
        };
        self.at += N;
        Ok(*piece)
    }

    /// The bytes of `count` values of type `T`, which begin at the next multiple of [`ALIGNMENT`].
    ///
    /// # Errors
    /// The payload is shorter.
    #[inline]
    pub fn take_numbers<T: Number>(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let Some(len) = count.checked_mul(size_of::<T>()) else {
            return Err(CodecError::too_short(u64::MAX, self.rest().len()));
        };
        self.take(self.at.next_multiple_of(ALIGNMENT) - self.at)?;
        self.take(len)
    }

    /// The next length or count, which [`Writer::put_len`](super::Writer::put_len) wrote. It is not checked yet.
    ///
    /// # Errors
    /// The payload is shorter, or this machine cannot count so far.
    #[inline]
    pub fn take_len(&mut self) -> Result<usize, CodecError> {
        let len = u64::from_ne_bytes(self.take_array()?);
        usize::try_from(len).map_err(|_| CodecError::too_short(len, self.rest().len()))
    }

    /// How many bytes were read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// What was not read yet.
    #[inline]
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// There are bytes left.
    #[inline]
    pub fn finish(self) -> Result<(), CodecError> {
        match self.rest().len() {
            0 => Ok(()),
            left => Err(CodecError::new(format!("the payload is too long: {left} bytes are left over"))),
        }
    }
}
