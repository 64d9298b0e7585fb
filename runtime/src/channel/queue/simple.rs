//! [`SimpleQueue`]: the smallest of queues.
//!
//! Owns: nothing but the interface. Runs in: any process that has one. Never: closes.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::core::QueueCore;
use super::limits::QueueLimits;
use super::methods::{gets, handle};
use crate::channel::error::{RecvError, RecvTimeoutError, TryRecvError, TrySendError};
use crate::codec::Message;
use crate::error::Result;
use crate::sync::deadline::Deadline;

/// A queue without a limit and without an end: what one process sends, another receives.
///
/// A [`Queue`](crate::channel::Queue) that takes whatever there is memory for, up to 64 GiB, and that cannot be closed.
/// Python's has no time-outs; this one has.
///
/// # Examples
/// ```
/// use process_task::channel::SimpleQueue;
/// use process_task::process_task;
///
/// #[process_task]
/// fn greet(names: SimpleQueue<String>, greetings: SimpleQueue<String>) {
///     greetings.send(format!("hello {}", names.recv().unwrap())).unwrap();
/// }
///
/// let (names, greetings) = (SimpleQueue::new()?, SimpleQueue::new()?);
/// let greeter = greet.spawn(names.clone(), greetings.clone());
/// names.send("world".to_owned())?;
/// assert_eq!(greetings.recv()?, "hello world");
/// greeter.join()?;
/// assert!(greetings.is_empty());
/// # process_task::Result::Ok(())
/// ```
///
/// # If the other process dies
/// The queue goes on. What a killed process was putting is as if it had never been put; what it was getting is still there,
/// or was taken. It cannot say that no more items will come: where that matters, take a [`Queue`](crate::channel::Queue),
/// or a time-out.
pub struct SimpleQueue<T> {
    core: QueueCore,
    items: PhantomData<fn(T) -> T>,
}

impl<T: Message> SimpleQueue<T> {
    /// An empty queue.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for it.
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::SimpleQueue;
    ///
    /// let queue = SimpleQueue::new()?;
    /// queue.send("one".to_owned())?;
    /// assert_eq!(queue.recv()?, "one");
    /// # process_task::Result::Ok(())
    /// ```
    pub fn new() -> Result<Self> {
        Ok(Self { core: QueueCore::new::<SimpleQueue<T>>(QueueLimits::NONE, false)?, items: PhantomData })
    }

    /// Sends an item. Does not wait.
    ///
    /// # Errors
    /// The item is inside the error, and the queue is as it was.
    /// - [`Full`](TrySendError::Full): some 270 items with handles wait already, or a process that was stopped while it sent
    ///   keeps others from it.
    /// - [`Failed`](TrySendError::Failed): the item [cannot be encoded](crate::ErrorKind::CannotEncode), or there is no memory
    ///   for it.
    ///
    /// # If the other process dies
    /// The item is there, and waits for the next consumer.
    #[doc(alias = "put")]
    pub fn send(&self, item: T) -> std::result::Result<(), TrySendError<T>> {
        self.core.put(item, Deadline::Now)
    }
}

gets!(SimpleQueue);
handle!(SimpleQueue of SimpleQueue, (true, true), lends: false);
