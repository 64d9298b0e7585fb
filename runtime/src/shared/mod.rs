//! What may live in memory that several processes map, and how it is reached.
//!
//! Owns: the layouts of shared memory, and all unsafe code that reads and writes it. Runs in: any process.
//! Never: gives out a plain reference to bytes that another process may write.

pub(crate) mod cell;
mod half;
mod handle;
mod known;
pub(crate) mod members;
pub(crate) mod mutable;
pub(crate) mod parts;
mod region;
mod shareable;
mod slice;
#[cfg(feature = "ndarray")]
mod views;

pub(crate) use self::half::{Half, Words, words};
pub use self::handle::Shared;
pub(crate) use self::known::Known;
pub use self::mutable::{FreezeError, SharedMut};
pub use self::shareable::Shareable;
