//! [`Event`]: a flag that threads of any processes wait for.
//!
//! Owns: [`Event`]. Runs in: any process.
//! Invariant: no process holds anything here, so a death costs the others no more than one look.
//!
//! Why a waiter does not spin before it sleeps: the thread that sets the event commonly sleeps next, and the one that
//! it wakes then runs in its place, on its processor. A waiter that spins is given another processor: 9 us there and
//! back instead of 4.5. A lock is spun on, since its holder works elsewhere.
//!
//! # The word
//!
//! It counts how often the event was set, in steps of [`ONE_SET`]; two bits say more:
//!
//! | bit           | meaning                                   | written next by                                 |
//! |---------------|-------------------------------------------|-------------------------------------------------|
//! | [`SET`]       | the event is set; there are no waiters    | the thread that clears it                       |
//! | [`WAITERS`]   | not set, and a thread may be asleep       | the thread that sets it, which clears this and wakes all |
//!
//! A waiter reads the word, adds [`WAITERS`] and sleeps while the word is that. It may go on as soon as the word
//! has another count, even if the event was cleared again meanwhile. Every change is one exchange of the whole
//! word, so a thread that sets the event finds [`WAITERS`], or comes before it, and then the waiter, or the kernel for it,
//! finds another count.
//!
//! # Deaths
//!
//! - *A waiter's*: one needless wake-up. One that gave up costs the same.
//! - *Of the thread that sets, before it wakes*: the waiters look again within [`futex_wait::MAX_SLEEP`].

use std::fmt;
use std::time::{Duration, Instant};

use super::atomic::AtomicU32;
use super::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use super::elapsed::Elapsed;
use super::futex_wait;

const SET: u32 = 1;
const WAITERS: u32 = 2;
const ONE_SET: u32 = 4;

/// A flag that is set and cleared, and that threads of any processes wait for. Python's `Event`.
///
/// What was written before [`set`](Self::set) is seen by each thread that returns from [`wait`](Self::wait) for it. A `set`
/// releases all that wait, even if [`clear`](Self::clear) follows at once.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use process_task::sync::Event;
/// use process_task::{Shared, process_task};
///
/// #[process_task]
/// fn begin(started: &Shared<Event>) {
///     started.set();
/// }
///
/// let started = Shared::new(Event::new())?;
/// let task = begin.spawn(&started);
/// started.wait();
/// assert!(started.is_set());
/// started.clear();
/// assert!(started.wait_timeout(Duration::from_millis(1)).is_err());
/// task.join()?;
/// # process_task::Result::Ok(())
/// ```
///
/// Work that is announced by an event is looked for *after* clearing it: what is set between a look and a later `clear` would
/// be erased, and `wait` would sleep over work that is already there.
/// ```
/// # use process_task::sync::Event;
/// # fn work() -> bool { true }
/// # let event = Event::new();
/// loop {
///     event.clear();
///     if work() { break }
///     event.wait();
/// }
/// ```
///
/// # If the other process dies
/// A killed waiter costs nothing. If the one that sets the event is killed, the event is set or it is not; if it is, all that
/// wait return within 100 ms.
#[repr(C)]
pub struct Event {
    word: AtomicU32,
}

impl Event {
    /// Creates an event that is not set.
    #[must_use]
    pub const fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    /// Sets the flag and releases all threads that wait. Does nothing if it is set already.
    pub fn set(&self) {
        let mut word = self.word.load(Relaxed);
        loop {
            // Also where it is set already: a thread that sees this word is to see what was written before it.
            let next = if word & SET != 0 { word } else { (word & !WAITERS).wrapping_add(ONE_SET) | SET };
            match self.word.compare_exchange(word, next, AcqRel, Relaxed) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if word & WAITERS != 0 {
            futex_wait::wake_all(&self.word);
        }
    }

    /// Clears the flag: from now on, [`wait`](Self::wait) waits for the next [`set`](Self::set).
    pub fn clear(&self) {
        self.word.fetch_and(!SET, AcqRel);
    }

    /// Returns whether the flag is set. What was written before it was set is seen after this.
    pub fn is_set(&self) -> bool {
        self.word.load(Acquire) & SET != 0
    }

    /// Waits until the event is set, as long as it takes; not at all if it is set already.
    ///
    /// # If the other process dies
    /// Only a call of [`set`](Self::set) can end this. Where the process that is to make it might be killed, wait with a
    /// [time-out](Self::wait_timeout).
    pub fn wait(&self) {
        while !self.wait_until(None) {}
    }

    /// Waits until the event is set, for `timeout` at the most.
    ///
    /// # Errors
    /// [`Elapsed`]: it was not set in time.
    ///
    /// # If the other process dies
    /// As with [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), Elapsed> {
        match futex_wait::deadline_after(timeout) {
            None => {
                self.wait();
                Ok(())
            }
            deadline if self.wait_until(deadline) => Ok(()),
            _ => Err(Elapsed::new()),
        }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        let first = self.word.load(Acquire);
        // A word that is not set changes its count only by being set, and never has the same one again.
        let is_over = |now: u32| now & !WAITERS != first & !WAITERS;
        if first & SET != 0 {
            return true;
        }
        // Without spinning first, for the reason that `Semaphore::acquire_until` gives.
        loop {
            let now = self.word.load(Acquire);
            if is_over(now) {
                return true;
            }
            if now & WAITERS == 0 && self.word.compare_exchange(now, now | WAITERS, Relaxed, Relaxed).is_err() {
                continue;
            }
            if !futex_wait::sleep(&self.word, now | WAITERS, deadline) {
                return false;
            }
        }
    }
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("set", &self.is_set()).finish()
    }
}
