//! Waiting for calls of a pool: one thread leads and looks on behalf of all, the others follow.
//!
//! Owns: the leader's loop. Runs in: the parent, on any thread that waits. Never: sleeps without having said so, or leaves
//! the office without calling the next one.

use std::sync::{Arc, TryLockError};
use std::thread::{Thread, ThreadId};
use std::time::{Duration, Instant};

use super::scheduler::{Leader, Scheduler};
use super::shared::Shared;
use crate::link::spin;

/// The longest sleep of a leader: if the program closes descriptors that it did not open, no bell is left to wake it.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How long a leader without descriptors waits before it looks again.
const LET_HUB_SAY: Duration = Duration::from_millis(1);

/// What a thread can wait for.
pub(super) trait Waitable {
    /// Has `thread` unparked when there is something to see. To be followed by a look.
    fn enlist(&self, thread: Thread);

    /// That thread is not to be told any more.
    fn strike(&self, thread: ThreadId);
}

/// All calls of the pool: the last leader to step down wakes a thread that waits for them.
pub(super) struct AllCalls;

impl Waitable for AllCalls {
    fn enlist(&self, _: Thread) {}

    fn strike(&self, _: ThreadId) {}
}

/// Replies of this pool are heard by the reactor while there is no leader, as long as this lives.
pub(super) struct ReplyInterest(Arc<Shared>);

impl ReplyInterest {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.update(|scheduler, owed| {
            scheduler.interest += 1;
            scheduler.refresh_notify_flags(owed);
        });
        Self(Arc::clone(shared))
    }
}

impl Drop for ReplyInterest {
    fn drop(&mut self) {
        let mut scheduler = self.0.scheduler();
        scheduler.interest = scheduler.interest.saturating_sub(1);
    }
}

impl Shared {
    /// Waits until `done`, leading or following; false if `deadline` came first. `interest` is what makes `done` true, and
    /// `done`, which is called under the mutex too, takes no lock of the pool's.
    pub(super) fn wait(
        self: &Arc<Self>,
        done: &dyn Fn() -> bool,
        interest: &dyn Waitable,
        deadline: Option<Instant>,
    ) -> bool {
        loop {
            let leads = self.update(|scheduler, owed| {
                scheduler.collect(owed);
                if done() {
                    // This may be the follower that the last leader woke to be the next; then another one must be.
                    scheduler.promote_follower(owed);
                    return None;
                }
                if scheduler.leader != Leader::None {
                    // Entered under the mutex: the leader cannot leave before it sees us.
                    scheduler.followers.push(std::thread::current());
                    return Some(false);
                }
                scheduler.become_leader();
                Some(true)
            });
            match leads {
                None => return true,
                Some(true) => {
                    self.lead(done, deadline);
                    return done();
                }
                Some(false) => {
                    let own = std::thread::current();
                    interest.enlist(own.clone());
                    if !done() {
                        park(deadline);
                    }
                    interest.strike(own.id());
                    self.scheduler().followers.retain(|thread| thread.id() != own.id());
                    if !done() && deadline.is_some_and(|at| Instant::now() >= at) {
                        // It may have been woken to lead; then another one must.
                        self.hand_over();
                        return false;
                    }
                }
            }
        }
    }

    /// Waits until `done`, or for `time`, without leading: so workers do not ring for each reply, which takes processors
    /// from them, but only when they have nothing to do. For callers that are not in a hurry.
    pub(super) fn nap(self: &Arc<Self>, done: &dyn Fn() -> bool, interest: &dyn Waitable, time: Duration) {
        let own = std::thread::current();
        interest.enlist(own.clone());
        self.update(Scheduler::refresh_notify_flags);
        if !done() {
            std::thread::park_timeout(time);
        }
        interest.strike(own.id());
    }

    /// Metrics for replies and sleeps until there are some, on behalf of all, until `done`.
    fn lead(self: &Arc<Self>, done: &dyn Fn() -> bool, deadline: Option<Instant>) {
        let mut rang = Vec::new();
        let (mut far, mut crowded) = {
            let mut scheduler = self.scheduler();
            (std::mem::take(&mut scheduler.far), scheduler.is_crowded())
        };
        let mut busy = false;
        loop {
            if std::mem::take(&mut busy) {
                // Every worker has enough to do; each look at their replies takes a cache line from one of them.
                spin::pause();
            }
            if !std::mem::take(&mut far) {
                let there = || done() || self.sees_reply();
                // Where workers need every processor, looking takes time from the one that is to reply.
                if crowded {
                    spin::briefly(there);
                } else {
                    self.spin.until(there);
                }
            }
            let late = deadline.is_some_and(|at| Instant::now() >= at);
            let sleeps = self.update(|scheduler, owed| {
                let any = scheduler.collect(owed);
                crowded = scheduler.is_crowded();
                if done() || late {
                    scheduler.step_down(owed);
                    return None;
                }
                if any {
                    busy = !scheduler.backlog.is_empty();
                    return Some(false);
                }
                scheduler.set_asleep(true);
                // A reply that came before the words were seen has rung no bell.
                if scheduler.has_reply() {
                    scheduler.set_asleep(false);
                    return Some(false);
                }
                scheduler.leader = Leader::Parked;
                Some(true)
            });
            match sleeps {
                None => return,
                Some(false) => {}
                Some(true) => {
                    let since = Instant::now();
                    let look_again = since.checked_add(LOOK_AGAIN);
                    let until = deadline.into_iter().chain(look_again).min();
                    if self.set.wait(&mut rang, until).is_err() {
                        // The program has closed it, as the reactor is about to say.
                        std::thread::sleep(LET_HUB_SAY);
                    }
                    if !crowded {
                        self.spin.slept(since);
                    }
                    let mut scheduler = self.scheduler();
                    scheduler.leader = Leader::Polling;
                    scheduler.set_asleep(false);
                }
            }
        }
    }

    /// A look at the replies that does not wait for the mutex; the thread that has it will look.
    fn sees_reply(&self) -> bool {
        match self.scheduler.try_lock() {
            Ok(scheduler) => scheduler.has_reply(),
            Err(TryLockError::Poisoned(scheduler)) => scheduler.into_inner().has_reply(),
            Err(TryLockError::WouldBlock) => false,
        }
    }

    /// Wakes a follower if there is no leader.
    fn hand_over(self: &Arc<Self>) {
        self.update(Scheduler::promote_follower);
    }
}

pub(super) fn park(deadline: Option<Instant>) {
    match deadline {
        None => std::thread::park(),
        Some(deadline) => std::thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
    }
}
