//! Stands between a type and bincode's deserializer, so that no corrupt length becomes an allocation or an endless loop, and no
//! depth a crash.
//!
//! Owns: four detours. An owned string or byte buffer is asked for as a *borrowed* one: bincode reserves an owned one's
//! length before it looks at what is left, but compares a borrowed one's with the payload first (and the type's own visitor
//! then copies once, into memory that was not zeroed). And a sequence's length is a hint of at most
//! [`MAX_RESERVED_ELEMENTS`]. A value that may hold others of its type, as one in a sequence, a map, an option or a variant may, is refused
//! where this thread's stack comes to its end: bytes say how deep a list goes, at four for each step. And all elements together are
//! no more than there are bytes, but for [`MAX_EMPTY_ELEMENTS`] of a kind that needs none, such as `()`: no bytes would end those. Never: changes
//! what is decoded.
//! Runs in: the child for arguments, the parent for results.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::paths::{self, PathBytes};
use crate::sys::stack;

/// How many elements may be reserved on the word of a length alone.
const MAX_RESERVED_ELEMENTS: usize = 4096;

/// How many elements of all sequences and maps may be without bytes of their own.
const MAX_EMPTY_ELEMENTS: usize = 1 << 20;

thread_local! {
    /// How many elements the value that is being decoded may still have.
    static ELEMENTS_LEFT: Cell<usize> = const { Cell::new(0) };
}

/// How many elements all sequences and maps of a value may have that is read from so many bytes.
#[inline]
pub(super) fn max_elements(bytes: usize) -> usize {
    bytes.saturating_add(MAX_EMPTY_ELEMENTS)
}

/// Decodes from so many bytes.
#[inline]
pub(super) fn bounded<R>(bytes: usize, decode: impl FnOnce() -> R) -> R {
    /// Values decode others by their own code, and may panic.
    struct Before(usize);

    impl Drop for Before {
        #[inline]
        fn drop(&mut self) {
            ELEMENTS_LEFT.set(self.0);
        }
    }

    let _before = Before(ELEMENTS_LEFT.replace(max_elements(bytes)));
    decode()
}

/// Takes so many elements from those that there may be.
#[inline]
fn count<E: Error>(elements: Option<usize>) -> Result<(), E> {
    let left = ELEMENTS_LEFT.get().checked_sub(elements.unwrap_or(0));
    left.map(|left| ELEMENTS_LEFT.set(left)).ok_or_else(too_many)
}

#[cold]
fn too_many<E: Error>() -> E {
    E::custom(format_args!("it says that it has more elements than bytes, and more than {MAX_EMPTY_ELEMENTS} besides"))
}

/// A visitor of a sequence or map that has its length in the payload.
struct Counted<V>(V);

impl<'a, V: Visitor<'a>> Visitor<'a> for Counted<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'a>>(self, elements: A) -> Result<V::Value, A::Error> {
        count(elements.size_hint())?;
        self.0.visit_seq(Bounded(elements))
    }

    #[inline]
    fn visit_map<A: MapAccess<'a>>(self, entries: A) -> Result<V::Value, A::Error> {
        count(entries.size_hint())?;
        self.0.visit_map(Bounded(entries))
    }
}

/// A part of bincode's deserializer, or a visitor that is to be shown such parts.
pub(super) struct Bounded<T>(pub(super) T);

/// Whether this thread has the stack for one value more inside of others.
#[inline]
fn may_go_deeper<E: Error>() -> Result<(), E> {
    if stack::is_scarce() { Err(too_deep()) } else { Ok(()) }
}

#[cold]
fn too_deep<E: Error>() -> E {
    E::custom("it goes deeper than the stack of this thread: too many values lie one inside the other")
}

/// Methods that take a visitor alone, which is wrapped.
macro_rules! pass_visitor {
    ($($method:ident => $to:ident,)*) => { $(
        #[inline]
        fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            self.0.$to(Bounded(visitor))
        }
    )* };
}

impl<'a, D: Deserializer<'a>> Deserializer<'a> for Bounded<D> {
    type Error = D::Error;

    pass_visitor! {
        deserialize_byte_buf => deserialize_bytes,
        deserialize_any => deserialize_any,
        deserialize_bool => deserialize_bool,
        deserialize_i8 => deserialize_i8,
        deserialize_i16 => deserialize_i16,
        deserialize_i32 => deserialize_i32,
        deserialize_i64 => deserialize_i64,
        deserialize_i128 => deserialize_i128,
        deserialize_u8 => deserialize_u8,
        deserialize_u16 => deserialize_u16,
        deserialize_u32 => deserialize_u32,
        deserialize_u64 => deserialize_u64,
        deserialize_u128 => deserialize_u128,
        deserialize_f32 => deserialize_f32,
        deserialize_f64 => deserialize_f64,
        deserialize_char => deserialize_char,
        deserialize_bytes => deserialize_bytes,
        deserialize_unit => deserialize_unit,
        deserialize_identifier => deserialize_identifier,
        deserialize_ignored_any => deserialize_ignored_any,
    }

    #[inline]
    fn deserialize_str<V: Visitor<'a>>(self, v: V) -> Result<V::Value, D::Error> {
        // A path need not be UTF-8, and bincode has one form for text and bytes.
        if paths::makes_path::<V>() {
            self.0.deserialize_bytes(PathBytes(v))
        } else {
            self.0.deserialize_str(Bounded(v))
        }
    }

    #[inline]
    fn deserialize_string<V: Visitor<'a>>(self, v: V) -> Result<V::Value, D::Error> {
        self.deserialize_str(v)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'a>>(self, v: V) -> Result<V::Value, D::Error> {
        may_go_deeper()?;
        self.0.deserialize_option(Bounded(v))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'a>>(self, v: V) -> Result<V::Value, D::Error> {
        may_go_deeper()?;
        self.0.deserialize_seq(Counted(v))
    }

    #[inline]
    fn deserialize_map<V: Visitor<'a>>(self, v: V) -> Result<V::Value, D::Error> {
        may_go_deeper()?;
        self.0.deserialize_map(Counted(v))
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'a>>(self, name: &'static str, v: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, Bounded(v))
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'a>>(self, name: &'static str, v: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Bounded(v))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'a>>(self, len: usize, v: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(len, Bounded(v))
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        len: usize,
        v: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, len, Bounded(v))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        v: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Bounded(v))
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'a>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        v: V,
    ) -> Result<V::Value, D::Error> {
        may_go_deeper()?;
        self.0.deserialize_enum(name, variants, Bounded(v))
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

/// Methods that hand a finished value to the type's own visitor.
macro_rules! pass_value {
    ($($method:ident: $T:ty,)*) => { $(
        #[inline]
        fn $method<E: serde::de::Error>(self, value: $T) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )* };
}

impl<'a, V: Visitor<'a>> Visitor<'a> for Bounded<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    pass_value! {
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_f64: f64,
        visit_char: char,
        visit_str: &str,
        visit_borrowed_str: &'a str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'a [u8],
        visit_byte_buf: Vec<u8>,
    }

    #[inline]
    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    #[inline]
    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    #[inline]
    fn visit_some<D: Deserializer<'a>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Bounded(deserializer))
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'a>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Bounded(deserializer))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'a>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Bounded(elements))
    }

    #[inline]
    fn visit_map<A: MapAccess<'a>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Bounded(entries))
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'a>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Bounded(variant))
    }
}

impl<'a, S: DeserializeSeed<'a>> DeserializeSeed<'a> for Bounded<S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Bounded(deserializer))
    }
}

impl<'a, A: SeqAccess<'a>> SeqAccess<'a> for Bounded<A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Bounded(seed))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint().map(|hint| hint.min(MAX_RESERVED_ELEMENTS))
    }
}

impl<'a, A: MapAccess<'a>> MapAccess<'a> for Bounded<A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Bounded(seed))
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Bounded(seed))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint().map(|hint| hint.min(MAX_RESERVED_ELEMENTS))
    }
}

impl<'a, A: EnumAccess<'a>> EnumAccess<'a> for Bounded<A> {
    type Error = A::Error;
    type Variant = Bounded<A::Variant>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'a>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.0.variant_seed(Bounded(seed))?;
        Ok((value, Bounded(variant)))
    }
}

impl<'a, A: VariantAccess<'a>> VariantAccess<'a> for Bounded<A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'a>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Bounded(seed))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'a>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Bounded(visitor))
    }

    #[inline]
    fn struct_variant<V: Visitor<'a>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Bounded(visitor))
    }
}
