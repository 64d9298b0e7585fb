//! Types for memory that several processes map, and access to it.
//!
//! Owns: the layouts of shared memory, and all unsafe code that reads and writes it. Runs in: any process.
//! Invariant: bytes that another process may write are never behind a plain reference.

pub(crate) mod cell;
mod handle;
mod mapped_header;
mod mapping_cache;
pub(crate) mod mutable;
pub(crate) mod proc_table;
pub(crate) mod raw_ranges;
mod region;
mod shareable;
mod slice;
#[cfg(feature = "ndarray")]
mod views;

pub use self::handle::Shared;
pub(crate) use self::mapped_header::{HeaderWords, MappedHeader, words};
pub(crate) use self::mapping_cache::MappingCache;
pub use self::mutable::{FreezeError, SharedMut};
pub use self::shareable::Shareable;
