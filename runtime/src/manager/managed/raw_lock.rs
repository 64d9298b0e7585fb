//! A lock as a manager keeps it, with its conditions: which client holds it, and which calls wait for it.
//!
//! Runs in: the manager. No thread waits.
//! Invariant: what is given back has a number of its own, so that a call that comes late gives back nothing that was had later.
//!
//! | what dies | what it costs |
//! |---|---|
//! | the holder's process | the lock is released and poisoned |
//! | a waiter's process | nothing |
//! | a waiter's time is over | nothing: what was given to it meanwhile is taken back, and its notification goes to the next one |

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::registrations::Registrations;
use crate::manager::deferred::{self, CallId, ClientBound, Deferred, is_cancelled};
use crate::process_object;
use crate::sys::mutex::MutexExt as _;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct RawLock {
    core: Arc<LockCore>,
}

/// What came of asking for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LockAnswer {
    /// `grant`: what it is released by.
    Locked { poisoned: bool, grant: u64 },
    /// Another holds it, and the call cannot wait where it is.
    Busy,
    /// It does not hold what it would give back.
    NotHeld,
}

/// A thread, or a guard, of a client.
type Owner = (u32, u64);

#[derive(Debug)]
struct LockCore {
    is_reentrant: bool,
    state: Mutex<LockState>,
    registrations: Registrations,
}

#[derive(Debug, Default)]
struct LockState {
    holder: Option<Holder>,
    is_poisoned: bool,
    waiters: VecDeque<LockWaiter>,
    conditions: HashMap<u64, VecDeque<LockWaiter>>,
    last_condition: u64,
    last_grant: u64,
}

#[derive(Debug)]
struct Holder {
    owner: Owner,
    /// One for each time that it is to be released.
    grants: Vec<Grant>,
}

impl Holder {
    fn has(&self, client: u32, grant: u64) -> bool {
        self.owner.0 == client && self.grants.iter().any(|other| other.number == grant)
    }
}

/// One time that a lock was given.
#[derive(Debug)]
struct Grant {
    /// What it is given back by. It stays the same while its owner waits for a condition.
    number: u64,
    /// The call by which its owner has the lock.
    call: u64,
    /// The condition whose notification that call got.
    notified: Option<u64>,
}

#[derive(Debug)]
struct LockWaiter {
    deferred: Deferred,
    owner: Owner,
    /// The grants that it will have: those that it had when it began to wait for a condition.
    grants: Vec<u64>,
    /// The one of them that is told.
    grant: u64,
    /// The condition that was notified, if it waited for one.
    notified: Option<u64>,
}

impl LockWaiter {
    fn caller(&self) -> CallId {
        self.deferred.caller()
    }
}

impl LockState {
    /// The number of a new grant.
    fn next_grant(&mut self) -> u64 {
        self.last_grant += 1;
        self.last_grant
    }

    /// Gives the lock to `owner`, if it is free, or is its own and can be held twice. Returns the grant.
    fn take(&mut self, owner: Owner, call: u64, is_reentrant: bool) -> Option<u64> {
        if self.holder.as_ref().is_some_and(|holder| !is_reentrant || holder.owner != owner) {
            return None;
        }
        let number = self.next_grant();
        let holder = self.holder.get_or_insert_with(|| Holder { owner, grants: Vec::with_capacity(1) });
        holder.grants.push(Grant { number, call, notified: None });
        Some(number)
    }

    /// Takes back what that call got. A notification goes to another call.
    fn take_back(&mut self, caller: CallId) {
        let Some(holder) = self.holder.as_mut().filter(|holder| holder.owner.0 == caller.client) else { return };
        let notified = holder.grants.iter().filter(|grant| grant.call == caller.call).find_map(|grant| grant.notified);
        self.give_back(|grant| grant.call == caller.call);
        if let Some(condition) = notified {
            self.notify(condition, 1);
        }
    }

    /// The holder has those grants no more.
    fn give_back(&mut self, is_one: impl Fn(&Grant) -> bool) {
        if let Some(holder) = &mut self.holder {
            holder.grants.retain(|grant| !is_one(grant));
            if holder.grants.is_empty() {
                self.holder = None;
            }
        }
    }

    /// Has so many calls that wait for `condition` wait for the lock. Returns how many there were.
    fn notify(&mut self, condition: u64, most: usize) -> usize {
        let Some(list) = self.conditions.get_mut(&condition) else { return 0 };
        let count = list.len().min(most);
        let woken = list.drain(..count).map(|waiter| LockWaiter { notified: Some(condition), ..waiter });
        self.waiters.extend(woken);
        if list.is_empty() {
            self.conditions.remove(&condition);
        }
        count
    }

    fn lists(&mut self) -> impl Iterator<Item = &mut VecDeque<LockWaiter>> {
        self.conditions.values_mut().chain([&mut self.waiters])
    }

    /// Takes out the waiters that `is_one` says yes to. They are to be dropped without the lock.
    fn take_out(&mut self, is_one: impl Fn(CallId) -> bool) -> Vec<LockWaiter> {
        let mut out = Vec::new();
        for list in self.lists() {
            let (gone, stay) = list.drain(..).partition(|waiter| is_one(waiter.caller()));
            *list = stay;
            out.extend::<VecDeque<_>>(gone);
        }
        self.conditions.retain(|_, list| !list.is_empty());
        // What it was notified of, another one is to hear.
        for condition in out.iter().filter_map(|waiter| waiter.notified) {
            self.notify(condition, 1);
        }
        out
    }
}

impl LockCore {
    fn locked(&self) -> MutexGuard<'_, LockState> {
        self.state.lock_unpoisoned()
    }

    fn register(self: &Arc<Self>, client: u32) {
        self.registrations.add(client, self);
    }

    /// What is left to do when the lock was given to a call: the call may be over.
    fn given(&self, caller: CallId) {
        if is_cancelled(caller) {
            let mut state = self.locked();
            state.take_back(caller);
            self.pass_on(state);
        }
    }

    /// Gives a free lock to the call that has waited longest.
    fn pass_on<'s>(&'s self, mut state: MutexGuard<'s, LockState>) {
        while state.holder.is_none() {
            let Some(waiter) = state.waiters.pop_front() else { return };
            let caller = waiter.caller();
            // Asked under the lock: news that comes after this finds what was given, and one that is dead poisons nothing.
            if is_cancelled(caller) || !deferred::is_alive(caller.client) {
                if let Some(condition) = waiter.notified {
                    state.notify(condition, 1);
                }
                drop(state);
                drop(waiter);
                state = self.locked();
                continue;
            }
            let LockWaiter { deferred, owner, grants, grant, notified } = waiter;
            let grants = grants.into_iter().map(|number| Grant { number, call: caller.call, notified });
            state.holder = Some(Holder { owner, grants: grants.collect() });
            let answer = LockAnswer::Locked { poisoned: state.is_poisoned, grant };
            drop(state);
            return deferred.answer(&answer);
        }
    }
}

impl ClientBound for LockCore {
    fn cancelled(&self, caller: CallId) {
        let mut state = self.locked();
        let out = state.take_out(|other| other == caller);
        state.take_back(caller);
        self.pass_on(state);
        drop(out);
    }

    fn client_gone(&self, client: u32) {
        self.registrations.remove(client);
        let mut state = self.locked();
        let out = state.take_out(|other| other.client == client);
        if state.holder.as_ref().is_some_and(|holder| holder.owner.0 == client) {
            state.holder = None;
            state.is_poisoned = true;
        }
        self.pass_on(state);
        drop(out);
    }
}

#[process_object(crate = crate)]
impl RawLock {
    pub(crate) fn new(is_reentrant: bool) -> Self {
        let core = LockCore { is_reentrant, state: Mutex::default(), registrations: Registrations::default() };
        Self { core: Arc::new(core) }
    }

    pub(crate) fn try_lock(&self, owner: u64) -> LockAnswer {
        let caller = deferred::caller();
        self.core.register(caller.client);
        let mut state = self.core.locked();
        let Some(grant) = state.take((caller.client, owner), caller.call, self.core.is_reentrant) else {
            return LockAnswer::Busy;
        };
        let answer = LockAnswer::Locked { poisoned: state.is_poisoned, grant };
        drop(state);
        self.core.given(caller);
        answer
    }

    /// Is answered when the lock is had.
    pub(crate) fn lock(&self, owner: u64) -> LockAnswer {
        let answer = self.try_lock(owner);
        if answer != LockAnswer::Busy {
            return answer;
        }
        let Some(deferred) = deferred::defer() else { return LockAnswer::Busy };
        let caller = deferred.caller();
        let mut state = self.core.locked();
        let grant = state.next_grant();
        let owner = (caller.client, owner);
        let waiter = LockWaiter { deferred, owner, grants: vec![grant], grant, notified: None };
        state.waiters.push_back(waiter);
        // The lock may have been released meanwhile.
        self.core.pass_on(state);
        if is_cancelled(caller) {
            self.core.cancelled(caller);
        }
        answer
    }

    pub(crate) fn unlock(&self, grant: u64, poisons: bool) -> LockAnswer {
        let client = deferred::caller().client;
        let mut state = self.core.locked();
        if !state.holder.as_ref().is_some_and(|holder| holder.has(client, grant)) {
            return LockAnswer::NotHeld;
        }
        state.give_back(|other| other.number == grant);
        state.is_poisoned |= poisons;
        let answer = LockAnswer::Locked { poisoned: state.is_poisoned, grant };
        self.core.pass_on(state);
        answer
    }

    pub(crate) fn poisoned(&self) -> bool {
        self.core.locked().is_poisoned
    }

    pub(crate) fn forgive(&self) {
        self.core.locked().is_poisoned = false;
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.core.locked().holder.is_some()
    }

    pub(crate) fn new_condition(&self) -> u64 {
        let mut state = self.core.locked();
        state.last_condition += 1;
        state.last_condition
    }

    /// Releases the lock, and is answered when the condition was notified and the lock is had again.
    pub(crate) fn wait(&self, condition: u64, grant: u64) -> LockAnswer {
        let caller = deferred::caller();
        let mut state = self.core.locked();
        if !state.holder.as_ref().is_some_and(|holder| holder.has(caller.client, grant)) {
            return LockAnswer::NotHeld;
        }
        let Some(deferred) = deferred::defer() else { return LockAnswer::Busy };
        let Some(Holder { owner, grants }) = state.holder.take() else { return LockAnswer::NotHeld };
        let grants = grants.into_iter().map(|grant| grant.number).collect();
        let waiter = LockWaiter { deferred, owner, grants, grant, notified: None };
        state.conditions.entry(condition).or_default().push_back(waiter);
        self.core.pass_on(state);
        if is_cancelled(caller) {
            self.core.cancelled(caller);
        }
        LockAnswer::Busy
    }

    /// Has so many calls that wait for the condition wait for the lock. Returns how many.
    pub(crate) fn notify(&self, condition: u64, most: usize) -> usize {
        let mut state = self.core.locked();
        let count = state.notify(condition, most);
        self.core.pass_on(state);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::deferred::{AnswerPlace, with_caller};

    fn id(call: u64) -> CallId {
        CallId { client: 0, call }
    }

    fn call(number: u64, call: impl FnOnce() -> LockAnswer) -> LockAnswer {
        with_caller(id(number), AnswerPlace::Own, call).0
    }

    fn grant(answer: LockAnswer) -> u64 {
        let LockAnswer::Locked { grant, .. } = answer else { panic!("{answer:?}") };
        grant
    }

    fn owner(lock: &RawLock) -> Option<u64> {
        lock.core.locked().holder.as_ref().map(|holder| holder.owner.1)
    }

    #[test]
    fn release_of_a_late_wait_gives_back_no_later_lock() {
        let lock = RawLock::new(true);
        let condition = lock.new_condition();
        let first = grant(call(1, || lock.try_lock(7)));
        assert_eq!(call(2, || lock.wait(condition, first)), LockAnswer::Busy);
        lock.core.cancelled(id(2));
        // The same thread locks before its release of the wait, which is late, comes.
        let again = grant(call(3, || lock.try_lock(7)));
        assert_eq!(call(4, || lock.unlock(first, false)), LockAnswer::NotHeld);
        assert_eq!(owner(&lock), Some(7));
        assert_eq!(grant(call(5, || lock.unlock(again, false))), again);
        assert_eq!(owner(&lock), None);
    }

    #[test]
    fn wait_keeps_each_grant_of_its_owner() {
        let lock = RawLock::new(true);
        let condition = lock.new_condition();
        let (outer, inner) = (grant(call(1, || lock.try_lock(7))), grant(call(2, || lock.lock(7))));
        assert_eq!(call(3, || lock.wait(condition, inner)), LockAnswer::Busy);
        assert_eq!(owner(&lock), None);
        assert_eq!(lock.notify(condition, 1), 1);
        assert_eq!(grant(call(4, || lock.unlock(inner, false))), inner);
        assert_eq!(owner(&lock), Some(7));
        assert_eq!(grant(call(5, || lock.unlock(outer, false))), outer);
        assert_eq!(owner(&lock), None);
    }

    #[test]
    fn notification_of_a_wait_that_has_the_lock_too_late_goes_on() {
        let lock = RawLock::new(false);
        let condition = lock.new_condition();
        for (number, owner) in [(1, 7), (3, 8)] {
            let grant = grant(call(number, || lock.try_lock(owner)));
            assert_eq!(call(number + 1, || lock.wait(condition, grant)), LockAnswer::Busy);
        }
        assert_eq!(lock.notify(condition, 1), 1);
        assert_eq!(owner(&lock), Some(7));
        lock.core.cancelled(id(2));
        assert_eq!(owner(&lock), Some(8));
    }
}
