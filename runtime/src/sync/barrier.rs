//! [`Barrier`]: a barrier that breaks when a participant dies.
//!
//! Owns: [`Barrier`]. Runs in: any process.
//! Invariant: no party waits for a dead one.
//!
//! # The words
//!
//! All are written under `lock`; `round` and `breaks` are also read without it, in this order.
//!
//! | word     | meaning                                                                                            |
//! |----------|----------------------------------------------------------------------------------------------------|
//! | `round`  | the number of the current round, and how many have arrived in it                                   |
//! | `breaks` | how often the barrier broke, in which round last, and whether it [is](BROKEN) still broken         |
//! | `seen`   | of each process, the last round in which one of its threads arrived                                |
//!
//! The last to arrive begins the next round with one store, which is what all wait for. A party that waits for round *n*
//! succeeds if `round` has changed, and if there was no break since it arrived or one in a later round. It fails if the
//! first break since it arrived came in round *n*, or if there was more than one break.
//!
//! A reset begins a new round first, and clears [`BROKEN`] after that. It leaves one number out, so that no process
//! that was seen earlier counts as a party of the round before.
//!
//! # Deaths
//!
//! A party that arrives, and a party that waits, at each look, asks which of the known parties live:
//! - *One that has arrived, and waits*: if its process has ended, however, the barrier breaks.
//! - *One of the round before, on its way*: if it was killed, the barrier breaks. If it returned or exited with 0, nothing breaks.
//! - *The holder's of the lock*: the next process that takes the lock breaks the barrier.
//! - *The last to arrive, after its store and before it wakes the others*: the round is complete. The others see that when
//!   they look again.

use std::fmt;
use std::time::{Duration, Instant};

use super::atomic::AtomicU64;
use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::event_count::{EventCount, WaitKey};
use super::futex_wait;
use super::holders::Holders;
use super::lock::{Acquired, RobustLock};
use super::proc_table;

/// Set in `breaks` while the barrier is broken.
const BROKEN: u64 = 1 << 63;
/// One break, in the upper half of `breaks`.
const ONE_BREAK: u64 = 1 << 32;

/// Lets threads of any processes wait for each other until all parties have arrived: [`std::sync::Barrier`], and Python's.
///
/// # Broken barriers
/// If one of the parties is killed, none of the others would ever be enough. So the barrier breaks: all that wait, and all
/// that come, get [`BrokenBarrier`], until [`reset`](Self::reset) is called. A [time-out](Self::wait_timeout) and
/// [`abort`](Self::abort) break it likewise.
///
/// # Examples
/// That of [`std::sync::Barrier`]:
/// ```
/// use process_task::sync::Barrier;
/// use process_task::{Shared, process_task};
///
/// #[process_task]
/// fn meet(barrier: &Shared<Barrier>) {
///     println!("before wait");
///     barrier.wait().unwrap();
///     println!("after wait");
/// }
///
/// let n = 10;
/// let barrier = Shared::new(Barrier::new(n))?;
/// // The same messages will be printed together.
/// // You will NOT see any interleaving.
/// let handles: Vec<_> = (0..n).map(|_| meet.spawn(&barrier)).collect();
/// for handle in handles {
///     handle.join()?;
/// }
/// # process_task::Result::Ok(())
/// ```
///
/// The one that leads:
/// ```
/// use process_task::sync::Barrier;
///
/// let barrier = Barrier::new(3);
/// let leaders = std::thread::scope(|scope| {
///     let parties = [(); 3].map(|()| scope.spawn(|| barrier.wait().unwrap().is_leader()));
///     parties.map(|party| party.join().unwrap())
/// });
/// assert_eq!(leaders.iter().filter(|leader| **leader).count(), 1);
/// ```
///
/// # If the other process dies
/// All that wait return with an error within 100 ms, if the process was killed (or crashed, or exited with another code
/// than 0) while it waited too, or between its last round and this one. One that returned or exited with 0 between two
/// rounds breaks nothing: another process may come in its place. Of up to 256 processes it is known that they were parties;
/// how one of them ended is forgotten when thousands of processes have been made since.
#[repr(C)]
pub struct Barrier {
    parties: u32,
    lock: RobustLock,
    round: AtomicU64,
    breaks: AtomicU64,
    waiters: EventCount,
    seen: Holders,
}

/// One look at `round`.
#[derive(Clone, Copy)]
struct Round {
    number: u32,
    arrived: u32,
}

impl Round {
    #[expect(clippy::cast_possible_truncation, reason = "the word is cut into its two halves")]
    fn of(word: u64) -> Self {
        Self { number: (word >> 32) as u32, arrived: word as u32 }
    }

    fn word(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.arrived)
    }
}

/// One look at `breaks`.
#[derive(Clone, Copy)]
struct Breaks(u64);

impl Breaks {
    fn are_over(self) -> bool {
        self.0 & BROKEN == 0
    }

    fn count(self) -> u64 {
        (self.0 & !BROKEN) / ONE_BREAK
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    fn last_in(self) -> u32 {
        self.0 as u32
    }
}

/// What a party that waits saw when it arrived.
#[derive(Clone, Copy)]
struct Arrival {
    round: u32,
    breaks: u64,
}

impl Barrier {
    /// Creates a barrier for `parties` parties. With 0 or 1, [`wait`](Self::wait) does not block.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Barrier;
    ///
    /// static ALL_READY: Barrier = Barrier::new(4);
    /// assert_eq!(ALL_READY.parties(), 4);
    /// ```
    #[must_use]
    pub const fn new(parties: usize) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "no machine has more threads")]
        let parties = if parties > u32::MAX as usize { u32::MAX } else { parties as u32 };
        Self {
            parties,
            lock: RobustLock::new(),
            round: AtomicU64::new(1 << 32),
            breaks: AtomicU64::new(0),
            waiters: EventCount::new(),
            seen: Holders::new(),
        }
    }

    /// Waits until as many threads wait as there are parties, and then lets all of them go on. One of them is the leader.
    ///
    /// What each party wrote before is seen by all after.
    ///
    /// # Errors
    /// [`BrokenBarrier::Aborted`]: the barrier is broken, or breaks while this waits.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Barrier;
    ///
    /// assert!(Barrier::new(1).wait()?.is_leader());
    /// # Ok::<(), process_task::sync::BrokenBarrier>(())
    /// ```
    ///
    /// # If the other process dies
    /// This returns with an error within 100 ms, if that one was killed: see [`Barrier`].
    pub fn wait(&self) -> Result<BarrierWaitResult, BrokenBarrier> {
        self.wait_until(None)
    }

    /// Breaks the barrier for all parties if this has waited for `timeout` and not all have come; else it is
    /// [`wait`](Self::wait).
    ///
    /// # Errors
    /// [`BrokenBarrier::Timeout`]: the time is over. [`BrokenBarrier::Aborted`]: as for [`wait`](Self::wait).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use process_task::sync::{Barrier, BrokenBarrier};
    ///
    /// let barrier = Barrier::new(2);
    /// assert_eq!(barrier.wait_timeout(Duration::from_millis(1)), Err(BrokenBarrier::Timeout));
    /// assert_eq!(barrier.wait(), Err(BrokenBarrier::Aborted));
    /// assert!(barrier.is_broken());
    /// ```
    ///
    /// # If the other process dies
    /// As for [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult, BrokenBarrier> {
        self.wait_until(futex_wait::deadline_after(timeout))
    }

    /// Breaks the barrier: all that wait, and all that come, get an error, until [`reset`](Self::reset) is called.
    ///
    /// For one of the parties that cannot go on.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Barrier;
    ///
    /// let barrier = Barrier::new(2);
    /// barrier.abort();
    /// assert!(barrier.wait().is_err());
    /// ```
    pub fn abort(&self) {
        self.inside().break_barrier();
    }

    /// Returns the barrier to its first state. All that wait get an error.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Barrier;
    ///
    /// let barrier = Barrier::new(1);
    /// barrier.abort();
    /// barrier.reset();
    /// barrier.wait()?;
    /// # Ok::<(), process_task::sync::BrokenBarrier>(())
    /// ```
    pub fn reset(&self) {
        let mut inside = self.inside();
        let round = Round::of(self.round.load(Relaxed));
        if round.arrived != 0 {
            inside.break_barrier();
        }
        // Two further, so that no process counts as seen in the round before.
        let next = Round { number: round.number.wrapping_add(2), arrived: 0 };
        self.round.store(next.word(), Release);
        self.breaks.store(self.breaks.load(Relaxed) & !BROKEN, Release);
    }

    /// Returns the number of parties.
    ///
    /// # Examples
    /// See [`new`](Self::new).
    #[must_use]
    pub fn parties(&self) -> usize {
        self.parties as usize
    }

    /// Returns how many threads wait now; 0 while the barrier is broken.
    ///
    /// # Examples
    /// ```
    /// use process_task::sync::Barrier;
    ///
    /// assert_eq!(Barrier::new(3).waiting(), 0);
    /// ```
    #[doc(alias = "n_waiting")]
    pub fn waiting(&self) -> usize {
        if self.is_broken() { 0 } else { Round::of(self.round.load(Acquire)).arrived as usize }
    }

    /// Returns whether the barrier is broken. A death is noticed by parties that wait, and by the next that arrives.
    ///
    /// # Examples
    /// See [`wait_timeout`](Self::wait_timeout).
    #[doc(alias = "broken")]
    pub fn is_broken(&self) -> bool {
        !self.breaks().are_over()
    }

    fn breaks(&self) -> Breaks {
        Breaks(self.breaks.load(Acquire))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<BarrierWaitResult, BrokenBarrier> {
        let Some(arrival) = self.arrive()? else { return Ok(BarrierWaitResult { leader: true }) };
        loop {
            let mut outcome = None;
            futex_wait::spin_until(|| {
                outcome = self.outcome(arrival);
                outcome.is_some()
            });
            if let Some(outcome) = outcome {
                return outcome;
            }
            let key = match self.check_parties(arrival) {
                Ok(key) => key,
                Err(outcome) => return outcome,
            };
            if !self.waiters.wait(key, deadline) {
                return self.on_timeout(arrival);
            }
        }
    }

    /// Counts this party. Returns `None` if it is the last: then the next round has begun.
    fn arrive(&self) -> Result<Option<Arrival>, BrokenBarrier> {
        let mut inside = self.inside();
        let round = Round::of(self.round.load(Relaxed));
        if self.is_broken() || inside.break_if_party_died(round.number) {
            return Err(BrokenBarrier::Aborted);
        }
        // A 257th process is not remembered. The deaths of all others are still noticed.
        let is_outdated = |seen: u32| round.number.wrapping_sub(seen) > 1;
        self.seen.set(proc_table::current(), round.number, is_outdated);
        if round.arrived.saturating_add(1) >= self.parties {
            let next = Round { number: round.number.wrapping_add(1), arrived: 0 };
            self.round.store(next.word(), Release);
            inside.wakes_all = true;
            return Ok(None);
        }
        self.round.store(Round { arrived: round.arrived + 1, ..round }.word(), Release);
        Ok(Some(Arrival { round: round.number, breaks: self.breaks().count() }))
    }

    /// Returns how the round ended for this party, if it has ended.
    fn outcome(&self, arrival: Arrival) -> Option<Result<BarrierWaitResult, BrokenBarrier>> {
        // In this order: a break that came before this look at `round` is seen by the look at `breaks`.
        let round = Round::of(self.round.load(Acquire));
        let breaks = self.breaks();
        let completed = match breaks.count().wrapping_sub(arrival.breaks) {
            0 if round.number == arrival.round => return None,
            0 => true,
            1 => breaks.last_in() != arrival.round,
            _ => false,
        };
        Some(if completed { Ok(BarrierWaitResult { leader: false }) } else { Err(BrokenBarrier::Aborted) })
    }

    /// Breaks the barrier if a party died, and prepares to wait if there is no outcome.
    fn check_parties(&self, arrival: Arrival) -> Result<WaitKey, Result<BarrierWaitResult, BrokenBarrier>> {
        let mut inside = self.inside();
        if self.outcome(arrival).is_none() {
            inside.break_if_party_died(arrival.round);
        }
        self.outcome(arrival).map_or_else(|| Ok(self.waiters.prepare_wait()), Err)
    }

    /// Breaks the barrier because the deadline has passed, unless there is an outcome.
    fn on_timeout(&self, arrival: Arrival) -> Result<BarrierWaitResult, BrokenBarrier> {
        let mut inside = self.inside();
        self.outcome(arrival).unwrap_or_else(|| {
            inside.break_barrier();
            Err(BrokenBarrier::Timeout)
        })
    }

    /// Takes the lock. Breaks the barrier if its last holder has died.
    fn inside(&self) -> BarrierSection<'_> {
        loop {
            if let Some(taken) = self.lock.lock(None) {
                let mut inside = BarrierSection { barrier: self, wakes_all: false };
                if taken == Acquired::OwnerDied {
                    inside.break_barrier();
                    // That holder may have completed a round without waking the waiters.
                    inside.wakes_all = true;
                }
                return inside;
            }
        }
    }
}

/// Holds the lock of a barrier until dropped, and says whether all waiters are woken then.
struct BarrierSection<'a> {
    barrier: &'a Barrier,
    wakes_all: bool,
}

impl BarrierSection<'_> {
    fn break_barrier(&mut self) {
        let breaks = self.barrier.breaks();
        if breaks.are_over() {
            let round = Round::of(self.barrier.round.load(Relaxed)).number;
            let count = ((breaks.count() + 1) * ONE_BREAK) & !BROKEN;
            self.barrier.breaks.store(BROKEN | count | u64::from(round), Release);
            self.wakes_all = true;
        }
    }

    /// Breaks the barrier if a party of this round has ended, or one of the round before was killed. Returns whether it did.
    fn break_if_party_died(&mut self, round: u32) -> bool {
        let own = proc_table::current();
        let is_missed = self.barrier.seen.any(|member, seen| match round.wrapping_sub(seen) {
            _ if member == own => false,
            0 => !proc_table::is_alive(member),
            1 => proc_table::was_killed(member),
            _ => false,
        });
        if is_missed {
            self.break_barrier();
        }
        is_missed
    }
}

impl Drop for BarrierSection<'_> {
    fn drop(&mut self) {
        let Barrier { lock, waiters, .. } = self.barrier;
        if !self.wakes_all {
            return lock.unlock();
        }
        let notified = waiters.notify();
        lock.unlock();
        waiters.wake_all(&notified);
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Barrier");
        shown.field("parties", &self.parties).field("waiting", &self.waiting()).field("broken", &self.is_broken());
        shown.finish_non_exhaustive()
    }
}

/// What [`Barrier::wait`] tells each party of a round: whether it is the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarrierWaitResult {
    leader: bool,
}

impl BarrierWaitResult {
    /// Returns whether this thread is the leader of its round: the last that arrived.
    ///
    /// # Examples
    /// See [`Barrier`].
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader
    }
}

/// The barrier is broken, and stays so until [`Barrier::reset`] is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BrokenBarrier {
    /// This call's [time-out](Barrier::wait_timeout) was over, which has broken the barrier for all parties.
    Timeout,
    /// Another party was killed, has [aborted](Barrier::abort), or did not come in the time that one of them gave.
    Aborted,
}

impl fmt::Display for BrokenBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "timed out, which has broken the barrier: not all parties came in time",
            Self::Aborted => "the barrier is broken: one of its parties was killed, aborted, or did not come in time",
        })
    }
}

impl std::error::Error for BrokenBarrier {}
