//! The chunk allocator of a queue: which chunks are free, and which have memory.
//!
//! Owns: the states of chunks, until they are the queue's. Runs in: any process that has an end of the queue.
//! Never: takes a lock. A chunk changes hands by one compare-and-swap of its state.
//!
//! | state | owner | written next by |
//! |---|---|---|
//! | [`ChunkState::Cold`] | none, no memory below it | the process that takes it, and then reserves its memory |
//! | [`ChunkState::Warm`] | none | the process that takes it |
//! | [`ChunkState::Of`] | a process's, which fills it for a long item, or copies one out | that process; once it is dead, a process that sweeps |
//! | [`ChunkState::Queued`] | the queue's | the holder of the lock of the side that needs it or is done with it; a process that sweeps |
//!
//! A few chunks stay warm; the memory of the others goes back as they are put back. The counts of warm and cold chunks are
//! hints, which a death leaves wrong until the next search finds nothing.

use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use super::header::ChunkAllocator;
use super::layout::ChunkState;
use super::memory::{MAX_WARM_CHUNKS, MIN_RECOVERY_CHUNKS, MemoryError, QueueMemory};

/// Why there is no chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoChunk {
    /// All are in use.
    Full,
    /// There is no memory.
    MemoryError(MemoryError),
}

impl ChunkAllocator {
    /// A new queue, with its first chunk in use.
    pub(super) fn begin(&self) {
        self.used.store(1, Relaxed);
        self.sweep_at.store(MIN_RECOVERY_CHUNKS, Relaxed);
    }

    /// Whether to look for chunks without an owner before another one is used.
    pub(super) fn is_sweep_due(&self) -> bool {
        self.dirty.load(Relaxed) != 0
            || self.used.load(Relaxed) >= self.sweep_at.load(Relaxed)
                && self.warm.load(Relaxed) == 0
                && self.cold.load(Relaxed) == 0
    }
}

impl QueueMemory {
    /// Takes a free chunk, for `taker`; there is memory below it, which this process has mapped.
    pub(super) fn take(&self, taker: ChunkState) -> Result<u32, NoChunk> {
        let stock = &self.words().stock;
        let chunk = match self.find(&stock.warm, ChunkState::Warm, taker) {
            Some(chunk) => chunk,
            None => self.take_cold(taker)?,
        };
        self.lent(chunk).store(0, Relaxed);
        if let Err(errno) = self.reach(chunk) {
            self.put_back(chunk);
            return Err(NoChunk::MemoryError(errno));
        }
        Ok(chunk)
    }

    /// Takes a chunk without memory, and gives it some.
    fn take_cold(&self, taker: ChunkState) -> Result<u32, NoChunk> {
        let chunk = match self.find(&self.words().stock.cold, ChunkState::Cold, taker) {
            Some(chunk) => chunk,
            None => self.take_unused(taker)?,
        };
        self.reserve(chunk).map_err(|errno| {
            self.put_back_cold(chunk);
            NoChunk::MemoryError(errno)
        })?;
        Ok(chunk)
    }

    /// Puts back a chunk that the caller has.
    pub(super) fn put_back(&self, chunk: u32) {
        let stock = &self.words().stock;
        if stock.warm.load(Relaxed) >= MAX_WARM_CHUNKS {
            self.give_back(chunk);
            return self.put_back_cold(chunk);
        }
        self.state(chunk).store(ChunkState::Warm.word(), Release);
        stock.warm.fetch_add(1, Relaxed);
        stock.near.store(chunk, Relaxed);
    }

    fn put_back_cold(&self, chunk: u32) {
        let stock = &self.words().stock;
        self.state(chunk).store(ChunkState::Cold.word(), Release);
        stock.cold.fetch_add(1, Relaxed);
        stock.near.store(chunk, Relaxed);
    }

    /// Looks for a chunk in that state, if `count` says that there are any.
    fn find(&self, count: &super::atomic::AtomicU32, state: ChunkState, taker: ChunkState) -> Option<u32> {
        if count.load(Relaxed) == 0 {
            return None;
        }
        let (used, near) = (self.used(), self.words().stock.near.load(Relaxed));
        for at in (near..used).chain(0..near.min(used)) {
            let word = self.state(at);
            if word.load(Relaxed) == state.word()
                && word.compare_exchange(state.word(), taker.word(), AcqRel, Relaxed).is_ok()
            {
                let _ = count.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
                self.words().stock.near.store(at, Relaxed);
                return Some(at);
            }
        }
        count.store(0, Relaxed);
        None
    }

    /// Takes the first chunk that was never used.
    fn take_unused(&self, taker: ChunkState) -> Result<u32, NoChunk> {
        let used = &self.words().stock.used;
        loop {
            let chunk = used.load(Acquire);
            if chunk >= self.chunks() {
                return Err(NoChunk::Full);
            }
            self.reserve_entry(chunk).map_err(NoChunk::MemoryError)?;
            let next = used.compare_exchange(chunk, chunk + 1, AcqRel, Relaxed);
            // Another process may come by it as it is cold.
            if next.is_ok()
                && self.state(chunk).compare_exchange(ChunkState::Cold.word(), taker.word(), AcqRel, Relaxed).is_ok()
            {
                return Ok(chunk);
            }
        }
    }

    /// How many chunks were ever used, and have an entry in the table.
    pub(super) fn used(&self) -> u32 {
        self.words().stock.used.load(Acquire).min(self.chunks())
    }
}
