//! The self-describing format: what serde says of a value, with all names.
//!
//! Owns: the bytes of that format. Runs in: every process. Never: loses anything that serde's model of data can tell apart.
//!
//! It carries values of types that ask what comes next, or leave fields out, and it is what a [trial](super::trial) reads.
//! Each value is a [`Tag`] and what belongs to it; lengths are of seven bits a byte, numbers of their own width, in this machine's order.
//! `MessagePack` and CBOR would do for JSON's types, but have one `nil` for `None`, `Some(None)` and `Some(())`, one integer for
//! all widths, and one list for tuples and sequences. Here all that serde tells apart stays apart, so that a trial sees whatever
//! is read as something else than what was written.
//!
//! | value | after its tag |
//! |---|---|
//! | number, `char` | its bytes |
//! | text, bytes | length, bytes |
//! | `Some` | the value |
//! | sequence, map | count + 1, or 0 if it is not known; values, or keys and values; [`Tag::End`] |
//! | tuple | values; [`Tag::End`] |
//! | struct | for each field [`Tag::Field`], the name's length, the name, the value; [`Tag::End`] |
//! | variant | index, the name's length, the name; then as for a value, a tuple or a struct |

mod access;
mod read;
mod shape;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;

use super::CodecError;
use crate::sys::stack;

pub(super) use self::read::Source;
pub(super) use self::shape::{difference, shape};
pub use self::write::Log;
pub(super) use self::write::log;

/// The first byte of a value: what follows was written by places.
pub(super) const BY_PLACE: u8 = 0;

/// What follows was written by names.
pub(super) const BY_NAME: u8 = 1;

/// What follows has names, and is to be read as if it had none: only in a [trial](super::trial).
pub(super) const LOGGED: u8 = 2;

macro_rules! tags {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What comes next.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Tag { $($(#[$doc])* $name = $number,)* }

        impl Tag {
            fn of(byte: u8) -> Option<Self> {
                match byte {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

tags! {
    /// No more elements, entries or fields.
    End = 0,
    Unit = 1,
    False = 2,
    True = 3,
    I8 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    I128 = 8,
    U8 = 9,
    U16 = 10,
    U32 = 11,
    U64 = 12,
    U128 = 13,
    F32 = 14,
    F64 = 15,
    Char = 16,
    Str = 17,
    Bytes = 18,
    None = 19,
    Some = 20,
    Seq = 21,
    Map = 22,
    Tuple = 23,
    Struct = 24,
    Field = 25,
    UnitVariant = 26,
    NewtypeVariant = 27,
    TupleVariant = 28,
    StructVariant = 29,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::End => "the end",
            Self::Unit => "a unit",
            Self::False | Self::True => "a bool",
            Self::I8 => "an `i8`",
            Self::I16 => "an `i16`",
            Self::I32 => "an `i32`",
            Self::I64 => "an `i64`",
            Self::I128 => "an `i128`",
            Self::U8 => "a `u8`",
            Self::U16 => "a `u16`",
            Self::U32 => "a `u32`",
            Self::U64 => "a `u64`",
            Self::U128 => "a `u128`",
            Self::F32 => "an `f32`",
            Self::F64 => "an `f64`",
            Self::Char => "a `char`",
            Self::Str => "a string",
            Self::Bytes => "bytes",
            Self::None => "`None`",
            Self::Some => "`Some`",
            Self::Seq => "a sequence",
            Self::Map => "a map",
            Self::Tuple => "a tuple",
            Self::Struct => "a struct",
            Self::Field => "a field",
            Self::UnitVariant | Self::NewtypeVariant | Self::TupleVariant | Self::StructVariant => "a variant",
        })
    }
}

/// Where the reading of bytes in this format has come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogCursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Parsed<T> = Result<T, CodecError>;

impl<'a> LogCursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn peek(&self) -> Parsed<Tag> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| CodecError::too_short(1, 0))?;
        Tag::of(byte).ok_or_else(|| CodecError::bad_variant("kind of value", byte))
    }

    fn tag(&mut self) -> Parsed<Tag> {
        let tag = self.peek()?;
        self.at += 1;
        Ok(tag)
    }

    fn take(&mut self, len: usize) -> Parsed<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let piece = rest.get(..len).ok_or_else(|| CodecError::too_short(len as u64, rest.len()))?;
        self.at += len;
        Ok(piece)
    }

    fn number<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let rest = &self.bytes[self.at..];
        let piece = rest.first_chunk::<N>().ok_or_else(|| CodecError::too_short(N as u64, rest.len()))?;
        self.at += N;
        Ok(*piece)
    }

    fn len(&mut self) -> Parsed<usize> {
        let mut len = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let [byte] = self.number()?;
            len |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(len);
            }
        }
        Err(CodecError::new("the payload is corrupt: a length has no end"))
    }

    fn piece(&mut self) -> Parsed<&'a [u8]> {
        let len = self.len()?;
        self.take(len)
    }

    fn name(&mut self) -> Parsed<&'a str> {
        std::str::from_utf8(self.piece()?).map_err(|_| CodecError::new("the payload is corrupt: a name is no text"))
    }

    /// The names of a struct's fields, from the first one to the end.
    pub(super) fn names(mut self) -> impl Iterator<Item = &'a str> {
        std::iter::from_fn(move || {
            let name = (self.tag().ok()? == Tag::Field).then(|| self.name().ok())??;
            self.skip_value().ok()?;
            Some(name)
        })
    }

    /// Passes over what belongs to `tag`.
    fn skip(&mut self, tag: Tag) -> Parsed<()> {
        may_go_deeper()?;
        match tag {
            Tag::Unit | Tag::False | Tag::True | Tag::None => {}
            Tag::I8 | Tag::U8 => drop(self.take(1)?),
            Tag::I16 | Tag::U16 => drop(self.take(2)?),
            Tag::I32 | Tag::U32 | Tag::F32 | Tag::Char => drop(self.take(4)?),
            Tag::I64 | Tag::U64 | Tag::F64 => drop(self.take(8)?),
            Tag::I128 | Tag::U128 => drop(self.take(16)?),
            Tag::Str | Tag::Bytes => drop(self.piece()?),
            Tag::Some => self.skip_value()?,
            Tag::Seq | Tag::Map => {
                self.len()?;
                self.skip_all()?;
            }
            Tag::Tuple | Tag::Struct => self.skip_all()?,
            Tag::UnitVariant | Tag::NewtypeVariant | Tag::TupleVariant | Tag::StructVariant => {
                self.len()?;
                self.piece()?;
                match tag {
                    Tag::UnitVariant => {}
                    Tag::NewtypeVariant => self.skip_value()?,
                    _ => self.skip_all()?,
                }
            }
            Tag::End | Tag::Field => return Err(CodecError::bad_variant("value", tag)),
        }
        Ok(())
    }

    fn skip_value(&mut self) -> Parsed<()> {
        let tag = self.tag()?;
        self.skip(tag)
    }

    /// Passes over elements, entries or fields, and their end.
    fn skip_all(&mut self) -> Parsed<()> {
        loop {
            match self.tag()? {
                Tag::End => return Ok(()),
                Tag::Field => drop(self.piece()?),
                tag => self.skip(tag)?,
            }
        }
    }
}

/// Whether this thread has the stack for one value more inside of others.
pub(super) fn may_go_deeper() -> Parsed<()> {
    if stack::is_scarce() { Err(CodecError::new(TOO_DEEP)) } else { Ok(()) }
}

/// What is said of values that lie too deep in one another.
pub(super) const TOO_DEEP: &str =
    "it goes deeper than the stack of this thread: too many values lie one inside the other";
