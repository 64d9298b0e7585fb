//! What a key can be asked for by.
//!
//! Runs in: clients.

use super::stored::key_bytes;
use crate::codec::Message;
use crate::error::Result;

/// What stands for a key of type `K` in calls: a `&K`, and for a `String` also a `&str`.
///
/// ```
/// use process_task::Manager;
/// use process_task::managed::Dict;
///
/// let manager = Manager::start()?;
/// let ages: Dict<String, u32> = Dict::new(&manager)?;
/// ages.insert("Ada", 36)?;
/// assert_eq!(ages.get(&"Ada".to_owned())?, ages.get("Ada")?);
/// # process_task::Result::Ok(())
/// ```
#[diagnostic::on_unimplemented(message = "`{Self}` cannot stand for a key of type `{K}`")]
pub trait AsKey<K> {
    /// The key's encoding.
    ///
    /// # Errors
    /// The key refuses.
    #[doc(hidden)]
    fn key_bytes(&self) -> Result<Vec<u8>>;
}

impl<K: Message> AsKey<K> for K {
    fn key_bytes(&self) -> Result<Vec<u8>> {
        key_bytes(self)
    }
}

impl AsKey<String> for str {
    fn key_bytes(&self) -> Result<Vec<u8>> {
        key_bytes(&self.to_owned())
    }
}
