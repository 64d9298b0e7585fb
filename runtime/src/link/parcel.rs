//! Memory for payloads that are too long for the ring: made once, kept warm, lent again and again.
//!
//! Owns: [`Stock`], the parcels of one side of one link or pool. Runs in: both ends of a link.
//! Never: lends a parcel to a second payload before the first one's reader has let go of it.
//!
//! Filling memory for the first time costs five times as much as copying into it, so parcels are kept. A parcel fills a
//! *slot*, and both sides remember what fills it: its descriptor travels once for each link. When every slot is lent, a
//! parcel is made for one payload only ([`NO_SLOT`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use super::frame::ParcelName;
use crate::codec::Spill;
use crate::sys;
use crate::sys::memory::{self, Access, Map};

/// How many parcels a side keeps.
pub(crate) const SLOTS: usize = 8;

/// The slot of a parcel that is used once.
pub(crate) const NO_SLOT: u8 = u8::MAX;

/// The most memory that is kept warm in parcels that nobody uses.
const KEPT: usize = 256 << 20;

/// A parcel, mapped for writing.
#[derive(Debug)]
struct Parcel {
    name: ParcelName,
    fd: OwnedFd,
    map: Map,
}

#[derive(Debug, Default)]
enum Slot {
    /// Nothing is kept here.
    #[default]
    Empty,
    /// Kept, and free to be lent.
    Warm(Parcel),
    /// Lent; it comes back by [`Loan`]'s drop.
    Lent,
}

/// The parcels of one side.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    last_id: u32,
    slots: [Slot; SLOTS],
}

/// A stock that payloads return their parcels to.
pub(crate) type SharedStock = Arc<Mutex<Stock>>;

impl Stock {
    /// A parcel of at least `len` bytes: the smallest warm one, or a new one in the best slot there is.
    fn lend(&mut self, len: usize) -> sys::Result<Parcel> {
        let fits = |slot: &Slot| match slot {
            Slot::Warm(parcel) if parcel.map.len() >= len => Some(parcel.map.len()),
            _ => None,
        };
        let best = (0..SLOTS).filter_map(|i| Some((fits(&self.slots[i])?, i))).min();
        if let Some((_, i)) = best
            && let Slot::Warm(parcel) = std::mem::replace(&mut self.slots[i], Slot::Lent)
        {
            return Ok(parcel);
        }
        let empty = self.slots.iter().position(|slot| matches!(slot, Slot::Empty));
        let too_small = || self.slots.iter().position(|slot| matches!(slot, Slot::Warm(_)));
        let place = empty.or_else(too_small);
        self.last_id = self.last_id.wrapping_add(1).max(1);
        let slot = place.and_then(|i| u8::try_from(i).ok()).unwrap_or(NO_SLOT);
        let parcel = Parcel::new(ParcelName { slot, id: self.last_id }, len)?;
        if let Some(i) = place {
            self.slots[i] = Slot::Lent;
        }
        Ok(parcel)
    }

    fn take_back(&mut self, parcel: Parcel) {
        let warm = |slot: &Slot| if let Slot::Warm(parcel) = slot { parcel.map.len() } else { 0 };
        let kept: usize = self.slots.iter().map(warm).sum();
        if let Some(slot) = self.slots.get_mut(usize::from(parcel.name.slot)) {
            let keep = kept + parcel.map.len() <= KEPT;
            *slot = if keep { Slot::Warm(parcel) } else { Slot::Empty };
        }
    }
}

impl Parcel {
    fn new(name: ParcelName, len: usize) -> sys::Result<Self> {
        const STEP: usize = 2 << 20;
        let len = if len < STEP { len.next_power_of_two().max(64 << 10) } else { len.next_multiple_of(STEP) };
        let (fd, map) = memory::create_much("process-task-parcel", len)?;
        memory::seal_future_writes(fd.as_fd())?;
        Ok(Self { name, fd, map })
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
        Self { stock: Arc::clone(stock), parcel: None }
    }

    /// The parcel, holding `len` bytes; `None` if nothing was put into one.
    pub(crate) fn done(mut self, len: usize) -> Option<Loan> {
        let parcel = self.parcel.take()?;
        Some(Loan { stock: Arc::clone(&self.stock), parcel: Some(parcel), len })
    }
}

impl Spill for Filling {
    fn grow(&mut self, written: usize, capacity: usize) -> io::Result<()> {
        if self.parcel.as_ref().is_some_and(|parcel| parcel.map.len() >= capacity) {
            return Ok(());
        }
        let parcel = lock(&self.stock).lend(capacity)?;
        if let Some(old) = self.parcel.replace(parcel)
            && let Some(new) = &self.parcel
        {
            new.map.write(0, old.map.lend(0, written));
            lock(&self.stock).take_back(old);
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
            lock(&self.stock).take_back(parcel);
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

    /// The payload. Nobody writes to it any more.
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
            lock(&self.stock).take_back(parcel);
        }
    }
}

/// What the other side has sent, mapped for reading, by slot.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    kept: [Option<(u32, Arc<Map>)>; SLOTS],
    /// Those of [`NO_SLOT`], until their frame is read.
    once: Vec<(u32, Arc<Map>)>,
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

    /// The parcel of this name, if it is known and holds `len` bytes.
    pub(crate) fn find(&mut self, name: ParcelName, len: u64) -> Option<Arc<Map>> {
        let map = if let Some(slot) = self.kept.get(usize::from(name.slot)) {
            slot.as_ref().filter(|(id, _)| *id == name.id).map(|(_, map)| Arc::clone(map))
        } else {
            let at = self.once.iter().position(|(id, _)| *id == name.id)?;
            Some(self.once.swap_remove(at).1)
        };
        map.filter(|map| len <= map.len() as u64)
    }
}

fn lock(stock: &Mutex<Stock>) -> std::sync::MutexGuard<'_, Stock> {
    stock.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn growing_keeps_what_was_written() {
        let stock = SharedStock::default();
        let mut filling = Filling::new(&stock);
        filling.grow(0, 10).unwrap();
        filling.bytes()[..10].copy_from_slice(b"0123456789");
        filling.grow(10, 1 << 20).unwrap();
        assert_eq!(&filling.bytes()[..10], b"0123456789");
    }
}
