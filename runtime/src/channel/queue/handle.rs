//! [`Queue`] and its halves, [`QueueSender`] and [`QueueReceiver`].
//!
//! Owns: what users see of a queue. Runs in: any process that has one. Never: knows where the items are.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::core::QueueCore;
use super::endpoint::EndKind;
use super::future::Getting;
use super::iter::{QueueIter, goes_through};
use super::limits::QueueLimits;
use super::methods::{closes, gets, handle, puts};
use super::transfer::Travelling;
use crate::channel::error::{RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError};
use crate::codec::handles::Handle;
use crate::codec::{CodecError, Message};
use crate::error::Result;
use crate::sync::deadline::Deadline;

/// A queue in shared memory: many producers, many consumers, in any processes. First in, first out, for each producer.
///
/// It is a handle, which can be cloned and passed to tasks, as [`Arc`] is. A `Queue` sends and receives.
/// Its halves do one of the two: [`QueueSender`] for producers, [`QueueReceiver`] for consumers. So they can tell that the
/// other side is gone: when the last producer is gone, in every process, by drop or by death, consumers get what is there
/// and then [`Disconnected`](RecvError::Disconnected). An unsplit `Queue` is its own producer, so there is never a last one:
/// call [`close`](Self::close).
///
/// An item is encoded by the sender, before it takes any lock, and decoded by the receiver. It may hold up to 64 handles:
/// regions, connections, other queues. Of items with handles some 270 wait at a time, as many as a socket has room for; one more
/// waits, also if the queue is [unbounded](Self::unbounded). Unless it is root, a user has no more handles on their way, in all
/// sockets, than a process may have open descriptors: more wait for a second, then [fail](SendError::Failed).
///
/// # Examples
/// ```
/// use process_task::channel::{Queue, QueueReceiver, QueueSender};
/// use process_task::process_task;
///
/// #[process_task]
/// fn produce(from: u64, numbers: QueueSender<u64>) {
///     for number in from..from + 100 {
///         numbers.send(number).unwrap();
///     }
/// }
///
/// #[process_task]
/// fn add_up(numbers: QueueReceiver<u64>) -> u64 {
///     numbers.iter().sum()
/// }
///
/// let (sender, receiver) = Queue::bounded(10)?.split();
/// let producers = [0, 100].map(|from| produce.spawn(from, sender.clone()));
/// let consumers = [0; 2].map(|_| add_up.spawn(receiver.clone()));
/// drop((sender, receiver));
/// for producer in producers {
///     producer.join()?;
/// }
/// let sums = consumers.into_iter().map(|consumer| consumer.join());
/// assert_eq!(sums.sum::<process_task::Result<u64>>()?, (0..200).sum());
/// # process_task::Result::Ok(())
/// ```
///
/// # If the other process dies
/// The queue goes on. What a killed process was putting is as if it had never been put; what it was getting is still there,
/// or was taken, and then it is gone with its taker. No thread waits for longer than a tenth of a second because of it.
///
/// A process that has got an end as the argument of a call is counted until that call is over, even if the task drops it before.
#[doc(alias("mpmc", "channel"))]
pub struct Queue<T> {
    core: QueueCore,
    items: PhantomData<fn(T) -> T>,
}

/// The half of a [`Queue`] that sends: a producer's.
///
/// # Examples
/// ```
/// use process_task::channel::{Queue, RecvError};
///
/// let (sender, receiver) = Queue::unbounded()?.split();
/// sender.send("one".to_owned())?;
/// drop(sender);
/// assert_eq!(receiver.recv()?, "one");
/// assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
/// # process_task::Result::Ok(())
/// ```
#[doc(alias = "Producer")]
pub struct QueueSender<T> {
    core: QueueCore,
    items: PhantomData<fn(T)>,
}

/// The half of a [`Queue`] that receives: a consumer's.
///
/// # Examples
/// ```
/// use process_task::channel::Queue;
///
/// let (sender, receiver) = Queue::unbounded()?.split();
/// drop(receiver);
/// assert!(sender.send(1).unwrap_err().is_disconnected());
/// # process_task::Result::Ok(())
/// ```
#[doc(alias = "Consumer")]
pub struct QueueReceiver<T> {
    core: QueueCore,
    items: PhantomData<fn() -> T>,
}

impl<T: Message> Queue<T> {
    /// Creates a queue that holds at most `items` items; [`send`](Self::send) waits while it is full.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for it; or `items` is 0.
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::Queue;
    ///
    /// let queue = Queue::bounded(2)?;
    /// queue.send(1)?;
    /// queue.send(2)?;
    /// assert!(queue.try_send(3).is_err());
    /// # process_task::Result::Ok(())
    /// ```
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
    /// use process_task::channel::{Queue, QueueLimits};
    ///
    /// let queue = Queue::with_limits(QueueLimits { items: 1000, bytes: 1 << 20 })?;
    /// queue.send(vec![0u8; 1 << 19])?;
    /// assert!(queue.try_send(vec![0u8; 1 << 19]).is_err());
    /// # process_task::Result::Ok(())
    /// ```
    pub fn with_limits(limits: QueueLimits) -> Result<Self> {
        Self::within(limits)
    }

    /// A queue for as many items as there is memory for, up to 64 GiB. The memory goes back as they are got, but for 1 MiB.
    ///
    /// # Errors
    /// As [`bounded`](Self::bounded).
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::Queue;
    ///
    /// let queue = Queue::unbounded()?;
    /// for number in 0..1000 {
    ///     queue.send(number)?;
    /// }
    /// assert_eq!((queue.len(), queue.recv()?), (1000, 0));
    /// # process_task::Result::Ok(())
    /// ```
    pub fn unbounded() -> Result<Self> {
        Self::within(QueueLimits::NONE)
    }

    fn within(limits: QueueLimits) -> Result<Self> {
        Ok(Self { core: QueueCore::new::<Queue<T>>(limits, false)?, items: PhantomData })
    }
}

impl<T> Queue<T> {
    /// Takes the queue apart. Clones of it still do both.
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::Queue;
    ///
    /// let (sender, receiver) = Queue::bounded(1)?.split();
    /// sender.send(5)?;
    /// assert_eq!(receiver.recv()?, 5);
    /// # process_task::Result::Ok(())
    /// ```
    #[must_use]
    pub fn split(self) -> (QueueSender<T>, QueueReceiver<T>) {
        (self.sender(), self.receiver())
    }

    /// A handle that only sends.
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::Queue;
    ///
    /// let queue = Queue::bounded(1)?;
    /// queue.sender().send(5)?;
    /// assert_eq!(queue.recv()?, 5);
    /// # process_task::Result::Ok(())
    /// ```
    #[must_use]
    pub fn sender(&self) -> QueueSender<T> {
        QueueSender { core: self.core.only(EndKind::Puts), items: PhantomData }
    }

    /// A handle that only receives.
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::Queue;
    ///
    /// let queue = Queue::bounded(1)?;
    /// queue.send(5)?;
    /// assert_eq!(queue.receiver().recv()?, 5);
    /// # process_task::Result::Ok(())
    /// ```
    #[must_use]
    pub fn receiver(&self) -> QueueReceiver<T> {
        QueueReceiver { core: self.core.only(EndKind::Gets), items: PhantomData }
    }
}

impl<T: 'static> QueueSender<T> {
    /// What it serialises as, for code that opens it only if it needs it.
    ///
    /// # Errors
    /// This thread encodes no payload, or it has too many handles.
    pub(crate) fn travelling(&self) -> std::result::Result<Travelling, CodecError> {
        self.core.travelling()
    }

    /// The handles that it travels as.
    pub(crate) fn handles(&self) -> impl Iterator<Item = Arc<dyn Handle>> {
        self.core.handles()
    }

    /// The sender that came beside the payload that this thread decodes.
    ///
    /// # Errors
    /// There is none of this type.
    pub(crate) fn arrived(travelling: Travelling) -> std::result::Result<Self, CodecError> {
        let core = QueueCore::arrived::<Queue<T>>(travelling, (true, false), false)?;
        Ok(Self { core, items: PhantomData })
    }
}

puts!(Queue);
puts!(QueueSender);
gets!(Queue);
gets!(QueueReceiver);
closes!(Queue);
closes!(QueueSender);
closes!(QueueReceiver);
handle!(Queue of Queue, (true, true), lends: false);
handle!(QueueSender of Queue, (true, false), lends: false);
handle!(QueueReceiver of Queue, (false, true), lends: false);
goes_through!(Queue);
goes_through!(QueueReceiver);
