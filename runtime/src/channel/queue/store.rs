//! Putting and getting: the protocol of a queue's memory.
//!
//! Owns: who writes which word when. Runs in: any process that has an end of the queue.
//! Never: encodes, decodes, or waits for room or for an item; and never makes a system call itself, but through
//! [`Memory`], so that a model checker can run it.
//!
//! # The words
//!
//! | word | written by | what it says |
//! |---|---|---|
//! | `put.place` | who puts, under `put.lock`, last | where the next item goes, and how many were put |
//! | `get.place` | who gets, under `get.lock`, last | where the next item is, and how many were got |
//! | `put.bytes`, `get.bytes` | the same, before the place | how many bytes went by; the one of the place's parity counts |
//! | `put.seen`, `get.seen` | the same | a place of the other side that was seen: looking there costs a cache miss |
//! | a chunk's state | see [`stock`](super::stock) | whose it is |
//! | a ticket, `get.number`, a chunk's `lent` | who gets, under `get.lock` | who has a lent item, how many there are, and how many of a chunk |
//! | `put.sleepers` | under `put.lock` | those who wait for an item |
//! | `get.sleepers` | under `get.lock` | those who wait for room |
//!
//! An item is put by the one store of `put.place`, and taken by the one store of `get.place`. Everything before is as if it
//! had never been, should its process be killed; everything after is found out by others.
//!
//! # Deaths
//!
//! | killed | what it costs |
//! |---|---|
//! | while it puts, before the store | the item, which was never put; a chunk, or the chunks of a long item, until they are swept |
//! | after the store, before it gives the lock back or wakes anybody | nothing: the next finds the lock of a dead, and who sleeps looks again |
//! | while it gets, before the store | nothing: the item is still there |
//! | after the store | the item, which was taken; the chunks of a long one until they are swept |
//! | with a lent item | nothing: it comes back, as its ticket names one who is dead |
//! | while it says that a lent item is done | the item comes back, or is done |

use std::time::Instant;

use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::layout::{Chunk, Head, LONG_PART, MOST_ITEMS, Place, Shape, Ticket, UNIT, UNITS};
use super::lock::Taken;
use super::members;
use super::memory::{Memory, Refused};
use super::sleepers::{ALL, Called, Sleepers, Turn};
use super::stock::NoChunk;
use super::sweep::is_dead;
use super::words::Side;

/// Why an item was not put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotPut {
    /// There is no room now, with the consumers at this place.
    Full(u64),
    /// The queue was closed.
    Closed,
    /// The kernel refuses what is needed.
    Refused(Refused),
}

/// Why there is no item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotGot {
    /// There is none now, with the producers at this place.
    Empty(u64),
    /// What is there was not written by us.
    Corrupt,
    /// The kernel refuses what is needed; the item stays.
    Refused(Refused),
}

/// An item that came out.
#[derive(Debug)]
pub(super) struct Got<R> {
    /// Where it stands, if it is lent.
    pub(super) at: (u32, u32),
    /// What came beside it.
    pub(super) beside: Option<R>,
    /// How many bytes it has.
    pub(super) len: usize,
    /// Where they are, if it is long; those of any other were copied out.
    long: Option<Vec<u32>>,
}

/// A lock of the queue, until this is dropped; then those who were called are woken.
pub(super) struct Inside<'a> {
    side: &'a Side,
    called: Option<(&'a Sleepers, Called, u32)>,
}

impl<'a> Inside<'a> {
    /// So many of those who wait for this side may go on.
    #[inline]
    pub(super) fn call(&mut self, count: u32) {
        self.call_of(&self.side.sleepers, count);
    }

    #[inline]
    fn call_of(&mut self, sleepers: &'a Sleepers, count: u32) {
        self.called = Some((sleepers, sleepers.call(), count));
    }

    /// This thread is about to wait for this side.
    pub(super) fn enlist(&self) -> Turn {
        self.side.sleepers.enlist()
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.side.lock.unlock();
        if let Some((sleepers, called, count)) = &self.called {
            sleepers.wake(called, *count);
        }
    }
}

/// A long item in chunks of its own, not in the queue yet. They are put back when this is dropped.
pub(super) struct Long<'a> {
    memory: &'a Memory,
    chunks: Vec<u32>,
    len: usize,
}

impl Drop for Long<'_> {
    fn drop(&mut self) {
        self.chunks.drain(..).for_each(|chunk| self.memory.put_back(chunk));
    }
}

impl Memory {
    /// The side of those who put, locked. None: the deadline is over.
    #[inline]
    pub(super) fn putting(&self, deadline: Option<Instant>) -> Option<Inside<'_>> {
        let side = &self.words().put;
        let taken = side.lock.lock(deadline)?;
        let inside = Inside { side, called: None };
        if taken == Taken::FromDead {
            self.words().stock.dirty.store(1, Relaxed);
            side.seen.store(self.words().get.place.load(Acquire), Relaxed);
        }
        Some(inside)
    }

    /// The side of those who get, locked. None: the deadline is over.
    #[inline]
    pub(super) fn getting(&self, deadline: Option<Instant>) -> Option<Inside<'_>> {
        let side = &self.words().get;
        let taken = side.lock.lock(deadline)?;
        let inside = Inside { side, called: None };
        if taken == Taken::FromDead {
            self.words().stock.dirty.store(1, Relaxed);
            side.seen.store(side.place.load(Relaxed), Relaxed);
            self.count_lent();
        }
        Some(inside)
    }

    /// How many items there are that nobody has got.
    pub(super) fn len(&self) -> u32 {
        // In this order, so that it is never less than there were at some moment.
        let head = Place::of(self.words().get.place.load(Acquire));
        Place::of(self.words().put.place.load(Acquire)).since(head)
    }

    /// The longest item that there could ever be memory for, in bytes.
    pub(super) fn longest(&self) -> usize {
        (self.chunks() as usize - 2) * LONG_PART
    }

    /// How many bytes an item takes of those that the queue may hold.
    pub(super) fn cost(bytes: usize, shape: Shape) -> u64 {
        shape.units() as u64 * UNIT as u64 + if shape.long { bytes as u64 } else { 0 }
    }

    /// Checks that there is room for an item of that cost. Under `put.lock`.
    #[inline]
    pub(super) fn room(&self, cost: u64) -> Result<(), NotPut> {
        let words = self.words();
        let tail = Place::of(words.put.place.load(Relaxed));
        let most = words.most_items.load(Relaxed).min(MOST_ITEMS - 1);
        let most_bytes = words.most_bytes.load(Relaxed);
        let fits = |head: Place| {
            tail.since(head) < most
                && (most_bytes == u64::MAX || {
                    let put = words.put.bytes[tail.parity()].load(Relaxed);
                    let got = words.get.bytes[head.parity()].load(Relaxed);
                    // A count that is further than the place that it was read for only makes more room.
                    put.wrapping_sub(got).saturating_add(cost) <= most_bytes
                })
        };
        if fits(Place::of(words.put.seen.load(Relaxed))) {
            return Ok(());
        }
        let head = words.get.place.load(Acquire);
        words.put.seen.store(head, Relaxed);
        if fits(Place::of(head)) { Ok(()) } else { Err(NotPut::Full(head)) }
    }

    /// Puts an item into the queue, last. Says whether it begins another chunk.
    ///
    /// `long` is the item, if it is long; `send` sends what is beside it in the message of a number.
    #[inline]
    pub(super) fn put(
        &self,
        inside: &mut Inside<'_>,
        (shape, bytes): (Shape, &[u8]),
        long: Option<&mut Long<'_>>,
        send: impl FnOnce(u64) -> Result<(), NotPut>,
    ) -> Result<bool, NotPut> {
        let words = self.words();
        if words.closed.load(Relaxed) != 0 {
            return Err(NotPut::Closed);
        }
        let cost = Self::cost(bytes.len(), shape);
        self.room(cost)?;
        let tail = Place::of(words.put.place.load(Relaxed));
        self.reach(tail.chunk).map_err(NotPut::Refused)?;
        let hops = !shape.fits(tail.unit);
        let place = if hops { tail.at_start_of(self.next_chunk()?) } else { tail };
        let at = (place.chunk, place.unit);
        self.set_unit(at, Head::Item(shape).word());
        if shape.lent {
            self.set_ticket(at, Ticket::Fresh);
        }
        if shape.beside {
            let number = words.put.number.load(Relaxed) + 1;
            words.put.number.store(number, Relaxed);
            self.set_unit((at.0, at.1 + shape.before()), number);
            if let Err(error) = send(number) {
                if hops {
                    self.put_back(place.chunk);
                }
                return Err(error);
            }
        }
        let body = at.1 + 1 + shape.before();
        match long {
            None => self.write((at.0, body), bytes),
            Some(long) => {
                self.set_unit((at.0, body), long.len as u64);
                self.set_unit((at.0, body + 1), long.chunks.first().map_or(0, |chunk| u64::from(*chunk)));
                // As of now they are the queue's: what is not put after all is swept.
                for chunk in std::mem::take(&mut long.chunks) {
                    self.state(chunk).store(Chunk::Queued.word(), Relaxed);
                }
            }
        }
        if hops {
            self.set_unit((tail.chunk, tail.unit), Head::Hop(place.chunk).word());
        }
        let next = place.behind(shape.units());
        words.put.bytes[next.parity()].store(words.put.bytes[tail.parity()].load(Relaxed).wrapping_add(cost), Relaxed);
        words.put.place.store(next.word(), Release);
        inside.call(1);
        Ok(hops)
    }

    /// A chunk for the items that come now. Under `put.lock`.
    #[cold]
    fn next_chunk(&self) -> Result<u32, NotPut> {
        if self.words().stock.is_sweep_due() {
            let _getting = self.getting(None);
            self.sweep();
        }
        self.take(Chunk::Queued).map_err(|no| self.not_put(no))
    }

    fn not_put(&self, no: NoChunk) -> NotPut {
        match no {
            NoChunk::Full => NotPut::Full(self.words().get.place.load(Acquire)),
            NoChunk::Refused(errno) => NotPut::Refused(errno),
        }
    }

    /// Copies a long item into chunks of its own. Without a lock.
    pub(super) fn fill(&self, bytes: &[u8]) -> Result<Long<'_>, NotPut> {
        if self.words().stock.is_sweep_due() {
            let (_putting, _getting) = (self.putting(None), self.getting(None));
            self.sweep();
        }
        let mut long = Long { memory: self, chunks: Vec::new(), len: bytes.len() };
        for part in bytes.chunks(LONG_PART) {
            let chunk = self.take(Chunk::Of(members::own().bits())).map_err(|no| self.not_put(no))?;
            self.write((chunk, 0), part);
            self.set_unit((chunk, UNITS - 1), Head::Hop(0).word());
            if let Some(before) = long.chunks.last() {
                self.set_unit((*before, UNITS - 1), Head::Hop(chunk).word());
            }
            long.chunks.push(chunk);
        }
        Ok(long)
    }

    /// Takes the first item out, or lends it, if it is one that is lent; `look` gets what is beside it, in the message of a number.
    ///
    /// Its bytes are in `buffer` afterwards, which begins with them; those of a long one are still to be [copied](Self::copy).
    #[inline]
    pub(super) fn get<R>(
        &self,
        inside: &mut Inside<'_>,
        buffer: &mut Buffer,
        look: impl FnOnce(u64) -> Result<R, Refused>,
    ) -> Result<Got<R>, NotGot> {
        let words = self.words();
        if words.get.returned.load(Relaxed) != 0
            && let Some((at, shape)) = self.find_returned()
        {
            return self.take_item((at, shape), false, buffer, look);
        }
        loop {
            let head = Place::of(words.get.place.load(Relaxed));
            if Place::of(words.get.seen.load(Relaxed)).since(head) == 0 {
                let tail = words.put.place.load(Acquire);
                words.get.seen.store(tail, Relaxed);
                if Place::of(tail).since(head) == 0 {
                    return Err(NotGot::Empty(tail));
                }
            }
            self.reach(head.chunk).map_err(NotGot::Refused)?;
            match self.head((head.chunk, head.unit)).ok_or(NotGot::Corrupt)? {
                Head::Hop(next) => {
                    words.get.place.store(head.at_start_of(next).word(), Release);
                    self.leave(head.chunk);
                }
                Head::Item(shape) => {
                    let got = self.take_item(((head.chunk, head.unit), shape), true, buffer, look)?;
                    let next = head.behind(shape.units());
                    let cost = Self::cost(got.len, shape);
                    let bytes = words.get.bytes[head.parity()].load(Relaxed).wrapping_add(cost);
                    words.get.bytes[next.parity()].store(bytes, Relaxed);
                    words.get.place.store(next.word(), Release);
                    inside.call(1);
                    return Ok(got);
                }
            }
        }
    }

    /// Reads an item, and notes that this process has it; `first`: nobody had it before.
    #[inline]
    fn take_item<R>(
        &self,
        (at, shape): ((u32, u32), Shape),
        first: bool,
        buffer: &mut Buffer,
        look: impl FnOnce(u64) -> Result<R, Refused>,
    ) -> Result<Got<R>, NotGot> {
        let beside = if shape.beside {
            Some(look(self.unit((at.0, at.1 + shape.before()))).map_err(NotGot::Refused)?)
        } else {
            None
        };
        let (len, long) = if shape.long {
            let (len, chunks) = self.chain(at, shape).ok_or(NotGot::Corrupt)?;
            (len, Some(chunks))
        } else {
            self.read((at.0, at.1 + 1 + shape.before()), buffer.of(shape.len as usize));
            (shape.len as usize, None)
        };
        let me = members::own().bits();
        if shape.lent {
            // The ticket last: it is what says that the item is lent.
            if first {
                let (lent, all) = (self.lent(at.0), &self.words().get.number);
                lent.store(lent.load(Relaxed) + 1, Relaxed);
                all.store(all.load(Relaxed) + 1, Relaxed);
            }
            self.set_ticket(at, Ticket::With(me));
        } else if let Some(chunks) = &long {
            chunks.iter().for_each(|chunk| self.state(*chunk).store(Chunk::Of(me).word(), Relaxed));
        }
        Ok(Got { at, beside, len, long })
    }

    /// Copies out what is still elsewhere. Without a lock.
    pub(super) fn copy<R>(&self, got: &Got<R>, buffer: &mut Buffer, lent: bool) {
        let Some(chunks) = &got.long else { return };
        for (part, chunk) in buffer.of(got.len).chunks_mut(LONG_PART).zip(chunks) {
            self.read((*chunk, 0), part);
        }
        if !lent {
            chunks.iter().for_each(|chunk| self.put_back(*chunk));
        }
    }

    /// The consumers have left a chunk. Under `get.lock`.
    fn leave(&self, chunk: u32) {
        if self.lent(chunk).load(Relaxed) == 0 {
            self.put_back(chunk);
        }
    }

    /// A lent item that its holder gave back, or left behind when it died. Under `get.lock`.
    #[cold]
    fn find_returned(&self) -> Option<((u32, u32), Shape)> {
        let mut found = None;
        self.each_lent(|at, shape, ticket| {
            let free = match ticket {
                Ticket::Returned => true,
                Ticket::With(member) => is_dead(member),
                Ticket::Fresh | Ticket::Done => false,
            };
            if free && found.is_none() {
                found = Some((at, shape));
            }
        });
        if found.is_none() {
            self.words().get.returned.store(0, Relaxed);
        }
        found
    }

    /// Goes through what stands in chunks with lent items, up to the consumers' place.
    fn each_lent(&self, mut each: impl FnMut((u32, u32), Shape, Ticket)) {
        let head = Place::of(self.words().get.place.load(Relaxed));
        for chunk in (0..self.used()).filter(|chunk| self.lent(*chunk).load(Relaxed) > 0) {
            let end = (chunk == head.chunk).then_some(head.unit);
            self.walk((chunk, 0), end, |at, shape| {
                if let Some(ticket) = self.ticket(at, shape) {
                    each(at, shape, ticket);
                }
            });
        }
    }

    /// Counts again what is lent, after a death: the tickets say so. Under `get.lock`.
    #[cold]
    fn count_lent(&self) {
        let head = Place::of(self.words().get.place.load(Relaxed));
        let mut all = 0;
        for chunk in (0..self.used()).filter(|chunk| self.lent(*chunk).load(Relaxed) > 0) {
            let mut lent = 0;
            let end = (chunk == head.chunk).then_some(head.unit);
            self.walk((chunk, 0), end, |at, shape| {
                lent += u32::from(matches!(self.ticket(at, shape), Some(Ticket::With(_) | Ticket::Returned)));
            });
            self.lent(chunk).store(lent, Relaxed);
            all += u64::from(lent);
        }
        self.words().get.number.store(all, Relaxed);
        self.words().get.returned.store(1, Relaxed);
    }

    /// A lent item is done. Under `get.lock`. False: this process does not have it, but perhaps a copy of it does.
    pub(super) fn done<'a>(&'a self, inside: &mut Inside<'a>, at: (u32, u32)) -> bool {
        let Some(Head::Item(shape)) = self.head(at) else { return false };
        if self.ticket(at, shape) != Some(Ticket::With(members::own().bits())) {
            return false;
        }
        let chain = if shape.long { self.chain(at, shape) } else { None };
        self.set_ticket(at, Ticket::Done);
        chain.into_iter().flat_map(|(_, chunks)| chunks).for_each(|chunk| self.put_back(chunk));
        let words = self.words();
        let lent = self.lent(at.0).load(Relaxed).saturating_sub(1);
        self.lent(at.0).store(lent, Relaxed);
        words.get.number.store(words.get.number.load(Relaxed).saturating_sub(1), Relaxed);
        if lent == 0 && Place::of(words.get.place.load(Relaxed)).chunk != at.0 {
            self.put_back(at.0);
        }
        if self.unfinished() == 0 {
            inside.call_of(&words.get.joiners, ALL);
        }
        true
    }

    /// A lent item comes back. Under `get.lock`.
    pub(super) fn give_up(&self, at: (u32, u32)) {
        let Some(Head::Item(shape)) = self.head(at) else { return };
        if self.ticket(at, shape) == Some(Ticket::With(members::own().bits())) {
            self.set_ticket(at, Ticket::Returned);
            self.words().get.returned.store(1, Relaxed);
        }
    }

    /// Whether an item is lent that may come back from another process. Under `get.lock`.
    pub(super) fn is_lent_elsewhere(&self) -> bool {
        let (me, mut elsewhere) = (members::own().bits(), false);
        self.each_lent(|_, _, ticket| {
            elsewhere |= ticket == Ticket::Returned || matches!(ticket, Ticket::With(member) if member != me);
        });
        elsewhere
    }

    /// This thread is about to wait until all is done. Under `get.lock`.
    pub(super) fn enlist_joiner(&self) -> Turn {
        self.words().get.joiners.enlist()
    }

    /// How many items were put and are not done. Under `get.lock`.
    pub(super) fn unfinished(&self) -> u64 {
        u64::from(self.len()) + self.words().get.number.load(Relaxed)
    }
}

/// Memory for an item's bytes, aligned as a payload is to be.
#[derive(Debug, Default)]
pub(super) struct Buffer(Vec<u128>);

impl Buffer {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many bytes of memory it has.
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity() * size_of::<u128>()
    }

    /// So many bytes.
    #[inline]
    pub(super) fn of(&mut self, len: usize) -> &mut [u8] {
        let words = len.div_ceil(size_of::<u128>());
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }

    /// The bytes of an item that was got.
    #[inline]
    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..len]
    }
}
