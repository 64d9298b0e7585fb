//! Waiting for calls of a pool: one thread leads and polls for all, the others follow and sleep.
//!
//! Runs in: the parent, on any thread that waits.
//! Invariant: the leader sets the flag for a notification before it sleeps, and promotes a follower when it steps down.
//!
//! Why a waiting thread takes no processor from a worker: where as many workers are busy as there are processors, a
//! leader spins for 4 us only and then parks. A map parks without leading, so that no worker notifies it of each
//! reply. To spin as long as when processors are idle made work of 100 us a third slower than rayon's; now it is as
//! fast.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::leadership::Leader;
use super::scheduler::Scheduler;
use super::shared::Shared;
use super::waitable::{Waitable, park};
use crate::link::spin;

/// The longest sleep of a leader: if the program closes descriptors that it did not open, no doorbell is left to wake it.
const MAX_SLEEP: Duration = Duration::from_millis(500);

/// How long a leader without descriptors sleeps before it polls again.
const SLEEP_WITHOUT_SET: Duration = Duration::from_millis(1);

/// Registers interest in the replies of a pool: the reactor hears of them while there is no leader, as long as this lives.
pub(super) struct ReplyInterest(Arc<Shared>);

impl ReplyInterest {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.update(|scheduler| scheduler.leadership.add_interest());
        Self(Arc::clone(shared))
    }
}

impl Drop for ReplyInterest {
    fn drop(&mut self) {
        self.0.update(|scheduler| scheduler.leadership.remove_interest(1));
    }
}

/// What a thread does that waits.
enum Role {
    Done,
    Leads(PollHints),
    Follows,
}

/// What a new leader knows of the replies that it waits for.
#[derive(Clone, Copy)]
struct PollHints {
    /// The last call went to a worker that had to be woken, so its reply is not near.
    far: bool,
    /// Workers need every processor.
    crowded: bool,
}

impl Shared {
    /// Waits until `done`, leading or following; false if `deadline` came first. `waitable` is what makes `done` true, and
    /// `done`, which is called under the mutex too, takes no lock of the pool's.
    pub(super) fn wait(
        self: &Arc<Self>,
        done: &dyn Fn() -> bool,
        waitable: &dyn Waitable,
        deadline: Option<Instant>,
    ) -> bool {
        loop {
            let role = self.update(|scheduler| {
                scheduler.collect();
                if done() {
                    // This may be the follower that was to become the leader; then another one must.
                    scheduler.promote_follower();
                    return Role::Done;
                }
                if scheduler.leadership.leader() != Leader::None {
                    // Registered under the mutex: the leader cannot step down before it sees this thread.
                    scheduler.leadership.add_follower(std::thread::current());
                    return Role::Follows;
                }
                scheduler.become_leader();
                // What follows from the replies: how busy the workers are is read below. Now that there is a leader, no
                // worker is told to notify.
                scheduler.settle();
                Role::Leads(PollHints { far: scheduler.leadership.take_far(), crowded: scheduler.is_crowded() })
            });
            match role {
                Role::Done => return true,
                Role::Leads(hints) => {
                    self.lead(done, deadline, hints);
                    return done();
                }
                Role::Follows => {
                    let own = std::thread::current();
                    waitable.enlist(own.clone());
                    if !done() {
                        park(deadline);
                    }
                    waitable.strike(own.id());
                    let late = !done() && deadline.is_some_and(|at| Instant::now() >= at);
                    self.update(|scheduler| {
                        scheduler.leadership.remove_follower(own.id());
                        if late {
                            // It may have been woken to lead; then another one must.
                            scheduler.promote_follower();
                        }
                    });
                    if late {
                        return false;
                    }
                }
            }
        }
    }

    /// Waits until `done`, or for `time`, without leading: so workers do not notify for each reply, which takes processors
    /// from them, but only when they go idle. For callers that are not in a hurry.
    pub(super) fn nap(self: &Arc<Self>, done: &dyn Fn() -> bool, waitable: &dyn Waitable, time: Duration) {
        let own = std::thread::current();
        waitable.enlist(own.clone());
        self.update(|_| ());
        if !done() {
            std::thread::park_timeout(time);
        }
        waitable.strike(own.id());
    }

    /// Polls for replies and sleeps until there are some, on behalf of all, until `done`.
    fn lead(self: &Arc<Self>, done: &dyn Fn() -> bool, deadline: Option<Instant>, hints: PollHints) {
        let mut rang = Vec::new();
        let PollHints { mut far, mut crowded } = hints;
        let mut busy = false;
        loop {
            if std::mem::take(&mut busy) {
                // Every worker has enough to do; each look at their replies takes a cache line from one of them.
                spin::pause();
            }
            if !std::mem::take(&mut far) {
                let there = || done() || self.try_inspect(Scheduler::has_reply).unwrap_or(false);
                // Where workers need every processor, looking takes time from the one that is to reply.
                if crowded {
                    spin::briefly(there);
                } else {
                    self.spin.until(there);
                }
            }
            let late = deadline.is_some_and(|at| Instant::now() >= at);
            let sleeps = self.update(|scheduler| {
                let any = scheduler.poll();
                crowded = scheduler.is_crowded();
                if done() || late {
                    scheduler.step_down();
                    return None;
                }
                if any {
                    busy = scheduler.has_backlog();
                    return Some(false);
                }
                Some(scheduler.park_leader())
            });
            match sleeps {
                None => return,
                Some(false) => {}
                Some(true) => {
                    let since = Instant::now();
                    let poll_again = since.checked_add(MAX_SLEEP);
                    let until = deadline.into_iter().chain(poll_again).min();
                    if self.set.wait(&mut rang, until).is_err() {
                        // The program has closed it, as the reactor is about to report.
                        std::thread::sleep(SLEEP_WITHOUT_SET);
                    }
                    if !crowded {
                        self.spin.slept(since);
                    }
                    self.update(Scheduler::become_leader);
                }
            }
        }
    }
}
