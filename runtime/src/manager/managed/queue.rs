//! [`Queue`] and [`JoinableQueue`]: items that pass through a manager.
//!
//! Runs in: clients.

use std::fmt;
use std::ops::Deref;

use super::raw_queue::{GetAnswer, PutAnswer, RawQueueProxy};
use super::stored::Stored;
use super::typed::{managed_type, release};
use crate::channel::Message;
use crate::error::{Error, ErrorKind, Execution, Result};
use crate::manager::handle::ManagerHandle;

managed_type! {
    /// A queue in a manager: Python's `Manager().Queue()`. Any process may put items in and take them out.
    ///
    /// Where all processes run on one machine, a [`channel::Queue`](crate::channel::Queue) is a queue without a manager, at
    /// the speed of memory.
    ///
    /// # If the other process dies
    /// An item that it waited for comes back, to the front. One that it has got is lost with it: a [`JoinableQueue`] lends its
    /// items, and they come back. Calls that wait cost no thread of the manager.
    ///
    /// # Examples
    /// ```
    /// use process_task::managed::Queue;
    /// use process_task::{Manager, process_task};
    ///
    /// #[process_task]
    /// fn squares(numbers: Queue<u64>, results: Queue<u64>) {
    ///     while let Ok(number) = numbers.recv() {
    ///         results.send(number * number).unwrap();
    ///     }
    /// }
    ///
    /// let manager = Manager::start()?;
    /// let (numbers, results) = (Queue::bounded(&manager, 10)?, Queue::unbounded(&manager)?);
    /// let process = squares.spawn(numbers.clone(), results.clone());
    /// numbers.send(3)?;
    /// numbers.close()?;
    /// assert_eq!(results.recv()?, 9);
    /// process.join()?;
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("SyncManager.Queue", "BaseProxy"))]
    Queue<T>, RawQueueProxy
}

managed_type! {
    /// A queue in a manager that knows which of its items are done: Python's `Manager().JoinableQueue()`.
    ///
    /// What [`recv`](Self::recv) returns is lent. It is done when [`LentItem::done`] says so. If it is dropped without, or
    /// its process ends, it comes back, to the front. So every item is worked on at least once.
    ///
    /// # If the other process dies
    /// Its items come back at once. Calls that wait cost no thread of the manager.
    ///
    /// # Examples
    /// ```
    /// use process_task::Manager;
    /// use process_task::managed::JoinableQueue;
    ///
    /// let manager = Manager::start()?;
    /// let jobs = JoinableQueue::unbounded(&manager)?;
    /// jobs.send(7)?;
    /// drop(jobs.recv()?);                                  // not done: it comes back
    /// let job = jobs.recv()?;
    /// assert_eq!((*job, jobs.unfinished()?), (7, 1));
    /// job.done()?;
    /// jobs.join()?;
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("SyncManager.JoinableQueue"))]
    JoinableQueue<T>, RawQueueProxy
}

/// What a queue that is closed says.
#[cold]
fn closed(manager: &ManagerHandle) -> Error {
    Error::new(ErrorKind::Disconnected, Execution::NotStarted).in_process(manager.name(), manager.pid())
}

macro_rules! queue_methods {
    ($Queue:ident) => {
        impl<T: Message> $Queue<T> {
            /// Makes a queue in `manager` that holds any number of items.
            ///
            /// # Errors
            /// The manager is gone.
            pub fn unbounded(manager: &impl AsRef<ManagerHandle>) -> Result<Self> {
                RawQueueProxy::new(manager, usize::MAX).map(Self::of)
            }

            /// Makes a queue in `manager` that holds at most so many items that nothing has got.
            ///
            /// # Errors
            /// `items` is 0, or the manager is gone.
            pub fn bounded(manager: &impl AsRef<ManagerHandle>, items: usize) -> Result<Self> {
                if items == 0 {
                    return Err(Error::invalid("items must be at least 1; use `unbounded()` for no limit"));
                }
                RawQueueProxy::new(manager, items).map(Self::of)
            }

            /// Puts an item in, waiting for room as long as it takes; with [`with_timeout`](Self::with_timeout), for so long at
            /// most.
            ///
            /// # Errors
            /// The queue is [closed](ErrorKind::Disconnected), the item cannot travel, the manager is gone, or the time is over,
            /// and then the item may come in later.
            #[doc(alias = "put")]
            pub fn send(&self, item: T) -> Result<()> {
                let item = Stored::of(item)?;
                let mut answer = self.raw.try_put(item.clone())?;
                while answer == PutAnswer::Busy {
                    answer = self.raw.later().put(item.clone()).join()?;
                }
                if answer == PutAnswer::Closed { Err(closed(&self.manager())) } else { Ok(()) }
            }

            /// Puts an item in, if there is room. If not, it is returned.
            ///
            /// # Errors
            /// As [`send`](Self::send).
            #[doc(alias = "put_nowait")]
            pub fn try_send(&self, item: T) -> Result<std::result::Result<(), T>> {
                let item = Stored::of(item)?;
                match self.raw.try_put(item.clone())? {
                    PutAnswer::Done => Ok(Ok(())),
                    PutAnswer::Busy => item.value().map(Err),
                    PutAnswer::Closed => Err(closed(&self.manager())),
                }
            }

            /// Number of items that nothing has got.
            ///
            /// # Errors
            /// The manager is gone.
            #[doc(alias = "qsize")]
            pub fn len(&self) -> Result<usize> {
                self.raw.len()
            }

            /// Whether there are no such items.
            ///
            /// # Errors
            /// The manager is gone.
            #[doc(alias = "empty")]
            pub fn is_empty(&self) -> Result<bool> {
                Ok(self.len()? == 0)
            }

            /// Takes no more items. What is in it can still be got; after that, getting fails.
            ///
            /// # Errors
            /// The manager is gone.
            #[doc(alias = "shutdown")]
            pub fn close(&self) -> Result<()> {
                self.raw.close()
            }

            /// Whether it is closed.
            ///
            /// # Errors
            /// The manager is gone.
            pub fn is_closed(&self) -> Result<bool> {
                self.raw.is_closed()
            }
        }
    };
}
queue_methods!(Queue);
queue_methods!(JoinableQueue);

/// Waits for an item. Where the call may be given up, it goes the way on which that is heard of.
fn get(raw: &RawQueueProxy) -> Result<GetAnswer> {
    loop {
        match raw.later().get().join()? {
            GetAnswer::Empty => {}
            answer => return Ok(answer),
        }
    }
}

impl<T: Message> Queue<T> {
    /// Takes the first item out, waiting for one as long as it takes; with [`with_timeout`](Self::with_timeout), for so long at
    /// most.
    ///
    /// # Errors
    /// The queue is [closed](ErrorKind::Disconnected) and nothing is left, the item cannot be read as a `T`, the manager is
    /// gone, or the time is over.
    #[doc(alias = "get")]
    pub fn recv(&self) -> Result<T> {
        if !self.raw.__process_task_proxy().may_lose_answers()
            && let Some(item) = self.taken(self.raw.try_take()?)?
        {
            return Ok(item);
        }
        self.taken(get(&self.raw)?)?.ok_or_else(|| closed(&self.manager()))
    }

    /// Takes the first item out, if there is one.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    #[doc(alias = "get_nowait")]
    pub fn try_recv(&self) -> Result<Option<T>> {
        let is_lent = self.raw.__process_task_proxy().may_lose_answers();
        self.taken(if is_lent { self.raw.try_get()? } else { self.raw.try_take()? })
    }

    fn taken(&self, answer: GetAnswer) -> Result<Option<T>> {
        match answer {
            GetAnswer::Got { item, number } => {
                if number != 0 {
                    // It is not waited for: what this process sends comes in order.
                    drop(self.raw.later().done(number));
                }
                item.value().map(Some)
            }
            GetAnswer::Empty => Ok(None),
            GetAnswer::Closed => Err(closed(&self.manager())),
        }
    }
}

impl<T: Message> JoinableQueue<T> {
    /// Borrows the first item, waiting for one as long as it takes; with [`with_timeout`](Self::with_timeout), for so long at
    /// most.
    ///
    /// # Errors
    /// The queue is [closed](ErrorKind::Disconnected) and nothing is left or lent, the item cannot be read as a `T`, the
    /// manager is gone, or the time is over.
    #[doc(alias = "get")]
    pub fn recv(&self) -> Result<LentItem<'_, T>> {
        if self.raw.__process_task_proxy().timeout().is_none()
            && let Some(item) = self.lent(self.raw.try_get()?)?
        {
            return Ok(item);
        }
        self.lent(get(&self.raw)?)?.ok_or_else(|| closed(&self.manager()))
    }

    /// Borrows the first item, if there is one.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    #[doc(alias = "get_nowait")]
    pub fn try_recv(&self) -> Result<Option<LentItem<'_, T>>> {
        let answer = self.raw.try_get()?;
        self.lent(answer)
    }

    fn lent(&self, answer: GetAnswer) -> Result<Option<LentItem<'_, T>>> {
        match answer {
            GetAnswer::Got { item, number } => {
                let value = item.value().inspect_err(|_| {
                    // It would fail for every getter.
                    drop(self.raw.later().done(number));
                })?;
                Ok(Some(LentItem { raw: &self.raw, value, number }))
            }
            GetAnswer::Empty => Ok(None),
            GetAnswer::Closed => Err(closed(&self.manager())),
        }
    }

    /// Waits until every item that was put is done, as long as it takes; with [`with_timeout`](Self::with_timeout), for so
    /// long at most.
    ///
    /// # Errors
    /// The manager is gone, or the time is over.
    pub fn join(&self) -> Result<()> {
        while self.raw.later().join().join()? == PutAnswer::Busy {}
        Ok(())
    }

    /// Number of items that were put and are not done: those that wait, and those that are lent.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn unfinished(&self) -> Result<usize> {
        self.raw.unfinished()
    }
}

/// An item that a [`JoinableQueue`] lends. It comes back if this is dropped without [`done`](Self::done).
#[must_use = "an item that is dropped at once goes back to its queue"]
pub struct LentItem<'q, T> {
    raw: &'q RawQueueProxy,
    value: T,
    number: u64,
}

impl<T> LentItem<'_, T> {
    /// Says that the item is done.
    ///
    /// # Errors
    /// The manager is gone, or has taken the item back. Or the proxy's time is over: then the item is done as soon as the manager
    /// comes to that.
    #[doc(alias = "task_done")]
    pub fn done(mut self) -> Result<()> {
        let number = std::mem::take(&mut self.number);
        if release!(self.raw, done(number))? {
            return Ok(());
        }
        Err(Error::invalid("the item is not lent to this process any more, so that it may be done again elsewhere"))
    }
}

impl<T> Deref for LentItem<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for LentItem<'_, T> {
    fn drop(&mut self) {
        if self.number != 0 {
            // If the manager is gone, so is the queue.
            let _ = release!(self.raw, give_back(self.number));
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for LentItem<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LentItem").field(&self.value).finish()
    }
}
