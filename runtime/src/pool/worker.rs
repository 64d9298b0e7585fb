//! One place for a worker in a pool, and where in its life the worker is.
//!
//! Owns: the states. Runs in: the parent, under the schedule's mutex. Never: is written by a child.

use std::sync::Arc;

use super::call::Call;
use crate::launch::Record;
use crate::link::Caller;

/// What a request to a worker was.
#[derive(Debug)]
pub(super) enum Asked {
    Setup,
    Call(Arc<Call>),
}

/// A worker's place. It outlives the worker, which may be replaced.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) state: State,
    /// What we have last written to the link's two words.
    pub(super) asleep: bool,
    pub(super) hungry: bool,
    /// Whether its number is on the stack of idle workers.
    pub(super) listed: bool,
}

/// Where a worker is in its life.
#[derive(Debug)]
pub(super) enum State {
    /// Nobody here and nobody coming.
    Empty,
    /// To be asked for, perhaps after a pause. Costs nothing.
    Postponed,
    /// Asked for. Has no call, so its failure costs none.
    Starting,
    /// There. Its death costs the one call that it has claimed, if any.
    Ready(Box<Worker>),
    /// Told to end, or killed. It has no call, and gets none.
    Leaving(Arc<Record>),
}

/// A worker that can be given calls.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) record: Arc<Record>,
    pub(super) caller: Caller<Asked>,
    /// It has become what its setup asked for.
    pub(super) proven: bool,
    /// It could not become that, and said so; its end is no further news.
    pub(super) refused: bool,
}

impl Place {
    pub(super) fn empty() -> Self {
        Self { state: State::Empty, asleep: false, hungry: false, listed: false }
    }

    pub(super) fn worker(&self) -> Option<&Worker> {
        match &self.state {
            State::Ready(worker) => Some(worker),
            _ => None,
        }
    }

    pub(super) fn worker_mut(&mut self) -> Option<&mut Worker> {
        match &mut self.state {
            State::Ready(worker) => Some(worker),
            _ => None,
        }
    }

    /// How many calls it has not answered, if it can be given any. Its setup is no call: one that waits behind nothing
    /// else is about to run, and need not be given to somebody else.
    pub(super) fn load(&self) -> Option<usize> {
        self.worker().map(|worker| worker.caller.in_flight().saturating_sub(usize::from(!worker.proven)))
    }

    pub(super) fn set_asleep(&mut self, asleep: bool) {
        if self.asleep != asleep
            && let State::Ready(worker) = &self.state
        {
            worker.caller.set_asleep(asleep);
            self.asleep = asleep;
        }
    }

    pub(super) fn set_hungry(&mut self, hungry: bool) {
        if self.hungry != hungry
            && let State::Ready(worker) = &self.state
        {
            worker.caller.set_hungry(hungry);
            self.hungry = hungry;
        }
    }
}
