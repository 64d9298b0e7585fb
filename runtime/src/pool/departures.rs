//! Workers on their way out: what they still owe an answer to, and how long they may take.
//!
//! Owns: [`Dying`] and [`Leaving`]. Runs in: the parent, under the mutex.
//! Never: settles a call before its process is dead, or waits for a process without a bound.
//!
//! | a worker | may take | then |
//! |---|---|---|
//! | runs its finalizer | the finalizer's timeout, else the pool's [exit timeout](crate::PoolBuilder::exit_timeout), else [`FINALIZER_TIMEOUT`] | it is killed, and the finalizer has timed out |
//! | exits: exit handlers, destructors | the pool's exit timeout, else [`EXIT_TIMEOUT`] or the termination grace if that is longer | it is killed |
//! | was asked to end | the termination grace | it is killed |
//! | was killed | [`MAX_DEATH_TIME`] | it is given up: its calls are settled, and their error says so |

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call::{Call, QueuedCall};
use super::config::{EncodedCall, PoolConfig};
use super::scheduler::Scheduler;
use super::slot::{Request, SlotState, Worker};
use crate::call::outcome;
use crate::error::{Error, ErrorKind, Execution, Result};
use crate::link::frame::FrameKind;
use crate::supervisor::{ChildHandle, DEATH_CHECK_INTERVAL, MAX_DEATH_TIME, not_dead_note};
use crate::sys::signal;

/// How long a worker has to exit after its last answer.
pub(super) const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a finalizer without a timeout of its own may run.
pub(super) const FINALIZER_TIMEOUT: Duration = Duration::from_secs(10);

/// A worker that was killed, or is about to be, and is not known to be dead.
#[derive(Debug)]
pub(super) struct Dying {
    pub(super) record: Arc<ChildHandle>,
    /// What it was running, and how that ends unless it is made again.
    pub(super) running: Vec<(QueuedCall, Error)>,
    /// Why it was killed.
    pub(super) cause: Error,
    death: Death,
}

/// A worker that gets no more calls and is to end.
#[derive(Debug)]
pub(super) struct Leaving {
    number: usize,
    pub(super) record: Arc<ChildHandle>,
    /// Kept as long as its finalizer may answer.
    worker: Option<Box<Worker>>,
    answer: Option<Result<()>>,
    since: Instant,
    stage: Stage,
}

/// How far a worker that leaves has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// It runs its finalizer, which may take until the second moment.
    Finalizing(Duration, Option<Instant>),
    /// It exits, likewise.
    Exiting(Duration, Option<Instant>),
    /// It was killed.
    Killed(Death),
}

/// When to look for the end of a process that was killed, and when to look for the last time.
#[derive(Clone, Copy, Debug)]
struct Death {
    next: Option<Instant>,
    last: Option<Instant>,
}

/// What a look for a death has found.
enum Found {
    Dead,
    Waiting,
    /// It is not dead, and has had its time.
    Stuck,
}

impl Death {
    /// It is killed after `pause`.
    fn after(pause: Duration) -> Self {
        let now = Instant::now();
        let at = |time: Duration| now.checked_add(pause.saturating_add(time));
        Self { next: at(DEATH_CHECK_INTERVAL), last: at(MAX_DEATH_TIME) }
    }

    fn look(&mut self, record: &ChildHandle, now: Instant) -> Found {
        if self.next.is_none_or(|next| now < next) {
            return Found::Waiting;
        }
        if record.is_dead() {
            return Found::Dead;
        }
        if self.last.is_some_and(|last| now >= last) {
            return Found::Stuck;
        }
        self.next = now.checked_add(DEATH_CHECK_INTERVAL);
        Found::Waiting
    }
}

impl Dying {
    /// The same, once its place has no use for it. Only when what it was running is settled.
    pub(super) fn leave(self, number: usize) -> Leaving {
        let stage = Stage::Killed(self.death);
        Leaving { number, record: self.record, worker: None, answer: None, since: Instant::now(), stage }
    }
}

impl Leaving {
    /// One that is killed now.
    pub(super) fn killed(number: usize, record: Arc<ChildHandle>) -> Self {
        let stage = Stage::Killed(Death::after(Duration::ZERO));
        Self { number, record, worker: None, answer: None, since: Instant::now(), stage }
    }

    /// Takes the answer of its finalizer if that has come.
    fn hear(&mut self) {
        let Some(worker) = &mut self.worker else { return };
        let answer = &mut self.answer;
        let reply_watched = worker.caller.collect(|asked, reply| {
            if matches!(asked, Request::Finalizer) {
                *answer = Some(outcome::of_reply(reply).map(drop));
            }
        });
        if let Err(violation) = reply_watched {
            *answer = Some(Err(outcome::of_violation(violation.0)));
        }
    }

    /// When the next look is due.
    fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Finalizing(_, due) | Stage::Exiting(_, due) => due,
            Stage::Killed(death) => death.next,
        }
    }
}

impl PoolConfig {
    /// How long a worker may take to exit.
    fn exit_limit(&self) -> Duration {
        self.exit_timeout.unwrap_or_else(|| EXIT_TIMEOUT.max(self.grace.unwrap_or_default()))
    }

    /// How long its finalizer may take before that.
    fn finalizer_limit(&self, finalizer: &EncodedCall) -> Duration {
        finalizer.options().timeout.or(self.exit_timeout).unwrap_or(FINALIZER_TIMEOUT)
    }
}

impl Scheduler {
    /// Nothing is expected of this worker any more, and it is killed, or asked to end and killed after `grace`. What it was
    /// running ends with `error` once it is dead; what it had not begun moves on now.
    pub(super) fn kill_worker(&mut self, number: usize, error: &Error, grace: Option<Duration>) {
        match std::mem::replace(&mut self.slots[number].state, SlotState::Vacant) {
            SlotState::Ready(worker) => {
                self.see_departure(number, &worker);
                let record = Arc::clone(&worker.record);
                let (running, _) = self.settle_in_flight(*worker);
                let running = running.into_iter().map(|queued| (queued, error.clone())).collect();
                match grace {
                    None => self.effects.kill.push(Arc::clone(&record)),
                    Some(_) => self.effects.end.push(Arc::clone(&record)),
                }
                let death = Death::after(grace.unwrap_or_default());
                self.set_alarm(death.next);
                let dying = Dying { record, running, cause: error.clone(), death };
                self.slots[number].state = SlotState::Dying(Box::new(dying));
            }
            other => self.slots[number].state = other,
        }
        self.update_load(number);
    }

    /// Cancels a call of a worker that is about to be dead, if it would be made again. True if it ends as cancelled.
    pub(super) fn cancel_dying(&mut self, number: usize, call: &Arc<Call>) -> bool {
        let SlotState::Dying(dying) = &mut self.slots[number].state else { return false };
        let running = dying.running.iter_mut().find(|(queued, _)| Arc::ptr_eq(&queued.call, call));
        running.is_some_and(|(_, error)| cancel_retry(call, error))
    }

    /// Takes the retries from all calls of workers that are about to be dead.
    pub(super) fn cancel_all_dying(&mut self) {
        for slot in &mut self.slots {
            if let SlotState::Dying(dying) = &mut slot.state {
                dying.running.iter_mut().for_each(|(queued, error)| _ = cancel_retry(&queued.call, error));
            }
        }
    }

    /// Has a worker that has no call run its finalizer and exit.
    pub(super) fn dismiss_one(&mut self, number: usize, mut worker: Worker) {
        let now = Instant::now();
        let exit = self.config.exit_limit();
        let plan = Arc::clone(&self.config);
        let (mut stage, mut answer) = (Stage::Exiting(exit, now.checked_add(exit)), None);
        if worker.initializing {
            // It exits when its initializer has returned.
            let limit = plan.initializer.as_ref().and_then(|initializer| initializer.options().timeout);
            let limit = limit.unwrap_or(FINALIZER_TIMEOUT).saturating_add(exit);
            stage = Stage::Exiting(limit, now.checked_add(limit));
        } else if let Some(finalizer) = &plan.finalizer {
            match give_finalizer(&mut worker, finalizer) {
                Ok(()) => {
                    let limit = plan.finalizer_limit(finalizer);
                    stage = Stage::Finalizing(limit, now.checked_add(limit));
                }
                Err(error) => answer = Some(Err(error)),
            }
        }
        worker.caller.link().close();
        let record = Arc::clone(&worker.record);
        let leaving = Leaving { number, record, worker: Some(Box::new(worker)), answer, since: now, stage };
        self.set_alarm(leaving.due());
        self.leaving.push(leaving);
    }

    /// A worker is killed that never got a call, and its end is to be waited for.
    pub(super) fn leave_killed(&mut self, number: usize, record: Arc<ChildHandle>) {
        let leaving = Leaving::killed(number, record);
        self.set_alarm(leaving.due());
        self.leaving.push(leaving);
    }

    /// A worker that was leaving has ended, if this was one.
    pub(super) fn has_left(&mut self, record: &Arc<ChildHandle>, status: ExitStatus) {
        let Some(at) = self.leaving.iter().position(|leaving| Arc::ptr_eq(&leaving.record, record)) else { return };
        let mut leaving = self.leaving.swap_remove(at);
        leaving.hear();
        let (Some(finalizer), Some(worker)) = (&self.config.finalizer, &leaving.worker) else { return };
        if worker.initializing {
            return;
        }
        let name = finalizer.task().name();
        let error = match leaving.answer {
            Some(Ok(())) => return,
            Some(Err(error)) => error,
            None => match leaving.stage {
                Stage::Killed(_) => {
                    let limit = self.config.finalizer_limit(finalizer);
                    let kind = ErrorKind::TimedOut { limit, elapsed: leaving.since.elapsed().max(limit) };
                    Error::new(kind, Execution::Unknown)
                }
                _ => outcome::of_exit(record.exit(status), &worker.caller, Execution::Unknown),
            },
        };
        let error = error.in_process(&record.name(), record.pid).in_task(name);
        self.see_failed_finalizer(leaving.number, error);
    }

    /// An alarm went off: kills those that take too long to leave, and gives those up that do not die.
    pub(super) fn check_departures(&mut self) {
        let now = Instant::now();
        let mut dead = Vec::new();
        for at in (0..self.leaving.len()).rev() {
            if self.leaving[at].due().is_some_and(|due| due <= now) {
                self.check_leaving(at, now, &mut dead);
            }
        }
        for number in 0..self.slots.len() {
            let SlotState::Dying(dying) = &mut self.slots[number].state else { continue };
            match dying.death.look(&dying.record, now) {
                Found::Dead => dead.push((number, Arc::clone(&dying.record))),
                Found::Stuck => self.give_up_on(number),
                Found::Waiting => {}
            }
        }
        for (number, record) in dead {
            // Its fork server, which would reap it and end its group, does not.
            record.kill_group();
            self.on_worker_exit(number, &record, ExitStatus::from_raw(signal::KILL));
        }
        let dying = self.slots.iter().filter_map(|slot| match &slot.state {
            SlotState::Dying(dying) => dying.death.next,
            _ => None,
        });
        let next = dying.chain(self.leaving.iter().filter_map(Leaving::due)).min();
        self.set_alarm(next);
    }

    /// A worker has not left in time, or was killed for that.
    fn check_leaving(&mut self, at: usize, now: Instant, dead: &mut Vec<(usize, Arc<ChildHandle>)>) {
        let exit = self.config.exit_limit();
        let leaving = &mut self.leaving[at];
        let (number, record) = (leaving.number, Arc::clone(&leaving.record));
        match &mut leaving.stage {
            Stage::Finalizing(limit, _) => {
                let limit = *limit;
                leaving.hear();
                if leaving.answer.is_some() {
                    leaving.stage = Stage::Exiting(exit, now.checked_add(exit));
                    return;
                }
                leaving.stage = Stage::Killed(Death::after(Duration::ZERO));
                self.see_forced(number, &record, (true, limit));
                self.effects.kill.push(record);
            }
            Stage::Exiting(limit, _) => {
                let limit = *limit;
                leaving.stage = Stage::Killed(Death::after(Duration::ZERO));
                leaving.hear();
                self.see_forced(number, &record, (false, limit));
                self.effects.kill.push(record);
            }
            Stage::Killed(death) => match death.look(&record, now) {
                Found::Dead => dead.push((number, record)),
                Found::Stuck => {
                    self.leaving.swap_remove(at);
                    self.see_stuck(number, &record);
                }
                Found::Waiting => {}
            },
        }
    }

    /// A worker was killed and does not die: its calls are settled all the same, never made again, and its place is given to
    /// another one.
    fn give_up_on(&mut self, number: usize) {
        let SlotState::Dying(dying) = std::mem::replace(&mut self.slots[number].state, SlotState::Vacant) else {
            return;
        };
        self.see_stuck(number, &dying.record);
        for (queued, error) in dying.running {
            self.settle_call(&queued.call, Err(error.with_note(not_dead_note())));
            queued.call.set_worker(None);
        }
        self.update_load(number);
        self.promote_standby(number);
        self.dispatch_backlog();
    }

    /// Whether a worker that is not dead yet was running this call.
    pub(super) fn is_dying_under(&self, number: usize, call: &Arc<Call>) -> bool {
        match self.slots.get(number).map(|slot| &slot.state) {
            Some(SlotState::Dying(dying)) => dying.running.iter().any(|(queued, _)| Arc::ptr_eq(&queued.call, call)),
            _ => false,
        }
    }

    /// Everything is to end now: those that leave are killed, and no finalizer is waited for.
    pub(super) fn kill_leaving(&mut self) {
        for leaving in &mut self.leaving {
            leaving.worker = None;
            leaving.stage = Stage::Killed(Death::after(Duration::ZERO));
            self.effects.kill.push(Arc::clone(&leaving.record));
        }
        for slot in &self.slots {
            if let SlotState::Dying(dying) = &slot.state {
                self.effects.kill.push(Arc::clone(&dying.record));
            }
        }
        let next = self.leaving.iter().filter_map(Leaving::due).min();
        self.set_alarm(next);
    }
}

/// Gives a worker its finalizer.
fn give_finalizer(worker: &mut Worker, finalizer: &EncodedCall) -> Result<()> {
    let index = finalizer.task().index();
    let index = index.ok_or_else(Error::unknown_task)?;
    let at = |step: &'static str| move |errno| Error::could_not_start(step, errno);
    let payload = finalizer.payload().map_err(at("find memory for the finalizer's arguments"))?;
    let request = (index, finalizer.options().memory_limit);
    let written = worker.caller.write(FrameKind::Call, request, payload, Request::Finalizer);
    written.map_err(|(errno, ..)| at("hand over the finalizer's arguments")(errno))?;
    worker.caller.publish();
    Ok(())
}

/// Has a call that would be made again after `error` end as cancelled; true if it does.
fn cancel_retry(call: &Call, error: &mut Error) -> bool {
    if *error.kind() != ErrorKind::Cancelled && call.record_attempt(error) {
        *error = Error::new(ErrorKind::Cancelled, Execution::NotStarted);
    }
    *error.kind() == ErrorKind::Cancelled
}
