//! Workers that leave: after so many calls, for want of work, because the pool shrinks or ends; and what takes too long.
//!
//! Runs in: the parent, under the mutex.
//! Invariant: a worker that has a call is not sent home.
//!
//! A worker that is near the end of its quota has a *standby* in its slot: started, set up, and initialized, but without a
//! call until the other one has answered its last. So no more calls run at a time than the pool has workers, and no call
//! waits for a process to start.
//!
//! # Deadlines
//!
//! A call's time begins when its worker can have begun it: when it was given out, or when the reply to the one before it
//! was taken. While calls with a timeout wait behind others, workers notify of every reply, so that this is soon. When a
//! timer fires, the replies are taken first; so a call that was answered in time is a result, however late the timer is.
//!
//! What a worker has not begun is taken from it before it is killed, so no call ends because of another one's time. A worker
//! that has not even begun a call by then is late, on a machine that is overloaded, or is stopped. The call is given out
//! anew, and a worker that goes on like this for some time is killed, which costs no call.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::death::DeathCheck;
use super::departures::Departure;
use super::effects::Start;
use super::metrics::WorkerRef;
use super::scheduler::{Phase, Scheduler};
use super::slot::{Request, Slot, SlotState, Worker};
use crate::error::{Error, ErrorKind, Execution};
use crate::link::window::MAX_IN_FLIGHT;
use crate::supervisor::not_dead_note;
use crate::sys::signal;

/// How long a worker may leave calls with a timeout unclaimed.
const UNRESPONSIVE_TIMEOUT: Duration = Duration::from_secs(1);

impl Scheduler {
    /// The worker in this slot has no call. It goes, if it gets none any more.
    pub(super) fn on_idle(&mut self, number: usize) {
        let slot = self.slots.get(number);
        if !slot.enabled || slot.worker().is_some_and(|worker| worker.left() == 0) {
            return self.retire_worker(number);
        }
        let Some(timeout) = self.config.idle_timeout else { return };
        if let Some(since @ None) = self.slots.idle_since_mut(number) {
            *since = Some(Instant::now());
            if self.timers.set_idle() {
                self.effects.idle_alarm = Some(timeout);
            }
        }
    }

    /// The worker in this slot gets no more calls if it says that it uses too much memory. Those that it has not begun move
    /// on.
    pub(super) fn retire_over_memory(&mut self, number: usize) {
        if self.config.options.most_memory.is_some()
            && self.slots.worker(number).is_some_and(|worker| worker.caller.is_over_memory())
        {
            self.slots.change_worker(number, |worker| worker.draining = true);
            self.reclaim(number, usize::MAX);
        }
    }

    /// A call was given to the worker in this slot: starts a standby if there are few left that it may be given.
    pub(super) fn prestart_standby(&mut self, number: usize) {
        let Some(quota) = self.config.quota else { return };
        let slot = self.slots.get(number);
        let near = (quota / 2).min(u64::from(MAX_IN_FLIGHT));
        let is_near = slot.worker().is_some_and(|worker| worker.left() <= near);
        if is_near && slot.standby.is_none() && slot.pending_starts == 0 {
            self.effects.start.push(Start { number, pause: None, standby: true });
        }
    }

    /// The worker in this slot runs its finalizer and ends. It has no call.
    fn retire_worker(&mut self, number: usize) {
        self.metrics.record_leaving(self.slots.get(number).worker_ref(number));
        let ended = self.has_ended();
        let (worker, standby) = self.slots.change(number, |slot| {
            let standby = if ended || !slot.enabled { slot.standby.take() } else { None };
            (slot.take_worker(), standby)
        });
        if let Some(worker) = &worker {
            self.record_departure(number, worker);
        }
        for worker in worker.into_iter().chain(standby) {
            let due = self.departures.dismiss(&self.config, number, worker);
            self.set_alarm(due);
        }
    }

    /// A worker gets no more calls: its times are summed up.
    pub(super) fn record_departure(&mut self, number: usize, worker: &Worker) {
        if let Some(stats) = self.slots.stats_mut(number) {
            self.metrics.record_departure(stats, worker.caller.busy());
        }
    }

    /// Work waits: starts workers for it where the pool starts them only then.
    pub(super) fn start_for_backlog(&mut self) {
        if self.config.eager || !self.work_waits() || self.has_ended() {
            return;
        }
        let waiting = self.dispatcher.len() + self.slots.index().behind();
        // Also those that were asked for and are not confirmed yet, and those that pause after a failed start.
        let is_coming = |slot: &&Slot| slot.pending_starts > 0 || matches!(slot.state, SlotState::Backoff);
        let mut starting = self.slots.iter().filter(is_coming).count();
        for number in 0..self.slots.len() {
            if starting >= waiting {
                break;
            }
            if self.slots.get(number).enabled && self.slots.get(number).is_vacant() {
                self.start_if_needed(number);
                starting += 1;
            }
        }
    }

    /// A timer fired: retires workers that have been idle for too long.
    pub(super) fn check_idle(&mut self) {
        let Some(timeout) = self.config.idle_timeout else { return };
        self.collect();
        self.settle();
        // Only now: a worker that has just become idle is among those below, and must not set a timer of its own.
        self.timers.idle_fired();
        let now = Instant::now();
        let mut next: Option<Duration> = None;
        for number in self.slots.index().all_idle().to_vec() {
            let Some(since) = self.slots.worker(number).and_then(|worker| worker.idle_since) else { continue };
            let left = (since + timeout).saturating_duration_since(now);
            if left.is_zero() {
                self.retire_worker(number);
            } else {
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        }
        if next.is_some() && self.timers.set_idle() {
            self.effects.idle_alarm = next;
        }
    }

    /// Sets the number of workers.
    pub(super) fn resize(&mut self, workers: usize) {
        self.slots.grow(workers);
        for number in 0..self.slots.len() {
            let enabled = number < workers;
            let standby = self.slots.change(number, |slot| {
                slot.enabled = enabled;
                if enabled {
                    return None;
                }
                if matches!(slot.state, SlotState::Backoff) {
                    slot.state = SlotState::Vacant;
                }
                slot.standby.take()
            });
            if !enabled {
                // What it has not begun moves on; it goes when it has answered the rest.
                self.reclaim(number, usize::MAX);
            }
            if let Some(standby) = standby {
                let due = self.departures.dismiss(&self.config, number, standby);
                self.set_alarm(due);
            }
        }
    }

    /// How many workers the pool is to have.
    pub(super) fn workers(&self) -> usize {
        self.slots.iter().filter(|slot| slot.enabled).count()
    }

    /// Sends every worker home: those that are to be waited for are among the departures then. Only when no call is left.
    pub(super) fn stop_all(&mut self) {
        if let Phase::Closing(error) = &self.phase {
            self.phase = Phase::Ended(error.clone());
        }
        for number in 0..self.slots.len() {
            self.retire_worker(number);
            let dying = self.slots.change(number, |slot| match std::mem::replace(&mut slot.state, SlotState::Vacant) {
                SlotState::Dying(dying) => Some(dying),
                SlotState::Starting => {
                    slot.state = SlotState::Starting;
                    None
                }
                SlotState::Ready(_) | SlotState::Vacant | SlotState::Backoff => None,
            });
            if let Some(dying) = dying {
                self.departures.add_dying(number, *dying);
            }
        }
    }

    /// Sees to it that the deadlines are checked by `due`.
    pub(super) fn set_alarm(&mut self, due: Option<Instant>) {
        if let Some(alarm) = self.timers.set(due) {
            self.effects.alarm = Some(alarm);
        }
    }

    /// When what the worker in this slot does has taken too long.
    pub(super) fn next_check(&self, number: usize) -> Option<Instant> {
        let initializer = self.config.initializer.as_ref();
        let limit = initializer.and_then(|initializer| initializer.options().timeout);
        self.slots.worker(number)?.next_check(limit)
    }

    /// A timer fired: ends what has taken too long.
    pub(super) fn check_deadlines(&mut self) {
        self.timers.fired();
        self.effects.workers_changed = true;
        self.collect();
        // Handles may be given out now that were too many before.
        self.dispatcher.try_again();
        self.check_departures();
        for number in self.slots.index().watched().to_vec() {
            self.check_initializer(number);
            if self.next_check(number).is_some_and(|due| due <= Instant::now()) {
                let given = self.slots.worker(number).and_then(|worker| worker.since);
                // From here on the worker cannot begin another call, so the one that is killed is the one that is late.
                self.reclaim(number, usize::MAX);
                self.collect_from(number);
                self.end_overdue(number);
                self.end_unresponsive(number, given);
            }
            self.set_alarm(self.next_check(number));
        }
    }

    /// Ends the call that this worker is running if it has taken too long.
    fn end_overdue(&mut self, number: usize) {
        let Some((due, limit)) = self.slots.worker(number).and_then(Worker::due) else { return };
        let Some(late) = Instant::now().checked_duration_since(due) else { return };
        let kind = ErrorKind::TimedOut { limit, elapsed: limit + late };
        let error = self.in_slot(number, Error::new(kind, Execution::Unknown));
        if let Some(Request::Call(call)) = self.slots.worker(number).and_then(|worker| worker.caller.front()) {
            let worker = self.slots.get(number).worker_ref(number);
            self.metrics.record_time_out(worker, call.task, limit);
        }
        self.kill_worker(number, &error, self.config.grace);
    }

    /// This worker had a call since `given` that was overdue: ends it if it has not begun that, nor others before.
    fn end_unresponsive(&mut self, number: usize, given: Option<Instant>) {
        let since = self.slots.change_worker(number, |worker| {
            if worker.load() > 0 {
                return None;
            }
            let claimed = worker.caller.claimed();
            let known = worker.unresponsive_since.filter(|(_, before)| *before == claimed).map(|(since, _)| since);
            let since = known.or(given)?;
            worker.unresponsive_since = Some((since, claimed));
            Some(since)
        });
        if let Some(Some(since)) = since
            && since.elapsed() >= UNRESPONSIVE_TIMEOUT
        {
            let kind = ErrorKind::TimedOut { limit: UNRESPONSIVE_TIMEOUT, elapsed: since.elapsed() };
            let error = self.in_slot(number, Error::new(kind, Execution::NotStarted));
            // Without grace: it has nothing to clear up, and a stopped process does not hear that it is to end.
            self.kill_worker(number, &error, None);
        }
    }

    /// Ends the worker in this slot if its initializer has taken too long.
    fn check_initializer(&mut self, number: usize) {
        let initializer = self.config.initializer.as_ref();
        let Some(limit) = initializer.and_then(|initializer| initializer.options().timeout) else { return };
        if !self.slots.worker(number).is_some_and(|worker| worker.initializing && worker.is_in_initializer()) {
            return;
        }
        let now = Instant::now();
        let since = self.slots.change_worker(number, |worker| *worker.since.get_or_insert(now)).unwrap_or(now);
        if since.checked_add(limit).is_none_or(|due| now < due) {
            return;
        }
        let kind = ErrorKind::TimedOut { limit, elapsed: since.elapsed() };
        let error = self.in_slot(number, Error::new(kind, Execution::Unknown));
        let error = self.of_initializer(&error);
        // Counted first: the worker's end is no further news.
        self.retry_initializer(number, &error);
        self.kill_worker(number, &error, self.config.grace);
    }

    /// Kills the workers that take too long to leave, and gives up those that do not die.
    fn check_departures(&mut self) {
        let now = Instant::now();
        let mut dead = Vec::new();
        for (number, record, departure) in self.departures.check(&self.config, now) {
            match departure {
                Departure::Overdue { finalizing, limit } => {
                    let finalizer = self.config.finalizer.as_ref().filter(|_| finalizing);
                    let task = finalizer.map(|finalizer| finalizer.task().name());
                    self.metrics.record_forced_end(WorkerRef::of(number, &record), task, limit);
                    self.effects.kill.push(record);
                }
                Departure::Dead => dead.push((number, record)),
                Departure::Stuck => self.metrics.record_stuck(WorkerRef::of(number, &record)),
            }
        }
        for number in 0..self.slots.len() {
            if !matches!(self.slots.get(number).state, SlotState::Dying(_)) {
                continue;
            }
            let found = self.slots.change(number, |slot| match &mut slot.state {
                SlotState::Dying(dying) => Some((dying.death.check(&dying.record, now), Arc::clone(&dying.record))),
                _ => None,
            });
            match found {
                Some((DeathCheck::Dead, record)) => dead.push((number, record)),
                Some((DeathCheck::Stuck, _)) => self.give_up_on(number),
                _ => {}
            }
        }
        for (number, record) in dead {
            // Its fork server, which would reap it and end its group, does not.
            record.kill_group();
            self.on_worker_exit(number, &record, ExitStatus::from_raw(signal::KILL));
        }
        let dying = self.slots.iter().filter_map(|slot| match &slot.state {
            SlotState::Dying(dying) => dying.death.next(),
            _ => None,
        });
        let next = dying.chain(self.departures.next()).min();
        self.set_alarm(next);
    }

    /// A worker was killed and does not die: its calls are settled all the same, never made again, and its slot gets another
    /// one.
    fn give_up_on(&mut self, number: usize) {
        let dying = self.slots.change(number, |slot| match std::mem::replace(&mut slot.state, SlotState::Vacant) {
            SlotState::Dying(dying) => Some(dying),
            other => {
                slot.state = other;
                None
            }
        });
        let Some(dying) = dying else { return };
        self.metrics.record_stuck(WorkerRef::of(number, &dying.record));
        for (queued, error) in dying.running {
            self.settle_call(&queued.call, Err(error.with_note(not_dead_note())));
            queued.call.set_worker(None);
        }
    }
}
