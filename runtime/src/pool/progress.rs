//! A map that says how far it has come.
//!
//! Runs in: the parent. The hook is called on the thread that maps.

use std::fmt;

use super::map::map;
use super::pool::Pool;
use crate::error::Result;
use crate::task::Task;

/// A [`Pool`] that calls a hook in its next [`map`](OnProgress::map); made by [`Pool::on_progress`].
#[must_use = "the hook is called by `map`"]
pub struct OnProgress<'p, F> {
    pool: &'p Pool,
    hook: F,
}

impl Pool {
    /// Calls `hook` from [`map`](OnProgress::map) as results come, in the calling thread: with the number of items that
    /// are done, and the number of all items if that is known. The last time, both are equal.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn square(x: u64) -> u64 { x * x }
    ///
    /// let pool = Pool::new()?;
    /// let mut last = None;
    /// let squares = pool.on_progress(|done, total| last = Some((done, total))).map(square, 0..1000)?;
    /// assert_eq!(squares.len(), 1000);
    /// assert_eq!(last, Some((1000, Some(1000))));
    /// # process_task::Result::Ok(())
    /// ```
    pub fn on_progress<F: FnMut(usize, Option<usize>)>(&self, hook: F) -> OnProgress<'_, F> {
        OnProgress { pool: self, hook }
    }
}

impl<F: FnMut(usize, Option<usize>)> OnProgress<'_, F> {
    /// As [`Pool::map`].
    ///
    /// # Errors
    /// As [`Pool::map`].
    ///
    /// # Panics
    /// When the hook does. Calls that had not begun by then are cancelled.
    pub fn map<'a, T, I>(mut self, task: T, items: I) -> Result<Vec<T::Output>>
    where
        T: Task,
        I: IntoIterator<Item = T::Args<'a>>,
    {
        map(self.pool.shared(), task, items.into_iter(), &mut self.hook)
    }
}

impl<F> fmt::Debug for OnProgress<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnProgress").field("pool", self.pool).finish_non_exhaustive()
    }
}
