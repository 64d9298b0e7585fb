//! What joins a parent and one child: a control socket, a request half, a reply half, and a bell.
//!
//! Owns: [`Link`], made by the parent; [`Caller`] and [`Callee`], its two ends. Runs in: both.
//! Never: has a name in any file system, so that a kill -9 leaves nothing behind.
//!
//! Why a new link has memory for a setup and one call only: to reserve all of its rings for every `spawn` was a third
//! of the parent's work. The rest is reserved when a pool takes the child.
//!
//! # One call
//!
//! | # | parent | child |
//! |---|--------|-------|
//! | 1 | writes a frame into the request half, behind all that are not answered | |
//! | 2 | raises the window's limit; if `parked`, clears it and wakes | |
//! | 3 | | claims: raises `claimed` by one, then reads the frame |
//! | 4 | | runs the task; borrowed arguments are read where they lie |
//! | 5 | | writes the reply's frame, then `tail`; rings its bell if `notify_reply`; later, if there is no more and it is about to sleep, if `notify_idle` |
//! | 6 | reads `tail` once, checks it, takes the replies, and may reuse the frame's place | |
//!
//! # One batch
//!
//! A batch is many calls of one task in one frame (see [`batch`]), and counts as one in the window.
//!
//! | # | parent | child |
//! |---|--------|-------|
//! | 1 to 3 | as above, with [`frame::FrameKind::Batch`] | |
//! | 4 | | runs the first item; writes what became of it where the answer's frame will stand, then `progress` |
//! | 5 | | does so with each further one, until all are done, the frame is full, or it has taken long |
//! | 6 | | writes the head of the one frame of [`frame::FrameKind::Results`], then `tail`; rings as above |
//! | 7 | takes the results, and asks anew for the items that were not answered | |
//!
//! At most [`window::MAX_IN_FLIGHT`] calls are between 1 and 6, and that many of the longest frames fit into a ring, so
//! neither side ever waits for room.
//!
//! # The child dies
//!
//! before 3: it costs no call, since what is not claimed is taken back. Between 3 and the store of `tail` in 5: exactly one
//! call, and it is unknown how far it came: of a batch, the one that `progress` has not counted, since the results of those
//! before it are there already, and those behind it have not begun. After that: none, because the reply is in memory that
//! the parent maps; so
//! the parent collects once more before it believes in a death. The request half cannot be written by the child
//! (`F_SEAL_FUTURE_WRITE`), so what is taken back is what the parent wrote.
//!
//! # The parent dies
//!
//! The fork server sees it and kills every child; see `child::server`.
//!
//! # What is believed
//!
//! The parent keeps cursors, serials and what is in flight in private memory. What it reads from a reply half is loaded
//! once, checked, then used. A frame that fails a check is a
//! [`Violation`](caller::Violation), and the child that wrote it is killed.

mod ancillary;
pub(crate) mod batch;
mod batch_reply;
pub(crate) mod boot_env;
pub(crate) mod buffers;
mod busy;
mod callee;
mod caller;
mod checksum;
pub(crate) mod control;
mod cpu_collision;
mod crash_note;
pub(crate) mod doorbell;
pub(crate) mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod message;
mod reply;
pub(crate) mod spin;
#[cfg(test)]
mod tests;
mod upkeep;
pub(crate) mod window;

/// Where the pure parts find their atomics; a model checker puts its own here.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use self::control::{ReplyControl, RequestControl};
use self::frame::{INLINE, RING};
use self::message::{MAGIC, ToChild};
use crate::codec::handles::Handles;
use crate::codec::{self, message::to_bytes};
use crate::shared::MappedHeader;
use crate::sys::held::HeldFd;
use crate::sys::memory::Access;
use crate::sys::socket;
use crate::sys::{self, Errno, fd, memory};

pub(crate) use self::ancillary::{FD_RETRY_TIME, is_temporary};
pub(crate) use self::batch_reply::BatchReply;
pub(crate) use self::buffers::{BUFFER_IDLE_TIME, BufferWriter, Gone, Lease, SharedBufferPool};
pub(crate) use self::callee::{Callee, Incoming};
pub(crate) use self::caller::Caller;
pub(crate) use self::cpu_collision::CpuCollision;
pub(crate) use self::crash_note::CrashNote;
pub use self::message::StartMethod;
pub(crate) use self::reply::{Body, InFlightAtExit, PartialBatch, Reply};
pub(crate) use self::spin::Spin;

/// A payload on its way.
#[derive(Debug)]
pub(crate) struct Payload {
    place: PayloadStorage,
    handles: Handles,
}

/// The memory that a payload was encoded into.
#[derive(Debug)]
enum PayloadStorage {
    /// Short enough for a frame.
    Small(Vec<u8>),
    ShmBuffer(Lease),
}

impl Payload {
    /// Puts what an encoder made together with the memory that it may lie in; `None` if that was never filled.
    pub(crate) fn new(encoded: codec::Encoded, filling: BufferWriter, handles: Handles) -> Option<Self> {
        match encoded {
            codec::Encoded::Small(bytes) => Some(Self::small(bytes).with(handles)),
            codec::Encoded::Spilled(len) => filling.done(len).map(|loan| Self::in_buffer(loan).with(handles)),
        }
    }

    /// One that is short enough for a frame.
    pub(crate) fn small(bytes: Vec<u8>) -> Self {
        Self { place: PayloadStorage::Small(bytes), handles: Handles::default() }
    }

    /// One that is in a buffer.
    pub(crate) fn in_buffer(loan: Lease) -> Self {
        Self { place: PayloadStorage::ShmBuffer(loan), handles: Handles::default() }
    }

    /// The same, with these handles beside it.
    pub(crate) fn with(self, handles: Handles) -> Self {
        Self { handles, ..self }
    }

    pub(crate) fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Whether nothing but its frame travels.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.place, PayloadStorage::Small(_)) && self.handles.is_empty()
    }

    /// The encoded bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.place {
            PayloadStorage::Small(bytes) => bytes,
            PayloadStorage::ShmBuffer(loan) => loan.bytes(),
        }
    }

    /// The encoded bytes, for changes; none if they are in a buffer.
    pub(crate) fn small_bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            PayloadStorage::Small(bytes) => bytes,
            PayloadStorage::ShmBuffer(_) => &mut [],
        }
    }

    fn loan(&self) -> Option<&Lease> {
        match &self.place {
            PayloadStorage::Small(_) => None,
            PayloadStorage::ShmBuffer(loan) => Some(loan),
        }
    }

    /// A payload of bytes that are there already, in memory that goes when it does.
    pub(crate) fn of_bytes(bytes: &[u8]) -> sys::Result<Self> {
        let mut filling = BufferWriter::new(&SharedBufferPool::default());
        let mut writer = codec::Writer::new(Vec::new(), INLINE, &mut filling);
        let written = writer.put_bytes(bytes).and_then(|()| writer.finish());
        written.ok().and_then(|written| Self::new(written, filling, Handles::default())).ok_or(Errno::ENOMEM)
    }
}

/// A new link, as the parent holds it before anything has been asked on it.
#[derive(Debug)]
pub(crate) struct Link {
    request: Arc<MappedHeader<RequestControl>>,
    reply: MappedHeader<ReplyControl>,
    control: HeldFd,
    bell: Arc<HeldFd>,
    /// The halves' memory, of which only [`INITIAL_RING_BYTES`] bytes of each ring are reserved, until it is known what the link is for.
    halves: Option<[HeldFd; 2]>,
}

/// How much of a ring is reserved from the start: room for a setup, one call, and their answers.
const INITIAL_RING_BYTES: usize = 3 * frame::MAX_FRAME_BYTES;

impl Link {
    /// Makes a link, and returns the child's end of its control socket, on which everything else is waiting already.
    ///
    /// # Errors
    /// The step that failed, and why.
    pub(crate) fn new(fingerprint: u64) -> Result<(Self, OwnedFd), (&'static str, Errno)> {
        fn at<T>(step: &'static str, result: sys::Result<T>) -> Result<T, (&'static str, Errno)> {
            result.map_err(|errno| (step, errno))
        }
        let (control, theirs) = at("make a socket pair", socket::pair())?;
        let bell = at("make an eventfd", fd::eventfd())?;
        let (size, first) = (
            MappedHeader::<RequestControl>::size_with(RING),
            MappedHeader::<RequestControl>::size_with(INITIAL_RING_BYTES),
        );
        let request_fd = at("reserve the request half", memory::create_in_part("process-task-request", size, first))?;
        let reply_fd = at("reserve the reply half", memory::create_in_part("process-task-reply", size, first))?;
        let request = at("map the request half", MappedHeader::map(request_fd.as_fd(), RING, Access::Write))?;
        let reply = at("map the reply half", MappedHeader::map(reply_fd.as_fd(), RING, Access::Write))?;
        at("seal the request half", memory::seal_future_writes(request_fd.as_fd()))?;
        let hello = to_bytes(&ToChild::Hello { magic: MAGIC, fingerprint });
        let halves = [request_fd.as_fd(), reply_fd.as_fd(), bell.as_fd()];
        at("send the link", socket::send(control.as_fd(), &hello, &halves))?;
        let halves = Some([request_fd.into(), reply_fd.into()]);
        Ok((
            Self { request: Arc::new(request), reply, control: control.into(), bell: Arc::new(bell.into()), halves },
            theirs,
        ))
    }

    /// Makes the link fit for any number of calls. Otherwise it is for one, as a new process has.
    ///
    /// # Errors
    /// There is no memory for the rest of the rings.
    pub(crate) fn for_worker(mut self) -> Result<Self, Errno> {
        for half in self.halves.take().into_iter().flatten() {
            memory::reserve_part(half.as_fd(), 0, MappedHeader::<RequestControl>::size_with(RING))?;
        }
        Ok(self)
    }

    /// Makes the link fit for a setup and one call.
    pub(crate) fn for_single_call(mut self) -> Self {
        self.halves = None;
        self
    }

    /// What the child rings.
    pub(crate) fn bell(&self) -> &Arc<HeldFd> {
        &self.bell
    }

    /// Wakes a child that will be given something in a moment, so that its waking and our preparing go side by side.
    ///
    /// Says whether it was asleep.
    pub(crate) fn wake(&self) -> bool {
        let parked = &self.reply.words().parked.0;
        let wake = doorbell::must_wake(parked);
        if wake {
            sys::futex::wake(parked, 1);
        }
        wake
    }

    /// Ends a child that has nothing to do.
    pub(crate) fn close(&self) {
        use std::sync::atomic::Ordering::SeqCst;
        self.request.words().shutdown.0.store(1, SeqCst);
        self.wake();
    }
}
