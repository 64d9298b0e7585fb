//! A queue's memory: words, a table of chunks, and the chunks, in one memfd that grows and shrinks with what is in it.
//!
//! Owns: the mapping, and what the words are. Runs in: any process that has an end of the queue.
//! Never: says when which of it may be read or written; [`enqueue`](super::enqueue) does.
//!
//! | from | what | there from the start |
//! |---|---|---|
//! | 0 | [`Words`] | yes |
//! | 4,096 | for each chunk its state, and how many of its items are lent | the first page |
//! | behind it | the chunks | the first |
//!
//! The file is as long as all chunks would be, 64 GiB, and has memory only where it is used. Processes map the chunks in
//! stretches of [`CHUNKS_PER_MAP`], when they come to them, so that a process with little room for addresses can use a queue with
//! little in it.

use std::any::{TypeId, type_name};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use super::atomic::Ordering::Relaxed;
use super::atomic::{AtomicU32, AtomicU64};
use super::header::{ChunkAllocator, QueueSide, Words};
use super::layout::{ChunkState, MAX_CHUNKS, UNIT};
use crate::codec::CodecError;
use crate::codec::handles::Handle;
use crate::shared::{MappedHeader, MappingCache, words};
use crate::sys::fd::{self, FileId};
use crate::sys::memory::{self, Access, Map};
use crate::sys::{Errno, Result};

/// Why the kernel refuses memory.
pub(super) type MemoryError = Errno;

/// Bytes of a chunk.
pub(super) const CHUNK: usize = 64 << 10;

/// The number of unused chunks that keep their memory: 1 MiB.
pub(super) const MAX_WARM_CHUNKS: u32 = 16;

/// From how many chunks on it is worth while to look for lost ones before using more.
pub(super) const MIN_RECOVERY_CHUNKS: u32 = 64;

const MAGIC: u64 = u64::from_ne_bytes(*b"ptqueue1");

/// What the memory is called in `/proc/<pid>/maps`.
const NAME: &str = "process-task-queue";

/// Chunks that are mapped together: 16 MiB.
const CHUNKS_PER_MAP: u32 = 256;

/// Bytes of a chunk's entry in the table.
const ENTRY_BYTES: usize = 8;

/// The number of chunks that have their entries on one page.
const ENTRIES_PER_PAGE: u32 = 512;

/// The fewest chunks that a queue is content with, where the process may not have longer files.
const MIN_CHUNKS: u32 = 64;

words! {
    Words {
        magic: AtomicU64, fingerprint: AtomicU64, chunks: AtomicU32, most_items: AtomicU32, most_bytes: AtomicU64,
        closed: AtomicU32, dropped: AtomicU32, put: QueueSide, get: QueueSide, stock: ChunkAllocator,
    }
}

/// The memory of one queue, as this process has it.
#[derive(Debug)]
pub(super) struct QueueMemory {
    table: MappedHeader<Words>,
    descriptor: OwnedFd,
    identity: FileId,
    stretches: Box<[OnceLock<Map>]>,
    chunks: u32,
}

/// The memories of queues that this process has: one that comes twice is mapped once.
static MEMORIES: MappingCache<QueueMemory> = MappingCache::new();

/// Tells types of queues apart, `Q` being one with its items.
fn fingerprint<Q: 'static>() -> u64 {
    let mut hasher = DefaultHasher::new();
    (TypeId::of::<Q>(), type_name::<Q>()).hash(&mut hasher);
    hasher.finish()
}

/// Where the chunks begin.
fn start(chunks: u32) -> usize {
    MappedHeader::<Words>::size_with(chunks as usize * ENTRY_BYTES).next_multiple_of(4096)
}

fn table(descriptor: BorrowedFd<'_>, chunks: u32) -> Result<MappedHeader<Words>> {
    MappedHeader::map(descriptor, start(chunks) - MappedHeader::<Words>::size_with(0), Access::Write)
}

/// Where a unit lies in its stretch.
#[inline]
fn place((chunk, unit): (u32, u32)) -> usize {
    (chunk % CHUNKS_PER_MAP) as usize * CHUNK + unit as usize * UNIT
}

impl QueueMemory {
    /// Memory for an empty queue of type `Q`, with so many items and bytes at most.
    pub(super) fn create<Q: 'static>(most_items: u32, most_bytes: u64) -> Result<Arc<Self>> {
        let mut chunks = MAX_CHUNKS;
        let descriptor = loop {
            match memory::create_sparse(NAME, start(chunks) + chunks as usize * CHUNK) {
                Err(Errno::EFBIG | Errno::ENOMEM) if chunks > MIN_CHUNKS => chunks /= 2,
                other => break other?,
            }
        };
        memory::reserve_part(descriptor.as_fd(), 0, MappedHeader::<Words>::size_with(4096))?;
        let identity = fd::file_id(descriptor.as_fd()).ok_or(Errno::EBADF)?;
        let table = table(descriptor.as_fd(), chunks)?;
        let memory = Self::of(table, (descriptor, identity), chunks);
        memory.reserve(0)?;
        let words = memory.words();
        words.stock.begin();
        memory.state(0).store(ChunkState::Queued.word(), Relaxed);
        words.magic.store(MAGIC, Relaxed);
        words.fingerprint.store(fingerprint::<Q>(), Relaxed);
        words.chunks.store(chunks, Relaxed);
        words.most_items.store(most_items, Relaxed);
        words.most_bytes.store(most_bytes, Relaxed);
        Ok(MEMORIES.insert(memory.identity, Arc::new(memory)))
    }

    fn of(table: MappedHeader<Words>, (descriptor, identity): (OwnedFd, FileId), chunks: u32) -> Self {
        let stretches = (0..chunks.div_ceil(CHUNKS_PER_MAP)).map(|_| OnceLock::new()).collect();
        Self { table, descriptor, identity, stretches, chunks }
    }

    /// The memory behind a descriptor that came from another process; [`check`](Self::check) says which type of items it
    /// has.
    pub(super) fn open(descriptor: OwnedFd) -> std::result::Result<Arc<Self>, CodecError> {
        let corrupt = || CodecError::new("the payload is corrupt: what came with it is no queue of this program");
        let identity = fd::file_id(descriptor.as_fd()).ok_or_else(corrupt)?;
        MEMORIES.find_or_insert(identity, || {
            let len = memory::checked_len(descriptor.as_fd()).map_err(|_| corrupt())?;
            let fits = |chunks: u32| start(chunks) + chunks as usize * CHUNK == len;
            let chunks = (0..=MAX_CHUNKS.trailing_zeros()).map(|bits| 1 << bits).find(|chunks| fits(*chunks));
            let chunks = chunks.ok_or_else(corrupt)?;
            let table = table(descriptor.as_fd(), chunks)
                .map_err(|errno| CodecError::new(format!("cannot map the memory of a queue: {}", errno.desc())))?;
            let whole = table.words().magic.load(Relaxed) == MAGIC && table.words().chunks.load(Relaxed) == chunks;
            if whole { Ok(Self::of(table, (descriptor, identity), chunks)) } else { Err(corrupt()) }
        })
    }

    /// Checks that it is the memory of a `Q`.
    pub(super) fn check<Q: 'static>(&self) -> std::result::Result<(), CodecError> {
        if self.words().fingerprint.load(Relaxed) == fingerprint::<Q>() {
            return Ok(());
        }
        Err(CodecError::new(format!("a handle of another type was read as one of `{}`", type_name::<Q>())))
    }

    #[inline]
    pub(super) fn words(&self) -> &Words {
        self.table.words()
    }

    /// Which of all queues it is.
    pub(super) fn identity(&self) -> FileId {
        self.identity
    }

    /// How many chunks there can be.
    #[inline]
    pub(super) fn chunks(&self) -> u32 {
        self.chunks
    }

    /// The word that says what a chunk is used for. There must be a chunk of that number.
    #[inline]
    pub(super) fn state(&self, chunk: u32) -> &AtomicU32 {
        self.table.word(chunk as usize * ENTRY_BYTES)
    }

    /// The word that says how many items of a chunk are lent.
    #[inline]
    pub(super) fn lent(&self, chunk: u32) -> &AtomicU32 {
        self.table.word(chunk as usize * ENTRY_BYTES + ENTRY_BYTES / 2)
    }

    /// Sees to it that there is memory for the entry of a chunk, before it is looked at for the first time.
    pub(super) fn reserve_entry(&self, chunk: u32) -> Result<()> {
        if !chunk.is_multiple_of(ENTRIES_PER_PAGE) {
            return Ok(());
        }
        memory::reserve_part(
            self.descriptor.as_fd(),
            MappedHeader::<Words>::size_with(chunk as usize * ENTRY_BYTES),
            4096,
        )
    }

    /// Sees to it that there is memory for a chunk.
    pub(super) fn reserve(&self, chunk: u32) -> Result<()> {
        memory::reserve_part(self.descriptor.as_fd(), self.at(chunk), CHUNK)
    }

    /// Gives the memory of a chunk back.
    pub(super) fn give_back(&self, chunk: u32) {
        memory::punch_hole(self.descriptor.as_fd(), self.at(chunk), CHUNK);
    }

    fn at(&self, chunk: u32) -> usize {
        start(self.chunks) + chunk as usize * CHUNK
    }

    /// Sees to it that this process has mapped a chunk, as it must have before it reads or writes there.
    #[inline]
    pub(super) fn reach(&self, chunk: u32) -> Result<()> {
        if chunk >= self.chunks {
            return Err(Errno::EFAULT);
        }
        match self.stretches.get((chunk / CHUNKS_PER_MAP) as usize).map(OnceLock::get) {
            Some(Some(_)) => Ok(()),
            Some(None) => self.reach_further(chunk),
            None => Err(Errno::EFAULT),
        }
    }

    #[cold]
    fn reach_further(&self, chunk: u32) -> Result<()> {
        let first = chunk / CHUNKS_PER_MAP * CHUNKS_PER_MAP;
        let len = (self.chunks - first).min(CHUNKS_PER_MAP) as usize * CHUNK;
        let map = Map::part(self.descriptor.as_fd(), self.at(first), len)?;
        // Another thread may have been here at the same time; then its mapping stays.
        let _ = self.stretches[(chunk / CHUNKS_PER_MAP) as usize].set(map);
        Ok(())
    }

    /// The number in a unit of a chunk that is within [reach](Self::reach).
    #[inline]
    pub(super) fn unit(&self, (chunk, unit): (u32, u32)) -> u64 {
        self.stretch(chunk).map_or(0, |map| map.load_u64(place((chunk, unit))))
    }

    #[inline]
    pub(super) fn set_unit(&self, (chunk, unit): (u32, u32), number: u64) {
        if let Some(map) = self.stretch(chunk) {
            map.store_u64(place((chunk, unit)), number);
        }
    }

    /// See [`Map::prefetch_write`].
    #[inline]
    pub(super) fn expect_write(&self, (chunk, unit): (u32, u32)) {
        if let Some(map) = self.stretch(chunk) {
            map.prefetch_write(place((chunk, unit)));
        }
    }

    /// See [`Map::read`]; from this unit of a chunk that is within [reach](Self::reach).
    #[inline]
    pub(super) fn read(&self, (chunk, unit): (u32, u32), into: &mut [u8]) {
        if let Some(map) = self.stretch(chunk) {
            map.read(place((chunk, unit)), into);
        }
    }

    /// See [`Map::write`]; likewise.
    #[inline]
    pub(super) fn write(&self, (chunk, unit): (u32, u32), bytes: &[u8]) {
        if let Some(map) = self.stretch(chunk) {
            map.write(place((chunk, unit)), bytes);
        }
    }

    #[inline]
    fn stretch(&self, chunk: u32) -> Option<&Map> {
        let map = self.stretches.get((chunk / CHUNKS_PER_MAP) as usize).and_then(OnceLock::get);
        debug_assert!(map.is_some(), "chunk {chunk} is out of reach");
        map
    }
}

impl Handle for QueueMemory {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Which processes have it mapped makes no difference; which have an end of the queue does.
    fn is_cacheable(&self) -> bool {
        true
    }
}

impl Drop for QueueMemory {
    fn drop(&mut self) {
        MEMORIES.remove(&self.identity, self);
    }
}
