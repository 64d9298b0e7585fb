//! Waiting for calls of a pool: one thread leads and looks on behalf of all, the others follow.
//!
//! Owns: the leader's loop. Runs in: the parent, on any thread that waits. Never: sleeps without having said so, or leaves
//! the office without calling the next one.

use std::sync::{Arc, TryLockError};
use std::thread::{Thread, ThreadId};
use std::time::{Duration, Instant};

use super::scheduler::{Office, Schedule};
use super::shared::Core;
use crate::link::spin;

/// The longest sleep of a leader: if the program closes descriptors that it did not open, no bell is left to wake it.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How long a leader without descriptors waits before it looks again.
const LET_HUB_SAY: Duration = Duration::from_millis(1);

/// What a thread can wait for.
pub(super) trait Awaited {
    /// Has `thread` unparked when there is something to see. To be followed by a look.
    fn enlist(&self, thread: Thread);

    /// That thread is not to be told any more.
    fn strike(&self, thread: ThreadId);
}

/// All calls of the pool: the last leader to step down wakes a thread that waits for them.
pub(super) struct Everything;

impl Awaited for Everything {
    fn enlist(&self, _: Thread) {}

    fn strike(&self, _: ThreadId) {}
}

/// Replies of this pool are heard by the hub while there is no leader, as long as this lives.
pub(super) struct Attention(Arc<Core>);

impl Attention {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        core.update(|schedule, owed| {
            schedule.awaited += 1;
            schedule.renew_words(owed);
        });
        Self(Arc::clone(core))
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        let mut schedule = self.0.schedule();
        schedule.awaited = schedule.awaited.saturating_sub(1);
    }
}

impl Core {
    /// Waits until `done`, leading or following; false if `deadline` came first. `awaited` is what makes `done` true, and
    /// `done`, which is called under the mutex too, takes no lock of the pool's.
    pub(super) fn wait(
        self: &Arc<Self>,
        done: &dyn Fn() -> bool,
        awaited: &dyn Awaited,
        deadline: Option<Instant>,
    ) -> bool {
        loop {
            let leads = self.update(|schedule, owed| {
                schedule.collect(owed);
                if done() {
                    // This may be the follower that the last leader woke to be the next; then another one must be.
                    schedule.call_a_leader(owed);
                    return None;
                }
                if schedule.office != Office::Vacant {
                    // Entered under the mutex: the leader cannot leave before it sees us.
                    schedule.followers.push(std::thread::current());
                    return Some(false);
                }
                schedule.take_office();
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
                    awaited.enlist(own.clone());
                    if !done() {
                        park(deadline);
                    }
                    awaited.strike(own.id());
                    self.schedule().followers.retain(|thread| thread.id() != own.id());
                    if !done() && deadline.is_some_and(|at| Instant::now() >= at) {
                        // It may have been woken to lead; then another one must.
                        self.pass_on();
                        return false;
                    }
                }
            }
        }
    }

    /// Waits until `done`, or for `time`, without leading: so workers do not ring for each reply, which takes processors
    /// from them, but only when they have nothing to do. For callers that are not in a hurry.
    pub(super) fn nap(self: &Arc<Self>, done: &dyn Fn() -> bool, awaited: &dyn Awaited, time: Duration) {
        let own = std::thread::current();
        awaited.enlist(own.clone());
        self.update(Schedule::renew_words);
        if !done() {
            std::thread::park_timeout(time);
        }
        awaited.strike(own.id());
    }

    /// Looks for replies and sleeps until there are some, on behalf of all, until `done`.
    fn lead(self: &Arc<Self>, done: &dyn Fn() -> bool, deadline: Option<Instant>) {
        let mut rang = Vec::new();
        let (mut far, mut crowded) = {
            let mut schedule = self.schedule();
            (std::mem::take(&mut schedule.far), schedule.is_crowded())
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
            let sleeps = self.update(|schedule, owed| {
                let any = schedule.collect(owed);
                crowded = schedule.is_crowded();
                if done() || late {
                    schedule.leave_office(owed);
                    return None;
                }
                if any {
                    busy = !schedule.backlog.is_empty();
                    return Some(false);
                }
                schedule.set_asleep(true);
                // A reply that came before the words were seen has rung no bell.
                if schedule.has_reply() {
                    schedule.set_asleep(false);
                    return Some(false);
                }
                schedule.office = Office::Asleep;
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
                        // The program has closed it, as the hub is about to say.
                        std::thread::sleep(LET_HUB_SAY);
                    }
                    if !crowded {
                        self.spin.slept(since);
                    }
                    let mut schedule = self.schedule();
                    schedule.office = Office::Awake;
                    schedule.set_asleep(false);
                }
            }
        }
    }

    /// A look at the replies that does not wait for the mutex; the thread that has it will look.
    fn sees_reply(&self) -> bool {
        match self.schedule.try_lock() {
            Ok(schedule) => schedule.has_reply(),
            Err(TryLockError::Poisoned(schedule)) => schedule.into_inner().has_reply(),
            Err(TryLockError::WouldBlock) => false,
        }
    }

    /// Wakes a follower if there is no leader.
    fn pass_on(self: &Arc<Self>) {
        self.update(Schedule::call_a_leader);
    }
}

pub(super) fn park(deadline: Option<Instant>) {
    match deadline {
        None => std::thread::park(),
        Some(deadline) => std::thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
    }
}
