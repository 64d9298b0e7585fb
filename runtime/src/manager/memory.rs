//! The memory that a manager shares with all of its clients, and the memory that it shares with each one.
//!
//! Runs in: the manager, and each client.
//! Invariant: another process may write any of these words at any time; the manager believes none of them.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::released::{self, BUFFER_OBJECTS, BUFFERS};
use super::slots::{CallSlot, SLOT_BYTES, SLOTS};
use super::wakeup;
use super::wire::FromDescriptor;
use crate::codec::CodecError;
use crate::codec::handles::Handle;
use crate::shared::{MappedHeader, words};
use crate::sync::atomic::{AtomicU32, Ordering::Acquire};
use crate::sync::futex_wait;
use crate::sys::memory::{self, Access};
use crate::sys::{self, Errno, futex};

/// What a manager shares with all clients.
#[derive(Debug)]
pub(crate) struct ManagerWords {
    /// See [`wakeup`].
    pub(super) wakeup: AtomicU32,
    /// Changes when a thread of the manager that has nothing to do should look whether there is something.
    pub(super) nudges: AtomicU32,
    /// Not 0 while a thread of the manager looks again and again whether the leader is stuck.
    pub(super) ticks: AtomicU32,
    /// The processor, and 1, on which the leader last looked for requests.
    pub(super) cpu: AtomicU32,
    /// How far the manager is: see [`serve`](super::serve).
    pub(super) phase: AtomicU32,
    /// The manager in the table of processes.
    pub(super) process: AtomicU32,
    /// The manager's process id.
    pub(super) pid: AtomicU32,
    /// How many calls by the queue each client may have in flight; 0 if there is no limit.
    pub(super) most_calls: AtomicU32,
    /// The number of the client that came last.
    pub(super) clients: AtomicU32,
}

words!(ManagerWords {
    wakeup: AtomicU32,
    nudges: AtomicU32,
    ticks: AtomicU32,
    cpu: AtomicU32,
    phase: AtomicU32,
    process: AtomicU32,
    pid: AtomicU32,
    most_calls: AtomicU32,
    clients: AtomicU32,
});

/// What a manager shares with one client.
#[derive(Debug)]
pub(crate) struct ClientWords {
    /// A bit for each slot in which a request was put.
    pub(super) ready: AtomicU32,
    /// The processor, and 1, on which a thread of the client last made a call.
    pub(super) cpu: AtomicU32,
    /// How many objects are in each buffer: see [`released`].
    pub(super) released: [AtomicU32; BUFFERS],
    pub(super) slots: [CallSlot; SLOTS],
}

words!(ClientWords { ready: AtomicU32, cpu: AtomicU32, released: [AtomicU32; BUFFERS], slots: [CallSlot; SLOTS] });

/// See [`ManagerWords`].
#[derive(Debug)]
pub(crate) struct ManagerMemory {
    descriptor: OwnedFd,
    memory: MappedHeader<ManagerWords>,
}

impl ManagerMemory {
    pub(super) fn create() -> sys::Result<Self> {
        let len = MappedHeader::<ManagerWords>::size_with(PAGE);
        Self::of(memory::create("process-task-manager", len)?)
    }

    fn of(descriptor: OwnedFd) -> sys::Result<Self> {
        let memory = MappedHeader::map(descriptor.as_fd(), PAGE, Access::Write)?;
        Ok(Self { descriptor, memory })
    }

    #[inline]
    pub(super) fn words(&self) -> &ManagerWords {
        self.memory.words()
    }

    /// Announces what was brought, and wakes the leader if it sleeps.
    #[inline]
    pub(super) fn announce(&self, bits: u32) {
        let word = &self.words().wakeup;
        if wakeup::announce(word, bits) {
            futex_wait::wake_one(word);
        }
    }

    /// Sleeps until something is announced. The caller has [parked](wakeup::park).
    pub(super) fn sleep(&self) {
        let word = &self.words().wakeup;
        while word.load(Acquire) == wakeup::PARKED {
            futex::wait(word, wakeup::PARKED);
        }
    }
}

/// One page behind the words: a mapping of nothing but words is not foreseen.
const PAGE: usize = 4096;

impl Handle for ManagerMemory {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    fn is_cacheable(&self) -> bool {
        true
    }
}

impl FromDescriptor for ManagerMemory {
    fn from_descriptor(descriptor: OwnedFd) -> Result<Self, CodecError> {
        is_as_long(&descriptor, MappedHeader::<ManagerWords>::size_with(PAGE))?;
        Self::of(descriptor).map_err(cannot_map)
    }
}

/// Number of bytes behind a client's words: those of short calls, and the objects that it lets go of.
const CLIENT_BYTES: usize = SLOTS * SLOT_BYTES + BUFFERS * BUFFER_BYTES;

/// Number of bytes of a buffer of objects.
const BUFFER_BYTES: usize = BUFFER_OBJECTS as usize * size_of::<u64>();

/// Where a client's short calls are, and the objects that it lets go of.
#[derive(Debug)]
pub(crate) struct ClientMemory {
    descriptor: OwnedFd,
    memory: MappedHeader<ClientWords>,
}

impl ClientMemory {
    pub(super) fn create() -> sys::Result<Self> {
        let len = MappedHeader::<ClientWords>::size_with(CLIENT_BYTES);
        Self::of(memory::create("process-task-calls", len)?)
    }

    fn of(descriptor: OwnedFd) -> sys::Result<Self> {
        let memory = MappedHeader::map(descriptor.as_fd(), CLIENT_BYTES, Access::Write)?;
        Ok(Self { descriptor, memory })
    }

    #[inline]
    pub(super) fn words(&self) -> &ClientWords {
        self.memory.words()
    }

    /// Copies what is in a slot.
    #[inline]
    pub(super) fn read(&self, slot: usize, into: &mut [u8]) {
        self.memory.read(slot * SLOT_BYTES, into);
    }

    /// Writes into a slot.
    #[inline]
    pub(super) fn write(&self, slot: usize, bytes: &[u8]) {
        self.memory.write(slot * SLOT_BYTES, bytes);
    }

    /// Writes an object into a buffer.
    ///
    /// Runs in: the client.
    pub(super) fn write_released(&self, buffer: usize, at: u32, object: u64) {
        let begin = SLOTS * SLOT_BYTES + buffer * BUFFER_BYTES;
        self.memory.write(begin + at as usize * size_of::<u64>(), &object.to_ne_bytes());
    }

    /// Takes the objects that are in a buffer; none if there is no such buffer.
    ///
    /// Runs in: the manager.
    pub(super) fn take_released(&self, buffer: u32) -> Vec<u64> {
        let Some(word) = self.words().released.get(buffer as usize) else { return Vec::new() };
        let mut bytes = vec![0; released::take(word) as usize * size_of::<u64>()];
        self.memory.read(SLOTS * SLOT_BYTES + buffer as usize * BUFFER_BYTES, &mut bytes);
        released::give_back(word);
        bytes.as_chunks().0.iter().map(|object| u64::from_ne_bytes(*object)).collect()
    }
}

impl Handle for ClientMemory {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    fn is_cacheable(&self) -> bool {
        true
    }
}

impl FromDescriptor for ClientMemory {
    fn from_descriptor(descriptor: OwnedFd) -> Result<Self, CodecError> {
        is_as_long(&descriptor, MappedHeader::<ClientWords>::size_with(CLIENT_BYTES))?;
        Self::of(descriptor).map_err(cannot_map)
    }
}

/// Refuses memory that another process could make shorter, or that is none of ours.
fn is_as_long(descriptor: &OwnedFd, len: usize) -> Result<(), CodecError> {
    match memory::checked_len_present(descriptor.as_fd()) {
        Ok(found) if found == len => Ok(()),
        _ => Err(CodecError::new("the payload is corrupt: what came with it is no memory of a manager")),
    }
}

fn cannot_map(errno: Errno) -> CodecError {
    CodecError::new(format!("cannot map the memory of a manager: {}", errno.desc()))
}
