//! Dequeuing: how an item leaves a queue's memory.
//!
//! Owns: the two ways out, with the lock and without. Runs in: any process that has an end of the queue.
//! Never: decodes, or waits; see [`enqueue`](super::enqueue) for the words, and what each death costs.
//!
//! A short item, in a queue that does not count bytes, is taken by one exchange of the consumers' cursor. All else is done
//! with the lock: leaving a chunk, long items, handles, leases. So for a thread that looks without the lock, what stands
//! around the place changes only with the place itself.
//!
//! Why producers that wait for room are woken when half of it is free, or look again after 50 ms: otherwise a full
//! queue wakes its producer for every single item.
//!
//! Why nothing passes through memory in pieces of two sizes here: a value that is read as 16 bytes just after 8 of
//! them were stored waits for the store. To return one struct less took a `recv` from 53 ns to 34, and to take
//! without the lock took it to 13.

use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use super::buffer::Buffer;
use super::enqueue::{MAX_UNITWISE_COPY_BYTES, SideGuard};
use super::futex_wait::short_deadline;
use super::layout::{ChunkState, Cursor, ItemHeader, ItemLayout, ItemLease, LONG_PART, MAX_ITEMS};
use super::memory::{MemoryError, QueueMemory};
use super::proc_table;

/// Why there is no item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DequeueError {
    /// There is none now, with the producers at this place.
    Empty(u64),
    /// The lock could not be had in time.
    Late,
    /// What is there was not written by us.
    Corrupt,
    /// The kernel refuses what is needed; the item stays.
    MemoryError(MemoryError),
}

/// What is to be known of an item that came out, beyond its length.
#[derive(Debug)]
pub(super) struct Got<R> {
    /// Where it stands, if it is lent.
    pub(super) at: (u32, u32),
    /// What came beside it.
    pub(super) beside: Option<R>,
    /// The chunks that its bytes are in, if it is long; those of any other were copied out.
    long: Vec<u32>,
}

impl<R> Got<R> {
    pub(super) const fn new() -> Self {
        Self { at: (0, 0), beside: None, long: Vec::new() }
    }
}

impl QueueMemory {
    /// Takes the first item out without a lock, if it is short, and the only one to be changed is the consumers' cursor. None: it
    /// takes the lock, or another look.
    ///
    /// What is read may be of an item that another consumer has taken meanwhile, and be anything; then the place has
    /// changed, and the exchange fails. Chunks are left under the lock only, so the one in which an item was taken is there.
    #[inline]
    pub(super) fn get_short(&self, buffer: &mut Buffer) -> Result<Option<usize>, DequeueError> {
        let words = self.words();
        if words.most_bytes.load(Relaxed) != u64::MAX {
            return Ok(None);
        }
        loop {
            let word = words.get.place.load(Acquire);
            let head = Cursor::of(word);
            self.look_for_tail(head)?;
            if self.reach(head.chunk).is_err() {
                return Ok(None);
            }
            let Some(ItemHeader::Item(shape)) = self.head((head.chunk, head.unit)) else { return Ok(None) };
            if shape.long || shape.beside || shape.lent || shape.len as usize > MAX_UNITWISE_COPY_BYTES {
                return Ok(None);
            }
            self.read_units((head.chunk, head.unit + 1), buffer.of(shape.len as usize));
            let next = head.behind(shape.units());
            if words.get.place.compare_exchange(word, next.word(), SeqCst, Relaxed).is_err() {
                std::hint::spin_loop();
                continue;
            }
            if self.leaves_much_room(next)
                && words.get.sleepers.has_waiters()
                && let Some(mut inside) = self.getting(short_deadline())
            {
                inside.call(1);
            }
            return Ok(Some(shape.len as usize));
        }
    }

    /// Checks that there is an item at the consumers' cursor.
    #[inline]
    fn look_for_tail(&self, head: Cursor) -> Result<(), DequeueError> {
        let words = self.words();
        // One that a slower thread has seen may lie behind.
        if (1..=MAX_ITEMS / 2).contains(&Cursor::of(words.get.seen.load(Acquire)).since(head)) {
            return Ok(());
        }
        let tail = words.put.place.load(Acquire);
        words.get.seen.store(tail, Release);
        if Cursor::of(tail).since(head) == 0 { Err(DequeueError::Empty(tail)) } else { Ok(()) }
    }

    /// Whether to wake the producers that wait for room: only once much of it is free, or when a waiter looks by itself.
    /// Else each item would wake one of them.
    #[inline]
    fn leaves_much_room(&self, head: Cursor) -> bool {
        let words = self.words();
        let left = Cursor::of(words.get.seen.load(Relaxed)).since(head);
        // One that a slower thread has seen may lie behind, and says nothing.
        left <= words.most_items.load(Relaxed) / 2 || left > MAX_ITEMS / 2
    }

    /// Takes the first item out, or lends it, if it is one that is lent; `look` gets what is beside it, in the message of a number.
    ///
    /// Its bytes are in `buffer` afterwards, which begins with them; those of a long one are still to be [copied](Self::copy).
    #[inline]
    pub(super) fn get<R>(
        &self,
        inside: &mut SideGuard<'_>,
        (buffer, got): (&mut Buffer, &mut Got<R>),
        mut look: impl FnMut(u64) -> Result<R, MemoryError>,
    ) -> Result<usize, DequeueError> {
        let words = self.words();
        if words.get.returned.load(Relaxed) != 0
            && let Some((at, shape)) = self.find_returned()
        {
            return self.take_item((at, shape), false, (buffer, got), &mut look);
        }
        loop {
            let word = words.get.place.load(Acquire);
            let head = Cursor::of(word);
            self.look_for_tail(head)?;
            self.reach(head.chunk).map_err(DequeueError::MemoryError)?;
            match self.head((head.chunk, head.unit)).ok_or(DequeueError::Corrupt)? {
                ItemHeader::Hop(next) => {
                    words.get.place.store(head.at_start_of(next).word(), Release);
                    self.leave(head.chunk);
                }
                ItemHeader::Item(shape) => {
                    let len = self.take_item(((head.chunk, head.unit), shape), true, (buffer, got), &mut look)?;
                    let next = head.behind(shape.units());
                    let cost = Self::cost(len, shape);
                    let bytes = words.get.bytes[head.parity()].load(Relaxed).wrapping_add(cost);
                    words.get.bytes[next.parity()].store(bytes, Relaxed);
                    // Another thread may have taken it without the lock, if it is a short one.
                    if words.get.place.compare_exchange(word, next.word(), AcqRel, Relaxed).is_err() {
                        continue;
                    }
                    if self.leaves_much_room(next) {
                        inside.call(1);
                    }
                    return Ok(len);
                }
            }
        }
    }

    /// Reads an item, and notes that this process has it; `first`: it was not lent before. Says how many bytes it has.
    #[inline]
    fn take_item<R>(
        &self,
        (at, shape): ((u32, u32), ItemLayout),
        first: bool,
        (buffer, got): (&mut Buffer, &mut Got<R>),
        look: &mut impl FnMut(u64) -> Result<R, MemoryError>,
    ) -> Result<usize, DequeueError> {
        let body = (at.0, at.1 + 1 + shape.before());
        let plain = !(shape.lent || shape.beside || shape.long);
        if plain {
            self.read_units(body, buffer.of(shape.len as usize));
            return Ok(shape.len as usize);
        }
        if shape.beside {
            got.beside = Some(look(self.unit((at.0, body.1 - 1))).map_err(DequeueError::MemoryError)?);
        }
        let mut len = shape.len as usize;
        if shape.long {
            (len, got.long) = self.chain(at, shape).ok_or(DequeueError::Corrupt)?;
        } else {
            self.read_units(body, buffer.of(len));
        }
        got.at = at;
        let me = proc_table::current().bits();
        if shape.lent {
            // The lease last: it is what says that the item is lent.
            if first {
                let (lent, all) = (self.lent(at.0), &self.words().get.number);
                lent.store(lent.load(Relaxed).wrapping_add(1), Relaxed);
                all.store(all.load(Relaxed).wrapping_add(1), Relaxed);
            }
            self.set_lease(at, ItemLease::With(me));
        } else {
            got.long.iter().for_each(|chunk| self.state(*chunk).store(ChunkState::Of(me).word(), Relaxed));
        }
        Ok(len)
    }

    /// Copies out what is still elsewhere. Without a lock.
    pub(super) fn copy<R>(&self, (got, len): (&Got<R>, usize), buffer: &mut Buffer, lent: bool) {
        if got.long.is_empty() {
            return;
        }
        for (part, chunk) in buffer.of(len).chunks_mut(LONG_PART).zip(&got.long) {
            self.read((*chunk, 0), part);
        }
        if !lent {
            got.long.iter().for_each(|chunk| self.put_back(*chunk));
        }
    }

    /// The consumers have left a chunk. Under `get.lock`.
    fn leave(&self, chunk: u32) {
        if self.lent(chunk).load(Relaxed) == 0 {
            self.put_back(chunk);
        }
    }
}
