//! [`Pool`]: a pool in a manager, which many processes share.
//!
//! Runs in: clients, which encode arguments and decode results.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::raw_pool::{RawPoolProxy, SentOptions, SentResult};
use crate::codec::CodecError;
use crate::codec::handles;
use crate::error::{Error, Result};
use crate::manager::managed::stored::Stored;
use crate::manager::managed::typed::managed_type;
use crate::manager::proxy::encode;
use crate::manager::wire::AlignedBytes;
use crate::manager::{CallHandle, ManagerHandle};
use crate::pool::PoolStats;
use crate::task::{Options, Task};

/// The most items that go to the manager with one request of a map, and the most requests in flight.
const MAP_ITEMS: usize = 64;
const MAP_REQUESTS: usize = 8;

/// A request of a map with so many bytes gets no further items.
const MAP_BYTES: usize = 1 << 20;

managed_type! {
    /// A pool in a manager: Python's `Manager().Pool()`. Any process may have its workers run tasks, and all share them.
    ///
    /// Arguments and results pass through the manager, which does not look at them. Where one process alone makes calls, a
    /// [`Pool`](crate::Pool) of its own is faster.
    ///
    /// When the last proxy is dropped, the calls that are on their way are made, and the workers end.
    ///
    /// # If the other process dies
    /// A worker that dies costs the call that it was running, which fails with
    /// [`ErrorKind::Killed`](crate::ErrorKind::Killed) or [`ErrorKind::Exited`](crate::ErrorKind::Exited); it is replaced. A
    /// client that dies abandons its calls: those that no worker has begun are not made. If the manager dies, so do the workers,
    /// and each call fails with [`ErrorKind::ManagerGone`](crate::ErrorKind::ManagerGone).
    ///
    /// # Examples
    /// ```
    /// use process_task::managed::Pool;
    /// use process_task::{Manager, process_task};
    ///
    /// #[process_task]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// #[process_task]
    /// fn sum_of_squares(pool: Pool, most: i64) -> i64 { pool.map(square, 0..most).unwrap().iter().sum() }
    ///
    /// let manager = Manager::start()?;
    /// let pool = Pool::new(&manager, 2)?;
    /// assert_eq!(pool.call(square, 3)?, 9);
    /// let (one, other) = (sum_of_squares.spawn(pool.clone(), 4), sum_of_squares.spawn(pool.clone(), 5));
    /// assert_eq!((one.join()?, other.join()?), (14, 30));
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("PoolProxy", "SyncManager.Pool"))]
    Pool<>, RawPoolProxy
}

impl Pool {
    /// Makes a pool with so many workers in `manager`.
    ///
    /// # Errors
    /// `workers` is 0, a worker could not be started, or the manager is gone.
    pub fn new(manager: &impl AsRef<ManagerHandle>, workers: usize) -> Result<Self> {
        let made = RawPoolProxy::new(manager, workers)?;
        made.map(Self::of).map_err(|refused| refused.into_error(None))
    }

    /// Number of workers.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn workers(&self) -> Result<usize> {
        self.raw.workers()
    }

    /// Has a worker run `task`, and waits for the result; with [`with_timeout`](Self::with_timeout), for so long at most, and
    /// then the call is not made if no worker has begun it.
    ///
    /// # Errors
    /// The task panicked, its worker died, a value could not travel, the pool is closed, the manager is gone, or the time is
    /// over. The task's own options act.
    #[doc(alias("apply"))]
    pub fn call<T: Task>(&self, task: T, args: T::Args<'_>) -> Result<T::Output> {
        self.submit(task, args).join()
    }

    /// Has a worker run `task`, and does not wait for the result.
    #[doc(alias("apply_async"))]
    pub fn submit<T: Task>(&self, task: T, args: T::Args<'_>) -> PoolCall<T::Output> {
        let started = encoded::<T>(args).and_then(|arguments| self.run(task, &[arguments]));
        PoolCall { started, task: task.registration().name(), decode: T::decode_output }
    }

    /// Has workers run `task` for each of these items, and waits for all results, in the items' order. Items are read as calls
    /// are settled.
    ///
    /// # Errors
    /// The first error in the items' order. Calls of later items that no worker has begun are not made.
    #[doc(alias("starmap"))]
    pub fn map<'a, T, I>(&self, task: T, items: I) -> Result<Vec<T::Output>>
    where
        T: Task,
        I: IntoIterator<Item = T::Args<'a>>,
    {
        let mut pending = VecDeque::new();
        let outcome = self.map_with(task, items.into_iter(), &mut pending);
        for call in pending {
            call.abandon();
        }
        outcome
    }

    fn map_with<'a, T: Task>(
        &self,
        task: T,
        items: impl Iterator<Item = T::Args<'a>>,
        pending: &mut VecDeque<CallHandle<Vec<SentResult>>>,
    ) -> Result<Vec<T::Output>> {
        let name = task.registration().name();
        let (mut items, mut refused, mut results) = (items.fuse(), None, Vec::new());
        loop {
            while pending.len() < MAP_REQUESTS && refused.is_none() {
                let (mut request, mut bytes) = (Vec::new(), 0);
                while request.len() < MAP_ITEMS && bytes < MAP_BYTES {
                    match items.next().map(encoded::<T>) {
                        None => break,
                        Some(Ok(item)) => {
                            bytes += item.bytes().len();
                            request.push(item);
                        }
                        Some(Err(error)) => {
                            refused = Some(error.in_task(name));
                            break;
                        }
                    }
                }
                if request.is_empty() {
                    break;
                }
                pending.push_back(self.run(task, &request)?);
            }
            let Some(first) = pending.pop_front() else { return refused.map_or(Ok(results), Err) };
            for result in first.join()? {
                results.push(decoded(result, T::decode_output).map_err(|error| error.in_task(name))?);
            }
        }
    }

    fn run<T: Task>(&self, task: T, arguments: &[Stored]) -> Result<CallHandle<Vec<SentResult>>> {
        let registration = task.registration();
        let Options { timeout, retries, memory_limit } = task.options();
        let options: SentOptions = (timeout, retries, memory_limit);
        let index = registration.task_index().ok_or_else(Error::unknown_task)?;
        Ok(self.raw.later().run(index, options, arguments).named(registration.name()))
    }

    /// What the workers have done and do.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn stats(&self) -> Result<PoolStats> {
        Ok(self.raw.stats()?.into_stats())
    }

    /// Takes no more calls, from whichever process. Those that were submitted are made.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn close(&self) -> Result<()> {
        self.raw.close()
    }

    /// Kills the workers, and takes no more calls. All that are on their way fail.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias("terminate"))]
    pub fn kill(&self) -> Result<()> {
        self.raw.kill()
    }
}

fn encoded<T: Task>(args: T::Args<'_>) -> Result<Stored> {
    let (bytes, handles) = encode::<T>(args)?;
    Ok(Stored::new(&bytes, handles))
}

type ResultDecoder<R> = fn(&[u8]) -> std::result::Result<R, CodecError>;

/// The result of one call.
fn decoded<R>(result: SentResult, decode: ResultDecoder<R>) -> Result<R> {
    let stored = result.map_err(|error| error.into_error(None))?;
    let received = stored.received().map_err(|errno| Error::cannot_decode_result(errno.desc()))?;
    let bytes = AlignedBytes::copied(stored.bytes());
    handles::provide(&received, || decode(bytes.as_slice()))
        .map_err(|error| Error::cannot_decode_result(error.to_string()))
}

/// A call in a [`Pool`] of a manager. Dropping it detaches the call, which is made all the same.
///
/// It is a future of the result, for use in any executor.
///
/// # If the other process dies
/// See [`Pool`].
#[must_use = "the call is made all the same, but nothing hears of its errors"]
#[doc(alias("AsyncResult", "Future"))]
pub struct PoolCall<R> {
    started: Result<CallHandle<Vec<SentResult>>>,
    task: &'static str,
    decode: ResultDecoder<R>,
}

impl<R> PoolCall<R> {
    /// Waits for the result, as long as it takes, or until the proxy's time is over.
    ///
    /// # Errors
    /// As [`Pool::call`].
    #[doc(alias("get", "result"))]
    pub fn join(self) -> Result<R> {
        let Self { started, task, decode } = self;
        Self::result(started.and_then(CallHandle::join), (task, decode))
    }

    /// As [`join`](Self::join), but gives the handle back after `timeout`.
    ///
    /// # Errors
    /// The handle, if the time is over.
    pub fn join_timeout(self, timeout: Duration) -> std::result::Result<Result<R>, Self> {
        if self.wait_timeout(timeout) { Ok(self.join()) } else { Err(self) }
    }

    /// Waits until the result is there, for `timeout` at the most. Returns whether it is.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.started.as_ref().map_or(true, |call| call.wait_timeout(timeout))
    }

    /// Whether [`join`](Self::join) would return at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.wait_timeout(Duration::ZERO)
    }

    /// Gives the call up. It is not made if no worker has begun it.
    pub fn cancel(self) {
        if let Ok(call) = self.started {
            call.abandon();
        }
    }

    fn result(outcome: Result<Vec<SentResult>>, (task, decode): (&'static str, ResultDecoder<R>)) -> Result<R> {
        let first = |results: Vec<SentResult>| results.into_iter().next();
        let result = outcome.and_then(|results| {
            first(results)
                .map_or_else(|| Err(Error::invalid("the manager has sent no result")), |one| decoded(one, decode))
        });
        result.map_err(|error| error.in_task(task))
    }
}

impl<R> Future for PoolCall<R> {
    type Output = Result<R>;

    /// See [`PoolCall::join`].
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<R>> {
        let outcome = match &mut self.started {
            Ok(call) => match Pin::new(call).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(outcome) => outcome,
            },
            Err(error) => Err(error.clone()),
        };
        Poll::Ready(Self::result(outcome, (self.task, self.decode)))
    }
}

impl<R> fmt::Debug for PoolCall<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolCall").field("task", &self.task).field("call", &self.started).finish_non_exhaustive()
    }
}
