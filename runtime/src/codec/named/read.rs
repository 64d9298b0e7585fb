//! Reads the self-describing format: by names, or by places as bincode would.
//!
//! Owns: what a type is shown for what it asks. Runs in: every process that decodes, and the sender in a trial.
//! Never: believes bytes: lengths are compared with what is left, each element has a byte of its own, and depth has its end.
//!
//! Read by places, it is a witness: a type that asks for something else than what was written would, by bincode, take other bytes
//! for it, and so that is noted and refused. Read by names, it gives what is there, and the type's own visitor decides.

use serde::de::value::SeqDeserializer;
use serde::de::{Deserializer, SeqAccess as _, Visitor};

use super::access::{Byte, Elements, Entries, Field, Fields, OneEntry, Variant};
use super::write::Fault;
use super::{LogCursor, TOO_DEEP, Tag, may_go_deeper};
use crate::codec::{paths, trial};

/// How deep values of types that ask what comes next may be nested. Serde keeps such a value in
/// between, and goes through it once more, where no depth is checked.
const MAX_UNKNOWN_DEPTH: usize = 256;

/// What a value is read from.
pub(in crate::codec) struct Source<'a> {
    pub(super) cursor: LogCursor<'a>,
    /// Whether it is read as if there were no names.
    pub(super) by_place: bool,
    /// A tag that is read as the next one, though it does not stand there.
    pub(super) pending: Option<Tag>,
    /// How many values are open of types that asked what comes next.
    unknown: usize,
}

impl<'a> Source<'a> {
    pub(in crate::codec) fn new(bytes: &'a [u8], by_place: bool) -> Self {
        Self { cursor: LogCursor::new(bytes), by_place, pending: None, unknown: 0 }
    }

    /// How many bytes were read.
    pub(in crate::codec) fn read(&self) -> usize {
        self.cursor.at
    }

    pub(super) fn peek(&self) -> Result<Tag, Fault> {
        self.pending.map_or_else(|| Ok(self.cursor.peek()?), Ok)
    }

    pub(super) fn tag(&mut self) -> Result<Tag, Fault> {
        self.pending.take().map_or_else(|| Ok(self.cursor.tag()?), Ok)
    }

    /// The next tag, which by place has to be one of these.
    pub(super) fn expect(&mut self, wanted: &str, tags: &[Tag]) -> Result<Tag, Fault> {
        let tag = self.tag()?;
        if self.by_place && !tags.contains(&tag) {
            return Err(misplaced(&format!("writes {tag} where it reads {wanted}")));
        }
        Ok(tag)
    }

    /// Shows a visitor what belongs to `tag`.
    fn show<V: Visitor<'a>>(&mut self, tag: Tag, visitor: V) -> Result<V::Value, Fault> {
        macro_rules! number {
            ($T:ty, $visit:ident) => {
                visitor.$visit(<$T>::from_ne_bytes(self.cursor.number()?))
            };
        }
        match tag {
            Tag::Unit => visitor.visit_unit(),
            Tag::False => visitor.visit_bool(false),
            Tag::True => visitor.visit_bool(true),
            Tag::I8 => number!(i8, visit_i8),
            Tag::I16 => number!(i16, visit_i16),
            Tag::I32 => number!(i32, visit_i32),
            Tag::I64 => number!(i64, visit_i64),
            Tag::I128 => number!(i128, visit_i128),
            Tag::U8 => number!(u8, visit_u8),
            Tag::U16 => number!(u16, visit_u16),
            Tag::U32 => number!(u32, visit_u32),
            Tag::U64 => number!(u64, visit_u64),
            Tag::U128 => number!(u128, visit_u128),
            Tag::F32 => number!(f32, visit_f32),
            Tag::F64 => number!(f64, visit_f64),
            Tag::Char => visitor.visit_char(self.char()?),
            Tag::Str => {
                let bytes = self.cursor.piece()?;
                paths::visit_text(bytes, visitor)
            }
            Tag::Bytes => visitor.visit_borrowed_bytes(self.cursor.piece()?),
            Tag::None => visitor.visit_none(),
            Tag::Some => visitor.visit_some(self),
            Tag::Seq => {
                let count = self.count()?;
                self.elements(count, None, visitor)
            }
            Tag::Tuple => self.elements(None, None, visitor),
            Tag::Map => {
                let count = self.count()?;
                self.within(|source| visitor.visit_map(Entries { source, left: count }))
            }
            Tag::Struct => self.named(&mut Field::any(), visitor),
            Tag::UnitVariant => visitor.visit_borrowed_str(self.variant(tag)?),
            Tag::NewtypeVariant | Tag::TupleVariant | Tag::StructVariant => {
                let name = self.variant(tag)?;
                visitor.visit_map(OneEntry { source: self, name: Some(name) })
            }
            Tag::End | Tag::Field => Err(no_value(tag)),
        }
    }

    // What follows is no part of `show`, which the compiler makes once for each visitor.

    fn char(&mut self) -> Result<char, Fault> {
        let scalar = u32::from_ne_bytes(self.cursor.number()?);
        char::from_u32(scalar).ok_or_else(|| Fault(format!("the payload is corrupt: {scalar} is no char")))
    }

    /// How many elements follow, if that was known.
    fn count(&mut self) -> Result<Option<usize>, Fault> {
        Ok(self.cursor.len()?.checked_sub(1))
    }

    /// The name of a variant, whose content comes next.
    fn variant(&mut self, tag: Tag) -> Result<&'a str, Fault> {
        self.cursor.len()?;
        let name = self.cursor.name()?;
        self.pending = match tag {
            Tag::TupleVariant => Some(Tag::Tuple),
            Tag::StructVariant => Some(Tag::Struct),
            _ => None,
        };
        Ok(name)
    }

    /// Reads elements, of which a visitor by place takes no more than `most`, and their end.
    fn elements<V: Visitor<'a>>(
        &mut self,
        count: Option<usize>,
        most: Option<usize>,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.within(|source| visitor.visit_seq(Elements { source, hint: count, most }))
    }

    /// Reads fields by their names, and their end.
    fn named<V: Visitor<'a>>(&mut self, seen: &mut Field<'_>, visitor: V) -> Result<V::Value, Fault> {
        self.within(|source| visitor.visit_map(Fields { source, seen }))
    }

    /// Reads what has an end, to that end.
    pub(super) fn within<R>(&mut self, read: impl FnOnce(&mut Self) -> Result<R, Fault>) -> Result<R, Fault> {
        let value = read(self)?;
        self.end()?;
        Ok(value)
    }

    fn end(&mut self) -> Result<(), Fault> {
        match self.cursor.tag()? {
            Tag::End => Ok(()),
            tag if self.by_place => Err(misplaced(&format!("writes more than it reads: {tag}"))),
            tag => Err(Fault(format!("it has {tag} more than is read"))),
        }
    }

    /// Reads a struct, or what is written as one.
    pub(super) fn fields<V: Visitor<'a>>(
        &mut self,
        tag: Tag,
        (name, fields): (&str, &'static [&'static str]),
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let mut seen = Field::all(name, fields);
        if !self.by_place {
            if tag != Tag::Struct {
                return self.show(tag, visitor);
            }
            let value = self.named(&mut seen, visitor);
            if seen.is_moved() {
                trial::moved();
            }
            return value;
        }
        if tag == Tag::Tuple {
            return self.elements(None, Some(fields.len()), visitor);
        }
        let first = self.cursor;
        let value = self.within(|source| visitor.visit_seq(seen.read(source)));
        // What was read in another one's place may stand behind it.
        seen.compare(|| first.names().filter(|name| fields.contains(name)).count());
        value
    }
}

#[cold]
fn no_value(tag: Tag) -> Fault {
    Fault(format!("the payload is corrupt: {tag} is no value"))
}

fn deeper() -> Result<(), Fault> {
    may_go_deeper().map_err(|_| {
        trial::too_deep();
        Fault(TOO_DEEP.to_owned())
    })
}

/// What is read by place as something else than what was written.
#[cold]
pub(super) fn misplaced(why: &str) -> Fault {
    trial::misplaced(why);
    Fault(why.to_owned())
}

/// Values of one form.
macro_rules! leaves {
    ($($method:ident: $wanted:literal = $($tag:ident)|+;)*) => { $(
        fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
            let tag = self.expect($wanted, &[$(Tag::$tag),+])?;
            self.show(tag, visitor)
        }
    )* };
}

impl<'a> Deserializer<'a> for &mut Source<'a> {
    type Error = Fault;

    leaves! {
        deserialize_bool: "a bool" = True | False;
        deserialize_i8: "an `i8`" = I8;
        deserialize_i16: "an `i16`" = I16;
        deserialize_i32: "an `i32`" = I32;
        deserialize_i64: "an `i64`" = I64;
        deserialize_i128: "an `i128`" = I128;
        deserialize_u8: "a `u8`" = U8;
        deserialize_u16: "a `u16`" = U16;
        deserialize_u32: "a `u32`" = U32;
        deserialize_u64: "a `u64`" = U64;
        deserialize_u128: "a `u128`" = U128;
        deserialize_f32: "an `f32`" = F32;
        deserialize_f64: "an `f64`" = F64;
        deserialize_char: "a `char`" = Char;
        deserialize_unit: "a unit" = Unit;
        deserialize_map: "a map" = Map;
    }

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.by_place {
            return Err(misplaced("asks what comes next"));
        }
        deeper()?;
        if self.unknown >= MAX_UNKNOWN_DEPTH {
            return Err(Fault(format!(
                "more than {MAX_UNKNOWN_DEPTH} values lie one inside the other, of a type that asks what comes next"
            )));
        }
        self.unknown += 1;
        let tag = self.tag()?;
        let value = self.show(tag, visitor)?;
        self.unknown -= 1;
        Ok(value)
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.expect("a string", &[Tag::Str, Tag::Bytes])? {
            Tag::Str | Tag::Bytes if self.by_place || paths::makes_path::<V>() => {
                let bytes = self.cursor.piece()?;
                paths::visit_text(bytes, visitor)
            }
            tag => self.show(tag, visitor),
        }
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.expect("bytes", &[Tag::Str, Tag::Bytes, Tag::Seq])? {
            Tag::Str | Tag::Bytes if self.by_place => visitor.visit_borrowed_bytes(self.cursor.piece()?),
            Tag::Seq if self.by_place => {
                // What bincode writes of a sequence of bytes is what it reads as bytes.
                self.cursor.len()?;
                let mut bytes = Vec::new();
                self.within(|source| {
                    let mut elements = Elements { source, hint: None, most: None };
                    while let Some(byte) = elements.next_element()? {
                        bytes.push(byte);
                    }
                    Ok(())
                })?;
                visitor.visit_byte_buf(bytes)
            }
            tag => self.show(tag, visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        deeper()?;
        if self.by_place {
            let tag = self.expect("an `Option`", &[Tag::None, Tag::Some])?;
            return self.show(tag, visitor);
        }
        match self.peek()? {
            Tag::None | Tag::Some | Tag::Unit => {
                let tag = self.tag()?;
                self.show(tag, visitor)
            }
            // What was written by another way than it is read, as `serialize_with` may do.
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'a>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(self, name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        deeper()?;
        // Some types tell a format of theirs something by a name that no other type has, for reading and writing.
        if !self.by_place && self.peek()? == Tag::Struct && self.first_field()? == Some(name) {
            let tag = self.tag()?;
            return self.show(tag, visitor);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        deeper()?;
        match self.expect("a sequence", &[Tag::Seq, Tag::Bytes])? {
            Tag::Bytes => {
                let bytes = self.cursor.piece()?;
                let by_place = self.by_place;
                let mut bytes = SeqDeserializer::new(bytes.iter().map(|byte| Byte { byte: *byte, by_place }));
                let value = visitor.visit_seq(&mut bytes)?;
                bytes.end()?;
                Ok(value)
            }
            tag => self.show(tag, visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'a>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        deeper()?;
        match self.expect("a tuple", &[Tag::Tuple, Tag::Struct])? {
            Tag::Tuple => self.elements(None, Some(len), visitor),
            // By place it may have any names.
            Tag::Struct if self.by_place => self.within(|source| {
                let mut seen = Field::any();
                visitor.visit_seq(seen.read_most(source, len))
            }),
            tag => self.show(tag, visitor),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        deeper()?;
        let tag = self.expect("a struct", &[Tag::Struct, Tag::Tuple])?;
        self.fields(tag, (name, fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        deeper()?;
        let variants = [Tag::UnitVariant, Tag::NewtypeVariant, Tag::TupleVariant, Tag::StructVariant];
        let tag = self.expect("an enum", &variants)?;
        match tag {
            Tag::Map => {
                self.cursor.len()?;
                self.within(|source| visitor.visit_enum(Variant { source, tag, name: "" }))
            }
            _ => visitor.visit_enum(Variant { source: self, tag, name: "" }),
        }
    }

    fn deserialize_identifier<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.by_place {
            return Err(misplaced("asks for a name"));
        }
        let tag = self.tag()?;
        self.show(tag, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.by_place {
            return Err(misplaced("passes over a part"));
        }
        let tag = self.tag()?;
        self.cursor.skip(tag)?;
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        // As the [log](super::Log) that was written.
        !self.by_place
    }
}

impl Source<'_> {
    /// The name of the first field of the struct that comes next.
    fn first_field(&self) -> Result<Option<&str>, Fault> {
        let mut ahead = self.cursor;
        ahead.at += usize::from(self.pending.is_none());
        Ok(if ahead.peek()? == Tag::Field {
            ahead.tag()?;
            Some(ahead.name()?)
        } else {
            None
        })
    }
}
