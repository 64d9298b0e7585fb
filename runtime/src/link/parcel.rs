//! Memory for payloads that are too long for the ring: made once, kept warm, lent again and again.
//!
//! Owns: [`Stock`], the parcels of one side of one link or pool. Runs in: both ends of a link.
//! Never: lends a parcel to a second payload before the first one's reader has let go of it.
//!
//! Filling memory for the first time costs five times as much as copying into it, so parcels are kept. A parcel fills a
//! *slot*, and both sides remember what fills it: its descriptor travels once for each link. When every slot is lent, a
//! parcel is made for one payload only ([`NO_SLOT`]).
//!
//! # How memory is given back
//!
//! A parcel of more than [`KEPT`] bytes goes with its payload, on both sides. Others stay warm for [`IDLE`] after their last
//! use. Then their owner drops them, and says so in its half of each link: [`Gone`] has the last one of each slot that is
//! gone. The other side drops its map when it reads that. Its owner never uses such a parcel again, so nothing is lost if the
//! other side reads it late.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::frame::ParcelName;
use crate::codec::Spill;
use crate::sys::held::HeldFd;
use crate::sys::memory::{self, Access, Map};
use crate::sys::{self, clock};

/// How many parcels a side keeps.
pub(crate) const SLOTS: usize = 8;

/// The slot of a parcel that is used once.
pub(crate) const NO_SLOT: u8 = u8::MAX;

/// The most memory that is kept warm in unused parcels.
const KEPT: usize = 256 << 20;

/// How long a parcel stays warm that is not used. The looks at it are as far apart.
pub(crate) const IDLE: Duration = Duration::from_secs(1);

/// The last parcel of each slot that is gone; 0 if none is. All of the slot's before it are gone too.
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

/// A parcel, mapped for writing.
#[derive(Debug)]
struct Parcel {
    name: ParcelName,
    fd: HeldFd,
    map: Map,
}

#[derive(Debug, Default)]
enum Slot {
    /// Nothing is kept here.
    #[default]
    Empty,
    /// Kept, and free to be lent, since this moment of the coarse clock.
    Warm(Parcel, u64),
    /// Lent; it comes back by [`Loan`]'s drop.
    Lent,
}

/// The parcels of one side.
#[derive(Debug, Default)]
struct Stock {
    last_id: u32,
    slots: [Slot; SLOTS],
    gone: Gone,
    /// How much memory all of its parcels are, also those that are lent.
    bytes: usize,
}

/// A stock that payloads return their parcels to.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedStock(Arc<Shelf>);

/// What is called when a parcel stays warm. With the traits that pools have had without it.
type Kept = dyn Fn() + Send + Sync + UnwindSafe + RefUnwindSafe;

#[derive(Default)]
struct Shelf {
    stock: Mutex<Stock>,
    kept: OnceLock<Box<Kept>>,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("stock", &self.stock).finish_non_exhaustive()
    }
}

impl SharedStock {
    /// Calls `kept` each time a parcel has come back and stays warm, so that [`SharedStock::give_back`] is called later.
    /// It may be called under any lock.
    pub(crate) fn when_kept(&self, kept: impl Fn() + Send + Sync + UnwindSafe + RefUnwindSafe + 'static) {
        let _ = self.0.kept.set(Box::new(kept));
    }

    /// Drops what is warm and was not used for so long. Says what is gone, and whether anything is warm.
    pub(crate) fn give_back(&self, idle: Duration) -> (Gone, bool) {
        let mut stock = self.lock();
        let dropped = stock.drop_idle(idle);
        let rest = (stock.gone, stock.slots.iter().any(|slot| matches!(slot, Slot::Warm(..))));
        drop(stock);
        // Unmapping much memory takes a while.
        drop(dropped);
        rest
    }

    /// How much memory all of its parcels are.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lend(&self, len: usize) -> sys::Result<Parcel> {
        self.lock().lend(len)
    }

    fn take_back(&self, parcel: Parcel) {
        let dropped = self.lock().take_back(parcel);
        if dropped.is_none()
            && let Some(kept) = self.0.kept.get()
        {
            kept();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.0.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    /// A parcel of at least `len` bytes: the smallest warm one, or a new one in the best slot there is.
    fn lend(&mut self, len: usize) -> sys::Result<Parcel> {
        let fits = |slot: &Slot| match slot {
            Slot::Warm(parcel, _) if parcel.map.len() >= len => Some(parcel.map.len()),
            _ => None,
        };
        let best = (0..SLOTS).filter_map(|i| Some((fits(&self.slots[i])?, i))).min();
        if let Some((_, i)) = best
            && let Slot::Warm(parcel, _) = std::mem::replace(&mut self.slots[i], Slot::Lent)
        {
            return Ok(parcel);
        }
        let empty = self.slots.iter().position(|slot| matches!(slot, Slot::Empty));
        let too_small = || self.slots.iter().position(|slot| matches!(slot, Slot::Warm(..)));
        let place = empty.or_else(too_small);
        self.last_id = self.last_id.wrapping_add(1).max(1);
        let slot = place.and_then(|i| u8::try_from(i).ok()).unwrap_or(NO_SLOT);
        let parcel = Parcel::new(ParcelName { slot, id: self.last_id }, len)?;
        self.bytes += parcel.map.len();
        if let Some(i) = place
            && let Slot::Warm(small, _) = std::mem::replace(&mut self.slots[i], Slot::Lent)
        {
            self.forget(&small);
        }
        Ok(parcel)
    }

    /// This parcel is about to be dropped.
    fn forget(&mut self, parcel: &Parcel) {
        self.bytes = self.bytes.saturating_sub(parcel.map.len());
        if let Some(gone) = self.gone.get_mut(usize::from(parcel.name.slot)) {
            *gone = parcel.name.id;
        }
    }

    fn drop_idle(&mut self, idle: Duration) -> Vec<Parcel> {
        let now = clock::coarse();
        let idle = u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX);
        let mut dropped = Vec::new();
        for at in 0..SLOTS {
            if matches!(&self.slots[at], Slot::Warm(_, since) if now.saturating_sub(*since) >= idle)
                && let Slot::Warm(parcel, _) = std::mem::take(&mut self.slots[at])
            {
                self.forget(&parcel);
                dropped.push(parcel);
            }
        }
        dropped
    }

    /// Keeps the parcel, or gives it back to be dropped.
    fn take_back(&mut self, parcel: Parcel) -> Option<Parcel> {
        let warm = |slot: &Slot| if let Slot::Warm(parcel, _) = slot { parcel.map.len() } else { 0 };
        let kept: usize = self.slots.iter().map(warm).sum();
        let place = self.slots.get_mut(usize::from(parcel.name.slot));
        match place {
            Some(slot) if kept + parcel.map.len() <= KEPT => {
                *slot = Slot::Warm(parcel, clock::coarse());
                None
            }
            place => {
                if let Some(slot) = place {
                    *slot = Slot::Empty;
                }
                self.forget(&parcel);
                Some(parcel)
            }
        }
    }
}

impl Parcel {
    fn new(name: ParcelName, len: usize) -> sys::Result<Self> {
        const STEP: usize = 2 << 20;
        let len = if len < STEP { len.next_power_of_two().max(64 << 10) } else { len.next_multiple_of(STEP) };
        let (fd, map) = memory::create_huge("process-task-parcel", len)?;
        memory::seal_future_writes(fd.as_fd())?;
        Ok(Self { name, fd: fd.into(), map })
    }
}

/// A parcel that is being filled by an encoder, or nothing while the payload is short.
#[derive(Debug)]
pub(crate) struct Filling {
    stock: SharedStock,
    parcel: Option<Parcel>,
}

impl Filling {
    pub(crate) fn new(stock: &SharedStock) -> Self {
        Self { stock: stock.clone(), parcel: None }
    }

    /// The parcel, holding `len` bytes; `None` if nothing was put into one.
    pub(crate) fn done(mut self, len: usize) -> Option<Loan> {
        let parcel = self.parcel.take()?;
        Some(Loan { stock: self.stock.clone(), parcel: Some(parcel), len })
    }
}

impl Spill for Filling {
    fn grow(&mut self, written: usize, capacity: usize) -> io::Result<()> {
        if self.parcel.as_ref().is_some_and(|parcel| parcel.map.len() >= capacity) {
            return Ok(());
        }
        let parcel = self.stock.lend(capacity)?;
        if let Some(old) = self.parcel.replace(parcel)
            && let Some(new) = &self.parcel
        {
            new.map.write(0, old.map.lend(0, written));
            self.stock.take_back(old);
        }
        Ok(())
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.parcel.as_mut().map_or(&mut [], |parcel| parcel.map.bytes_mut())
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if let Some(parcel) = self.parcel.take() {
            self.stock.take_back(parcel);
        }
    }
}

/// A filled parcel. Dropped when its reader has let go, which gives it back to the stock.
#[derive(Debug)]
pub(crate) struct Loan {
    stock: SharedStock,
    parcel: Option<Parcel>,
    len: usize,
}

impl Loan {
    /// How many bytes of it are the payload.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The payload. No process writes to it any more.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.parcel.as_ref().map_or(&[], |parcel| parcel.map.lend(0, self.len))
    }

    /// Its name and its descriptor, for the frame and the control socket.
    pub(crate) fn parcel(&self) -> Option<(ParcelName, BorrowedFd<'_>)> {
        self.parcel.as_ref().map(|parcel| (parcel.name, parcel.fd.as_fd()))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(parcel) = self.parcel.take() {
            self.stock.take_back(parcel);
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
    /// Maps a parcel that was announced; an older one in its slot is let go.
    pub(crate) fn add(&mut self, name: ParcelName, fd: &OwnedFd) -> sys::Result<()> {
        let len = memory::checked_len(fd.as_fd())?;
        let map = Arc::new(Map::new(fd.as_fd(), len, Access::Read)?);
        match self.kept.get_mut(usize::from(name.slot)) {
            Some(slot) => *slot = Some((name.id, map)),
            None => self.once.push((name.id, map)),
        }
        Ok(())
    }

    /// Lets go of what is gone. Each slot has one parcel at a time, and later ones have higher numbers.
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

    /// The parcel of this name, if it is known and holds `len` bytes.
    pub(crate) fn find(&mut self, name: ParcelName, len: u64) -> Option<Arc<Map>> {
        let (only_once, kept) = if let Some(slot) = self.kept.get_mut(usize::from(name.slot)) {
            // What is too much for its owner to keep does not come again.
            let only_once = slot.take_if(|(id, map)| *id == name.id && map.len() > KEPT).map(|(_, map)| map);
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

    fn filled(stock: &SharedStock, bytes: &[u8]) -> Loan {
        let mut filling = Filling::new(stock);
        filling.grow(0, bytes.len()).unwrap();
        filling.bytes()[..bytes.len()].copy_from_slice(bytes);
        filling.done(bytes.len()).unwrap()
    }

    #[test]
    fn a_parcel_that_came_back_is_lent_again() {
        let stock = SharedStock::default();
        let first = filled(&stock, &vec![1; 100_000]);
        let second = filled(&stock, &vec![2; 100_000]);
        let (one, two) = (first.parcel().unwrap().0, second.parcel().unwrap().0);
        assert_ne!(one, two);
        assert_eq!((first.bytes()[99_999], second.bytes()[0]), (1, 2));
        drop(first);
        assert_eq!(filled(&stock, &vec![3; 90_000]).parcel().unwrap().0, one);
    }

    #[test]
    fn when_every_slot_is_lent_parcels_are_used_once() {
        let stock = SharedStock::default();
        let loans: Vec<_> = (0..10).map(|_| filled(&stock, &vec![0; 70_000])).collect();
        let slots: Vec<_> = loans.iter().map(|loan| loan.parcel().unwrap().0.slot).collect();
        assert_eq!(slots, [0, 1, 2, 3, 4, 5, 6, 7, NO_SLOT, NO_SLOT]);
    }

    #[test]
    fn what_is_idle_is_given_back_and_said_to_be_gone() {
        let stock = SharedStock::default();
        let (first, second) = (filled(&stock, &vec![1; 100_000]), filled(&stock, &vec![2; 100_000]));
        let lent = second.parcel().unwrap().0;
        drop(first);
        assert_eq!((stock.bytes(), stock.give_back(Duration::from_hours(1))), (256 << 10, ([0; SLOTS], true)));
        let (gone, warm) = stock.give_back(Duration::ZERO);
        assert_eq!((stock.bytes(), gone[0], warm), (128 << 10, 1, false));
        let mut arrivals = Arrivals::default();
        for id in [1, 2] {
            let name = ParcelName { slot: u8::try_from(id - 1).unwrap(), id };
            arrivals.add(name, &memory::create("process-task-parcel", 100).unwrap()).unwrap();
        }
        arrivals.forget(&gone);
        assert_eq!((arrivals.bytes(), arrivals.find(lent, 100).is_some()), (100, true));
        drop(second);
        let (gone, warm) = stock.give_back(Duration::ZERO);
        assert_eq!((stock.bytes(), gone, warm), (0, [1, 2, 0, 0, 0, 0, 0, 0], false));
        arrivals.forget(&gone);
        assert!(!arrivals.any());
        assert_eq!(filled(&stock, &vec![3; 100_000]).parcel().unwrap().0, ParcelName { slot: 0, id: 3 });
    }

    #[test]
    fn what_is_too_much_to_be_kept_goes_with_its_payload() {
        let stock = SharedStock::default();
        let mut filling = Filling::new(&stock);
        filling.grow(0, KEPT + 1).unwrap();
        let loan = filling.done(8).unwrap();
        let (name, fd) = loan.parcel().unwrap();
        let mut arrivals = Arrivals::default();
        arrivals.add(name, &fd.try_clone_to_owned().unwrap()).unwrap();
        let read = arrivals.find(name, 8).unwrap();
        assert_eq!((arrivals.bytes(), arrivals.any()), (read.len(), true));
        drop(read);
        assert_eq!((arrivals.bytes(), arrivals.any()), (0, false));
        drop(loan);
        assert_eq!((stock.bytes(), stock.give_back(IDLE)), (0, ([1, 0, 0, 0, 0, 0, 0, 0], false)));
    }

    #[test]
    fn growing_keeps_what_was_written() {
        let stock = SharedStock::default();
        let mut filling = Filling::new(&stock);
        filling.grow(0, 10).unwrap();
        filling.bytes()[..10].copy_from_slice(b"0123456789");
        filling.grow(10, 1 << 20).unwrap();
        assert_eq!(&filling.bytes()[..10], b"0123456789");
    }
}
