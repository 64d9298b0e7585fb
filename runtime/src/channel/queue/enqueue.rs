//! Enqueuing and dequeuing: the protocol of a queue's memory.
//!
//! Owns: when each side writes which word. Runs in: any process that has an end of the queue.
//! Never: encodes, decodes, or waits for room or for an item; and never makes a system call itself, but through
//! [`QueueMemory`], so that a model checker can run it.
//!
//! Why a producer tells its processor what it will write soon (`Map::expect_write`): otherwise each new cache line
//! comes from the consumer's processor while the lock is held.
//!
//! # The words
//!
//! | word | written by | what it says |
//! |---|---|---|
//! | `put.place` | a producer, under `put.lock`, last | where the next item goes, and how many were put |
//! | `get.place` | a consumer, last: under `get.lock`, or, for a short item, by one exchange without it ([`dequeue`](super::dequeue)) | where the next item is, and how many were got |
//! | `put.bytes`, `get.bytes` | the same, before the place | how many bytes went by; the one of the place's parity counts |
//! | `put.seen`, `get.seen` | the same | a place of the other side that was seen: looking there costs a cache miss |
//! | a chunk's state | see [`chunk_alloc`](super::chunk_alloc) | its owner |
//! | a lease, `get.number`, a chunk's `lent` | a consumer, under `get.lock` | which process has a lent item, how many there are, and how many of a chunk |
//! | `put.sleepers` | under `put.lock` | threads that wait for an item |
//! | `get.sleepers` | under `get.lock` | threads that wait for room |
//! | `put.wanted` | a future that awaits an item sets it, a producer clears it, under `put.lock` | whether a message is to tell of the next item |
//! | `put.processor`, `get.processor` | a thread that begins to wait at that side | where that was; a hint |
//!
//! An item is put by the one store of `put.place`, and taken by the one change of `get.place`. Everything before is as if it
//! had never been, should its process be killed; everything after is found out by others.
//!
//! # Deaths
//!
//! | killed | what it costs |
//! |---|---|
//! | while it puts, before the store | the item, which was never put; a chunk, or the chunks of a long item, until they are swept |
//! | after the store, before it gives the lock back or wakes a thread | nothing: the next finds the lock of a dead process, and a sleeper looks again |
//! | while it gets, before that change | nothing: the item is still there |
//! | after it | the item, which was taken; the chunks of a long one until they are swept |
//! | with a lent item | nothing: it comes back, as its lease names a dead process |
//! | while it says that a lent item is done | the item comes back, or is done |

use std::time::Instant;

use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::chunk_alloc::NoChunk;
use super::event_count::{EventCount, Notified, WaitKey};
use super::futex_wait::short_deadline;
use super::header::QueueSide;
use super::layout::{ChunkState, Cursor, ItemHeader, ItemLayout, ItemLease, LONG_PART, MAX_ITEMS, UNIT, UNITS};
use super::lock::Acquired;
use super::memory::{MemoryError, QueueMemory};
use super::proc_table;

/// Number of bytes up to which a copy unit by unit is faster.
pub(super) const MAX_UNITWISE_COPY_BYTES: usize = 64;

/// Number of units, some cache lines, from the cursor to what is prefetched for writing.
const PREFETCH_UNITS: u32 = 32;

/// Why an item was not enqueued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EnqueueError {
    /// There is no room now. The consumers' cursor had this value.
    Full(u64),
    /// The lock was held until the deadline.
    Late,
    /// The queue was closed.
    Closed,
    /// The kernel refuses what is needed.
    MemoryError(MemoryError),
}

/// Holds the lock of one side until dropped, and then wakes the notified threads.
pub(super) struct SideGuard<'a> {
    side: &'a QueueSide,
    called: Option<(&'a EventCount, Notified, u32)>,
}

impl<'a> SideGuard<'a> {
    /// Notifies `count` threads that wait for this side.
    #[inline]
    pub(super) fn call(&mut self, count: u32) {
        self.call_of(&self.side.sleepers, count);
    }

    #[inline]
    pub(super) fn call_of(&mut self, sleepers: &'a EventCount, count: u32) {
        self.called = Some((sleepers, sleepers.notify(), count));
    }

    /// Announces that this thread is about to wait for this side.
    pub(super) fn prepare_wait(&self) -> WaitKey {
        self.side.sleepers.prepare_wait()
    }
}

impl Drop for SideGuard<'_> {
    fn drop(&mut self) {
        self.side.lock.unlock();
        if let Some((sleepers, called, count)) = &self.called {
            sleepers.wake(called, *count);
        }
    }
}

/// A long item in chunks of its own, not in the queue yet. They are put back when this is dropped.
pub(super) struct LargeItem<'a> {
    memory: &'a QueueMemory,
    chunks: Vec<u32>,
    len: usize,
}

impl Drop for LargeItem<'_> {
    fn drop(&mut self) {
        self.chunks.drain(..).for_each(|chunk| self.memory.put_back(chunk));
    }
}

impl QueueMemory {
    /// The side of the producers, locked. None: the deadline is over.
    #[inline]
    pub(super) fn putting(&self, deadline: Option<Instant>) -> Option<SideGuard<'_>> {
        let side = &self.words().put;
        let taken = side.lock.lock(deadline)?;
        let inside = SideGuard { side, called: None };
        if taken == Acquired::OwnerDied {
            self.words().stock.dirty.store(1, Relaxed);
            side.seen.store(self.words().get.place.load(Acquire), Relaxed);
        }
        Some(inside)
    }

    /// The side of the consumers, locked. None: the deadline is over.
    #[inline]
    pub(super) fn getting(&self, deadline: Option<Instant>) -> Option<SideGuard<'_>> {
        let side = &self.words().get;
        let taken = side.lock.lock(deadline)?;
        let inside = SideGuard { side, called: None };
        if taken == Acquired::OwnerDied {
            self.words().stock.dirty.store(1, Relaxed);
            side.seen.store(side.place.load(Relaxed), Relaxed);
            self.count_lent();
        }
        Some(inside)
    }

    /// How many items there are that were not taken yet.
    pub(super) fn len(&self) -> u32 {
        // In this order, so that it is never less than there were at some moment.
        let head = Cursor::of(self.words().get.place.load(Acquire));
        Cursor::of(self.words().put.place.load(Acquire)).since(head)
    }

    /// The longest item that there could ever be memory for, in bytes.
    pub(super) fn longest(&self) -> usize {
        (self.chunks() as usize - 2) * LONG_PART
    }

    /// How many bytes an item takes of those that the queue may hold.
    pub(super) fn cost(bytes: usize, shape: ItemLayout) -> u64 {
        u64::from(shape.units()) * UNIT as u64 + if shape.long { bytes as u64 } else { 0 }
    }

    /// Checks that an item of that cost may be put: the queue is open, and has room for it. Under `put.lock`.
    #[inline]
    pub(super) fn room(&self, cost: u64) -> Result<(), EnqueueError> {
        let words = self.words();
        if words.closed.load(Relaxed) != 0 {
            return Err(EnqueueError::Closed);
        }
        let tail = Cursor::of(words.put.place.load(Relaxed));
        let most = words.most_items.load(Relaxed).min(MAX_ITEMS - 1);
        let most_bytes = words.most_bytes.load(Relaxed);
        let fits = |head: Cursor| {
            tail.since(head) < most
                && (most_bytes == u64::MAX || {
                    let put = words.put.bytes[tail.parity()].load(Relaxed);
                    let got = words.get.bytes[head.parity()].load(Relaxed);
                    // A count that is further than the place that it was read for only makes more room.
                    put.wrapping_sub(got).saturating_add(cost) <= most_bytes
                })
        };
        if fits(Cursor::of(words.put.seen.load(Relaxed))) {
            return Ok(());
        }
        let head = words.get.place.load(Acquire);
        words.put.seen.store(head, Relaxed);
        if fits(Cursor::of(head)) { Ok(()) } else { Err(EnqueueError::Full(head)) }
    }

    /// Puts an item into the queue, last. Says whether it begins another chunk.
    ///
    /// `long` is the item, if it is long; `send` sends what is beside it in the message of a number.
    #[inline]
    pub(super) fn put(
        &self,
        inside: &mut SideGuard<'_>,
        (shape, bytes): (ItemLayout, &[u8]),
        long: Option<&mut LargeItem<'_>>,
        send: impl FnOnce(u64) -> Result<(), EnqueueError>,
    ) -> Result<bool, EnqueueError> {
        let words = self.words();
        let cost = Self::cost(bytes.len(), shape);
        self.room(cost)?;
        let tail = Cursor::of(words.put.place.load(Relaxed));
        self.reach(tail.chunk).map_err(EnqueueError::MemoryError)?;
        let hops = !shape.fits(tail.unit);
        let place = if hops { tail.at_start_of(self.next_chunk()?) } else { tail };
        let at = (place.chunk, place.unit);
        self.set_unit(at, ItemHeader::Item(shape).word());
        if shape.lent {
            self.set_lease(at, ItemLease::Fresh);
        }
        if shape.beside {
            let number = words.put.number.load(Relaxed).wrapping_add(1);
            words.put.number.store(number, Relaxed);
            self.set_unit((at.0, at.1 + shape.before()), number);
            if let Err(error) = send(number) {
                if hops {
                    self.put_back(place.chunk);
                }
                return Err(error);
            }
        }
        self.expect_write((at.0, at.1 + PREFETCH_UNITS));
        let body = at.1 + 1 + shape.before();
        match long {
            None => self.write_units((at.0, body), bytes),
            Some(long) => {
                self.set_unit((at.0, body), long.len as u64);
                self.set_unit((at.0, body + 1), long.chunks.first().map_or(0, |chunk| u64::from(*chunk)));
                // As of now they are the queue's: what is not put after all is swept.
                for chunk in std::mem::take(&mut long.chunks) {
                    self.state(chunk).store(ChunkState::Queued.word(), Relaxed);
                }
            }
        }
        if hops {
            self.set_unit((tail.chunk, tail.unit), ItemHeader::Hop(place.chunk).word());
        }
        let next = place.behind(shape.units());
        words.put.bytes[next.parity()].store(words.put.bytes[tail.parity()].load(Relaxed).wrapping_add(cost), Relaxed);
        words.put.place.store(next.word(), Release);
        inside.call(1);
        Ok(hops)
    }

    /// Writes the bytes of an item: few of them without a call.
    #[inline]
    fn write_units(&self, at: (u32, u32), bytes: &[u8]) {
        if bytes.len() > MAX_UNITWISE_COPY_BYTES {
            return self.write(at, bytes);
        }
        let (numbers, rest) = bytes.as_chunks();
        let mut unit = at.1;
        for number in numbers {
            self.set_unit((at.0, unit), u64::from_ne_bytes(*number));
            unit += 1;
        }
        if !rest.is_empty() {
            let mut last = [0; UNIT];
            last[..rest.len()].copy_from_slice(rest);
            self.set_unit((at.0, unit), u64::from_ne_bytes(last));
        }
    }

    /// Reads what [`write_units`](Self::write_units) wrote.
    #[inline]
    pub(super) fn read_units(&self, at: (u32, u32), into: &mut [u8]) {
        if into.len() > MAX_UNITWISE_COPY_BYTES {
            return self.read(at, into);
        }
        let (numbers, rest) = into.as_chunks_mut();
        let mut unit = at.1;
        for number in numbers {
            *number = self.unit((at.0, unit)).to_ne_bytes();
            unit += 1;
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&self.unit((at.0, unit)).to_ne_bytes()[..rest.len()]);
        }
    }

    /// A chunk for the items that come now. Under `put.lock`.
    #[cold]
    fn next_chunk(&self) -> Result<u32, EnqueueError> {
        if self.words().stock.is_sweep_due()
            && let Some(_getting) = self.getting(short_deadline())
        {
            self.sweep();
        }
        self.take(ChunkState::Queued).map_err(|no| self.not_put(no))
    }

    fn not_put(&self, no: NoChunk) -> EnqueueError {
        match no {
            NoChunk::Full => EnqueueError::Full(self.words().get.place.load(Acquire)),
            NoChunk::MemoryError(errno) => EnqueueError::MemoryError(errno),
        }
    }

    /// Copies a long item into chunks of its own. Without a lock.
    pub(super) fn fill(&self, bytes: &[u8]) -> Result<LargeItem<'_>, EnqueueError> {
        if self.words().stock.is_sweep_due()
            && let Some(_putting) = self.putting(short_deadline())
            && let Some(_getting) = self.getting(short_deadline())
        {
            self.sweep();
        }
        let mut long = LargeItem { memory: self, chunks: Vec::new(), len: bytes.len() };
        for part in bytes.chunks(LONG_PART) {
            let chunk = self.take(ChunkState::Of(proc_table::current().bits())).map_err(|no| self.not_put(no))?;
            self.write((chunk, 0), part);
            self.set_unit((chunk, UNITS - 1), ItemHeader::Hop(0).word());
            if let Some(before) = long.chunks.last() {
                self.set_unit((*before, UNITS - 1), ItemHeader::Hop(chunk).word());
            }
            long.chunks.push(chunk);
        }
        Ok(long)
    }
}
