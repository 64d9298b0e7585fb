//! A pool of shared buffers, for payloads that are too long for the ring.
//!
//! Runs in: both ends of a link.
//! Invariant: a buffer is leased to a second payload only after the first one's reader has released it.
//!
//! Filling memory for the first time costs five times as much as copying into it, so buffers are kept. A buffer fills a
//! *slot*, and both sides remember what fills it: its descriptor travels once for each link. When every slot is lent, a
//! buffer is made for one payload only ([`NO_SLOT`]).
//!
//! # How memory is given back
//!
//! A buffer of more than [`MAX_WARM_BYTES`] bytes goes with its payload, on both sides. Others stay warm for [`BUFFER_IDLE_TIME`] after their last
//! use. Then their owner drops them, and says so in its half of each link: [`Gone`] has the last one of each slot that is
//! gone. The other side drops its map when it reads that. Its owner never uses such a buffer again, so nothing is lost if the
//! other side reads it late.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use super::frame::BufferName;
use crate::codec::Spill;
use crate::sys::held::HeldFd;
use crate::sys::memory::{self, Access, Map};
use crate::sys::mutex::MutexExt as _;
use crate::sys::{self, clock};

/// How many buffers a side keeps.
pub(crate) const SLOTS: usize = 8;

/// The slot of a buffer that is used once.
pub(crate) const NO_SLOT: u8 = u8::MAX;

/// The most memory that is kept warm in unused buffers.
const MAX_WARM_BYTES: usize = 256 << 20;

/// How long a buffer stays warm that is not used. The looks at it are as far apart.
pub(crate) const BUFFER_IDLE_TIME: Duration = Duration::from_secs(1);

/// The last buffer of each slot that is gone; 0 if none is. All of the slot's before it are gone too.
pub(crate) type Gone = [u32; SLOTS];

/// Reads what the other side has said is gone, or what was said to it before.
pub(super) fn load(words: &[AtomicU32; SLOTS]) -> Gone {
    words.each_ref().map(|word| word.load(Acquire))
}

/// Says what is gone; true if that is news.
pub(super) fn store(words: &[AtomicU32; SLOTS], gone: &Gone) -> bool {
    let news = load(words) != *gone;
    words.iter().zip(gone).for_each(|(word, id)| word.store(*id, Release));
    news
}

/// A buffer, mapped for writing.
#[derive(Debug)]
struct ShmBuffer {
    name: BufferName,
    fd: HeldFd,
    map: Map,
}

#[derive(Debug, Default)]
enum BufferSlot {
    /// Nothing is kept here.
    #[default]
    Empty,
    /// Kept, and free to be lent, since this moment of the coarse clock.
    Warm(ShmBuffer, u64),
    /// Lent; it comes back by [`Lease`]'s drop.
    Lent,
}

/// The buffers of one side.
#[derive(Debug, Default)]
struct BufferPool {
    last_id: u32,
    slots: [BufferSlot; SLOTS],
    gone: Gone,
    /// How much memory all of its buffers are, also those that are lent.
    bytes: usize,
}

/// A pool that payloads return their buffers to.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedBufferPool(Arc<PoolInner>);

/// What is called when a buffer stays warm. With the traits that pools have had without it.
type Kept = dyn Fn() + Send + Sync + UnwindSafe + RefUnwindSafe;

#[derive(Default)]
struct PoolInner {
    pool: Mutex<BufferPool>,
    kept: OnceLock<Box<Kept>>,
}

impl fmt::Debug for PoolInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolInner").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl SharedBufferPool {
    /// Calls `kept` each time a buffer has come back and stays warm, so that [`SharedBufferPool::give_back`] is called later.
    /// It may be called under any lock.
    pub(crate) fn on_warm(&self, kept: impl Fn() + Send + Sync + UnwindSafe + RefUnwindSafe + 'static) {
        let _ = self.0.kept.set(Box::new(kept));
    }

    /// Drops warm buffers that were unused for `idle`. Returns which are gone, and whether any is warm.
    pub(crate) fn give_back(&self, idle: Duration) -> (Gone, bool) {
        let mut pool = self.lock();
        let dropped = pool.drop_idle(idle);
        let rest = (pool.gone, pool.slots.iter().any(|slot| matches!(slot, BufferSlot::Warm(..))));
        drop(pool);
        // Unmapping much memory takes a while.
        drop(dropped);
        rest
    }

    /// How much memory all of its buffers are.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lend(&self, len: usize) -> sys::Result<ShmBuffer> {
        self.lock().lend(len)
    }

    fn take_back(&self, buffer: ShmBuffer) {
        let dropped = self.lock().take_back(buffer);
        if dropped.is_none()
            && let Some(kept) = self.0.kept.get()
        {
            kept();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BufferPool> {
        self.0.pool.lock_unpoisoned()
    }
}

impl BufferPool {
    /// A buffer of at least `len` bytes: the smallest warm one, or a new one in the best slot there is.
    fn lend(&mut self, len: usize) -> sys::Result<ShmBuffer> {
        let fits = |slot: &BufferSlot| match slot {
            BufferSlot::Warm(buffer, _) if buffer.map.len() >= len => Some(buffer.map.len()),
            _ => None,
        };
        let best = (0..SLOTS).filter_map(|i| Some((fits(&self.slots[i])?, i))).min();
        if let Some((_, i)) = best
            && let BufferSlot::Warm(buffer, _) = std::mem::replace(&mut self.slots[i], BufferSlot::Lent)
        {
            return Ok(buffer);
        }
        let empty = self.slots.iter().position(|slot| matches!(slot, BufferSlot::Empty));
        let too_small = || self.slots.iter().position(|slot| matches!(slot, BufferSlot::Warm(..)));
        let place = empty.or_else(too_small);
        self.last_id = self.last_id.wrapping_add(1).max(1);
        let slot = place.and_then(|i| u8::try_from(i).ok()).unwrap_or(NO_SLOT);
        let buffer = ShmBuffer::new(BufferName { slot, id: self.last_id }, len)?;
        self.bytes += buffer.map.len();
        if let Some(i) = place
            && let BufferSlot::Warm(small, _) = std::mem::replace(&mut self.slots[i], BufferSlot::Lent)
        {
            self.forget(&small);
        }
        Ok(buffer)
    }

    /// This buffer is about to be dropped.
    fn forget(&mut self, buffer: &ShmBuffer) {
        self.bytes = self.bytes.saturating_sub(buffer.map.len());
        if let Some(gone) = self.gone.get_mut(usize::from(buffer.name.slot)) {
            *gone = buffer.name.id;
        }
    }

    fn drop_idle(&mut self, idle: Duration) -> Vec<ShmBuffer> {
        let now = clock::coarse();
        let idle = u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX);
        let mut dropped = Vec::new();
        for at in 0..SLOTS {
            if matches!(&self.slots[at], BufferSlot::Warm(_, since) if now.saturating_sub(*since) >= idle)
                && let BufferSlot::Warm(buffer, _) = std::mem::take(&mut self.slots[at])
            {
                self.forget(&buffer);
                dropped.push(buffer);
            }
        }
        dropped
    }

    /// Keeps the buffer, or gives it back to be dropped.
    fn take_back(&mut self, buffer: ShmBuffer) -> Option<ShmBuffer> {
        let warm = |slot: &BufferSlot| if let BufferSlot::Warm(buffer, _) = slot { buffer.map.len() } else { 0 };
        let kept: usize = self.slots.iter().map(warm).sum();
        let place = self.slots.get_mut(usize::from(buffer.name.slot));
        match place {
            Some(slot) if kept + buffer.map.len() <= MAX_WARM_BYTES => {
                *slot = BufferSlot::Warm(buffer, clock::coarse());
                None
            }
            place => {
                if let Some(slot) = place {
                    *slot = BufferSlot::Empty;
                }
                self.forget(&buffer);
                Some(buffer)
            }
        }
    }
}

impl ShmBuffer {
    fn new(name: BufferName, len: usize) -> sys::Result<Self> {
        const STEP: usize = 2 << 20;
        let len = if len < STEP { len.next_power_of_two().max(64 << 10) } else { len.next_multiple_of(STEP) };
        let (fd, map) = memory::create_huge("process-task-parcel", len)?;
        memory::seal_future_writes(fd.as_fd())?;
        Ok(Self { name, fd: fd.into(), map })
    }
}

/// A buffer that is being filled by an encoder, or nothing while the payload is short.
#[derive(Debug)]
pub(crate) struct BufferWriter {
    pool: SharedBufferPool,
    buffer: Option<ShmBuffer>,
}

impl BufferWriter {
    pub(crate) fn new(pool: &SharedBufferPool) -> Self {
        Self { pool: pool.clone(), buffer: None }
    }

    /// The buffer, holding `len` bytes; `None` if nothing was put into one.
    pub(crate) fn done(mut self, len: usize) -> Option<Lease> {
        let buffer = self.buffer.take()?;
        Some(Lease { pool: self.pool.clone(), buffer: Some(buffer), len })
    }
}

impl Spill for BufferWriter {
    fn grow(&mut self, written: usize, capacity: usize) -> io::Result<()> {
        if self.buffer.as_ref().is_some_and(|buffer| buffer.map.len() >= capacity) {
            return Ok(());
        }
        let buffer = self.pool.lend(capacity)?;
        if let Some(old) = self.buffer.replace(buffer)
            && let Some(new) = &self.buffer
        {
            new.map.write(0, old.map.lend(0, written));
            self.pool.take_back(old);
        }
        Ok(())
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], |buffer| buffer.map.bytes_mut())
    }
}

impl Drop for BufferWriter {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.pool.take_back(buffer);
        }
    }
}

/// A filled buffer. Dropped when its reader has let go, which gives it back to the pool.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: SharedBufferPool,
    buffer: Option<ShmBuffer>,
    len: usize,
}

impl Lease {
    /// How many bytes of it are the payload.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The payload. No process writes to it any more.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| buffer.map.lend(0, self.len))
    }

    /// Its name and its descriptor, for the frame and the control socket.
    pub(crate) fn buffer(&self) -> Option<(BufferName, BorrowedFd<'_>)> {
        self.buffer.as_ref().map(|buffer| (buffer.name, buffer.fd.as_fd()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.pool.take_back(buffer);
        }
    }
}

/// What the other side has sent, mapped for reading, by slot.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    kept: [Option<(u32, Arc<Map>)>; SLOTS],
    /// Those of [`NO_SLOT`], until their frame is read.
    once: Vec<(u32, Arc<Map>)>,
    /// Those that do not come again, as long as their payload is read.
    read: Vec<Weak<Map>>,
}

impl Arrivals {
    /// Maps a buffer that was announced; an older one in its slot is let go.
    pub(crate) fn add(&mut self, name: BufferName, fd: &OwnedFd) -> sys::Result<()> {
        let len = memory::checked_len(fd.as_fd())?;
        let map = Arc::new(Map::new(fd.as_fd(), len, Access::Read)?);
        match self.kept.get_mut(usize::from(name.slot)) {
            Some(slot) => *slot = Some((name.id, map)),
            None => self.once.push((name.id, map)),
        }
        Ok(())
    }

    /// Lets go of what is gone. Each slot has one buffer at a time, and later ones have higher numbers.
    pub(crate) fn forget(&mut self, gone: &Gone) {
        for (slot, gone) in self.kept.iter_mut().zip(gone) {
            drop(slot.take_if(|(id, _)| id.wrapping_sub(*gone).cast_signed() <= 0));
        }
    }

    /// How much memory is mapped here, for payloads that are read and for those to come.
    pub(crate) fn bytes(&self) -> usize {
        let read = self.read.iter().filter_map(Weak::upgrade).map(|map| map.len());
        self.kept.iter().flatten().map(|(_, map)| map.len()).chain(read).sum()
    }

    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        self.kept.iter().any(Option::is_some) || self.read.iter().any(|map| map.strong_count() > 0)
    }

    /// The buffer of this name, if it is known and holds `len` bytes.
    pub(crate) fn find(&mut self, name: BufferName, len: u64) -> Option<Arc<Map>> {
        let (only_once, kept) = if let Some(slot) = self.kept.get_mut(usize::from(name.slot)) {
            // What is too much for its owner to keep does not come again.
            let only_once = slot.take_if(|(id, map)| *id == name.id && map.len() > MAX_WARM_BYTES).map(|(_, map)| map);
            (only_once, slot.as_ref().filter(|(id, _)| *id == name.id).map(|(_, map)| Arc::clone(map)))
        } else {
            let at = self.once.iter().position(|(id, _)| *id == name.id)?;
            (Some(self.once.swap_remove(at).1), None)
        };
        if let Some(map) = &only_once {
            self.read.retain(|map| map.strong_count() > 0);
            self.read.push(Arc::downgrade(map));
        }
        kept.or(only_once).filter(|map| len <= map.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pool: &SharedBufferPool, bytes: &[u8]) -> Lease {
        let mut filling = BufferWriter::new(pool);
        filling.grow(0, bytes.len()).unwrap();
        filling.bytes()[..bytes.len()].copy_from_slice(bytes);
        filling.done(bytes.len()).unwrap()
    }

    #[test]
    fn a_parcel_that_came_back_is_lent_again() {
        let pool = SharedBufferPool::default();
        let first = filled(&pool, &vec![1; 100_000]);
        let second = filled(&pool, &vec![2; 100_000]);
        let (one, two) = (first.buffer().unwrap().0, second.buffer().unwrap().0);
        assert_ne!(one, two);
        assert_eq!((first.bytes()[99_999], second.bytes()[0]), (1, 2));
        drop(first);
        assert_eq!(filled(&pool, &vec![3; 90_000]).buffer().unwrap().0, one);
    }

    #[test]
    fn when_every_slot_is_lent_parcels_are_used_once() {
        let pool = SharedBufferPool::default();
        let loans: Vec<_> = (0..10).map(|_| filled(&pool, &vec![0; 70_000])).collect();
        let slots: Vec<_> = loans.iter().map(|loan| loan.buffer().unwrap().0.slot).collect();
        assert_eq!(slots, [0, 1, 2, 3, 4, 5, 6, 7, NO_SLOT, NO_SLOT]);
    }

    #[test]
    fn what_is_idle_is_given_back_and_said_to_be_gone() {
        let pool = SharedBufferPool::default();
        let (first, second) = (filled(&pool, &vec![1; 100_000]), filled(&pool, &vec![2; 100_000]));
        let lent = second.buffer().unwrap().0;
        drop(first);
        assert_eq!((pool.bytes(), pool.give_back(Duration::from_hours(1))), (256 << 10, ([0; SLOTS], true)));
        let (gone, warm) = pool.give_back(Duration::ZERO);
        assert_eq!((pool.bytes(), gone[0], warm), (128 << 10, 1, false));
        let mut arrivals = Arrivals::default();
        for id in [1, 2] {
            let name = BufferName { slot: u8::try_from(id - 1).unwrap(), id };
            arrivals.add(name, &memory::create("process-task-parcel", 100).unwrap()).unwrap();
        }
        arrivals.forget(&gone);
        assert_eq!((arrivals.bytes(), arrivals.find(lent, 100).is_some()), (100, true));
        drop(second);
        let (gone, warm) = pool.give_back(Duration::ZERO);
        assert_eq!((pool.bytes(), gone, warm), (0, [1, 2, 0, 0, 0, 0, 0, 0], false));
        arrivals.forget(&gone);
        assert!(!arrivals.any());
        assert_eq!(filled(&pool, &vec![3; 100_000]).buffer().unwrap().0, BufferName { slot: 0, id: 3 });
    }

    #[test]
    fn what_is_too_much_to_be_kept_goes_with_its_payload() {
        let pool = SharedBufferPool::default();
        let mut filling = BufferWriter::new(&pool);
        filling.grow(0, MAX_WARM_BYTES + 1).unwrap();
        let loan = filling.done(8).unwrap();
        let (name, fd) = loan.buffer().unwrap();
        let mut arrivals = Arrivals::default();
        arrivals.add(name, &fd.try_clone_to_owned().unwrap()).unwrap();
        let read = arrivals.find(name, 8).unwrap();
        assert_eq!((arrivals.bytes(), arrivals.any()), (read.len(), true));
        drop(read);
        assert_eq!((arrivals.bytes(), arrivals.any()), (0, false));
        drop(loan);
        assert_eq!((pool.bytes(), pool.give_back(BUFFER_IDLE_TIME)), (0, ([1, 0, 0, 0, 0, 0, 0, 0], false)));
    }

    #[test]
    fn growing_keeps_what_was_written() {
        let pool = SharedBufferPool::default();
        let mut filling = BufferWriter::new(&pool);
        filling.grow(0, 10).unwrap();
        filling.bytes()[..10].copy_from_slice(b"0123456789");
        filling.grow(10, 1 << 20).unwrap();
        assert_eq!(&filling.bytes()[..10], b"0123456789");
    }
}
