//! One client that has connected, as its manager has it: the calls that it made, and the answers that it has not taken yet.
//!
//! Runs in: the manager. The connection's own threads run its calls and send its answers; any thread may bring an answer.
//! Invariant: no thread but the connection's own ever waits for this client, and what the client can make wait is bounded.
//!
//! | what the client does | what it costs |
//! |---|---|
//! | it makes more calls than may run side by side | they wait; no other connection does |
//! | it makes more calls than it was told it may | they are refused |
//! | it takes no answers | from [`answer_bytes`](ConnectionLimits) on, none of its calls begins; after the lease it is dropped |
//! | it takes no answers, and calls that wait are answered | beyond twice as many, it is dropped at once |
//! | it sends nothing for the lease, over the network | it is dropped |
//! | it breaks the rules | it is dropped |
//! | it goes, and has sent calls that it does not wait for | they are begun first, for [`MAX_CLOSING`] at most |

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::connection_limits::ConnectionLimits;
use super::connection_state::{ConnectedState, Progress};
use super::deferred::{self, AnswerPlace, Answering, CallId};
use super::instance::Place;
use super::leader::made_known;
use super::run::{self, MethodCall, Outcome};
use super::server::Server;
use super::tables::{Dropped, Peer, ServedConnection};
use super::wire::{CallPayload, CallReply, ClientRequest, ManagerQuestion, NO_CALL, Status};
use crate::channel::SendTimeoutError;
use crate::codec::handles::Handles;
use crate::sys::mutex::MutexExt as _;
use crate::task::{RegistrationKind, lookup_method};

/// The longest answer that the thread that brings it sends itself, if there is room.
const MAX_INLINE_BYTES: usize = 16 << 10;

/// What an answer without a result counts for.
const REPLY_BYTES: usize = size_of::<CallReply>();

/// How long calls that a client has sent, and has not waited for, keep those that it holds from being let go of when it is gone.
const MAX_CLOSING: Duration = Duration::from_secs(1);

/// How long those of them that have begun do.
const MAX_RUNNING: Duration = Duration::from_millis(10);

/// How long to wait before an answer that was refused is sent again.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// How long a thread that has nothing to do stays.
const IDLE_TIME: Duration = Duration::from_secs(1);

/// A call that was read and not begun.
pub(super) type WaitingCall = (u64, u32, u64, CallPayload);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Connected {
    /// Its number.
    client: u32,
    connection: ServedConnection,
    limits: ConnectionLimits,
    state: Mutex<ConnectedState>,
    /// There is a call to run, room for its answer, or an answer to send; or the connection has ended.
    changed: Condvar,
    /// There are objects to drop, or the connection has ended.
    has_dropped: Condvar,
    /// A call was run, or the connection has ended.
    has_run: Condvar,
    /// Number of constructors that run.
    constructing: AtomicUsize,
}

impl Connected {
    pub(super) fn new(client: u32, connection: ServedConnection, limits: ConnectionLimits) -> Self {
        Self {
            client,
            connection,
            limits,
            state: Mutex::default(),
            changed: Condvar::new(),
            has_dropped: Condvar::new(),
            has_run: Condvar::new(),
            constructing: AtomicUsize::new(0),
        }
    }

    pub(super) fn connection(&self) -> &ServedConnection {
        &self.connection
    }

    /// Has a thread of this connection run the call. False: the client breaks the rules.
    pub(super) fn push(self: &Arc<Self>, server: &Arc<Server>, client: u32, call: WaitingCall) -> bool {
        let (number, len) = (call.0, call.3.len());
        let mut state = self.state.lock_unpoisoned();
        if state.is_known(number) {
            return false;
        }
        // An honest client counts them, too; but those that it does not wait for any more may still run.
        let is_too_much = state.calls.len() >= self.limits.calls.saturating_mul(2)
            || (!state.calls.is_empty()
                && state.call_bytes.saturating_add(len) > self.limits.call_bytes.saturating_mul(2));
        if is_too_much {
            drop(state);
            self.refuse(number, "the connection has as many calls in flight as it may have");
            return true;
        }
        state.calls.insert(number, len);
        state.call_bytes += len;
        state.waiting.push_back(call);
        if state.idle >= state.waiting.len() || state.threads >= self.limits.running {
            self.changed.notify_all();
            return true;
        }
        state.threads += 1;
        drop(state);
        let (own, of_server) = (Arc::clone(self), Arc::clone(server));
        let runs = move || own.run(&of_server, client);
        if spawn(runs).is_err() {
            let mut state = self.state.lock_unpoisoned();
            state.threads -= 1;
            // Those that are there run it later.
            let is_stuck = state.threads == 0 && state.waiting.pop_back().is_some();
            drop(state);
            if is_stuck {
                self.refuse(number, "the manager has no threads left");
            }
        }
        true
    }

    /// Answers a question about the manager itself. False: the client breaks the rules.
    pub(super) fn ask(
        self: &Arc<Self>,
        server: &Server,
        client: u32,
        (call, question): (u64, ManagerQuestion),
    ) -> bool {
        if self.state.lock_unpoisoned().is_known(call) {
            return false;
        }
        if let ManagerQuestion::Publish { .. } | ManagerQuestion::Unpublish { .. } = question {
            self.refuse(
                call,
                "a process that has connected publishes nothing; do it in the program that started the manager",
            );
            return true;
        }
        let (status, bytes) = server.ask(client, question);
        let body = CallPayload::new(&bytes, &Handles::default());
        self.answer(CallReply { call, status: status as u32, object: 0, body });
        true
    }

    /// Tells the client that its manager lives.
    pub(super) fn say_alive(self: &Arc<Self>) {
        let body = CallPayload::default();
        self.answer(CallReply { call: NO_CALL, status: Status::Done as u32, object: 0, body });
    }

    /// The client does not wait for this call any more. One that has not begun will not.
    pub(super) fn cancel(&self, number: u64) {
        let mut state = self.state.lock_unpoisoned();
        let before = state.waiting.len();
        state.waiting.retain(|(call, ..)| *call != number);
        if state.waiting.len() < before {
            state.forget(number);
        }
    }

    /// Drops objects beside the thread that reads: a destructor may take longer than the lease.
    pub(super) fn drop_beside(self: &Arc<Self>, objects: Dropped) {
        if objects.is_empty() {
            return;
        }
        let mut state = self.state.lock_unpoisoned();
        state.dropped.extend(objects);
        if std::mem::replace(&mut state.drops, true) {
            self.has_dropped.notify_one();
            return;
        }
        drop(state);
        let own = Arc::clone(self);
        if spawn(move || own.drop_objects(IDLE_TIME)).is_err() {
            // There is no thread to be had.
            self.drop_objects(Duration::ZERO);
        }
    }

    /// Drops objects until none has come for `patience`.
    ///
    /// Runs in: a thread of its own.
    fn drop_objects(&self, patience: Duration) {
        let mut state = self.state.lock_unpoisoned();
        loop {
            let objects = std::mem::take(&mut state.dropped);
            if !objects.is_empty() {
                drop(state);
                drop(objects);
                state = self.state.lock_unpoisoned();
                continue;
            }
            let mut is_over = state.has_ended;
            if !is_over {
                let waited = self.has_dropped.wait_timeout(state, patience);
                let (after, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                (state, is_over) = (after, waited.timed_out());
            }
            if is_over && state.dropped.is_empty() {
                state.drops = false;
                return;
            }
        }
    }

    fn refuse(self: &Arc<Self>, call: u64, reason: &str) {
        let body = CallPayload::new(reason.as_bytes(), &Handles::default());
        self.answer(CallReply { call, status: Status::Refused as u32, object: 0, body });
    }

    /// Sends an answer, or has it sent. Never waits.
    pub(super) fn answer(self: &Arc<Self>, reply: CallReply) {
        self.put(reply, false);
    }

    /// As [`answer`](Self::answer). `is_run`: it is the answer of a call that began when there was room.
    fn put(self: &Arc<Self>, mut reply: CallReply, is_run: bool) {
        let len = reply.body.len();
        if len > self.limits.message_bytes {
            let limit = self.limits.message_bytes;
            let reason = format!("it has {len} bytes, and a connection of this manager carries {limit} at most");
            let body = CallPayload::new(reason.as_bytes(), &Handles::default());
            reply = CallReply { status: Status::BadResult as u32, body, ..reply };
            self.take_back(reply.call);
        }
        let bytes = cost(&reply);
        let mut state = self.state.lock_unpoisoned();
        state.forget(reply.call);
        if state.has_ended {
            return;
        }
        if !is_run && state.answer_bytes.saturating_add(bytes) > self.limits.answer_bytes.saturating_mul(2) {
            return self.end_locked(state);
        }
        state.answer_bytes += bytes;
        if state.is_sending {
            state.answers.push_back(reply);
            return;
        }
        state.is_sending = true;
        if bytes <= MAX_INLINE_BYTES {
            drop(state);
            let unsent = self.send(reply, Some(Duration::ZERO));
            state = self.state.lock_unpoisoned();
            match unsent {
                None => state.sent(bytes),
                Some(reply) => {
                    // It may be another one, which says why the first could not be sent.
                    state.answer_bytes = state.answer_bytes - bytes + cost(&reply);
                    state.answers.push_front(reply);
                }
            }
            self.changed.notify_all();
            if state.answers.is_empty() {
                state.is_sending = false;
                return;
            }
        } else {
            state.answers.push_back(reply);
        }
        drop(state);
        let own = Arc::clone(self);
        if spawn(move || own.write()).is_err() {
            // What was brought cannot be sent, and a client that is never answered is worse off than one that is let go of.
            self.end();
        }
    }

    /// The caller does not get what the call was given, such as an item, which is taken back.
    fn take_back(&self, call: u64) {
        if let Some(server) = Server::own() {
            server.tell(ClientRequest::Cancel { client: self.client, call });
        }
    }

    /// Sends one answer. It comes back if there is no room for so long.
    fn send(&self, mut reply: CallReply, timeout: Option<Duration>) -> Option<CallReply> {
        let mut is_second = false;
        loop {
            let sent = match timeout {
                Some(timeout) => self.connection.send_timeout(reply, timeout),
                None => self.connection.send(reply).map_err(SendTimeoutError::from),
            };
            reply = match sent {
                Ok(()) | Err(SendTimeoutError::Disconnected(_)) => return None,
                Err(SendTimeoutError::Timeout(reply)) => return Some(reply),
                // What the kernel refuses now it may not refuse later, and the caller waits.
                Err(SendTimeoutError::Failed(reply, _)) if is_second => {
                    if timeout.is_some() {
                        return Some(reply);
                    }
                    thread::sleep(FAILURE_PAUSE);
                    if self.state.lock_unpoisoned().has_ended {
                        return None;
                    }
                    reply
                }
                Err(SendTimeoutError::Failed(reply, error)) => {
                    is_second = true;
                    self.take_back(reply.call);
                    let body = CallPayload::new(error.to_string().as_bytes(), &Handles::default());
                    CallReply { call: reply.call, status: Status::BadResult as u32, object: reply.object, body }
                }
            };
        }
    }

    /// Sends answers until there are none.
    ///
    /// Runs in: a thread of its own.
    fn write(&self) {
        loop {
            let mut state = self.state.lock_unpoisoned();
            let Some(reply) = state.answers.pop_front().filter(|_| !state.has_ended) else {
                state.is_sending = false;
                return;
            };
            drop(state);
            let bytes = cost(&reply);
            // The thread that reads ends the connection if nothing leaves for too long.
            self.send(reply, None);
            self.state.lock_unpoisoned().sent(bytes);
            self.changed.notify_all();
        }
    }

    /// Notes what has gone which way. False: the client has sent nothing for the lease, or has taken nothing.
    pub(super) fn is_in_time(&self, progress: &mut Progress) -> bool {
        let (now, traffic) = (Instant::now(), self.connection.traffic());
        let (came, left) = traffic.unwrap_or_default();
        if came != progress.came || traffic.is_none() {
            (progress.came, progress.came_at) = (came, now);
        }
        let state = self.state.lock_unpoisoned();
        let left = (left, state.taken);
        if left != progress.left || !state.is_sending {
            (progress.left, progress.left_at) = (left, now);
        }
        drop(state);
        let is_late = |since: Instant| now.duration_since(since) >= self.limits.lease;
        !is_late(progress.came_at) && !is_late(progress.left_at)
    }

    /// The client is gone, and what it sent before is run, or at least begun: it may have been a release.
    pub(super) fn close(&self) {
        let mut state = self.state.lock_unpoisoned();
        let closes_until = Instant::now() + MAX_CLOSING;
        let mut until = closes_until;
        while !state.has_ended && (!state.waiting.is_empty() || state.busy > 0) {
            if state.waiting.is_empty() && until == closes_until {
                until = closes_until.min(Instant::now() + MAX_RUNNING);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.has_run.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the connection: its threads end, and nothing is sent any more.
    pub(super) fn end(&self) {
        self.end_locked(self.state.lock_unpoisoned());
    }

    fn end_locked(&self, mut state: MutexGuard<'_, ConnectedState>) {
        state.has_ended = true;
        state.waiting.clear();
        state.answers.clear();
        drop(state);
        self.connection.shut_down();
        self.changed.notify_all();
        self.has_dropped.notify_all();
        self.has_run.notify_all();
    }

    /// Plays the last thread of the connection, which finds nothing to do, and leaves.
    #[cfg(test)]
    pub(super) fn leave_as_last_thread(&self, server: &Server) {
        self.state.lock_unpoisoned().threads = 1;
        assert!(self.next(server).is_none());
    }

    fn run(self: &Arc<Self>, server: &Arc<Server>, client: u32) {
        while let Some((call, place)) = self.next(server) {
            let peer = server.tables.lock_unpoisoned().peer(client);
            let Some(peer) = peer else {
                // The connection has ended.
                let mut state = self.state.lock_unpoisoned();
                state.busy -= 1;
                state.threads -= 1;
                return;
            };
            if let Some(reply) = self.run_one(server, &peer, (call, place)) {
                self.put(reply, true);
            }
            self.state.lock_unpoisoned().busy -= 1;
            self.has_run.notify_one();
        }
    }

    /// Runs one call. `None`: it is answered later.
    fn run_one(
        &self,
        server: &Server,
        peer: &Peer,
        ((number, method, object, body), place): (WaitingCall, Option<Place>),
    ) -> Option<CallReply> {
        let makes = lookup_method(method).is_some_and(|task| matches!(task.kind(), RegistrationKind::Constructor(_)));
        if makes {
            let others = self.constructing.fetch_add(1, AcqRel);
            let objects = server.tables.lock_unpoisoned().objects_of(peer.number);
            if objects + others >= self.limits.objects {
                self.constructing.fetch_sub(1, AcqRel);
                let reason =
                    format!("the connection has {} objects, which is as many as it may have", self.limits.objects);
                let body = CallPayload::new(reason.as_bytes(), &Handles::default());
                return Some(CallReply { call: number, status: Status::Refused as u32, object: 0, body });
            }
        }
        let (arguments, received) = body.unpack();
        let arguments = arguments.as_slice();
        let call = MethodCall { method, object, arguments, received: &received, tasks: false };
        server.calls.fetch_add(1, Relaxed);
        let caller = CallId { client: peer.number, call: number };
        let run = || run::run(server, call, (place, Vec::new()), || ());
        let (outcome, answering) = deferred::with_caller(caller, AnswerPlace::Connection, run);
        let reply = match answering {
            Answering::Later => None,
            Answering::Now | Answering::Own(_) => {
                let (status, object, Outcome { bytes, handles, .. }) = made_known(server, peer, outcome);
                let body = CallPayload::new(&bytes, &handles);
                Some(CallReply { call: number, status: status as u32, object, body })
            }
        };
        if makes {
            self.constructing.fetch_sub(1, AcqRel);
        }
        reply
    }

    /// The next call to run, with its place. `None`: there is none for a while, or the connection has ended. Then this thread is not
    /// counted any more: a call that comes from there on needs another one.
    fn next(&self, server: &Server) -> Option<(WaitingCall, Option<Place>)> {
        let mut state = self.state.lock_unpoisoned();
        loop {
            if state.has_ended {
                state.threads -= 1;
                return None;
            }
            if state.answer_bytes < self.limits.answer_bytes
                && let Some(call) = state.waiting.pop_front()
            {
                state.busy += 1;
                // Before another thread takes the next one.
                let place = run::line_up(server, call.1, call.2);
                return Some((call, place));
            }
            state.idle += 1;
            let (after, waited) = self.changed.wait_timeout(state, IDLE_TIME).unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.idle -= 1;
            if waited.timed_out() && state.waiting.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}

fn cost(reply: &CallReply) -> usize {
    REPLY_BYTES + reply.body.len()
}

fn spawn(runs: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name("process-task".to_owned()).spawn(runs).map(drop)
}
