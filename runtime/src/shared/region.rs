//! One memory that several processes map: a header that says what is in it, then values.
//!
//! Owns: the header's layout, and which regions this process maps. Gives out: [`Region`], by [`Filling`] it or
//! by opening the descriptor of one that came. Runs in: any process.
//! Never: has a name in any file system, so the kernel takes it back when the last process lets go, however that ends.
//!
//! # The life of a region
//!
//! | what it holds | made | then |
//! |---|---|---|
//! | what stays as it is ([`Shareable::FROZEN`]) | written by `write(2)`, never mapped for writing | sealed against writing, by any process, for good |
//! | what changes through `&` | written likewise | its size is sealed; mapped for writing by all |
//! | [`SharedMut`](super::SharedMut) | written likewise, or all zero | mapped for writing by one process, until it is frozen or split |
//!
//! All of it is there before any process touches it: a touch is never a SIGBUS. The kernel refuses to seal what is still
//! mapped for writing, so a region that is frozen has no writer left; that is why `&` to it can be handed out.
//!
//! Mapping one touches its first page and no other: the kernel brings sixteen at a time when they are used. Asking for all of
//! them beforehand (`MADV_POPULATE_READ`) took as long as that, or longer.
//!
//! # The header
//!
//! Written before the region is shared, and read once by each process that gets it: [`Header`]. The values begin behind
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
use crate::shared::{Known, Shareable, members};
use crate::sys;
use crate::sys::fd::{self, Identity};
use crate::sys::memory::{self, Access, Map};

/// What every header begins with.
const MAGIC: u64 = u64::from_ne_bytes(*b"ptregion");

/// What the region is called in `/proc/<pid>/maps`.
const NAME: &str = "process-task-shared";

/// How long a header is; values with a stricter alignment begin at the first multiple of it.
const HEADER: usize = size_of::<Header>();

/// The strictest alignment that memory of the kernel's has: duty 4 of [`Shareable`].
const PAGE: usize = 4096;

/// What is in a region. Numbers, not addresses: it is the same for all.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Header {
    magic: u64,
    /// Of the type of the whole: see [`Kind`].
    fingerprint: [u64; 2],
    /// Bytes of one value.
    size: u64,
    /// How many values there are.
    count: u64,
    /// Where they begin.
    offset: u64,
    /// Device and number of the region that has the locks for the ranges of this one; zero where there is none.
    locks: [u64; 2],
    /// How many values each range has, but for the last.
    range: u64,
    /// The type's name, for messages, filled up with zeroes.
    name: [u8; 184],
}

// SAFETY: numbers, for which zero is a value.
unsafe impl bytemuck::Zeroable for Header {}
// SAFETY: numbers, and nothing between them: the sizes of the fields add up to that of the whole.
unsafe impl bytemuck::Pod for Header {}
const _: () = assert!(HEADER == 9 * size_of::<u64>() + 184 && HEADER == 256);

/// What a region of some type looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// The type's hash: one for each type of this program, which is the same program in every process of the tree.
    fingerprint: [u64; 2],
    name: &'static str,
    size: usize,
    align: usize,
    /// [`Shareable::FROZEN`].
    frozen: bool,
}

impl Kind {
    /// Of regions that hold a `T`, made of some number of values of type `E`.
    pub(crate) fn of<T: Shareable + ?Sized, E: Shareable>() -> Self {
        const {
            assert!(!std::mem::needs_drop::<E>(), "what has a destructor cannot live in shared memory");
            assert!(align_of::<E>() <= PAGE, "what is aligned to more than 4,096 cannot live in shared memory");
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
        HEADER.max(self.align)
    }

    fn header(&self, count: usize) -> Header {
        let mut name = [0; 184];
        name.iter_mut().zip(self.name.bytes()).for_each(|(to, byte)| *to = byte);
        Header {
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

    /// How long the memory for `count` values is.
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
    header: Header,
    identity: Identity,
}

impl Region {
    /// Memory for `count` values of zero bytes only.
    pub(crate) fn zeroed(kind: Kind, count: usize, access: Access) -> Result<Self> {
        let len = kind.len(count)?;
        let refused = |errno| kind.refused(&format!("reserve {len} bytes"), errno);
        let descriptor = memory::create(NAME, len).map_err(refused)?;
        Filling { kind, descriptor, count, end: len }.finish(access)
    }

    /// Opens a region by a descriptor that came from another process: the one that this process maps already, or a new
    /// mapping.
    pub(crate) fn open(descriptor: OwnedFd) -> std::result::Result<Arc<Self>, CodecError> {
        let corrupt =
            || CodecError::new("the payload is corrupt: what came with it is no shared memory of this program");
        let identity = fd::identity(descriptor.as_fd()).ok_or_else(corrupt)?;
        KNOWN.find_or_enter(identity, || Self::map(descriptor, identity))
    }

    fn map(descriptor: OwnedFd, identity: Identity) -> std::result::Result<Self, CodecError> {
        let corrupt =
            || CodecError::new("the payload is corrupt: what came with it is no shared memory of this program");
        let seen = memory::look(descriptor.as_fd()).map_err(|_| corrupt())?;
        if seen.len < HEADER {
            return Err(corrupt());
        }
        let access = if seen.frozen { Access::Frozen } else { Access::Write };
        let map = Map::new(descriptor.as_fd(), seen.len, access).map_err(|errno| {
            CodecError::new(format!("cannot map {} bytes of shared memory: {}", seen.len, errno.desc()))
        })?;
        let mut header: Header = bytemuck::Zeroable::zeroed();
        map.read(0, bytemuck::bytes_of_mut(&mut header));
        let end = header.size.checked_mul(header.count).and_then(|bytes| bytes.checked_add(header.offset));
        let fits = end.is_some_and(|end| end <= seen.len as u64);
        if header.magic != MAGIC || header.offset < HEADER as u64 || !fits {
            return Err(corrupt());
        }
        Ok(Self { descriptor, map, header, identity })
    }

    /// Lets a handle of this region that comes to this process find it.
    pub(crate) fn enter(self) -> Arc<Self> {
        KNOWN.enter(self.identity, Arc::new(self))
    }

    /// Checks that it holds what `kind` says, and that it changes if and only if that is so for `kind`.
    pub(crate) fn check(&self, kind: &Kind) -> std::result::Result<(), CodecError> {
        self.check_type(kind)?;
        if kind.frozen == self.map.is_writable() {
            return Err(self.mistaken(&format!("{}` that nobody can write, `Shared<{}>", kind.name, kind.name)));
        }
        Ok(())
    }

    /// Checks that it holds what `kind` says, that it can still be written, and that it has these locks.
    pub(crate) fn check_ranges(&self, kind: &Kind, locks: &Self) -> std::result::Result<(), CodecError> {
        self.check_type(kind)?;
        let expected = (locks_of(locks.identity), self.count().div_ceil(self.range()));
        if !self.map.is_writable() || expected != (self.header.locks, locks.count()) {
            return Err(self.mistaken(&format!("SharedRanges<{}>", kind.name)));
        }
        Ok(())
    }

    fn check_type(&self, kind: &Kind) -> std::result::Result<(), CodecError> {
        let Header { locks, range, .. } = self.header;
        let expected = Header { locks, range, ..kind.header(self.count()) };
        if expected == self.header { Ok(()) } else { Err(self.mistaken(kind.name)) }
    }

    /// Notes for all processes that will get it that `locks` say which process may write which `range` values.
    ///
    /// The caller is the only owner of the region.
    pub(crate) fn split(&mut self, range: usize, locks: Identity) {
        self.header.range = range as u64;
        self.header.locks = locks_of(locks);
        self.map.write(0, bytemuck::bytes_of(&self.header));
    }

    /// How many values each range has, but for the last; at least one.
    pub(crate) fn range(&self) -> usize {
        usize::try_from(self.header.range).unwrap_or(usize::MAX).max(1)
    }

    /// Whether this process can write to it.
    pub(crate) fn is_writable(&self) -> bool {
        self.map.is_writable()
    }

    /// Seals it against writing. The last holder must ask, in the last process: others get it back, and the reason.
    ///
    /// One that comes back cannot be written any more if the kernel refuses even to map it again.
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
        // As of now it lies elsewhere; and one that only its owner could reach can be shared.
        let region = region.enter();
        sealed.map_or_else(|errno| Err((errno, Arc::clone(&region))), |()| Ok(Arc::clone(&region)))
    }

    #[cold]
    pub(crate) fn mistaken(&self, read_as: &str) -> CodecError {
        let of = &self.header.name;
        let name = String::from_utf8_lossy(of.split(|byte| *byte == 0).next().unwrap_or_default());
        CodecError::new(format!("a handle of `{name}` was read as one of `{read_as}`"))
    }

    /// Where the values are.
    pub(crate) fn values(&self) -> NonNull<u8> {
        let offset = usize::try_from(self.header.offset).unwrap_or(HEADER);
        debug_assert!(offset <= self.map.len(), "checked when it was made or opened");
        // SAFETY: the header was checked, or written, to keep the offset inside the mapping, or at its end.
        unsafe { self.map.start().add(offset) }
    }

    /// How many values there are.
    pub(crate) fn count(&self) -> usize {
        // It fitted when the header was checked or written.
        usize::try_from(self.header.count).unwrap_or(0)
    }

    /// Which of all regions it is.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }
}

/// How a header names the region of locks.
fn locks_of((device, number, _): Identity) -> [u64; 2] {
    [device, number]
}

impl Handle for Region {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Memory that is not written: which processes have it mapped makes no difference, but for when it goes.
    fn may_linger(&self) -> bool {
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
        KNOWN.forget(self.identity, self);
    }
}

/// The regions that this process maps and can share: one that comes twice is mapped once.
static KNOWN: Known<Region> = Known::new();

/// A region that is being written, from its first value to its last. No process maps it yet.
#[derive(Debug)]
pub(crate) struct Filling {
    kind: Kind,
    descriptor: OwnedFd,
    count: usize,
    end: usize,
}

impl Filling {
    pub(crate) fn new(kind: Kind) -> Result<Self> {
        let descriptor = memory::create_empty(NAME).map_err(|errno| kind.refused("make a memfd", errno))?;
        Ok(Self { kind, descriptor, count: 0, end: kind.offset() })
    }

    /// Appends values as the bytes that they are.
    pub(crate) fn append<E: Shareable>(&mut self, values: &[E]) -> Result<()> {
        debug_assert_eq!(size_of::<E>(), self.kind.size);
        let count = self.count.saturating_add(values.len());
        let end = self.kind.len(count)?;
        // SAFETY: the same memory, as bytes that need not be anything; the values are borrowed for the call, and what
        // their type lets others change through `&` changes nothing but which bytes are copied.
        let bytes =
            unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<MaybeUninit<u8>>(), size_of_val(values)) };
        memory::append(self.descriptor.as_fd(), self.end, bytes)
            .map_err(|errno| self.kind.refused(&format!("reserve {end} bytes"), errno))?;
        (self.count, self.end) = (count, end);
        Ok(())
    }

    /// Writes the header, seals, and maps. [`Access::Frozen`]: no process can write to it from now on.
    pub(crate) fn finish(self, access: Access) -> Result<Region> {
        let Self { kind, descriptor, count, end } = self;
        let header = kind.header(count);
        let memory = descriptor.as_fd();
        if !kind.frozen {
            // What changes may be locked, and the process that locks must be known.
            members::prepare()
                .map_err(|errno| kind.refused("enter this process among those that share memory,", errno))?;
        }
        let map = || {
            let bytes = bytemuck::cast::<Header, [u8; HEADER]>(header);
            memory::append(memory, 0, &bytes.map(MaybeUninit::new))?;
            if kind.size * count == 0 {
                memory::resize(memory, end)?;
            }
            match access {
                Access::Frozen => memory::seal_writes(memory)?,
                Access::Read | Access::Write => memory::seal_size(memory)?,
            }
            if !kind.frozen {
                memory::seal_seals(memory)?;
            }
            Map::new(memory, end, access)
        };
        let map = map().map_err(|errno| kind.refused(&format!("map {end} bytes"), errno))?;
        let identity = fd::identity(memory).ok_or_else(|| kind.refused("see the memory", sys::Errno::EBADF))?;
        Ok(Region { descriptor, map, header, identity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(header: Header, len: usize) -> OwnedFd {
        let descriptor = memory::create("test", len).unwrap();
        let bytes = bytemuck::cast::<Header, [u8; HEADER]>(header).map(MaybeUninit::new);
        memory::append(descriptor.as_fd(), 0, &bytes[..len.min(HEADER)]).unwrap();
        descriptor
    }

    #[test]
    fn what_is_no_region_is_refused() {
        let kind = Kind::of::<[u64], u64>();
        let good = kind.header(10);
        let region = Region::open(memory(good, HEADER + 80)).unwrap();
        assert_eq!((region.count(), region.check_type(&kind).is_ok()), (10, true));
        let refused = |header, len| Region::open(memory(header, len)).unwrap_err().to_string();
        for (header, len) in [
            (good, HEADER - 1),
            (good, HEADER + 79),
            (Header { magic: 0, ..good }, 4096),
            (Header { offset: 0, ..good }, 4096),
            (Header { offset: u64::MAX - 79, ..good }, 4096),
            (Header { count: u64::MAX / 8 + 1, ..good }, 4096),
            (Header { count: 1 << 62, ..good }, 4096),
        ] {
            assert!(refused(header, len).contains("no shared memory of this program"), "{len}");
        }
        let no_size = memory::create_empty("test").unwrap();
        assert!(Region::open(no_size).is_err());
        assert!(Region::open(fd::null().unwrap()).is_err());
    }

    #[test]
    fn a_region_that_comes_twice_is_mapped_once() {
        let descriptor = memory(Kind::of::<u64, u64>().header(1), 4096);
        let again = || fd::duplicate(descriptor.as_fd()).unwrap();
        let first = Region::open(again()).unwrap();
        let address = first.values();
        assert!(Arc::ptr_eq(&first, &Region::open(again()).unwrap()));
        let identity = first.identity();
        drop(first);
        assert!(!KNOWN.knows(identity), "nobody has it, so it is not known");
        let later = Region::open(again()).unwrap();
        assert!(later.check(&Kind::of::<u64, u64>()).is_err(), "it is not frozen; it was at {address:?}");
    }

    #[test]
    fn types_are_told_apart() {
        let kinds = [
            Kind::of::<u64, u64>(),
            Kind::of::<[u64], u64>(),
            Kind::of::<[u64; 1], [u64; 1]>(),
            Kind::of::<i64, i64>(),
            Kind::of::<(u64,), (u64,)>(),
        ];
        for (at, kind) in kinds.iter().enumerate() {
            assert!(kinds[..at].iter().all(|other| other.fingerprint != kind.fingerprint), "{}", kind.name);
        }
        assert_eq!(Kind::of::<u64, u64>().fingerprint, kinds[0].fingerprint);
    }
}
