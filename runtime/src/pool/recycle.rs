//! Workers leave that were not killed: after so many calls, for want of work, because the pool shrinks or ends.
//!
//! Owns: nothing of its own; it works on the [`Schedule`]. Runs in: the parent, under the mutex.
//! Never: sends a worker home that has a call.
//!
//! A worker that is near the end of its quota has a *standby* in its place: started, set up, and initialized, but without a
//! call until the other one has answered its last. So no more calls run at a time than the pool has workers, and no call
//! waits for a process to start.

use std::time::Instant;

use super::scheduler::{Owed, Phase, Schedule, Start};
use super::slot::State;
use crate::link::window::LOOK_AHEAD;

impl Schedule {
    /// The worker in this place has no call. It goes, if it gets none any more.
    pub(super) fn has_nothing_to_do(&mut self, number: usize, owed: &mut Owed) {
        let place = &mut self.places[number];
        let wanted = place.wanted;
        let Some(worker) = place.worker_mut() else { return };
        if !wanted || worker.left() == 0 {
            self.send_home(number, owed);
            self.take_over(number, owed);
        } else if let Some(timeout) = self.plan.idle_timeout
            && worker.idle_since.is_none()
        {
            worker.idle_since = Some(Instant::now());
            if !std::mem::replace(&mut self.idle_alarm, true) {
                owed.idle_alarm = Some(timeout);
            }
        }
    }

    /// The worker in this place gets no more calls if it says that it uses too much memory. Those that it has not begun
    /// move on.
    pub(super) fn retire_if_outgrown(&mut self, number: usize, owed: &mut Owed) {
        if self.plan.options.most_memory.is_some()
            && let Some(worker) = self.places[number].worker_mut()
            && worker.caller.has_outgrown()
        {
            worker.shut = true;
            self.take_back(number, usize::MAX, owed);
        }
    }

    /// A call was given to the worker in this place: asks for a standby if there are few left that it may be given.
    pub(super) fn count_call(&mut self, number: usize, owed: &mut Owed) {
        let Some(quota) = self.plan.quota else { return };
        let place = &self.places[number];
        let near = (quota / 2).min(u64::from(LOOK_AHEAD));
        let is_near = place.worker().is_some_and(|worker| worker.left() <= near);
        if is_near && place.standby.is_none() && place.coming == 0 {
            owed.start.push(Start { number, pause: None, standby: true });
        }
    }

    /// The worker in this place runs its finalizer and ends. It has no call.
    pub(super) fn send_home(&mut self, number: usize, owed: &mut Owed) {
        let place = &mut self.places[number];
        let standby = if matches!(self.phase, Phase::Ended(_)) || !place.wanted { place.standby.take() } else { None };
        self.see_leaving(number, owed);
        let place = &mut self.places[number];
        let worker = match std::mem::replace(&mut place.state, State::Empty) {
            State::Ready(worker) => {
                self.see_departure(number, &worker);
                Some(worker)
            }
            other => {
                self.places[number].state = other;
                None
            }
        };
        worker.into_iter().chain(standby).for_each(|worker| self.dismiss_one(number, *worker, owed));
        self.sort_in(number, owed);
    }

    /// There is no worker in this place: its standby takes over, if it has one, else a new worker is asked for if one is
    /// needed.
    pub(super) fn take_over(&mut self, number: usize, owed: &mut Owed) {
        let place = &mut self.places[number];
        if !matches!(place.state, State::Empty) {
            return;
        }
        if let Some(standby) = place.standby.take() {
            place.state = State::Ready(standby);
            if let Some(worker) = place.worker_mut() {
                worker.tell(self.told.0, self.told.1);
            }
            self.see_arrival(number, owed);
            self.collect_from(number, owed);
            self.sort_in(number, owed);
            self.set_alarm(self.due(number), owed);
        } else if place.coming > 0 {
            place.state = State::Starting;
        } else {
            self.fill(number, owed);
        }
    }

    /// Work waits: starts workers for it where the pool starts them only then.
    pub(super) fn staff_for_work(&mut self, owed: &mut Owed) {
        if self.plan.eager || !self.work_waits() || matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        let waiting = self.backlog.len() + self.levels.behind();
        let mut coming = self.places.iter().filter(|place| place.coming > 0).count();
        for number in 0..self.places.len() {
            if coming >= waiting {
                break;
            }
            if self.places[number].wanted && matches!(self.places[number].state, State::Empty) {
                self.fill(number, owed);
                coming += 1;
            }
        }
    }

    /// Sends workers home that have been idle for too long.
    pub(super) fn check_idle(&mut self, owed: &mut Owed) {
        self.idle_alarm = false;
        let Some(timeout) = self.plan.idle_timeout else { return };
        self.collect(owed);
        let now = Instant::now();
        let mut next = None;
        for number in self.levels.all_idle().to_vec() {
            let Some(since) = self.places[number].worker().and_then(|worker| worker.idle_since) else { continue };
            let left = (since + timeout).saturating_duration_since(now);
            if left.is_zero() {
                self.send_home(number, owed);
            } else {
                next = Some(next.map_or(left, |next: std::time::Duration| next.min(left)));
            }
        }
        if next.is_some() {
            self.idle_alarm = true;
            owed.idle_alarm = next;
        }
    }

    /// Has the pool have this many workers.
    pub(super) fn resize(&mut self, workers: usize, owed: &mut Owed) {
        self.make_room(workers);
        for number in 0..self.places.len() {
            self.places[number].wanted = number < workers;
            if number < workers {
                self.sort_in(number, owed);
                self.fill(number, owed);
            } else {
                // What it has not begun moves on; it goes when it has answered the rest.
                self.take_back(number, usize::MAX, owed);
                if let Some(standby) = self.places[number].standby.take() {
                    self.dismiss_one(number, *standby, owed);
                }
                if matches!(self.places[number].state, State::Postponed) {
                    self.places[number].state = State::Empty;
                }
                self.sort_in(number, owed);
            }
        }
        self.pump(owed);
        self.level(owed);
        self.renew_words(owed);
    }
}
