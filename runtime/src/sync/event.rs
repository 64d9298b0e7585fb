//! A flag that threads of any processes wait for.
//!
//! Owns: [`Event`]. Runs in: any process.
//! Never: holds anything, so that nobody's death costs anybody more than one look.
//!
//! # The words
//!
//! | word       | meaning                                                    | who writes it                        |
//! |------------|------------------------------------------------------------|--------------------------------------|
//! | `word`     | how often the event was set, times two, plus [`SET`] or not | anyone; it is what the waiters sleep on |
//! | `enlisted` | how often somebody was about to sleep                      | each waiter                          |
//! | `gone`     | of these, how many are known not to sleep any more         | whoever has woken all there were     |
//!
//! A waiter looks at `word`, then enlists, then sleeps while the word is what it saw. It may go on as soon as the word
//! has another count, even if the flag was cleared again meanwhile. One who sets the event looks at `enlisted`, changes the word, and
//! looks again: if that differs from `gone`, it wakes all. Whoever was enlisted at its *first* look saw a word that is over now,
//! and sleeps no more; of who came later it cannot say, so it leaves them to the next one.
//!
//! A waiter that enlists and one who sets each write their own word and then read the other's; all four steps have one order
//! (`SeqCst`), so one of the two sees the other. The kernel's look at the word, as it falls asleep, is such a step.
//!
//! # Deaths
//!
//! - *A waiter's*: one needless wake-up.
//! - *Of the one who sets, before it wakes*: the waiters look again by themselves soon.

use std::fmt;
use std::time::{Duration, Instant};

use super::atomic::AtomicU32;
use super::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use super::waiting;

const SET: u32 = 1;
/// One more in the count of how often the event was set.
const ONCE_MORE: u32 = 2;

/// A flag that is set and cleared, and that threads of any processes wait for. Python's `Event`.
///
/// What was written before [`set`](Self::set) is seen by whoever returns from [`wait`](Self::wait) for it. A `set` releases all that wait, even
/// if [`clear`](Self::clear) follows at once.
///
/// # Examples
/// ```
/// use std::{thread, time::Duration};
/// use process_task::sync::Event;
///
/// let started = Event::new();
/// thread::scope(|scope| {
///     scope.spawn(|| started.set());
///     started.wait();
/// });
/// assert!(started.is_set());
/// started.clear();
/// assert!(!started.wait_timeout(Duration::from_millis(1)));
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
    enlisted: AtomicU32,
    gone: AtomicU32,
}

impl Event {
    /// One that is not set.
    #[must_use]
    pub const fn new() -> Self {
        Self { word: AtomicU32::new(0), enlisted: AtomicU32::new(0), gone: AtomicU32::new(0) }
    }

    /// Sets the flag, and lets all go on that wait. Does nothing if it is set.
    pub fn set(&self) {
        let known = self.enlisted.load(SeqCst);
        let set = self
            .word
            .fetch_update(SeqCst, SeqCst, |word| (word & SET == 0).then(|| word.wrapping_add(ONCE_MORE) | SET));
        if set.is_ok() && self.enlisted.load(SeqCst) != self.gone.load(Relaxed) {
            waiting::wake_all(&self.word);
            self.gone.store(known, Relaxed);
        }
    }

    /// Takes the flag back: from now on, [`wait`](Self::wait) waits for the next [`set`](Self::set).
    pub fn clear(&self) {
        self.word.fetch_and(!SET, SeqCst);
    }

    /// Whether the flag is set. What was written before it was set is seen after this.
    pub fn is_set(&self) -> bool {
        self.word.load(Acquire) & SET != 0
    }

    /// Waits until the event is set, as long as it takes; not at all if it is set already.
    ///
    /// # If the other process dies
    /// Nobody but the one who calls [`set`](Self::set) can end this. Where that one might be killed, wait with a
    /// [time-out](Self::wait_timeout).
    pub fn wait(&self) {
        while !self.wait_until(None) {}
    }

    /// Waits until the event is set, for so long at most. False: the time is over, and it was not set meanwhile.
    ///
    /// # If the other process dies
    /// As with [`wait`](Self::wait).
    #[must_use = "the event may not have been set"]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        match waiting::deadline_after(timeout) {
            None => {
                self.wait();
                true
            }
            deadline => self.wait_until(deadline),
        }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        let first = self.word.load(Acquire);
        // A word that is not set changes only by being set, and is never the same again.
        let is_over = || self.word.load(Acquire) != first;
        if first & SET != 0 || waiting::look_shortly(is_over) {
            return true;
        }
        loop {
            // What is slept on is what was seen before enlisting, so that one who sees this one enlisted has not yet
            // changed it. The count is the same for all the time that this waits.
            self.enlisted.fetch_add(1, SeqCst);
            let sleeps = waiting::sleep(&self.word, first, deadline);
            if is_over() {
                return true;
            }
            if !sleeps {
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
