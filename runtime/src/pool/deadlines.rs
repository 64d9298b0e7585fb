//! Ends calls that have taken too long, or are not wanted any more.
//!
//! Owns: nothing of its own; it works on the [`Scheduler`]. Runs in: the parent, under the mutex.
//! Never: ends a call because of another one's time: what the worker has not begun is taken from it first.
//!
//! A call's time begins when its worker can have begun it: when it was given out, or when the reply to the one before it
//! was taken. While workers have calls with a timeout, they ring for every reply, so that this is soon. When an alarm goes
//! off, the replies are taken first; so a call that was answered in time is a result, however late the look. A worker sends
//! no notification when its setup is finished, so the timer polls while any setup is pending.
//!
//! A worker that has not even begun a call by then is late, on a machine that is overloaded, or is stopped. The call is
//! given out anew, and a worker that goes on like this for some time is killed, which costs no call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call::Call;
use super::scheduler::Scheduler;
use super::slot::{Request, Worker};
use crate::error::{Error, ErrorKind, Execution};

/// How long a worker may leave calls with a timeout unclaimed.
const DEAF: Duration = Duration::from_secs(1);

/// How often to look at a worker that has calls with a timeout and has not begun to work.
const BEGINNING: Duration = Duration::from_millis(5);

impl Scheduler {
    /// Sees to it that the deadlines are looked at by `due`.
    pub(super) fn set_alarm(&mut self, due: Option<Instant>) {
        if let Some(due) = due
            && self.alarm.is_none_or(|alarm| due < alarm)
        {
            self.alarm = Some(due);
            self.effects.alarm = Some(due);
        }
    }

    /// When the next look is due: when the call that this worker is running has taken too long.
    pub(super) fn due(&self, number: usize) -> Option<Instant> {
        let worker = self.slots[number].worker()?;
        if worker.initializing
            && let Some(limit) = self.config.initializer.as_ref().and_then(|initializer| initializer.options().timeout)
        {
            return worker.since.map_or_else(|| Some(Instant::now() + BEGINNING), |since| since.checked_add(limit));
        }
        if worker.setup_pending > 0 && worker.timed > 0 {
            return Some(Instant::now() + BEGINNING);
        }
        due(worker).map(|(due, _)| due)
    }

    /// An alarm went off: ends the calls that have taken too long.
    pub(super) fn check_deadlines(&mut self) {
        self.effects.workers_changed = true;
        self.alarm = None;
        self.collect();
        self.check_departures();
        for number in self.levels.watched().to_vec() {
            self.check_initializer(number);
            if self.is_overdue(number) {
                let given = self.slots[number].worker().and_then(|worker| worker.since);
                // From here on the worker cannot begin another call, so the one that is killed is the one that is late.
                self.reclaim(number, usize::MAX);
                self.collect_from(number);
                self.end_overdue(number);
                self.end_deaf(number, given);
            }
            self.set_alarm(self.due(number));
        }
        self.dispatch_backlog();
        self.rebalance();
        self.refresh_notify_flags();
    }

    /// Takes the call back if it has not started, else, if `running`, kills its worker. True if it is cancelled.
    pub(super) fn cancel(&mut self, call: &Arc<Call>, running: bool) -> bool {
        self.collect();
        if call.is_settled() {
            return call.was_cancelled();
        }
        let worker = call.worker();
        if let Some(number) = worker {
            self.reclaim(number, usize::MAX);
            // What it answered while it still saw calls behind, it may have rung no bell for.
            self.collect_from(number);
        }
        if !call.is_settled() {
            match call.worker() {
                None => self.settle_call(call, Err(Error::new(ErrorKind::Cancelled, Execution::NotStarted))),
                Some(number) if self.is_dying_under(number, call) => return self.cancel_dying(number, call),
                Some(number) if running => {
                    let error = self.in_place(number, Error::new(ErrorKind::Cancelled, Execution::Unknown));
                    self.end_call(number, &error);
                    // With handles beside it, it could not be taken back though the worker had not begun it.
                    if !call.is_settled() && call.worker().is_none() {
                        self.settle_call(call, Err(Error::new(ErrorKind::Cancelled, Execution::NotStarted)));
                    }
                }
                Some(_) => {}
            }
        }
        self.dispatch_backlog();
        self.rebalance();
        self.refresh_notify_flags();
        call.was_cancelled() || call.worker().is_some_and(|number| self.cancel_dying(number, call))
    }

    /// Whether a worker is at this call, as far as is known.
    pub(super) fn is_running(&self, call: &Arc<Call>) -> bool {
        let Some(number) = call.worker() else { return false };
        let running = self.slots[number].worker().and_then(|worker| worker.caller.running());
        matches!(running, Some(Request::Call(running)) if Arc::ptr_eq(running, call))
            || self.is_dying_under(number, call)
    }

    fn is_overdue(&self, number: usize) -> bool {
        self.due(number).is_some_and(|due| due <= Instant::now())
    }

    fn end_overdue(&mut self, number: usize) {
        let Some((due, limit)) = self.slots[number].worker().and_then(due) else { return };
        let late = Instant::now().checked_duration_since(due);
        if let Some(late) = late {
            let kind = ErrorKind::TimedOut { limit, elapsed: limit + late };
            let error = self.in_place(number, Error::new(kind, Execution::Unknown));
            self.see_time_out(number, limit);
            self.end_call(number, &error);
        }
    }

    /// This worker had a call since `given` that was overdue: ends it if it has not begun that, nor others before.
    fn end_deaf(&mut self, number: usize, given: Option<Instant>) {
        let Some(worker) = self.slots[number].worker_mut().filter(|worker| worker.load() == 0) else { return };
        let claimed = worker.caller.claimed();
        let known = worker.unresponsive_since.filter(|(_, before)| *before == claimed).map(|(since, _)| since);
        let Some(since) = known.or(given) else { return };
        worker.unresponsive_since = Some((since, claimed));
        if since.elapsed() >= DEAF {
            let kind = ErrorKind::TimedOut { limit: DEAF, elapsed: since.elapsed() };
            let error = self.in_place(number, Error::new(kind, Execution::NotStarted));
            // Without grace: it has nothing to clear up, and a stopped process does not hear that it is to end.
            self.kill_worker(number, &error, None);
        }
    }

    /// Ends a worker because of the call that it is running, which ends with `error`.
    fn end_call(&mut self, number: usize, error: &Error) {
        self.kill_worker(number, error, self.config.grace);
    }
}

/// When the call that this worker is running has taken too long, and how long it may take.
fn due(worker: &Worker) -> Option<(Instant, Duration)> {
    let Request::Call(call) = worker.caller.front()? else { return None };
    let limit = call.options.timeout?;
    Some((worker.since?.checked_add(limit)?, limit))
}
