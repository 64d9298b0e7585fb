//! Values to bytes and back: what a task's arguments and its result look like between two processes.
//!
//! Owns: the two formats of a payload, and the choice between them. Gives out: [`Writer`] and [`Reader`], the traits
//! that generated code names, and [`CodecError`]. Never: moves a byte between processes, or knows what a payload is for.
//! Runs in: every process; the parent encodes arguments and decodes results, the child does the reverse.
//!
//! # A payload
//!
//! The values of one call stand one after the other, without tags, names or types: both sides are the same binary, so
//! both know what comes next. The first byte's address is a multiple of [`ALIGNMENT`].
//!
//! | value | bytes |
//! |---|---|
//! | a number, `bool`, `char` | its own bytes, in this machine's order; `bool` one, `char` four |
//! | `str`, `String`, `Path`, `OsStr` and their owners | length as `u64`, then the bytes |
//! | `Vec`, `Box<[…]>`, slice of numbers | count as `u64`, zeroes up to a multiple of [`ALIGNMENT`], then the memory as it is |
//! | array of numbers | zeroes up to a multiple of [`ALIGNMENT`], then the memory as it is |
//! | `Option`, `Result` of the above | one byte that names the variant, then what is inside |
//! | everything else | one byte that says how; what serde makes of it, in bincode 2's fixed-width format or [with names](named) |
//!
//! The rows but the last are the *plain* format ([`AsPlain`]): one copy in, one copy out, and none at all for a borrowed
//! parameter, which is lent straight from the payload. The last row is the *serde* format ([`ViaSerde`]).
//!
//! # Which format
//!
//! [`choose`] picks by type, so an alias such as `type Bytes = Vec<u8>` is seen through, and the same choice is made
//! for both directions because one trait, [`Format`], has both.
//!
//! # Beside a payload
//!
//! What no bytes can carry, such as a region of shared memory, is written as an index; see [`handles`].
//!
//! # What is believed
//!
//! Nothing: every length is compared with the bytes that are left before memory is asked for, and before a loop begins that no
//! bytes would end; values lie in one another as deep as the stack allows; every `bool`, `char`, variant and string is
//! checked, and bytes left over at the end are an error. What a reader would take for something else is found when it is
//! encoded ([`trial`]), and goes with names, or is refused.

mod borrowed;
mod bounded;
mod check;
pub(crate) mod choose;
mod error;
mod format;
pub(crate) mod handles;
pub(crate) mod message;
pub(crate) mod message_format;
mod named;
mod number;
mod paths;
mod plain;
mod reader;
mod sites;
mod strict;
mod trial;
mod via_serde;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

pub use self::borrowed::{AsBorrowed, Borrowable};
pub use self::check::check;
pub use self::error::CodecError;
pub use self::format::{AsElements, AsNothing, AsOwned, Codec, Format, Lend, LendCodec, Never, Store, codec, loan};
pub use self::message_format::Message;
pub use self::named::Log;
pub use self::number::Number;
pub use self::plain::{AsPlain, Plain};
pub use self::reader::Reader;
pub use self::trial::Again;
pub use self::via_serde::{Travels, ViaSerde};
pub(crate) use self::writer::NoSpill;
pub use self::writer::{Encoded, Spill, Writer};

/// What the address of every payload, and of every run of numbers in it, is a multiple of: the strictest alignment that
/// any [`Number`] has.
pub const ALIGNMENT: usize = 16;
