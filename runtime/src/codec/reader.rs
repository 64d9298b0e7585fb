//! A finished payload, read once from front to back.
//!
//! Owns: how far the reading has come. Gives out: pieces of the payload itself, never copies.
//! Never: reads past the end, or believes a length before comparing it with what is left.
//! Runs in: the child for arguments, the parent for results.
//!
//! A payload may have a [gap](Gap): values that were encoded apart from each other, as if they had been encoded together. The
//! reader finds that out at its start, by one comparison. It goes on behind the gap when a value begins where the gap
//! does, which is where ordinary payloads have an error.

use std::cell::Cell;

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
    /// The payload; up to the gap, if that is still to come.
    bytes: &'a [u8],
    /// How many of `bytes` were read; never more than there are.
    at: usize,
    /// The payload with what is behind the gap, until the reading has come there; else nothing.
    beyond: &'a [u8],
    /// Where in `beyond` the reading goes on.
    resume: usize,
}

/// Where a payload has bytes that are none of its values'.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    /// Where a value ends.
    pub(crate) from: usize,
    /// Where the next one begins. As far from a multiple of [`ALIGNMENT`] as where it was encoded.
    pub(crate) to: usize,
}

thread_local! {
    /// The address of a payload that this thread is about to read, and its gap.
    static EXPECTED: Cell<(usize, Gap)> = const { Cell::new(NONE) };
}

/// No payload is at this address.
const NONE: (usize, Gap) = (0, Gap { from: 0, to: 0 });

/// Runs `decode`, in which the first reader of `payload` steps over `gap`.
pub(crate) fn with_gap<R>(payload: &[u8], gap: Gap, decode: impl FnOnce() -> R) -> R {
    struct Scope((usize, Gap));
    impl Drop for Scope {
        fn drop(&mut self) {
            EXPECTED.set(self.0);
        }
    }
    let _scope = Scope(EXPECTED.replace((payload.as_ptr().addr(), gap)));
    decode()
}

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`, which should be at a multiple of [`ALIGNMENT`]: elsewhere, borrowed numbers cannot
    /// be read, and owned ones take longer.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let reader = Self { bytes, at: 0, beyond: &[], resume: 0 };
        if EXPECTED.get().0 == bytes.as_ptr().addr() { reader.expecting_gap() } else { reader }
    }

    #[cold]
    fn expecting_gap(self) -> Self {
        let (_, Gap { from, to }) = EXPECTED.replace(NONE);
        match self.bytes.split_at_checked(from) {
            Some((bytes, _)) if to < self.bytes.len() => Self { bytes, at: 0, beyond: self.bytes, resume: to },
            // Nothing is behind it.
            Some((bytes, _)) => Self { bytes, ..self },
            None => self,
        }
    }

    /// Goes on behind the gap, if the next value begins there. Whether it does.
    #[cold]
    pub(super) fn step_over(&mut self) -> bool {
        let is_there = self.at == self.bytes.len() && !self.beyond.is_empty();
        if is_there {
            *self = Self { bytes: self.beyond, at: self.resume, beyond: &[], resume: 0 };
        }
        is_there
    }

    /// What there is instead of the next `len` bytes, of which there are fewer: those behind the gap, or an error.
    #[cold]
    fn take_beyond(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        if self.step_over() { self.take(len) } else { Err(CodecError::too_short(len as u64, self.rest().len())) }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// The payload is shorter.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let Some(piece) = self.rest().get(..len) else { return self.take_beyond(len) };
        self.at += len;
        Ok(piece)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// The payload is shorter.
    #[inline]
    pub fn take_array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        if let Some(piece) = self.rest().first_chunk::<N>() {
            self.at += N;
            return Ok(*piece);
        }
        let piece = self.take_beyond(N)?;
        piece.try_into().map_err(|_| CodecError::too_short(N as u64, piece.len()))
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
        let padding = self.at.next_multiple_of(ALIGNMENT) - self.at;
        if padding > self.rest().len() && self.step_over() {
            return self.take_numbers::<T>(count);
        }
        self.take(padding)?;
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
        // What is behind a gap is never empty.
        match self.rest().len() + self.beyond.len() {
            0 => Ok(()),
            left => Err(CodecError::new(format!("the payload is too long: {left} bytes are left over"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A payload at a multiple of 16, of `first`, a gap, and `second`, which was encoded where `at` says.
    fn with<R>(first: &[u8], second: &[u8], at: usize, read: impl FnOnce(Reader<'_>) -> R) -> R {
        let to = first.len().next_multiple_of(ALIGNMENT) + at % ALIGNMENT;
        let mut memory = vec![0xEE; to + second.len() + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        memory[start..][..first.len()].copy_from_slice(first);
        memory[start + to..][..second.len()].copy_from_slice(second);
        let payload = &memory[start..][..to + second.len()];
        with_gap(payload, Gap { from: first.len(), to }, || read(Reader::new(payload)))
    }

    #[test]
    fn reading_goes_on_behind_the_gap_where_a_value_ends() {
        with(&[1, 2, 3], &[4, 5], 1, |mut reader| {
            assert_eq!(reader.take(3).unwrap(), [1, 2, 3]);
            assert_eq!(reader.take(0).unwrap(), [0; 0]);
            assert_eq!(reader.take_array().unwrap(), [4]);
            assert_eq!(reader.take(1).unwrap(), [5]);
            reader.finish().unwrap();
        });
    }

    #[test]
    fn value_across_the_gap_is_an_error() {
        with(&[1, 2, 3], &[4, 5], 1, |mut reader| assert!(reader.take(4).is_err()));
        with(&[1, 2, 3], &[4, 5], 1, |mut reader| {
            reader.take(1).unwrap();
            assert!(reader.take_array::<8>().is_err());
        });
        with(&[1], &[4, 5], 1, |mut reader| {
            reader.take(1).unwrap();
            assert!(reader.finish().is_err(), "what is behind the gap was not read");
        });
    }

    #[test]
    fn numbers_behind_the_gap_are_aligned_as_they_were() {
        for at in [1, 2, 7, 15, 16] {
            let mut second = vec![0; at.next_multiple_of(ALIGNMENT) - at];
            second.extend_from_slice(&[7; 16]);
            with(&[1, 2, 3], &second, at, |mut reader| {
                reader.take(3).unwrap();
                let numbers = reader.take_numbers::<u64>(2).unwrap();
                assert_eq!(numbers, [7; 16]);
                assert_eq!(numbers.as_ptr().addr() % ALIGNMENT, 0);
                reader.finish().unwrap();
            });
        }
    }

    #[test]
    fn nothing_behind_the_gap_is_no_error() {
        with(&[1], &[], 1, |mut reader| {
            reader.take(1).unwrap();
            assert!(reader.take(1).is_err());
            reader.finish().unwrap();
        });
    }

    #[test]
    fn only_the_first_reader_of_the_payload_steps_over() {
        let other = [9_u8, 9];
        with(&[1], &[4], 1, |mut reader| {
            let mut nested = Reader::new(&other);
            assert_eq!(nested.take(2).unwrap(), [9, 9]);
            nested.finish().unwrap();
            assert_eq!(reader.take_array::<1>().unwrap(), [1]);
            assert_eq!(reader.take_array::<1>().unwrap(), [4]);
        });
        let payload = [1, 0, 4];
        with_gap(&payload, Gap { from: 1, to: 2 }, || {
            drop(Reader::new(&payload));
            assert_eq!(Reader::new(&payload).take(3).unwrap(), [1, 0, 4]);
        });
        let _ = with_gap(&payload, Gap { from: 9, to: 9 }, || Reader::new(&payload).take(3).map(<[u8]>::to_vec));
    }
}
