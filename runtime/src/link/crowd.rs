//! Two who talk all the time should not share a processor while another one is idle.
//!
//! Owns: what a child has noticed of it. Runs in: the child. Never: moves a child that has real work to do.
//!
//! A kernel wakes a sleeper where its waker runs, and on virtual machines it often does not trust another processor to be
//! idle. Parent and child then take turns on one processor, at two switches a call, and looking instead of sleeping only
//! makes it worse. So the parent says on which processor it falls asleep, and a child that has to wake it there, again and
//! again within microseconds, steps aside once. If that does not help, it waits twice as long before it tries again.

use std::time::{Duration, Instant};

use crate::sys::limits;

/// Calls that follow each other faster than this are a conversation; slower ones are work.
const CONVERSATION: Duration = Duration::from_micros(100);

/// How often it must happen in a row before the child moves for the first time.
const PATIENCE: u32 = 3;

/// After so many answers that nobody had to be woken for, stepping aside did help.
const HELPED: u32 = 64;

/// What a child has noticed of sharing a processor with its parent.
#[derive(Debug)]
pub(super) struct Crowd {
    last: Instant,
    in_a_row: u32,
    patience: u32,
    /// Answers that found the parent awake since the bell was last rung.
    smooth: u32,
}

impl Crowd {
    pub(super) fn new() -> Self {
        Self { last: Instant::now(), in_a_row: 0, patience: PATIENCE, smooth: 0 }
    }

    /// The parent is awake, so it is somewhere else.
    pub(super) fn need_not_ring(&mut self) {
        self.smooth = self.smooth.saturating_add(1);
    }

    /// The bell was rung for a parent that fell asleep on this processor, if it said on which.
    pub(super) fn rang(&mut self, parents: Option<u32>) {
        let now = Instant::now();
        if std::mem::take(&mut self.smooth) >= HELPED {
            self.patience = PATIENCE;
        }
        let talking = now - std::mem::replace(&mut self.last, now) < CONVERSATION;
        if !talking || parents != Some(limits::processor()) {
            self.in_a_row = 0;
            return;
        }
        self.in_a_row += 1;
        if self.in_a_row >= self.patience {
            self.in_a_row = 0;
            self.patience = self.patience.saturating_mul(2);
            limits::step_aside();
        }
    }
}
