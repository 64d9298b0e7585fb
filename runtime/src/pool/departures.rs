//! Workers that get no more calls and are to end, until they have: [`Departures`].
//!
//! Runs in: the parent, under the scheduler's mutex. No process is waited for without a bound.
//!
//! | a worker | may take | then |
//! |---|---|---|
//! | runs its finalizer | the finalizer's timeout, else the pool's [exit timeout](crate::PoolBuilder::exit_timeout), else [`FINALIZER_TIMEOUT`] | it is killed, and the finalizer has timed out |
//! | exits: exit handlers, destructors | the pool's exit timeout, else [`EXIT_TIMEOUT`] or the termination grace if that is longer | it is killed |
//! | was asked to end | the termination grace | it is killed |
//! | was killed | [`MAX_DEATH_TIME`](crate::supervisor::MAX_DEATH_TIME) | it is given up: its calls are settled, and their error says so |

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::PoolConfig;
use super::death::{Death, DeathCheck, Dying};
use super::slot::{Request, Worker};
use crate::call::{EncodedCall, outcome};
use crate::error::{Error, ErrorKind, Execution, Result};
use crate::link::frame::FrameKind;
use crate::supervisor::ChildHandle;

/// How long a worker has to exit after its last answer.
pub(super) const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a finalizer without a timeout of its own may run.
pub(super) const FINALIZER_TIMEOUT: Duration = Duration::from_secs(10);

/// The workers that are on their way out.
#[derive(Debug, Default)]
pub(super) struct Departures(Vec<Leaving>);

/// A worker that gets no more calls and is to end.
#[derive(Debug)]
struct Leaving {
    number: usize,
    record: Arc<ChildHandle>,
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
    /// It exits, which may take until the second moment.
    Exiting(Duration, Option<Instant>),
    /// It was killed.
    Killed(Death),
}

/// What has become of a worker that was leaving, with the number of its slot.
pub(super) enum Departure {
    /// It took longer than this, for its finalizer or to exit, and is to be killed.
    Overdue {
        finalizing: bool,
        limit: Duration,
    },
    Dead,
    /// It was killed and does not end.
    Stuck,
}

impl Departures {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A worker that has no call is to run its finalizer and exit. Returns when to check that it did.
    pub(super) fn dismiss(&mut self, config: &PoolConfig, number: usize, mut worker: Box<Worker>) -> Option<Instant> {
        let now = Instant::now();
        let exit = config.exit_limit();
        let (mut stage, mut answer) = (Stage::Exiting(exit, now.checked_add(exit)), None);
        if worker.initializing {
            // It exits when its initializer has returned.
            let limit = config.initializer_limit();
            let limit = limit.unwrap_or(FINALIZER_TIMEOUT).saturating_add(exit);
            stage = Stage::Exiting(limit, now.checked_add(limit));
        } else if let Some(finalizer) = &config.finalizer {
            match give_finalizer(&mut worker, finalizer) {
                Ok(()) => {
                    let limit = config.finalizer_limit(finalizer);
                    stage = Stage::Finalizing(limit, now.checked_add(limit));
                }
                Err(error) => answer = Some(Err(error)),
            }
        }
        worker.caller.link().close();
        let record = Arc::clone(&worker.record);
        self.add(Leaving { number, record, worker: Some(worker), answer, since: now, stage })
    }

    /// A worker is killed now that never got a call. Returns when to check that it is dead.
    pub(super) fn add_killed(&mut self, number: usize, record: Arc<ChildHandle>) -> Option<Instant> {
        self.add(Leaving::killed(number, record, Death::after(Duration::ZERO)))
    }

    /// A worker was killed, and its slot has no use for it. Only once what it was running is settled.
    pub(super) fn add_dying(&mut self, number: usize, dying: Dying) {
        self.add(Leaving::killed(number, dying.record, dying.death));
    }

    /// Everything ends now: no finalizer is waited for. Returns the processes to kill.
    pub(super) fn kill_all(&mut self) -> impl Iterator<Item = Arc<ChildHandle>> {
        self.0.iter_mut().map(|leaving| {
            leaving.worker = None;
            leaving.stage = Stage::Killed(Death::after(Duration::ZERO));
            Arc::clone(&leaving.record)
        })
    }

    /// When the next check is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().filter_map(Leaving::due).min()
    }

    /// The process with this record has ended. If it was one of these and its finalizer has failed: the slot's number, and
    /// why.
    pub(super) fn ended(
        &mut self,
        config: &PoolConfig,
        record: &Arc<ChildHandle>,
        status: ExitStatus,
    ) -> Option<(usize, Error)> {
        let at = self.0.iter().position(|leaving| Arc::ptr_eq(&leaving.record, record))?;
        let mut leaving = self.0.swap_remove(at);
        leaving.take_answer();
        let (finalizer, worker) = (config.finalizer.as_ref()?, leaving.worker.as_ref()?);
        if worker.initializing {
            return None;
        }
        let error = match leaving.answer {
            Some(Ok(())) => return None,
            Some(Err(error)) => error,
            None => match leaving.stage {
                Stage::Killed(_) => {
                    let limit = config.finalizer_limit(finalizer);
                    let kind = ErrorKind::TimedOut { limit, elapsed: leaving.since.elapsed().max(limit) };
                    Error::new(kind, Execution::Unknown)
                }
                _ => outcome::of_exit(record.exit(status), &worker.caller, Execution::Unknown),
            },
        };
        let error = error.in_process(&record.name(), record.pid).in_task(finalizer.task().name());
        Some((leaving.number, error))
    }

    /// Checks the workers that have had their time.
    pub(super) fn check(&mut self, config: &PoolConfig, now: Instant) -> Vec<(usize, Arc<ChildHandle>, Departure)> {
        let mut found = Vec::new();
        for at in (0..self.0.len()).rev() {
            let leaving = &mut self.0[at];
            if leaving.due().is_none_or(|due| due > now) {
                continue;
            }
            let (number, record) = (leaving.number, Arc::clone(&leaving.record));
            if let Some(departure) = leaving.check(config, now) {
                if matches!(departure, Departure::Stuck) {
                    self.0.swap_remove(at);
                }
                found.push((number, record, departure));
            }
        }
        found
    }

    fn add(&mut self, leaving: Leaving) -> Option<Instant> {
        let due = leaving.due();
        self.0.push(leaving);
        due
    }
}

impl Leaving {
    fn killed(number: usize, record: Arc<ChildHandle>, death: Death) -> Self {
        Self { number, record, worker: None, answer: None, since: Instant::now(), stage: Stage::Killed(death) }
    }

    /// Takes the answer of its finalizer if that has come.
    fn take_answer(&mut self) {
        let Some(worker) = &mut self.worker else { return };
        let answer = &mut self.answer;
        let taken = worker.caller.collect(|request, reply| {
            if matches!(request, Request::Finalizer) {
                *answer = Some(outcome::of_reply(reply).map(drop));
            }
        });
        if let Err(violation) = taken {
            *answer = Some(Err(outcome::of_violation(violation.0)));
        }
    }

    /// When the next check is due.
    fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Finalizing(_, due) | Stage::Exiting(_, due) => due,
            Stage::Killed(death) => death.next(),
        }
    }

    /// It has not left in time, or was killed for that.
    fn check(&mut self, config: &PoolConfig, now: Instant) -> Option<Departure> {
        let killed = Stage::Killed(Death::after(Duration::ZERO));
        match &mut self.stage {
            Stage::Finalizing(limit, _) => {
                let limit = *limit;
                self.take_answer();
                if self.answer.is_some() {
                    let exit = config.exit_limit();
                    self.stage = Stage::Exiting(exit, now.checked_add(exit));
                    return None;
                }
                self.stage = killed;
                Some(Departure::Overdue { finalizing: true, limit })
            }
            Stage::Exiting(limit, _) => {
                let limit = *limit;
                self.stage = killed;
                self.take_answer();
                Some(Departure::Overdue { finalizing: false, limit })
            }
            Stage::Killed(death) => match death.check(&self.record, now) {
                DeathCheck::Dead => Some(Departure::Dead),
                DeathCheck::Stuck => Some(Departure::Stuck),
                DeathCheck::Waiting => None,
            },
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

/// Gives a worker its finalizer.
fn give_finalizer(worker: &mut Worker, finalizer: &EncodedCall) -> Result<()> {
    let index = finalizer.task().task_index();
    let index = index.ok_or_else(Error::unknown_task)?;
    let at = |step: &'static str| move |errno| Error::could_not_start(step, errno);
    let payload = finalizer.payload().map_err(at("find memory for the finalizer's arguments"))?;
    let request = (index, finalizer.options().memory_limit);
    let written = worker.caller.write(FrameKind::Call, request, payload, Request::Finalizer);
    written.map_err(|(errno, ..)| at("hand over the finalizer's arguments")(errno))?;
    worker.caller.publish();
    Ok(())
}
