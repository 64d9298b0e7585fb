//! A queue as a manager keeps it: its items, those that are lent, and the calls that wait.
//!
//! Runs in: the manager. No thread waits.
//!
//! An item that is got is *lent* until its getter says that it has it. If the getter's process has ended by then, or
//! does not wait for the call any more, the item comes back, to the front.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::registrations::Registrations;
use super::stored::Stored;
use crate::manager::deferred::{self, CallId, ClientBound, Deferred, is_cancelled};
use crate::process_object;
use crate::sys::mutex::MutexExt as _;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct RawQueue {
    core: Arc<ItemsCore>,
}

/// What came of asking for an item.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum GetAnswer {
    Got {
        item: Stored,
        /// What it is settled by; 0 if that is not needed.
        number: u64,
    },
    /// There is none, and the call cannot wait where it is.
    Empty,
    Closed,
}

/// What came of putting an item, or of waiting until all are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PutAnswer {
    Done,
    /// It cannot be done now, and the call cannot wait where it is.
    Busy,
    Closed,
}

#[derive(Debug)]
struct ItemsCore {
    capacity: usize,
    state: Mutex<ItemsState>,
    registrations: Registrations,
}

#[derive(Debug, Default)]
struct ItemsState {
    items: VecDeque<Stored>,
    /// By number, so that they come back in order.
    lent: BTreeMap<u64, (CallId, Stored)>,
    last_number: u64,
    /// Number of items that were put and are not done.
    unfinished: usize,
    is_closed: bool,
    getters: VecDeque<Deferred>,
    putters: VecDeque<(Deferred, Stored)>,
    joiners: Vec<Deferred>,
}

/// An answer that is to be given without the lock.
enum Due {
    Get(Deferred, GetAnswer),
    Put(Deferred, PutAnswer),
}

impl ItemsState {
    fn lend(&mut self, caller: CallId, item: Stored) -> GetAnswer {
        self.last_number += 1;
        self.lent.insert(self.last_number, (caller, item.clone()));
        GetAnswer::Got { item, number: self.last_number }
    }

    /// Has what calls and processes of `is_one` had come back, and takes their waiting calls out.
    fn take_back(&mut self, is_one: impl Fn(CallId) -> bool) -> Vec<Deferred> {
        let lent: Vec<u64> =
            self.lent.iter().filter(|(_, (caller, _))| is_one(*caller)).map(|(number, _)| *number).collect();
        for number in lent.into_iter().rev() {
            if let Some((_, item)) = self.lent.remove(&number) {
                self.items.push_front(item);
            }
        }
        let mut out = Vec::new();
        let (gone, stay) = self.getters.drain(..).partition(|getter| is_one(getter.caller()));
        self.getters = stay;
        out.extend::<VecDeque<_>>(gone);
        let (gone, stay): (VecDeque<_>, _) = self.putters.drain(..).partition(|(putter, _)| is_one(putter.caller()));
        self.putters = stay;
        out.extend(gone.into_iter().map(|(putter, _)| putter));
        let (gone, stay): (Vec<_>, _) = self.joiners.drain(..).partition(|joiner| is_one(joiner.caller()));
        self.joiners = stay;
        out.extend(gone);
        out
    }

    /// The next answer that a change has made due.
    fn due(&mut self, capacity: usize) -> Option<Due> {
        if !self.items.is_empty()
            && let Some(getter) = self.getters.pop_front()
        {
            let item = self.items.pop_front()?;
            let answer = self.lend(getter.caller(), item);
            return Some(Due::Get(getter, answer));
        }
        if self.items.len() < capacity
            && let Some((putter, item)) = self.putters.pop_front()
        {
            self.items.push_back(item);
            self.unfinished += 1;
            return Some(Due::Put(putter, PutAnswer::Done));
        }
        if self.unfinished == 0
            && let Some(joiner) = self.joiners.pop()
        {
            return Some(Due::Put(joiner, PutAnswer::Done));
        }
        if self.is_over()
            && let Some(getter) = self.getters.pop_front()
        {
            return Some(Due::Get(getter, GetAnswer::Closed));
        }
        if self.is_closed
            && let Some((putter, _)) = self.putters.pop_front()
        {
            return Some(Due::Put(putter, PutAnswer::Closed));
        }
        None
    }

    /// Whether nothing will come any more.
    fn is_over(&self) -> bool {
        self.is_closed && self.items.is_empty() && self.lent.is_empty() && self.putters.is_empty()
    }
}

impl ItemsCore {
    fn locked(&self) -> MutexGuard<'_, ItemsState> {
        self.state.lock_unpoisoned()
    }

    /// Gives the answers that a change has made due.
    fn settle<'s>(&'s self, mut state: MutexGuard<'s, ItemsState>) {
        while let Some(due) = state.due(self.capacity) {
            drop(state);
            match due {
                Due::Get(getter, answer) => {
                    let caller = getter.caller();
                    if is_cancelled(caller) || !deferred::is_alive(caller.client) {
                        drop(getter);
                        let out = self.locked().take_back(|other| other == caller);
                        drop(out);
                    } else {
                        getter.answer(&answer);
                    }
                }
                Due::Put(putter, answer) => putter.answer(&answer),
            }
            state = self.locked();
        }
    }

    fn register(self: &Arc<Self>, client: u32) {
        self.registrations.add(client, self);
    }

    /// Settles, once a call was put into a list. It may have been cancelled before.
    fn settle_with(&self, caller: CallId, state: MutexGuard<'_, ItemsState>) {
        drop(state);
        self.settle(self.locked());
        if is_cancelled(caller) {
            self.cancelled(caller);
        }
    }
}

impl ClientBound for ItemsCore {
    fn cancelled(&self, caller: CallId) {
        let mut state = self.locked();
        let out = state.take_back(|other| other == caller);
        self.settle(state);
        drop(out);
    }

    fn client_gone(&self, client: u32) {
        self.registrations.remove(client);
        let mut state = self.locked();
        let out = state.take_back(|other| other.client == client);
        self.settle(state);
        drop(out);
    }
}

#[process_object(crate = crate)]
impl RawQueue {
    pub(crate) fn new(capacity: usize) -> Self {
        let core = ItemsCore { capacity, state: Mutex::default(), registrations: Registrations::default() };
        Self { core: Arc::new(core) }
    }

    /// Takes an item that is not lent.
    pub(crate) fn try_take(&self) -> GetAnswer {
        let mut state = self.core.locked();
        let Some(item) = state.items.pop_front() else {
            return if state.is_over() { GetAnswer::Closed } else { GetAnswer::Empty };
        };
        state.unfinished -= 1;
        self.core.settle(state);
        GetAnswer::Got { item, number: 0 }
    }

    pub(crate) fn try_get(&self) -> GetAnswer {
        let caller = deferred::caller();
        self.core.register(caller.client);
        let mut state = self.core.locked();
        let Some(item) = state.items.pop_front() else {
            return if state.is_over() { GetAnswer::Closed } else { GetAnswer::Empty };
        };
        let answer = state.lend(caller, item);
        self.core.settle(state);
        if is_cancelled(caller) {
            self.core.cancelled(caller);
        }
        answer
    }

    /// Is answered when an item is there.
    pub(crate) fn get(&self) -> GetAnswer {
        let answer = self.try_get();
        if !matches!(answer, GetAnswer::Empty) {
            return answer;
        }
        let Some(deferred) = deferred::defer() else { return answer };
        let caller = deferred.caller();
        let mut state = self.core.locked();
        state.getters.push_back(deferred);
        self.core.settle_with(caller, state);
        answer
    }

    /// The item of that number is done, and does not come back.
    pub(crate) fn done(&self, number: u64) -> bool {
        let client = deferred::caller().client;
        let mut state = self.core.locked();
        let is_theirs = state.lent.get(&number).is_some_and(|(caller, _)| caller.client == client);
        if is_theirs {
            state.lent.remove(&number);
            state.unfinished -= 1;
            self.core.settle(state);
        }
        is_theirs
    }

    /// The item of that number comes back.
    pub(crate) fn give_back(&self, number: u64) -> bool {
        let client = deferred::caller().client;
        let mut state = self.core.locked();
        let is_theirs = state.lent.get(&number).is_some_and(|(caller, _)| caller.client == client);
        if is_theirs && let Some((_, item)) = state.lent.remove(&number) {
            state.items.push_front(item);
            self.core.settle(state);
        }
        is_theirs
    }

    pub(crate) fn try_put(&self, item: Stored) -> PutAnswer {
        let mut state = self.core.locked();
        if state.is_closed {
            return PutAnswer::Closed;
        }
        if state.items.len() >= self.core.capacity {
            return PutAnswer::Busy;
        }
        state.items.push_back(item);
        state.unfinished += 1;
        self.core.settle(state);
        PutAnswer::Done
    }

    /// Is answered when there is room.
    pub(crate) fn put(&self, item: Stored) -> PutAnswer {
        let caller = deferred::caller();
        self.core.register(caller.client);
        let answer = self.try_put(item.clone());
        if answer != PutAnswer::Busy {
            return answer;
        }
        let Some(deferred) = deferred::defer() else { return answer };
        let mut state = self.core.locked();
        state.putters.push_back((deferred, item));
        self.core.settle_with(caller, state);
        answer
    }

    /// Is answered when all items are done.
    pub(crate) fn join(&self) -> PutAnswer {
        let caller = deferred::caller();
        self.core.register(caller.client);
        let mut state = self.core.locked();
        if state.unfinished == 0 {
            return PutAnswer::Done;
        }
        let Some(deferred) = deferred::defer() else { return PutAnswer::Busy };
        state.joiners.push(deferred);
        self.core.settle_with(caller, state);
        PutAnswer::Busy
    }

    pub(crate) fn close(&self) {
        let mut state = self.core.locked();
        state.is_closed = true;
        self.core.settle(state);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.core.locked().is_closed
    }

    pub(crate) fn len(&self) -> usize {
        self.core.locked().items.len()
    }

    pub(crate) fn unfinished(&self) -> usize {
        self.core.locked().unfinished
    }
}
