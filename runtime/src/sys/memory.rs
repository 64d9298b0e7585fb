//! Memory without a name in any file system: `memfd_create(2)`, reserved, sealed, mapped.
//!
//! Owns: [`Map`], one mapping. Runs in: any process.
//! Invariant: memory is reserved before it is touched. `ftruncate` succeeds on a full tmpfs, and the touch is SIGBUS.
//!
//! Why a reservation from 64 MiB up is first compared with `MemAvailable`: a memfd has no size limit of its own. To
//! reserve more than the machine has ends in the kernel killing a process.
//!
//! Why long memory is reserved by touching it in one call (`MADV_POPULATE_WRITE`): the call fails where a touch would
//! be a `SIGBUS`. It gets huge pages where the system gives them to shared memory (`shmem_enabled`; many do not).
//! Without them it costs what `fallocate` does.
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

/// Seals that fix the size: no process can truncate the memory below another one's mapping.
const FIXED_SIZE: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW);

/// Creates memory of `len` bytes, all zero, reserved, and of fixed size.
pub(crate) fn create(name: &str, len: usize) -> nix::Result<OwnedFd> {
    create_in_part(name, len, len)
}

/// As [`create`], but only the first `reserved` bytes are reserved. The rest must not be touched before [`reserve`].
pub(crate) fn create_in_part(name: &str, len: usize, reserved: usize) -> nix::Result<OwnedFd> {
    let fd = sized(name, len)?;
    reserve(&fd, reserved)?;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(FIXED_SIZE))?;
    Ok(fd)
}

/// As [`create`], for large memory that is about to be written: mapped, and with huge pages where the system has them.
///
/// Reserved by touching it in one call (`MADV_POPULATE_WRITE`), which fails where a touch would be a SIGBUS.
pub(crate) fn create_huge(name: &str, len: usize) -> nix::Result<(OwnedFd, Map)> {
    if len < HUGE_PAGE_BYTES {
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
        // A kernel before 5.14 does not know it. A kernel without memory refuses again, with the right error.
        reserve(&fd, len)?;
    }
    fcntl(&fd, FcntlArg::F_ADD_SEALS(FIXED_SIZE))?;
    Ok((fd, map))
}

/// As [`create`], but empty, and of no fixed size yet: to be filled from the start by [`append`].
///
/// For memory that is written once and read often. It costs no page fault, and no page is zeroed just before it is
/// written.
pub(crate) fn create_empty(name: &str) -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    above_stdio(memfd_create(name, flags)?)
}

/// `pwrite(2)`, repeated: writes `bytes` at `at`, and so reserves memory for them.
///
/// Takes any memory, also the padding between fields of a value.
pub(crate) fn append(fd: BorrowedFd<'_>, at: usize, mut bytes: &[MaybeUninit<u8>]) -> nix::Result<()> {
    let end = at.checked_add(bytes.len()).ok_or(Errno::ENOMEM)?;
    check_available(end, bytes.len())?;
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
    check_available(len, len)?;
    let fd = create_empty(name)?;
    ftruncate(&fd, size)?;
    Ok(fd)
}

/// Refuses a file that would become `len` bytes long, `more` of them new, where the kernel would kill instead of refusing.
fn check_available(len: usize, more: usize) -> nix::Result<()> {
    check_file_size_limit(len)?;
    // A file that grows little by little is checked each time it crosses a multiple of this.
    let is_checked = len / LARGE_BYTES != len.saturating_sub(more) / LARGE_BYTES;
    // Workers free memory a little later than they reply.
    for _ in 0..10 {
        if !is_checked || available().is_none_or(|available| more.max(LARGE_BYTES) <= available) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Errno::ENOMEM)
}

/// Refuses a file that is longer than `RLIMIT_FSIZE` allows. Writing it would raise SIGXFSZ, which ends the process.
fn check_file_size_limit(len: usize) -> nix::Result<()> {
    let (longest, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
    if u64::try_from(len).is_ok_and(|len| len > longest) { Err(Errno::EFBIG) } else { Ok(()) }
}

/// Sets the size of memory that was filled by [`append`], and keeps its bytes.
pub(crate) fn resize(fd: BorrowedFd<'_>, len: usize) -> nix::Result<()> {
    check_available(len, 0)?;
    ftruncate(fd, libc::off_t::try_from(len).map_err(|_| Errno::ENOMEM)?)
}

/// Creates memory of `len` bytes and of fixed size, none of it reserved. It must be [reserved](reserve_part) before it is
/// touched.
///
/// # Errors
/// `EFBIG` if this process may not make files that long.
pub(crate) fn create_sparse(name: &str, len: usize) -> nix::Result<OwnedFd> {
    let size = libc::off_t::try_from(len).map_err(|_| Errno::EFBIG)?;
    check_file_size_limit(len)?;
    let fd = create_empty(name)?;
    ftruncate(&fd, size)?;
    seal_size(fd.as_fd())?;
    Ok(fd)
}

/// Reserves `len` bytes from `at`.
pub(crate) fn reserve_part(fd: BorrowedFd<'_>, at: usize, len: usize) -> nix::Result<()> {
    check_available(at.checked_add(len).ok_or(Errno::ENOMEM)?, len)?;
    reserve_range(fd, at, len)
}

/// Reserves the first `len` bytes.
fn reserve(fd: &OwnedFd, len: usize) -> nix::Result<()> {
    reserve_range(fd.as_fd(), 0, len)
}

fn reserve_range(fd: BorrowedFd<'_>, at: usize, len: usize) -> nix::Result<()> {
    let at = libc::off_t::try_from(at).map_err(|_| Errno::ENOMEM)?;
    let size = libc::off_t::try_from(len).map_err(|_| Errno::ENOMEM)?;
    let reserve = || fallocate(fd, FallocateFlags::empty(), at, size);
    match reserve() {
        // The kernel undoes all of it for a signal: under a flood of signals it would never finish.
        Err(Errno::EINTR) => {
            let before = signal::block_all();
            let reserved = retry(reserve);
            signal::set_mask(before);
            reserved
        }
        other => other,
    }
}

/// The usual size of a huge page.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// The size from which a reservation is first compared with [`available`]. A memfd has no limit of its own, and when more is
/// reserved than there is, the kernel kills a process.
const LARGE_BYTES: usize = 64 << 20;

/// Returns how many bytes the system and the control groups of this process have available, where they say.
fn available() -> Option<usize> {
    system_available().into_iter().chain(cgroup::memory_left()).min()
}

fn system_available() -> Option<usize> {
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

/// What the kernel says about memory that another process made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemfdInfo {
    /// Its size, which is fixed.
    pub(crate) len: usize,
    /// Whether no process can write to it any more.
    pub(crate) frozen: bool,
}

/// Inspects memory that another process made; refused unless its size is fixed.
pub(crate) fn inspect(fd: BorrowedFd<'_>) -> nix::Result<MemfdInfo> {
    let seals = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
    Ok(MemfdInfo { len: checked_len(fd)?, frozen: seals.contains(SealFlag::F_SEAL_WRITE) })
}

/// Returns the size of memory that another process made; refused unless its size is fixed.
pub(crate) fn checked_len(fd: BorrowedFd<'_>) -> nix::Result<usize> {
    let seals = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
    if !seals.contains(FIXED_SIZE) {
        return Err(Errno::EPERM);
    }
    usize::try_from(fstat(fd)?.st_size).map_err(|_| Errno::EINVAL)
}

/// As [`checked_len`], for memory that is reserved as a whole: it costs the sender as much as it can cost the receiver.
pub(crate) fn checked_len_present(fd: BorrowedFd<'_>) -> nix::Result<usize> {
    const BLOCK: u64 = 512;
    let len = checked_len(fd)?;
    let present = u64::try_from(fstat(fd)?.st_blocks).is_ok_and(|blocks| blocks.saturating_mul(BLOCK) >= len as u64);
    if present { Ok(len) } else { Err(Errno::ENODATA) }
}

/// `fallocate(FALLOC_FL_PUNCH_HOLE)`: frees the memory of `len` bytes from `at`, even where it is mapped.
///
/// They read as zero, but must not be touched before they are reserved again. If the kernel refuses, they stay.
pub(crate) fn punch_hole(fd: BorrowedFd<'_>, at: usize, len: usize) {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    if let (Ok(at), Ok(len)) = (libc::off_t::try_from(at), libc::off_t::try_from(len)) {
        let _ = retry(|| fallocate(fd, flags, at, len));
    }
}

/// The access of a mapping.
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

    /// Returns whether it can be written.
    pub(crate) fn is_writable(&self) -> bool {
        self.access == Access::Write
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }

    /// Maps the pages of the first `len` bytes, so that the first use takes no page fault. A kernel before 5.14 does nothing.
    pub(crate) fn populate(&self, len: usize) {
        let advice = match self.access {
            Access::Read | Access::Frozen => libc::MADV_POPULATE_READ,
            Access::Write => libc::MADV_POPULATE_WRITE,
        };
        // SAFETY: the range lies inside this mapping, and the advice does not change what it holds.
        let _ = unsafe { libc::madvise(self.start.as_ptr().cast(), len.min(self.len()), advice) };
    }

    /// `mprotect(2)`: lets this process only read it, or also write it. Slices that were borrowed stay valid for reading. A
    /// write to memory that is for reading is a fault in the thread that writes.
    pub(crate) fn protect(&self, access: Access) -> nix::Result<()> {
        let mut protection = ProtFlags::PROT_READ;
        protection.set(ProtFlags::PROT_WRITE, access == Access::Write);
        // SAFETY: the range is this mapping, which stays readable.
        unsafe { mprotect(self.start.cast(), self.len(), protection) }
    }

    /// Returns the first byte, aligned to a page.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Returns the bytes `at..at + len`, for reading in place.
    ///
    /// The caller guarantees, by the protocol that it follows, that no process writes there while the slice lives. The
    /// memory is mapped either way.
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

    /// Copies bytes out that another process may be writing at this moment. The caller must check them.
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

    /// Loads a number at a multiple of 8. It may be torn if another process is writing it.
    ///
    /// # Panics
    /// If it is not inside the mapping.
    #[inline]
    pub(crate) fn load_u64(&self, at: usize) -> u64 {
        self.atomic_at(at).load(Relaxed)
    }

    /// Stores a number at a multiple of 8; see [`load_u64`](Self::load_u64).
    ///
    /// # Panics
    /// If it is not inside the mapping, or the mapping is for reading.
    #[inline]
    pub(crate) fn store_u64(&self, at: usize, number: u64) {
        assert!(self.access == Access::Write, "this mapping is for reading");
        self.atomic_at(at).store(number, Relaxed);
    }

    /// Prefetches the cache line of `at` for writing.
    #[inline]
    pub(crate) fn prefetch_write(&self, at: usize) {
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
    fn atomic_at(&self, at: usize) -> &AtomicU64 {
        self.check(at, size_of::<u64>());
        assert!(at.is_multiple_of(size_of::<u64>()), "no number begins at {at}");
        // SAFETY: `check` keeps it inside the mapping.
        let number = unsafe { self.start.add(at) };
        // SAFETY: mapped as long as `self` lives, aligned, as the start of a mapping and `at` are, and any bytes are a number.
        unsafe { number.cast::<AtomicU64>().as_ref() }
    }

    /// Copies `bytes` into the mapping.
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

    /// Returns all bytes, for writing in place.
    ///
    /// # Panics
    /// If the mapping is for reading.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes_mut_from(0)
    }

    /// Returns all bytes from `at` on, for writing in place.
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

/// Asks for huge pages for the memory of a vector that is about to be filled.
pub(crate) fn prefer_huge_pages<T>(spare: &mut [std::mem::MaybeUninit<T>]) {
    let start = (spare.as_ptr() as usize).next_multiple_of(HUGE_PAGE_BYTES);
    let end = (spare.as_ptr() as usize + size_of_val(spare)) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if start < end {
        let address = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range lies inside `spare`, and the advice does not change what it holds.
        let _ = unsafe { libc::madvise(address, end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(test)]
mod tests;
