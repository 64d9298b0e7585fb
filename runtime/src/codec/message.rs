//! Our own messages as bytes: small structs between parent, fork server and child.
//!
//! Owns: nothing. Runs in: all three. Never: sees a user's value; those have formats of their own.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

use super::CodecError;
use super::bounded::bounded;
use super::via_serde::BoundedSeed;

/// The bytes of `message`.
pub(crate) fn to_bytes<T: Serialize>(message: &T) -> Vec<u8> {
    // The messages are structs and enums of numbers, strings and lists, which cannot fail to encode; what is empty all
    // the same is refused by `from_bytes` on the other side.
    bincode::serde::encode_to_vec(message, bincode::config::standard()).unwrap_or_default()
}

/// The message that `bytes` hold.
///
/// # Errors
/// They hold none of this type, or more than one.
pub(crate) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    // A corrupt length is an error before it is an allocation.
    let decode =
        || bincode::serde::seed_decode_from_slice(BoundedSeed(PhantomData), bytes, bincode::config::standard());
    match bounded(bytes.len(), decode) {
        Ok((message, read)) if read == bytes.len() => Ok(message),
        Ok(_) => Err(CodecError::new("a message with bytes left over")),
        Err(error) => Err(CodecError::new(error.to_string())),
    }
}
