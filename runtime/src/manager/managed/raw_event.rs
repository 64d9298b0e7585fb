//! An event and a barrier as a manager keeps them, with the calls that wait for them.
//!
//! Runs in: the manager. No thread waits.
//!
//! | what dies | what it costs |
//! |---|---|
//! | the process of a call that waits for an event | nothing |
//! | the process of a party that waits | the barrier breaks |

use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::registrations::Registrations;
use crate::manager::deferred::{self, CallId, ClientBound, Deferred, is_cancelled};
use crate::process_object;
use crate::sys::mutex::MutexExt as _;

/// Something that happens once, until it is cleared.
#[derive(Debug)]
pub(crate) struct RawEvent {
    core: Arc<EventCore>,
}

#[derive(Debug, Default)]
struct EventCore {
    state: Mutex<EventState>,
    registrations: Registrations,
}

#[derive(Debug, Default)]
struct EventState {
    is_set: bool,
    waiters: Vec<Deferred>,
}

/// What came of waiting for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EventAnswer {
    Set,
    /// It is not set, and the call cannot wait where it is.
    Unset,
}

impl EventCore {
    fn take_out(&self, is_one: impl Fn(CallId) -> bool) {
        let mut state = self.state.lock_unpoisoned();
        let (gone, stay): (Vec<_>, _) = state.waiters.drain(..).partition(|waiter| is_one(waiter.caller()));
        state.waiters = stay;
        drop(state);
        drop(gone);
    }
}

impl ClientBound for EventCore {
    fn cancelled(&self, caller: CallId) {
        self.take_out(|other| other == caller);
    }

    fn client_gone(&self, client: u32) {
        self.registrations.remove(client);
        self.take_out(|other| other.client == client);
    }
}

#[process_object(crate = crate)]
impl RawEvent {
    pub(crate) fn new() -> Self {
        Self { core: Arc::default() }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.core.state.lock_unpoisoned().is_set
    }

    pub(crate) fn set(&self) {
        let mut state = self.core.state.lock_unpoisoned();
        state.is_set = true;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        for waiter in waiters {
            waiter.answer(&EventAnswer::Set);
        }
    }

    pub(crate) fn clear(&self) {
        self.core.state.lock_unpoisoned().is_set = false;
    }

    /// Is answered when the event is set.
    pub(crate) fn wait(&self) -> EventAnswer {
        let core = &self.core;
        core.registrations.add(deferred::caller().client, core);
        let mut state = core.state.lock_unpoisoned();
        if state.is_set {
            return EventAnswer::Set;
        }
        let Some(deferred) = deferred::defer() else { return EventAnswer::Unset };
        let caller = deferred.caller();
        state.waiters.push(deferred);
        drop(state);
        if is_cancelled(caller) {
            core.cancelled(caller);
        }
        EventAnswer::Unset
    }
}

/// A meeting of so many parties.
#[derive(Debug)]
pub(crate) struct RawBarrier {
    core: Arc<BarrierCore>,
}

#[derive(Debug)]
struct BarrierCore {
    parties: usize,
    state: Mutex<BarrierState>,
    registrations: Registrations,
}

#[derive(Debug, Default)]
struct BarrierState {
    is_broken: bool,
    /// Those that have arrived, in order.
    arrived: Vec<Deferred>,
}

/// What came of waiting at a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BarrierAnswer {
    /// All have arrived; this was the party with that number, from 0.
    Passed {
        index: usize,
    },
    Broken,
    /// Others have to arrive, and the call cannot wait where it is.
    Waits,
}

impl BarrierCore {
    /// Breaks the barrier if a call that waits there is one of those, or in any case.
    fn break_it(&self, because_of: impl Fn(CallId) -> bool, always: bool) {
        let mut state = self.state.lock_unpoisoned();
        if !always && !state.arrived.iter().any(|waiter| because_of(waiter.caller())) {
            return;
        }
        state.is_broken = true;
        Self::release(state);
    }

    fn release(mut state: MutexGuard<'_, BarrierState>) {
        let arrived = std::mem::take(&mut state.arrived);
        drop(state);
        for waiter in arrived {
            waiter.answer(&BarrierAnswer::Broken);
        }
    }
}

impl ClientBound for BarrierCore {
    fn cancelled(&self, caller: CallId) {
        self.break_it(|other| other == caller, false);
    }

    fn client_gone(&self, client: u32) {
        self.registrations.remove(client);
        self.break_it(|other| other.client == client, false);
    }
}

#[process_object(crate = crate)]
impl RawBarrier {
    pub(crate) fn new(parties: usize) -> Self {
        let core = BarrierCore { parties, state: Mutex::default(), registrations: Registrations::default() };
        Self { core: Arc::new(core) }
    }

    /// Is answered when all have arrived, or when the barrier breaks.
    pub(crate) fn wait(&self) -> BarrierAnswer {
        let core = &self.core;
        core.registrations.add(deferred::caller().client, core);
        let mut state = core.state.lock_unpoisoned();
        if state.is_broken {
            return BarrierAnswer::Broken;
        }
        let index = state.arrived.len();
        if index + 1 >= core.parties {
            let arrived = std::mem::take(&mut state.arrived);
            drop(state);
            for (index, waiter) in arrived.into_iter().enumerate() {
                waiter.answer(&BarrierAnswer::Passed { index });
            }
            return BarrierAnswer::Passed { index };
        }
        let Some(deferred) = deferred::defer() else { return BarrierAnswer::Waits };
        let caller = deferred.caller();
        state.arrived.push(deferred);
        drop(state);
        if is_cancelled(caller) {
            core.cancelled(caller);
        }
        BarrierAnswer::Waits
    }

    pub(crate) fn abort(&self) {
        self.core.break_it(|_| true, true);
    }

    /// Breaks it for those that wait, and mends it for those that come.
    pub(crate) fn reset(&self) {
        let mut state = self.core.state.lock_unpoisoned();
        state.is_broken = false;
        BarrierCore::release(state);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.core.state.lock_unpoisoned().arrived.len()
    }

    pub(crate) fn parties(&self) -> usize {
        self.core.parties
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.core.state.lock_unpoisoned().is_broken
    }
}
