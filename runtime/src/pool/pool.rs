//! The pool as its users see it.
//!
//! Runs in: the parent. A pool does not end with calls unsettled.

use std::sync::Arc;

use super::builder::PoolBuilder;
use super::handle::{JoinHandle, submit, try_submit};
use super::imap::Imap;
use super::imap_unordered::ImapUnordered;
use super::map::map;
use super::metrics::{PoolStats, entered, has_spans, private_memory};
use super::pending_limit::TrySubmitError;
use super::scheduler::Scheduler;
use super::shared::Shared;
use crate::error::Result;
use crate::task::Task;

/// Processes that stay and run one call after the other.
///
/// `call` waits for one result; `submit` returns a handle; `map` waits for many results; `imap` and `imap_unordered`
/// yield them one by one. A task that panics or a worker that dies costs exactly the call that it was running; the
/// worker is replaced.
///
/// Dropping the pool closes it: it waits for every call that was submitted, then for the workers' end. Threads may share
/// a pool by reference.
///
/// # Examples
/// ```
/// use process_task::{Pool, process_task};
///
/// #[process_task]
/// fn square(x: i64) -> i64 { x * x }
///
/// let pool = Pool::new()?;
/// assert_eq!(pool.call(square, 3)?, 9);
/// assert_eq!(pool.map(square, 0..4)?, [0, 1, 4, 9]);
/// let later = pool.submit(square, 12);
/// assert_eq!(later.join()?, 144);
/// # process_task::Result::Ok(())
/// ```
///
/// # If the other process dies
/// The call that the worker was running fails with [`ErrorKind::Killed`](crate::ErrorKind::Killed) or [`ErrorKind::Exited`](crate::ErrorKind::Exited) and
/// [`Execution::Unknown`](crate::Execution::Unknown). Calls that it had not begun go to another worker, as if nothing had happened.
#[derive(Debug)]
#[doc(alias("ProcessPoolExecutor", "Executor"))]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// A pool with one worker for each processor that this process may use.
    ///
    /// # Errors
    /// A worker could not be started.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Options for a pool.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// How many workers the pool has.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shared.workers()
    }

    /// Runs `task` with `args` in a worker, and waits for its result. `args` is the argument itself for a task of one
    /// parameter, a tuple for several, `()` for none.
    ///
    /// # Errors
    /// As [`JoinHandle::join`].
    #[doc(alias = "apply")]
    pub fn call<T: Task>(&self, task: T, args: T::Args<'_>) -> Result<T::Output> {
        if has_spans() {
            let _span = entered(false, task.registration().name());
            return self.submit(task, args).join();
        }
        self.submit(task, args).join()
    }

    /// Hands a call to the pool, and returns at once. The arguments are encoded here and now. If the pool was built with
    /// [`max_pending`](PoolBuilder::max_pending), this waits until there is room.
    ///
    /// Errors of any kind, also that the arguments cannot be encoded or the pool is closed, are what
    /// [`JoinHandle::join`] reports.
    #[doc(alias = "apply_async")]
    pub fn submit<T: Task>(&self, task: T, args: T::Args<'_>) -> JoinHandle<T::Output> {
        submit(&self.shared, task, args)
    }

    /// As [`submit`](Self::submit), but gives the arguments back, not encoded, if there is no room for the call or the pool
    /// takes none. It never waits.
    ///
    /// # Errors
    /// The pool has as many calls as [`max_pending`](PoolBuilder::max_pending) allows, or it is closed. Everything else is
    /// what [`JoinHandle::join`] reports.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, TrySubmitError, process_task};
    ///
    /// #[process_task]
    /// fn nap(seconds: u64) { std::thread::sleep(std::time::Duration::from_secs(seconds)) }
    ///
    /// let pool = Pool::builder().workers(1).max_pending(1).build()?;
    /// let first = pool.try_submit(nap, 600).unwrap();
    /// assert!(matches!(pool.try_submit(nap, 601), Err(TrySubmitError::Full(601))));
    /// pool.kill();
    /// assert!(first.join().is_err());
    /// # process_task::Result::Ok(())
    /// ```
    pub fn try_submit<'a, T: Task>(
        &self,
        task: T,
        args: T::Args<'a>,
    ) -> std::result::Result<JoinHandle<T::Output>, TrySubmitError<T::Args<'a>>> {
        try_submit(&self.shared, task, args)
    }

    /// Runs `task` on every item, and waits for all results, which come in the items' order.
    ///
    /// Items are read as workers become free, so an endless input never ends, but does not fill memory either. For owned
    /// strings and vectors say `.iter().map(String::as_str)` or `.iter().map(Vec::as_slice)`: a task that takes a `&str`
    /// takes items of that type.
    ///
    /// Short calls travel many in a frame, as many as take about 50 us: so items should not wait for each other, nor the
    /// input for what an item does. If a worker dies, that costs the one item that it was running, as everywhere.
    /// [`on_progress`](Pool::on_progress) tells how far it has come.
    ///
    /// # Errors
    /// The first that an item's call gives, in the items' order. Calls that had not begun by then are cancelled.
    #[doc(alias("starmap", "map_async"))]
    pub fn map<'a, T, I>(&self, task: T, items: I) -> Result<Vec<T::Output>>
    where
        T: Task,
        I: IntoIterator<Item = T::Args<'a>>,
    {
        map(&self.shared, task, items.into_iter(), &mut |_, _| {})
    }

    /// As [`map`](Self::map), but yields each result as soon as it and those before it are there, and each error in its
    /// place. Lazy: it reads a few items ahead ([`buffer`](Imap::buffer) says how many) and waits when it is not asked for
    /// more.
    pub fn imap<'a, T, I>(&self, task: T, items: I) -> Imap<'_, 'a, T, I::IntoIter>
    where
        T: Task,
        I: IntoIterator<Item = T::Args<'a>>,
    {
        Imap::new(&self.shared, task, items.into_iter(), self.ahead())
    }

    /// As [`imap`](Self::imap), but yields results in the order in which they are finished.
    pub fn imap_unordered<'a, T, I>(&self, task: T, items: I) -> ImapUnordered<'_, 'a, T, I::IntoIter>
    where
        T: Task,
        I: IntoIterator<Item = T::Args<'a>>,
    {
        ImapUnordered::new(&self.shared, task, items.into_iter(), self.ahead())
    }

    /// What the pool has done so far, and what it is doing. Never waits, whatever the workers do.
    ///
    /// # Examples
    /// See [`PoolStats`].
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        if self.shared.is_foreign() {
            return PoolStats::default();
        }
        let (mut stats, records) = self.shared.update(Scheduler::stats);
        stats.shared_memory += self.shared.stock.bytes() as u64;
        for (worker, record) in stats.workers.iter_mut().zip(records) {
            // Files are read when no thread waits for the mutex.
            worker.memory = record.and_then(|record| private_memory(&record));
        }
        stats
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How far `imap` reads ahead: enough that no worker waits for the next item.
    fn ahead(&self) -> usize {
        4 * self.workers()
    }
}
