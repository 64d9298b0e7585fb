//! A value as a manager keeps it: encoded, with its handles.
//!
//! Runs in: the manager, which keeps and copies it, and clients, which encode and decode it.
//! Never: decoded in the manager, but for the task of an update.

use std::fmt;
use std::sync::Arc;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeTuple as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::kept_handle::KeptHandle;
use crate::codec::NoSpill;
use crate::codec::handles::{self, Handles, Received};
use crate::codec::message_format::{put, put_option, take_option};
use crate::codec::{CodecError, Encoded, Message, Reader, Writer};
use crate::error::{Error, Result};
use crate::sys::Errno;

/// Bytes of a value, and what travels beside them. A clone shares both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    bytes: Arc<[u8]>,
    handles: Handles,
}

impl Stored {
    /// These bytes and handles.
    pub(crate) fn new(bytes: &[u8], handles: Handles) -> Self {
        Self { bytes: bytes.into(), handles }
    }

    /// These bytes, which have no handles.
    pub(super) fn shared(bytes: Arc<[u8]>) -> Self {
        Self { bytes, handles: Handles::default() }
    }

    /// The encoding of `value`, as a task would write its `Option`.
    ///
    /// # Errors
    /// The value refuses.
    pub(crate) fn of<V: Message>(value: V) -> Result<Self> {
        append_value(value, Vec::new()).map(|(bytes, handles)| Self::new(&bytes, handles))
    }

    /// The value that this is.
    ///
    /// # Errors
    /// It is none of this type, or a descriptor of it cannot be copied.
    pub(crate) fn value<V: Message>(&self) -> Result<V> {
        let received = self.received().map_err(|errno| Error::cannot_decode_result(errno.to_string()))?;
        value_of(&self.bytes, &received)
    }

    /// The payload that this thread decodes, whatever it is.
    ///
    /// # Errors
    /// A handle of it could not be received.
    pub(crate) fn arrived(bytes: &[u8]) -> std::result::Result<Self, CodecError> {
        Ok(Self::new(bytes, handles::open_each(|fd| Ok(KeptHandle::of(fd)))?))
    }

    /// Writes the payload that this is, and nothing else.
    ///
    /// # Errors
    /// There is no memory for it, or there are too many handles.
    pub(crate) fn put(&self, writer: &mut Writer<'_>) -> std::result::Result<(), CodecError> {
        handles::attach_each(&self.handles)?;
        writer.put_bytes(&self.bytes)
    }

    /// Whether there are bytes alone, which can travel as they are.
    pub(crate) fn is_plain(&self) -> bool {
        self.handles.is_empty()
    }

    /// The same with `head` before the bytes, whose length is a multiple of the alignment.
    pub(super) fn behind(&self, head: &[u8]) -> Self {
        Self { bytes: [head, &self.bytes].concat().into(), handles: self.handles.clone() }
    }

    /// The same without the `head` that the bytes begin with. `None`: they do not.
    pub(super) fn without(&self, head: &[u8]) -> Option<Self> {
        Some(Self { bytes: self.bytes.strip_prefix(head)?.into(), handles: self.handles.clone() })
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many handles there are.
    pub(crate) fn handles(&self) -> usize {
        self.handles.len()
    }

    /// The handles, for a process that decodes the value: it gets descriptors of its own.
    ///
    /// # Errors
    /// The kernel has no more.
    pub(crate) fn received(&self) -> std::result::Result<Received, Errno> {
        if self.handles.is_empty() {
            return Ok(Received::default());
        }
        let copies = self.handles.descriptors().into_iter().map(|fd| fd.try_clone_to_owned());
        let copies = copies.collect::<std::io::Result<Vec<_>>>();
        copies.map(Received::new).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
    }
}

/// The value that these bytes are.
///
/// # Errors
/// They are none of this type.
pub(crate) fn value_of<V: Message>(bytes: &[u8], received: &Received) -> Result<V> {
    let mut reader = Reader::new(bytes);
    let value = handles::provide(received, || take_option(&mut reader)).and_then(|value| {
        reader.finish()?;
        value.ok_or_else(|| CodecError::new("there is no value"))
    });
    value.map_err(|error| Error::cannot_decode_result(error.to_string()))
}

/// Writes the encoding of `value` behind the bytes in `buffer`, as a task would write its `Option`. Returns also what travels
/// beside it.
///
/// # Errors
/// The value refuses.
pub(super) fn append_value<V: Message>(value: V, buffer: Vec<u8>) -> Result<(Vec<u8>, Handles)> {
    append(buffer, |writer| put_option(Some(value), writer))
}

/// The encoding of a key. Keys are compared by it.
///
/// # Errors
/// The key refuses, or its encoding is not the same each time.
pub(crate) fn key_bytes<K: Message>(key: &K) -> Result<Vec<u8>> {
    append_key(key, Vec::new())
}

/// Writes the encoding of `key` behind the bytes in `buffer`.
///
/// # Errors
/// As [`key_bytes`].
pub(super) fn append_key<K: Message>(key: &K, buffer: Vec<u8>) -> Result<Vec<u8>> {
    let name = std::any::type_name::<K>();
    if name.contains("::hash::") || name.contains("HashMap<") || name.contains("HashSet<") {
        let reason =
            format!("`{name}` cannot be a key: its order is another each time; use a `BTreeMap` or a `BTreeSet`");
        return Err(Error::invalid(reason));
    }
    match append(buffer, |writer| put(key, writer))? {
        (bytes, handles) if handles.is_empty() => Ok(bytes),
        _ => Err(Error::cannot_encode_arguments("a key cannot have handles: it is compared by its bytes")),
    }
}

fn append(
    buffer: Vec<u8>,
    put: impl FnOnce(&mut Writer<'_>) -> std::result::Result<(), CodecError>,
) -> Result<(Vec<u8>, Handles)> {
    let (mut handles, mut none) = (Handles::default(), NoSpill);
    let mut writer = Writer::after(buffer, usize::MAX, &mut none);
    match handles::collect(&mut handles, || put(&mut writer)).and_then(|()| writer.finish()) {
        Ok(Encoded::Small(bytes)) => Ok((bytes, handles)),
        Ok(Encoded::Spilled(_)) => Err(Error::cannot_encode_arguments("it is too long")),
        Err(error) => Err(Error::cannot_encode_arguments(error.to_string())),
    }
}

/// Bytes as serde knows them, not as a sequence of numbers.
struct StoredBytes<T>(T);

impl Serialize for StoredBytes<&[u8]> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for StoredBytes<Arc<[u8]>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Copies;

        impl Visitor<'_> for Copies {
            type Value = StoredBytes<Arc<[u8]>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> std::result::Result<Self::Value, E> {
                Ok(StoredBytes(bytes.into()))
            }
        }

        deserializer.deserialize_bytes(Copies)
    }
}

impl Serialize for Stored {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let attached: std::result::Result<Vec<u32>, _> = self.handles.each().map(handles::attach).collect();
        let mut parts = serializer.serialize_tuple(2)?;
        parts.serialize_element(&StoredBytes(&*self.bytes))?;
        parts.serialize_element(&attached.map_err(S::Error::custom)?)?;
        parts.end()
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Parts;

        impl<'de> Visitor<'de> for Parts {
            type Value = Stored;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an encoded value and its handles")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> std::result::Result<Stored, A::Error> {
                let short = || A::Error::custom("an encoded value ends too early");
                let StoredBytes(bytes) = parts.next_element::<StoredBytes<Arc<[u8]>>>()?.ok_or_else(short)?;
                let attached: Vec<u32> = parts.next_element()?.ok_or_else(short)?;
                let open = |index| handles::open(index, |fd| Ok(KeptHandle::of(fd))).map(KeptHandle::shared);
                let opened = attached.into_iter().map(open);
                let handles = opened.collect::<std::result::Result<_, _>>().map_err(A::Error::custom)?;
                Ok(Stored { bytes, handles: Handles::of(handles) })
            }
        }

        deserializer.deserialize_tuple(2, Parts)
    }
}
