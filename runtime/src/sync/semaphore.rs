//! Permits that so many may hold at a time, and that come back from a holder that was killed.
//!
//! Owns: [`Semaphore`] and [`Permit`]. Runs in: any process.
//! Never: leaves a permit with a dead process while a thread waits for one.
//!
//! # The words
//!
//! All are written under `lock`, a few instructions long.
//!
//! | word      | meaning                                                                |
//! |-----------|------------------------------------------------------------------------|
//! | `permits` | how many there are, held or free                                       |
//! | `held`    | how many each process holds                                            |
//! | `free`    | the difference of the two, so that a look need not add                 |
//!
//! To take a permit, to give one back, and to make one more is one change of `held` or of `permits`; `free` follows, and a
//! thread that finds that the last holder of `lock` has died works it out anew. A permit is forgotten by taking it from
//! `permits` first: one
//! that is killed after that leaves an entry in `held` that its death clears anyway.
//!
//! # Deaths
//!
//! - *A holder's*: a thread that finds no permit free asks which holders live before it says so, and before and after each
//!   sleep.
//! - *A waiter's*: costs nothing. Had it been woken just before, the others look again by themselves soon.

use std::fmt;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use super::atomic::AtomicU32;
use super::atomic::Ordering::Relaxed;
use super::holders::Holders;
use super::lock::{Lock, Taken};
use super::members::{self, Member};
use super::sleepers::{ALL, Sleepers};
use super::waiting;

/// A number of permits, for threads of any processes: a thread that [acquires](Self::acquire) one has it until it drops the
/// [`Permit`].
///
/// [`new`](Self::new) is Python's `Semaphore`, [`bounded`](Self::bounded) its `BoundedSemaphore`. A permit that is taken in one place and
/// given back in another, as Python's are, is [forgotten](Permit::forget) there and [added](Self::add_permit) here.
///
/// Permits of one semaphore are held by up to 256 processes at a time, by each as many as it likes; a further process waits
/// as if there were none.
///
/// # Examples
/// ```
/// use process_task::sync::Semaphore;
/// use process_task::{Pool, Shared, process_task};
///
/// #[process_task]
/// fn download(number: u64, line: &Shared<Semaphore>) -> u64 {
///     let _permit = line.acquire(); // two at a time, however many workers there are
///     number * number
/// }
///
/// let line = Shared::new(Semaphore::new(2))?;
/// let pool = Pool::builder().workers(4).build()?;
/// assert_eq!(pool.map(download, (0..5).map(|number| (number, &line)))?, [0, 1, 4, 9, 16]);
/// # process_task::Result::Ok(())
/// ```
///
/// Within one process:
/// ```
/// use process_task::sync::Semaphore;
///
/// let downloads = Semaphore::new(2);
/// let (first, second) = (downloads.acquire(), downloads.acquire());
/// assert!(downloads.try_acquire().is_none());
/// drop(first);
/// assert_eq!(downloads.available(), 1);
/// # drop(second);
/// ```
///
/// # If the other process dies
/// The permits of a process that was killed, or ended in any other way, come back: a waiting thread gets one within 100 ms,
/// and [`try_acquire`](Self::try_acquire) at once. A killed waiter costs nothing. A permit that was forgotten has no
/// holder, and does not come back.
#[doc(alias = "BoundedSemaphore")]
#[repr(C)]
pub struct Semaphore {
    lock: Lock,
    /// The most permits that there may be.
    bound: u32,
    permits: AtomicU32,
    free: AtomicU32,
    sleepers: Sleepers,
    held: Holders,
}

impl Semaphore {
    /// With so many permits. [`add_permit`](Self::add_permit) makes more.
    #[must_use]
    pub const fn new(permits: u32) -> Self {
        Self::with_bound(permits, u32::MAX)
    }

    /// With so many permits, and never more: to [add](Self::add_permit) one that was not [forgotten](Permit::forget) is an error.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Semaphore;
    ///
    /// let seats = Semaphore::bounded(1);
    /// seats.add_permit().expect_err("there is a permit already");
    /// seats.acquire().forget();
    /// seats.add_permit()?;
    /// # Ok::<(), process_task::sync::TooManyPermits>(())
    /// ```
    #[must_use]
    pub const fn bounded(permits: u32) -> Self {
        Self::with_bound(permits, permits)
    }

    const fn with_bound(permits: u32, bound: u32) -> Self {
        Self {
            lock: Lock::new(),
            bound,
            permits: AtomicU32::new(permits),
            free: AtomicU32::new(permits),
            sleepers: Sleepers::new(),
            held: Holders::new(),
        }
    }

    /// Takes a permit, waiting as long as it takes.
    ///
    /// # If the other process dies
    /// What it held can be acquired within 100 ms.
    pub fn acquire(&self) -> Permit<'_> {
        loop {
            if let Some(permit) = self.acquire_until(None) {
                return permit;
            }
        }
    }

    /// Takes a permit if there is one.
    ///
    /// # If the other process dies
    /// What it held is found here as soon as its death is known.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.inside().take()
    }

    /// Takes a permit, waiting for so long at most.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use process_task::sync::Semaphore;
    ///
    /// assert!(Semaphore::new(0).acquire_timeout(Duration::from_millis(1)).is_none());
    /// ```
    ///
    /// # If the other process dies
    /// As with [`acquire`](Self::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Option<Permit<'_>> {
        // A time-out that ends after the end of all clocks is none.
        match waiting::deadline_after(timeout) {
            None => Some(self.acquire()),
            deadline => self.acquire_until(deadline),
        }
    }

    /// Makes one permit more, or gives back one that was [forgotten](Permit::forget), by whichever process.
    ///
    /// # Errors
    /// [`TooManyPermits`] if there would be more than the [bound](Self::bounded), held and free ones together.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Semaphore;
    ///
    /// let ready = Semaphore::new(0);
    /// ready.add_permit()?;
    /// ready.acquire().forget();
    /// assert_eq!(ready.available(), 0);
    /// # Ok::<(), process_task::sync::TooManyPermits>(())
    /// ```
    #[doc(alias("release", "add_permits"))]
    pub fn add_permit(&self) -> Result<(), TooManyPermits> {
        let mut inside = self.inside();
        let permits = self.permits.load(Relaxed);
        if permits >= self.bound {
            return Err(TooManyPermits);
        }
        self.permits.store(permits + 1, Relaxed);
        inside.freed(1);
        Ok(())
    }

    /// How many permits could be acquired now. It may be another number by the time that this one is read.
    ///
    /// # If the other process dies
    /// What it held counts as soon as its death is known.
    pub fn available(&self) -> u32 {
        self.inside().take_from_dead();
        self.free.load(Relaxed)
    }

    /// None: the deadline is over.
    fn acquire_until(&self, deadline: Option<Instant>) -> Option<Permit<'_>> {
        loop {
            // Without looking for a while first: a thread that gives a permit back commonly sleeps next, and the one it
            // wakes then runs in its place. Should it look instead, the woken one is given another processor, which takes
            // longer.
            let turn = {
                let mut inside = self.inside_until(deadline)?;
                match inside.take() {
                    None => self.sleepers.enlist(),
                    permit => return permit,
                }
            };
            if !self.sleepers.sleep(turn, deadline) {
                return None;
            }
        }
    }

    fn inside(&self) -> Inside<'_> {
        loop {
            if let Some(inside) = self.inside_until(None) {
                return inside;
            }
        }
    }

    /// Takes the lock, and repairs what one that died there left behind. None: the deadline is over.
    fn inside_until(&self, deadline: Option<Instant>) -> Option<Inside<'_>> {
        let taken = self.lock.lock(deadline)?;
        let mut inside = Inside { semaphore: self, to_wake: 0 };
        if taken == Taken::FromDead {
            inside.repair();
        }
        Some(inside)
    }
}

/// The lock of a semaphore, until this is dropped, and how many are to be woken then.
struct Inside<'a> {
    semaphore: &'a Semaphore,
    to_wake: u32,
}

impl<'a> Inside<'a> {
    fn take(&mut self) -> Option<Permit<'a>> {
        let Semaphore { free, held, .. } = self.semaphore;
        if free.load(Relaxed) == 0 {
            self.take_from_dead();
        }
        if free.load(Relaxed) == 0 {
            return None;
        }
        let holder = members::own();
        if !held.add(holder) {
            // There is no room for one process more, unless some have died.
            self.take_from_dead();
            if !held.add(holder) {
                return None;
            }
        }
        free.store(free.load(Relaxed) - 1, Relaxed);
        self.to_wake = self.to_wake.saturating_sub(1);
        Some(Permit { semaphore: self.semaphore, holder })
    }

    fn freed(&mut self, count: u32) {
        let free = &self.semaphore.free;
        free.store(free.load(Relaxed).saturating_add(count), Relaxed);
        self.to_wake = self.to_wake.saturating_add(count);
    }

    fn take_from_dead(&mut self) {
        let freed = self.semaphore.held.take_from_dead(members::lives);
        if freed != 0 {
            self.freed(freed);
        }
    }

    #[cold]
    fn repair(&mut self) {
        let Semaphore { permits, free, held, .. } = self.semaphore;
        held.take_from_dead(members::lives);
        free.store(permits.load(Relaxed).saturating_sub(held.total()), Relaxed);
        self.to_wake = ALL;
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let Semaphore { lock, sleepers, .. } = self.semaphore;
        if self.to_wake == 0 {
            return lock.unlock();
        }
        let called = sleepers.call();
        lock.unlock();
        sleepers.wake(&called, self.to_wake);
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("available", &self.free.load(Relaxed)).finish_non_exhaustive()
    }
}

/// One permit of a [`Semaphore`], given back when this is dropped.
///
/// In a copy of the process that a plain `fork()` made, dropping it does nothing: the permit is the original's.
#[must_use = "a permit that is dropped at once holds nobody back"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    holder: Member,
}

impl Permit<'_> {
    /// Uses the permit up: there is one less from now on, until one is [added](Semaphore::add_permit).
    ///
    /// # If the other process dies
    /// The permit has no holder any more, so no death brings it back.
    pub fn forget(self) {
        let permit = ManuallyDrop::new(self);
        let semaphore = permit.semaphore;
        if !members::is_own(permit.holder) {
            return;
        }
        let _inside = semaphore.inside();
        if semaphore.held.of(permit.holder) != 0 {
            semaphore.permits.store(semaphore.permits.load(Relaxed).saturating_sub(1), Relaxed);
            semaphore.held.take(permit.holder);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if members::is_own(self.holder) {
            let mut inside = self.semaphore.inside();
            if self.semaphore.held.take(self.holder) {
                inside.freed(1);
            }
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("semaphore", self.semaphore).finish()
    }
}

/// Why [`Semaphore::add_permit`] did nothing: there are as many permits as its bound allows already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyPermits;

impl fmt::Display for TooManyPermits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the semaphore has as many permits as its bound allows already")
    }
}

impl std::error::Error for TooManyPermits {}
