//! The reply to a batch, result by result, before the parent can see it.
//!
//! Runs in: the child. [`Callee`](super::Callee) writes the bytes.

use super::batch;
use super::frame::{BufferName, Frame, FrameKind, INLINE};

/// The answer to a batch while it is made, at the place where its frame will stand.
#[derive(Debug)]
pub(crate) struct BatchReply {
    pub(super) at: u64,
    pub(super) serial: u64,
    /// How long it is by now.
    pub(super) len: usize,
    pub(super) done: u64,
    /// How many handles are beside the last result.
    pub(super) handles: u16,
}

impl BatchReply {
    /// Says that handles are beside it, which are not.
    #[cfg(test)]
    pub(super) fn promise(&mut self, handles: u16) {
        self.handles = handles;
    }

    /// The head of the frame that holds the answer.
    pub(super) fn frame(&self, len: usize, buffer: Option<BufferName>, nanos: u32) -> Frame {
        let (serial, handles) = (self.serial, self.handles);
        Frame { kind: FrameKind::Results, task: nanos, serial, len: len as u64, buffer, pages: 0, handles }
    }

    /// How many bytes the next result may have; `None` if not even an empty one fits.
    #[inline]
    pub(crate) fn room(&self) -> Option<usize> {
        INLINE.checked_sub(self.len + batch::HEAD)
    }

    /// How many bytes there are before the next result, with its head, in a buffer that takes the place of the frame.
    pub(crate) fn len_with_head(&self) -> usize {
        self.len + batch::HEAD
    }
}
