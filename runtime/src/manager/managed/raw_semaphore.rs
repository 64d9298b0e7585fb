//! A semaphore as a manager keeps it: which permits are whose, and which calls wait for one.
//!
//! Runs in: the manager. No thread waits.
//!
//! | what dies | what it costs |
//! |---|---|
//! | a holder's process | its permits come back |
//! | a waiter's process | nothing |
//! | a waiter's time is over | nothing: what was given to it meanwhile comes back |

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::registrations::Registrations;
use crate::manager::deferred::{self, CallId, ClientBound, Deferred, is_cancelled};
use crate::process_object;
use crate::sys::mutex::MutexExt as _;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct RawSemaphore {
    core: Arc<SemaphoreCore>,
}

/// What came of asking for a permit, or of adding one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PermitAnswer {
    Acquired {
        /// What it is given back by.
        permit: u64,
    },
    /// None is free, and the call cannot wait where it is.
    Busy,
    Done,
    /// There are as many as there may be, or it is not the caller's.
    Refused,
}

#[derive(Debug)]
struct SemaphoreCore {
    bound: u64,
    state: Mutex<SemaphoreState>,
    registrations: Registrations,
}

#[derive(Debug)]
struct SemaphoreState {
    free: u64,
    /// Which client has which permit, by which call.
    held: HashMap<u64, CallId>,
    last: u64,
    waiters: VecDeque<Deferred>,
}

impl SemaphoreState {
    fn take(&mut self, caller: CallId) -> Option<u64> {
        self.free = self.free.checked_sub(1)?;
        self.last += 1;
        self.held.insert(self.last, caller);
        Some(self.last)
    }

    /// Permits of callers that `is_one` says yes to come back.
    fn take_back(&mut self, is_one: impl Fn(CallId) -> bool) -> VecDeque<Deferred> {
        let before = self.held.len();
        self.held.retain(|_, caller| !is_one(*caller));
        self.free += (before - self.held.len()) as u64;
        let (gone, stay) = self.waiters.drain(..).partition(|waiter| is_one(waiter.caller()));
        self.waiters = stay;
        gone
    }
}

impl SemaphoreCore {
    fn locked(&self) -> MutexGuard<'_, SemaphoreState> {
        self.state.lock_unpoisoned()
    }

    fn register(self: &Arc<Self>, client: u32) {
        self.registrations.add(client, self);
    }

    /// Gives free permits to the calls that have waited longest.
    fn pass_on<'s>(&'s self, mut state: MutexGuard<'s, SemaphoreState>) {
        while state.free > 0 {
            let Some(deferred) = state.waiters.pop_front() else { return };
            let caller = deferred.caller();
            let Some(permit) = state.take(caller) else { return };
            drop(state);
            if is_cancelled(caller) || !deferred::is_alive(caller.client) {
                drop(deferred);
                state = self.locked();
                let out = state.take_back(|other| other == caller);
                debug_assert!(out.is_empty(), "a call waits once");
                continue;
            }
            deferred.answer(&PermitAnswer::Acquired { permit });
            state = self.locked();
        }
    }
}

impl ClientBound for SemaphoreCore {
    fn cancelled(&self, caller: CallId) {
        let mut state = self.locked();
        let out = state.take_back(|other| other == caller);
        self.pass_on(state);
        drop(out);
    }

    fn client_gone(&self, client: u32) {
        self.registrations.remove(client);
        let mut state = self.locked();
        let out = state.take_back(|other| other.client == client);
        self.pass_on(state);
        drop(out);
    }
}

#[process_object(crate = crate)]
impl RawSemaphore {
    pub(crate) fn new(permits: u64, bound: u64) -> Self {
        let state = SemaphoreState { free: permits, held: HashMap::new(), last: 0, waiters: VecDeque::new() };
        let core = SemaphoreCore { bound, state: Mutex::new(state), registrations: Registrations::default() };
        Self { core: Arc::new(core) }
    }

    pub(crate) fn try_acquire(&self) -> PermitAnswer {
        let caller = deferred::caller();
        self.core.register(caller.client);
        let permit = self.core.locked().take(caller);
        let Some(permit) = permit else { return PermitAnswer::Busy };
        if is_cancelled(caller) {
            self.core.cancelled(caller);
        }
        PermitAnswer::Acquired { permit }
    }

    /// Is answered when a permit is had.
    pub(crate) fn acquire(&self) -> PermitAnswer {
        let answer = self.try_acquire();
        if answer != PermitAnswer::Busy {
            return answer;
        }
        let Some(deferred) = deferred::defer() else { return PermitAnswer::Busy };
        let caller = deferred.caller();
        let mut state = self.core.locked();
        state.waiters.push_back(deferred);
        // A permit may have come back meanwhile.
        self.core.pass_on(state);
        if is_cancelled(caller) {
            self.core.cancelled(caller);
        }
        answer
    }

    pub(crate) fn release(&self, permit: u64) -> PermitAnswer {
        let client = deferred::caller().client;
        let mut state = self.core.locked();
        if state.held.get(&permit).is_none_or(|caller| caller.client != client) {
            return PermitAnswer::Refused;
        }
        state.held.remove(&permit);
        state.free += 1;
        self.core.pass_on(state);
        PermitAnswer::Done
    }

    /// The permit does not come back.
    pub(crate) fn forget(&self, permit: u64) {
        let client = deferred::caller().client;
        let mut state = self.core.locked();
        if state.held.get(&permit).is_some_and(|caller| caller.client == client) {
            state.held.remove(&permit);
        }
    }

    pub(crate) fn add_permit(&self) -> PermitAnswer {
        let mut state = self.core.locked();
        if state.free + state.held.len() as u64 >= self.core.bound {
            return PermitAnswer::Refused;
        }
        state.free += 1;
        self.core.pass_on(state);
        PermitAnswer::Done
    }

    pub(crate) fn available(&self) -> u64 {
        self.core.locked().free
    }
}
