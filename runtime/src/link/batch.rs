//! Many items in one frame: how their arguments stand in a request, and their results in its answer.
//!
//! Runs in: both ends of a link.
//! Invariant: nothing is read beyond the slice that is given, whatever the bytes say.
//!
//! ```text
//! request   item, item, …, each from a multiple of 16 on │ the length of each, u16 │ first, u16 │ count, u16
//! answer    (head, result), (…), …, each from a multiple of 8 on
//! head      kind, 4 bits │ length, 28 bits │ sum, 32 bits
//! ```
//! The items from `first` to `count` are to be run. So what is left of a batch of which the first items were answered is
//! the same request with another `first`, and no byte of it is moved.
//!
//! An answer holds the results of the first items that were to be run: of all of them, or of fewer if the child ended the
//! batch early. The sum is about the result, its place among the others, and which batch it answers: a task that writes
//! over results that are there already, of items before it, makes the answer invalid, even if it is never finished. A
//! result of [`LONG`] reaches to the answer's end; it is in a buffer, and no sum is made of its bytes.
//!
//! Why a batch has one claim, one answer, and one word that counts its items: a claim and a wake-up for each item
//! would cost more than a short item does. The place of the answer has room for the longest frame, whatever its
//! length will be, since the parent must know it without being told.

use super::frame::{FrameKind, INLINE};
use crate::codec::ALIGNMENT;

/// The most bytes that one item may have. A longer one goes alone, as a call.
pub(crate) const MAX_ITEM_BYTES: usize = INLINE / 4;

/// The length of `first` and `count`.
const TRAILER: usize = 4;

/// What the place of each result is a multiple of, and the length of its head.
pub(crate) const HEAD: usize = 8;

/// A request under construction: where in its bytes the items end that were put in.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    lengths: Vec<u16>,
    /// Where the last item ends.
    end: usize,
}

impl Builder {
    /// How many items there are.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.lengths.len()
    }

    /// Where the next item begins.
    #[inline]
    pub(crate) fn next_start(&self) -> usize {
        self.end.next_multiple_of(ALIGNMENT)
    }

    /// The bytes from [`Builder::next_start`] to `end` are an item. False: it is too long, or there is no room for it.
    #[inline]
    pub(crate) fn put(&mut self, end: usize) -> bool {
        let table = (self.lengths.len() + 1) * size_of::<u16>();
        let len = end - self.next_start();
        if len > MAX_ITEM_BYTES || end + table + TRAILER > INLINE {
            return false;
        }
        // An item is shorter than a frame.
        self.lengths.push(u16::try_from(len).unwrap_or(u16::MAX));
        self.end = end;
        true
    }

    /// Makes `bytes`, where the items are and perhaps more behind them, the request. Says how many items it has; the
    /// builder is empty then.
    pub(crate) fn finish(&mut self, bytes: &mut Vec<u8>) -> u32 {
        // A frame has no room for more lengths than this.
        let count = u16::try_from(self.lengths.len()).unwrap_or(u16::MAX);
        bytes.truncate(self.end);
        for length in self.lengths.drain(..) {
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        bytes.extend_from_slice(&0u16.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        self.end = 0;
        u32::from(count)
    }
}

/// The items of a request that are to be run, in order.
#[derive(Clone, Debug)]
pub(crate) struct Items<'a> {
    bytes: &'a [u8],
    lengths: &'a [[u8; 2]],
    /// Where the next one may begin.
    at: usize,
}

impl<'a> Items<'a> {
    /// Finds the items, or says why this is no batch.
    pub(crate) fn parse(request: &'a [u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "a batch that is too short";
        let (rest, [first @ .., low, high]) = request.split_last_chunk::<TRAILER>().ok_or(SHORT)?;
        let (first, count) = (u16::from_le_bytes(*first), u16::from_le_bytes([*low, *high]));
        if first >= count {
            return Err("a batch in which nothing is to be run");
        }
        let table = rest.len().checked_sub(usize::from(count) * size_of::<u16>()).ok_or(SHORT)?;
        let (bytes, table) = rest.split_at(table);
        let (lengths, _) = table.as_chunks::<2>();
        let mut items = Self { bytes, lengths, at: 0 };
        for _ in 0..first {
            items.next().ok_or(SHORT)?;
        }
        Ok(items)
    }

    /// How many are left.
    pub(crate) fn left(&self) -> usize {
        self.lengths.len()
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, lengths) = self.lengths.split_first()?;
        let start = self.at.next_multiple_of(ALIGNMENT);
        self.at = start + usize::from(u16::from_le_bytes(*length));
        self.lengths = lengths;
        self.bytes.get(start..self.at)
    }
}

/// How many items of a request are to be run; 0 if it is none.
pub(crate) fn left(request: &[u8]) -> u32 {
    Items::parse(request).map_or(0, |items| u32::try_from(items.left()).unwrap_or(0))
}

/// Makes the first `answered` of those that are to be run be passed over.
pub(crate) fn pass_over(request: &mut [u8], answered: u32) {
    if let Some([low, high, ..]) = request.last_chunk_mut::<TRAILER>() {
        let first = u32::from(u16::from_le_bytes([*low, *high])).saturating_add(answered);
        [*low, *high] = u16::try_from(first).unwrap_or(u16::MAX).to_le_bytes();
    }
}

/// The length of a result that takes the rest of the answer.
const LONG: u64 = (1 << 28) - 1;

/// What stands before the result of the item of number `at`, counted in the answer to the request of this serial.
#[inline]
pub(crate) fn head(kind: FrameKind, (serial, at): (u64, u64), result: &[u8]) -> [u8; HEAD] {
    // A result that is not long is shorter than a frame.
    seal((kind as u64) << 28 | result.len() as u64, (serial, at), result)
}

/// What stands before a result that takes the rest of the answer.
pub(crate) fn head_of_long(kind: FrameKind, (serial, at): (u64, u64)) -> [u8; HEAD] {
    seal((kind as u64) << 28 | LONG, (serial, at), &[])
}

#[inline]
fn seal(upper: u64, place: (u64, u64), result: &[u8]) -> [u8; HEAD] {
    (upper << 32 | u64::from(sum(upper, place, result))).to_le_bytes()
}

/// A sum in the manner of hash tables: every step can be reversed, so a change of one word is always noticed.
#[inline]
fn sum(upper: u64, (serial, at): (u64, u64), result: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| (state ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let mut state = mix(mix(serial.wrapping_mul(FACTOR) ^ at, upper), 0);
    let (words, rest) = result.as_chunks::<8>();
    for word in words {
        state = mix(state, u64::from_le_bytes(*word));
    }
    // The last bytes are read in pieces that may overlap: copying them together would take longer than all the rest.
    state = match (result.last_chunk::<8>(), rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        _ if rest.is_empty() => state,
        (Some(last), ..) => mix(state, u64::from_le_bytes(*last)),
        (None, Some(first), Some(last)) => {
            mix(state, u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last)))
        }
        _ => rest.iter().fold(state, |state, byte| mix(state, u64::from(*byte))),
    };
    let folded = mix(state, FACTOR);
    (folded >> 32) as u32 ^ low(folded)
}

#[inline]
fn low(word: u64) -> u32 {
    // Half of a word is meant.
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0)
}

/// Where the next result begins after one that ended at `end`.
#[inline]
pub(crate) fn next_result(end: usize) -> usize {
    end.next_multiple_of(HEAD)
}

/// The results in an answer, in order. Ends at the first that is none.
#[derive(Clone, Debug)]
pub(crate) struct Results<'a> {
    rest: &'a [u8],
}

impl<'a> Results<'a> {
    pub(crate) fn of(answer: &'a [u8]) -> Self {
        Self { rest: answer }
    }
}

impl<'a> Results<'a> {
    /// The next result, and what stands before it.
    #[inline]
    fn next_with_head(&mut self) -> Option<(u64, FrameKind, &'a [u8])> {
        let (head, behind) = self.rest.split_first_chunk::<HEAD>()?;
        let head = u64::from_le_bytes(*head);
        let kind = FrameKind::of_result(u8::try_from(head >> 60).ok()?)?;
        let len = match head >> 32 & LONG {
            LONG => behind.len(),
            len => usize::try_from(len).ok()?,
        };
        let result = behind.get(..len)?;
        self.rest = behind.get(next_result(len)..).unwrap_or(&[]);
        Some((head, kind, result))
    }
}

impl<'a> Iterator for Results<'a> {
    type Item = (FrameKind, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_with_head().map(|(_, kind, result)| (kind, result))
    }
}

/// What an answer says about its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many items it answers.
    pub(crate) answered: u32,
    /// All of these are results, and none is a failure.
    pub(crate) good: bool,
    /// How many of the answer's bytes these are.
    pub(crate) len: usize,
}

/// Counts the first results of an answer to the request of this serial, as long as their sums are right, `most` of them at
/// most.
pub(crate) fn tally(answer: &[u8], most: u32, serial: u64) -> Tally {
    let mut results = Results::of(answer);
    let mut tally = Tally { answered: 0, good: true, len: 0 };
    while tally.answered < most
        && let Some((head, kind, result)) = results.next_with_head()
    {
        let (upper, place) = (head >> 32, (serial, u64::from(tally.answered)));
        let summed = if upper & LONG == LONG { &[] } else { result };
        if sum(upper, place, summed) != low(head) {
            return tally;
        }
        tally.answered += 1;
        tally.good &= kind == FrameKind::Done;
        tally.len = answer.len() - results.rest.len();
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator of numbers that look random, the same ones each time.
    struct Dice(u64);

    impl Dice {
        fn next(&mut self, below: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 16).unwrap() % below
        }

        fn bytes(&mut self, len: usize) -> Vec<u8> {
            (0..len).map(|_| u8::try_from(self.next(256)).unwrap()).collect()
        }
    }

    fn put(builder: &mut Builder, bytes: &mut Vec<u8>, item: &[u8]) -> bool {
        bytes.resize(builder.next_start(), 0);
        bytes.extend_from_slice(item);
        builder.put(bytes.len())
    }

    const SERIAL: u64 = 1 << 40;

    fn answer(results: &[(FrameKind, Vec<u8>)]) -> Vec<u8> {
        let mut answer = Vec::new();
        for (at, (kind, result)) in (0..).zip(results) {
            answer.resize(next_result(answer.len()), 0xee);
            answer.extend_from_slice(&head(*kind, (SERIAL, at), result));
            answer.extend_from_slice(result);
        }
        answer
    }

    #[test]
    fn items_are_read_as_they_were_written_from_any_first_on() {
        let mut dice = Dice(7);
        let mut builder = Builder::default();
        for longest in [1, 9, 40, 300, MAX_ITEM_BYTES + 1] {
            let (mut items, mut request) = (Vec::new(), Vec::new());
            loop {
                let len = dice.next(longest);
                let item = dice.bytes(len);
                if !put(&mut builder, &mut request, &item) {
                    break;
                }
                items.push(item);
            }
            assert_eq!(builder.count(), items.len());
            let count = builder.finish(&mut request);
            assert!(request.len() <= INLINE && count as usize == items.len());
            for first in 0..items.len() {
                let read: Vec<_> = Items::parse(&request).unwrap().collect();
                assert_eq!(read, items[first..]);
                assert_eq!(left(&request) as usize, items.len() - first);
                pass_over(&mut request, 1);
            }
            assert_eq!(left(&request), 0);
        }
    }

    #[test]
    fn every_item_begins_where_numbers_may_be_lent() {
        let (mut builder, mut request) = (Builder::default(), Vec::new());
        for len in [1, 16, 17, 3] {
            assert!(put(&mut builder, &mut request, &vec![7; len]));
        }
        builder.finish(&mut request);
        for item in Items::parse(&request).unwrap() {
            let at = item.as_ptr() as usize - request.as_ptr() as usize;
            assert_eq!(at % ALIGNMENT, 0);
        }
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let mut dice = Dice(11);
        let kinds = [FrameKind::Done, FrameKind::Panicked, FrameKind::BadArguments, FrameKind::BadResult];
        for count in 0..50 {
            let results: Vec<_> = (0..count)
                .map(|_| {
                    let len = dice.next(40);
                    (kinds[dice.next(4)], dice.bytes(len))
                })
                .collect();
            let answer = answer(&results);
            let read: Vec<_> = Results::of(&answer).map(|(kind, bytes)| (kind, bytes.to_vec())).collect();
            assert_eq!(read, results);
            let good = results.iter().all(|(kind, _)| *kind == FrameKind::Done);
            assert_eq!(tally(&answer, u32::MAX, SERIAL), Tally { answered: count, good, len: answer.len() });
        }
    }

    #[test]
    fn garbage_is_read_to_some_end() {
        let mut dice = Dice(13);
        let (mut builder, mut request) = (Builder::default(), Vec::new());
        while put(&mut builder, &mut request, &[1; 30]) {}
        builder.finish(&mut request);
        let results = answer(&vec![(FrameKind::Done, vec![3; 12]); 100]);
        for round in 0..20_000 {
            let mut bytes = if round % 2 == 0 { request.clone() } else { results.clone() };
            for _ in 0..=dice.next(4) {
                let at = dice.next(bytes.len());
                bytes[at] = u8::try_from(dice.next(256)).unwrap();
            }
            bytes.truncate(dice.next(bytes.len() + 1));
            if let Ok(items) = Items::parse(&bytes) {
                assert!(items.map(<[u8]>::len).sum::<usize>() <= 20 * INLINE);
            }
            pass_over(&mut bytes, u32::MAX);
            let tally = tally(&bytes, 100, SERIAL);
            assert!(tally.answered <= 100 && tally.len <= bytes.len());
        }
    }

    #[test]
    fn every_single_changed_bit_of_a_result_is_noticed() {
        for len in (0..20).chain([31, 32, 33, 200]) {
            let bytes: Vec<u8> = (0..len).map(|n| u8::try_from(n).unwrap()).collect();
            let results = [(FrameKind::Done, vec![1, 2, 3]), (FrameKind::Done, bytes.clone())];
            let right = answer(&results);
            assert_eq!(tally(&right, 9, SERIAL), Tally { answered: 2, good: true, len: right.len() });
            assert_eq!(tally(&right, 9, SERIAL + 1).answered, 0, "of another batch");
            assert_eq!(tally(&right[16..], 9, SERIAL).answered, 0, "at another place");
            for bit in 0..8 * right.len() {
                let mut changed = right.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let between = (11..16).contains(&(bit / 8));
                assert_eq!(tally(&changed, 9, SERIAL).answered < 2, !between, "{len} bytes, bit {bit}");
            }
        }
    }

    #[test]
    fn a_long_result_takes_the_rest() {
        let mut bytes = answer(&[(FrameKind::Done, vec![7; 3])]);
        bytes.resize(next_result(bytes.len()), 0);
        bytes.extend_from_slice(&head_of_long(FrameKind::Panicked, (SERIAL, 1)));
        bytes.extend_from_slice(&[9; 5_001]);
        assert_eq!(tally(&bytes, 9, SERIAL), Tally { answered: 2, good: false, len: bytes.len() });
        assert_eq!(Results::of(&bytes).last(), Some((FrameKind::Panicked, &[9; 5_001][..])));
    }
}
