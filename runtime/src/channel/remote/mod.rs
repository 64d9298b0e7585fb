//! Connections between machines: encrypted, and with both sides known to have the same key.
//!
//! Owns: [`Key`], the handshake, the frames, and [`EncryptedStream`], which carries messages as frames. Runs in: both sides.
//! Never: believes a byte that came before its tag was found right, and after that nothing that a check can find wrong.

mod frame_reader;
mod frame_writer;
mod frames;
mod handshake;
mod key;
mod stream;

pub(crate) use self::handshake::{Handshake, Session};
pub use self::key::Key;
pub(crate) use self::stream::EncryptedStream;
