//! Which thread of a manager is the leader: the one that takes requests.
//!
//! Runs in: the manager.
//! Invariant: at most one thread is the leader.
//!
//! The leader runs the calls that it takes, so that a short call costs no wake-up of another thread. While it runs code of
//! the program's, it is *busy*, and may lose the leadership: a standby thread that finds it in the same call a
//! [`TICK`] later takes over. One standby thread *ticks*, that is, looks each tick, from the time it is nudged until the leader
//! sleeps. Clients nudge if they wait for longer than a millisecond, or make calls for which they do not wait. So short calls
//! and an idle manager cost no tick.
//!
//! A leader that is about to wait for another call gives the leadership away first.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use super::memory::ManagerMemory;
use super::wakeup::PARKED;
use crate::sync::futex_wait;
use crate::sys::futex;

/// How long a leader may be in one call until another thread takes over.
const TICK: Duration = Duration::from_millis(1);

/// How long a thread that is not needed stays.
const IDLE_TIME: Duration = Duration::from_secs(1);

/// Number of threads that stay although they are not needed.
const KEPT_STANDBY: usize = 2;

/// The leader runs code of the program's.
const BUSY: u64 = 1;
/// No thread is the leader.
const VACANT: u64 = 2;
/// Each change of the word gives it a number that it has not had before.
const STEP: u64 = 4;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Turn {
    word: AtomicU64,
    /// Number of threads that wait to become the leader.
    standby: AtomicUsize,
}

/// The leadership, as the thread has it that is the leader.
#[derive(Debug)]
pub(super) struct Lead(u64);

impl Turn {
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(VACANT), standby: AtomicUsize::new(0) }
    }

    /// One more thread stands by, or is about to.
    pub(super) fn add_standby(&self) {
        self.standby.fetch_add(1, AcqRel);
    }

    /// One less does.
    pub(super) fn remove_standby(&self) {
        self.standby.fetch_sub(1, AcqRel);
    }

    /// Waits until this thread, which was [counted](Self::add_standby), is the leader. `None`: the manager has threads enough.
    /// Either way it is not counted any more.
    pub(super) fn wait(&self, shared: &ManagerMemory) -> Option<Lead> {
        let nudges = &shared.words().nudges;
        let since = Instant::now();
        loop {
            let seen = nudges.load(Acquire);
            if let Some(lead) = self.tick(shared) {
                self.remove_standby();
                return Some(lead);
            }
            if self.standby.load(Relaxed) <= KEPT_STANDBY {
                futex::wait(nudges, seen);
                continue;
            }
            // Nudges come for as long as clients wait, and do not show that this thread is needed. One that comes from here on
            // wakes a thread that stays.
            let rest = IDLE_TIME.saturating_sub(since.elapsed());
            let fewer = |standby: usize| (standby > KEPT_STANDBY).then(|| standby - 1);
            if rest.is_zero() && self.standby.fetch_update(AcqRel, Relaxed, fewer).is_ok() {
                return None;
            }
            futex::wait_until(nudges, seen, rest);
        }
    }

    /// Takes the leadership if it is vacant, or as soon as the leader is stuck. `None`: the leader sleeps, or another thread
    /// ticks.
    fn tick(&self, shared: &ManagerMemory) -> Option<Lead> {
        let words = shared.words();
        let mut ticks = false;
        let mut last = None;
        loop {
            let word = self.word.load(Acquire);
            let is_stuck = word & BUSY != 0 && last == Some(word);
            if word & VACANT != 0 || is_stuck {
                let next = (word & !(BUSY | VACANT)) + STEP;
                if self.word.compare_exchange(word, next, AcqRel, Relaxed).is_err() {
                    continue;
                }
                if ticks {
                    words.ticks.store(0, SeqCst);
                }
                // Should this thread get stuck in turn, another one is to see it.
                nudge(shared);
                return Some(Lead(next));
            }
            if words.wakeup.load(SeqCst) == PARKED {
                if !std::mem::take(&mut ticks) {
                    return None;
                }
                words.ticks.store(0, SeqCst);
                // What a client brought before it could see that is in the word.
                continue;
            }
            if !ticks {
                if words.ticks.swap(1, SeqCst) != 0 {
                    return None;
                }
                ticks = true;
            }
            last = Some(word);
            let since = Instant::now();
            while let Some(left) = TICK.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
                futex::wait_until(&words.nudges, words.nudges.load(Relaxed), left);
                if self.word.load(Relaxed) & VACANT != 0 {
                    break;
                }
            }
        }
    }

    /// Whether no thread waits to become the leader.
    pub(super) fn lacks_standby(&self) -> bool {
        self.standby.load(Acquire) == 0
    }

    /// The leader begins to run code of the program's.
    pub(super) fn begin(&self, lead: &mut Lead) {
        lead.0 = (lead.0 + STEP) | BUSY;
        self.word.store(lead.0, Release);
    }

    /// The leader has run it. False: another thread is the leader now.
    #[must_use = "the thread may not be the leader any more"]
    pub(super) fn end(&self, lead: &mut Lead) -> bool {
        let next = (lead.0 & !BUSY) + STEP;
        let still = self.word.compare_exchange(lead.0, next, AcqRel, Relaxed).is_ok();
        lead.0 = next;
        still
    }

    /// The leader, which is busy, gives the leadership away, unless it has lost it already.
    pub(super) fn give_up(&self, lead: &Lead, shared: &ManagerMemory) {
        let next = ((lead.0 & !BUSY) + STEP) | VACANT;
        if self.word.compare_exchange(lead.0, next, AcqRel, Relaxed).is_ok() {
            nudge(shared);
        }
    }
}

/// As [`nudge`], unless a thread looks already.
pub(super) fn hurry(shared: &ManagerMemory) {
    if shared.words().ticks.load(SeqCst) == 0 {
        nudge(shared);
    }
}

/// Asks a standby thread of the manager to look whether the leader is stuck.
///
/// Runs in: the manager, and clients that wait.
pub(super) fn nudge(shared: &ManagerMemory) {
    shared.words().nudges.fetch_add(1, AcqRel);
    futex_wait::wake_one(&shared.words().nudges);
}
