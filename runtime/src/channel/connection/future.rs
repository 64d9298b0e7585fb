//! Receiving without keeping a thread: a future of the next message.
//!
//! Runs in: any process; the reactor's thread wakes the future, whatever its executor is.
//! Invariant: takes no message before it is polled, so that dropping it loses none.

use std::fmt;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::Connection;
use crate::channel::error::channel_failed;
use crate::channel::{RecvError, TryRecvError};
use crate::codec::Message;
use crate::reactor::{EventHandler, Reactor, Token, reactor, wake};
use crate::sys::mutex::MutexExt as _;
use crate::sys::poll::Trigger;
use crate::sys::{self, Errno, atfork, fd};

impl<A, B: Message> Connection<A, B> {
    /// A future of the next message, for any executor: a thread that this process has for all its children does the waiting.
    ///
    /// Dropping it takes nothing from the connection.
    ///
    /// # Examples
    /// ```
    /// # use std::task::{Context, Poll, Waker};
    /// # use std::pin::pin;
    /// # fn block_on<F: Future>(future: F) -> F::Output {
    /// #     let mut future = pin!(future);
    /// #     loop {
    /// #         if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
    /// #             return output;
    /// #         }
    /// #         std::thread::yield_now();
    /// #     }
    /// # }
    /// use process_task::channel::{Sender, one_way};
    /// use process_task::process_task;
    ///
    /// #[process_task]
    /// fn greet(out: Sender<String>) { out.send("hello".to_owned()).unwrap(); }
    ///
    /// let (sender, receiver) = one_way()?;
    /// let process = greet.spawn(sender);
    /// let hello = block_on(async { receiver.recv_async().await })?;
    /// assert_eq!(hello, "hello");
    /// process.join()?;
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # If the other process dies
    /// As [`recv`](Self::recv).
    pub fn recv_async(&self) -> impl Future<Output = Result<B, RecvError>> + Send + use<'_, A, B> {
        Receiving { connection: self, watch: None }
    }
}

struct Receiving<'c, A, B> {
    connection: &'c Connection<A, B>,
    watch: Option<SocketWatch>,
}

impl<A, B: Message> Future for Receiving<'_, A, B> {
    type Output = Result<B, RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.connection.try_recv() {
            Err(TryRecvError::Empty) => {}
            received => {
                self.watch = None;
                return Poll::Ready(received.map_err(TryRecvError::without_limit));
            }
        }
        // A copy made by `fork()` is not woken for what was asked before.
        self.watch.take_if(|watch| !watch.is_of_this_process());
        let waiting = match &self.watch {
            Some(watch) => watch.again(context.waker()),
            None => SocketWatch::new(self.connection.as_fd(), context.waker()).map(|watch| self.watch = Some(watch)),
        };
        match waiting {
            Ok(()) => Poll::Pending,
            Err(errno) => Poll::Ready(Err(RecvError::Failed(channel_failed("watch a connection", errno)))),
        }
    }
}

/// A descriptor that the reactor watches.
pub(in crate::channel) struct SocketWatch {
    reactor: Arc<Reactor>,
    token: Token,
    /// Our own, so that others may watch the same connection.
    descriptor: OwnedFd,
    bell: Arc<Bell>,
    /// How many `fork()`s of the host program came before it was made: in a copy of the process, there are more.
    generation: u64,
}

#[derive(Default)]
struct Bell(Mutex<Option<Waker>>);

impl Bell {
    fn replace(&self, waker: Option<Waker>) -> Option<Waker> {
        std::mem::replace(&mut *self.0.lock_unpoisoned(), waker)
    }
}

impl EventHandler for Bell {
    fn ready(self: Arc<Self>) {
        if let Some(waker) = self.replace(None) {
            wake(waker);
        }
    }
}

impl SocketWatch {
    pub(in crate::channel) fn new(descriptor: BorrowedFd<'_>, waker: &Waker) -> sys::Result<Self> {
        let reactor = reactor().map_err(|_| Errno::EAGAIN)?;
        let descriptor = fd::duplicate(descriptor)?;
        let bell = Arc::new(Bell(Mutex::new(Some(waker.clone()))));
        let token = reactor.add_handler(Arc::<Bell>::clone(&bell));
        let watch = Self { reactor, token, descriptor, bell, generation: atfork::generation() };
        watch.reactor.register(watch.descriptor.as_fd(), token, Trigger::OneShot)?;
        Ok(watch)
    }

    /// Wakes once more. It reports at once what has come in between.
    pub(in crate::channel) fn again(&self, waker: &Waker) -> sys::Result<()> {
        drop(self.bell.replace(Some(waker.clone())));
        self.reactor.reregister(self.descriptor.as_fd(), self.token)
    }

    /// Whether it was made here, and not in a process of which this one is a copy.
    pub(in crate::channel) fn is_of_this_process(&self) -> bool {
        self.generation == atfork::generation()
    }
}

impl Drop for SocketWatch {
    fn drop(&mut self) {
        // In a copy made by `fork()`, the epoll set is still the original's, too.
        if self.is_of_this_process() {
            self.reactor.deregister(self.descriptor.as_fd());
            self.reactor.remove_handler(self.token);
        }
    }
}

impl fmt::Debug for SocketWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("token", &self.token).finish_non_exhaustive()
    }
}
