//! [`Semaphore`]: a number of permits, by a manager.
//!
//! Runs in: clients.

use super::raw_semaphore::{PermitAnswer, RawSemaphoreProxy};
use super::typed::{managed_type, release};
use crate::error::{Error, Result};
use crate::manager::handle::ManagerHandle;

managed_type! {
    /// A semaphore in a manager: Python's `Semaphore` and `BoundedSemaphore`. A permit comes back when it is dropped.
    ///
    /// # If the other process dies
    /// Its permits come back at once. Calls that wait cost no thread of the manager.
    ///
    /// # Examples
    /// ```
    /// use process_task::Manager;
    /// use process_task::managed::Semaphore;
    ///
    /// let manager = Manager::start()?;
    /// let seats = Semaphore::new(&manager, 2)?;
    /// let (one, two) = (seats.acquire()?, seats.acquire()?);
    /// assert!(seats.try_acquire()?.is_none());
    /// drop(one);
    /// assert_eq!(seats.available()?, 1);
    /// # drop(two);
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("AcquirerProxy", "SyncManager.Semaphore", "SyncManager.BoundedSemaphore"))]
    Semaphore<>, RawSemaphoreProxy
}

impl Semaphore {
    /// Makes a semaphore with so many permits in `manager`. [`add_permit`](Self::add_permit) adds more.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn new(manager: &impl AsRef<ManagerHandle>, permits: u64) -> Result<Self> {
        RawSemaphoreProxy::new(manager, permits, u64::MAX).map(Self::of)
    }

    /// Makes a semaphore with so many permits, and never more.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn bounded(manager: &impl AsRef<ManagerHandle>, permits: u64) -> Result<Self> {
        RawSemaphoreProxy::new(manager, permits, permits).map(Self::of)
    }

    /// Takes a permit, waiting as long as it takes; with [`with_timeout`](Self::with_timeout), for so long at most.
    ///
    /// # Errors
    /// The manager is gone, or the time is over.
    pub fn acquire(&self) -> Result<ManagedPermit<'_>> {
        let mut answer = self.raw.try_acquire()?;
        while answer == PermitAnswer::Busy {
            answer = self.raw.later().acquire().join()?;
        }
        self.permit(answer).ok_or_else(|| Error::invalid("the semaphore gave no permit"))
    }

    /// Takes a permit, if one is free.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub fn try_acquire(&self) -> Result<Option<ManagedPermit<'_>>> {
        Ok(self.permit(self.raw.try_acquire()?))
    }

    fn permit(&self, answer: PermitAnswer) -> Option<ManagedPermit<'_>> {
        match answer {
            PermitAnswer::Acquired { permit } => Some(ManagedPermit { raw: &self.raw, permit }),
            _ => None,
        }
    }

    /// Adds a permit.
    ///
    /// # Errors
    /// There are as many as there may be, or the manager is gone.
    #[doc(alias = "release")]
    pub fn add_permit(&self) -> Result<()> {
        match self.raw.add_permit()? {
            PermitAnswer::Done => Ok(()),
            _ => Err(Error::invalid("the semaphore has as many permits as it may have; drop or forget one first")),
        }
    }

    /// Number of permits that are free.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "get_value")]
    pub fn available(&self) -> Result<u64> {
        self.raw.available()
    }
}

/// A permit of a [`Semaphore`]. It comes back when this is dropped.
#[derive(Debug)]
#[must_use = "the permit comes back at once if this is dropped"]
pub struct ManagedPermit<'s> {
    raw: &'s RawSemaphoreProxy,
    permit: u64,
}

impl ManagedPermit<'_> {
    /// Has the permit not come back.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn forget(self) -> Result<()> {
        let permit = std::mem::ManuallyDrop::new(self);
        release!(permit.raw, forget(permit.permit))
    }
}

impl Drop for ManagedPermit<'_> {
    fn drop(&mut self) {
        // If the manager is gone, so is the semaphore.
        let _ = release!(self.raw, release(self.permit));
    }
}
