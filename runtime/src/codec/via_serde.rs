//! The serde format: everything that is not plain, by way of bincode 2.
//!
//! Owns: the name bincode, which stands in no other file, and the configuration that both directions share.
//! Never: lets bincode reserve memory for a length that it has not checked (see [`bounded`](super::bounded)).
//! Runs in: the parent and the child.
//!
//! A value begins with a byte that says how it was written: by the places of its parts, which is bincode, or by their names, which
//! is the [self-describing format](super::named). Which of them is right is found by a [trial], once for each
//! part of a type; a value of which all is known is written as it always was.

use std::marker::PhantomData;

use bincode::config::{Configuration, Fixint, LittleEndian};
use bincode::error::{DecodeError, EncodeError};
use serde::de::DeserializeSeed;
use serde::{Deserialize, Deserializer, Serialize};

use super::bounded::{Bounded, bounded, max_elements};
use super::handles::active;
use super::named::{BY_NAME, BY_PLACE, LOGGED, Log, Source};
use super::sites::{self, NewSites, SiteRecorder, Way};
use super::strict::Watched;
use super::trial::{self, Again, SentForm};
use super::{CodecError, Format, NoSpill, Reader, Writer};
use crate::sys::specialize;

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
    fn encode(value: &T, writer: &mut Writer<'_>, again: Again) -> Result<(), CodecError> {
        put(value, writer, again)
    }

    fn log(value: &T, log: &mut Log<'_>) -> Result<(), CodecError> {
        trial::write(value, log)
    }

    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<T, CodecError> {
        take(reader)
    }
}

/// Appends `value`; `again` reads one of its type.
pub(super) fn put<T: Serialize + ?Sized>(value: &T, writer: &mut Writer<'_>, again: Again) -> Result<(), CodecError> {
    let record = sites::record(specialize::key::<T>());
    let way = record.way();
    if way == Way::ByName {
        return put_by_name(value, writer, again);
    }
    let start = writer.len();
    writer.put_bytes(&[BY_PLACE])?;
    let watch = SiteRecorder::new(record.known());
    let written = put_by_place(value, &watch, writer);
    let news = watch.found();
    if way == Way::ByPlace && news.is_none() {
        // Not dropped, but taken apart: that needs no call.
        return match written {
            Ok(()) => Ok(()),
            Err(error) => Err(unwritten(error)),
        };
    }
    put_doubtful(value, (writer, start), (written, news), again)
}

/// What the sender is told of a value that serde or the writer refused.
#[cold]
fn unwritten(error: EncodeError) -> CodecError {
    trial::explained(error.into())
}

#[inline]
fn put_by_place<T: Serialize + ?Sized>(
    value: &T,
    watch: &SiteRecorder<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), EncodeError> {
    let start = writer.len();
    active(|| bincode::serde::encode_into_writer(Watched { value, watch }, BincodeWriter(writer), CONFIGURATION))?;
    if watch.all_elements() > max_elements(writer.len() - start) {
        watch.needs_names(|| "it has far more elements than bytes".to_owned());
    }
    Ok(())
}

/// Goes on with a value that was written by places, but may not arrive so.
#[cold]
fn put_doubtful<T: Serialize + ?Sized>(
    value: &T,
    (writer, start): (&mut Writer<'_>, usize),
    (written, news): (Result<(), EncodeError>, Option<Box<NewSites>>),
    again: Again,
) -> Result<(), CodecError> {
    let NewSites { new_sites, need } = news.map_or_else(NewSites::default, |news| *news);
    if need.is_none() {
        written.map_err(unwritten)?;
    }
    let (name, record) = (std::any::type_name::<T>(), sites::record(specialize::key::<T>()));
    match trial::judge(name, record, (new_sites, need), &|log| trial::write(value, log), again)? {
        SentForm::ByPlace => Ok(()),
        SentForm::ByName(bytes) => {
            writer.back_to(start);
            writer.put_bytes(&bytes)
        }
    }
}

#[cold]
fn put_by_name<T: Serialize + ?Sized>(value: &T, writer: &mut Writer<'_>, again: Again) -> Result<(), CodecError> {
    let (name, record) = (std::any::type_name::<T>(), sites::record(specialize::key::<T>()));
    let write: trial::WriteLog<'_> = &|log| trial::write(value, log);
    match trial::by_name(name, record, ("", false), write, again).map_err(|refused| trial::explained(refused.into()))? {
        SentForm::ByName(bytes) => writer.put_bytes(&bytes),
        // Only where names are crossed.
        SentForm::ByPlace => Err(CodecError::new("a value was tried by names, and not by places")),
    }
}

/// Says what sending `value` would say; `again` reads one of its type.
pub(super) fn check<T: Serialize + ?Sized>(value: &T, again: Again) -> Result<(), CodecError> {
    let record = sites::TypeRecord::new();
    let watch = SiteRecorder::new(record.known());
    let mut none = NoSpill;
    let mut writer = Writer::new(Vec::new(), usize::MAX, &mut none);
    let written = put_by_place(value, &watch, &mut writer);
    let need = watch.found().and_then(|news| news.need);
    if need.is_none() {
        written.map_err(unwritten)?;
    }
    trial::check(std::any::type_name::<T>(), need, &|log| trial::write(value, log), again).map_err(trial::explained)
}

/// Reads a value and writes it into a log: for types that borrow nothing.
pub(super) fn again<T: Serialize + for<'a> Deserialize<'a>>(
    reader: &mut Reader<'_>,
    log: &mut Log<'_>,
) -> Result<(), CodecError> {
    trial::write(&take::<T>(reader)?, log)
}

/// Takes the next value.
#[inline]
pub(super) fn take<'a, T: Deserialize<'a>>(reader: &mut Reader<'a>) -> Result<T, CodecError> {
    let Some((&BY_PLACE, rest)) = reader.rest().split_first() else { return take_named(reader) };
    let seed = BoundedSeed(PhantomData);
    let decode = || bincode::serde::seed_decode_from_slice(seed, rest, CONFIGURATION);
    let (value, len) = active(|| bounded(rest.len(), decode))?;
    reader.take(1 + len)?;
    Ok(value)
}

#[cold]
fn take_named<'a, T: Deserialize<'a>>(reader: &mut Reader<'a>) -> Result<T, CodecError> {
    let [mark] = reader.take_array()?;
    if mark != BY_NAME && !(mark == LOGGED && trial::is_on()) {
        return Err(CodecError::bad_variant("way to write a value", mark));
    }
    let mut source = Source::new(reader.rest(), mark == LOGGED);
    let value = active(|| T::deserialize(&mut source)).map_err(|fault| CodecError::new(fault.to_string()))?;
    reader.take(source.read())?;
    Ok(value)
}

/// Lets bincode append to a [`Writer`].
struct BincodeWriter<'w, 's>(&'w mut Writer<'s>);

impl bincode::enc::write::Writer for BincodeWriter<'_, '_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        // Of a number, this is two comparisons and a store where it is inlined: so what is rare is a call.
        if self.0.put_at_hand(bytes) { Ok(()) } else { self.write_slowly(bytes) }
    }
}

impl BincodeWriter<'_, '_> {
    #[cold]
    fn write_slowly(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
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
            DecodeError::Serde(_) => {
                Self::new("the type asks what comes next, or for the end, where it did not when a value of it was sent")
            }
            other => Self::new(format!("the payload is corrupt: {other}")),
        }
    }
}
