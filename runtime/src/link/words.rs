//! The words at the start of the two halves, and which side writes which.
//!
//! Owns: the layout. Runs in: both ends of a link. Never: has two writers for one word, but where the table says so.
//!
//! | word | half | written by |
//! |---|---|---|
//! | [`RequestWords::asleep`] | request | the collecting thread of the parent alone: its processor's number and 1 before it sleeps, 0 when it is awake |
//! | [`RequestWords::hungry`] | request | the parent, under the schedule's mutex: calls wait that no window has room for |
//! | [`RequestWords::closing`] | request | the parent, once: end when the window is dry |
//! | [`RequestWords::released`] | request | the parent: bit n flips when the reply parcel in slot n was let go |
//! | [`RequestWords::gone`] | request | the parent: its parcels that are no more, by slot (see [`super::parcel`]) |
//! | [`ReplyWords::window`] | reply | parent: raises and lowers `limit`; child: raises `claimed` (see [`super::window`]) |
//! | [`ReplyWords::dozing`] | reply | child stores 1, looks at `window` again, sleeps on it; parent swaps 0, and wakes |
//! | [`ReplyWords::tail`] | reply | child, after the reply's bytes |
//! | [`ReplyWords::busy`] | reply | child, when it begins to work and when it has no more (see [`super::busy`]) |
//! | [`ReplyWords::progress`] | reply | child, in a batch: `serial << 32 \| items done`, after each result's bytes, which lie where the reply will stand; with [`NO_MORE`] when it begins no further item |
//! | [`ReplyWords::outgrown`] | reply | child, before the `tail` of a reply: it uses more memory than it is to, and wants no further call |
//! | [`ReplyWords::overflowed`] | reply | child, from the handler of a stack overflow |
//! | [`ReplyWords::memory_limit`] | reply | child, before a call that has less address space than there is |
//! | [`ReplyWords::gone`] | reply | child: its parcels that are no more, by slot |
//! | [`ReplyWords::last_words`] | reply | child, when it panics |
//!
//! A child that is stopped or killed between two of its steps leaves every word as one of these; no other process waits for
//! it to go on. The child rings its bell when, after it has stored `tail`, it sees `asleep`, and when it sees `hungry`
//! before it sleeps: a child that is given something else within the time in which it looks need not ring. Only the sleeper
//! clears `asleep`: a child that cleared it and was stopped before it rang would silence all others.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use super::parcel::SLOTS;

/// A word that shares its cache line with no other.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Alone<T>(pub(crate) T);

/// What the parent has to say; the child maps it for reading.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RequestWords {
    pub(crate) asleep: Alone<AtomicU32>,
    pub(crate) hungry: Alone<AtomicU32>,
    pub(crate) closing: Alone<AtomicU32>,
    pub(crate) released: Alone<AtomicU64>,
    pub(crate) gone: Alone<[AtomicU32; SLOTS]>,
}

/// What the child has to say; `window` and `dozing` belong to both.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ReplyWords {
    pub(crate) window: Alone<AtomicU64>,
    pub(crate) dozing: Alone<AtomicU32>,
    pub(crate) tail: Alone<AtomicU64>,
    pub(crate) busy: Alone<AtomicU64>,
    pub(crate) progress: Alone<AtomicU64>,
    pub(crate) outgrown: Alone<AtomicU32>,
    pub(crate) overflowed: Alone<AtomicU32>,
    pub(crate) memory_limit: Alone<AtomicU64>,
    pub(crate) gone: Alone<[AtomicU32; SLOTS]>,
    pub(crate) last_words_len: Alone<AtomicU32>,
    pub(crate) last_words: [AtomicU8; LAST_WORDS],
}

/// In [`ReplyWords::progress`]: no further item of the batch is begun.
pub(crate) const NO_MORE: u64 = 1 << 31;

/// How much of a dying child's panic text is kept.
pub(crate) const LAST_WORDS: usize = 3 << 10;

crate::shared::words! {
    RequestWords {
        asleep: Alone<AtomicU32>,
        hungry: Alone<AtomicU32>,
        closing: Alone<AtomicU32>,
        released: Alone<AtomicU64>,
        gone: Alone<[AtomicU32; SLOTS]>,
    }
    ReplyWords {
        window: Alone<AtomicU64>,
        dozing: Alone<AtomicU32>,
        tail: Alone<AtomicU64>,
        busy: Alone<AtomicU64>,
        progress: Alone<AtomicU64>,
        outgrown: Alone<AtomicU32>,
        overflowed: Alone<AtomicU32>,
        memory_limit: Alone<AtomicU64>,
        gone: Alone<[AtomicU32; SLOTS]>,
        last_words_len: Alone<AtomicU32>,
        last_words: [AtomicU8; LAST_WORDS],
    }
}
