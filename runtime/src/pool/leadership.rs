//! Which thread polls for replies: the leader, the followers, and when workers have to notify.
//!
//! Runs in: the parent, under the scheduler's mutex.
//!
//! | leader | a worker notifies | heard by |
//! |---|---|---|
//! | polling | never | the leader, which looks |
//! | parked | for each reply | the leader, in the pool's epoll set |
//! | none | as [`Leadership::needed`] says | the reactor |
//!
//! Flags are raised as soon as they are needed. They are lowered by a new leader, or when the reactor was notified: a
//! notification that is not needed costs one wake-up.

use std::thread::{Thread, ThreadId};

use super::slot::NotifyFlags;

/// Whether a thread leads: polls for replies on behalf of all waiting threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Leader {
    /// None does. The reactor hears the workers' doorbells.
    #[default]
    None,
    /// One does, and polls.
    Polling,
    /// One does, and sleeps in the pool's epoll set.
    Parked,
}

/// The leader, and what is known of it.
#[derive(Debug, Default)]
pub(super) struct Leadership {
    leader: Leader,
    /// Threads that wait while another one leads.
    followers: Vec<Thread>,
    /// What every worker that has something to answer was told.
    flags: NotifyFlags,
    /// Calls with replies that must be taken though no thread waits: futures and callbacks wait for them, or they have
    /// handles, which are memory that is not released before.
    interest: usize,
    /// The last call went to a worker that had to be woken, so its reply is not near.
    far: bool,
}

impl Leadership {
    #[inline]
    pub(super) fn leader(&self) -> Leader {
        self.leader
    }

    #[inline]
    pub(super) fn flags(&self) -> NotifyFlags {
        self.flags
    }

    pub(super) fn set_leader(&mut self, leader: Leader) {
        self.leader = leader;
    }

    /// Notes what workers are to be told. False if they were told that already.
    pub(super) fn replace_flags(&mut self, flags: NotifyFlags) -> bool {
        std::mem::replace(&mut self.flags, flags) != flags
    }

    pub(super) fn add_follower(&mut self, thread: Thread) {
        self.followers.push(thread);
    }

    pub(super) fn remove_follower(&mut self, thread: ThreadId) {
        self.followers.retain(|follower| follower.id() != thread);
    }

    /// The follower that is to be woken to lead, if there is no leader.
    pub(super) fn next_follower(&mut self) -> Option<Thread> {
        if self.leader == Leader::None { self.followers.pop() } else { None }
    }

    pub(super) fn add_interest(&mut self) {
        self.interest += 1;
    }

    #[inline]
    pub(super) fn remove_interest(&mut self, count: usize) {
        self.interest = self.interest.saturating_sub(count);
    }

    pub(super) fn set_far(&mut self, far: bool) {
        self.far = far;
    }

    pub(super) fn take_far(&mut self) -> bool {
        std::mem::take(&mut self.far)
    }

    /// Without a leader, what workers have to notify of: each reply if there is interest in it, or if its time matters
    /// (`timed`); being idle if work waits.
    #[inline]
    pub(super) fn needed(&self, timed: bool, work_waits: bool) -> NotifyFlags {
        NotifyFlags { reply: self.interest > 0 || timed, idle: work_waits }
    }

    /// Whether workers have to be told of `needed`: there is no leader, and it was not told.
    #[inline]
    pub(super) fn lacks(&self, needed: NotifyFlags) -> bool {
        self.leader == Leader::None && (needed.reply && !self.flags.reply || needed.idle && !self.flags.idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: NotifyFlags = NotifyFlags { reply: false, idle: false };
    const REPLY: NotifyFlags = NotifyFlags { reply: true, idle: false };
    const IDLE: NotifyFlags = NotifyFlags { reply: false, idle: true };

    #[test]
    fn flags_are_raised_only_without_a_leader() {
        let mut leadership = Leadership::default();
        assert!(!leadership.lacks(NEVER));
        assert!(leadership.lacks(REPLY) && leadership.lacks(IDLE));
        for leader in [Leader::Polling, Leader::Parked] {
            leadership.set_leader(leader);
            assert!(!leadership.lacks(REPLY) && !leadership.lacks(IDLE));
        }
    }

    #[test]
    fn flags_that_were_told_are_not_lacking() {
        let mut leadership = Leadership::default();
        assert!(leadership.replace_flags(IDLE));
        assert!(!leadership.replace_flags(IDLE));
        assert!(!leadership.lacks(IDLE) && leadership.lacks(REPLY));
        assert!(!leadership.lacks(NEVER), "a flag too many is lowered later");
    }

    #[test]
    fn interest_needs_a_notification_for_each_reply() {
        let mut leadership = Leadership::default();
        assert_eq!(leadership.needed(false, true), IDLE);
        leadership.add_interest();
        assert_eq!(leadership.needed(false, false), REPLY);
        leadership.remove_interest(1);
        leadership.remove_interest(1);
        assert_eq!(leadership.needed(false, false), NEVER);
        assert_eq!(leadership.needed(true, false), REPLY);
    }

    #[test]
    fn follower_is_promoted_only_without_a_leader() {
        let mut leadership = Leadership::default();
        leadership.add_follower(std::thread::current());
        leadership.set_leader(Leader::Parked);
        assert!(leadership.next_follower().is_none());
        leadership.set_leader(Leader::None);
        assert!(leadership.next_follower().is_some());
        assert!(leadership.next_follower().is_none());
    }

    #[test]
    fn follower_that_left_is_not_promoted() {
        let mut leadership = Leadership::default();
        leadership.add_follower(std::thread::current());
        leadership.remove_follower(std::thread::current().id());
        assert!(leadership.next_follower().is_none());
    }
}
