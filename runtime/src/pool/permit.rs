//! A place for one call in a pool with a bound, taken before the call is submitted.
//!
//! Runs in: the parent, on the thread that submits.

use std::sync::Arc;

use super::call::Call;
use super::pending_limit::{TrySubmitError, foreign};
use super::scheduler::Scheduler;
use super::shared::Shared;
use crate::link::Payload;

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
