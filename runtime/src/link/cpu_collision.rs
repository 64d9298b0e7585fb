//! Moves a thread off a processor that it shares with its peer while another one is idle.
//!
//! Runs in: a child that answers its parent, and a thread that waits at a queue.
//! Invariant: a thread that has real work between two turns is not moved.
//!
//! A kernel wakes a sleeper on its waker's processor, and on virtual machines, or where there are two processors only, it
//! often does not look for another one that is idle. The two then take turns on one processor, at two switches a call, and
//! looking instead of sleeping only makes it worse. So each says on which processor it falls asleep. A side that finds the
//! other one there, again and again within microseconds, steps aside once. If that does not help, it waits twice as long
//! before it tries again.
//!
//! Why it is worth the trouble: two sides that share a processor pay 10 us for a call instead of half of one, and 45
//! ns for an item of a queue instead of 22.

use std::time::{Duration, Instant};

use crate::sys::cpu;

/// Turns that follow each other faster than this are a conversation; slower ones are work.
const MAX_TURN_GAP: Duration = Duration::from_micros(100);

/// How many collisions in a row make a thread move for the first time.
const MIN_COLLISIONS: u32 = 3;

/// After this many turns on two processors, the move did help.
const MIN_TURNS_APART: u32 = 64;

/// What one has noticed of sharing a processor with another one.
#[derive(Debug)]
pub(crate) struct CpuCollision {
    last: Instant,
    in_a_row: u32,
    patience: u32,
    /// Turns that were taken apart since the last one that was not.
    apart: u32,
}

impl CpuCollision {
    pub(crate) fn new() -> Self {
        Self { last: Instant::now(), in_a_row: 0, patience: MIN_COLLISIONS, apart: 0 }
    }

    /// The other one is awake, or somewhere else.
    pub(crate) fn apart(&mut self) {
        self.apart = self.apart.saturating_add(1);
    }

    /// The other one fell asleep on this processor, if it said on which.
    pub(crate) fn met(&mut self, others: Option<u32>) {
        let now = Instant::now();
        if std::mem::take(&mut self.apart) >= MIN_TURNS_APART {
            self.patience = MIN_COLLISIONS;
        }
        let talking = now - std::mem::replace(&mut self.last, now) < MAX_TURN_GAP;
        if !talking || others != Some(cpu::current()) {
            self.in_a_row = 0;
            return;
        }
        self.in_a_row += 1;
        if self.in_a_row >= self.patience {
            self.in_a_row = 0;
            self.patience = self.patience.saturating_mul(2);
            cpu::leave_current();
        }
    }
}
