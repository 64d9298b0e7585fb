//! A region: memory that several processes map, with a header that describes it, then values.
//!
//! Owns: the header's layout, and the regions that this process maps. A [`Region`] is written by a [`RegionWriter`], or opened
//! by a descriptor that another process sent. Runs in: any process.
//! Invariant: a region has no name in any file system, so the kernel frees it when the last process drops it, however that
//! process ends.
//!
//! Why frozen memory is mapped privately: it is the same memory, since no process writes. Kernels before 6.7 refuse
//! to share what is sealed against writing.
//!
//! Why the kernel's seal, and no word of ours, is the proof that a region is frozen: the kernel answers `EBUSY` while
//! any process can write. What our own memory says about writers would prove nothing.
//!
//! # The life of a region
//!
//! | what it holds | how it is made | then |
//! |---|---|---|
//! | values that do not change ([`Shareable::FROZEN`]) | written by `write(2)`, never mapped for writing | sealed against writing, by any process, for good |
//! | values that change through `&` | the same | its size is sealed; mapped for writing by all |
//! | [`SharedMut`](super::SharedMut) | the same, or all zero | mapped for writing by one process, until it is frozen or split |
//!
//! All of its memory is reserved before any process touches it, so a touch is never a SIGBUS. The kernel refuses to seal what is still
//! mapped for writing, so a region that is frozen has no writer left; that is why `&` to it can be handed out.
//!
//! Mapping a region touches its first page only: the kernel maps sixteen at a time when they are used. Mapping all of them
//! beforehand (`MADV_POPULATE_READ`) took as long, or longer.
//!
//! # The header
//!
//! Written before the region is shared, and read once by each process that gets it: [`RegionHeader`]. The values begin behind
//! it, at a multiple of their alignment.
#![expect(unsafe_code, reason = "the address of values in mapped memory")]

use std::any::{TypeId, type_name};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::codec::CodecError;
use crate::codec::handles::Handle;
use crate::error::{Error, Result};
use crate::shared::{MappingCache, Shareable, proc_table};
use crate::sys;
use crate::sys::fd::{self, FileId};
use crate::sys::memory::{self, Access, Map};

/// The first word of every header.
const MAGIC: u64 = u64::from_ne_bytes(*b"ptregion");

/// The name of regions in `/proc/<pid>/maps`.
const MEMFD_NAME: &str = "process-task-shared";

/// Size of a header. Values with a stricter alignment begin at the first multiple of that.
const HEADER_BYTES: usize = size_of::<RegionHeader>();

/// The strictest alignment of mapped memory: duty 4 of [`Shareable`].
const PAGE_BYTES: usize = 4096;

/// Describes a region. It holds numbers, no addresses, so it means the same in every process.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct RegionHeader {
    magic: u64,
    /// Of the type of the whole: see [`RegionType`].
    fingerprint: [u64; 2],
    /// Bytes of one value.
    size: u64,
    /// Number of values.
    count: u64,
    /// Where they begin.
    offset: u64,
    /// Device and number of the region that has the locks for the ranges of this one; zero where there is none.
    locks: [u64; 2],
    /// Number of values in each range but the last.
    range: u64,
    /// The type's name, for messages, padded with zeroes.
    name: [u8; 184],
}

// SAFETY: numbers, for which zero is a value.
unsafe impl bytemuck::Zeroable for RegionHeader {}
// SAFETY: numbers, and nothing between them: the sizes of the fields add up to that of the whole.
unsafe impl bytemuck::Pod for RegionHeader {}
const _: () = assert!(HEADER_BYTES == 9 * size_of::<u64>() + 184 && HEADER_BYTES == 256);

/// The type of a region's content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionType {
    /// The type's hash: one for each type of this program, which is the same program in every process of the tree.
    fingerprint: [u64; 2],
    name: &'static str,
    size: usize,
    align: usize,
    /// [`Shareable::FROZEN`].
    frozen: bool,
}

impl RegionType {
    /// Returns the type of regions that hold a `T`, made of some number of values of type `E`.
    pub(crate) fn of<T: Shareable + ?Sized, E: Shareable>() -> Self {
        const {
            assert!(!std::mem::needs_drop::<E>(), "a type with a destructor cannot live in shared memory");
            assert!(align_of::<E>() <= PAGE_BYTES, "a type with an alignment above 4,096 cannot live in shared memory");
        }
        let hash = |salt: &str| {
            let mut hasher = DefaultHasher::new();
            (TypeId::of::<T>(), salt).hash(&mut hasher);
            hasher.finish()
        };
        Self {
            fingerprint: [hash(""), hash(type_name::<T>())],
            name: type_name::<T>(),
            size: size_of::<E>(),
            align: align_of::<E>(),
            frozen: T::FROZEN,
        }
    }

    /// The type's name, for messages.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    fn offset(&self) -> usize {
        HEADER_BYTES.max(self.align)
    }

    fn header(&self, count: usize) -> RegionHeader {
        let mut name = [0; 184];
        name.iter_mut().zip(self.name.bytes()).for_each(|(to, byte)| *to = byte);
        RegionHeader {
            magic: MAGIC,
            fingerprint: self.fingerprint,
            size: self.size as u64,
            count: count as u64,
            offset: self.offset() as u64,
            locks: [0; 2],
            range: 0,
            name,
        }
    }

    /// Returns the size of memory for `count` values.
    fn len(&self, count: usize) -> Result<usize> {
        let bytes = self.size.checked_mul(count).filter(|bytes| isize::try_from(*bytes).is_ok());
        let len = bytes.and_then(|bytes| bytes.checked_add(self.offset()));
        len.ok_or_else(|| self.refused(&format!("reserve {} bytes, {count} times,", self.size), sys::Errno::ENOMEM))
    }

    #[cold]
    fn refused(&self, step: &str, errno: sys::Errno) -> Error {
        Error::cannot_share(format!("{step} for `{}`", self.name), errno)
    }
}

/// A region, and this process's mapping of it.
pub(crate) struct Region {
    descriptor: OwnedFd,
    map: Map,
    header: RegionHeader,
    identity: FileId,
}

impl Region {
    /// Memory for `count` values of zero bytes only.
    pub(crate) fn zeroed(ty: RegionType, count: usize, access: Access) -> Result<Self> {
        let len = ty.len(count)?;
        let refused = |errno| ty.refused(&format!("reserve {len} bytes"), errno);
        let descriptor = memory::create(MEMFD_NAME, len).map_err(refused)?;
        RegionWriter { ty, descriptor, count, end: len }.finish(access)
    }

    /// Opens a region by a descriptor from another process. Returns the mapping of this process, or makes one.
    pub(crate) fn open(descriptor: OwnedFd) -> std::result::Result<Arc<Self>, CodecError> {
        let corrupt =
            || CodecError::new("the payload is corrupt: what came with it is no shared memory of this program");
        let identity = fd::file_id(descriptor.as_fd()).ok_or_else(corrupt)?;
        REGIONS.find_or_insert(identity, || Self::map(descriptor, identity))
    }

    fn map(descriptor: OwnedFd, identity: FileId) -> std::result::Result<Self, CodecError> {
        let corrupt =
            || CodecError::new("the payload is corrupt: what came with it is no shared memory of this program");
        let seen = memory::inspect(descriptor.as_fd()).map_err(|_| corrupt())?;
        if seen.len < HEADER_BYTES {
            return Err(corrupt());
        }
        let access = if seen.frozen { Access::Frozen } else { Access::Write };
        let map = Map::new(descriptor.as_fd(), seen.len, access).map_err(|errno| {
            CodecError::new(format!("cannot map {} bytes of shared memory: {}", seen.len, errno.desc()))
        })?;
        let mut header: RegionHeader = bytemuck::Zeroable::zeroed();
        map.read(0, bytemuck::bytes_of_mut(&mut header));
        let end = header.size.checked_mul(header.count).and_then(|bytes| bytes.checked_add(header.offset));
        let fits = end.is_some_and(|end| end <= seen.len as u64);
        if header.magic != MAGIC || header.offset < HEADER_BYTES as u64 || !fits {
            return Err(corrupt());
        }
        Ok(Self { descriptor, map, header, identity })
    }

    /// Adds this region to the cache, so that a handle of it that arrives later finds it.
    pub(crate) fn publish(self) -> Arc<Self> {
        REGIONS.insert(self.identity, Arc::new(self))
    }

    /// Checks that it holds a `ty`, and that it is frozen if and only if `ty` is.
    pub(crate) fn check(&self, ty: &RegionType) -> std::result::Result<(), CodecError> {
        self.check_type(ty)?;
        if ty.frozen == self.map.is_writable() {
            return Err(self.type_mismatch(&format!("{}` that no process can write, `Shared<{}>", ty.name, ty.name)));
        }
        Ok(())
    }

    /// Checks that it holds a `ty`, that it can still be written, and that it has these locks.
    pub(crate) fn check_ranges(&self, ty: &RegionType, locks: &Self) -> std::result::Result<(), CodecError> {
        self.check_type(ty)?;
        let expected = (locks_of(locks.identity), self.count().div_ceil(self.range()));
        if !self.map.is_writable() || expected != (self.header.locks, locks.count()) {
            return Err(self.type_mismatch(&format!("SharedRanges<{}>", ty.name)));
        }
        Ok(())
    }

    fn check_type(&self, ty: &RegionType) -> std::result::Result<(), CodecError> {
        let RegionHeader { locks, range, .. } = self.header;
        let expected = RegionHeader { locks, range, ..ty.header(self.count()) };
        if expected == self.header { Ok(()) } else { Err(self.type_mismatch(ty.name)) }
    }

    /// Writes into the header that each `range` values have a lock in the region `locks`.
    ///
    /// The caller owns the region alone.
    pub(crate) fn split(&mut self, range: usize, locks: FileId) {
        self.header.range = range as u64;
        self.header.locks = locks_of(locks);
        self.map.write(0, bytemuck::bytes_of(&self.header));
    }

    /// Returns the number of values in each range but the last; at least one.
    pub(crate) fn range(&self) -> usize {
        usize::try_from(self.header.range).unwrap_or(usize::MAX).max(1)
    }

    /// Returns whether this process can write to it.
    pub(crate) fn is_writable(&self) -> bool {
        self.map.is_writable()
    }

    /// Seals it against writing. Only the last holder, in the last process, can: others get it back with the error.
    ///
    /// A region that comes back cannot be written any more if the kernel refuses even to map it again.
    pub(crate) fn freeze(this: Arc<Self>) -> std::result::Result<Arc<Self>, (sys::Errno, Arc<Self>)> {
        let mut region = Arc::try_unwrap(this).map_err(|this| (sys::Errno::EBUSY, this))?;
        let frozen = Map::new(region.descriptor.as_fd(), region.map.len(), Access::Frozen);
        let sealed = frozen.and_then(|frozen| {
            region.map = frozen;
            memory::seal_writes(region.descriptor.as_fd())
        });
        if sealed.is_err()
            && let Ok(map) = Map::new(region.descriptor.as_fd(), region.map.len(), Access::Write)
        {
            region.map = map;
        }
        // From now on it lies elsewhere; and a region that only its owner could use can be shared.
        let region = region.publish();
        sealed.map_or_else(|errno| Err((errno, Arc::clone(&region))), |()| Ok(Arc::clone(&region)))
    }

    #[cold]
    pub(crate) fn type_mismatch(&self, read_as: &str) -> CodecError {
        let of = &self.header.name;
        let name = String::from_utf8_lossy(of.split(|byte| *byte == 0).next().unwrap_or_default());
        CodecError::new(format!("a handle of `{name}` was read as one of `{read_as}`"))
    }

    /// Returns where the values are.
    pub(crate) fn values(&self) -> NonNull<u8> {
        let offset = usize::try_from(self.header.offset).unwrap_or(HEADER_BYTES);
        debug_assert!(offset <= self.map.len(), "checked when it was made or opened");
        // SAFETY: the header was checked, or written, to keep the offset inside the mapping, or at its end.
        unsafe { self.map.start().add(offset) }
    }

    /// Returns the number of values.
    pub(crate) fn count(&self) -> usize {
        // It fit when the header was checked or written.
        usize::try_from(self.header.count).unwrap_or(0)
    }

    /// Returns the identity of its file.
    pub(crate) fn identity(&self) -> FileId {
        self.identity
    }
}

/// Returns how a header names the region of locks.
fn locks_of((device, number, _): FileId) -> [u64; 2] {
    [device, number]
}

impl Handle for Region {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Frozen memory may be cached: which processes map it makes no difference, but for when it is freed.
    fn is_cacheable(&self) -> bool {
        !self.map.is_writable()
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("bytes", &self.map.len()).finish_non_exhaustive()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        REGIONS.remove(&self.identity, self);
    }
}

/// The regions that this process maps and can share. A region that arrives twice is mapped once.
static REGIONS: MappingCache<Region> = MappingCache::new();

/// A region that is being written, from its first value to its last. No process maps it yet.
#[derive(Debug)]
pub(crate) struct RegionWriter {
    ty: RegionType,
    descriptor: OwnedFd,
    count: usize,
    end: usize,
}

impl RegionWriter {
    pub(crate) fn new(ty: RegionType) -> Result<Self> {
        let descriptor = memory::create_empty(MEMFD_NAME).map_err(|errno| ty.refused("make a memfd", errno))?;
        Ok(Self { ty, descriptor, count: 0, end: ty.offset() })
    }

    /// Appends values as the bytes that they are.
    pub(crate) fn append<E: Shareable>(&mut self, values: &[E]) -> Result<()> {
        debug_assert_eq!(size_of::<E>(), self.ty.size);
        let count = self.count.saturating_add(values.len());
        let end = self.ty.len(count)?;
        // SAFETY: the same memory, as bytes that need not be initialized. The values are borrowed for the call, and what
        // other threads change through `&` changes nothing but which bytes are copied.
        let bytes =
            unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<MaybeUninit<u8>>(), size_of_val(values)) };
        memory::append(self.descriptor.as_fd(), self.end, bytes)
            .map_err(|errno| self.ty.refused(&format!("reserve {end} bytes"), errno))?;
        (self.count, self.end) = (count, end);
        Ok(())
    }

    /// Writes the header, seals, and maps. [`Access::Frozen`]: no process can write to it from now on.
    pub(crate) fn finish(self, access: Access) -> Result<Region> {
        let Self { ty, descriptor, count, end } = self;
        let header = ty.header(count);
        let memory = descriptor.as_fd();
        if !ty.frozen {
            // Values that change may be locked, and the process that locks them must be registered.
            proc_table::prepare().map_err(|errno| ty.refused("register this process in the process table", errno))?;
        }
        let map = || {
            let bytes = bytemuck::cast::<RegionHeader, [u8; HEADER_BYTES]>(header);
            memory::append(memory, 0, &bytes.map(MaybeUninit::new))?;
            if ty.size * count == 0 {
                memory::resize(memory, end)?;
            }
            match access {
                Access::Frozen => memory::seal_writes(memory)?,
                Access::Read | Access::Write => memory::seal_size(memory)?,
            }
            if !ty.frozen {
                memory::seal_seals(memory)?;
            }
            Map::new(memory, end, access)
        };
        let map = map().map_err(|errno| ty.refused(&format!("map {end} bytes"), errno))?;
        let identity = fd::file_id(memory).ok_or_else(|| ty.refused("see the memory", sys::Errno::EBADF))?;
        Ok(Region { descriptor, map, header, identity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(header: RegionHeader, len: usize) -> OwnedFd {
        let descriptor = memory::create("test", len).unwrap();
        let bytes = bytemuck::cast::<RegionHeader, [u8; HEADER_BYTES]>(header).map(MaybeUninit::new);
        memory::append(descriptor.as_fd(), 0, &bytes[..len.min(HEADER_BYTES)]).unwrap();
        descriptor
    }

    #[test]
    fn memory_that_is_no_region_is_refused() {
        let ty = RegionType::of::<[u64], u64>();
        let good = ty.header(10);
        let region = Region::open(memory(good, HEADER_BYTES + 80)).unwrap();
        assert_eq!((region.count(), region.check_type(&ty).is_ok()), (10, true));
        let refused = |header, len| Region::open(memory(header, len)).unwrap_err().to_string();
        for (header, len) in [
            (good, HEADER_BYTES - 1),
            (good, HEADER_BYTES + 79),
            (RegionHeader { magic: 0, ..good }, 4096),
            (RegionHeader { offset: 0, ..good }, 4096),
            (RegionHeader { offset: u64::MAX - 79, ..good }, 4096),
            (RegionHeader { count: u64::MAX / 8 + 1, ..good }, 4096),
            (RegionHeader { count: 1 << 62, ..good }, 4096),
        ] {
            assert!(refused(header, len).contains("no shared memory of this program"), "{len}");
        }
        let no_size = memory::create_empty("test").unwrap();
        assert!(Region::open(no_size).is_err());
        assert!(Region::open(fd::dev_null().unwrap()).is_err());
    }

    #[test]
    fn region_that_arrives_twice_is_mapped_once() {
        let descriptor = memory(RegionType::of::<u64, u64>().header(1), 4096);
        let again = || fd::duplicate(descriptor.as_fd()).unwrap();
        let first = Region::open(again()).unwrap();
        let address = first.values();
        assert!(Arc::ptr_eq(&first, &Region::open(again()).unwrap()));
        let identity = first.identity();
        drop(first);
        assert!(!REGIONS.contains(&identity), "it was dropped, so it is not cached");
        let later = Region::open(again()).unwrap();
        assert!(later.check(&RegionType::of::<u64, u64>()).is_err(), "it is not frozen; it was at {address:?}");
    }

    #[test]
    fn different_types_have_different_fingerprints() {
        let types = [
            RegionType::of::<u64, u64>(),
            RegionType::of::<[u64], u64>(),
            RegionType::of::<[u64; 1], [u64; 1]>(),
            RegionType::of::<i64, i64>(),
            RegionType::of::<(u64,), (u64,)>(),
        ];
        for (at, ty) in types.iter().enumerate() {
            assert!(types[..at].iter().all(|other| other.fingerprint != ty.fingerprint), "{}", ty.name);
        }
        assert_eq!(RegionType::of::<u64, u64>().fingerprint, types[0].fingerprint);
    }
}
