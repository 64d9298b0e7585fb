//! Stands between a type and a serializer, and notes what the value is made of.
//!
//! Owns: which places of a type are [sites](super::sites), and what needs names. Runs in: every process that encodes.
//! Never: changes what is encoded, but for paths that are no UTF-8, which serde would refuse.
//!
//! A field that is left out for its value (`#[serde(skip_serializing_if = "…")]`) is no error to bincode, and its reader
//! then takes
//! the next field for it; a sequence that does not know its length is one. Both need names. So does what says that it has another
//! number of parts than it writes: that number is all that a reader without names has.

use std::fmt::Display;

use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use super::named::TOO_DEEP;
use super::sites::SiteRecorder;
use super::{paths, trial};
use crate::sys::{specialize, stack};

/// Ways that a value may go at its place, beside the variants of an enum.
const SOME: u64 = 0x01;
const ELEMENTS: u64 = 0x02;
const ENTRIES: u64 = 0x03;
const TUPLE: u64 = 0x04;
const TEXT: u64 = 0x05;

/// A value that is to be shown a [`Strict`] serializer.
pub(super) struct Watched<'v, 'w, T: ?Sized> {
    pub(super) value: &'v T,
    pub(super) watch: &'w SiteRecorder<'w>,
}

impl<T: Serialize + ?Sized> Serialize for Watched<'_, '_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(path) = paths::refused(self.value) {
            return serializer.serialize_bytes(path);
        }
        self.value.serialize(Strict { inner: serializer, watch: self.watch, own: specialize::key::<T>() })
    }
}

/// A serializer for one value.
pub(super) struct Strict<'w, S> {
    inner: S,
    watch: &'w SiteRecorder<'w>,
    /// The number of the type that is being serialized.
    own: u64,
}

/// A serializer for the parts of one value.
pub(super) struct StrictParts<'w, P> {
    inner: P,
    watch: &'w SiteRecorder<'w>,
    /// How many parts there are said to be, beyond those that were written. It wraps where there are more.
    left: usize,
}

impl<'w, P> StrictParts<'w, P> {
    #[inline]
    fn new(inner: P, watch: &'w SiteRecorder<'w>, len: usize) -> Self {
        Self { inner, watch, left: len }
    }

    #[inline]
    fn ended(self) -> P {
        if self.left != 0 {
            self.watch.needs_names(|| "it has another number of parts than it says".to_owned());
        }
        self.inner
    }
}

/// Whether this thread has the stack for one value more inside of others: bytes end where a reader's stack does.
#[inline]
fn may_go_deeper<E: Error>() -> Result<(), E> {
    if stack::is_scarce() { Err(too_deep()) } else { Ok(()) }
}

#[cold]
fn too_deep<E: Error>() -> E {
    trial::too_deep();
    E::custom(TOO_DEEP)
}

impl<S> Strict<'_, S> {
    #[inline]
    fn site(&self, way: u64) {
        self.watch.site(self.own, way);
    }

    /// The variant of an enum, or a struct, as it calls itself: some types stand for several.
    #[inline]
    fn named_site(&self, name: &'static str, variant: &'static str, number: u64) {
        self.site((name.as_ptr() as u64).rotate_left(24) ^ variant.as_ptr() as u64 ^ number.rotate_right(8));
    }
}

/// Methods that take plain values: each is one way of writing, but for types that have no other. Whether it is one of these, the
/// compiler knows.
macro_rules! pass {
    ($($method:ident($($name:ident: $type:ty),*) = $way:expr $(, of $($T:ty)|+)?;)*) => { $(
        #[inline]
        fn $method(self, $($name: $type),*) -> Result<S::Ok, S::Error> {
            let has_others = true $($(&& self.own != specialize::key::<$T>() && self.own != specialize::key::<&$T>())+)?;
            if has_others {
                self.site($way);
            }
            self.inner.$method($($name),*)
        }
    )* };
}

impl<'w, S: Serializer> Serializer for Strict<'w, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = StrictParts<'w, S::SerializeSeq>;
    type SerializeTuple = StrictParts<'w, S::SerializeTuple>;
    type SerializeTupleStruct = StrictParts<'w, S::SerializeTupleStruct>;
    type SerializeTupleVariant = StrictParts<'w, S::SerializeTupleVariant>;
    type SerializeMap = StrictParts<'w, S::SerializeMap>;
    type SerializeStruct = StrictParts<'w, S::SerializeStruct>;
    type SerializeStructVariant = StrictParts<'w, S::SerializeStructVariant>;

    pass! {
        serialize_bool(v: bool) = 0x11, of bool;
        serialize_i8(v: i8) = 0x12, of i8;
        serialize_i16(v: i16) = 0x13, of i16;
        serialize_i32(v: i32) = 0x14, of i32;
        serialize_i64(v: i64) = 0x15, of i64 | isize;
        serialize_i128(v: i128) = 0x16, of i128;
        serialize_u8(v: u8) = 0x17, of u8;
        serialize_u16(v: u16) = 0x18, of u16;
        serialize_u32(v: u32) = 0x19, of u32;
        serialize_u64(v: u64) = 0x1a, of u64 | usize;
        serialize_u128(v: u128) = 0x1b, of u128;
        serialize_f32(v: f32) = 0x1c, of f32;
        serialize_f64(v: f64) = 0x1d, of f64;
        serialize_char(v: char) = 0x1e, of char;
        serialize_str(v: &str) = TEXT, of String | str | &str;
        serialize_bytes(v: &[u8]) = 0x20;
        serialize_none() = 0x21;
        serialize_unit() = 0x22, of ();
        serialize_unit_struct(name: &'static str) = 0x23;
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        may_go_deeper()?;
        self.site(SOME ^ specialize::key::<T>().rotate_left(8));
        self.inner.serialize_some(&Watched { value, watch: self.watch })
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &Watched { value, watch: self.watch })
    }

    #[inline]
    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.named_site(name, variant, 0);
        self.inner.serialize_unit_variant(name, index, variant)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        may_go_deeper()?;
        self.named_site(name, variant, 1);
        self.inner.serialize_newtype_variant(name, index, variant, &Watched { value, watch: self.watch })
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        may_go_deeper()?;
        self.named_site(name, variant, 2 + len as u64);
        Ok(StrictParts::new(self.inner.serialize_tuple_variant(name, index, variant, len)?, self.watch, len))
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        may_go_deeper()?;
        self.named_site(name, variant, 2);
        Ok(StrictParts::new(self.inner.serialize_struct_variant(name, index, variant, len)?, self.watch, len))
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        may_go_deeper()?;
        match len {
            None => self.watch.needs_names(|| "it has a sequence that does not know its length".to_owned()),
            Some(0) => {}
            Some(len) => {
                self.site(ELEMENTS);
                self.watch.elements(len);
            }
        }
        Ok(StrictParts::new(self.inner.serialize_seq(len)?, self.watch, len.unwrap_or(0)))
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        may_go_deeper()?;
        match len {
            None => self.watch.needs_names(|| "it has a map that does not know its length".to_owned()),
            Some(0) => {}
            Some(len) => {
                self.site(ENTRIES);
                self.watch.elements(len);
            }
        }
        Ok(StrictParts::new(self.inner.serialize_map(len)?, self.watch, len.unwrap_or(0)))
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        // A tuple of another number of elements is another type, but where a type writes several.
        self.site(TUPLE ^ ((len as u64) << 8));
        Ok(StrictParts::new(self.inner.serialize_tuple(len)?, self.watch, len))
    }

    #[inline]
    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.named_site(name, name, len as u64);
        Ok(StrictParts::new(self.inner.serialize_tuple_struct(name, len)?, self.watch, len))
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.named_site(name, name, len as u64);
        Ok(StrictParts::new(self.inner.serialize_struct(name, len)?, self.watch, len))
    }

    #[inline]
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.site(TEXT);
        self.inner.collect_str(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Something with parts in their order.
macro_rules! parts {
    ($($trait:ident::$method:ident;)*) => { $(
        impl<P: $trait> $trait for StrictParts<'_, P> {
            type Ok = P::Ok;
            type Error = P::Error;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), P::Error> {
                self.left = self.left.wrapping_sub(1);
                self.inner.$method(&Watched { value, watch: self.watch })
            }

            #[inline]
            fn end(self) -> Result<P::Ok, P::Error> {
                self.ended().end()
            }
        }
    )* };
}

parts! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

impl<P: SerializeMap> SerializeMap for StrictParts<'_, P> {
    type Ok = P::Ok;
    type Error = P::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), P::Error> {
        self.left = self.left.wrapping_sub(1);
        self.inner.serialize_key(&Watched { value: key, watch: self.watch })
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), P::Error> {
        self.inner.serialize_value(&Watched { value, watch: self.watch })
    }

    #[inline]
    fn end(self) -> Result<P::Ok, P::Error> {
        self.ended().end()
    }
}

/// Something with fields.
macro_rules! fields {
    ($($trait:ident,)*) => { $(
        impl<P: $trait> $trait for StrictParts<'_, P> {
            type Ok = P::Ok;
            type Error = P::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), P::Error> {
                self.left = self.left.wrapping_sub(1);
                self.inner.serialize_field(name, &Watched { value, watch: self.watch })
            }

            #[cold]
            fn skip_field(&mut self, name: &'static str) -> Result<(), P::Error> {
                self.watch.needs_names(|| format!("its field `{name}` is left out"));
                self.inner.skip_field(name)
            }

            #[inline]
            fn end(self) -> Result<P::Ok, P::Error> {
                self.ended().end()
            }
        }
    )* };
}

fields! { SerializeStruct, SerializeStructVariant, }
