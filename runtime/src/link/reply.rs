//! What a child answered, as the parent holds it: bytes of its own, or the child's buffer until it is let go.
//!
//! Runs in: the parent.
//! Invariant: a buffer may change as long as its child lives.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::Payload;
use super::batch::Tally;
use super::buffers::NO_SLOT;
use super::control::RequestControl;
use super::frame::FrameKind;
use crate::codec::handles::Received;
use crate::shared::MappedHeader;
use crate::sys::Errno;
use crate::sys::memory::Map;

/// What a child answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) kind: FrameKind,
    pub(crate) body: Body,
    pub(crate) batch: Option<OfBatch>,
}

/// What there is more if a reply answers a batch, or the first items of one.
#[derive(Debug)]
pub(crate) struct OfBatch {
    pub(crate) tally: Tally,
    /// How many nanoseconds it took, as the child says.
    pub(crate) nanos: u32,
    pub(crate) request: Payload,
}

impl Reply {
    /// A reply to a single call.
    pub(crate) fn new(kind: FrameKind, body: Body) -> Self {
        Self { kind, body, batch: None }
    }
}

/// The bytes of a reply.
#[derive(Debug)]
pub(crate) enum Body {
    /// Copied out of the ring: a length, and few bytes. Most results are short, and need no memory of their own.
    Tiny([u64; 2], usize),
    /// Copied out of the ring: a length, and memory that is aligned as a payload has to be.
    Small(Vec<u128>, usize),
    /// Still in the child's buffer, which is let go when this is dropped.
    ShmBuffer(LeasedBuffer),
    /// The buffer could not be received.
    Lost(Errno),
    /// One of the others, with handles beside it.
    With(Box<(Body, Received)>),
}

/// A reply buffer that this process maps.
#[derive(Debug)]
pub(crate) struct LeasedBuffer {
    pub(super) map: Arc<Map>,
    pub(super) len: usize,
    pub(super) slot: u8,
    pub(super) request: Arc<MappedHeader<RequestControl>>,
}

impl Body {
    /// A body of `len` bytes, which `fill` writes.
    pub(super) fn filled(len: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut few = [0u64; 2];
        if let Some(bytes) = bytemuck::cast_slice_mut(&mut few).get_mut(..len) {
            fill(bytes);
            return Self::Tiny(few, len);
        }
        Self::aligned(len, fill)
    }

    /// A copy of these bytes, as aligned as a payload has to be.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self::aligned(bytes.len(), |copy| copy.copy_from_slice(bytes))
    }

    fn aligned(len: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut memory = vec![0u128; len.div_ceil(size_of::<u128>())];
        fill(&mut bytemuck::cast_slice_mut(&mut memory)[..len]);
        Self::Small(memory, len)
    }

    /// Leaves out what is behind the first `len` bytes, in memory of our own.
    pub(super) fn truncate(&mut self, to: usize) {
        if let Self::Small(_, len) | Self::Tiny(_, len) = self {
            *len = to.min(*len);
        }
    }

    /// The payload.
    ///
    /// # Errors
    /// It was in a buffer that could not be received.
    pub(crate) fn bytes(&self) -> Result<&[u8], Errno> {
        match self {
            Self::Tiny(few, len) => Ok(&bytemuck::cast_slice(few)[..*len]),
            Self::Small(memory, len) => Ok(&bytemuck::cast_slice(memory)[..*len]),
            // The child writes this buffer again only after `released` says that it may.
            Self::ShmBuffer(borrowed) => Ok(borrowed.map.lend(0, borrowed.len)),
            Self::Lost(errno) => Err(*errno),
            Self::With(both) => both.0.bytes(),
        }
    }

    /// The same, with these handles beside it.
    pub(crate) fn with(self, received: Received) -> Self {
        if received.is_empty() { self } else { Self::With(Box::new((self, received))) }
    }

    /// The handles beside it.
    pub(crate) fn received(&self) -> Received {
        match self {
            Self::With(both) => both.1.clone(),
            _ => Received::default(),
        }
    }
}

impl Drop for LeasedBuffer {
    fn drop(&mut self) {
        if self.slot != NO_SLOT {
            self.request.words().released.0.fetch_xor(1 << self.slot, SeqCst);
        }
    }
}

/// What was in flight on the link of a dead child.
#[derive(Debug)]
pub(crate) struct InFlightAtExit<T> {
    /// Claimed and not answered: may have run. Not more than one, unless the child scribbled over the window.
    pub(crate) running: Vec<(T, Payload)>,
    /// If that one is a batch: its first results. `None`: it is unknown which of its items ran.
    pub(crate) salvaged: Option<PartialBatch>,
    /// Not claimed, in order: certainly did not run.
    pub(crate) unclaimed: Vec<(T, Payload)>,
}

/// What is there of the answer to a batch after its child died before publishing it.
#[derive(Debug)]
pub(crate) struct PartialBatch {
    pub(crate) tally: Tally,
    pub(crate) body: Body,
    /// Whether it was running the next item.
    pub(crate) running: bool,
}
