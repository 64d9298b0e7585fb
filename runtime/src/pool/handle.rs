//! The way to the result of a call that was submitted.
//!
//! Owns: [`JoinHandle`]. Runs in: the parent. Never: cancels the call by being dropped.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::call::Call;
use super::core::Core;
use super::schedule::Schedule;
use crate::codec::CodecError;
use crate::error::{Error, Result};
use crate::launch::decode;

/// A call in a [`Pool`](crate::Pool). Dropping it detaches the call, which is made all the same.
///
/// It is a future of the result, for use in any executor.
///
/// # Examples
/// ```
/// use process_task::{Pool, process_task};
///
/// #[process_task]
/// fn square(x: i64) -> i64 { x * x }
///
/// let pool = Pool::new()?;
/// let handles: Vec<_> = (0..4).map(|x| pool.submit(square, x)).collect();
/// let squares: Result<Vec<_>, _> = handles.into_iter().map(|handle| handle.join()).collect();
/// assert_eq!(squares?, [0, 1, 4, 9]);
/// # process_task::Result::Ok(())
/// ```
///
/// # If the other process dies
/// See [`Pool`](crate::Pool).
#[must_use = "the call is made all the same, but nobody hears of its errors"]
pub struct JoinHandle<R> {
    core: Arc<Core>,
    call: Arc<Call>,
    decode: fn(&[u8]) -> std::result::Result<R, CodecError>,
}

impl<R> JoinHandle<R> {
    pub(super) fn new(
        core: Arc<Core>,
        call: Arc<Call>,
        decode: fn(&[u8]) -> std::result::Result<R, CodecError>,
    ) -> Self {
        Self { core, call, decode }
    }

    /// Waits for the result, as long as it takes.
    ///
    /// # Errors
    /// The arguments could not be encoded, the pool is closed, the task panicked, its worker died under it, or a value
    /// could not travel. A task that returns a `Result` gives two: `join()??`.
    pub fn join(self) -> Result<R> {
        self.wait_until(None);
        self.result()
    }

    /// Waits until the call is settled, for `timeout` at the most; says whether it is.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        // A time beyond the clock's end is for ever.
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// As [`join`](Self::join), but gives the handle back after `timeout`.
    ///
    /// # Errors
    /// The handle, if the time is over.
    pub fn join_timeout(self, timeout: Duration) -> std::result::Result<Result<R>, Self> {
        if self.wait_timeout(timeout) { Ok(self.result()) } else { Err(self) }
    }

    /// Whether [`join`](Self::join) would return at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        if !self.call.is_settled() {
            self.core.update(Schedule::collect);
        }
        self.call.is_settled()
    }

    pub(super) fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// The result of a call that is settled.
    pub(super) fn result(&self) -> Result<R> {
        let Some(outcome) = self.call.outcome() else {
            return Err(Error::invalid("the call is not settled yet").in_task(self.call.task));
        };
        decode(outcome, self.decode).map_err(|error| error.in_task(self.call.task))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        let done = || self.call.is_settled();
        done() || self.core.wait(&done, &std::iter::once(&self.call), deadline)
    }
}

impl<R> Future for JoinHandle<R> {
    type Output = Result<R>;

    /// See [`JoinHandle::join`].
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<R>> {
        if !self.call.is_settled() {
            let waker = context.waker().clone();
            self.core.update(|schedule, owed| {
                schedule.collect(owed);
                if !self.call.is_settled() {
                    schedule.wait_later(&self.call, waker, owed);
                }
            });
        }
        if self.call.is_settled() { Poll::Ready(self.result()) } else { Poll::Pending }
    }
}

impl<R> fmt::Debug for JoinHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (task, settled) = (self.call.task, self.call.is_settled());
        f.debug_struct("JoinHandle").field("task", &task).field("settled", &settled).finish_non_exhaustive()
    }
}
