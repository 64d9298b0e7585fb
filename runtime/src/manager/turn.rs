//! Which thread of a manager is the leader: the one that takes requests.
//!
//! Runs in: the manager.
//! Invariant: at most one thread is the leader.
//!
//! The leader runs the calls that it takes, so that a short call costs no wake-up of another thread. While it runs code of
//! the program's, it is *busy*, and may lose the leadership: a standby thread that finds it in the same call a
//! [`TICK`] later takes over. A standby thread looks when it is nudged, which clients do that wait for longer than a
//! millisecond. So no thread has to tick, and an idle manager uses no processor.
//!
//! A leader that is about to wait for another call gives the leadership away first.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use super::memory::BellMemory;
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

    /// Waits until this thread is the leader. `None`: the manager has threads enough.
    pub(super) fn wait(&self, bell: &BellMemory) -> Option<Lead> {
        let nudges = &bell.words().nudges;
        self.standby.fetch_add(1, AcqRel);
        let mut busy_since: Option<(u64, Instant)> = None;
        loop {
            let nudged = nudges.load(Acquire);
            let word = self.word.load(Acquire);
            let is_stuck = busy_since.is_some_and(|(seen, since)| seen == word && since.elapsed() >= TICK);
            if word & VACANT != 0 || is_stuck {
                let next = (word & !(BUSY | VACANT)) + STEP;
                if self.word.compare_exchange(word, next, AcqRel, Relaxed).is_ok() {
                    self.standby.fetch_sub(1, AcqRel);
                    return Some(Lead(next));
                }
                continue;
            }
            if word & BUSY != 0 && busy_since.is_none_or(|(seen, _)| seen == word) {
                let (_, since) = *busy_since.get_or_insert_with(|| (word, Instant::now()));
                futex::wait_until(nudges, nudged, TICK.saturating_sub(since.elapsed()));
                continue;
            }
            busy_since = None;
            if self.standby.load(Relaxed) <= KEPT_STANDBY {
                futex::wait(nudges, nudged);
                continue;
            }
            futex::wait_until(nudges, nudged, IDLE_TIME);
            let fewer = |standby: usize| (standby > KEPT_STANDBY).then(|| standby - 1);
            if nudges.load(Acquire) == nudged && self.standby.fetch_update(AcqRel, Relaxed, fewer).is_ok() {
                return None;
            }
        }
    }

    /// Whether no thread waits to become the leader.
    pub(super) fn lacks_standby(&self) -> bool {
        self.standby.load(Acquire) == 0
    }

    /// The leader begins to run code of the program's.
    pub(super) fn begin(&self, lead: &mut Lead) {
        lead.0 = lead.0 + STEP | BUSY;
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
    pub(super) fn give_up(&self, lead: &Lead, bell: &BellMemory) {
        let next = (lead.0 & !BUSY) + STEP | VACANT;
        if self.word.compare_exchange(lead.0, next, AcqRel, Relaxed).is_ok() {
            nudge(bell);
        }
    }
}

/// Asks a standby thread of the manager to look whether the leader is stuck.
///
/// Runs in: the manager, and clients that wait.
pub(super) fn nudge(bell: &BellMemory) {
    bell.words().nudges.fetch_add(1, AcqRel);
    futex_wait::wake_one(&bell.words().nudges);
}
