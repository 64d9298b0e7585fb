//! What a format is: one trait for values that are given away, one for values that are lent.
//!
//! Owns: the rule that a type's two directions are decided together. Never: decides; that is [`choose`](super::choose).
//! Runs in: the parent and the child, each in both directions.
//!
//! Generated code names [`codec`] and [`loan`] and not the traits' methods, so that a type that cannot travel is
//! reported as an unmet bound, once, in the words of [`Travels`].

use super::named::Log;
use super::trial::{self, Again};
use super::via_serde;
use super::{CodecError, Reader, Travels, Writer};

/// How values of type `T` are written, and read back from a payload that lives for `'a`.
pub trait Format<'a, T> {
    /// Appends `value`; `again` reads one of its type, where it has to be tried.
    ///
    /// # Errors
    /// The value refuses, would not arrive as it is, or there is no memory for its bytes.
    fn encode(value: &T, writer: &mut Writer<'_>, again: Again) -> Result<(), CodecError>;

    /// Takes the next value.
    ///
    /// # Errors
    /// The next bytes are no such value.
    fn decode(reader: &mut Reader<'a>) -> Result<T, CodecError>;

    /// Appends `value` to a log of a trial, of which the plain format has none.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn log(_value: &T, _log: &mut Log<'_>) -> Result<(), CodecError> {
        Ok(())
    }
}

/// What keeps the target of a parameter `&T` alive while it is lent, for a payload that lives for `'a`.
///
/// Apart from [`Lend`], because it is known even where that is not: then the one error is that `T` cannot travel.
pub trait Store<'a, T: ?Sized> {
    /// The value itself, or something that has one inside.
    type Storage;
}

/// How the target of a parameter `&T` is written, and read back into something that can lend a `&T`.
pub trait Lend<'a, T: ?Sized>: Store<'a, T> {
    /// Appends `value`; `again` reads one of its type, where it has to be tried.
    ///
    /// # Errors
    /// As [`Format::encode`].
    fn push(value: &T, writer: &mut Writer<'_>, again: Again) -> Result<(), CodecError>;

    /// Takes the next value, into storage.
    ///
    /// # Errors
    /// As [`Format::decode`].
    fn pull(reader: &mut Reader<'a>) -> Result<Self::Storage, CodecError>;

    /// The value in `storage`.
    fn lend(storage: &Self::Storage) -> &T;

    /// Appends `value` to a log of a trial, of which the plain format has none.
    ///
    /// # Errors
    /// As [`Format::encode`].
    fn log(_value: &T, _log: &mut Log<'_>) -> Result<(), CodecError> {
        Ok(())
    }
}

/// Lends a value that was decoded as `F` decodes it.
#[derive(Clone, Copy, Debug)]
pub struct AsOwned<F>(pub F);

impl<T, F> Store<'_, T> for AsOwned<F> {
    type Storage = T;
}

impl<'a, T, F: Format<'a, T>> Lend<'a, T> for AsOwned<F> {
    #[inline]
    fn push(value: &T, writer: &mut Writer<'_>, again: Again) -> Result<(), CodecError> {
        F::encode(value, writer, again)
    }

    fn log(value: &T, log: &mut Log<'_>) -> Result<(), CodecError> {
        F::log(value, log)
    }

    #[inline]
    fn pull(reader: &mut Reader<'a>) -> Result<T, CodecError> {
        F::decode(reader)
    }

    #[inline]
    fn lend(storage: &T) -> &T {
        storage
    }
}

/// Lends a slice of anything that travels, from a `Vec`.
#[derive(Clone, Copy, Debug)]
pub struct AsElements;

impl<T> Store<'_, [T]> for AsElements {
    type Storage = Vec<T>;
}

impl<'a, T: Travels<'a>> Lend<'a, [T]> for AsElements {
    fn push(value: &[T], writer: &mut Writer<'_>, again: Again) -> Result<(), CodecError> {
        via_serde::put(value, writer, again)
    }

    fn log(value: &[T], log: &mut Log<'_>) -> Result<(), CodecError> {
        trial::write(value, log)
    }

    fn pull(reader: &mut Reader<'a>) -> Result<Vec<T>, CodecError> {
        via_serde::take(reader)
    }

    #[inline]
    fn lend(storage: &Vec<T>) -> &[T] {
        storage
    }
}

/// Lends nothing: for types without a size, which no process can keep.
#[derive(Clone, Copy, Debug)]
pub struct AsNothing;

impl<T: ?Sized> Store<'_, T> for AsNothing {
    type Storage = Never;
}

#[expect(clippy::needless_maybe_sized, reason = "the bound is there to fail, in the words of `Travels`")]
impl<'a, T: Travels<'a> + ?Sized> Lend<'a, T> for AsNothing {
    fn push(_: &T, _: &mut Writer<'_>, _: Again) -> Result<(), CodecError> {
        Err(CodecError::new("a value without a size cannot travel"))
    }

    fn pull(_: &mut Reader<'a>) -> Result<Never, CodecError> {
        Err(CodecError::new("a value without a size cannot travel"))
    }

    fn lend(storage: &Never) -> &T {
        match *storage {}
    }
}

/// What is never there.
#[derive(Clone, Copy, Debug)]
pub enum Never {}

/// A [`Format`] for `T`, found once and without bounds of its own, so that a type that cannot travel is one error.
#[derive(Debug)]
pub struct Codec<'a, T> {
    encode: fn(&T, &mut Writer<'_>, Again) -> Result<(), CodecError>,
    decode: fn(&mut Reader<'a>) -> Result<T, CodecError>,
    log: fn(&T, &mut Log<'_>) -> Result<(), CodecError>,
}

/// How values of type `T` cross.
#[inline]
#[must_use]
pub fn codec<'a, T, F: Format<'a, T>>(_format: F) -> Codec<'a, T> {
    Codec { encode: F::encode, decode: F::decode, log: F::log }
}

impl<'a, T> Codec<'a, T> {
    /// Appends `value`.
    ///
    /// # Errors
    /// As [`Format::encode`].
    #[inline]
    pub fn encode(&self, value: &T, writer: &mut Writer<'_>, again: Again) -> Result<(), CodecError> {
        (self.encode)(value, writer, again)
    }

    /// Takes the next value, and appends it to a log: what an [`Again`] does.
    ///
    /// # Errors
    /// As [`Format::decode`] and [`Format::encode`].
    pub fn again(&self, reader: &mut Reader<'a>, log: &mut Log<'_>) -> Result<(), CodecError> {
        (self.log)(&(self.decode)(reader)?, log)
    }

    /// Takes the next value.
    ///
    /// # Errors
    /// As [`Format::decode`].
    #[inline]
    pub fn decode(&self, reader: &mut Reader<'a>) -> Result<T, CodecError> {
        (self.decode)(reader)
    }

    /// Takes the one value that `payload` is.
    ///
    /// # Errors
    /// As [`Format::decode`], and when bytes are left over.
    #[inline]
    pub fn decode_whole(&self, payload: &'a [u8]) -> Result<T, CodecError> {
        let mut reader = Reader::new(payload);
        let value = self.decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// A [`Lend`] for `T`, found once and without bounds of its own; `S` is its storage.
#[derive(Debug)]
pub struct LendCodec<'a, T: ?Sized, S> {
    push: fn(&T, &mut Writer<'_>, Again) -> Result<(), CodecError>,
    pull: fn(&mut Reader<'a>) -> Result<S, CodecError>,
    lend: fn(&S) -> &T,
    log: fn(&T, &mut Log<'_>) -> Result<(), CodecError>,
}

/// How parameters of type `&T` cross.
#[inline]
#[must_use]
pub fn loan<'a, T: ?Sized, L: Lend<'a, T>>(_lend: L) -> LendCodec<'a, T, <L as Store<'a, T>>::Storage> {
    LendCodec { push: L::push, pull: L::pull, lend: L::lend, log: L::log }
}

impl<'a, T: ?Sized, S> LendCodec<'a, T, S> {
    /// Appends the target of a borrowed parameter.
    ///
    /// # Errors
    /// As [`Format::encode`].
    #[inline]
    pub fn push(&self, value: &T, writer: &mut Writer<'_>, again: Again) -> Result<(), CodecError> {
        (self.push)(value, writer, again)
    }

    /// Takes the target of a borrowed parameter, and appends it to a log: what an [`Again`] does.
    ///
    /// # Errors
    /// As [`Format::decode`] and [`Format::encode`].
    pub fn again(&self, reader: &mut Reader<'a>, log: &mut Log<'_>) -> Result<(), CodecError> {
        (self.log)((self.lend)(&(self.pull)(reader)?), log)
    }

    /// Takes the target of a borrowed parameter, into storage.
    ///
    /// # Errors
    /// As [`Format::decode`].
    #[inline]
    pub fn pull(&self, reader: &mut Reader<'a>) -> Result<S, CodecError> {
        (self.pull)(reader)
    }

    /// What `storage` holds.
    #[inline]
    #[must_use]
    pub fn lend<'s>(&self, storage: &'s S) -> &'s T {
        (self.lend)(storage)
    }
}
