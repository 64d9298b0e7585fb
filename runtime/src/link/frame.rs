//! The layout of a frame's head, and where in the ring a frame goes.
//!
//! Runs in: both ends of a link.
//! Invariant: no head is trusted unread. [`Frame::parse`] checks what can be checked without knowing the calls.
//!
//! ```text
//!  0      1     2         4       8         16        24         28        32
//!  kind   slot  handles   task    serial    length    buffer     pages     payload, padded to 32
//! ```
//! In a reply, the place of `pages` has the sum of [`super::checksum`]; only the parent can write to a request.
//! A frame never wraps around the end of the ring: a head of kind [`FrameKind::Skip`] there sends the reader to the start.
//!
//! Why a frame is at most 4 KiB, and at most sixteen are in flight: a half of 128 KiB then has room for all of them
//! in any position. Neither side ever waits for room, and there is no code for it.

use super::window::MAX_IN_FLIGHT;

/// How many bytes of frames a half holds. A power of two.
pub(crate) const RING: usize = 128 << 10;

/// The longest frame. Sixteen of them fit in any position, so neither side ever waits for room.
pub(crate) const MAX_FRAME_BYTES: usize = 4 << 10;

/// The length of a head, and what the length of every frame is a multiple of.
pub(crate) const HEAD: usize = 32;

/// The longest payload that travels inside its frame.
pub(crate) const INLINE: usize = MAX_FRAME_BYTES - HEAD;

const _: () = assert!(RING.is_power_of_two() && MAX_FRAME_BYTES * (MAX_IN_FLIGHT as usize + 1) <= RING);

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// Nothing: go on at the start of the ring.
    Skip = 1,
    /// Parent: become the process described in the payload.
    Setup,
    /// Parent: run the task on the payload.
    Call,
    /// Parent: run the task on each of several items; see [`super::batch`].
    Batch,
    /// Child: the payload holds the results of a batch's first items, or of all.
    Results,
    /// Child: the payload is the result.
    Done,
    /// Child: the task panicked; the payload is a [`super::message::PanicReport`].
    Panicked,
    /// Child: the arguments could not be decoded; the payload says why.
    BadArguments,
    /// Child: the result could not be encoded; the payload says why.
    BadResult,
    /// Child: there is no task of that number.
    UnknownTask,
    /// Child: it could not become what the setup asked for; the payload is a [`super::message::SetupRefusal`].
    BadSetup,
}

impl FrameKind {
    fn of(byte: u8) -> Option<Self> {
        const ALL: [FrameKind; 11] = [
            FrameKind::Skip,
            FrameKind::Setup,
            FrameKind::Call,
            FrameKind::Batch,
            FrameKind::Results,
            FrameKind::Done,
            FrameKind::Panicked,
            FrameKind::BadArguments,
            FrameKind::BadResult,
            FrameKind::UnknownTask,
            FrameKind::BadSetup,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The kind that `byte` is, if that is what becomes of one item of a batch.
    #[inline]
    pub(crate) fn of_result(byte: u8) -> Option<Self> {
        const RESULTS: [FrameKind; 4] =
            [FrameKind::Done, FrameKind::Panicked, FrameKind::BadArguments, FrameKind::BadResult];
        RESULTS.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Where a payload lies that is too long for the ring: in the buffer that fills `slot` under this `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferName {
    /// The place on both sides where the buffer is kept mapped, or [`super::buffers::NO_SLOT`].
    pub(crate) slot: u8,
    /// Which buffer; another one may fill the slot later. Never 0.
    pub(crate) id: u32,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    /// The task's place in the registry, in a call or a batch. In the answer to a batch: how many nanoseconds it took, or
    /// the most that can be said.
    pub(crate) task: u32,
    /// The call's number on this link, repeated in its reply.
    pub(crate) serial: u64,
    /// The payload's length in bytes.
    pub(crate) len: u64,
    /// Where the payload lies, if not behind the head.
    pub(crate) buffer: Option<BufferName>,
    /// How much address space the child may have while it runs the call, in pages of 4 KiB. 0: as much as it has anyway.
    pub(crate) pages: u32,
    /// How many handles travel beside the payload; see [`super::ancillary`].
    pub(crate) handles: u16,
}

/// [`Frame::pages`] for a limit in bytes. What is less than a page is one, and what is more than can be said is no limit:
/// that is 16 TiB.
pub(crate) fn pages(limit: Option<u64>) -> u32 {
    limit.map_or(0, |bytes| u32::try_from(bytes / PAGE).map_or(0, |pages| pages.max(1)))
}

/// How many bytes are one of [`Frame::pages`], whatever the machine's are.
pub(crate) const PAGE: u64 = 4 << 10;

impl Frame {
    /// What sends the reader to the start of the ring.
    pub(crate) const SKIP: Self =
        Self { kind: FrameKind::Skip, task: 0, serial: 0, len: 0, buffer: None, pages: 0, handles: 0 };

    /// The head as it stands in the ring.
    pub(crate) fn bytes(&self) -> [u8; HEAD] {
        let name = self.buffer.unwrap_or(BufferName { slot: 0, id: 0 });
        let mut bytes = [0; HEAD];
        bytes[0] = self.kind as u8;
        bytes[1] = name.slot;
        bytes[2..4].copy_from_slice(&self.handles.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.task.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.serial.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_le_bytes());
        bytes[24..28].copy_from_slice(&name.id.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.pages.to_le_bytes());
        bytes
    }

    /// Reads a head, or says why it is none.
    pub(crate) fn parse(bytes: &[u8; HEAD]) -> Result<Self, &'static str> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let id = word(24);
        let frame = Self {
            kind: FrameKind::of(bytes[0]).ok_or("a frame of no known kind")?,
            task: word(4),
            serial: long(8),
            len: long(16),
            buffer: (id != 0).then_some(BufferName { slot: bytes[1], id }),
            pages: word(28),
            handles: u16::from_le_bytes([bytes[2], bytes[3]]),
        };
        if frame.buffer.is_none() && frame.len > INLINE as u64 {
            return Err("a frame longer than the longest");
        }
        Ok(frame)
    }

    /// How many bytes of the ring the frame takes.
    pub(crate) fn extent(&self) -> u64 {
        let inline = if self.buffer.is_some() { 0 } else { self.len };
        HEAD as u64 + inline.next_multiple_of(HEAD as u64)
    }
}

/// Where the byte of number `cursor`, counted since the link was made, lies in the ring.
pub(crate) fn place(cursor: u64) -> usize {
    // The remainder is below `RING`, so it fits.
    usize::try_from(cursor % RING as u64).unwrap_or(0)
}

/// The cursor of the next lap's start.
pub(crate) fn next_lap(cursor: u64) -> u64 {
    cursor.next_multiple_of(RING as u64)
}

/// Where a frame of `extent` bytes goes when the last one ended at `cursor`; elsewhere means: with a skip at `cursor`.
pub(crate) fn room_for(cursor: u64, extent: u64) -> u64 {
    let left = RING - place(cursor);
    if extent <= left as u64 { cursor } else { next_lap(cursor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let buffer = Some(BufferName { slot: 3, id: 77 });
        let frame =
            Frame { kind: FrameKind::Done, task: 9, serial: 1 << 40, len: 1 << 33, buffer, pages: 5, handles: 700 };
        assert_eq!(Frame::parse(&frame.bytes()), Ok(frame));
        assert_eq!(frame.extent(), HEAD as u64);
    }

    #[test]
    fn limit_of_memory_is_rounded_down_but_at_least_a_page() {
        assert_eq!([None, Some(0), Some(1), Some(PAGE), Some(3 * PAGE - 1)].map(pages), [0, 1, 1, 1, 2]);
        assert_eq!([Some((1 << 44) - 1), Some(1 << 44), Some(u64::MAX)].map(pages), [u32::MAX, 0, 0]);
    }

    #[test]
    fn garbage_is_no_head() {
        assert!(Frame::parse(&[0; HEAD]).is_err());
        let long = Frame {
            kind: FrameKind::Call,
            task: 0,
            serial: 0,
            len: INLINE as u64 + 1,
            buffer: None,
            pages: 0,
            handles: 0,
        };
        assert!(Frame::parse(&long.bytes()).is_err());
    }

    #[test]
    fn a_full_look_ahead_of_the_longest_frames_never_overlaps() {
        for start in (0..2 * RING as u64).step_by(HEAD) {
            let mut cursor = start;
            for _ in 0..MAX_IN_FLIGHT {
                let at = room_for(cursor, MAX_FRAME_BYTES as u64);
                assert!(place(at) + MAX_FRAME_BYTES <= RING);
                cursor = at + MAX_FRAME_BYTES as u64;
            }
            assert!(cursor - start <= RING as u64);
        }
    }
}
