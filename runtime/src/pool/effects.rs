//! What the scheduler decides under its mutex, and what is done once the mutex is released.
//!
//! Runs in: the parent. A transition of the scheduler pushes to its own [`Effects`]; the one entrance for changes,
//! [`Shared::update`](super::shared::Shared::update), takes them and runs them. So no transition can forget to run one.
//!
//! They run in this order:
//!
//! | order | effect | why there |
//! |--:|---|---|
//! | 1 | events | a thread that is woken finds that its observers were told |
//! | 2 | the leader's eventfd | the leader sleeps on behalf of all |
//! | 3 | wakers, threads and callbacks of settled calls; one follower | before system calls that take longer |
//! | 4 | kill, then end, then start | a slot's old process ends before its new one starts |
//! | 5 | timers | they are for later |

use std::sync::Arc;
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::call::Waiters;
use super::metrics::NotedEvent;
use crate::supervisor::ChildHandle;

/// What is to be done once the mutex is released.
#[derive(Debug, Default)]
#[must_use = "a waiter would sleep on"]
pub(super) struct Effects {
    pub(super) events: Vec<NotedEvent>,
    /// Another thread than the leader has settled a call, or has changed what the leader waits for.
    pub(super) wake_leader: bool,
    pub(super) wake: Vec<Waiters>,
    pub(super) follower: Option<Thread>,
    pub(super) workers: WorkerEffects,
    /// Memory of a reply is mapped, and is trimmed once it is idle.
    pub(super) trim_memory: bool,
    /// Wakers that were replaced. A waker's destructor is the program's code and must not run under the mutex.
    pub(super) drop_unlocked: Vec<Waker>,
}

/// What is to be done about workers.
#[derive(Debug, Default)]
#[must_use = "a process would live on"]
pub(super) struct WorkerEffects {
    pub(super) kill: Vec<Arc<ChildHandle>>,
    /// Workers that are asked to end first, and killed after the pool's grace.
    pub(super) end: Vec<Arc<ChildHandle>>,
    pub(super) start: Vec<Start>,
    /// What the leader waits for has changed, if there is a leader.
    pub(super) wake_leader: bool,
    /// A worker is there, or never will be, or has ended: wakes the threads in [`Shared::wait_for_change`].
    ///
    /// [`Shared::wait_for_change`]: super::shared::Shared::wait_for_change
    pub(super) workers_changed: bool,
    /// When the deadlines are due, and in how long the idle workers.
    pub(super) alarm: Option<Instant>,
    pub(super) idle_alarm: Option<Duration>,
}

impl Effects {
    /// Whether there is nothing to do, which is so for most calls that are submitted.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
            && !self.wake_leader
            && self.wake.is_empty()
            && self.follower.is_none()
            && self.workers.is_empty()
            && !self.trim_memory
            && self.drop_unlocked.is_empty()
    }
}

impl WorkerEffects {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.kill.is_empty()
            && self.end.is_empty()
            && self.start.is_empty()
            && !self.wake_leader
            && !self.workers_changed
            && self.alarm.is_none()
            && self.idle_alarm.is_none()
    }
}

/// A child that is to be started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) number: usize,
    pub(super) pause: Option<Duration>,
    /// It becomes the slot's standby; otherwise the slot is vacant.
    pub(super) standby: bool,
}
