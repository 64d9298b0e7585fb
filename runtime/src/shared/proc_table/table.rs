//! The process table itself: one memfd for a whole tree of processes, mapped in each.
//!
//! Owns: the mapping, and the search for a free entry. Runs in: any process.
//! Invariant: a process opens the memory once. Closing a second descriptor of it would release its record lock.
//!
//! Why the descriptor is opened once in a process and never again: the program, fork servers and copies made by
//! `fork()` show by a record lock that they live. To close *any* descriptor of the file would release that lock.
#![expect(unsafe_code, reason = "seeing entries in mapped memory")]

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use super::entry::{self, ProcEntry, ProcId, ProcState, SLOTS, TableView};
use crate::sys::memory::{self, Access, Map};
use crate::sys::{self, Errno, clock, fd, process, record_lock};

const TABLE_MAGIC: u64 = u64::from_le_bytes(*b"members1");

/// The first page.
#[repr(C)]
struct TableHeader {
    magic: AtomicU64,
    /// Where to look for a free entry next: round and round, so that a dead process's entry stays readable for long.
    next: AtomicU32,
    /// How many exits were reported, each after its entry was written.
    deaths: AtomicU64,
}

/// Where the entries begin: at the second page.
const ENTRIES_OFFSET: usize = 4096;
const TABLE_BYTES: usize = ENTRIES_OFFSET + SLOTS as usize * size_of::<ProcEntry>();

/// The table of this process's tree.
#[derive(Debug)]
pub(super) struct ProcTable {
    map: Map,
    fd: OwnedFd,
    file: Option<fd::FileId>,
    /// Whether this process has mapped it for writing.
    writable: AtomicBool,
    /// The entry whose record lock was seen last, and the time in the bits above. The kernel is not asked again while the
    /// clock shows the same time. Most callers ask about the same entry, that of the program itself.
    seen_locked: AtomicU64,
}

impl ProcTable {
    /// Creates a table.
    pub(super) fn create() -> sys::Result<Self> {
        let fd = memory::create("process-task-processes", TABLE_BYTES)?;
        let table = Self::map(fd, Access::Write)?;
        table.header().magic.store(TABLE_MAGIC, Relaxed);
        Ok(table)
    }

    /// Maps a table that another process made, for reading.
    pub(super) fn of(fd: OwnedFd) -> sys::Result<Self> {
        if memory::checked_len(fd.as_fd())? != TABLE_BYTES {
            return Err(Errno::EINVAL);
        }
        let table = Self::map(fd, Access::Read)?;
        if table.header().magic.load(Relaxed) == TABLE_MAGIC { Ok(table) } else { Err(Errno::EINVAL) }
    }

    fn map(fd: OwnedFd, access: Access) -> sys::Result<Self> {
        let map = Map::new(fd.as_fd(), TABLE_BYTES, access)?;
        let file = fd::file_id(fd.as_fd());
        Ok(Self { map, fd, file, writable: AtomicBool::new(access == Access::Write), seen_locked: AtomicU64::new(0) })
    }

    /// Maps the table for reading only, in a process that makes no others as far as is known. Stray writes fault.
    pub(super) fn make_read_only(&self) {
        if self.map.protect(Access::Read).is_ok() {
            self.writable.store(false, Relaxed);
        }
    }

    /// Maps the table for writing, in a process that registers others or itself, or that found an exit to report.
    pub(super) fn make_writable(&self) -> sys::Result<()> {
        if !self.writable.load(Relaxed) {
            self.map.protect(Access::Write)?;
            self.writable.store(true, Relaxed);
        }
        Ok(())
    }

    fn header(&self) -> &TableHeader {
        // SAFETY: the mapping is `TABLE_BYTES` long and page-aligned; a header of zeros is valid, and all of it is atomic.
        unsafe { self.map.start().cast::<TableHeader>().as_ref() }
    }

    fn entries(&self) -> &[ProcEntry; SLOTS as usize] {
        // SAFETY: the mapping is `TABLE_BYTES` long, so this lies inside it.
        let start = unsafe { self.map.start().add(ENTRIES_OFFSET) };
        // SAFETY: from there on it holds exactly these entries, page-aligned; zeros are valid ones, and all of it is atomic.
        unsafe { start.cast::<[ProcEntry; SLOTS as usize]>().as_ref() }
    }

    /// Returns the table's descriptor, to pass it to another process.
    ///
    /// # Errors
    /// `EBADF` if the program closed it, or put another file in its place.
    pub(super) fn descriptor(&self) -> sys::Result<BorrowedFd<'_>> {
        let fd = self.fd.as_fd();
        if self.file.is_some() && fd::file_id(fd) == self.file { Ok(fd) } else { Err(Errno::EBADF) }
    }

    /// Registers a process that `parent` asked for, and that process `maker` is about to make.
    pub(super) fn register(&self, parent: ProcId, maker: ProcId) -> sys::Result<ProcId> {
        self.make_writable()?;
        self.search(|slot, entry| Ok(entry.register(slot, ProcState::Alive, (Some(parent), maker.slot()))))
    }

    /// Registers this process, whose exit no other process will report.
    pub(super) fn register_self(&self) -> sys::Result<ProcId> {
        let fd = self.descriptor()?;
        self.make_writable()?;
        process::at_exit(super::begin_exit);
        self.search(|slot, entry| {
            // First the lock, then the word: a process that sees the word without the lock knows that this one has ended.
            if !record_lock::take(fd, slot)? {
                return Ok(None);
            }
            let registered = entry.register(slot, ProcState::Locked, (None, slot));
            if registered.is_none() {
                record_lock::release(fd, slot);
            }
            Ok(registered)
        })
    }

    /// Calls `take` on one free entry after the other, until it succeeds.
    fn search(&self, mut take: impl FnMut(u32, &ProcEntry) -> sys::Result<Option<ProcId>>) -> sys::Result<ProcId> {
        // The second round also checks entries that are alive: their makers may be dead, and unable to report them.
        for thorough in [false, true] {
            for _ in 0..SLOTS {
                let slot = self.header().next.fetch_add(1, Relaxed) % SLOTS;
                let entry = self.entry(slot);
                let word = entry.load();
                let ask = word.is_living() && (thorough || word.state != ProcState::Alive);
                let free = if ask { !word.id(slot).is_some_and(|id| self.is_alive(id)) } else { !word.is_living() };
                if free && let Some(id) = take(slot, entry)? {
                    return Ok(id);
                }
            }
        }
        Err(Errno::EAGAIN)
    }

    pub(super) fn report_exit(&self, id: ProcId, killed: bool) {
        if self.make_writable().is_ok() {
            self.entry(id.slot()).report_exit(id, killed, clock::coarse());
            self.header().deaths.fetch_add(1, Release);
        }
    }

    pub(super) fn deaths(&self) -> u64 {
        self.header().deaths.load(Acquire)
    }

    /// Takes the record lock of this process's entry, which its parent has registered as `current`.
    pub(super) fn hold_liveness_lock(&self, current: ProcId) -> sys::Result<()> {
        let fd = self.descriptor()?;
        self.make_writable()?;
        // A process that looks for a free entry holds the lock for a moment.
        while !record_lock::take(fd, current.slot())? {
            std::thread::yield_now();
        }
        self.entry(current.slot()).set_locked(current);
        Ok(())
    }

    pub(super) fn begin_exit(&self, current: ProcId) {
        // Writes only to a locked entry: then this process has registered itself, and so may write.
        self.entry(current.slot()).begin_exit(current);
    }

    pub(super) fn is_alive(&self, id: ProcId) -> bool {
        entry::is_alive(self, id, clock::coarse())
    }

    pub(super) fn was_killed(&self, id: ProcId) -> bool {
        if self.is_alive(id) {
            return false;
        }
        let word = self.entry(id.slot()).load();
        word.is_of(id) && word.state == ProcState::Killed
    }

    /// Returns the living processes that `maker` made.
    pub(super) fn children_of(&self, maker: ProcId) -> Vec<ProcId> {
        let made = |word: &entry::EntryWord| word.state == ProcState::Alive && word.maker == maker.slot();
        let words = (0..SLOTS).map(|slot| (slot, self.entry(slot).load())).filter(|(_, word)| made(word));
        words.filter_map(|(slot, word)| word.id(slot)).filter(|id| *id != maker).collect()
    }
}

impl TableView for ProcTable {
    fn entry(&self, slot: u32) -> &ProcEntry {
        &self.entries()[slot as usize]
    }

    fn may_write(&self) -> bool {
        self.make_writable().is_ok()
    }

    fn is_locked(&self, slot: u32) -> bool {
        let now = clock::coarse() / u64::from(SLOTS) * u64::from(SLOTS) + u64::from(slot);
        // The kernel does not report a process's own locks to it.
        if super::registered().is_some_and(|current| current.slot() == slot) || self.seen_locked.load(Relaxed) == now {
            return true;
        }
        let locked = record_lock::is_held_elsewhere(self.fd.as_fd(), slot).unwrap_or(true);
        if locked {
            self.seen_locked.store(now, Relaxed);
        }
        locked
    }
}
