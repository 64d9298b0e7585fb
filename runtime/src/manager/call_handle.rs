//! [`CallHandle`]: the way to the result of a call that was made by `later`.
//!
//! Runs in: the process that called.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;
use super::held::{Held, Route, call_here};
use super::pending::{OrderedCall, Pending};
use super::proxy::{decode, described, encode};
use super::wire::{Answer, Status};
use crate::codec::CodecError;
use crate::error::{Error, Result};
use crate::sync::futex_wait::MAX_SLEEP;
use crate::task::{RegistrationKind, Task};

/// A call of a proxy's method that was made by `later`. Dropping it detaches the call, which is made all the same.
///
/// It is a future of the result, for use in any executor.
///
/// # If the manager dies
/// Joining fails within a tenth of a second with [`ErrorKind::ManagerGone`](crate::ErrorKind::ManagerGone).
#[must_use = "the call is made all the same, but nothing hears of its errors"]
#[doc(alias("AsyncResult", "Future"))]
pub struct CallHandle<T> {
    /// The object lives as long as a call of it may run.
    held: Arc<Held>,
    state: CallState,
    task: &'static str,
    decode: fn(&[u8]) -> std::result::Result<T, CodecError>,
}

enum CallState {
    Made { client: Arc<Client>, number: u64, pending: Arc<Pending>, deadline: Option<Instant> },
    Settled(Option<Result<Answer>>),
}

impl<T> CallHandle<T> {
    pub(super) fn start<K: Task<Output = T>>(
        held: &Arc<Held>,
        task: K,
        args: K::Args<'_>,
        deadline: Option<Instant>,
    ) -> Self {
        let registration = task.registration();
        let made = || {
            let index = registration.index().ok_or_else(Error::unknown_task)?;
            let (bytes, handles) = encode::<K>(args)?;
            let what = (index, held.object);
            let is_exclusive = matches!(registration.kind(), RegistrationKind::Method { exclusive: true, .. });
            let queued = is_exclusive.then(|| OrderedCall::new(&held.queued));
            Ok(match &held.route {
                Route::Client(client) => {
                    let (number, pending) = client.submit(what, (&bytes, &handles), queued, deadline)?;
                    client.hurry();
                    CallState::Made { client: Arc::clone(client), number, pending, deadline }
                }
                Route::Own(server) => CallState::Settled(Some(call_here(server, what, (&bytes, &handles), deadline))),
            })
        };
        let state = made().unwrap_or_else(|error| CallState::Settled(Some(Err(error))));
        Self { held: Arc::clone(held), state, task: registration.name(), decode: K::decode_output }
    }

    /// Waits for the result, as long as it takes, or until the proxy's time is over.
    ///
    /// # Errors
    /// As the proxy's method, which does not fail itself where this does.
    #[doc(alias("get", "result"))]
    pub fn join(mut self) -> Result<T> {
        let outcome = match std::mem::replace(&mut self.state, CallState::Settled(None)) {
            CallState::Made { client, number, pending, deadline } => client.wait(number, &pending, deadline),
            CallState::Settled(outcome) => outcome.unwrap_or_else(|| Err(taken())),
        };
        self.result(outcome)
    }

    /// As [`join`](Self::join), but gives the handle back after `timeout`.
    ///
    /// # Errors
    /// The handle, if the time is over.
    pub fn join_timeout(self, timeout: Duration) -> std::result::Result<Result<T>, Self> {
        if self.wait_timeout(timeout) { Ok(self.join()) } else { Err(self) }
    }

    /// Waits until the result is there, for `timeout` at the most. Returns whether it is.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        // A time beyond the clock's end is for ever.
        let until = Instant::now().checked_add(timeout);
        match &self.state {
            CallState::Settled(_) => true,
            CallState::Made { client, pending, deadline, .. } => client.wait_until_answered(pending, until, *deadline),
        }
    }

    /// Whether [`join`](Self::join) would return at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.wait_timeout(Duration::ZERO)
    }

    /// The same, whose errors name `task`.
    pub(crate) fn named(mut self, task: &'static str) -> Self {
        self.task = task;
        self
    }

    /// Gives the call up: the manager hears that no thread waits for it.
    pub(crate) fn abandon(mut self) {
        if let CallState::Made { client, number, .. } = std::mem::replace(&mut self.state, CallState::Settled(None))
            && !client.is_foreign()
        {
            client.abandon(number);
        }
    }

    fn result(&self, outcome: Result<Answer>) -> Result<T> {
        let result = outcome.and_then(|answer| decode(&answer, self.decode));
        result.map_err(|error| described(error, &self.held.route, self.task))
    }
}

#[cold]
fn taken() -> Error {
    Error::invalid("the result was taken before")
}

impl<T> Unpin for CallHandle<T> {}

impl<T> Future for CallHandle<T> {
    type Output = Result<T>;

    /// See [`CallHandle::join`].
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let outcome = match &mut self.state {
            CallState::Settled(outcome) => outcome.take().unwrap_or_else(|| Err(taken())),
            CallState::Made { client, number, pending, deadline } => {
                let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if !is_late && !client.is_over() && client.inbox.failure().is_none() {
                    let is_answered = pending.register(context.waker(), *deadline);
                    if !is_answered && serve_futures(client) {
                        return Poll::Pending;
                    }
                }
                // It is answered, late or lost; or there is no thread that would wake the future, and this one waits.
                client.wait(*number, pending, *deadline)
            }
        };
        self.state = CallState::Settled(None);
        Poll::Ready(self.result(outcome))
    }
}

impl<T> Drop for CallHandle<T> {
    fn drop(&mut self) {
        if let CallState::Made { client, number, .. } = &self.state
            && !client.is_foreign()
            && let Some(answer) = client.inbox.detach(*number)
        {
            client.unclaimed(*number, if answer.status == Status::Done { answer.object } else { 0 });
        }
    }
}

impl<T> fmt::Debug for CallHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settled = match &self.state {
            CallState::Settled(_) => true,
            CallState::Made { pending, .. } => pending.is_answered(),
        };
        f.debug_struct("CallHandle").field("task", &self.task).field("settled", &settled).finish_non_exhaustive()
    }
}

impl Client {
    /// Reads answers until `until`, and wakes the futures that have waited long enough. `asked`: when the manager was last asked to
    /// look for what futures wait for.
    fn read_for_futures(&self, until: Instant, asked: &mut Instant) {
        let awaited = self.inbox.awaited();
        let until = awaited.iter().filter_map(|pending| pending.deadline()).fold(until, Instant::min);
        self.inbox.serve_futures(until, |call, object| self.unclaimed(call, object));
        let (now, fails) = (Instant::now(), self.is_over() || self.inbox.failure().is_some());
        for pending in awaited {
            if fails || pending.deadline().is_some_and(|deadline| deadline <= now) {
                pending.wake();
            }
        }
        if now.duration_since(*asked) >= MAX_SLEEP {
            *asked = now;
            self.announce();
            self.nudge();
        }
    }
}

/// Sees to it that a thread reads answers while futures wait. False: there is none to be had.
fn serve_futures(client: &Arc<Client>) -> bool {
    if client.serves_futures.swap(true, AcqRel) {
        return true;
    }
    let reader = Arc::clone(client);
    let started = thread::Builder::new().name("process-task".to_owned()).spawn(move || {
        loop {
            let mut asked = Instant::now();
            while !reader.inbox.awaited().is_empty() {
                reader.read_for_futures(Instant::now() + MAX_SLEEP, &mut asked);
            }
            reader.serves_futures.store(false, Release);
            // A future may have come between the look and the store, and have relied on this thread.
            if reader.inbox.awaited().is_empty() || reader.serves_futures.swap(true, AcqRel) {
                return;
            }
        }
    });
    if started.is_err() {
        client.serves_futures.store(false, Release);
    }
    started.is_ok()
}
