//! Results of many calls as they come, reading a bounded number of items ahead.
//!
//! Runs in: the parent, on the thread that asks for the next result. No more calls are on the way than items may be read
//! ahead, and none of them is searched for one that is settled.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::completion_queue::CompletionQueue;
use super::handle::{JoinHandle, submit};
use super::imap::no_buffer;
use super::scheduler::Scheduler;
use super::shared::Shared;
use crate::error::{Elapsed, Result};
use crate::task::Task;

/// The results of [`Pool::imap_unordered`](crate::Pool::imap_unordered), as they come.
///
/// Dropping it takes back the calls that have not begun. Those that run go on to their end, and their results are dropped.
///
/// # Examples
/// ```
/// use process_task::{Pool, process_task};
///
/// #[process_task]
/// fn square(x: u32) -> u32 { x * x }
///
/// let pool = Pool::new()?;
/// let sum: u32 = pool.imap_unordered(square, 0..10).map(Result::unwrap).sum();
/// assert_eq!(sum, 285);
/// # process_task::Result::Ok(())
/// ```
#[must_use = "nothing is submitted until a result is asked for"]
#[doc(alias = "IMapUnorderedIterator")]
pub struct ImapUnordered<'p, 'a, T: Task, I> {
    shared: &'p Arc<Shared>,
    task: T,
    items: std::iter::Fuse<I>,
    most: usize,
    /// The calls on the way, each in a slot of its own, by whose number the set knows it.
    slots: Vec<Option<JoinHandle<T::Output>>>,
    free: Vec<usize>,
    settled: Arc<CompletionQueue>,
    arguments: PhantomData<fn(&'a ())>,
}

impl<'p, 'a, T: Task, I: Iterator<Item = T::Args<'a>>> ImapUnordered<'p, 'a, T, I> {
    pub(super) fn new(shared: &'p Arc<Shared>, task: T, items: I, most: usize) -> Self {
        Self {
            shared,
            task,
            items: items.fuse(),
            most,
            slots: Vec::new(),
            free: Vec::new(),
            settled: CompletionQueue::new(),
            arguments: PhantomData,
        }
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
    /// let mut squares = pool.imap_unordered(square, (0..).inspect(|_| read.set(read.get() + 1))).buffer(3);
    /// assert_eq!(read.get(), 0);
    /// squares.next().unwrap()?;
    /// assert_eq!(read.get(), 3);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn buffer(mut self, items: usize) -> Self {
        self.most = items;
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
    /// let mut squares = pool.imap_unordered(square, [7]);
    /// assert_eq!(squares.next_timeout(Duration::from_secs(60)), Ok(Some(Ok(49))));
    /// assert_eq!(squares.next_timeout(Duration::from_secs(60)), Ok(None));
    /// # process_task::Result::Ok(())
    /// ```
    pub fn next_timeout(&mut self, timeout: Duration) -> std::result::Result<Option<Result<T::Output>>, Elapsed> {
        self.next_until(Instant::now().checked_add(timeout))
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> std::result::Result<Option<Result<T::Output>>, Elapsed> {
        self.fill();
        if self.pending() == 0 {
            let refused = if self.most == 0 { self.items.next() } else { None };
            return Ok(refused.map(|_| Err(no_buffer(self.task))));
        }
        let there = || self.settled.is_enough();
        if !there() {
            self.shared.wait(&there, &*self.settled, deadline);
        }
        let first = self.settled.pop().ok_or_else(|| Elapsed::with((), self.pending()))?;
        self.free.push(first);
        Ok(self.slots[first].take().map(|handle| handle.result()))
    }

    /// Submits items until `most` are on the way.
    fn fill(&mut self) {
        while self.pending() < self.most {
            let Some(item) = self.items.next() else { return };
            let handle = submit(self.shared, self.task, item);
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            handle.call().subscribe(&self.settled, slot);
            self.slots[slot] = Some(handle);
        }
    }
}

impl<T: Task, I> ImapUnordered<'_, '_, T, I> {
    fn pending(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl<'a, T: Task, I: Iterator<Item = T::Args<'a>>> Iterator for ImapUnordered<'_, 'a, T, I> {
    type Item = Result<T::Output>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_until(None).ok().flatten()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.items.size_hint();
        let pending = self.pending();
        (least.saturating_add(pending), most.and_then(|most| most.checked_add(pending)))
    }
}

impl<'a, T: Task, I: ExactSizeIterator<Item = T::Args<'a>>> ExactSizeIterator for ImapUnordered<'_, 'a, T, I> {}
impl<'a, T: Task, I: Iterator<Item = T::Args<'a>>> FusedIterator for ImapUnordered<'_, 'a, T, I> {}

impl<T: Task, I> Drop for ImapUnordered<'_, '_, T, I> {
    /// What is still on the way is not wanted any more.
    fn drop(&mut self) {
        if self.pending() > 0 {
            self.slots.iter().flatten().for_each(|handle| handle.call().abandon());
            self.shared.update(Scheduler::cancel_abandoned);
        }
    }
}

impl<T: Task, I> fmt::Debug for ImapUnordered<'_, '_, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered").field("pending", &self.pending()).finish_non_exhaustive()
    }
}
