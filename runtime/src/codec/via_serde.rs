//! The serde format: everything that is not plain, by way of bincode 2.
//!
//! Owns: the name bincode, which stands in no other file, and the configuration that both directions share.
//! Never: lets bincode reserve memory for a length that it has not checked (see [`bounded`](super::bounded)).
//! Runs in: the parent and the child.
//!
//! Not everything that serde can express fits a format without names: `#[serde(flatten)]` and `skip_serializing_if` do not, and
//! sequences must know their length beforehand. Such values are refused with an error when they are encoded; `untagged` and
//! `tag` make ones that are refused when they are decoded.

use std::marker::PhantomData;

use bincode::config::{Configuration, Fixint, LittleEndian};
use bincode::error::{DecodeError, EncodeError};
use serde::de::DeserializeSeed;
use serde::{Deserialize, Deserializer, Serialize};

use super::bounded::{Bounded, bounded};
use super::handles::active;
use super::strict::Strict;
use super::{CodecError, Format, Reader, Writer};

const CONFIGURATION: Configuration<LittleEndian, Fixint> = bincode::config::standard().with_fixed_int_encoding();

/// Values that can be sent to another process and read there, from a payload that lives for `'a`.
///
/// Every type with serde's two traits has it, and there is no other way to get it.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Point { x: f64, y: f64 }
///
/// fn travels<'a, T: process_task::Travels<'a>>() {}
/// travels::<Point>();
/// travels::<Option<&str>>();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to another process",
    label = "not a type that can be sent to a process and read there",
    note = "a type of this crate can if it derives serde's two traits: `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "an error of another crate (`io::Error`, `anyhow::Error`, `Box<dyn Error>`) travels as text: return `Result<T, String>`, and use `.map_err(|error| error.to_string())`",
    note = "what processes are to share has a counterpart in `process_task`: `Shared<T>` for `Arc<T>`, `Shared<sync::Mutex<T>>` for a `Mutex<T>`, `channel` for `mpsc`, `channel::Descriptor` for files and sockets",
    note = "shared memory has no pointers in it: `Shared<[u8]>` for a `Shared<String>`, `Shared<[T]>` for a `Shared<Vec<T>>`"
)]
pub trait Travels<'a>: Serialize + Deserialize<'a> {}

#[diagnostic::do_not_recommend]
impl<'a, T: Serialize + Deserialize<'a>> Travels<'a> for T {}

/// The serde format.
#[derive(Clone, Copy, Debug)]
pub struct ViaSerde;

impl<'a, T: Travels<'a>> Format<'a, T> for ViaSerde {
    #[inline]
    fn encode(value: &T, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        put(value, writer)
    }

    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<T, CodecError> {
        take(reader)
    }
}

/// Appends `value`.
pub(super) fn put<T: Serialize + ?Sized>(value: &T, writer: &mut Writer<'_>) -> Result<(), CodecError> {
    Ok(active(|| bincode::serde::encode_into_writer(Strict(value), Sink(writer), CONFIGURATION))?)
}

/// Takes the next value.
pub(super) fn take<'a, T: Deserialize<'a>>(reader: &mut Reader<'a>) -> Result<T, CodecError> {
    let seed = BoundedSeed(PhantomData);
    let rest = reader.rest();
    let decode = || bincode::serde::seed_decode_from_slice(seed, rest, CONFIGURATION);
    let (value, len) = active(|| bounded(rest.len(), decode))?;
    reader.take(len)?;
    Ok(value)
}

/// Lets bincode append to a [`Writer`].
struct Sink<'w, 's>(&'w mut Writer<'s>);

impl bincode::enc::write::Writer for Sink<'_, '_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.put_bytes(bytes).map_err(|error| EncodeError::OtherString(error.to_string()))
    }
}

/// Decodes a `T` through [`Bounded`].
pub(super) struct BoundedSeed<T>(pub(super) PhantomData<T>);

impl<'a, T: Deserialize<'a>> DeserializeSeed<'a> for BoundedSeed<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<T, D::Error> {
        T::deserialize(Bounded(deserializer))
    }
}

impl From<EncodeError> for CodecError {
    #[cold]
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::OtherString(message) => Self::new(message),
            EncodeError::Other(message) => Self::new(message),
            EncodeError::Serde(bincode::serde::EncodeError::SequenceMustHaveLength) => Self::new(
                "a sequence or map must know its length to travel (`#[serde(flatten)]` makes one that does not)",
            ),
            other => Self::new(other.to_string()),
        }
    }
}

impl From<DecodeError> for CodecError {
    #[cold]
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::OtherString(message) => Self::new(message),
            DecodeError::Other(message) => Self::new(message),
            DecodeError::UnexpectedEnd { additional } => Self::new(format!(
                "the payload ends too early (bytes missing: {additional}): a type must write all that it reads"
            )),
            DecodeError::Serde(_) => Self::new(
                "a type must know what comes next to travel (`#[serde(untagged)]` and `#[serde(tag = \"…\")]` \
                 make ones that do not)",
            ),
            other => Self::new(format!("the payload is corrupt: {other}")),
        }
    }
}
