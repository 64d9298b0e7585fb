//! Why a value could not become bytes, or bytes a value.
//!
//! Owns: the sentence. Never: says which task or process was concerned; the caller knows, and adds it.
//! Runs in: every process.

use std::borrow::Cow;
use std::fmt;

/// A value could not become bytes, or bytes could not become a value.
///
/// Its text is that of the code that refused: a type's own `Serialize` or `Deserialize` when these returned an error.
///
/// ```
/// use process_task::__private::{AsPlain, CodecError, codec};
///
/// let error: CodecError = codec::<String, _>(AsPlain).decode_whole(&[9, 0]).unwrap_err();
/// assert!(error.to_string().contains("ends"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct CodecError {
    message: Cow<'static, str>,
}

impl CodecError {
    /// An error that says `message`: lower-case, no full stop.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into() }
    }

    /// The payload stops before the value does.
    #[cold]
    pub(crate) fn too_short(needed: u64, left: usize) -> Self {
        Self::new(format!("the payload ends too early: {needed} bytes are needed and {left} are left"))
    }

    /// A byte that names a variant names none.
    #[cold]
    pub(crate) fn bad_variant(of: &'static str, found: impl fmt::Display) -> Self {
        Self::new(format!("the payload is corrupt: {found} is no {of}"))
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodecError({:?})", self.message)
    }
}

impl std::error::Error for CodecError {}

impl From<std::io::Error> for CodecError {
    fn from(error: std::io::Error) -> Self {
        Self::new(format!("no memory for the payload: {error}"))
    }
}
