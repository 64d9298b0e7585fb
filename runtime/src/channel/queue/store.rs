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

use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use super::layout::{Chunk, Head, LONG_PART, MOST_ITEMS, Place, Shape, Ticket, UNIT, UNITS};
use super::lock::Taken;
use super::members;
use super::memory::{Memory, Refused};
use super::sleepers::{ALL, Called, Sleepers, Turn};
use super::stock::NoChunk;
use super::sweep::is_dead;
use super::words::Side;

/// So many bytes are faster copied unit by unit.
const FEW: usize = 64;

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
            None => self.write_units((at.0, body), bytes),
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

    /// Writes the bytes of an item: few of them without calling anybody.
    #[inline]
    fn write_units(&self, at: (u32, u32), bytes: &[u8]) {
        if bytes.len() > FEW {
            return self.write(at, bytes);
        }
        let (numbers, rest) = bytes.as_chunks();
        let mut unit = at.1;
        for number in numbers {
            self.set_unit((at.0, unit), u64::from_ne_bytes(*number));
            unit += 1;
        }
        if !rest.is_empty() {
            let mut last = [0; UNIT];
            last[..rest.len()].copy_from_slice(rest);
            self.set_unit((at.0, unit), u64::from_ne_bytes(last));
        }
    }

    /// Reads what [`write_units`](Self::write_units) wrote.
    #[inline]
    fn read_units(&self, at: (u32, u32), into: &mut [u8]) {
        if into.len() > FEW {
            return self.read(at, into);
        }
        let (numbers, rest) = into.as_chunks_mut();
        let mut unit = at.1;
        for number in numbers {
            *number = self.unit((at.0, unit)).to_ne_bytes();
            unit += 1;
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&self.unit((at.0, unit)).to_ne_bytes()[..rest.len()]);
        }
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

    /// Takes the first item out without a lock, if it is short, and the only one to be changed is the consumers' place. None: it
    /// takes the lock, or another look.
    ///
    /// What is read may be of an item that another consumer has taken meanwhile, and be anything; then the place has
    /// changed, and the exchange fails. Chunks are left under the lock only, so the one in which an item was taken is there.
    #[inline]
    pub(super) fn get_short(&self, buffer: &mut Buffer) -> Result<Option<usize>, NotGot> {
        let words = self.words();
        if words.most_bytes.load(Relaxed) != u64::MAX {
            return Ok(None);
        }
        loop {
            let word = words.get.place.load(Acquire);
            let head = Place::of(word);
            self.look_for_tail(head)?;
            if self.reach(head.chunk).is_err() {
                return Ok(None);
            }
            let Some(Head::Item(shape)) = self.head((head.chunk, head.unit)) else { return Ok(None) };
            if shape.long || shape.beside || shape.lent || shape.len as usize > FEW {
                return Ok(None);
            }
            self.read_units((head.chunk, head.unit + 1), buffer.of(shape.len as usize));
            let next = head.behind(shape.units());
            if words.get.place.compare_exchange(word, next.word(), SeqCst, Relaxed).is_err() {
                std::hint::spin_loop();
                continue;
            }
            if self.leaves_much_room(next)
                && words.get.sleepers.may_sleep()
                && let Some(mut inside) = self.getting(None)
            {
                inside.call(1);
            }
            return Ok(Some(shape.len as usize));
        }
    }

    /// Checks that there is an item at the consumers' place.
    #[inline]
    fn look_for_tail(&self, head: Place) -> Result<(), NotGot> {
        let words = self.words();
        // One that was seen by somebody slower may lie behind.
        if (1..=MOST_ITEMS / 2).contains(&Place::of(words.get.seen.load(Acquire)).since(head)) {
            return Ok(());
        }
        let tail = words.put.place.load(Acquire);
        words.get.seen.store(tail, Release);
        if Place::of(tail).since(head) == 0 { Err(NotGot::Empty(tail)) } else { Ok(()) }
    }

    /// Whether those who wait for room are to hear of it: who waits, waits for much of it, or until he looks again. Else each
    /// item would wake one for one.
    #[inline]
    fn leaves_much_room(&self, head: Place) -> bool {
        let words = self.words();
        Place::of(words.get.seen.load(Relaxed)).since(head) <= words.most_items.load(Relaxed) / 2
    }

    /// Takes the first item out, or lends it, if it is one that is lent; `look` gets what is beside it, in the message of a number.
    ///
    /// Its bytes are in `buffer` afterwards, which begins with them; those of a long one are still to be [copied](Self::copy).
    #[inline]
    pub(super) fn get<R>(
        &self,
        inside: &mut Inside<'_>,
        (buffer, got): (&mut Buffer, &mut Got<R>),
        mut look: impl FnMut(u64) -> Result<R, Refused>,
    ) -> Result<usize, NotGot> {
        let words = self.words();
        if words.get.returned.load(Relaxed) != 0
            && let Some((at, shape)) = self.find_returned()
        {
            return self.take_item((at, shape), false, (buffer, got), &mut look);
        }
        loop {
            let word = words.get.place.load(Acquire);
            let head = Place::of(word);
            self.look_for_tail(head)?;
            self.reach(head.chunk).map_err(NotGot::Refused)?;
            match self.head((head.chunk, head.unit)).ok_or(NotGot::Corrupt)? {
                Head::Hop(next) => {
                    words.get.place.store(head.at_start_of(next).word(), Release);
                    self.leave(head.chunk);
                }
                Head::Item(shape) => {
                    let len = self.take_item(((head.chunk, head.unit), shape), true, (buffer, got), &mut look)?;
                    let next = head.behind(shape.units());
                    let cost = Self::cost(len, shape);
                    let bytes = words.get.bytes[head.parity()].load(Relaxed).wrapping_add(cost);
                    words.get.bytes[next.parity()].store(bytes, Relaxed);
                    // Somebody may have taken it without the lock, if it is one of those.
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

    /// Reads an item, and notes that this process has it; `first`: nobody had it before. Says how many bytes it has.
    #[inline]
    fn take_item<R>(
        &self,
        (at, shape): ((u32, u32), Shape),
        first: bool,
        (buffer, got): (&mut Buffer, &mut Got<R>),
        look: &mut impl FnMut(u64) -> Result<R, Refused>,
    ) -> Result<usize, NotGot> {
        let body = (at.0, at.1 + 1 + shape.before());
        let plain = !(shape.lent || shape.beside || shape.long);
        if plain {
            self.read_units(body, buffer.of(shape.len as usize));
            return Ok(shape.len as usize);
        }
        if shape.beside {
            got.beside = Some(look(self.unit((at.0, body.1 - 1))).map_err(NotGot::Refused)?);
        }
        let mut len = shape.len as usize;
        if shape.long {
            (len, got.long) = self.chain(at, shape).ok_or(NotGot::Corrupt)?;
        } else {
            self.read_units(body, buffer.of(len));
        }
        got.at = at;
        let me = members::own().bits();
        if shape.lent {
            // The ticket last: it is what says that the item is lent.
            if first {
                let (lent, all) = (self.lent(at.0), &self.words().get.number);
                lent.store(lent.load(Relaxed) + 1, Relaxed);
                all.store(all.load(Relaxed) + 1, Relaxed);
            }
            self.set_ticket(at, Ticket::With(me));
        } else {
            got.long.iter().for_each(|chunk| self.state(*chunk).store(Chunk::Of(me).word(), Relaxed));
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

/// Memory for an item's bytes, aligned as a payload is to be: a little of its own, and for longer ones what was lent to it.
#[derive(Debug)]
pub(super) struct Buffer {
    own: [u128; 8],
    more: Vec<u128>,
    /// Where to have more from.
    lender: fn() -> Vec<u128>,
}

impl Buffer {
    pub(super) const fn new(lender: fn() -> Vec<u128>) -> Self {
        Self { own: [0; 8], more: Vec::new(), lender }
    }

    /// What was lent.
    pub(super) fn into_lent(self) -> Vec<u128> {
        self.more
    }

    /// So many bytes.
    #[inline]
    pub(super) fn of(&mut self, len: usize) -> &mut [u8] {
        if len <= size_of_val(&self.own) {
            return &mut bytemuck::bytes_of_mut(&mut self.own)[..len];
        }
        if self.more.is_empty() {
            self.more = (self.lender)();
        }
        let words = len.div_ceil(size_of::<u128>());
        if self.more.len() < words {
            self.more.resize(words, 0);
        }
        &mut bytemuck::cast_slice_mut(&mut self.more)[..len]
    }

    /// The bytes of an item that was got.
    #[inline]
    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        if len <= size_of_val(&self.own) {
            return &bytemuck::bytes_of(&self.own)[..len];
        }
        &bytemuck::cast_slice(&self.more)[..len]
    }
}
