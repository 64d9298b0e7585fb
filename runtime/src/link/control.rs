//! The control words at the start of the two halves, and which side writes which.
//!
//! Runs in: both ends of a link.
//! Invariant: each word has one writer, except where the table says otherwise.
//!
//! | word | half | written by |
//! |---|---|---|
//! | [`RequestControl::notify_reply`] | request | the collecting thread of the parent alone: its processor's number and 1 before it sleeps, 0 when it is awake |
//! | [`RequestControl::notify_idle`] | request | the parent, under the schedule's mutex: calls wait that no window has room for |
//! | [`RequestControl::shutdown`] | request | the parent, once: end when the window is dry |
//! | [`RequestControl::released`] | request | the parent: bit n flips when the reply buffer in slot n was let go |
//! | [`RequestControl::gone`] | request | the parent: its buffers that are no more, by slot (see [`super::buffers`]) |
//! | [`ReplyControl::window`] | reply | parent: raises and lowers `limit`; child: raises `claimed` (see [`super::window`]) |
//! | [`ReplyControl::parked`] | reply | child stores 1, looks at `window` again, sleeps on it; parent swaps 0, and wakes |
//! | [`ReplyControl::tail`] | reply | child, after the reply's bytes |
//! | [`ReplyControl::busy`] | reply | child, when it begins to work and when it has no more (see [`super::busy`]) |
//! | [`ReplyControl::progress`] | reply | child, in a batch: `serial << 32 \| items done`, after each result's bytes, which lie where the reply will stand; with [`NO_FURTHER_ITEM`] when it begins no further item |
//! | [`ReplyControl::over_memory`] | reply | child, before the `tail` of a reply: it uses more memory than it is to, and wants no further call |
//! | [`ReplyControl::overflowed`] | reply | child, from the handler of a stack overflow |
//! | [`ReplyControl::memory_limit`] | reply | child, before a call that has less address space than there is |
//! | [`ReplyControl::gone`] | reply | child: its buffers that are no more, by slot |
//! | [`ReplyControl::crash_note`] | reply | child, when it panics |
//!
//! A child that is stopped or killed between two of its steps leaves every word as one of these; no other process waits for
//! it to go on. The child rings its bell when, after it has stored `tail`, it sees `notify_reply`, and when it sees `notify_idle`
//! before it sleeps: a child that is given something else within the time in which it looks need not ring. Only the sleeper
//! clears `notify_reply`: a child that cleared it and was stopped before it rang would silence all others.
//!
//! Why these words are per link and not per pool: one word for a pool would be memory that all workers map. With one
//! per link, each worker sees its own parent's words and nothing else, and a new worker needs no more than a link. To
//! set them costs a store per worker, and only when they change.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use super::buffers::SLOTS;

/// A word that shares its cache line with no other.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct CachePadded<T>(pub(crate) T);

/// What the parent has to say; the child maps it for reading.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RequestControl {
    pub(crate) notify_reply: CachePadded<AtomicU32>,
    pub(crate) notify_idle: CachePadded<AtomicU32>,
    pub(crate) shutdown: CachePadded<AtomicU32>,
    pub(crate) released: CachePadded<AtomicU64>,
    pub(crate) gone: CachePadded<[AtomicU32; SLOTS]>,
}

/// What the child has to say; `window` and `parked` belong to both.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ReplyControl {
    pub(crate) window: CachePadded<AtomicU64>,
    pub(crate) parked: CachePadded<AtomicU32>,
    pub(crate) tail: CachePadded<AtomicU64>,
    pub(crate) busy: CachePadded<AtomicU64>,
    pub(crate) progress: CachePadded<AtomicU64>,
    pub(crate) over_memory: CachePadded<AtomicU32>,
    pub(crate) overflowed: CachePadded<AtomicU32>,
    pub(crate) memory_limit: CachePadded<AtomicU64>,
    pub(crate) gone: CachePadded<[AtomicU32; SLOTS]>,
    pub(crate) crash_note_len: CachePadded<AtomicU32>,
    pub(crate) crash_note: [AtomicU8; MAX_CRASH_NOTE_BYTES],
}

/// In [`ReplyControl::progress`]: no further item of the batch is begun.
pub(crate) const NO_FURTHER_ITEM: u64 = 1 << 31;

/// How much of a dying child's panic text is kept.
pub(crate) const MAX_CRASH_NOTE_BYTES: usize = 3 << 10;

crate::shared::words! {
    RequestControl {
        notify_reply: CachePadded<AtomicU32>,
        notify_idle: CachePadded<AtomicU32>,
        shutdown: CachePadded<AtomicU32>,
        released: CachePadded<AtomicU64>,
        gone: CachePadded<[AtomicU32; SLOTS]>,
    }
    ReplyControl {
        window: CachePadded<AtomicU64>,
        parked: CachePadded<AtomicU32>,
        tail: CachePadded<AtomicU64>,
        busy: CachePadded<AtomicU64>,
        progress: CachePadded<AtomicU64>,
        over_memory: CachePadded<AtomicU32>,
        overflowed: CachePadded<AtomicU32>,
        memory_limit: CachePadded<AtomicU64>,
        gone: CachePadded<[AtomicU32; SLOTS]>,
        crash_note_len: CachePadded<AtomicU32>,
        crash_note: [AtomicU8; MAX_CRASH_NOTE_BYTES],
    }
}
