//! Workers leave that were not killed: after so many calls, for want of work, because the pool shrinks or ends.
//!
//! Owns: nothing of its own; it works on the [`Scheduler`]. Runs in: the parent, under the mutex.
//! Never: sends a worker home that has a call.
//!
//! A worker that is near the end of its quota has a *standby* in its place: started, set up, and initialized, but without a
//! call until the other one has answered its last. So no more calls run at a time than the pool has workers, and no call
//! waits for a process to start.

use std::time::Instant;

use super::effects::Start;
use super::scheduler::{Phase, Scheduler};
use super::slot::SlotState;
use crate::link::window::MAX_IN_FLIGHT;

impl Scheduler {
    /// The worker in this place has no call. It goes, if it gets none any more.
    pub(super) fn on_idle(&mut self, number: usize) {
        let slot = &mut self.slots[number];
        let wanted = slot.wanted;
        let Some(worker) = slot.worker_mut() else { return };
        if !wanted || worker.left() == 0 {
            self.retire_worker(number);
            self.promote_standby(number);
        } else if let Some(timeout) = self.config.idle_timeout
            && worker.idle_since.is_none()
        {
            worker.idle_since = Some(Instant::now());
            if !std::mem::replace(&mut self.idle_alarm, true) {
                self.effects.idle_alarm = Some(timeout);
            }
        }
    }

    /// The worker in this place gets no more calls if it says that it uses too much memory. Those that it has not begun
    /// move on.
    pub(super) fn retire_over_memory(&mut self, number: usize) {
        if self.config.options.most_memory.is_some()
            && let Some(worker) = self.slots[number].worker_mut()
            && worker.caller.is_over_memory()
        {
            worker.shut = true;
            self.reclaim(number, usize::MAX);
        }
    }

    /// A call was given to the worker in this place: asks for a standby if there are few left that it may be given.
    pub(super) fn prestart_standby(&mut self, number: usize) {
        let Some(quota) = self.config.quota else { return };
        let slot = &self.slots[number];
        let near = (quota / 2).min(u64::from(MAX_IN_FLIGHT));
        let is_near = slot.worker().is_some_and(|worker| worker.left() <= near);
        if is_near && slot.standby.is_none() && slot.pending_starts == 0 {
            self.effects.start.push(Start { number, pause: None, standby: true });
        }
    }

    /// The worker in this place runs its finalizer and ends. It has no call.
    pub(super) fn retire_worker(&mut self, number: usize) {
        let slot = &mut self.slots[number];
        let standby = if matches!(self.phase, Phase::Ended(_)) || !slot.wanted { slot.standby.take() } else { None };
        self.see_leaving(number);
        let slot = &mut self.slots[number];
        let worker = match std::mem::replace(&mut slot.state, SlotState::Vacant) {
            SlotState::Ready(worker) => {
                self.see_departure(number, &worker);
                Some(worker)
            }
            other => {
                self.slots[number].state = other;
                None
            }
        };
        worker.into_iter().chain(standby).for_each(|worker| self.dismiss_one(number, *worker));
        self.update_load(number);
    }

    /// There is no worker in this place: its standby takes over, if it has one, else a new worker is asked for if one is
    /// needed.
    pub(super) fn promote_standby(&mut self, number: usize) {
        let slot = &mut self.slots[number];
        if !matches!(slot.state, SlotState::Vacant) {
            return;
        }
        if let Some(standby) = slot.standby.take() {
            slot.state = SlotState::Ready(standby);
            if let Some(worker) = slot.worker_mut() {
                worker.set_notify_flags(self.notify_flags.0, self.notify_flags.1);
            }
            self.see_arrival(number);
            self.collect_from(number);
            self.update_load(number);
            self.set_alarm(self.due(number));
        } else if slot.pending_starts > 0 {
            slot.state = SlotState::Starting;
        } else {
            self.fill(number);
        }
    }

    /// Work waits: starts workers for it where the pool starts them only then.
    pub(super) fn start_for_backlog(&mut self) {
        if self.config.eager || !self.work_waits() || matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        let waiting = self.backlog.len() + self.levels.behind();
        let mut pending_starts = self.slots.iter().filter(|slot| slot.pending_starts > 0).count();
        for number in 0..self.slots.len() {
            if pending_starts >= waiting {
                break;
            }
            if self.slots[number].wanted && matches!(self.slots[number].state, SlotState::Vacant) {
                self.fill(number);
                pending_starts += 1;
            }
        }
    }

    /// Sends workers home that have been idle for too long.
    pub(super) fn check_idle(&mut self) {
        self.idle_alarm = false;
        let Some(timeout) = self.config.idle_timeout else { return };
        self.collect();
        let now = Instant::now();
        let mut next = None;
        for number in self.levels.all_idle().to_vec() {
            let Some(since) = self.slots[number].worker().and_then(|worker| worker.idle_since) else { continue };
            let left = (since + timeout).saturating_duration_since(now);
            if left.is_zero() {
                self.retire_worker(number);
            } else {
                next = Some(next.map_or(left, |next: std::time::Duration| next.min(left)));
            }
        }
        if next.is_some() {
            self.idle_alarm = true;
            self.effects.idle_alarm = next;
        }
    }

    /// Has the pool have this many workers.
    pub(super) fn resize(&mut self, workers: usize) {
        self.make_room(workers);
        for number in 0..self.slots.len() {
            self.slots[number].wanted = number < workers;
            if number < workers {
                self.update_load(number);
                self.fill(number);
            } else {
                // What it has not begun moves on; it goes when it has answered the rest.
                self.reclaim(number, usize::MAX);
                if let Some(standby) = self.slots[number].standby.take() {
                    self.dismiss_one(number, *standby);
                }
                if matches!(self.slots[number].state, SlotState::Backoff) {
                    self.slots[number].state = SlotState::Vacant;
                }
                self.update_load(number);
            }
        }
        self.dispatch_backlog();
        self.rebalance();
        self.refresh_notify_flags();
    }
}
