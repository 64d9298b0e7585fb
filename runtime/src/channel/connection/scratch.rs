//! Memory of a thread for the message at hand, used again and again.
//!
//! Owns: one [`Scratch`] for each thread. Runs in: any process.
//! Invariant: at most [`MAX_KEPT_BYTES`] of a long message's memory are kept.

use std::cell::Cell;

use super::seqpacket::{HEAD, MAX_PACKET_BYTES};
use crate::sys::packet;

/// The most memory that a thread keeps for messages to come.
const MAX_KEPT_BYTES: usize = 256 << 10;

thread_local! {
    static KEPT: Cell<Option<Box<ScratchBuffers>>> = const { Cell::new(None) };
}

#[derive(Default)]
struct ScratchBuffers {
    buffer: Vec<u8>,
    packet: Vec<u128>,
    beside: Vec<u8>,
}

/// The memory of this thread. While it is in use, another user, as a value's own `Deserialize` may be, gets new memory.
pub(super) struct Scratch(Option<Box<ScratchBuffers>>);

impl Scratch {
    #[inline]
    pub(super) fn take() -> Self {
        // A thread that ends has none any more.
        let kept = KEPT.try_with(Cell::take).ok().flatten();
        Self(Some(kept.unwrap_or_default()))
    }

    /// Memory to encode into.
    #[inline]
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        self.0.as_mut().map(|memory| std::mem::take(&mut memory.buffer)).unwrap_or_default()
    }

    /// Gives that memory back.
    #[inline]
    pub(super) fn put_back(&mut self, buffer: Vec<u8>) {
        if let Some(memory) = &mut self.0
            && buffer.capacity() <= MAX_KEPT_BYTES
        {
            memory.buffer = buffer;
        }
    }

    /// Memory to receive a packet into, with all that is beside it. Aligned as payloads are.
    #[inline]
    pub(super) fn packet(&mut self) -> (&mut [u8], &mut [u8]) {
        let memory = self.0.get_or_insert_default();
        if memory.packet.is_empty() {
            memory.packet = vec![0; (HEAD + MAX_PACKET_BYTES).div_ceil(size_of::<u128>())];
            memory.beside = vec![0; packet::BESIDE];
        }
        (bytemuck::cast_slice_mut(&mut memory.packet), &mut memory.beside)
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        let memory = self.0.take();
        let _ = KEPT.try_with(|kept| kept.set(memory));
    }
}
