//! [`Event`] and [`Barrier`]: waiting for others, by a manager.
//!
//! Runs in: clients.

use super::raw_event::{BarrierAnswer, EventAnswer, RawBarrierProxy, RawEventProxy};
use super::typed::managed_type;
use crate::error::{Error, Result};
use crate::manager::handle::ManagerHandle;
use crate::sync::BrokenBarrier;

managed_type! {
    /// An event in a manager: Python's `Event`. It is set until it is cleared.
    ///
    /// # If the other process dies
    /// One that waits costs nothing. Calls that wait cost no thread of the manager.
    ///
    /// # Examples
    /// ```
    /// use process_task::managed::Event;
    /// use process_task::{Manager, process_task};
    ///
    /// #[process_task]
    /// fn begin(event: Event) { event.set().unwrap() }
    ///
    /// let manager = Manager::start()?;
    /// let begun = Event::new(&manager)?;
    /// let process = begin.spawn(begun.clone());
    /// begun.wait()?;
    /// assert!(begun.is_set()?);
    /// process.join()?;
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("EventProxy", "SyncManager.Event"))]
    Event<>, RawEventProxy
}

impl Event {
    /// Makes an event in `manager`, which is not set.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn new(manager: &impl AsRef<ManagerHandle>) -> Result<Self> {
        RawEventProxy::new(manager).map(Self::of)
    }

    /// Sets it, and wakes all that wait.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn set(&self) -> Result<()> {
        self.raw.set()
    }

    /// Clears it: calls wait again.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn clear(&self) -> Result<()> {
        self.raw.clear()
    }

    /// Whether it is set.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn is_set(&self) -> Result<bool> {
        self.raw.is_set()
    }

    /// Waits until it is set, as long as it takes; with [`with_timeout`](Self::with_timeout), for so long at most.
    ///
    /// # Errors
    /// The manager is gone, or the time is over.
    pub fn wait(&self) -> Result<()> {
        let mut answer = if self.raw.is_set()? { EventAnswer::Set } else { EventAnswer::Unset };
        while answer == EventAnswer::Unset {
            answer = self.raw.later().wait().join()?;
        }
        Ok(())
    }
}

managed_type! {
    /// A barrier in a manager: Python's `Barrier`.
    ///
    /// # If the other process dies
    /// If it waits there, the barrier breaks, as it does if the time of one that waits is over: all that wait, and all that
    /// come, get [`BrokenBarrier`], until [`reset`](Self::reset).
    ///
    /// # Examples
    /// ```
    /// use process_task::managed::Barrier;
    /// use process_task::{Manager, process_task};
    ///
    /// #[process_task]
    /// fn meet(barrier: Barrier) -> bool { barrier.wait().unwrap().unwrap() == 0 }
    ///
    /// let manager = Manager::start()?;
    /// let barrier = Barrier::new(&manager, 3)?;
    /// let parties = [0; 3].map(|_| meet.spawn(barrier.clone()));
    /// let firsts = parties.map(|party| party.join().unwrap());
    /// assert_eq!(firsts.into_iter().filter(|is_first| *is_first).count(), 1);
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("BarrierProxy", "SyncManager.Barrier"))]
    Barrier<>, RawBarrierProxy
}

impl Barrier {
    /// Makes a barrier for so many parties in `manager`.
    ///
    /// # Errors
    /// `parties` is 0, or the manager is gone.
    pub fn new(manager: &impl AsRef<ManagerHandle>, parties: usize) -> Result<Self> {
        if parties == 0 {
            return Err(Error::invalid("parties must be at least 1"));
        }
        RawBarrierProxy::new(manager, parties).map(Self::of)
    }

    /// Waits until all parties have arrived. Returns this one's number, from 0 on in the order of arrival.
    ///
    /// # Errors
    /// The manager is gone, or the time is over, and then the barrier breaks. Inside: the barrier is broken.
    pub fn wait(&self) -> Result<std::result::Result<usize, BrokenBarrier>> {
        match self.raw.later().wait().join()? {
            BarrierAnswer::Passed { index } => Ok(Ok(index)),
            BarrierAnswer::Broken | BarrierAnswer::Waits => Ok(Err(BrokenBarrier::Aborted)),
        }
    }

    /// Breaks the barrier.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn abort(&self) -> Result<()> {
        self.raw.abort()
    }

    /// Mends the barrier. Parties that wait get [`BrokenBarrier`].
    ///
    /// # Errors
    /// The manager is gone.
    pub fn reset(&self) -> Result<()> {
        self.raw.reset()
    }

    /// Number of parties that wait.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "n_waiting")]
    pub fn waiting(&self) -> Result<usize> {
        self.raw.waiting()
    }

    /// Number of parties that it takes.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn parties(&self) -> Result<usize> {
        self.raw.parties()
    }

    /// Whether it is broken.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "broken")]
    pub fn is_broken(&self) -> Result<bool> {
        self.raw.is_broken()
    }
}
