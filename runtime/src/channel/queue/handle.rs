//! [`Queue`] and its halves, [`QueueSender`] and [`QueueReceiver`].
//!
//! Owns: what users see of a queue. Runs in: any process that has one. Never: knows where the items are.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::core::{Core, Limits};
use super::ends::Side;
use super::future::Getting;
use crate::channel::error::{GetError, PutError};
use crate::channel::patience::Patience;
use crate::codec::Message;
use crate::error::Result;

/// A queue in shared memory: many producers, many consumers, in any processes. First in, first out, for each producer.
///
/// It is a handle, which can be cloned and passed to tasks, as [`Arc`](std::sync::Arc) is. A `Queue` sends and receives.
/// Its halves do one of the two: [`QueueSender`] for producers, [`QueueReceiver`] for consumers. So they can tell that the
/// other side is gone: when the last producer is gone, in every process, by drop or by death, consumers get what is there
/// and then [`Closed`](GetError::Closed). An unsplit `Queue` is its own producer, so there is never a last one: call
/// [`close`](Self::close).
///
/// An item is encoded by the sender, before it takes any lock, and decoded by the receiver. It may hold up to 64 handles:
/// regions, connections, other queues. Of items with handles some 270 wait at a time, as many as a socket has room for; one more
/// waits, also if the queue is [unbounded](Self::unbounded). Unless it is root, a user has no more handles on their way, in all
/// sockets, than a process may have open descriptors: more wait for a second, then [fail](crate::channel::PutErrorKind::Failed).
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
    core: Core,
    items: PhantomData<fn(T) -> T>,
}

/// The half of a [`Queue`] that sends: a producer's.
///
/// # Examples
/// ```
/// use process_task::channel::{GetError, Queue};
///
/// let (sender, receiver) = Queue::unbounded()?.split();
/// sender.send("one".to_owned())?;
/// drop(sender);
/// assert_eq!(receiver.recv()?, "one");
/// assert_eq!(receiver.recv(), Err(GetError::Closed));
/// # process_task::Result::Ok(())
/// ```
#[doc(alias = "Producer")]
pub struct QueueSender<T> {
    core: Core,
    items: PhantomData<fn(T)>,
}

/// The half of a [`Queue`] that receives: a consumer's.
///
/// # Examples
/// ```
/// use process_task::channel::{PutErrorKind, Queue};
///
/// let (sender, receiver) = Queue::unbounded()?.split();
/// drop(receiver);
/// assert_eq!(*sender.send(1).unwrap_err().kind(), PutErrorKind::Closed);
/// # process_task::Result::Ok(())
/// ```
#[doc(alias = "Consumer")]
pub struct QueueReceiver<T> {
    core: Core,
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
        Self::within(Limits { items, ..Limits::NONE })
    }

    /// As [`bounded`](Self::bounded), but all items together may not be longer than `bytes` either, of which each takes up to 40
    /// for itself.
    ///
    /// # Errors
    /// As [`bounded`](Self::bounded).
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::Queue;
    ///
    /// let queue = Queue::bounded_by(1000, 1 << 20)?;
    /// queue.send(vec![0u8; 1 << 19])?;
    /// assert!(queue.try_send(vec![0u8; 1 << 19]).is_err());
    /// # process_task::Result::Ok(())
    /// ```
    pub fn bounded_by(items: usize, bytes: usize) -> Result<Self> {
        Self::within(Limits { items, bytes })
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
        Self::within(Limits::NONE)
    }

    fn within(limits: Limits) -> Result<Self> {
        Ok(Self { core: Core::new::<Queue<T>>(limits, false)?, items: PhantomData })
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
        QueueSender { core: self.core.only(Side::Puts), items: PhantomData }
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
        QueueReceiver { core: self.core.only(Side::Gets), items: PhantomData }
    }
}

/// What puts.
macro_rules! puts {
    ($Type:ident) => {
        impl<T: Message> $Type<T> {
            /// Sends an item, waiting for room as long as it takes.
            ///
            /// # Errors
            /// The queue is closed, every consumer is gone, the item cannot be encoded, or there is no memory for it. It is in
            /// the [`PutError`], and the queue is as it was.
            ///
            /// # If the other process dies
            /// Returns [`Closed`](crate::channel::PutErrorKind::Closed) within a tenth of a second if it was the last consumer.
            #[doc(alias = "put")]
            #[inline]
            pub fn send(&self, item: T) -> std::result::Result<(), PutError<T>> {
                self.core.put(item, Patience::Endless)
            }

            /// Sends an item, if there is room.
            ///
            /// # Errors
            /// As [`send`](Self::send), and [`Full`](crate::channel::PutErrorKind::Full).
            ///
            /// # If the other process dies
            /// As with [`send`](Self::send).
            #[doc(alias("put_nowait", "full"))]
            #[inline]
            pub fn try_send(&self, item: T) -> std::result::Result<(), PutError<T>> {
                self.core.put(item, Patience::None)
            }

            /// Sends an item, waiting for room for `timeout` at most.
            ///
            /// # Errors
            /// As [`send`](Self::send), and [`Full`](crate::channel::PutErrorKind::Full).
            ///
            /// # If the other process dies
            /// As with [`send`](Self::send).
            pub fn send_timeout(&self, item: T, timeout: Duration) -> std::result::Result<(), PutError<T>> {
                self.core.put(item, Patience::of(timeout))
            }
        }
    };
}
pub(super) use puts;

/// What gets.
macro_rules! gets {
    ($Type:ident) => {
        impl<T: Message> $Type<T> {
            /// Receives the first item, waiting for one as long as it takes.
            ///
            /// # Errors
            /// The queue is closed, or every producer is gone, and nothing is left; or the item, which is gone then, cannot
            /// be decoded.
            ///
            /// # If the other process dies
            /// Returns [`Closed`](GetError::Closed) within a tenth of a second if it was the last producer. The owner of a
            /// whole queue is a producer, too, and so may wait for ever when all others are gone.
            #[doc(alias = "get")]
            #[inline]
            pub fn recv(&self) -> std::result::Result<T, GetError> {
                self.core.get(Patience::Endless).map(|(item, _)| item)
            }

            /// Receives the first item, if there is one.
            ///
            /// # Errors
            /// As [`recv`](Self::recv), and [`Empty`](GetError::Empty).
            ///
            /// # If the other process dies
            /// As with [`recv`](Self::recv).
            #[doc(alias = "get_nowait")]
            #[inline]
            pub fn try_recv(&self) -> std::result::Result<T, GetError> {
                self.core.get(Patience::None).map(|(item, _)| item)
            }

            /// Receives the first item, waiting for one for `timeout` at most.
            ///
            /// # Errors
            /// As [`recv`](Self::recv), and [`Empty`](GetError::Empty).
            ///
            /// # If the other process dies
            /// As with [`recv`](Self::recv).
            pub fn recv_timeout(&self, timeout: Duration) -> std::result::Result<T, GetError> {
                self.core.get(Patience::of(timeout)).map(|(item, _)| item)
            }
        }
    };
}
pub(super) use gets;

/// What all handles of queues do; `$ends`: whether they put, and whether they get.
macro_rules! handle {
    ($Type:ident of $Queue:ident, $ends:expr, lends: $lends:literal) => {
        impl<T> $Type<T> {
            /// How many items wait to be got. It may be another number by the time that this one is read.
            #[doc(alias = "qsize")]
            #[must_use]
            pub fn len(&self) -> usize {
                self.core.len()
            }

            /// Whether no item waits to be got, at this moment.
            #[doc(alias = "empty")]
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        impl<T> Clone for $Type<T> {
            /// Another handle of the same queue.
            fn clone(&self) -> Self {
                Self { core: self.core.again(), items: PhantomData }
            }
        }

        impl<T> PartialEq for $Type<T> {
            /// Whether both are handles of the same queue.
            fn eq(&self, other: &Self) -> bool {
                self.core.is_same(&other.core)
            }
        }

        impl<T> Eq for $Type<T> {}

        impl<T> fmt::Debug for $Type<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Type)).field("len", &self.len()).finish_non_exhaustive()
            }
        }

        impl<T> Serialize for $Type<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                self.core.travelling().map_err(S::Error::custom)?.serialize(serializer)
            }
        }

        impl<'de, T: 'static> Deserialize<'de> for $Type<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let travelling = Deserialize::deserialize(deserializer)?;
                let core = Core::arrived::<$Queue<T>>(travelling, $ends, $lends).map_err(D::Error::custom)?;
                Ok(Self { core, items: PhantomData })
            }
        }
    };
}
pub(super) use handle;

/// What can be closed.
macro_rules! closes {
    ($Type:ident) => {
        impl<T> $Type<T> {
            /// Refuses all further items. Those that are there can be got; then consumers hear that it is
            /// [`Closed`](GetError::Closed).
            ///
            /// # If the other process dies
            /// A process that is killed while it closes the queue has closed it, or has not.
            pub fn close(&self) {
                self.core.close();
            }

            /// Whether the queue was [closed](Self::close).
            #[must_use]
            pub fn is_closed(&self) -> bool {
                self.core.is_closed()
            }
        }
    };
}
pub(super) use closes;

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

/// What can be gone through.
macro_rules! goes_through {
    ($Type:ident) => {
        impl<T: Message> $Type<T> {
            /// Gets one item after the other, until the queue is closed and nothing is left.
            ///
            /// # Panics
            /// Going on panics if an item cannot be decoded, or be had for want of descriptors, or if the queue's memory was
            /// written over; [`recv`](Self::recv) returns an error instead.
            ///
            /// # If the other process dies
            /// As with [`recv`](Self::recv).
            pub fn iter(&self) -> QueueIter<'_, T> {
                QueueIter { core: &self.core, items: PhantomData }
            }

            /// A future of the next item, for any executor: a thread that this process has for all its children does the
            /// waiting. Dropping it takes nothing from the queue.
            ///
            /// # Errors
            /// As [`recv`](Self::recv).
            ///
            /// # Examples
            /// ```
            /// # use std::task::{Context, Poll, Waker};
            /// # fn block_on<F: Future>(future: F) -> F::Output {
            /// #     let mut future = std::pin::pin!(future);
            /// #     loop {
            /// #         if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            /// #             return output;
            /// #         }
            /// #         std::thread::yield_now();
            /// #     }
            /// # }
            /// use process_task::channel::{Queue, QueueSender};
            /// use process_task::process_task;
            ///
            /// #[process_task]
            /// fn greet(out: QueueSender<String>) { out.send("hello".to_owned()).unwrap(); }
            ///
            /// let queue = Queue::unbounded()?;
            /// let process = greet.spawn(queue.sender());
            /// assert_eq!(block_on(queue.recv_async())?, "hello");
            /// process.join()?;
            /// # process_task::Result::Ok(())
            /// ```
            ///
            /// # If the other process dies
            /// As with [`recv`](Self::recv).
            pub fn recv_async(&self) -> impl Future<Output = std::result::Result<T, GetError>> + Send + use<'_, T> {
                Getting::new(&self.core)
            }
        }

        impl<'a, T: Message> IntoIterator for &'a $Type<T> {
            type Item = T;
            type IntoIter = QueueIter<'a, T>;

            fn into_iter(self) -> QueueIter<'a, T> {
                self.iter()
            }
        }
    };
}
goes_through!(Queue);
goes_through!(QueueReceiver);

/// What [`Queue::iter`] and [`QueueReceiver::iter`] return.
#[must_use = "nothing is got before it is gone through"]
pub struct QueueIter<'a, T> {
    core: &'a Core,
    items: PhantomData<fn() -> T>,
}

impl<T: Message> Iterator for QueueIter<'_, T> {
    type Item = T;

    #[track_caller]
    fn next(&mut self) -> Option<T> {
        match self.core.get(Patience::Endless) {
            Ok((item, _)) => Some(item),
            Err(GetError::Closed) => None,
            Err(error) => panic!("an item of the queue cannot be had: {error}"),
        }
    }
}

impl<T> fmt::Debug for QueueIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueIter").finish_non_exhaustive()
    }
}
