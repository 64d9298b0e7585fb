//! Short calls of a client, which stand in memory that it shares with the manager.
//!
//! Runs in: each process that has a handle or a proxy, on the threads that call.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Instant;

use super::client::{Client, LocalLink, NUDGE_AFTER};
use super::pending::IN_SLOT;
use super::slots::{self, CallSlot, Head, SLOT_BYTES};
use super::turn::nudge;
use super::wakeup;
use super::wire::{AlignedBytes, Answer, Status};
use crate::codec::handles::Received;
use crate::error::{Error, ErrorKind, Execution, Result};
use crate::sync::atomic::AtomicU32;
use crate::sync::futex_wait::MAX_SLEEP;
use crate::sys::{cpu, futex};

impl Client {
    pub(super) fn call_in_slot(
        &self,
        local: &LocalLink,
        (at, method, object): (usize, u32, u64),
        bytes: &[u8],
        deadline: Option<Instant>,
    ) -> Result<Answer> {
        let words = local.memory.words();
        let slot = &words.slots[at];
        let call = self.next_call() | IN_SLOT;
        local.memory.write(at, bytes);
        slot.request(Head { what: method, object, call, len: u32::try_from(bytes.len()).unwrap_or(0) });
        slots::announce(&words.ready, at);
        local.shared.announce(wakeup::group_bit(self.number));
        if self.shares_processor(local) || !self.spin.until(|| slot.is_answered()) {
            self.wait_in_slot(local, (at, slot), deadline)?;
        }
        let Head { what, object, len, .. } = slot.head();
        let len = (len as usize).min(SLOT_BYTES);
        let mut bytes = AlignedBytes::default();
        local.memory.read(at, bytes.of_len(len));
        self.give_back(at, slot);
        match Status::from_number(what) {
            Some(Status::Elsewhere) => {
                let pending = self.inbox.expect(call);
                self.wait(call, &pending, deadline)
            }
            Some(status) => Ok(Answer { status, object, bytes, received: Received::default() }),
            None => {
                let reason = "an answer of an unknown kind".to_owned();
                Err(Error::new(ErrorKind::ProtocolViolation { reason }, Execution::Unknown))
            }
        }
    }

    /// Whether nothing will come any more, once what has come was read.
    fn has_lost_its_queue(&self) -> bool {
        let nothing = || false;
        self.inbox.read_for_room(Instant::now(), nothing, |call, object| self.unclaimed(call, object));
        self.inbox.is_over()
    }

    /// Whether the manager's leader was last seen where this thread runs: then looking would only keep it from running.
    fn shares_processor(&self, local: &LocalLink) -> bool {
        let here = cpu::current();
        note(&local.memory.words().cpu, here + 1);
        let leaders = local.shared.words().cpu.load(Relaxed).checked_sub(1);
        let shares = leaders == Some(here);
        // Another thread that calls will see to it.
        if let Ok(mut collision) = self.collision.try_lock() {
            if shares { collision.met(leaders) } else { collision.apart() }
        }
        shares
    }

    #[cold]
    fn wait_in_slot(&self, local: &LocalLink, (at, slot): (usize, &CallSlot), deadline: Option<Instant>) -> Result<()> {
        let since = Instant::now();
        let mut longest = NUDGE_AFTER;
        while let Some(asleep) = slot.prepare_sleep() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            futex::wait_until(&slot.state, asleep, left.map_or(longest, |left| left.min(longest)));
            if slot.is_answered() {
                break;
            }
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let is_gone = !self.is_manager_alive() || self.has_lost_its_queue();
            // It may have answered before it ended.
            if (is_late || is_gone) && !slot.is_answered() {
                let execution = if slot.take_back() {
                    self.give_back(at, slot);
                    Execution::NotStarted
                } else {
                    self.abandoned.fetch_or(1 << at, AcqRel);
                    self.cancel(slot.head().call);
                    Execution::Unknown
                };
                return Err(if is_gone { self.gone(execution) } else { self.late(execution) });
            }
            if slot.is_untouched() {
                slots::announce(&local.memory.words().ready, at);
                local.shared.announce(wakeup::group_bit(self.number));
                nudge(&local.shared);
            }
            longest = MAX_SLEEP;
        }
        self.spin.slept(since);
        Ok(())
    }

    /// Takes a free slot.
    pub(super) fn take_slot(&self, local: &LocalLink) -> Option<usize> {
        if self.abandoned.load(Relaxed) != 0 {
            self.reclaim(local);
        }
        let mut free = self.free.load(Relaxed);
        loop {
            if free == 0 {
                free = self.reclaim(local)?;
                continue;
            }
            let at = free.trailing_zeros();
            match self.free.compare_exchange_weak(free, free & !(1 << at), Acquire, Relaxed) {
                Ok(_) => return Some(at as usize),
                Err(now) => free = now,
            }
        }
    }

    fn give_back(&self, at: usize, slot: &CallSlot) {
        slot.free();
        self.free.fetch_or(1 << at, Release);
    }

    /// Frees slots of calls that no thread waits for and that are answered now. What is free then, if something is.
    #[cold]
    fn reclaim(&self, local: &LocalLink) -> Option<u32> {
        let words = local.memory.words();
        let mut abandoned = self.abandoned.load(Acquire);
        while abandoned != 0 {
            let at = abandoned.trailing_zeros() as usize;
            let bit = 1 << at;
            abandoned &= !bit;
            let slot = &words.slots[at];
            if !slot.is_answered() || self.abandoned.fetch_and(!bit, AcqRel) & bit == 0 {
                continue;
            }
            let head = slot.head();
            match Status::from_number(head.what) {
                Some(Status::Done) => self.unclaimed(head.call, head.object),
                Some(Status::Elsewhere) => {
                    if let Some(answer) = self.inbox.ignore(head.call).filter(|answer| answer.status == Status::Done) {
                        self.unclaimed(head.call, answer.object);
                    }
                }
                _ => {}
            }
            self.give_back(at, slot);
        }
        Some(self.free.load(Acquire)).filter(|free| *free != 0)
    }
}

/// Writes a word that others read, if it is not there already.
pub(super) fn note(word: &AtomicU32, number: u32) {
    if word.load(Relaxed) != number {
        word.store(number, Relaxed);
    }
}
