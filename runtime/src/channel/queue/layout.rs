//! Where things are in a queue's memory: places, the heads of items, and the states of chunks, as numbers in words.
//!
//! Owns: how these are packed. Runs in: any process.
//! Never: reads or writes memory.
//!
//! Items lie in *chunks* of [`CHUNK`] bytes, counted in *units* of 8 bytes. An item begins with a head of one unit; in a
//! queue that lends its items, a *lease* of one unit follows; if handles are beside it, the number of their message; then
//! its
//! bytes, or, if it is too long to stand among others, its length and the first of the chunks that it has for itself. Where
//! no item fits behind the last one of a chunk, a *hop* names the chunk in which the next one is; it is also the last unit
//! of each chunk that a long item has for itself.

use super::memory::CHUNK;

/// Bytes of a unit.
pub(super) const UNIT: usize = 8;
/// Units of a chunk, the last of which is only ever a hop.
pub(super) const UNITS: u32 = in_units(CHUNK);
/// So many bytes in units. Nothing that is counted so is longer than a chunk.
#[expect(clippy::cast_possible_truncation, reason = "not longer than a chunk")]
const fn in_units(bytes: usize) -> u32 {
    bytes.div_ceil(UNIT) as u32
}

/// The lower half of a word.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "half of it is what is asked for")]
pub(super) const fn low_half(word: u64) -> u32 {
    word as u32
}

/// Bytes of a long item in each of its chunks.
pub(super) const LONG_PART: usize = CHUNK - UNIT;
/// The longest item that stands among others, in bytes.
pub(super) const MAX_SHARED_ITEM_BYTES: usize = CHUNK / 2;
/// The most chunks that a queue may have.
pub(super) const MAX_CHUNKS: u32 = 1 << CHUNK_BITS;
/// The most items that a queue may have.
pub(super) const MAX_ITEMS: u32 = COUNT_MASK;

const UNIT_BITS: u32 = UNITS.ilog2();
const CHUNK_BITS: u32 = u64::BITS - COUNT_MASK.count_ones() - UNIT_BITS;
const COUNT_MASK: u32 = (1 << 31) - 1;
const _: () = assert!(UNITS == 1 << UNIT_BITS);

/// How far the producers have come, or the consumers: where the next item begins, and how many were before it. One word, so
/// that an item is put, or taken, by one store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cursor {
    /// How many items were before, without the bits beyond the 31st.
    pub(super) count: u32,
    pub(super) chunk: u32,
    /// Below [`UNITS`].
    pub(super) unit: u32,
}

impl Cursor {
    #[inline]
    pub(super) fn of(word: u64) -> Self {
        let low = |word: u64, bits: u32| low_half(word & ((1 << bits) - 1));
        Self {
            count: low(word >> (UNIT_BITS + CHUNK_BITS), 31),
            chunk: low(word >> UNIT_BITS, CHUNK_BITS),
            unit: low(word, UNIT_BITS),
        }
    }

    #[inline]
    pub(super) fn word(self) -> u64 {
        u64::from(self.count) << (UNIT_BITS + CHUNK_BITS) | u64::from(self.chunk) << UNIT_BITS | u64::from(self.unit)
    }

    /// How many items are from `first` to here.
    #[inline]
    pub(super) fn since(self, first: Self) -> u32 {
        self.count.wrapping_sub(first.count) & COUNT_MASK
    }

    /// Behind an item of so many units that begins here.
    #[inline]
    pub(super) fn behind(self, units: u32) -> Self {
        Self { count: self.count.wrapping_add(1) & COUNT_MASK, chunk: self.chunk, unit: self.unit + units }
    }

    /// The start of another chunk, before the same item.
    #[inline]
    pub(super) fn at_start_of(self, chunk: u32) -> Self {
        Self { chunk, unit: 0, ..self }
    }

    /// Which of two numbers, written one before each change of the place, is the present one.
    #[inline]
    pub(super) fn parity(self) -> usize {
        (self.count & 1) as usize
    }
}

/// What a head says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ItemHeader {
    /// The next item is at the start of this chunk.
    Hop(u32),
    Item(ItemLayout),
}

/// What an item is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ItemLayout {
    /// Bytes behind what follows the head; of a long item, those are two units.
    pub(super) len: u32,
    /// It is long: its bytes are elsewhere.
    pub(super) long: bool,
    /// Handles are beside it.
    pub(super) beside: bool,
    /// It has a lease, and is lent, not taken.
    pub(super) lent: bool,
}

const HOP: u32 = u32::MAX;
const LONG: u32 = 1;
const BESIDE: u32 = 2;
const LENT: u32 = 4;

impl ItemHeader {
    #[inline]
    pub(super) fn of(word: u64) -> Self {
        let (len, more) = (low_half(word), low_half(word >> 32));
        if len == HOP {
            return Self::Hop(more);
        }
        Self::Item(ItemLayout { len, long: more & LONG != 0, beside: more & BESIDE != 0, lent: more & LENT != 0 })
    }

    #[inline]
    pub(super) fn word(self) -> u64 {
        let (len, more) = match self {
            Self::Hop(chunk) => (HOP, chunk),
            Self::Item(ItemLayout { len, long, beside, lent }) => {
                (len, u32::from(long) * LONG + u32::from(beside) * BESIDE + u32::from(lent) * LENT)
            }
        };
        u64::from(more) << 32 | u64::from(len)
    }
}

impl ItemLayout {
    /// Of an item of so many bytes.
    #[inline]
    pub(super) fn for_bytes(bytes: usize, beside: bool, lent: bool) -> Self {
        let long = bytes > MAX_SHARED_ITEM_BYTES;
        let len = if long { 2 * UNIT } else { bytes };
        // At most `MAX_SHARED_ITEM_BYTES`.
        Self { len: low_half(len as u64), long, beside, lent }
    }

    /// Units from the head to the end.
    #[inline]
    pub(super) fn units(self) -> u32 {
        1 + self.before() + in_units(self.len as usize)
    }

    /// Units between the head and the bytes.
    #[inline]
    pub(super) fn before(self) -> u32 {
        u32::from(self.lent) + u32::from(self.beside)
    }

    /// Whether an item of this shape can begin at that unit: a length that says more was not written by us.
    #[inline]
    pub(super) fn fits(self, unit: u32) -> bool {
        let len = self.len as usize;
        len <= MAX_SHARED_ITEM_BYTES && unit + self.units() < UNITS && (!self.long || len == 2 * UNIT)
    }
}

/// What a chunk is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ChunkState {
    /// Free, and without memory. What all zeroes say.
    Cold,
    /// Free, with memory.
    Warm,
    /// The queue's: items stand in it, or did and are lent, or it belongs to a long item.
    Queued,
    /// This process's, which fills it or reads it.
    Of(u32),
}

const WARM: u32 = 1 << 30;
const QUEUED: u32 = 1 << 31;

impl ChunkState {
    #[inline]
    pub(super) fn of(word: u32) -> Self {
        match word {
            0 => Self::Cold,
            WARM => Self::Warm,
            QUEUED => Self::Queued,
            member => Self::Of(member),
        }
    }

    #[inline]
    pub(super) fn word(self) -> u32 {
        match self {
            Self::Cold => 0,
            Self::Warm => WARM,
            Self::Queued => QUEUED,
            Self::Of(member) => member,
        }
    }
}

/// The holder of an item that is lent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ItemLease {
    /// None: it waits in the queue.
    Fresh,
    /// This process.
    With(u32),
    /// None any more: it came back.
    Returned,
    /// It is done.
    Done,
}

impl ItemLease {
    pub(super) fn of(word: u32) -> Self {
        match word {
            0 => Self::Fresh,
            WARM => Self::Returned,
            QUEUED => Self::Done,
            member => Self::With(member),
        }
    }

    pub(super) fn word(self) -> u32 {
        match self {
            Self::Fresh => 0,
            Self::Returned => WARM,
            Self::Done => QUEUED,
            Self::With(member) => member,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_what_comes_out() {
        for count in [0, 1, COUNT_MASK] {
            for (chunk, unit) in [(0, 0), (MAX_CHUNKS - 1, UNITS - 1), (7, 5)] {
                let place = Cursor { count, chunk, unit };
                assert_eq!(Cursor::of(place.word()), place);
            }
        }
        let shapes = [0, 1, MAX_SHARED_ITEM_BYTES, MAX_SHARED_ITEM_BYTES + 1]
            .map(|bytes| ItemLayout::for_bytes(bytes, bytes == 1, bytes == 0));
        for head in
            shapes.map(ItemHeader::Item).into_iter().chain([ItemHeader::Hop(0), ItemHeader::Hop(MAX_CHUNKS - 1)])
        {
            assert_eq!(ItemHeader::of(head.word()), head);
        }
        for word in [0, 1, WARM - 1, WARM, QUEUED] {
            assert_eq!((ChunkState::of(word).word(), ItemLease::of(word).word()), (word, word));
        }
    }

    #[test]
    fn the_count_goes_round() {
        let last = Cursor { count: COUNT_MASK, chunk: 0, unit: 5 };
        let next = last.behind(2);
        assert_eq!((next.count, next.unit, next.since(last)), (0, 7, 1));
        assert_ne!(next.parity(), last.parity());
    }

    #[test]
    fn every_item_fits_an_empty_chunk_and_leaves_room_for_a_hop() {
        let longest = ItemLayout::for_bytes(MAX_SHARED_ITEM_BYTES, true, true);
        assert!(longest.fits(0) && !longest.fits(UNITS - longest.units()));
        assert!(longest.fits(UNITS - longest.units() - 1));
        assert!(ItemLayout::for_bytes(usize::MAX, true, true).fits(0));
        let forged = ItemLayout { len: u32::MAX - 1, long: false, beside: false, lent: false };
        assert!(!forged.fits(0));
    }
}
