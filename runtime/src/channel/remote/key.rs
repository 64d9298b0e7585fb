//! What both sides of a connection between machines know, and no other.
//!
//! Owns: [`Key`]. Runs in: any process. Never: shows a secret to code that did not ask for it by name.

use std::fmt;

use snow::params::HashChoice;
use snow::resolvers::{CryptoResolver as _, DefaultResolver};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// What is hashed before a secret, so that the result is of no use anywhere else.
const LABEL: &[u8] = b"process-task pre-shared key 1\n";

/// The fewest bytes of a secret.
const MIN_KEY_BYTES: usize = 32;

/// A secret that two machines share: a peer that has it is let in, and can read what is said.
///
/// It must be random. A password is not enough, however long: an attacker that recorded a handshake could try all passwords
/// that people choose, offline and as fast as it likes. The secret's memory is overwritten when the key is dropped.
///
/// # Examples
/// ```
/// use process_task::channel::Key;
///
/// let here = Key::random()?;
/// // By a way that no one else can read, such as a file that only its owner can open.
/// let there = Key::new(here.secret())?;
/// assert_eq!(format!("{there:?}"), "Key(..)");
/// assert!(Key::new("hunter2").is_err());
/// # process_task::Result::Ok(())
/// ```
#[doc(alias = "authkey")]
#[derive(Clone)]
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// The key that both sides make of the same 32 or more random bytes.
    ///
    /// # Errors
    /// There are fewer than 32 bytes.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self> {
        let secret = secret.as_ref();
        if secret.len() < MIN_KEY_BYTES {
            let len = secret.len();
            return Err(Error::invalid(format!(
                "a key must have at least {MIN_KEY_BYTES} random bytes, not {len}, which others could find by trying; \
                 `Key::random` makes one"
            )));
        }
        Ok(Self(Zeroizing::new(secret.to_vec())))
    }

    /// A new key of 32 bytes, from the kernel's source of chance.
    ///
    /// # Errors
    /// The kernel has none.
    pub fn random() -> Result<Self> {
        let mut secret = Zeroizing::new(vec![0; MIN_KEY_BYTES]);
        let source = DefaultResolver.resolve_rng();
        match source.map(|mut source| source.try_fill_bytes(&mut secret)) {
            Some(Ok(())) => Ok(Self(secret)),
            _ => Err(Error::invalid("the kernel has no random bytes for a key")),
        }
    }

    /// The secret itself, to be brought to the other side by a way that no one else can read.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.0
    }

    /// What the handshake mixes in.
    pub(super) fn shared(&self) -> Zeroizing<[u8; 32]> {
        let mut shared = Zeroizing::new([0; 32]);
        // Fails only if the library was built without this hash, and then no handshake is possible either.
        if let Some(mut hash) = DefaultResolver.resolve_hash(&HashChoice::Blake2s) {
            hash.input(LABEL);
            hash.input(&self.0);
            hash.result(&mut *shared);
        }
        shared
    }
}

impl fmt::Debug for Key {
    /// Never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_both_make_of_the_same_bytes() {
        let key = Key::random().unwrap();
        assert_eq!(key.secret().len(), 32);
        assert_eq!(*key.shared(), *Key::new(key.secret()).unwrap().shared());
        assert_ne!(*key.shared(), *Key::random().unwrap().shared());
        assert_ne!(key.shared()[..], *key.secret(), "what is mixed in is not the secret, which may be used elsewhere");
        // The whole of a long one counts.
        let long = |last| Key::new([&[7; 99][..], &[last]].concat()).unwrap();
        assert_ne!(*long(1).shared(), *long(2).shared());
    }

    #[test]
    fn a_short_key_is_refused_in_words() {
        for len in [0, 1, 31] {
            let error = Key::new(vec![7; len]).unwrap_err().to_string();
            assert!(error.contains(&format!("at least 32 random bytes, not {len},")), "{error}");
        }
        assert!(Key::new([7; 32]).is_ok());
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", Key::new("x".repeat(32)).unwrap()), "Key(..)");
    }
}
