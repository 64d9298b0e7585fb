//! The table itself: one memfd for a whole tree of processes, mapped in each.
//!
//! Owns: the mapping, and the search for an entry that is free. Runs in: any process.
//! Never: opens the memory a second time in one process: closing that descriptor would give up its record lock.
#![expect(unsafe_code, reason = "seeing entries in mapped memory")]

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use super::entry::{self, Book, Entry, Member, SLOTS, State};
use crate::sys::memory::{self, Access, Map};
use crate::sys::{self, Errno, clock, fd, process, record_lock};

const MAGIC: u64 = u64::from_le_bytes(*b"members1");

/// What stands on the first page.
#[repr(C)]
struct Header {
    magic: AtomicU64,
    /// Where to look for a free entry next: round and round, so that a dead member's entry stays readable for long.
    next: AtomicU32,
    /// How many ends were told, each after its entry said so.
    ended: AtomicU64,
}

/// Where the entries begin: a page further.
const ENTRIES: usize = 4096;
const SIZE: usize = ENTRIES + SLOTS as usize * size_of::<Entry>();

/// The table of this process's tree.
#[derive(Debug)]
pub(super) struct Table {
    map: Map,
    fd: OwnedFd,
    file: Option<fd::Identity>,
    /// Whether this process has mapped it for writing.
    writable: AtomicBool,
    /// The entry with the record lock that was seen last, and the time in the bits above: for as long as the clock shows
    /// the same, it is not asked about again. Most look for the same one, that of the program itself.
    seen_locked: AtomicU64,
}

impl Table {
    /// A new one.
    pub(super) fn create() -> sys::Result<Self> {
        let fd = memory::create("process-task-members", SIZE)?;
        let table = Self::map(fd, Access::Write)?;
        table.header().magic.store(MAGIC, Relaxed);
        Ok(table)
    }

    /// One that another process made, mapped for reading.
    pub(super) fn of(fd: OwnedFd) -> sys::Result<Self> {
        if memory::checked_len(fd.as_fd())? != SIZE {
            return Err(Errno::EINVAL);
        }
        let table = Self::map(fd, Access::Read)?;
        if table.header().magic.load(Relaxed) == MAGIC { Ok(table) } else { Err(Errno::EINVAL) }
    }

    fn map(fd: OwnedFd, access: Access) -> sys::Result<Self> {
        let map = Map::new(fd.as_fd(), SIZE, access)?;
        let file = fd::identity(fd.as_fd());
        Ok(Self { map, fd, file, writable: AtomicBool::new(access == Access::Write), seen_locked: AtomicU64::new(0) })
    }

    /// This process makes no others, as far as is known: it looks at the table, and what it writes by mistake does not end up there.
    pub(super) fn only_read(&self) {
        if self.map.protect(Access::Read).is_ok() {
            self.writable.store(false, Relaxed);
        }
    }

    /// This process enters others, or itself, or has found an end that no other process has reported.
    pub(super) fn write(&self) -> sys::Result<()> {
        if !self.writable.load(Relaxed) {
            self.map.protect(Access::Write)?;
            self.writable.store(true, Relaxed);
        }
        Ok(())
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping is `SIZE` long and page-aligned; a header of zeros is valid, and all of it is atomic.
        unsafe { self.map.start().cast::<Header>().as_ref() }
    }

    fn entries(&self) -> &[Entry; SLOTS as usize] {
        // SAFETY: the mapping is `SIZE` long, so this lies inside it.
        let start = unsafe { self.map.start().add(ENTRIES) };
        // SAFETY: from there on it holds exactly these entries, page-aligned; zeros are valid ones, and all of it is atomic.
        unsafe { start.cast::<[Entry; SLOTS as usize]>().as_ref() }
    }

    /// The table's descriptor, to be handed to another process.
    ///
    /// # Errors
    /// `EBADF` if the program closed it, or put another file in its place.
    pub(super) fn descriptor(&self) -> sys::Result<BorrowedFd<'_>> {
        let fd = self.fd.as_fd();
        if self.file.is_some() && fd::identity(fd) == self.file { Ok(fd) } else { Err(Errno::EBADF) }
    }

    /// Enters a process that `parent` asked for, and that the process of entry `maker` is about to make.
    pub(super) fn enter(&self, parent: Member, maker: Member) -> sys::Result<Member> {
        self.write()?;
        self.search(|slot, entry| Ok(entry.enter(slot, State::Alive, (Some(parent), maker.slot()))))
    }

    /// Enters this process, which no other one will report as ended.
    pub(super) fn enter_alone(&self) -> sys::Result<Member> {
        let fd = self.descriptor()?;
        self.write()?;
        process::at_exit(super::leaves);
        self.search(|slot, entry| {
            // First the lock, then the word: a process that sees the word and no lock knows that this one has ended.
            if !record_lock::take(fd, slot)? {
                return Ok(None);
            }
            let entered = entry.enter(slot, State::Alone, (None, slot));
            if entered.is_none() {
                record_lock::give_up(fd, slot);
            }
            Ok(entered)
        })
    }

    /// Tries `take` on one entry after the other that is not in use.
    fn search(&self, mut take: impl FnMut(u32, &Entry) -> sys::Result<Option<Member>>) -> sys::Result<Member> {
        // The second time round also those are asked about that have a maker which cannot have reported them.
        for thorough in [false, true] {
            for _ in 0..SLOTS {
                let slot = self.header().next.fetch_add(1, Relaxed) % SLOTS;
                let entry = self.entry(slot);
                let word = entry.look();
                let ask = word.is_living() && (thorough || word.state != State::Alive);
                let free =
                    if ask { !word.member(slot).is_some_and(|member| self.lives(member)) } else { !word.is_living() };
                if free && let Some(member) = take(slot, entry)? {
                    return Ok(member);
                }
            }
        }
        Err(Errno::EAGAIN)
    }

    pub(super) fn end(&self, member: Member, killed: bool) {
        if self.write().is_ok() {
            self.entry(member.slot()).end(member, killed, clock::coarse());
            self.header().ended.fetch_add(1, Release);
        }
    }

    pub(super) fn ended(&self) -> u64 {
        self.header().ended.load(Acquire)
    }

    /// This process, which its parent has entered as `own`, takes the record lock of its entry.
    pub(super) fn show(&self, own: Member) -> sys::Result<()> {
        let fd = self.descriptor()?;
        self.write()?;
        // A process that looks for a free entry has the lock for a moment.
        while !record_lock::take(fd, own.slot())? {
            std::thread::yield_now();
        }
        self.entry(own.slot()).show(own);
        Ok(())
    }

    pub(super) fn leave(&self, own: Member) {
        // Writes only if it is alone: then this process has entered itself, and so may write.
        self.entry(own.slot()).leave(own);
    }

    pub(super) fn lives(&self, member: Member) -> bool {
        entry::lives(self, member, clock::coarse())
    }

    pub(super) fn was_killed(&self, member: Member) -> bool {
        if self.lives(member) {
            return false;
        }
        let word = self.entry(member.slot()).look();
        word.is_of(member) && word.state == State::Killed
    }

    /// The living that `maker` made.
    pub(super) fn made_by(&self, maker: Member) -> Vec<Member> {
        let made = |word: &entry::Word| word.state == State::Alive && word.maker == maker.slot();
        let words = (0..SLOTS).map(|slot| (slot, self.entry(slot).look())).filter(|(_, word)| made(word));
        words.filter_map(|(slot, word)| word.member(slot)).filter(|member| *member != maker).collect()
    }
}

impl Book for Table {
    fn entry(&self, slot: u32) -> &Entry {
        &self.entries()[slot as usize]
    }

    fn may_write(&self) -> bool {
        self.write().is_ok()
    }

    fn is_locked(&self, slot: u32) -> bool {
        let now = clock::coarse() / u64::from(SLOTS) * u64::from(SLOTS) + u64::from(slot);
        // The kernel does not tell a process of its own locks.
        if super::known().is_some_and(|own| own.slot() == slot) || self.seen_locked.load(Relaxed) == now {
            return true;
        }
        let locked = record_lock::is_anothers(self.fd.as_fd(), slot).unwrap_or(true);
        if locked {
            self.seen_locked.store(now, Relaxed);
        }
        locked
    }
}
