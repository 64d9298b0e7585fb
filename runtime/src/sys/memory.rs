//! Memory without a name in any file system: `memfd_create(2)`, reserved, sealed, mapped.
//!
//! Owns: [`Map`], one mapping. Runs in: any process.
//! Never: maps memory that was not reserved first. `ftruncate` succeeds on a full tmpfs, and the touch is SIGBUS.
#![expect(unsafe_code, reason = "mapping memory, and reading and writing what is mapped, through raw pointers")]

use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mprotect, munmap};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

use super::fd::above_stdio;
use super::{cgroup, retry, signal};

/// Seals that keep the size as it is: no process can truncate the memory below another one's mapping.
const FIXED_SIZE: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW);

/// Memory of `len` bytes, all zero, really there, and of fixed size.
pub(crate) fn create(name: &str, len: usize) -> nix::Result<OwnedFd> {
    create_in_part(name, len, len)
}

/// As [`create`], but only the first `reserved` bytes are really there. The rest must not be touched before [`reserve`].
pub(crate) fn create_in_part(name: &str, len: usize, reserved: usize) -> nix::Result<OwnedFd> {
    let fd = sized(name, len)?;
    reserve(&fd, reserved)?;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(FIXED_SIZE))?;
    Ok(fd)
}

/// As [`create`], for much memory that is about to be written: with huge pages where the system has them, and mapped.
///
/// Reserved by touching it in one call (`MADV_POPULATE_WRITE`), which fails where a touch would be a SIGBUS.
pub(crate) fn create_much(name: &str, len: usize) -> nix::Result<(OwnedFd, Map)> {
    if len < HUGE {
        let fd = create(name, len)?;
        let map = Map::new(fd.as_fd(), len, Access::Write)?;
        return Ok((fd, map));
    }
    let fd = sized(name, len)?;
    let map = Map::new(fd.as_fd(), len, Access::Write)?;
    let (start, len) = (map.start.as_ptr().cast(), map.len());
    // SAFETY: the range is this mapping, and the advice does not change what it holds.
    let _ = unsafe { libc::madvise(start, len, libc::MADV_HUGEPAGE) };
    // SAFETY: as above.
    if unsafe { libc::madvise(start, len, libc::MADV_POPULATE_WRITE) } != 0 {
        // A kernel before 5.14 does not know it; one without memory refuses again, in its own words.
        reserve(&fd, len)?;
    }
    fcntl(&fd, FcntlArg::F_ADD_SEALS(FIXED_SIZE))?;
    Ok((fd, map))
}

/// As [`create`], to be filled from the start by [`append`]: empty, and of no fixed size yet.
///
/// The way to memory that is written once and read often: it costs no page fault, and no page is zeroed only to be
/// written at once.
pub(crate) fn create_empty(name: &str) -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    above_stdio(memfd_create(name, flags)?)
}

/// `pwrite(2)`, whole: puts `bytes` at `at`, with memory below them that is really there.
///
/// Takes any memory, also what lies between the fields of a value: the kernel does not ask what bytes mean.
pub(crate) fn append(fd: BorrowedFd<'_>, at: usize, mut bytes: &[MaybeUninit<u8>]) -> nix::Result<()> {
    let end = at.checked_add(bytes.len()).ok_or(Errno::ENOMEM)?;
    may_have(end, bytes.len())?;
    while !bytes.is_empty() {
        let offset = libc::off_t::try_from(end - bytes.len()).map_err(|_| Errno::ENOMEM)?;
        let (from, len) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: the range is borrowed across the call, and the kernel may read bytes that are no value.
        let written = retry(|| Errno::result(unsafe { libc::pwrite(fd.as_raw_fd(), from, len, offset) }))?;
        let written = usize::try_from(written).ok().filter(|written| *written > 0).ok_or(Errno::ENOSPC)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

fn sized(name: &str, len: usize) -> nix::Result<OwnedFd> {
    let size = libc::off_t::try_from(len).map_err(|_| Errno::ENOMEM)?;
    may_have(len, len)?;
    let fd = create_empty(name)?;
    ftruncate(&fd, size)?;
    Ok(fd)
}

/// Refuses a file that would become `len` bytes long, `more` of them new, where the kernel would not refuse but kill.
fn may_have(len: usize, more: usize) -> nix::Result<()> {
    may_be_long(len)?;
    // What grows little by little is asked about every so often.
    let asked_about = len / LARGE != len.saturating_sub(more) / LARGE;
    // Workers let go of what they had a little later than they answer.
    for _ in 0..10 {
        if !asked_about || available().is_none_or(|available| more.max(LARGE) <= available) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Errno::ENOMEM)
}

/// A process that makes a file longer than it may be gets SIGXFSZ, which ends it.
fn may_be_long(len: usize) -> nix::Result<()> {
    let (longest, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
    if u64::try_from(len).is_ok_and(|len| len > longest) { Err(Errno::EFBIG) } else { Ok(()) }
}

/// Sets the size of memory that was filled by [`append`], which does not cost it any of its bytes.
pub(crate) fn resize(fd: BorrowedFd<'_>, len: usize) -> nix::Result<()> {
    may_have(len, 0)?;
    ftruncate(fd, libc::off_t::try_from(len).map_err(|_| Errno::ENOMEM)?)
}

/// Memory of `len` bytes and of fixed size, of which nothing is there: what is to be touched must be [reserved](reserve_part).
///
/// # Errors
/// `EFBIG` if this process may not make files that long.
pub(crate) fn create_sparse(name: &str, len: usize) -> nix::Result<OwnedFd> {
    let size = libc::off_t::try_from(len).map_err(|_| Errno::EFBIG)?;
    may_be_long(len)?;
    let fd = create_empty(name)?;
    ftruncate(&fd, size)?;
    seal_size(fd.as_fd())?;
    Ok(fd)
}

/// Makes sure that `len` bytes from `at` are there.
pub(crate) fn reserve_part(fd: BorrowedFd<'_>, at: usize, len: usize) -> nix::Result<()> {
    may_have(at.checked_add(len).ok_or(Errno::ENOMEM)?, len)?;
    reserve_range(fd, at, len)
}

/// `fallocate(FALLOC_FL_PUNCH_HOLE)`: gives the memory of `len` bytes from `at` back. They read as zero, but are not to be touched
/// before they are reserved again. Should the kernel refuse, they stay.
pub(crate) fn give_back_part(fd: BorrowedFd<'_>, at: usize, len: usize) {
    let (Ok(at), Ok(len)) = (libc::off_t::try_from(at), libc::off_t::try_from(len)) else { return };
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let _ = retry(|| fallocate(fd, hole, at, len));
}

/// Makes sure that the first `len` bytes are there.
fn reserve(fd: &OwnedFd, len: usize) -> nix::Result<()> {
    reserve_range(fd.as_fd(), 0, len)
}

fn reserve_range(fd: BorrowedFd<'_>, at: usize, len: usize) -> nix::Result<()> {
    let at = libc::off_t::try_from(at).map_err(|_| Errno::ENOMEM)?;
    let size = libc::off_t::try_from(len).map_err(|_| Errno::ENOMEM)?;
    let reserve = || fallocate(fd, FallocateFlags::empty(), at, size);
    match reserve() {
        // The kernel undoes all of it for a signal: under a flood of them it would never come to its end.
        Err(Errno::EINTR) => {
            let before = signal::block_all();
            let reserved = retry(reserve);
            signal::set_mask(before);
            reserved
        }
        other => other,
    }
}

/// The size of a huge page, the usual one.
const HUGE: usize = 2 << 20;

/// From this size on, a reservation is first compared with [`available`]: a memfd has no limit of its own, and reserving
/// more than there is ends in the kernel killing a process.
const LARGE: usize = 64 << 20;

/// How many bytes the system, and the control groups of this process, could give out now, as far as they say.
fn available() -> Option<usize> {
    of_the_system().into_iter().chain(cgroup::memory_left()).min()
}

fn of_the_system() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// Refuses every writable mapping from now on; those that exist stay. The seals themselves are sealed, too.
pub(crate) fn seal_future_writes(fd: BorrowedFd<'_>) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL)).map(drop)
}

/// Fixes the size of memory, which stays writable.
pub(crate) fn seal_size(fd: BorrowedFd<'_>) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(FIXED_SIZE)).map(drop)
}

/// Refuses every other seal from now on: no process can stop others from writing.
pub(crate) fn seal_seals(fd: BorrowedFd<'_>) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SEAL)).map(drop)
}

/// Refuses every write from now on, by any process and for good.
///
/// # Errors
/// - `EBUSY`: some process, perhaps this one, maps it for writing. Nothing is sealed then.
pub(crate) fn seal_writes(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let seals = FIXED_SIZE | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals)).map(drop)
}

/// What the kernel says of memory that another process made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Its size, which is fixed.
    pub(crate) len: usize,
    /// Whether no process can write to it any more.
    pub(crate) frozen: bool,
}

/// Looks at memory that another process made; refused unless its size is fixed.
pub(crate) fn look(fd: BorrowedFd<'_>) -> nix::Result<Seen> {
    let seals = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
    Ok(Seen { len: checked_len(fd)?, frozen: seals.contains(SealFlag::F_SEAL_WRITE) })
}

/// How many bytes can be mapped of memory that another process made; refused unless its size is fixed.
pub(crate) fn checked_len(fd: BorrowedFd<'_>) -> nix::Result<usize> {
    let seals = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
    if !seals.contains(FIXED_SIZE) {
        return Err(Errno::EPERM);
    }
    usize::try_from(fstat(fd)?.st_size).map_err(|_| Errno::EINVAL)
}

/// As [`checked_len`], of memory all of which is really there: it costs the sender as much as it can cost the receiver.
pub(crate) fn checked_len_present(fd: BorrowedFd<'_>) -> nix::Result<usize> {
    const BLOCK: u64 = 512;
    let len = checked_len(fd)?;
    let present = u64::try_from(fstat(fd)?.st_blocks).is_ok_and(|blocks| blocks.saturating_mul(BLOCK) >= len as u64);
    if present { Ok(len) } else { Err(Errno::ENODATA) }
}

/// `fallocate(FALLOC_FL_PUNCH_HOLE)`: gives back the memory from `at` on, even where it is mapped.
pub(crate) fn give_back(fd: BorrowedFd<'_>, at: usize, len: usize) {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    if let (Ok(at), Ok(len)) = (libc::off_t::try_from(at), libc::off_t::try_from(len)) {
        let _ = retry(|| fallocate(fd, flags, at, len));
    }
}

/// What a mapping may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
    /// For reading memory that no process can write to any more.
    Frozen,
}

impl Access {
    fn protection(self) -> ProtFlags {
        match self {
            Self::Read | Self::Frozen => ProtFlags::PROT_READ,
            Self::Write => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        }
    }

    /// Frozen memory is mapped privately, which is the same memory, because no page of it is ever copied: kernels before
    /// 6.7 refuse to share what is sealed against writing, even for reading.
    fn flags(self) -> MapFlags {
        match self {
            Self::Read | Self::Write => MapFlags::MAP_SHARED,
            Self::Frozen => MapFlags::MAP_PRIVATE,
        }
    }
}

/// A mapping of a whole memfd, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Map {
    start: NonNull<u8>,
    len: NonZeroUsize,
    access: Access,
}

// SAFETY: a mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Map {}
// SAFETY: the methods that write are used under the rules of `shared::MappedHeader` and `link::parcel`, which say which process may
// write where.
unsafe impl Sync for Map {}

impl Map {
    /// `mmap(MAP_SHARED)` of the first `len` bytes of `fd`.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize, access: Access) -> nix::Result<Self> {
        Self::at(fd, 0, len, access)
    }

    /// `mmap(MAP_SHARED)` of `len` bytes of `fd` from `at`, a multiple of a page, for reading and writing. No part of a core
    /// dump: it may be long, and be there in part only.
    pub(crate) fn part(fd: BorrowedFd<'_>, at: usize, len: usize) -> nix::Result<Self> {
        let map = Self::at(fd, at, len, Access::Write)?;
        // SAFETY: the range is this mapping, and the advice does not change what it holds.
        let _ = unsafe { libc::madvise(map.start.as_ptr().cast(), map.len(), libc::MADV_DONTDUMP) };
        Ok(map)
    }

    fn at(fd: BorrowedFd<'_>, at: usize, len: usize, access: Access) -> nix::Result<Self> {
        let len = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let at = libc::off_t::try_from(at).map_err(|_| Errno::EINVAL)?;
        // SAFETY: no address is asked for, so no mapping that exists is replaced.
        let start = unsafe { mmap(None, len, access.protection(), access.flags(), fd, at) }?;
        Ok(Self { start: start.cast(), len, access })
    }

    /// Whether it can be written through.
    pub(crate) fn is_writable(&self) -> bool {
        self.access == Access::Write
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }

    /// Makes the first `len` bytes present, so that the first use does not have to. A kernel before 5.14 does not.
    pub(crate) fn touch(&self, len: usize) {
        let advice = match self.access {
            Access::Read | Access::Frozen => libc::MADV_POPULATE_READ,
            Access::Write => libc::MADV_POPULATE_WRITE,
        };
        // SAFETY: the range lies inside this mapping, and the advice does not change what it holds.
        let _ = unsafe { libc::madvise(self.start.as_ptr().cast(), len.min(self.len()), advice) };
    }

    /// `mprotect(2)`: from now on, this process may only read it, or also write it. What was borrowed of it stays valid for
    /// reading; a write to memory that is for reading is a fault in the thread that writes.
    pub(crate) fn protect(&self, access: Access) -> nix::Result<()> {
        let mut protection = ProtFlags::PROT_READ;
        protection.set(ProtFlags::PROT_WRITE, access == Access::Write);
        // SAFETY: the range is this mapping, which stays readable.
        unsafe { mprotect(self.start.cast(), self.len(), protection) }
    }

    /// The first byte. Aligned to a page.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The bytes `at..at + len`, for reading in place.
    ///
    /// The caller vouches, by the protocol that it follows, that no process writes there while the slice lives; the memory
    /// is there either way.
    ///
    /// # Panics
    /// If the range is not inside the mapping.
    pub(crate) fn lend(&self, at: usize, len: usize) -> &[u8] {
        self.check(at, len);
        // SAFETY: `check` keeps the range inside the mapping.
        let start = unsafe { self.start.add(at) };
        // SAFETY: the range is mapped and readable as long as `self` lives; any bytes are valid `u8`s.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// Copies bytes out that another process may be writing at this moment: the caller has to check what arrives.
    ///
    /// # Panics
    /// If the range is not inside the mapping.
    pub(crate) fn read(&self, at: usize, into: &mut [u8]) {
        self.check(at, into.len());
        // SAFETY: `check` keeps the range inside the mapping.
        let from = unsafe { self.start.add(at) };
        // SAFETY: both ranges are valid for their length, and `into` is no part of a shared mapping.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) };
    }

    /// A number that lies there, at a multiple of 8, or half of one number and half of another if it is being written.
    ///
    /// # Panics
    /// If it is not inside the mapping.
    #[inline]
    pub(crate) fn number(&self, at: usize) -> u64 {
        self.number_at(at).load(Relaxed)
    }

    /// Writes a number there; as [`number`](Self::number).
    ///
    /// # Panics
    /// If it is not inside the mapping, or the mapping is for reading.
    #[inline]
    pub(crate) fn set_number(&self, at: usize, number: u64) {
        assert!(self.access == Access::Write, "this mapping is for reading");
        self.number_at(at).store(number, Relaxed);
    }

    /// Says that what stands there is about to be written, so that the processor has it when it is.
    #[inline]
    pub(crate) fn expect_write(&self, at: usize) {
        if at < self.len() {
            // SAFETY: inside the mapping.
            let there = unsafe { self.start.add(at) };
            // SAFETY: a hint, which changes no register and no memory, and never faults.
            unsafe {
                std::arch::asm!("prefetchw [{}]", in(reg) there.as_ptr(), options(nostack, preserves_flags, readonly));
            }
        }
    }

    #[inline]
    fn number_at(&self, at: usize) -> &AtomicU64 {
        self.check(at, size_of::<u64>());
        assert!(at.is_multiple_of(size_of::<u64>()), "no number begins at {at}");
        // SAFETY: `check` keeps it inside the mapping.
        let number = unsafe { self.start.add(at) };
        // SAFETY: mapped as long as `self` lives, aligned, as the start of a mapping and `at` are, and any bytes are a number.
        unsafe { number.cast::<AtomicU64>().as_ref() }
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// If the range is not inside the mapping, or the mapping is for reading.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len());
        assert_eq!(self.access, Access::Write, "this mapping is for reading");
        // SAFETY: `check` keeps the range inside the mapping.
        let to = unsafe { self.start.add(at) };
        // SAFETY: both ranges are valid for their length, the mapping is writable, and `bytes` is no part of it that
        // is written at the same time: the caller's protocol gives each range one writer.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
    }

    /// All bytes, for writing in place.
    ///
    /// # Panics
    /// If the mapping is for reading.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes_mut_from(0)
    }

    /// All bytes from `at` on, for writing in place.
    ///
    /// # Panics
    /// If the mapping is for reading, or ends before `at`.
    pub(crate) fn bytes_mut_from(&mut self, at: usize) -> &mut [u8] {
        self.check(at, 0);
        assert_eq!(self.access, Access::Write, "this mapping is for reading");
        // SAFETY: `check` keeps it inside the mapping.
        let start = unsafe { self.start.add(at) };
        // SAFETY: the range is readable and writable, borrowed mutably here, and given to no other process before it is
        // filled: the parcel's owner hands it on only afterwards.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.len() - at) }
    }

    #[inline]
    fn check(&self, at: usize, len: usize) {
        assert!(at <= self.len() && len <= self.len() - at, "{at}+{len} lies outside a mapping of {}", self.len);
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and every slice of it borrowed the value.
        let _ = unsafe { munmap(self.start.cast(), self.len()) };
    }
}

/// Asks for huge pages below the memory of a vector that is about to be filled.
pub(crate) fn prefer_huge_pages<T>(spare: &mut [std::mem::MaybeUninit<T>]) {
    let start = (spare.as_ptr() as usize).next_multiple_of(HUGE);
    let end = (spare.as_ptr() as usize + size_of_val(spare)) / HUGE * HUGE;
    if start < end {
        let address = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range lies inside `spare`, and the advice does not change what it holds.
        let _ = unsafe { libc::madvise(address, end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(test)]
mod tests;
