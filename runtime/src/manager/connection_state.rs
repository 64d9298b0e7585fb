//! What the threads of one connection have before them: calls to run, answers to send, objects to drop.
//!
//! Runs in: the manager, under the mutex of [`Connected`](super::connected).

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::connected::WaitingCall;
use super::tables::Dropped;
use super::wire::{CallReply, NO_CALL};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct ConnectedState {
    /// The calls in flight, and how long their arguments are.
    pub(super) calls: HashMap<u64, usize>,
    pub(super) call_bytes: usize,
    pub(super) waiting: VecDeque<WaitingCall>,
    /// Threads that have no call to run, and all.
    pub(super) idle: usize,
    pub(super) threads: usize,
    pub(super) answers: VecDeque<CallReply>,
    /// Number of bytes of all answers that were not taken.
    pub(super) answer_bytes: usize,
    /// A thread sends an answer, or is about to.
    pub(super) is_sending: bool,
    /// Number of answers that were taken.
    pub(super) taken: u64,
    /// Threads that run a call.
    pub(super) busy: usize,
    pub(super) has_ended: bool,
    /// Objects that no reference is left to, and whether a thread drops them.
    pub(super) dropped: Dropped,
    pub(super) drops: bool,
}

/// How much has gone which way, when that last changed.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) came: u64,
    pub(super) came_at: Instant,
    pub(super) left: (u64, u64),
    pub(super) left_at: Instant,
}

impl ConnectedState {
    /// Whether a call of this number is in flight, or can be none.
    pub(super) fn is_known(&self, call: u64) -> bool {
        call == NO_CALL || self.calls.contains_key(&call)
    }

    /// The call is not in flight any more.
    pub(super) fn forget(&mut self, call: u64) {
        self.call_bytes -= self.calls.remove(&call).unwrap_or(0);
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.answer_bytes -= bytes;
        self.taken += 1;
    }
}

impl Progress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { came: 0, came_at: now, left: (0, 0), left_at: now }
    }
}
