//! Calls that are answered after their method has returned: those that wait for a lock, an item or an event.
//!
//! Runs in: the manager. No thread waits for such a call: it stands in a list of the object that it waits for.
//!
//! An object whose calls wait, or whose state belongs to a process, is a [`ClientBound`]. It hears of a client that has ended, and
//! of a call that its client does not wait for any more. Such news may come before the call does, by another thread: so what is
//! given to a call is given first, and checked with [`is_cancelled`] after that.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::server::Server;
use super::unsent::send_soon;
use super::wire::{CallPayload, CallReply, Status};
use crate::codec::NoSpill;
use crate::codec::handles::Handles;
use crate::codec::message_format::to_message;
use crate::codec::{Encoded, Message};
use crate::sys::mutex::MutexExt as _;
use crate::sys::poll;

/// Which call of which client. Client 0 is the manager itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CallId {
    pub(crate) client: u32,
    pub(crate) call: u64,
}

/// Where the answer of a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerPlace {
    /// Memory, which is not to be occupied for long.
    Slot,
    /// The client's queue of replies.
    Queue,
    /// The connection by which the client came from elsewhere.
    Connection,
    /// The thread of the manager that makes the call.
    Own,
}

thread_local! {
    /// The call that this thread runs.
    static CURRENT: Cell<Option<(CallId, AnswerPlace)>> = const { Cell::new(None) };
    /// Whether it is answered later.
    static IS_DEFERRED: Cell<bool> = const { Cell::new(false) };
    /// Where it will be answered, if it is of the manager's own.
    static OWN: RefCell<Option<Arc<OwnAnswer>>> = const { RefCell::new(None) };
}

/// What a thread of the manager waits for.
#[derive(Debug, Default)]
pub(super) struct OwnAnswer {
    answer: Mutex<Option<(Status, Vec<u8>, Handles)>>,
    given: Condvar,
}

impl OwnAnswer {
    /// `None`: it is not given until `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Option<(Status, Vec<u8>, Handles)> {
        let mut answer = self.answer.lock_unpoisoned();
        loop {
            if let Some(answer) = answer.take() {
                return Some(answer);
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            answer = self.given.wait_timeout(answer, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// How a call that was run is answered.
pub(super) enum Answering {
    Now,
    Later,
    /// As `Later`, to the thread that made the call.
    Own(Arc<OwnAnswer>),
}

/// Runs `call`, in which a method can ask for its [`caller`] and [`defer`] its answer.
pub(super) fn with_caller<R>(caller: CallId, place: AnswerPlace, call: impl FnOnce() -> R) -> (R, Answering) {
    struct Scope(Option<(CallId, AnswerPlace)>, bool, Option<Arc<OwnAnswer>>);
    impl Drop for Scope {
        fn drop(&mut self) {
            CURRENT.set(self.0);
            IS_DEFERRED.set(self.1);
            OWN.set(self.2.take());
        }
    }
    let _scope = Scope(CURRENT.replace(Some((caller, place))), IS_DEFERRED.replace(false), OWN.take());
    let outcome = call();
    let answering = match (IS_DEFERRED.get(), OWN.take()) {
        (false, _) => Answering::Now,
        (true, None) => Answering::Later,
        (true, Some(own)) => Answering::Own(own),
    };
    (outcome, answering)
}

/// The call that this thread runs. Outside of one, the manager itself.
pub(crate) fn caller() -> CallId {
    CURRENT.get().map_or(CallId { client: 0, call: 0 }, |(caller, _)| caller)
}

/// Whether the call that this thread runs came by a connection, so that it may name methods, but no tasks.
pub(crate) fn is_from_elsewhere() -> bool {
    CURRENT.get().is_some_and(|(_, place)| place == AnswerPlace::Connection)
}

/// Takes the duty to answer the call that this thread runs: what its method returns is not sent. `None`: the method has to
/// answer itself, since the call stands in memory.
pub(crate) fn defer() -> Option<Deferred> {
    let (caller, place) = CURRENT.get()?;
    if place == AnswerPlace::Slot || IS_DEFERRED.replace(true) {
        return None;
    }
    let own = (place == AnswerPlace::Own).then(Arc::<OwnAnswer>::default);
    OWN.set(own.clone());
    Some(Deferred { caller, own, is_answered: false })
}

/// The duty to answer a call. One that is dropped tells the caller that there is no answer.
#[derive(Debug)]
pub(crate) struct Deferred {
    caller: CallId,
    own: Option<Arc<OwnAnswer>>,
    is_answered: bool,
}

impl Deferred {
    pub(crate) fn caller(&self) -> CallId {
        self.caller
    }

    /// Answers: `value` is what the method would have returned. `T` is no type that a task sends in the plain format.
    pub(crate) fn answer<T: Message>(mut self, value: &T) {
        self.is_answered = true;
        match to_message(value, Vec::new(), (usize::MAX, &mut NoSpill)) {
            Ok((Encoded::Small(bytes), handles)) => self.send(Status::Done, bytes, handles),
            Ok((Encoded::Spilled(_), _)) => {
                self.send(Status::BadResult, b"it is too long".to_vec(), Handles::default());
            }
            Err(error) => self.send(Status::BadResult, error.to_string().into_bytes(), Handles::default()),
        }
    }

    /// Never waits for the client: the thread that answers is another's, or leads.
    fn send(&self, status: Status, bytes: Vec<u8>, handles: Handles) {
        if let Some(own) = &self.own {
            *own.answer.lock_unpoisoned() = Some((status, bytes, handles));
            own.given.notify_all();
            return;
        }
        let Some(server) = Server::own() else { return };
        let peer = server.tables.lock_unpoisoned().peer(self.caller.client);
        if let Some(peer) = peer {
            let body = CallPayload::new(&bytes, &handles);
            send_soon(server, &peer, CallReply { call: self.caller.call, status: status as u32, object: 0, body });
        }
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        if !self.is_answered {
            self.send(Status::BadResult, b"what it waited for is gone".to_vec(), Handles::default());
        }
    }
}

/// Something that calls wait for, or that processes hold.
pub(crate) trait ClientBound: Send + Sync {
    /// The client does not wait for this call any more: what was given to it is taken back.
    fn cancelled(&self, caller: CallId);

    /// The client has ended.
    fn client_gone(&self, client: u32);
}

/// What is known of a client here.
#[derive(Default)]
struct Waits {
    /// What it waits for or holds.
    waitables: Vec<Weak<dyn ClientBound>>,
    /// Its last calls that it does not wait for any more.
    cancelled: VecDeque<u64>,
}

/// How many cancelled calls of a client are remembered: more than it can have begun at one time.
const MAX_CANCELLED: usize = 256;

static WAITS: LazyLock<Mutex<HashMap<u32, Waits>>> = LazyLock::new(Mutex::default);

/// Has `waitable` hear of that client from now on. Once for each client is enough.
pub(crate) fn register(client: u32, waitable: Weak<dyn ClientBound>) {
    let mut waits = WAITS.lock_unpoisoned();
    let waitables = &mut waits.entry(client).or_default().waitables;
    if waitables.len() == waitables.capacity() {
        waitables.retain(|waitable| waitable.strong_count() > 0);
    }
    waitables.push(waitable);
    // The news of its end may have come before.
    if !is_client(client) {
        waits.remove(&client);
    }
}

/// Whether nothing must be given to that call: its client has ended, or does not wait for it.
pub(crate) fn is_cancelled(caller: CallId) -> bool {
    let is_cancelled = |waits: &Waits| waits.cancelled.contains(&caller.call);
    WAITS.lock_unpoisoned().get(&caller.client).is_some_and(is_cancelled) || !is_client(caller.client)
}

/// The manager is a client of its own as long as it lives.
fn is_client(client: u32) -> bool {
    client == 0 || Server::own().is_some_and(|server| server.tables.lock_unpoisoned().peer(client).is_some())
}

/// Whether the client's process has not ended, also if that was not handled yet.
pub(crate) fn is_alive(client: u32) -> bool {
    let has_ended = |process: &OwnedFd| poll::readable([process.as_fd()], Some(Instant::now())).is_ok_and(|[it]| it);
    let Some(server) = Server::own().filter(|_| client != 0) else { return true };
    let tables = server.tables.lock_unpoisoned();
    // The process of one that has connected is not known: the connection ends with it.
    tables.peer(client).is_some() && tables.with_process(client, has_ended) != Some(true)
}

/// A client does not wait for a call any more.
///
/// Runs in: the leader, or the thread that made the call, without a lock.
pub(super) fn cancel(caller: CallId) {
    if !is_client(caller.client) {
        return;
    }
    let mut all = WAITS.lock_unpoisoned();
    let waits = all.entry(caller.client).or_default();
    waits.cancelled.push_back(caller.call);
    if waits.cancelled.len() > MAX_CANCELLED {
        waits.cancelled.pop_front();
    }
    let waitables: Vec<_> = waits.waitables.iter().filter_map(Weak::upgrade).collect();
    drop(all);
    for waitable in waitables {
        waitable.cancelled(caller);
    }
}

/// A client has ended, and is no client any more.
///
/// Runs in: the leader, without a lock.
pub(super) fn client_gone(client: u32) {
    let waits = WAITS.lock_unpoisoned().remove(&client);
    for waitable in waits.into_iter().flat_map(|waits| waits.waitables) {
        if let Some(waitable) = waitable.upgrade() {
            waitable.client_gone(client);
        }
    }
}
