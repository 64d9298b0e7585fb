//! A lock as a manager keeps it, with its conditions: which client holds it, and which calls wait for it.
//!
//! Runs in: the manager. No thread waits.
//!
//! | what dies | what it costs |
//! |---|---|
//! | the holder's process | the lock is released and poisoned |
//! | a waiter's process | nothing |
//! | a waiter's time is over | nothing: what was given to it meanwhile is taken back |

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
    Locked {
        poisoned: bool,
    },
    /// Another holds it, and the call cannot wait where it is.
    Busy,
    /// It does not hold the lock that it would give back.
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
}

#[derive(Debug)]
struct Holder {
    owner: Owner,
    /// The calls by which it got the lock: one for each time that it is to be released.
    grants: Vec<u64>,
}

#[derive(Debug)]
struct LockWaiter {
    deferred: Deferred,
    owner: Owner,
    /// How often the owner held the lock when it began to wait for a condition; 1 for the lock itself.
    depth: usize,
    /// The condition that was notified, if it waited for one.
    notified: Option<u64>,
}

impl LockWaiter {
    fn caller(&self) -> CallId {
        self.deferred.caller()
    }
}

impl LockState {
    /// Gives the lock to `owner`, if it is free, or is its own and can be held twice.
    fn take(&mut self, owner: Owner, call: u64, is_reentrant: bool) -> bool {
        match &mut self.holder {
            None => self.holder = Some(Holder { owner, grants: vec![call] }),
            Some(holder) if is_reentrant && holder.owner == owner => holder.grants.push(call),
            Some(_) => return false,
        }
        true
    }

    /// Takes back what that call got.
    fn take_back(&mut self, caller: CallId) {
        if let Some(holder) = self.holder.as_mut().filter(|holder| holder.owner.0 == caller.client) {
            holder.grants.retain(|call| *call != caller.call);
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
            let Some(LockWaiter { deferred, owner, depth, notified }) = state.waiters.pop_front() else { return };
            let caller = deferred.caller();
            state.holder = Some(Holder { owner, grants: vec![caller.call; depth] });
            let answer = LockAnswer::Locked { poisoned: state.is_poisoned };
            drop(state);
            if !is_cancelled(caller) && deferred::is_alive(caller.client) {
                deferred.answer(&answer);
                return;
            }
            drop(deferred);
            state = self.locked();
            state.take_back(caller);
            if let Some(condition) = notified {
                state.notify(condition, 1);
            }
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
        if !state.take((caller.client, owner), caller.call, self.core.is_reentrant) {
            return LockAnswer::Busy;
        }
        let answer = LockAnswer::Locked { poisoned: state.is_poisoned };
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
        let waiter = LockWaiter { deferred, owner: (caller.client, owner), depth: 1, notified: None };
        let mut state = self.core.locked();
        state.waiters.push_back(waiter);
        // The lock may have been released meanwhile.
        self.core.pass_on(state);
        if is_cancelled(caller) {
            self.core.cancelled(caller);
        }
        answer
    }

    pub(crate) fn unlock(&self, owner: u64, poisons: bool) -> LockAnswer {
        let caller = deferred::caller();
        let mut state = self.core.locked();
        let Some(holder) = state.holder.as_mut().filter(|holder| holder.owner == (caller.client, owner)) else {
            return LockAnswer::NotHeld;
        };
        holder.grants.pop();
        if holder.grants.is_empty() {
            state.holder = None;
        }
        state.is_poisoned |= poisons;
        let answer = LockAnswer::Locked { poisoned: state.is_poisoned };
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
    pub(crate) fn wait(&self, condition: u64, owner: u64) -> LockAnswer {
        let caller = deferred::caller();
        let mut state = self.core.locked();
        if state.holder.as_ref().is_none_or(|holder| holder.owner != (caller.client, owner)) {
            return LockAnswer::NotHeld;
        }
        let Some(deferred) = deferred::defer() else { return LockAnswer::Busy };
        let holder = state.holder.take();
        let depth = holder.map_or(1, |holder| holder.grants.len());
        let waiter = LockWaiter { deferred, owner: (caller.client, owner), depth, notified: None };
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
