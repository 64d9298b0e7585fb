//! Going through a queue: one item after the other, and a future of the next one.
//!
//! Owns: [`QueueIter`]. Runs in: any process that has the queue.

use std::fmt;
use std::marker::PhantomData;

use super::core::QueueCore;
use crate::channel::error::TryRecvError;
use crate::codec::Message;
use crate::sync::deadline::Deadline;

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
                QueueIter::over(&self.core)
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
            pub fn recv_async(&self) -> impl Future<Output = std::result::Result<T, RecvError>> + Send + use<'_, T> {
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
pub(super) use goes_through;

/// What [`Queue::iter`](crate::channel::Queue::iter) and [`QueueReceiver::iter`](crate::channel::QueueReceiver::iter) return.
#[must_use = "nothing is got before it is gone through"]
pub struct QueueIter<'a, T> {
    core: &'a QueueCore,
    items: PhantomData<fn() -> T>,
}

impl<'a, T> QueueIter<'a, T> {
    pub(super) fn over(core: &'a QueueCore) -> Self {
        Self { core, items: PhantomData }
    }
}

impl<T: Message> Iterator for QueueIter<'_, T> {
    type Item = T;

    #[track_caller]
    fn next(&mut self) -> Option<T> {
        match self.core.get(Deadline::Never) {
            Ok((item, _)) => Some(item),
            Err(TryRecvError::Disconnected) => None,
            Err(error) => panic!("an item of the queue cannot be had: {error}"),
        }
    }
}

impl<T> fmt::Debug for QueueIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueIter").finish_non_exhaustive()
    }
}
