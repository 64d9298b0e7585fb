//! A queue in the model's memory: putting, getting and waiting as `core.rs` and `deadline.rs` have it.
//!
//! Runs in: one process, inside the model checker.

use std::sync::Mutex;

use loom::sync::Arc;
use loom::sync::atomic::fence;

use super::atomic::Ordering::{Relaxed, SeqCst};
use super::buffer::Buffer;
use super::dequeue::{DequeueError, Got};
use super::enqueue::{self, EnqueueError};
use super::event_count::ALL;
use super::layout::{ChunkState, Cursor, ItemLayout};
use super::memory::QueueMemory;
use crate::mortal::{Fault, proc_table};

/// Where a lent item stands.
pub(crate) type At = (u32, u32);

/// A queue, the waiting around it as `deadline.rs` of the queue has it, and a journal that no death takes with it.
pub(crate) struct Queue {
    pub(crate) memory: QueueMemory,
    pub(crate) lends: bool,
    /// Bytes of each item.
    pub(crate) len: usize,
    /// Which consumer got what, in this order.
    pub(crate) got: Mutex<Vec<(u32, u8)>>,
}

/// Items that share a chunk with another one, that have one for themselves, and that have two of their own elsewhere.
pub(crate) const SHORT: usize = 16;
pub(crate) const WIDE: usize = 32;
pub(crate) const LONG: usize = 60;

impl Queue {
    pub(crate) fn of(len: usize, most_items: u32) -> Arc<Self> {
        Self::with(len, (most_items, u64::MAX), false)
    }

    pub(crate) fn lending(len: usize, most_items: u32) -> Arc<Self> {
        Self::with(len, (most_items, u64::MAX), true)
    }

    pub(crate) fn with(len: usize, (most_items, most_bytes): (u32, u64), lends: bool) -> Arc<Self> {
        let memory = QueueMemory::new(most_items, most_bytes);
        Arc::new(Self { memory, lends, len, got: Mutex::default() })
    }

    /// Puts an item of that many bytes, each of them this one. False: the queue is closed.
    pub(crate) fn put(&self, item: u8) -> bool {
        let bytes = vec![item; self.len];
        let shape = ItemLayout::for_bytes(self.len, false, self.lends);
        let mut long = None;
        loop {
            match self.try_put((shape, &bytes), &mut long) {
                Ok(_) => return true,
                Err(EnqueueError::Closed) => return false,
                Err(EnqueueError::Full(head)) => self.wait_for_room(head),
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn try_put<'a>(
        &'a self,
        (shape, bytes): (ItemLayout, &[u8]),
        long: &mut Option<enqueue::LargeItem<'a>>,
    ) -> Result<bool, EnqueueError> {
        if shape.long && long.is_none() {
            if let Some(_inside) = self.memory.putting(None) {
                self.memory.room(QueueMemory::cost(bytes.len(), shape))?;
            }
            *long = Some(self.memory.fill(bytes)?);
        }
        let mut inside = self.memory.putting(None).unwrap();
        self.memory.put(&mut inside, (shape, bytes), long.as_mut(), |_| Ok(()))
    }

    pub(crate) fn wait_for_room(&self, head: u64) {
        let words = self.memory.words();
        let came = || Cursor::of(words.get.place.load(Relaxed)).since(Cursor::of(head)) > 0;
        if came() {
            return;
        }
        let key = {
            let inside = self.memory.getting(None).unwrap();
            let key = inside.prepare_wait();
            fence(SeqCst);
            if (came() || words.closed.load(Relaxed) != 0) && !Fault::LooksTooEarly.is_made() {
                return;
            }
            key
        };
        let _ = words.get.sleepers.wait(key, None);
    }

    /// Takes the first item out. None: the queue is closed and empty, and nothing will come back.
    pub(crate) fn get(&self) -> Option<(u8, At)> {
        let (mut is_over, mut ended) = (false, 0);
        loop {
            let (mut buffer, mut got) = (Buffer::new(Vec::new), Got::<()>::new());
            let mut locked = |buffer: &mut Buffer, got: &mut Got<()>| {
                let mut inside = self.memory.getting(None).unwrap();
                let now = proc_table::deaths();
                if self.lends && ended != now {
                    ended = now;
                    self.look_for_dead();
                }
                self.memory.get(&mut inside, (buffer, got), |_| Ok(()))
            };
            let short = if self.lends { Ok(None) } else { self.memory.get_short(&mut buffer) };
            match short.and_then(|len| len.map_or_else(|| locked(&mut buffer, &mut got), Ok)) {
                Ok(len) => {
                    self.memory.copy((&got, len), &mut buffer, self.lends);
                    return Some((self.note(buffer.bytes(len)), got.at));
                }
                Err(DequeueError::Empty(_)) if is_over => return None,
                Err(DequeueError::Empty(tail)) => {
                    is_over = self.is_over();
                    if !is_over {
                        self.wait_for_item(tail);
                    }
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    /// Looks at an item that came out, and writes it down.
    pub(crate) fn note(&self, bytes: &[u8]) -> u8 {
        assert_eq!(bytes, vec![bytes[0]; self.len], "it is torn");
        self.got.lock().unwrap().push((proc_table::current().bits(), bytes[0]));
        bytes[0]
    }

    pub(crate) fn is_over(&self) -> bool {
        let closed = self.memory.words().closed.load(SeqCst) != 0;
        closed
            && (!self.lends || {
                let _inside = self.memory.getting(None);
                !self.memory.is_lent_elsewhere()
            })
    }

    pub(crate) fn wait_for_item(&self, tail: u64) {
        let words = self.memory.words();
        let moved = || words.put.place.load(Relaxed) != tail || words.get.returned.load(Relaxed) != 0;
        let key = match self.memory.putting(None).unwrap() {
            _ if (moved() || self.is_over()) && !Fault::LooksTooEarly.is_made() => return,
            inside => inside.prepare_wait(),
        };
        let _ = words.put.sleepers.wait(key, None);
        if self.lends {
            self.look_for_dead();
        }
    }

    pub(crate) fn look_for_dead(&self) {
        let words = self.memory.words();
        if words.get.number.load(Relaxed) != 0 && !Fault::NothingIsSought.is_made() {
            words.get.returned.store(1, Relaxed);
        }
    }

    pub(crate) fn done(&self, at: At) {
        {
            let mut inside = self.memory.getting(None).unwrap();
            self.memory.done(&mut inside, at);
        }
        if self.memory.words().closed.load(Relaxed) != 0 {
            self.memory.putting(None).unwrap().call(ALL);
        }
    }

    pub(crate) fn give_up(&self, at: At) {
        {
            let _inside = self.memory.getting(None).unwrap();
            self.memory.give_up(at);
        }
        if !Fault::GivesBackInSilence.is_made() {
            self.memory.putting(None).unwrap().call(1);
        }
    }

    /// Gets an item and is done with it.
    pub(crate) fn work(&self) -> Option<u8> {
        let (item, at) = self.get()?;
        if self.lends {
            self.done(at);
        }
        Some(item)
    }

    pub(crate) fn unfinished(&self) -> u64 {
        let _inside = self.memory.getting(None).unwrap();
        self.memory.unfinished()
    }

    pub(crate) fn join(&self) {
        loop {
            let key = {
                let _inside = self.memory.getting(None).unwrap();
                if self.memory.unfinished() == 0 {
                    return;
                }
                self.memory.enlist_joiner()
            };
            let _ = self.memory.words().get.joiners.wait(key, None);
        }
    }

    pub(crate) fn close(&self) {
        {
            let mut inside = self.memory.putting(None).unwrap();
            self.memory.words().closed.store(1, SeqCst);
            inside.call(ALL);
        }
        self.memory.getting(None).unwrap().call(ALL);
    }

    /// What came out until now. To each consumer, the items of each producer, whose number is in the upper half, come in their
    /// order, but for those that come back; of these, one that died may have looked at none.
    pub(crate) fn journal(&self) -> Vec<u8> {
        let got = self.got.lock().unwrap();
        let is_late = |at: usize| {
            let (consumer, item) = got[at];
            let mut before = got[..at].iter();
            before.clone().all(|(_, before)| *before != item)
                && before.any(|(other, before)| *other == consumer && before >> 4 == item >> 4 && *before > item)
        };
        let late = (0..got.len()).filter(|at| is_late(*at)).count();
        assert!(late <= if self.lends { proc_table::deaths() as usize } else { 0 }, "not in order: {got:x?}");
        let mut items: Vec<_> = got.iter().map(|(_, item)| *item).collect();
        items.sort_unstable();
        items
    }

    /// Closes the queue and gets what is left in it; then looks for every chunk. `swept`: a process has died.
    pub(crate) fn drain(&self, swept: bool) -> Vec<u8> {
        self.close();
        while self.work().is_some() {}
        assert_eq!((self.unfinished(), self.memory.len()), (0, 0));
        if swept && !Fault::NothingIsSwept.is_made() {
            let (_putting, _getting) = (self.memory.putting(None), self.memory.getting(None));
            self.memory.sweep();
        }
        let words = self.memory.words();
        let tail = Cursor::of(words.put.place.load(Relaxed));
        let states: Vec<_> =
            (0..self.memory.used()).map(|chunk| ChunkState::of(self.memory.state(chunk).load(Relaxed))).collect();
        for (chunk, state) in (0..).zip(&states) {
            let expected =
                if chunk == tail.chunk { &[ChunkState::Queued][..] } else { &[ChunkState::Warm, ChunkState::Cold] };
            assert!(expected.contains(state), "chunk {chunk} is lost: {states:?} {tail:?}");
            assert_eq!(self.memory.lent(chunk).load(Relaxed), 0);
            assert_eq!(self.memory.has_memory(chunk), *state != ChunkState::Cold, "of chunk {chunk}: {states:?}");
        }
        if swept && !Fault::NothingIsSwept.is_made() {
            let count = |state| states.iter().filter(|this| **this == state).map(|_| 1).sum::<u32>();
            assert_eq!(words.stock.warm.load(Relaxed), count(ChunkState::Warm));
            assert_eq!(words.stock.cold.load(Relaxed), count(ChunkState::Cold));
        }
        self.journal()
    }
}
