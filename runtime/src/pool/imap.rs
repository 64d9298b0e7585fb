//! Results of many calls, in the order of their items, reading a bounded number of items ahead.
//!
//! Runs in: the parent, on the thread that asks for the next result. No more calls are on the way than items may be read
//! ahead, so an endless input works.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handle::{JoinHandle, submit};
use super::scheduler::Scheduler;
use super::shared::Shared;
use crate::error::{Elapsed, Error, Result};
use crate::task::Task;

/// The results of [`Pool::imap`](crate::Pool::imap), in the items' order.
///
/// Dropping it takes back the calls that have not begun. Those that run go on to their end, and their results are dropped.
///
/// # Examples
/// ```
/// use process_task::{Pool, process_task};
///
/// #[process_task]
/// fn length(line: &str) -> usize { line.len() }
///
/// let pool = Pool::new()?;
/// let mut lengths = pool.imap(length, "one\nthree".lines());
/// assert_eq!(lengths.next().unwrap()?, 3);
/// assert_eq!(lengths.next().unwrap()?, 5);
/// assert!(lengths.next().is_none());
/// # process_task::Result::Ok(())
/// ```
#[must_use = "nothing is submitted until a result is asked for"]
#[doc(alias = "IMapIterator")]
pub struct Imap<'p, 'a, T: Task, I> {
    ahead: Prefetch<'p, 'a, T, I>,
}

/// Items that were submitted, and those that were not.
struct Prefetch<'p, 'a, T: Task, I> {
    shared: &'p Arc<Shared>,
    task: T,
    items: std::iter::Fuse<I>,
    most: usize,
    pending: VecDeque<JoinHandle<T::Output>>,
    arguments: PhantomData<fn(&'a ())>,
}

impl<'p, 'a, T: Task, I: Iterator<Item = T::Args<'a>>> Prefetch<'p, 'a, T, I> {
    fn new(shared: &'p Arc<Shared>, task: T, items: I, most: usize) -> Self {
        Self { shared, task, items: items.fuse(), most, pending: VecDeque::new(), arguments: PhantomData }
    }

    /// Submits items until `most` are on the way.
    fn fill(&mut self) {
        while self.pending.len() < self.most {
            let Some(item) = self.items.next() else { return };
            self.pending.push_back(submit(self.shared, self.task, item));
        }
    }

    /// With a buffer of 0 items: takes the next item, and says that it cannot be submitted.
    fn refuse_next(&mut self) -> Option<Result<T::Output>> {
        if self.most > 0 {
            return None;
        }
        self.items.next().map(|_| Err(no_buffer(self.task)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.items.size_hint();
        let pending = self.pending.len();
        (least.saturating_add(pending), most.and_then(|most| most.checked_add(pending)))
    }
}

impl<T: Task, I> Drop for Prefetch<'_, '_, T, I> {
    /// What is still on the way is not wanted any more.
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.pending.iter().for_each(|handle| handle.call().abandon());
            self.shared.update(Scheduler::cancel_abandoned);
        }
    }
}

/// What became of an item for which there is no room in the buffer, and never will be.
#[cold]
pub(super) fn no_buffer(task: impl Task) -> Error {
    Error::invalid("`buffer` must be at least 1, not 0; leave it out for four items for each worker")
        .in_task(task.registration().name())
}

impl<'p, 'a, T: Task, I: Iterator<Item = T::Args<'a>>> Imap<'p, 'a, T, I> {
    pub(super) fn new(shared: &'p Arc<Shared>, task: T, items: I, most: usize) -> Self {
        Self { ahead: Prefetch::new(shared, task, items, most) }
    }

    /// Reads up to `items` items ahead: so many have been read and submitted while their results were not yielded, the one
    /// that is asked for among them. Unless told otherwise, four for each worker. With 1, no item is read before the
    /// result of the one before it was taken.
    ///
    /// With 0, which is none, nothing is submitted, and the result of each item is an
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) error.
    ///
    /// # Examples
    /// ```
    /// use std::cell::Cell;
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn square(x: u32) -> u32 { x * x }
    ///
    /// let pool = Pool::new()?;
    /// let read = Cell::new(0);
    /// let mut squares = pool.imap(square, (0..).inspect(|_| read.set(read.get() + 1))).buffer(3);
    /// assert_eq!(read.get(), 0);
    /// squares.next().unwrap()?;
    /// assert_eq!(read.get(), 3);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn buffer(mut self, items: usize) -> Self {
        self.ahead.most = items;
        self
    }

    /// As [`next`](Iterator::next), but waits for `timeout` at the most. Reading an item, and finding room for it in a
    /// pool with [`max_pending`](crate::PoolBuilder::max_pending), may take longer.
    ///
    /// # Errors
    /// The time was over. The calls go on, and their results come when they are asked for again.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn square(x: u32) -> u32 { x * x }
    ///
    /// let pool = Pool::new()?;
    /// let mut squares = pool.imap(square, [7]);
    /// assert_eq!(squares.next_timeout(Duration::from_secs(60)), Ok(Some(Ok(49))));
    /// assert_eq!(squares.next_timeout(Duration::from_secs(60)), Ok(None));
    /// # process_task::Result::Ok(())
    /// ```
    pub fn next_timeout(&mut self, timeout: Duration) -> std::result::Result<Option<Result<T::Output>>, Elapsed> {
        let deadline = Instant::now().checked_add(timeout);
        self.ahead.fill();
        match self.ahead.pending.front() {
            Some(first) if !first.wait_until(deadline) => Err(Elapsed::with((), self.ahead.pending.len())),
            Some(_) => Ok(self.ahead.pending.pop_front().map(|handle| handle.result())),
            None => Ok(self.ahead.refuse_next()),
        }
    }
}

impl<'a, T: Task, I: Iterator<Item = T::Args<'a>>> Iterator for Imap<'_, 'a, T, I> {
    type Item = Result<T::Output>;

    fn next(&mut self) -> Option<Self::Item> {
        self.ahead.fill();
        self.ahead.pending.pop_front().map(JoinHandle::join).or_else(|| self.ahead.refuse_next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ahead.size_hint()
    }
}

impl<'a, T: Task, I: ExactSizeIterator<Item = T::Args<'a>>> ExactSizeIterator for Imap<'_, 'a, T, I> {}
impl<'a, T: Task, I: Iterator<Item = T::Args<'a>>> FusedIterator for Imap<'_, 'a, T, I> {}

impl<T: Task, I> fmt::Debug for Imap<'_, '_, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("pending", &self.ahead.pending.len()).finish_non_exhaustive()
    }
}
