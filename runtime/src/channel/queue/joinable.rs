//! [`JoinableQueue`], and the items that it lends.
//!
//! Owns: what users see of them. Runs in: any process that has one. Never: counts an item as done before its holder said
//! so.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::core::QueueCore;
use super::limits::QueueLimits;
use super::methods::{closes, handle, puts};
use crate::channel::error::{RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError};
use crate::codec::Message;
use crate::error::{Elapsed, Result};
use crate::sync::deadline::Deadline;
use crate::sync::futex_wait;

/// A queue that knows which of its items are done, and that one can wait for.
///
/// What [`recv`](Self::recv) returns is lent: an [`Item`] counts as done once it is dropped after [`done`](Item::done). If
/// it is dropped without, or its process panics or is killed, it comes back, and the next `recv` has it. So every item is
/// worked on *at least* once: if a process is killed between its work and `done`, the item is worked on again.
///
/// Its limits, [`len`](Self::len) and [`is_empty`](Self::is_empty) are about items that were not lent yet; what came back
/// is counted, with what is lent, by [`unfinished`](Self::unfinished) only.
///
/// Memory of an item is kept until all near it are done. Handles cannot go through it. It is no iterator, since what is gone
/// through without a `done` would come back for ever: say `while let Ok(mut item) = queue.recv()`, and [`close`](Self::close)
/// it in the end, which is what the workers hear of.
///
/// # Examples
/// ```
/// use process_task::channel::JoinableQueue;
/// use process_task::process_task;
///
/// #[process_task]
/// fn work(jobs: JoinableQueue<u32>) -> u32 {
///     let mut sum = 0;
///     while let Ok(mut job) = jobs.recv() {
///         sum += *job;
///         job.done();
///     }
///     sum
/// }
///
/// let jobs = JoinableQueue::unbounded()?;
/// let workers = [0; 2].map(|_| work.spawn(jobs.clone()));
/// for job in 1..=10 {
///     jobs.send(job)?;
/// }
/// jobs.wait_all_done();
/// jobs.close();
/// let sums = workers.into_iter().map(|worker| worker.join());
/// assert_eq!(sums.sum::<process_task::Result<u32>>()?, 55);
/// # process_task::Result::Ok(())
/// ```
///
/// # If the other process dies
/// Its items come back within a tenth of a second, and first. What it was putting is as if it had never been put.
pub struct JoinableQueue<T> {
    core: QueueCore,
    items: PhantomData<fn(T) -> T>,
}

impl<T: Message> JoinableQueue<T> {
    /// A queue for so many items at a time, without those that are lent.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for it; or `items` is 0.
    pub fn bounded(items: usize) -> Result<Self> {
        Self::within(QueueLimits::of_items(items))
    }

    /// Creates a queue that holds as many items, and as many bytes, as `limits` says; [`send`](Self::send) waits while
    /// there is no room.
    ///
    /// # Errors
    /// As [`bounded`](Self::bounded); a limit is 0.
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::{JoinableQueue, QueueLimits};
    ///
    /// let queue = JoinableQueue::with_limits(QueueLimits { items: 1000, bytes: 1 << 20 })?;
    /// queue.send(vec![0u8; 1 << 19])?;
    /// assert!(queue.try_send(vec![0u8; 1 << 19]).is_err());
    /// # process_task::Result::Ok(())
    /// ```
    pub fn with_limits(limits: QueueLimits) -> Result<Self> {
        Self::within(limits)
    }

    /// A queue for as many items as there is memory for, up to 64 GiB.
    ///
    /// # Errors
    /// As [`bounded`](Self::bounded).
    pub fn unbounded() -> Result<Self> {
        Self::within(QueueLimits::NONE)
    }

    fn within(limits: QueueLimits) -> Result<Self> {
        Ok(Self { core: QueueCore::new::<JoinableQueue<T>>(limits, true)?, items: PhantomData })
    }

    /// Borrows the first item, waiting for one as long as it takes.
    ///
    /// # Errors
    /// - [`Disconnected`](RecvError::Disconnected): the queue is closed, and nothing is left, nor lent to another process.
    /// - [`Failed`](RecvError::Failed): the item cannot be decoded, and then counts as done; or the kernel refuses what is
    ///   needed, or the queue's memory was written over.
    ///
    /// # If the other process dies
    /// What it had is got within a tenth of a second.
    #[doc(alias = "get")]
    pub fn recv(&self) -> std::result::Result<Item<'_, T>, RecvError> {
        self.lend(Deadline::Never).map_err(TryRecvError::without_limit)
    }

    /// Borrows the first item, if there is one.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Empty`](TryRecvError::Empty).
    ///
    /// # If the other process dies
    /// As with [`recv`](Self::recv).
    #[doc(alias = "get_nowait")]
    pub fn try_recv(&self) -> std::result::Result<Item<'_, T>, TryRecvError> {
        self.lend(Deadline::Now)
    }

    /// Borrows the first item, waiting for one for `timeout` at most.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Timeout`](RecvTimeoutError::Timeout).
    ///
    /// # If the other process dies
    /// As with [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> std::result::Result<Item<'_, T>, RecvTimeoutError> {
        self.lend(Deadline::after(timeout)).map_err(TryRecvError::in_time)
    }

    fn lend(&self, deadline: Deadline) -> std::result::Result<Item<'_, T>, TryRecvError> {
        let (value, at) = self.core.get(deadline)?;
        Ok(Item { core: &self.core, value, at, is_done: false })
    }
}

impl<T> JoinableQueue<T> {
    /// Says that an item is done: `item.done()`, and dropping it.
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::JoinableQueue;
    ///
    /// let queue = JoinableQueue::unbounded()?;
    /// queue.send(1)?;
    /// let item = queue.recv()?;
    /// assert_eq!(queue.unfinished(), 1);
    /// queue.task_done(item);
    /// assert_eq!(queue.unfinished(), 0);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn task_done(&self, mut item: Item<'_, T>) {
        item.done();
    }

    /// Waits until every item that was sent is done, as long as it takes.
    ///
    /// # If the other process dies
    /// Its items come back and are not done; another consumer has to get them for this to return.
    #[doc(alias = "join")]
    pub fn wait_all_done(&self) {
        while !self.core.join(None) {}
    }

    /// As [`wait_all_done`](Self::wait_all_done), for `timeout` at the most.
    ///
    /// # Errors
    /// [`Elapsed`]: some are not done in time.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use process_task::channel::JoinableQueue;
    ///
    /// let queue = JoinableQueue::unbounded()?;
    /// queue.send(1)?;
    /// assert!(queue.wait_all_done_timeout(Duration::from_millis(1)).is_err());
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # If the other process dies
    /// As with [`wait_all_done`](Self::wait_all_done).
    pub fn wait_all_done_timeout(&self, timeout: Duration) -> std::result::Result<(), Elapsed> {
        match futex_wait::deadline_after(timeout) {
            None => {
                self.wait_all_done();
                Ok(())
            }
            deadline if self.core.join(deadline) => Ok(()),
            _ => Err(Elapsed::new()),
        }
    }

    /// How many items were put and are not done: those that wait, and those that are lent.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.core.unfinished()
    }
}

puts!(JoinableQueue);
closes!(JoinableQueue);
handle!(JoinableQueue of JoinableQueue, (true, true), lends: true);

/// An item that a [`JoinableQueue`] lends.
///
/// # Examples
/// ```
/// use process_task::channel::JoinableQueue;
///
/// let queue = JoinableQueue::unbounded()?;
/// queue.send("job".to_owned())?;
/// drop(queue.recv()?);                                 // not done: it comes back
/// let mut item = queue.recv()?;
/// assert_eq!(item.len(), 3);
/// item.done();
/// drop(item);
/// assert_eq!(queue.unfinished(), 0);
/// # process_task::Result::Ok(())
/// ```
#[must_use = "an item that is dropped at once goes back to its queue"]
pub struct Item<'q, T> {
    core: &'q QueueCore,
    value: T,
    at: (u32, u32),
    is_done: bool,
}

impl<T> Item<'_, T> {
    /// Has it count as done when it is dropped.
    ///
    /// # If the other process dies
    /// If this process is killed before the item is dropped, it comes back all the same.
    #[doc(alias = "task_done")]
    pub fn done(&mut self) {
        self.is_done = true;
    }
}

impl<T> Deref for Item<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Item<'_, T> {
    /// Changes are this process's: an item that comes back is as it was put.
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Item<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("value", &self.value).field("is_done", &self.is_done).finish()
    }
}

impl<T> Drop for Item<'_, T> {
    fn drop(&mut self) {
        if self.is_done {
            self.core.done(self.at);
        } else {
            self.core.give_up(self.at);
        }
    }
}
