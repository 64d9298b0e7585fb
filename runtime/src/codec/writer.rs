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

use std::cell::{Cell, RefCell};
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

/// Where a payload has bytes of padding, so that what follows is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Padding {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

thread_local! {
    /// Whether this thread notes where it writes padding, and where it did.
    static NOTES: Cell<bool> = const { Cell::new(false) };
    static PADDINGS: RefCell<Vec<Padding>> = const { RefCell::new(Vec::new()) };
}

/// Runs `encode`, which writes one payload, and returns also where padding is in it: so that the payload can be put behind
/// another one, where it needs other padding ([`append`]).
pub(crate) fn noting_paddings<R>(encode: impl FnOnce() -> R) -> (R, Vec<Padding>) {
    struct Scope(bool, Vec<Padding>);
    impl Drop for Scope {
        fn drop(&mut self) {
            NOTES.set(self.0);
            PADDINGS.set(std::mem::take(&mut self.1));
        }
    }
    let _scope = Scope(NOTES.replace(true), PADDINGS.take());
    let encoded = encode();
    (encoded, PADDINGS.take())
}

/// Appends the bytes of `payload` from `from` on, which had these paddings, to those of another payload in `bytes`.
pub(crate) fn append(bytes: &mut Vec<u8>, (payload, from): (&[u8], usize), paddings: &[Padding]) {
    let mut at = from;
    for padding in paddings {
        bytes.extend_from_slice(payload.get(at..padding.from).unwrap_or_default());
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        at = padding.to;
    }
    bytes.extend_from_slice(payload.get(at..).unwrap_or_default());
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
        if NOTES.get() {
            self.note(padding);
        }
        self.put_bytes(&[0; ALIGNMENT][..padding])?;
        self.put_bytes(bytes)
    }

    #[cold]
    fn note(&self, padding: usize) {
        let from = self.len();
        PADDINGS.with_borrow_mut(|paddings| paddings.push(Padding { from, to: from + padding }));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::NoSpill;
    use crate::codec::{Plain as _, Reader};

    /// The payload of `write`, and its paddings.
    fn payload(write: impl FnOnce(&mut Writer<'_>)) -> (Vec<u8>, Vec<Padding>) {
        let mut none = NoSpill;
        let mut writer = Writer::new(Vec::new(), usize::MAX, &mut none);
        let ((), paddings) = noting_paddings(|| write(&mut writer));
        match writer.finish().unwrap() {
            Encoded::Small(bytes) => (bytes, paddings),
            Encoded::Spilled(_) => unreachable!("there is no spill"),
        }
    }

    #[test]
    fn payload_behind_another_is_padded_as_if_written_there() {
        let values = (vec![1.5_f64, 2.5], "text".to_owned(), [3_u16; 5], Vec::<u64>::new(), 9_u8);
        let put = |writer: &mut Writer<'_>| {
            values.0.put(writer).unwrap();
            values.1.put(writer).unwrap();
            values.2.put(writer).unwrap();
            values.3.put(writer).unwrap();
            values.4.put(writer).unwrap();
        };
        let before = |writer: &mut Writer<'_>, len: usize| writer.put_bytes(&vec![0xEE; len]).unwrap();
        for encoded_behind in [0, 1, 2, 16] {
            let (alone, paddings) = payload(|writer| {
                before(writer, encoded_behind);
                put(writer);
            });
            assert_eq!(paddings.len(), 3);
            for len in 0..33 {
                let (together, _) = payload(|writer| {
                    before(writer, len);
                    put(writer);
                });
                let mut bytes = vec![0xEE; len];
                append(&mut bytes, (&alone, encoded_behind), &paddings);
                assert_eq!(bytes, together, "{len} bytes come before, and {encoded_behind} came before");
                let mut reader = Reader::new(&bytes);
                reader.take(len).unwrap();
                assert_eq!(Vec::<f64>::get(&mut reader).unwrap(), values.0);
                assert_eq!(String::get(&mut reader).unwrap(), values.1);
            }
        }
    }

    #[test]
    fn paddings_are_noted_only_where_they_are_asked_for() {
        let (_, paddings) = payload(|writer| {
            writer.put_bytes(&[1]).unwrap();
            let ((), inner) = noting_paddings(|| writer.put_aligned(&[2]).unwrap());
            assert_eq!(inner, [Padding { from: 1, to: 16 }]);
        });
        assert!(paddings.is_empty());
        let mut none = NoSpill;
        let mut writer = Writer::new(Vec::new(), usize::MAX, &mut none);
        writer.put_aligned(&[1]).unwrap();
        assert_eq!(noting_paddings(|| ()).1, []);
    }

    #[test]
    fn paddings_that_make_no_sense_are_no_panic() {
        let mut bytes = Vec::new();
        append(&mut bytes, (&[1, 2, 3], 2), &[Padding { from: 1, to: 9 }, Padding { from: 2, to: 0 }]);
        append(&mut bytes, (&[1, 2, 3], 9), &[]);
        assert!(bytes.len() <= 4);
    }
}
