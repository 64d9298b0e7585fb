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

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Workers;
use crate::error::{Error, ErrorKind, Execution};
use crate::link::window::MAX_IN_FLIGHT;
use crate::pool::call::QueuedCall;
use crate::pool::death::{DeathCheck, Dying};
use crate::pool::departures::Departure;
use crate::pool::effects::Start;
use crate::pool::metrics::WorkerRef;
use crate::pool::slot::{CallsAtExit, Request, SETUP_CHECK, Slot, SlotState, Worker};
use crate::supervisor::ChildHandle;

/// How long a worker may leave calls with a timeout unclaimed.
const UNRESPONSIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a check of the workers that are to end has found.
pub(in crate::pool) struct Ends {
    /// Processes that have ended, with the numbers of their slots. Their fork servers, which would report it, do not.
    pub(in crate::pool) dead: Vec<(usize, Arc<ChildHandle>)>,
    /// Workers that were killed and do not die. Their slots are vacant.
    pub(in crate::pool) stuck: Vec<Dying>,
}

impl Workers {
    /// The worker in this slot has no call. It goes, if it gets none any more.
    pub(in crate::pool) fn on_idle(&mut self, number: usize) {
        let slot = self.slots.get(number);
        if !slot.enabled || slot.worker().is_some_and(|worker| worker.left() == 0) {
            return self.retire(number);
        }
        let Some(timeout) = self.config.idle_timeout else { return };
        if self.slots.begin_idle(number) && self.timers.set_idle() {
            self.effects.idle_alarm = Some(timeout);
        }
    }

    /// Whether the worker in this slot says that it uses too much memory. Then it gets no more calls.
    pub(in crate::pool) fn drain_over_memory(&mut self, number: usize) -> bool {
        let is_over = self.config.options.most_memory.is_some()
            && self.slots.worker(number).is_some_and(|worker| worker.caller.is_over_memory());
        if is_over {
            self.slots.change_worker(number, |worker| worker.draining = true);
        }
        is_over
    }

    /// The worker in this slot is dead, or as good as dead: its end will be reported. It gets no more calls.
    pub(in crate::pool) fn kill_broken(&mut self, number: usize) {
        let record = self.slots.change_worker(number, |worker| {
            worker.draining = true;
            Arc::clone(&worker.record)
        });
        self.effects.kill.extend(record);
    }

    /// A call was given to the worker in this slot: starts a standby if there are few left that it may be given.
    #[inline]
    pub(in crate::pool) fn prestart_standby(&mut self, number: usize) {
        let Some(quota) = self.config.quota else { return };
        let slot = self.slots.get(number);
        let near = (quota / 2).min(u64::from(MAX_IN_FLIGHT));
        let is_near = slot.worker().is_some_and(|worker| worker.left() <= near);
        if is_near && slot.standby.is_none() && slot.pending_starts == 0 {
            self.effects.start.push(Start { number, pause: None, standby: true });
        }
    }

    /// The worker in this slot runs its finalizer and ends. It has no call.
    pub(super) fn retire(&mut self, number: usize) {
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
            self.dismiss(number, worker);
        }
    }

    fn dismiss(&mut self, number: usize, worker: Box<Worker>) {
        let due = self.departures.dismiss(&self.config, number, worker);
        self.set_alarm(due);
    }

    /// A worker gets no more calls: its times are summed up.
    pub(super) fn record_departure(&mut self, number: usize, worker: &Worker) {
        if let Some(stats) = self.slots.stats_mut(number) {
            self.metrics.record_departure(stats, worker.caller.busy());
        }
    }

    /// `backlog` calls have no worker: starts workers for the calls that wait, where the pool starts them only then.
    #[inline]
    pub(in crate::pool) fn start_for_backlog(&mut self, backlog: usize) {
        if !self.config.eager && self.work_waits(backlog) && !self.has_ended() {
            self.start_for(backlog);
        }
    }

    fn start_for(&mut self, backlog: usize) {
        let waiting = backlog + self.slots.index().behind();
        // Also those that were asked for and are not confirmed yet, and those that pause after a failed start.
        let is_coming = |slot: &&Slot| slot.pending_starts > 0 || matches!(slot.state, SlotState::Backoff);
        let mut starting = self.slots.iter().filter(is_coming).count();
        for number in 0..self.slots.len() {
            if starting >= waiting {
                break;
            }
            if self.slots.get(number).enabled && self.slots.get(number).is_vacant() {
                self.start_if_needed(number, backlog);
                starting += 1;
            }
        }
    }

    /// A timer fired, and what follows from the replies before is settled: retires workers that have been idle for too long.
    pub(in crate::pool) fn retire_idle(&mut self) {
        let Some(timeout) = self.config.idle_timeout else { return };
        self.timers.idle_fired();
        let now = Instant::now();
        let mut next: Option<Duration> = None;
        for number in self.slots.index().all_idle().to_vec() {
            let Some(worker) = self.slots.worker(number) else { continue };
            let left = match worker.idle_since {
                Some(since) => (since + timeout).saturating_duration_since(now),
                // It sets itself up, which it does not notify of when it has.
                None => timeout.max(SETUP_CHECK),
            };
            if left.is_zero() {
                self.retire(number);
            } else {
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        }
        if next.is_some() && self.timers.set_idle() {
            self.effects.idle_alarm = next;
        }
    }

    /// Sets the number of workers. Returns the numbers of the slots that are to have none.
    pub(in crate::pool) fn resize(&mut self, count: usize) -> std::ops::Range<usize> {
        self.slots.grow(count);
        for number in 0..self.slots.len() {
            if let Some(standby) = self.slots.change(number, |slot| slot.set_enabled(number < count)) {
                self.dismiss(number, standby);
            }
        }
        count..self.slots.len()
    }

    /// Nothing is expected of the worker in this slot any more, and it is killed, or asked to end and killed after `grace`.
    /// What it was running ends with `error` once it is dead. Returns the calls that it had not begun.
    pub(in crate::pool) fn kill(&mut self, number: usize, error: &Error, grace: Option<Duration>) -> Vec<QueuedCall> {
        let Some(worker) = self.slots.change(number, Slot::take_worker) else { return Vec::new() };
        self.record_departure(number, &worker);
        let record = Arc::clone(&worker.record);
        let CallsAtExit { running, unclaimed, .. } = self.slots.in_flight_at_exit(*worker);
        let running = running.into_iter().map(|queued| (queued, error.clone())).collect();
        match grace {
            None => self.effects.kill.push(Arc::clone(&record)),
            Some(_) => self.effects.end.push(Arc::clone(&record)),
        }
        let dying = Dying::new(record, running, error.clone(), grace.unwrap_or_default());
        self.set_alarm(dying.death.next());
        self.slots.change(number, |slot| slot.state = SlotState::Dying(Box::new(dying)));
        unclaimed
    }

    /// Sees to it that the deadlines are checked by `due`.
    #[inline]
    pub(in crate::pool) fn set_alarm(&mut self, due: Option<Instant>) {
        if let Some(alarm) = self.timers.set(due) {
            self.effects.alarm = Some(alarm);
        }
    }

    /// When what the worker in this slot does has taken too long.
    #[inline]
    fn next_check(&self, number: usize) -> Option<Instant> {
        self.slots.worker(number)?.next_check(self.config.initializer_limit())
    }

    /// Sees to it that the worker in this slot is checked when what it does has taken too long.
    #[inline]
    pub(in crate::pool) fn set_next_check(&mut self, number: usize) {
        self.set_alarm(self.next_check(number));
    }

    /// Whether what the worker in this slot does has taken too long, as far as is known before its replies are taken.
    pub(in crate::pool) fn is_late(&self, number: usize) -> bool {
        self.next_check(number).is_some_and(|due| due <= Instant::now())
    }

    /// The timer for deadlines fired.
    pub(in crate::pool) fn alarm_fired(&mut self) {
        self.timers.fired();
        self.effects.workers_changed = true;
    }

    /// Why the worker in this slot is to be ended, if the call that it is running has taken too long.
    pub(in crate::pool) fn overdue_call(&mut self, number: usize) -> Option<Error> {
        let (due, limit) = self.slots.worker(number).and_then(Worker::due)?;
        let late = Instant::now().checked_duration_since(due)?;
        let kind = ErrorKind::TimedOut { limit, elapsed: limit + late };
        if let Some(Request::Call(call)) = self.slots.worker(number).and_then(|worker| worker.caller.front()) {
            let worker = self.slots.get(number).worker_ref(number);
            self.metrics.record_time_out(worker, call.task, limit);
        }
        Some(self.in_slot(number, Error::new(kind, Execution::Unknown)))
    }

    /// Why the worker in this slot is to be killed, if it has not begun the call that it had since `given`, which was overdue,
    /// nor others before.
    pub(in crate::pool) fn unresponsive(&mut self, number: usize, given: Option<Instant>) -> Option<Error> {
        let since = self.slots.change_worker(number, |worker| worker.unresponsive_since(given))??;
        let elapsed = since.elapsed();
        let kind = ErrorKind::TimedOut { limit: UNRESPONSIVE_TIMEOUT, elapsed };
        (elapsed >= UNRESPONSIVE_TIMEOUT).then(|| self.in_slot(number, Error::new(kind, Execution::NotStarted)))
    }

    /// Why the worker in this slot is to be ended, if its initializer has taken too long. That is a start that failed.
    pub(in crate::pool) fn overdue_initializer(&mut self, number: usize) -> Option<Error> {
        let limit = self.config.initializer_limit()?;
        self.slots.worker(number).filter(|worker| worker.initializing && worker.is_in_initializer())?;
        let now = Instant::now();
        let since = self.slots.change_worker(number, |worker| *worker.since.get_or_insert(now))?;
        if since.checked_add(limit).is_none_or(|due| now < due) {
            return None;
        }
        let kind = ErrorKind::TimedOut { limit, elapsed: since.elapsed() };
        let error = self.config.in_initializer(&self.in_slot(number, Error::new(kind, Execution::Unknown)));
        // Counted first: the worker's end is no further news.
        self.retry_initializer(number, &error);
        Some(error)
    }

    /// Kills the workers that take too long to leave, and finds those that have ended, or will not.
    pub(in crate::pool) fn check_departures(&mut self) -> Ends {
        let now = Instant::now();
        let mut ends = Ends { dead: Vec::new(), stuck: Vec::new() };
        for (number, record, departure) in self.departures.check(&self.config, now) {
            match departure {
                Departure::Overdue { finalizing, limit } => {
                    let finalizer = self.config.finalizer.as_ref().filter(|_| finalizing);
                    let task = finalizer.map(|finalizer| finalizer.task().name());
                    self.metrics.record_forced_end(WorkerRef::of(number, &record), task, limit);
                    self.effects.kill.push(record);
                }
                Departure::Dead => ends.dead.push((number, record)),
                Departure::Stuck => self.metrics.record_stuck(WorkerRef::of(number, &record)),
            }
        }
        for (number, record, check) in self.slots.check_deaths(now) {
            match check {
                DeathCheck::Dead => ends.dead.push((number, record)),
                DeathCheck::Stuck => {
                    self.metrics.record_stuck(WorkerRef::of(number, &record));
                    ends.stuck.extend(self.slots.change(number, Slot::take_dying).map(|dying| *dying));
                }
                DeathCheck::Waiting => {}
            }
        }
        ends
    }

    /// Sees to it that workers on their way out are checked again.
    pub(in crate::pool) fn set_next_departure_check(&mut self) {
        let next = self.slots.next_death().into_iter().chain(self.departures.next()).min();
        self.set_alarm(next);
    }
}
