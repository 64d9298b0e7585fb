//! A queue's memory as the model checker has it: a few chunks of a few units, each of which is a word.
//!
//! Owns: what `memory.rs` of the queue owns, under the same names. A unit that is read without an order behind its writing may
//! be an older one, each that is written is a step after which its writer may be dead, and a chunk that has no memory
//! when it is written is found at once. Runs in: one process, inside the model checker.

use loom::sync::atomic::{AtomicBool, AtomicU64 as Unit};

use super::atomic::Ordering::Relaxed;
use super::atomic::{AtomicU32, AtomicU64};
use super::event_count::{ALL, EventCount};
use super::header::{ChunkAllocator, QueueSide, Shown, Words};
use super::layout::{ChunkState, UNIT, UNITS};
use super::lock::{Acquired, RobustLock};
use crate::mortal::{Fault, step};

/// Bytes of a chunk: room for two items of 16 bytes, or one of 32; a longer one is long.
pub(super) const CHUNK: usize = 64;

/// So few that memory is given back.
pub(super) const MAX_WARM_CHUNKS: u32 = 1;

/// So few that chunks are looked for without a death, too.
pub(super) const MIN_RECOVERY_CHUNKS: u32 = 4;

const CHUNKS: u32 = 12;

/// The kernel refuses nothing here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MemoryError {
    /// There is no such chunk.
    Beyond,
}

/// One chunk and its entry in the table.
struct Entry {
    state: AtomicU32,
    lent: AtomicU32,
    has_memory: AtomicBool,
    units: [Unit; UNITS as usize],
}

impl Entry {
    fn new() -> Self {
        let units = [(); UNITS as usize].map(|()| Unit::new(0));
        let entry =
            Self { state: AtomicU32::new(0), lent: AtomicU32::new(0), has_memory: AtomicBool::new(false), units };
        entry.state.store(0, Relaxed);
        entry.lent.store(0, Relaxed);
        entry
    }

    fn have_memory(&self, has_memory: bool) {
        self.has_memory.store(has_memory, Relaxed);
        for unit in &self.units {
            unit.store(0, Relaxed);
        }
    }
}

pub(super) struct QueueMemory {
    words: Words,
    entries: Vec<Entry>,
}

fn side() -> QueueSide {
    let side = QueueSide {
        place: Shown(AtomicU64::new(0)),
        lock: RobustLock::new(),
        bytes: [AtomicU64::new(0), AtomicU64::new(0)],
        seen: AtomicU64::new(0),
        processor: AtomicU32::new(0),
        wanted: AtomicU32::new(0),
        sleepers: EventCount::new(),
        number: AtomicU64::new(0),
        returned: AtomicU32::new(0),
        joiners: EventCount::new(),
    };
    assert_eq!(side.lock.try_lock(), Some(Acquired::Clean));
    side.lock.unlock();
    for word in [&*side.place, &side.bytes[0], &side.bytes[1], &side.seen, &side.number] {
        word.store(0, Relaxed);
    }
    side.returned.store(0, Relaxed);
    side.processor.store(0, Relaxed);
    side.wanted.store(0, Relaxed);
    for sleepers in [&side.sleepers, &side.joiners] {
        sleepers.prepare_wait();
        sleepers.wake(&sleepers.notify(), ALL);
    }
    side
}

fn stock() -> ChunkAllocator {
    let word = || AtomicU32::new(0);
    let stock =
        ChunkAllocator { used: word(), warm: word(), cold: word(), near: word(), dirty: word(), sweep_at: word() };
    for word in [&stock.warm, &stock.cold, &stock.near, &stock.dirty] {
        word.store(0, Relaxed);
    }
    stock.begin();
    stock
}

impl QueueMemory {
    /// Of an empty queue. Every word is used once here, before there are other threads.
    pub(super) fn new(most_items: u32, most_bytes: u64) -> Self {
        let words = Words {
            magic: AtomicU64::new(0),
            fingerprint: AtomicU64::new(0),
            chunks: AtomicU32::new(CHUNKS),
            most_items: AtomicU32::new(most_items),
            most_bytes: AtomicU64::new(most_bytes),
            closed: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
            put: side(),
            get: side(),
            stock: stock(),
        };
        let _ = [&words.magic, &words.fingerprint, &words.most_bytes].map(|word| word.load(Relaxed));
        let _ = [&words.chunks, &words.most_items, &words.closed, &words.dropped].map(|word| word.load(Relaxed));
        let entries: Vec<_> = (0..CHUNKS).map(|_| Entry::new()).collect();
        entries[0].state.store(ChunkState::Queued.word(), Relaxed);
        entries[0].have_memory(true);
        Self { words, entries }
    }

    pub(super) fn words(&self) -> &Words {
        &self.words
    }

    pub(super) fn chunks(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap()
    }

    pub(super) fn state(&self, chunk: u32) -> &AtomicU32 {
        &self.entries[chunk as usize].state
    }

    pub(super) fn lent(&self, chunk: u32) -> &AtomicU32 {
        &self.entries[chunk as usize].lent
    }

    pub(super) fn reserve_entry(&self, chunk: u32) -> Result<(), MemoryError> {
        self.reach(chunk)
    }

    pub(super) fn reserve(&self, chunk: u32) -> Result<(), MemoryError> {
        self.reach(chunk)?;
        if step() && !Fault::NothingIsReserved.is_made() {
            self.entries[chunk as usize].have_memory(true);
        }
        Ok(())
    }

    pub(super) fn give_back(&self, chunk: u32) {
        if step() && !Fault::MemoryIsKept.is_made() {
            self.entries[chunk as usize].have_memory(false);
        }
    }

    /// Whether there is memory for a chunk.
    pub(super) fn has_memory(&self, chunk: u32) -> bool {
        self.entries[chunk as usize].has_memory.load(Relaxed)
    }

    pub(super) fn reach(&self, chunk: u32) -> Result<(), MemoryError> {
        if chunk < self.chunks() { Ok(()) } else { Err(MemoryError::Beyond) }
    }

    pub(super) fn unit(&self, (chunk, unit): (u32, u32)) -> u64 {
        self.entries[chunk as usize].units[unit as usize].load(Relaxed)
    }

    pub(super) fn expect_write(&self, (chunk, _): (u32, u32)) {
        assert!(self.has_memory(chunk), "chunk {chunk} is about to be written, which has no memory");
    }

    pub(super) fn set_unit(&self, (chunk, unit): (u32, u32), number: u64) {
        if step() {
            assert!(self.has_memory(chunk), "chunk {chunk} is written, which has no memory");
            self.entries[chunk as usize].units[unit as usize].store(number, Relaxed);
        }
    }

    pub(super) fn read(&self, (chunk, unit): (u32, u32), into: &mut [u8]) {
        for (unit, bytes) in (unit..).zip(into.chunks_mut(UNIT)) {
            bytes.copy_from_slice(&self.unit((chunk, unit)).to_ne_bytes()[..bytes.len()]);
        }
    }

    pub(super) fn write(&self, (chunk, unit): (u32, u32), bytes: &[u8]) {
        for (unit, bytes) in (unit..).zip(bytes.chunks(UNIT)) {
            let mut number = [0; UNIT];
            number[..bytes.len()].copy_from_slice(bytes);
            self.set_unit((chunk, unit), u64::from_ne_bytes(number));
        }
    }
}
