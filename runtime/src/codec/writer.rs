//! A payload under construction: append only, small ones in a `Vec`, big ones in memory that the link lends.
//!
//! Owns: where the next byte goes, and when a payload stops being small. Gives out: [`Encoded`], exactly once.
//! Never: writes a byte twice, except those that wait in the small buffer when a payload outgrows it.
//! Runs in: the parent for arguments, the child for results.
//!
//! # How a payload grows
//!
//! Bytes are staged in the small buffer. When the next piece does not fit there, the staged bytes and the piece move to
//! the [`Spill`], and the emptied buffer stages what follows. So one big piece costs one reservation of exactly its
//! size and one copy, while a million small ones cost one call of the spill for each bufferful, and amortised doubling.

use std::fmt;
use std::io;

use super::{ALIGNMENT, CodecError};

/// Memory that a payload moves to when it outgrows the small buffer.
pub trait Spill {
    /// Makes at least `capacity` bytes available, and keeps the first `written`.
    ///
    /// # Errors
    /// There is no memory of that size.
    fn grow(&mut self, written: usize, capacity: usize) -> io::Result<()>;

    /// All bytes that are available now.
    fn bytes(&mut self) -> &mut [u8];
}

/// Memory for messages that never grows: those that use it keep all they have in their buffer.
#[derive(Debug)]
pub(crate) struct NoSpill;

impl Spill for NoSpill {
    fn grow(&mut self, _: usize, _: usize) -> std::io::Result<()> {
        Err(std::io::ErrorKind::FileTooLarge.into())
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut []
    }
}

/// Where the finished bytes of a [`Writer`] are.
#[derive(Debug, PartialEq, Eq)]
pub enum Encoded {
    /// All of them in the small buffer.
    Small(Vec<u8>),
    /// This many at the start of the [`Spill`].
    Spilled(usize),
}

/// A payload under construction.
pub struct Writer<'s> {
    /// Bytes that are not in the spill yet, behind those that are no part of this payload.
    staged: Vec<u8>,
    /// Where the payload begins in `staged`.
    base: usize,
    /// How many bytes may be staged.
    threshold: usize,
    /// How many bytes are in the spill.
    spilled: usize,
    /// How many bytes the spill was last asked for; 0 while the payload is small.
    capacity: usize,
    spill: &'s mut dyn Spill,
}

impl<'s> Writer<'s> {
    /// Begins an empty payload. Up to `threshold` bytes stay in `buffer`, which is reused and loses its contents; a bigger
    /// payload moves to `spill`.
    #[inline]
    pub fn new(mut buffer: Vec<u8>, threshold: usize, spill: &'s mut dyn Spill) -> Self {
        buffer.clear();
        Self::after(buffer, threshold, spill)
    }

    /// As [`new`](Self::new), but behind the bytes that are in `buffer`, which stay there and are no part of the payload.
    #[inline]
    pub(crate) fn after(buffer: Vec<u8>, threshold: usize, spill: &'s mut dyn Spill) -> Self {
        Self { base: buffer.len(), staged: buffer, threshold, spilled: 0, capacity: 0, spill }
    }

    /// Begins another payload, behind the first `keep` staged bytes, which are no part of it. If fewer are staged, zeroes
    /// are. What the payload before had in the [`Spill`] is forgotten.
    #[inline]
    pub(crate) fn begin(&mut self, keep: usize, threshold: usize) {
        self.staged.resize(keep, 0);
        self.base = keep;
        self.threshold = threshold;
        self.spilled = 0;
        self.capacity = 0;
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// The payload outgrew the small buffer and the spill has no memory for it.
    #[inline]
    pub fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        if self.put_at_hand(bytes) { Ok(()) } else { self.put_slowly(bytes) }
    }

    /// Appends `bytes` if they are staged, and there is memory for them already. Whether they were appended.
    #[inline]
    pub(crate) fn put_at_hand(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.staged.capacity() - self.staged.len() && self.is_staged(bytes.len());
        if fits {
            self.staged.extend_from_slice(bytes);
        }
        fits
    }

    /// Whether the next `len` bytes are staged.
    #[inline]
    fn is_staged(&self, len: usize) -> bool {
        len <= self.threshold.saturating_sub(self.staged.len() - self.base)
    }

    /// Appends zeroes until the length is a multiple of [`ALIGNMENT`], then `bytes`.
    ///
    /// # Errors
    /// As [`put_bytes`](Self::put_bytes).
    #[inline]
    pub fn put_aligned(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        let padding = self.len().next_multiple_of(ALIGNMENT) - self.len();
        self.put_bytes(&[0; ALIGNMENT][..padding])?;
        self.put_bytes(bytes)
    }

    /// Appends a length or a count, as `u64`.
    ///
    /// # Errors
    /// As [`put_bytes`](Self::put_bytes).
    #[inline]
    pub fn put_len(&mut self, len: usize) -> Result<(), CodecError> {
        self.put_bytes(&(len as u64).to_ne_bytes())
    }

    /// How many bytes were appended so far.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.spilled + self.staged.len() - self.base
    }

    /// Forgets what was appended behind the first `len` bytes.
    pub(crate) fn back_to(&mut self, len: usize) {
        if let Some(staged) = len.checked_sub(self.spilled) {
            self.staged.truncate(self.base + staged);
        } else {
            self.spilled = len;
            self.staged.truncate(self.base);
        }
    }

    /// Whether nothing was appended yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the payload and says where its bytes are.
    ///
    /// # Errors
    /// As [`put_bytes`](Self::put_bytes).
    #[inline]
    pub fn finish(mut self) -> Result<Encoded, CodecError> {
        if self.capacity == 0 {
            return Ok(Encoded::Small(self.staged));
        }
        self.flush(0, 0)?;
        Ok(Encoded::Spilled(self.spilled))
    }

    /// Ends the payload that [`begin`](Self::begin) began. Says how many bytes went to the [`Spill`]; if none did, they are
    /// at the end of what is staged.
    ///
    /// # Errors
    /// As [`put_bytes`](Self::put_bytes).
    #[inline]
    pub(crate) fn end(&mut self) -> Result<Option<usize>, CodecError> {
        if self.capacity == 0 {
            return Ok(None);
        }
        self.flush(0, 0)?;
        Ok(Some(self.spilled))
    }

    /// The staged bytes, with those that are no part of the payload.
    #[inline]
    pub(crate) fn staged(&mut self) -> &mut Vec<u8> {
        &mut self.staged
    }

    /// Appends `bytes` where memory has to be asked for first.
    #[cold]
    fn put_slowly(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        if self.is_staged(bytes.len()) {
            self.staged.extend_from_slice(bytes);
            return Ok(());
        }
        self.put_beyond_threshold(bytes)
    }

    /// The small buffer is full: moves it and `bytes` to the spill.
    fn put_beyond_threshold(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        // Small pieces go on being staged; a big one must not pass through the small buffer.
        if bytes.len() < self.threshold {
            self.flush(bytes.len(), self.capacity.saturating_mul(2))?;
            self.staged.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush(bytes.len(), self.capacity.saturating_mul(2))?;
        self.spill.bytes()[self.spilled..][..bytes.len()].copy_from_slice(bytes);
        self.spilled += bytes.len();
        Ok(())
    }

    /// Moves the staged bytes to the spill and makes room there for `more`. If it must grow, then to `wish` at least.
    fn flush(&mut self, more: usize, wish: usize) -> Result<(), CodecError> {
        let needed = self.len().checked_add(more).ok_or_else(|| CodecError::new("the payload is too large"))?;
        if needed > self.capacity {
            let capacity = needed.max(wish);
            self.spill.grow(self.spilled, capacity)?;
            self.capacity = capacity;
        }
        let staged = &self.staged[self.base..];
        self.spill.bytes()[self.spilled..][..staged.len()].copy_from_slice(staged);
        self.spilled += staged.len();
        self.staged.truncate(self.base);
        Ok(())
    }
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("len", &self.len()).field("small", &(self.capacity == 0)).finish_non_exhaustive()
    }
}
