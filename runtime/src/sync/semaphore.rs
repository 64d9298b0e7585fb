//! [`Semaphore`]: a number of permits, which come back from a holder that was killed.
//!
//! Owns: [`Semaphore`] and [`Permit`]. Runs in: any process.
//! Invariant: no permit stays with a dead process while a thread waits for one.
//!
//! Why a waiter does not spin before it sleeps: as for an event, the thread that gives the permit back commonly
//! sleeps next.
//!
//! # The words
//!
//! All are written under `lock`, a few instructions long.
//!
//! | word      | meaning                                                                |
//! |-----------|------------------------------------------------------------------------|
//! | `permits` | number of permits, held or free                                        |
//! | `held`    | number of permits that each process holds                              |
//! | `free`    | the difference of the two, so that no caller need add                  |
//!
//! Taking a permit, releasing one, and adding one is one change of `held` or of `permits`. `free` follows, and a thread that
//! finds that the last holder of `lock` has died computes it again. A permit is forgotten by taking it from `permits`
//! first. A process that is killed after that leaves an entry in `held` that its death clears anyway.
//!
//! # Deaths
//!
//! - *A holder's*: a thread that finds no permit free asks which holders live before it reports that, and before and
//!   after each sleep.
//! - *A waiter's*: costs nothing. If it had just been woken, the others look again within [`futex_wait::MAX_SLEEP`].

use std::fmt;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use super::atomic::AtomicU32;
use super::atomic::Ordering::Relaxed;
use super::elapsed::Elapsed;
use super::event_count::{ALL, EventCount};
use super::futex_wait;
use super::holders::Holders;
use super::lock::{Acquired, RobustLock};
use super::proc_table::{self, ProcId};

/// A number of permits for threads of any processes. A thread that [acquires](Self::acquire) one has it until it drops the
/// [`Permit`].
///
/// [`new`](Self::new) is Python's `Semaphore`, [`bounded`](Self::bounded) its `BoundedSemaphore`. A permit that is taken in one place and
/// released in another, as Python's are, is [forgotten](Permit::forget) there and [added](Self::add_permit) here.
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
    lock: RobustLock,
    /// The most permits that there may be.
    bound: u32,
    permits: AtomicU32,
    free: AtomicU32,
    waiters: EventCount,
    held: Holders,
}

impl Semaphore {
    /// Creates a semaphore with `permits` permits. [`add_permit`](Self::add_permit) adds more.
    #[must_use]
    pub const fn new(permits: u32) -> Self {
        Self::with_bound(permits, u32::MAX)
    }

    /// Creates a semaphore with `permits` permits, and never more: to [add](Self::add_permit) one that was not
    /// [forgotten](Permit::forget) is an error.
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
            lock: RobustLock::new(),
            bound,
            permits: AtomicU32::new(permits),
            free: AtomicU32::new(permits),
            waiters: EventCount::new(),
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
        self.inside().try_take()
    }

    /// Takes a permit, waiting for `timeout` at the most.
    ///
    /// # Errors
    /// [`Elapsed`]: none was free in time.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use process_task::sync::Semaphore;
    ///
    /// assert!(Semaphore::new(0).acquire_timeout(Duration::from_millis(1)).is_err());
    /// ```
    ///
    /// # If the other process dies
    /// As with [`acquire`](Self::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>, Elapsed> {
        // A time-out that ends after the end of all clocks is none.
        match futex_wait::deadline_after(timeout) {
            None => Ok(self.acquire()),
            deadline => self.acquire_until(deadline).ok_or_else(Elapsed::new),
        }
    }

    /// Adds one permit, or releases one that was [forgotten](Permit::forget), by whichever process.
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
        inside.add_free(1);
        Ok(())
    }

    /// Returns how many permits could be acquired now. The number may have changed by the time that it is read.
    ///
    /// # If the other process dies
    /// What it held counts as soon as its death is known.
    pub fn available(&self) -> u32 {
        self.inside().reclaim_from_dead();
        self.free.load(Relaxed)
    }

    /// Returns `None` if the deadline has passed.
    fn acquire_until(&self, deadline: Option<Instant>) -> Option<Permit<'_>> {
        loop {
            // Without spinning first. A thread that releases a permit commonly sleeps next, and the thread it wakes then
            // runs in its place. If this one spun, the woken thread would be given another processor, which takes longer.
            let key = {
                let mut inside = self.inside_until(deadline)?;
                match inside.try_take() {
                    None => self.waiters.prepare_wait(),
                    permit => return permit,
                }
            };
            if !self.waiters.wait(key, deadline) {
                return None;
            }
        }
    }

    fn inside(&self) -> SemaphoreSection<'_> {
        loop {
            if let Some(inside) = self.inside_until(None) {
                return inside;
            }
        }
    }

    /// Takes the lock, and repairs what a process that died with it left behind. Returns `None` if the deadline has passed.
    fn inside_until(&self, deadline: Option<Instant>) -> Option<SemaphoreSection<'_>> {
        let taken = self.lock.lock(deadline)?;
        let mut inside = SemaphoreSection { semaphore: self, to_wake: 0 };
        if taken == Acquired::OwnerDied {
            inside.repair();
        }
        Some(inside)
    }
}

/// Holds the lock of a semaphore until dropped, and then wakes `to_wake` threads.
struct SemaphoreSection<'a> {
    semaphore: &'a Semaphore,
    to_wake: u32,
}

impl<'a> SemaphoreSection<'a> {
    fn try_take(&mut self) -> Option<Permit<'a>> {
        let Semaphore { free, held, .. } = self.semaphore;
        if free.load(Relaxed) == 0 {
            self.reclaim_from_dead();
        }
        if free.load(Relaxed) == 0 {
            return None;
        }
        let holder = proc_table::current();
        if !held.add(holder) {
            // There is no room for another process, unless some have died.
            self.reclaim_from_dead();
            if !held.add(holder) {
                return None;
            }
        }
        free.store(free.load(Relaxed) - 1, Relaxed);
        self.to_wake = self.to_wake.saturating_sub(1);
        Some(Permit { semaphore: self.semaphore, holder })
    }

    fn add_free(&mut self, count: u32) {
        let free = &self.semaphore.free;
        free.store(free.load(Relaxed).saturating_add(count), Relaxed);
        self.to_wake = self.to_wake.saturating_add(count);
    }

    fn reclaim_from_dead(&mut self) {
        let freed = self.semaphore.held.release_dead(proc_table::is_alive);
        if freed != 0 {
            self.add_free(freed);
        }
    }

    #[cold]
    fn repair(&mut self) {
        let Semaphore { permits, free, held, .. } = self.semaphore;
        held.release_dead(proc_table::is_alive);
        free.store(permits.load(Relaxed).saturating_sub(held.total()), Relaxed);
        self.to_wake = ALL;
    }
}

impl Drop for SemaphoreSection<'_> {
    fn drop(&mut self) {
        let Semaphore { lock, waiters, .. } = self.semaphore;
        if self.to_wake == 0 {
            return lock.unlock();
        }
        let notified = waiters.notify();
        lock.unlock();
        waiters.wake(&notified, self.to_wake);
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("available", &self.free.load(Relaxed)).finish_non_exhaustive()
    }
}

/// One permit of a [`Semaphore`], released when this is dropped.
///
/// In a copy of the process that a plain `fork()` made, dropping it does nothing: the permit is the original's.
#[must_use = "a permit that is dropped at once limits nothing"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    holder: ProcId,
}

impl Permit<'_> {
    /// Uses the permit up: there is one less from now on, until one is [added](Semaphore::add_permit).
    ///
    /// # If the other process dies
    /// The permit has no holder any more, so no death brings it back.
    pub fn forget(self) {
        let permit = ManuallyDrop::new(self);
        let semaphore = permit.semaphore;
        if !proc_table::is_current(permit.holder) {
            return;
        }
        let _inside = semaphore.inside();
        if semaphore.held.count_of(permit.holder) != 0 {
            semaphore.permits.store(semaphore.permits.load(Relaxed).saturating_sub(1), Relaxed);
            semaphore.held.remove(permit.holder);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if proc_table::is_current(self.holder) {
            let mut inside = self.semaphore.inside();
            if self.semaphore.held.remove(self.holder) {
                inside.add_free(1);
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
