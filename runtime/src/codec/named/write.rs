//! Writes the self-describing format.
//!
//! Owns: a log, and what is left out of one for a trial. Runs in: every process that encodes.
//! Never: runs out of the thread's stack, or of memory without saying so.

use std::cell::Cell;
use std::fmt;

use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};
use serde::{Serialize, de};

use super::{Tag, may_go_deeper};
use crate::codec::sites::SiteRecorder;
use crate::codec::strict::Watched;
use crate::codec::{CodecError, trial};

/// How many elements of a sequence or map are written for a trial, if those behind them bring nothing new.
const MAX_SAMPLES: usize = 4;

/// Bytes in the self-describing format, under construction.
#[derive(Debug)]
pub struct Log<'w> {
    bytes: Vec<u8>,
    /// What types are told that differ for people and for machines. With names they have to take the way for people: what serde
    /// keeps in between, for `untagged` and its like, takes itself for that.
    for_people: bool,
    /// Whether elements that bring nothing new are left out.
    samples: bool,
    watch: &'w SiteRecorder<'w>,
    too_deep: Cell<bool>,
}

impl<'w> Log<'w> {
    /// A log that begins with `mark`.
    pub(in crate::codec) fn new(mark: u8, for_people: bool, samples: bool, watch: &'w SiteRecorder<'w>) -> Self {
        Self { bytes: vec![mark], for_people, samples, watch, too_deep: Cell::new(false) }
    }

    /// An empty log that writes what it is given as `self` does, and leaves out nothing.
    pub(in crate::codec) fn again(&self, mark: u8) -> Self {
        Self::new(mark, self.for_people, false, self.watch)
    }

    pub(in crate::codec) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(in crate::codec) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether the value lay too deep in itself for this thread's stack.
    pub(in crate::codec) fn was_too_deep(&self) -> bool {
        self.too_deep.get()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes.try_reserve(bytes.len()).map_err(|error| Fault(format!("no memory for the payload: {error}")))?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn tag(&mut self, tag: Tag) -> Result<(), Fault> {
        self.put(&[tag as u8])
    }

    fn tagged(&mut self, tag: Tag, bytes: &[u8]) -> Result<(), Fault> {
        self.tag(tag)?;
        self.put(bytes)
    }

    #[expect(clippy::cast_possible_truncation, reason = "seven bits a byte")]
    fn len(&mut self, mut len: usize) -> Result<(), Fault> {
        while len >= 0x80 {
            self.put(&[len as u8 | 0x80])?;
            len >>= 7;
        }
        self.put(&[len as u8])
    }

    fn piece(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.len(bytes.len())?;
        self.put(bytes)
    }

    fn deeper(&self) -> Result<(), Fault> {
        may_go_deeper().map_err(|error| {
            self.too_deep.set(true);
            Fault(error.to_string())
        })
    }

    fn variant(&mut self, tag: Tag, index: u32, name: &str) -> Result<(), Fault> {
        self.deeper()?;
        self.tag(tag)?;
        self.len(index as usize)?;
        self.piece(name.as_bytes())
    }
}

/// Appends `value` to the log.
pub(in crate::codec) fn log<T: Serialize + ?Sized>(value: &T, log: &mut Log<'_>) -> Result<(), CodecError> {
    let watch = log.watch;
    Watched { value, watch }.serialize(Logger(log)).map_err(|fault| CodecError::new(fault.0))
}

/// What a value said while it was written or read in this format.
#[derive(Debug)]
pub(in crate::codec) struct Fault(pub(in crate::codec) String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        trial::unexpected();
        Self(format!("invalid type: {found}, expected {expected}"))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        trial::unexpected();
        Self(format!("invalid value: {found}, expected {expected}"))
    }

    fn invalid_length(found: usize, expected: &dyn de::Expected) -> Self {
        trial::unexpected();
        Self(format!("invalid length {found}, expected {expected}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        trial::unnamed();
        Self(format!("the variant `{variant}` is written and not read (variants that are: {expected:?})"))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        trial::unnamed();
        Self(format!("the field `{field}` is written and not read (fields that are: {expected:?})"))
    }

    fn missing_field(field: &'static str) -> Self {
        trial::unnamed();
        Self(format!("the field `{field}` is read and not written"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        trial::unnamed();
        Self(format!("the field `{field}` is written twice"))
    }
}

impl From<CodecError> for Fault {
    fn from(error: CodecError) -> Self {
        Self(error.to_string())
    }
}

/// Writes one value.
struct Logger<'l, 'w>(&'l mut Log<'w>);

macro_rules! numbers {
    ($($method:ident($T:ty) = $tag:ident;)*) => { $(
        fn $method(self, v: $T) -> Result<(), Fault> {
            self.0.tagged(Tag::$tag, &v.to_ne_bytes())
        }
    )* };
}

impl<'l, 'w> Serializer for Logger<'l, 'w> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = OpenPart<'l, 'w>;
    type SerializeTuple = OpenPart<'l, 'w>;
    type SerializeTupleStruct = OpenPart<'l, 'w>;
    type SerializeTupleVariant = OpenPart<'l, 'w>;
    type SerializeMap = OpenPart<'l, 'w>;
    type SerializeStruct = OpenPart<'l, 'w>;
    type SerializeStructVariant = OpenPart<'l, 'w>;

    numbers! {
        serialize_i8(i8) = I8;
        serialize_i16(i16) = I16;
        serialize_i32(i32) = I32;
        serialize_i64(i64) = I64;
        serialize_i128(i128) = I128;
        serialize_u8(u8) = U8;
        serialize_u16(u16) = U16;
        serialize_u32(u32) = U32;
        serialize_u64(u64) = U64;
        serialize_u128(u128) = U128;
        serialize_f32(f32) = F32;
        serialize_f64(f64) = F64;
    }

    fn serialize_bool(self, v: bool) -> Result<(), Fault> {
        self.0.tag(if v { Tag::True } else { Tag::False })
    }

    fn serialize_char(self, v: char) -> Result<(), Fault> {
        self.0.tagged(Tag::Char, &u32::from(v).to_ne_bytes())
    }

    fn serialize_str(self, v: &str) -> Result<(), Fault> {
        self.0.tag(Tag::Str)?;
        self.0.piece(v.as_bytes())
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<(), Fault> {
        self.0.tag(Tag::Bytes)?;
        self.0.piece(v)
    }

    fn serialize_none(self) -> Result<(), Fault> {
        self.0.tag(Tag::None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fault> {
        self.0.deeper()?;
        self.0.tag(Tag::Some)?;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Fault> {
        self.0.tag(Tag::Unit)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Fault> {
        self.0.tag(Tag::Unit)
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, variant: &'static str) -> Result<(), Fault> {
        self.0.variant(Tag::UnitVariant, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Fault> {
        self.0.deeper()?;
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.0.variant(Tag::NewtypeVariant, index, variant)?;
        value.serialize(self)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<OpenPart<'l, 'w>, Fault> {
        self.0.deeper()?;
        self.0.tag(Tag::Seq)?;
        self.0.len(len.filter(|_| !self.0.samples).map_or(0, |len| len.saturating_add(1)))?;
        Ok(OpenPart::new(self.0))
    }

    fn serialize_tuple(self, _: usize) -> Result<OpenPart<'l, 'w>, Fault> {
        self.0.deeper()?;
        self.0.tag(Tag::Tuple)?;
        Ok(OpenPart::new(self.0))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<OpenPart<'l, 'w>, Fault> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<OpenPart<'l, 'w>, Fault> {
        self.0.variant(Tag::TupleVariant, index, variant)?;
        Ok(OpenPart::new(self.0))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<OpenPart<'l, 'w>, Fault> {
        self.0.deeper()?;
        self.0.tag(Tag::Map)?;
        self.0.len(len.filter(|_| !self.0.samples).map_or(0, |len| len.saturating_add(1)))?;
        Ok(OpenPart::new(self.0))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<OpenPart<'l, 'w>, Fault> {
        self.0.deeper()?;
        self.0.tag(Tag::Struct)?;
        Ok(OpenPart::new(self.0))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<OpenPart<'l, 'w>, Fault> {
        self.0.variant(Tag::StructVariant, index, variant)?;
        Ok(OpenPart::new(self.0))
    }

    fn is_human_readable(&self) -> bool {
        self.0.for_people
    }
}

/// Writes elements, entries or fields.
pub(super) struct OpenPart<'l, 'w> {
    log: &'l mut Log<'w>,
    /// How many elements or entries were begun.
    count: usize,
    /// Where the present one began, and how many sites were new before it.
    before: (usize, usize),
}

impl<'l, 'w> OpenPart<'l, 'w> {
    fn new(log: &'l mut Log<'w>) -> Self {
        Self { log, count: 0, before: (0, 0) }
    }

    fn begin(&mut self) {
        self.before = (self.log.bytes.len(), self.log.watch.count());
        self.count += 1;
    }

    /// Ends an element or entry: takes it back if it brought nothing new.
    fn finish(&mut self) {
        let (start, sites) = self.before;
        if self.log.samples && self.count > MAX_SAMPLES && self.log.watch.count() == sites {
            self.log.bytes.truncate(start);
        }
    }

    fn close(self) -> Result<(), Fault> {
        self.log.tag(Tag::End)
    }
}

impl SerializeSeq for OpenPart<'_, '_> {
    type Ok = ();
    type Error = Fault;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        self.begin();
        value.serialize(Logger(self.log))?;
        self.finish();
        Ok(())
    }

    fn end(self) -> Result<(), Fault> {
        self.close()
    }
}

impl SerializeMap for OpenPart<'_, '_> {
    type Ok = ();
    type Error = Fault;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fault> {
        self.begin();
        key.serialize(Logger(self.log))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        value.serialize(Logger(self.log))?;
        self.finish();
        Ok(())
    }

    fn end(self) -> Result<(), Fault> {
        self.close()
    }
}

macro_rules! tuples {
    ($($trait:ident::$method:ident;)*) => { $(
        impl $trait for OpenPart<'_, '_> {
            type Ok = ();
            type Error = Fault;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                value.serialize(Logger(self.log))
            }

            fn end(self) -> Result<(), Fault> {
                self.close()
            }
        }
    )* };
}

tuples! {
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

macro_rules! structs {
    ($($trait:ident,)*) => { $(
        impl $trait for OpenPart<'_, '_> {
            type Ok = ();
            type Error = Fault;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Fault> {
                self.log.tag(Tag::Field)?;
                self.log.piece(name.as_bytes())?;
                value.serialize(Logger(self.log))
            }

            fn end(self) -> Result<(), Fault> {
                self.close()
            }
        }
    )* };
}

structs! { SerializeStruct, SerializeStructVariant, }
