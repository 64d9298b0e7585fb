//! Connections between machines: encrypted, and with both sides known to have the same key.
//!
//! Owns: [`Key`], the handshake, the frames, and [`Wire`], which carries messages as frames. Runs in: both sides.
//! Never: believes a byte that came before its tag was found right, and after that nothing that a check can find wrong.

mod frames;
mod handshake;
mod key;
mod receiving;
mod sending;
mod wire;

pub(crate) use self::handshake::{Agreed, Handshake};
pub use self::key::Key;
pub(crate) use self::wire::Wire;
