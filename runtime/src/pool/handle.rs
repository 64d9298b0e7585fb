//! Submits calls, and the way to their results.
//!
//! Runs in: the parent, on the thread that submits, or that waits.
//!
//! Why a permit is taken before the arguments are encoded: `try_submit` can then give the arguments back as they
//! were.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::call::Call;
use super::callbacks::{self, Callback};
use super::pending_limit::{TrySubmitError, foreign};
use super::scheduler::Scheduler;
use super::shared::{PendingPermit, Shared};
use crate::call::{decode, encode};
use crate::codec::CodecError;
use crate::error::{Direction, Elapsed, Error, ErrorKind, Execution, Result};
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
) -> std::result::Result<JoinHandle<T::Output>, TrySubmitError<T::Args<'a>>> {
    let (permit, args) = PendingPermit::try_acquire(shared, args)?;
    Ok(submit_with(permit, task, args))
}

/// Submits a call that has its permit. An error, or a panic, of the arguments' own code releases it.
fn submit_with<T: Task>(permit: PendingPermit<'_>, task: T, args: T::Args<'_>) -> JoinHandle<T::Output> {
    let shared = permit.shared();
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

/// A call in a [`Pool`](crate::Pool). Dropping it detaches the call, which is made all the same.
///
/// It is a future of the result, for use in any executor. A future that is dropped, for example by `tokio::time::timeout`
/// or `select!`, detaches its call, too: the worker goes on with it, and calls that wait for a worker wait as long. To bound
/// the call itself, give the task a time-out (`task.timeout(limit)`), after which its worker is killed. Or await `&mut handle`,
/// and end the call by [`cancel_running`](Self::cancel_running) when that took too long.
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
#[must_use = "the call is made all the same, but its errors are lost"]
#[doc(alias("AsyncResult", "Future"))]
pub struct JoinHandle<R> {
    shared: Arc<Shared>,
    call: Arc<Call>,
    decode: Decode<R>,
}

impl<R> JoinHandle<R> {
    pub(super) fn new(shared: Arc<Shared>, call: Arc<Call>, decode: Decode<R>) -> Self {
        Self { shared, call, decode }
    }

    /// Waits for the result, as long as it takes.
    ///
    /// # Errors
    /// The arguments could not be encoded, the pool is closed, the task panicked, its worker died under it, or a value
    /// could not travel. A task that returns a `Result` gives two: `join()??`.
    #[doc(alias("get", "result"))]
    pub fn join(self) -> Result<R> {
        self.wait_until(None);
        self.result()
    }

    /// Waits until the call is settled, as long as it takes. The result stays for [`join`](Self::join).
    pub fn wait(&self) {
        self.wait_until(None);
    }

    /// As [`wait`](Self::wait), but for `timeout` at the most.
    ///
    /// # Errors
    /// [`Elapsed`]: the time is over. The call goes on.
    pub fn wait_timeout(&self, timeout: Duration) -> std::result::Result<(), Elapsed> {
        // A time beyond the clock's end is for ever.
        if self.wait_until(Instant::now().checked_add(timeout)) { Ok(()) } else { Err(Elapsed::with((), 1)) }
    }

    /// As [`join`](Self::join), but gives the handle back after `timeout`: `join_timeout(limit)??` is the result where that
    /// is not wanted.
    ///
    /// # Errors
    /// [`Elapsed`] with the handle inside: the time is over. The call goes on.
    pub fn join_timeout(self, timeout: Duration) -> std::result::Result<Result<R>, Elapsed<Self>> {
        match self.wait_timeout(timeout) {
            Ok(()) => Ok(self.result()),
            Err(_) => Err(Elapsed::with(self, 1)),
        }
    }

    /// Whether [`join`](Self::join) would return at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        if !self.call.is_settled() {
            self.shared.update(Scheduler::collect);
        }
        self.call.is_settled()
    }

    /// Whether a worker runs the call now, as far as is known: it has begun, and has not answered.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn nap(seconds: u64) { std::thread::sleep(std::time::Duration::from_secs(seconds)) }
    ///
    /// let pool = Pool::builder().workers(1).build()?;
    /// let (first, second) = (pool.submit(nap, 600), pool.submit(nap, 600));
    /// while !first.is_running() { std::thread::yield_now() }
    /// assert!(!second.is_running());
    /// pool.kill();
    /// # process_task::Result::Ok(())
    /// ```
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.is_finished() && self.shared.inspect(|scheduler| scheduler.is_running(&self.call))
    }

    /// Takes the call back if it has not begun, also if a worker has it already: then joining gives
    /// [`ErrorKind::Cancelled`] and [`Execution::NotStarted`]. Says whether the call is cancelled; false if it runs or is
    /// finished. A call with a [`Shared`](crate::Shared) among its arguments counts as running when a worker has it.
    ///
    /// # Examples
    /// ```
    /// use process_task::{ErrorKind, Pool, process_task};
    ///
    /// #[process_task]
    /// fn nap(seconds: u64) { std::thread::sleep(std::time::Duration::from_secs(seconds)) }
    ///
    /// let pool = Pool::builder().workers(1).build()?;
    /// let (first, second) = (pool.submit(nap, 600), pool.submit(nap, 600));
    /// while !first.is_running() { std::thread::yield_now() }
    /// assert!(!first.cancel() && second.cancel());
    /// assert_eq!(second.join().unwrap_err().kind(), &ErrorKind::Cancelled);
    /// pool.kill();
    /// # process_task::Result::Ok(())
    /// ```
    #[expect(clippy::must_use_candidate, reason = "a caller that cancels need not care whether it was in time")]
    pub fn cancel(&self) -> bool {
        self.cancel_call(false)
    }

    /// As [`cancel`](Self::cancel); but if the call runs, its worker is killed, and replaced: then joining gives
    /// [`ErrorKind::Cancelled`] and [`Execution::Unknown`], once the worker is dead. No other call is touched. Says whether
    /// the call is cancelled; false if it is finished.
    ///
    /// # Examples
    /// ```
    /// use process_task::{ErrorKind, Pool, process_task};
    ///
    /// #[process_task]
    /// fn nap(seconds: u64) { std::thread::sleep(std::time::Duration::from_secs(seconds)) }
    ///
    /// let pool = Pool::builder().workers(1).build()?;
    /// let long = pool.submit(nap, 600);
    /// while !long.is_running() { std::thread::yield_now() }
    /// assert!(long.cancel_running());
    /// assert_eq!(long.join().unwrap_err().kind(), &ErrorKind::Cancelled);
    /// assert_eq!(pool.call(nap, 0), Ok(()));
    /// # process_task::Result::Ok(())
    /// ```
    #[expect(clippy::must_use_candidate, reason = "a caller that cancels need not care whether it was in time")]
    pub fn cancel_running(&self) -> bool {
        self.cancel_call(true)
    }

    fn cancel_call(&self, running: bool) -> bool {
        self.shared.update(|scheduler| scheduler.cancel(&self.call, running))
    }

    /// Has `callback` called with the result, once. Several may be set, and are called in that order; the handle can still
    /// be joined.
    ///
    /// If the call is settled, the callback is called at once, on this thread. Otherwise it is called on a thread that the
    /// pool has for this, one after the other: it may block, submit calls to the same pool, wait for them, end the pool, or
    /// drop it. A callback that panics harms no other. Dropping the pool waits for all callbacks, unless it is a callback
    /// that drops it. If no thread can be had, this waits for the call, and calls back here.
    ///
    /// # Examples
    /// ```
    /// use std::sync::mpsc::channel;
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// let pool = Pool::new()?;
    /// let (sender, results) = channel();
    /// for x in 0..4 {
    ///     let sender = sender.clone();
    ///     pool.submit(square, x).on_done(move |result| sender.send(result).unwrap());
    /// }
    /// drop(sender);
    /// let sum: i64 = results.into_iter().sum::<process_task::Result<_>>()?;
    /// assert_eq!(sum, 14);
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # If the other process dies
    /// The callback gets the error that says so.
    #[doc(alias("add_done_callback", "callback"))]
    pub fn on_done(&self, callback: impl FnOnce(Result<R>) + Send + 'static)
    where
        R: 'static,
    {
        let (call, decode) = (Arc::clone(&self.call), self.decode);
        let callback: Callback = Box::new(move || callback(result_for_a_callback(&call, decode)));
        if self.is_finished() {
            return callbacks::run(callback);
        }
        let callbacks = &self.shared.callbacks;
        if !callbacks.open() {
            self.wait_until(None);
            return callbacks::run(callback);
        }
        if let Some(callback) = self.shared.update(|scheduler| scheduler.register_callback(&self.call, callback)) {
            callbacks.cancel();
            callbacks::run(callback);
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// The result of a call that is settled.
    pub(super) fn result(&self) -> Result<R> {
        result_of(&self.call, self.decode)
    }

    pub(super) fn wait_until(&self, deadline: Option<Instant>) -> bool {
        let done = || self.call.is_settled();
        done() || self.shared.wait(&done, &*self.call, deadline)
    }
}

type Decode<R> = fn(&[u8]) -> std::result::Result<R, CodecError>;

/// The result of a call that is settled.
fn result_of<R>(call: &Call, how: Decode<R>) -> Result<R> {
    let Some(outcome) = call.outcome() else {
        return Err(Error::invalid("the call is not settled yet").in_task(call.task));
    };
    decode(outcome, how).map_err(|error| error.in_task(call.task))
}

/// As [`result_of`]; but where joining would panic, because the value's own code does, this is an error, for a callback
/// is to be called in any case.
fn result_for_a_callback<R>(call: &Call, how: Decode<R>) -> Result<R> {
    catch_unwind(|| result_of(call, how)).unwrap_or_else(|payload| {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        let reason = "its `Deserialize` panicked".to_owned();
        let kind = ErrorKind::CannotDecode { direction: Direction::Result, reason };
        Err(Error::new(kind, Execution::Finished).in_task(call.task))
    })
}

impl<R> Future for JoinHandle<R> {
    type Output = Result<R>;

    /// See [`JoinHandle::join`].
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<R>> {
        if !self.call.is_settled() {
            // Dropped out here if it is not needed: its destructor is the program's code and must not run under the mutex.
            let mut waker = Some(context.waker().clone());
            self.shared.update(|scheduler| {
                scheduler.collect();
                if !self.call.is_settled()
                    && let Some(waker) = waker.take()
                {
                    scheduler.register_waker(&self.call, waker);
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
