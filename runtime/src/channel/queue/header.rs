//! The words at the start of a queue's memory.
//!
//! Owns: their names, and which share a cache line. Runs in: any process that has an endpoint of the queue.
//! [`enqueue`](super::enqueue) says when each side writes them.

use super::atomic::{AtomicU32, AtomicU64};
use super::event_count::EventCount;
use super::lock::RobustLock;

/// The words of a queue. What producers write and what consumers write is apart.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Words {
    pub(super) magic: AtomicU64,
    pub(super) fingerprint: AtomicU64,
    /// How many chunks there can be.
    pub(super) chunks: AtomicU32,
    /// How many items there may be, and how many bytes.
    pub(super) most_items: AtomicU32,
    pub(super) most_bytes: AtomicU64,
    /// Whether the queue was closed.
    pub(super) closed: AtomicU32,
    /// How often a process has let go of its last consumer.
    pub(super) dropped: AtomicU32,
    pub(super) put: QueueSide,
    pub(super) get: QueueSide,
    pub(super) stock: ChunkAllocator,
}

/// A word that the other side reads: nothing that this side reads or writes stands near it.
#[derive(Debug)]
#[repr(C, align(128))]
pub(super) struct Shown(pub(super) AtomicU64);

impl std::ops::Deref for Shown {
    type Target = AtomicU64;

    #[inline]
    fn deref(&self) -> &AtomicU64 {
        &self.0
    }
}

/// What those at one side of the queue write, under its lock.
#[derive(Debug)]
#[repr(C, align(128))]
pub(super) struct QueueSide {
    /// The place of the next item.
    pub(super) place: Shown,
    pub(super) lock: RobustLock,
    /// How many bytes have come by, one number for each parity of the place.
    pub(super) bytes: [AtomicU64; 2],
    /// How far the other side had come when it was looked at last: it has come at least as far.
    pub(super) seen: AtomicU64,
    /// The processor, and 1, on which one of this side last began to wait.
    pub(super) processor: AtomicU32,
    /// Of the producers: whether the next item is to be told of by a message.
    pub(super) wanted: AtomicU32,
    /// Threads of the other side that wait for this one.
    pub(super) sleepers: EventCount,
    /// Of the producers: the number of the last message with handles. Of the consumers: how many items are lent.
    pub(super) number: AtomicU64,
    /// Of the consumers: whether a holder of an item may be dead, and the threads that wait until nothing is lent.
    pub(super) returned: AtomicU32,
    pub(super) joiners: EventCount,
}

/// Where a chunk without an owner may be found. All of it are hints, but for `used`.
#[derive(Debug)]
#[repr(C, align(128))]
pub(super) struct ChunkAllocator {
    /// Chunks beyond were never used.
    pub(super) used: AtomicU32,
    pub(super) warm: AtomicU32,
    pub(super) cold: AtomicU32,
    /// Where to begin looking.
    pub(super) near: AtomicU32,
    /// Whether a process has died in the middle of something, and may have left chunks that have no owner and look
    /// otherwise.
    pub(super) dirty: AtomicU32,
    /// As soon as so many were used, it is time to look for such.
    pub(super) sweep_at: AtomicU32,
}
