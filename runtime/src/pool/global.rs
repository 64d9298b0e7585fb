//! The pool that a program has without making one.
//!
//! Runs in: the parent. [`GlobalPool`] lives as long as its process. A copy made by `fork()` makes its own.

use std::path::Path;
use std::sync::Mutex;

use super::handle::JoinHandle;
use super::imap::Imap;
use super::imap_unordered::ImapUnordered;
use super::metrics::{PoolStats, Timeline};
use super::pending_limit::TrySubmitError;
use super::pool::Pool;
use super::progress::OnProgress;
use crate::error::Result;
use crate::sys::atfork;
use crate::sys::mutex::MutexExt as _;
use crate::task::Task;

/// The pool that the whole program shares: see [`Pool::global`].
///
/// It does all that a [`Pool`] does, but end: it has no `close`, `kill`, `shutdown` or `wait_ended`.
///
/// ```compile_fail,E0599
/// process_task::Pool::global()?.close();
/// # process_task::Result::Ok(())
/// ```
///
/// # Examples
/// ```
/// use process_task::{GlobalPool, Pool, process_task};
///
/// #[process_task]
/// fn square(x: i64) -> i64 { x * x }
///
/// fn sum_of_squares(pool: &GlobalPool) -> process_task::Result<i64> {
///     Ok(pool.map(square, 0..4)?.into_iter().sum())
/// }
///
/// assert_eq!(sum_of_squares(Pool::global()?)?, 14);
/// # process_task::Result::Ok(())
/// ```
///
/// # If the other process dies
/// See [`Pool`].
#[derive(Debug)]
pub struct GlobalPool(Pool);

/// The generation of the process that made it, and the pool.
static GLOBAL: Mutex<Option<(u64, &'static GlobalPool)>> = Mutex::new(None);

impl Pool {
    /// The pool that the whole program shares: made when it is first asked for, with one worker for each processor that
    /// this process may use, and there until the process ends. In a worker it is a pool of that worker's own.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// assert_eq!(Pool::global()?.map(square, 0..4)?, [0, 1, 4, 9]);
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// A worker could not be started. The next call tries again.
    pub fn global() -> Result<&'static GlobalPool> {
        let mut global = GLOBAL.lock_unpoisoned();
        if let Some((generation, pool)) = *global
            && generation == atfork::generation()
        {
            return Ok(pool);
        }
        let pool: &'static GlobalPool = Box::leak(Box::new(GlobalPool(Self::new()?)));
        *global = Some((atfork::generation(), pool));
        Ok(pool)
    }
}

impl GlobalPool {
    /// As [`Pool::call`].
    ///
    /// # Errors
    /// As [`Pool::call`].
    pub fn call<T: Task>(&self, task: T, args: T::Args<'_>) -> Result<T::Output> {
        self.0.call(task, args)
    }

    /// As [`Pool::submit`].
    pub fn submit<T: Task>(&self, task: T, args: T::Args<'_>) -> JoinHandle<T::Output> {
        self.0.submit(task, args)
    }

    /// As [`Pool::try_submit`].
    ///
    /// # Errors
    /// As [`Pool::try_submit`].
    pub fn try_submit<'a, T: Task>(
        &self,
        task: T,
        args: T::Args<'a>,
    ) -> std::result::Result<JoinHandle<T::Output>, TrySubmitError<T::Args<'a>>> {
        self.0.try_submit(task, args)
    }

    /// As [`Pool::map`].
    ///
    /// # Errors
    /// As [`Pool::map`].
    pub fn map<'a, T, I>(&self, task: T, items: I) -> Result<Vec<T::Output>>
    where
        T: Task,
        I: IntoIterator<Item = T::Args<'a>>,
    {
        self.0.map(task, items)
    }

    /// As [`Pool::imap`].
    pub fn imap<'a, T, I>(&self, task: T, items: I) -> Imap<'_, 'a, T, I::IntoIter>
    where
        T: Task,
        I: IntoIterator<Item = T::Args<'a>>,
    {
        self.0.imap(task, items)
    }

    /// As [`Pool::imap_unordered`].
    pub fn imap_unordered<'a, T, I>(&self, task: T, items: I) -> ImapUnordered<'_, 'a, T, I::IntoIter>
    where
        T: Task,
        I: IntoIterator<Item = T::Args<'a>>,
    {
        self.0.imap_unordered(task, items)
    }

    /// As [`Pool::on_progress`].
    pub fn on_progress<F: FnMut(usize, Option<usize>)>(&self, hook: F) -> OnProgress<'_, F> {
        self.0.on_progress(hook)
    }

    /// As [`Pool::workers`].
    #[must_use]
    pub fn workers(&self) -> usize {
        self.0.workers()
    }

    /// As [`Pool::resize`].
    ///
    /// # Errors
    /// As [`Pool::resize`].
    pub fn resize(&self, workers: usize) -> Result<()> {
        self.0.resize(workers)
    }

    /// As [`Pool::stats`].
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.0.stats()
    }

    /// As [`Pool::timeline`].
    ///
    /// # Errors
    /// As [`Pool::timeline`].
    pub fn timeline(&self, path: impl AsRef<Path>) -> Result<Timeline> {
        self.0.timeline(path)
    }
}
