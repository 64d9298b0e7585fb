//! Submits a call: takes a permit, encodes the arguments, and hands the call to the scheduler.
//!
//! Runs in: the parent, on the thread that submits.
//!
//! Why a permit is taken before the arguments are encoded: `try_submit` can then give the arguments back as they
//! were.

use std::sync::Arc;

use super::call::Call;
use super::handle::JoinHandle;
use super::pending_limit::{TrySubmitError, foreign};
use super::scheduler::Scheduler;
use super::shared::Shared;
use crate::call::encode;
use crate::error::Error;
use crate::link::Payload;
use crate::task::Task;

/// Submits a call, once there is a permit. What cannot be submitted fails.
pub(super) fn submit<T: Task>(shared: &Arc<Shared>, task: T, args: T::Args<'_>) -> JoinHandle<T::Output> {
    if shared.is_foreign() {
        return refused(shared, task, foreign());
    }
    submit_with(PendingPermit::acquire(shared), task, args)
}

/// Submits a call if there is a permit now, and the pool takes calls.
pub(super) fn try_submit<'a, T: Task>(
    shared: &Arc<Shared>,
    task: T,
    args: T::Args<'a>,
) -> Result<JoinHandle<T::Output>, TrySubmitError<T::Args<'a>>> {
    let (permit, args) = PendingPermit::try_acquire(shared, args)?;
    Ok(submit_with(permit, task, args))
}

/// Submits a call that has its permit. An error, or a panic, of the arguments' own code releases it.
fn submit_with<T: Task>(permit: PendingPermit<'_>, task: T, args: T::Args<'_>) -> JoinHandle<T::Output> {
    let shared = permit.0;
    let registration = task.registration();
    let Some(index) = registration.task_index() else {
        return refused(shared, task, Error::unknown_task());
    };
    match encode::<T>(args, &shared.stock) {
        Err(error) => refused(shared, task, error),
        Ok(payload) => {
            let call = Arc::new(Call::new(registration.name(), index, task.options()));
            permit.submit(Arc::clone(&call), payload);
            JoinHandle::new(Arc::clone(shared), call, T::decode_output)
        }
    }
}

/// The handle of a call that was not made.
fn refused<T: Task>(shared: &Arc<Shared>, task: T, error: Error) -> JoinHandle<T::Output> {
    let call = Arc::new(Call::new(task.registration().name(), 0, task.options()));
    drop(call.settle(Err(error)));
    JoinHandle::new(Arc::clone(shared), call, T::decode_output)
}

/// A place for a call that is about to be submitted. Dropping it releases it.
#[must_use = "the call that it is for would not be counted"]
pub(super) struct PendingPermit<'a>(&'a Arc<Shared>);

impl<'a> PendingPermit<'a> {
    /// Waits for a permit if there is a bound. A closed pool has one for every call, which then fails.
    pub(super) fn acquire(shared: &'a Arc<Shared>) -> Self {
        let limit = &shared.limit;
        if limit.is_bounded() {
            while !limit.try_acquire() {
                shared.wait(&|| limit.is_open(), &**limit, None);
            }
            limit.wake_next();
        }
        Self(shared)
    }

    /// As [`acquire`](Self::acquire), but at once or not at all, and not in a pool that is closed.
    pub(super) fn try_acquire<A>(shared: &'a Arc<Shared>, args: A) -> Result<(Self, A), TrySubmitError<A>> {
        if shared.is_foreign() {
            return Err(TrySubmitError::Closed(args, foreign()));
        }
        if let Some(error) = shared.inspect(|scheduler| scheduler.refusal().cloned()) {
            return Err(TrySubmitError::Closed(args, error));
        }
        let limit = &shared.limit;
        if limit.is_bounded() {
            if !limit.try_acquire() {
                // Calls that no thread waits for may have been answered.
                shared.update(Scheduler::collect);
                if !limit.try_acquire() {
                    return Err(TrySubmitError::Full(args));
                }
            }
            limit.wake_next();
        }
        Ok((Self(shared), args))
    }

    /// Submits the call, which keeps the permit until it is settled. A pool that is closed settles it at once.
    pub(super) fn submit(self, call: Arc<Call>, payload: Payload) {
        if self.0.submit(call, payload) {
            let _ = std::mem::ManuallyDrop::new(self);
        }
    }
}

impl Drop for PendingPermit<'_> {
    fn drop(&mut self) {
        if self.0.limit.is_bounded() {
            self.0.update(Scheduler::release_permit);
        }
    }
}
