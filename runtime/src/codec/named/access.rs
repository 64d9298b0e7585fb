//! The parts of a value in the self-describing format, as serde asks for them.
//!
//! Owns: which part comes next, and whether a struct reads the fields that it writes. Runs in: every process that decodes, and
//! the sender in a trial. Never: looks ahead.

use std::fmt::Write as _;

use serde::de::value::{BorrowedStrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer as _, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::Tag;
use super::read::{Source, misplaced};
use super::write::Fault;
use crate::codec::trial;

/// How many elements may be reserved on the word of a count alone.
const MAX_RESERVED_ELEMENTS: usize = 4096;

/// Elements of a sequence or tuple.
pub(super) struct Elements<'s, 'a> {
    pub(super) source: &'s mut Source<'a>,
    /// How many there are said to be.
    pub(super) hint: Option<usize>,
    /// How many a visitor may ask for by place, where there is no count.
    pub(super) most: Option<usize>,
}

impl<'a> SeqAccess<'a> for Elements<'_, 'a> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        if self.source.by_place && self.most == Some(0) {
            return Ok(None);
        }
        if self.source.peek()? == Tag::End {
            // By place, bincode would read on.
            let ends = !self.source.by_place || self.most.is_none();
            return if ends { Ok(None) } else { Err(misplaced("reads more than it writes")) };
        }
        self.hint = self.hint.map(|hint| hint.saturating_sub(1));
        self.most = self.most.map(|most| most - 1);
        seed.deserialize(&mut *self.source).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        // Each element has a byte at least.
        self.hint.map(|hint| hint.min(self.source.cursor.left()).min(MAX_RESERVED_ELEMENTS))
    }
}

/// Entries of a map.
pub(super) struct Entries<'s, 'a> {
    pub(super) source: &'s mut Source<'a>,
    pub(super) left: Option<usize>,
}

impl<'a> MapAccess<'a> for Entries<'_, 'a> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        if self.source.peek()? == Tag::End {
            return Ok(None);
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        seed.deserialize(&mut *self.source).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(&mut *self.source)
    }

    fn size_hint(&self) -> Option<usize> {
        self.left.map(|left| left.min(self.source.cursor.left() / 2).min(MAX_RESERVED_ELEMENTS))
    }
}

/// Fields of a struct by their names.
pub(super) struct Fields<'f, 'n, 's, 'a> {
    pub(super) source: &'s mut Source<'a>,
    /// What is noted of their names.
    pub(super) seen: &'f mut Field<'n>,
}

impl<'a> MapAccess<'a> for Fields<'_, '_, '_, 'a> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        if self.source.peek()? == Tag::End {
            return Ok(None);
        }
        let name = field(self.source)?;
        self.seen.note(name);
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(&mut *self.source)
    }
}

/// The name of the field that comes next.
fn field<'a>(source: &mut Source<'a>) -> Result<&'a str, Fault> {
    match source.tag()? {
        Tag::Field => Ok(source.cursor.name()?),
        tag => Err(Fault(format!("the payload is corrupt: {tag} is no field"))),
    }
}

/// A variant, for a type that asks what comes next.
pub(super) struct OneEntry<'s, 'a> {
    pub(super) source: &'s mut Source<'a>,
    pub(super) name: Option<&'a str>,
}

impl<'a> MapAccess<'a> for OneEntry<'_, 'a> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.name.take().map(|name| seed.deserialize(BorrowedStrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(&mut *self.source)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(usize::from(self.name.is_some()))
    }
}

/// A variant, for an enum.
pub(super) struct Variant<'s, 'a> {
    pub(super) source: &'s mut Source<'a>,
    pub(super) tag: Tag,
    pub(super) name: &'a str,
}

impl<'a> EnumAccess<'a> for Variant<'_, 'a> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'a>>(mut self, seed: S) -> Result<(S::Value, Self), Fault> {
        let cursor = &mut self.source.cursor;
        self.name = match self.tag {
            Tag::UnitVariant | Tag::NewtypeVariant | Tag::TupleVariant | Tag::StructVariant => {
                let (index, name) = (cursor.len()?, cursor.name()?);
                if self.source.by_place {
                    self.name = name;
                    let index = u32::try_from(index).unwrap_or(u32::MAX);
                    let index: U32Deserializer<Fault> = index.into_deserializer();
                    return Ok((seed.deserialize(index)?, self));
                }
                name
            }
            // By names, a string may say which variant it is, and so may the key of a map.
            Tag::Str => cursor.name()?,
            Tag::Map if cursor.tag()? == Tag::Str => cursor.name()?,
            tag => return Err(Fault(format!("it is {tag}, where a variant is expected"))),
        };
        Ok((seed.deserialize(BorrowedStrDeserializer::<Fault>::new(self.name))?, self))
    }
}

impl Variant<'_, '_> {
    fn is(&self, wanted: &str, tags: &[Tag]) -> Result<(), Fault> {
        if tags.contains(&self.tag) || (!self.source.by_place && self.tag == Tag::Map) {
            return Ok(());
        }
        let why = format!("writes a variant of another form where it reads {wanted}");
        Err(if self.source.by_place { misplaced(&why) } else { Fault(why) })
    }
}

impl<'a> VariantAccess<'a> for Variant<'_, 'a> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        self.is("a unit variant", &[Tag::UnitVariant, Tag::Str])?;
        if self.tag == Tag::Map { serde::Deserialize::deserialize(self.source) } else { Ok(()) }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'a>>(self, seed: S) -> Result<S::Value, Fault> {
        self.is("a newtype variant", &[Tag::NewtypeVariant])?;
        seed.deserialize(self.source)
    }

    fn tuple_variant<V: Visitor<'a>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.is("a tuple variant", &[Tag::TupleVariant])?;
        if self.tag == Tag::TupleVariant {
            self.source.pending = Some(Tag::Tuple);
        }
        self.source.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'a>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.is("a struct variant", &[Tag::StructVariant])?;
        let tag = if self.tag == Tag::StructVariant { Tag::Struct } else { self.source.tag()? };
        self.source.fields(tag, (self.name, fields), visitor)
    }
}

/// The fields of a struct by their places, compared with the names that its type reads.
pub(super) struct Field<'n> {
    name: &'n str,
    /// The names that are read, with other names for the same fields among them; nothing if any will do.
    fields: Option<&'static [&'static str]>,
    /// How many of `fields` were passed.
    passed: usize,
    /// How many fields were read or asked for.
    asked: usize,
    /// Names that are written and not read.
    unread: Vec<String>,
    /// Whether a name that is read stands somewhere else.
    is_moved: bool,
}

impl<'n> Field<'n> {
    pub(super) fn all(name: &'n str, fields: &'static [&'static str]) -> Self {
        Self { name, fields: Some(fields), passed: 0, asked: 0, unread: Vec::new(), is_moved: false }
    }

    pub(super) fn any() -> Self {
        Self { name: "", fields: None, passed: 0, asked: 0, unread: Vec::new(), is_moved: false }
    }

    pub(super) fn read<'f, 's, 'a>(&'f mut self, source: &'s mut Source<'a>) -> Places<'f, 'n, 's, 'a> {
        let most = self.fields.map_or(0, <[_]>::len);
        self.read_most(source, most)
    }

    pub(super) fn read_most<'f, 's, 'a>(
        &'f mut self,
        source: &'s mut Source<'a>,
        most: usize,
    ) -> Places<'f, 'n, 's, 'a> {
        Places { seen: self, source, most }
    }

    /// A field of this name was written.
    fn note(&mut self, name: &str) {
        let Some(fields) = self.fields else { return };
        if let Some(at) = fields[self.passed..].iter().position(|field| *field == name) {
            self.passed += at + 1;
        } else if fields.contains(&name) {
            self.is_moved = true;
        } else {
            self.unread.push(name.to_owned());
        }
    }

    /// Whether names stand in another order than they are read in: then one may be read for the other.
    pub(super) fn is_moved(&self) -> bool {
        self.is_moved
    }

    /// Says what of the names does not meet, once all were read; `met` counts the written names that are read somewhere.
    pub(super) fn compare(&self, met: impl FnOnce() -> usize) {
        let Some(fields) = self.fields else { return };
        if self.unread.is_empty() && !self.is_moved {
            return;
        }
        let mut why = format!("`{}` ", self.name);
        match self.unread.first() {
            Some(name) => drop(write!(why, "writes a field `{name}`, which it does not read (it reads {fields:?})")),
            None => why.push_str("writes its fields in another order than it reads them"),
        }
        trial::crossed(&why, self.is_moved || self.asked > met());
    }
}

/// Fields by their places.
pub(super) struct Places<'f, 'n, 's, 'a> {
    seen: &'f mut Field<'n>,
    source: &'s mut Source<'a>,
    most: usize,
}

impl<'a> SeqAccess<'a> for Places<'_, '_, '_, 'a> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        if self.seen.asked == self.most {
            return Ok(None);
        }
        self.seen.asked += 1;
        if self.source.peek()? == Tag::End {
            return Err(misplaced(&format!("`{}` reads more fields than it writes", self.seen.name)));
        }
        let name = field(self.source)?;
        self.seen.note(name);
        seed.deserialize(&mut *self.source).map(Some)
    }
}

/// A byte among bytes that are read as a sequence.
pub(super) struct Byte {
    pub(super) byte: u8,
    pub(super) by_place: bool,
}

impl<'de> Deserializer<'de> for Byte {
    type Error = Fault;

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u8(self.byte)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.by_place { Err(misplaced("reads bytes as other elements")) } else { visitor.visit_u8(self.byte) }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl serde::de::IntoDeserializer<'_, Fault> for Byte {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
