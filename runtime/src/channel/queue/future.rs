//! Getting without keeping a thread: a future of the next item.
//!
//! Owns: what waits for it. Runs in: any process; the reactor's thread wakes, whatever executor it is.
//! Never: takes an item before it is polled, so that dropping it loses none.
//!
//! A future that finds no item asks the producers for a message on the socket of its end, looks once more, and has the
//! reactor watch the socket. One message may be for several waiters; and the process that was to send it may have been killed: so
//! each looks again by itself every 50 ms, as sleeping threads do.

use std::future::Future;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::core::QueueCore;
use super::futex_wait::MAX_SLEEP;
use crate::channel::connection::SocketWatch;
use crate::channel::error::{RecvError, TryRecvError, channel_failed};
use crate::codec::Message;
use crate::reactor::{Reactor, TimerKey, reactor, wake};
use crate::sync::deadline::Deadline;
use crate::sys::{self, Errno};

/// A future of the next item.
pub(super) struct Getting<'q, T> {
    core: &'q QueueCore,
    waiting: Option<Waiting>,
    items: PhantomData<fn() -> T>,
}

struct Waiting {
    watch: SocketWatch,
    reactor: Arc<Reactor>,
    timer: Option<TimerKey>,
}

impl<'q, T> Getting<'q, T> {
    pub(super) fn new(core: &'q QueueCore) -> Self {
        Self { core, waiting: None, items: PhantomData }
    }

    fn wait(&mut self, waker: &Waker) -> sys::Result<()> {
        let Some(end) = self.core.bell() else { return Err(Errno::EBADF) };
        // A copy made by `fork()` is not woken for what was asked before.
        self.waiting.take_if(|waiting| !waiting.watch.is_of_this_process());
        if let Some(waiting) = &self.waiting {
            waiting.watch.again(waker)?;
        } else {
            let reactor = reactor().map_err(|_| Errno::EAGAIN)?;
            self.waiting = Some(Waiting { watch: SocketWatch::new(end.as_fd(), waker)?, reactor, timer: None });
        }
        if let Some(waiting) = &mut self.waiting {
            waiting.stop_timer();
            let waker = waker.clone();
            waiting.timer = waiting.reactor.timer(MAX_SLEEP, move || wake(waker));
        }
        Ok(())
    }
}

impl Waiting {
    fn stop_timer(&mut self) {
        if let Some(timer) = self.timer.take()
            && self.watch.is_of_this_process()
        {
            self.reactor.cancel(timer);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.stop_timer();
    }
}

impl<T: Message> Future for Getting<'_, T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Once before asking to be told, and once after: nothing comes in between unseen.
        for asked in [false, true] {
            match self.core.get(Deadline::Now) {
                Err(TryRecvError::Empty) if asked => {}
                Err(TryRecvError::Empty) => {
                    if let Err(errno) = self.wait(context.waker()) {
                        return Poll::Ready(Err(RecvError::Failed(channel_failed("watch a queue", errno))));
                    }
                }
                got => {
                    self.waiting = None;
                    return Poll::Ready(got.map(|(item, _)| item).map_err(TryRecvError::without_limit));
                }
            }
        }
        Poll::Pending
    }
}
