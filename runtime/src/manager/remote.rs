//! Managers that are connected to: the manager's side.
//!
//! Runs in: the manager. A thread accepts, one for each connection reads, and others run its calls.
//! Invariant: what comes is believed to be nothing but bytes. Only methods and constructors can be named.
//!
//! A connection's end is its client's death: its references, locks and calls go. The network's own keep-alive ends the
//! connection of a host that has vanished.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deferred::{self, AnswerPlace, Answering, CallId};
use super::instance::Place;
use super::leader::{drop_all, made_known, send};
use super::run::{self, MethodCall};
use super::server::Server;
use super::tables::{Peer, PeerLink, ServedConnection};
use super::wire::{CallPayload, CallReply, ClientRequest, Introduction, Status};
use crate::channel::Listener;
use crate::codec::handles::Handles;
use crate::codec::message::to_bytes;
use crate::error::Result;
use crate::sys::mutex::MutexExt as _;
use crate::task::fingerprint;

/// How long a peer may take to say of which build it is.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of calls of one connection that run side by side. More are not read before.
const MAX_CALLS: usize = 64;

/// Number of connections. More are closed at once.
const MAX_CONNECTIONS: usize = 256;

/// How long a thread that has no call to run stays.
const IDLE_TIME: Duration = Duration::from_secs(1);

/// Where a manager listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ListenAt {
    Unix(PathBuf),
    #[cfg(feature = "tcp")]
    Tcp(String, Vec<u8>),
}

impl ListenAt {
    fn listen(&self) -> Result<Listener> {
        match self {
            Self::Unix(path) => Listener::unix(path),
            #[cfg(feature = "tcp")]
            Self::Tcp(address, secret) => Listener::tcp(address, crate::channel::Key::new(secret)?),
        }
    }
}

/// How this program is called where it is of another build.
pub(super) fn introduction() -> Introduction {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    Introduction { fingerprint: fingerprint(), program: program.unwrap_or_default(), manager: None }
}

/// Listens, and serves those who connect, until the process ends. Returns where.
///
/// # Errors
/// One of the addresses cannot be listened at, or there is no thread to be had.
pub(super) fn listen(server: &Arc<Server>, at: &[ListenAt]) -> std::result::Result<Vec<String>, String> {
    let open = Arc::new(Mutex::new(0));
    let mut addresses = Vec::new();
    for at in at {
        let listener = at.listen().map_err(|error| error.to_string())?;
        addresses.push(listener.to_string());
        let (server, open) = (Arc::clone(server), Arc::clone(&open));
        let accepts = move || {
            loop {
                match listener.accept::<CallReply, ClientRequest>() {
                    Ok(connection) => admit(&server, connection, &open),
                    // One that could not show who it is; or there are no descriptors.
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        };
        let builder = thread::Builder::new().name("process-task".to_owned());
        builder.spawn(accepts).map_err(|error| format!("start a thread: {error}"))?;
    }
    Ok(addresses)
}

fn admit(server: &Arc<Server>, connection: ServedConnection, open: &Arc<Mutex<usize>>) {
    let mut count = open.lock_unpoisoned();
    if *count >= MAX_CONNECTIONS {
        return;
    }
    let (server, open) = (Arc::clone(server), Arc::clone(open));
    let runs = move || {
        serve(&server, connection);
        *open.lock_unpoisoned() -= 1;
    };
    if thread::Builder::new().name("process-task".to_owned()).spawn(runs).is_ok() {
        *count += 1;
    }
}

/// Serves one client until its connection ends, or until it breaks the rules.
fn serve(server: &Arc<Server>, connection: ServedConnection) {
    let Ok(ClientRequest::Introduce(theirs)) = connection.recv_timeout(INTRODUCTION_TIMEOUT) else { return };
    let mut ours = introduction();
    let number = server.shared.words().clients.fetch_add(1, Relaxed) + 1;
    ours.manager = Some((server.id, server.name.clone(), std::process::id()));
    let is_same = theirs.fingerprint == ours.fingerprint;
    let status = if is_same { Status::Done } else { Status::OtherBuild };
    let body = CallPayload::new(&to_bytes(&ours), &Handles::default());
    let reply = CallReply { call: 0, status: status as u32, object: number.into(), body };
    if connection.send_timeout(reply, INTRODUCTION_TIMEOUT).is_err() || !is_same {
        return;
    }
    let connection = Arc::new(connection);
    let peer = Peer { number, link: PeerLink::Connected(Arc::clone(&connection)) };
    if !server.tables.lock_unpoisoned().add_client(peer, None) {
        return;
    }
    let calls = Arc::new(Calls::default());
    while let Ok(request) = connection.recv() {
        if !handle(server, number, request, &calls) {
            break;
        }
    }
    calls.end();
    drop_all(server.control(ClientRequest::ClientGone { client: number }));
}

/// Handles one request of client `number`, whatever number stands in it. False: it breaks the rules, or says goodbye.
fn handle(server: &Arc<Server>, number: u32, request: ClientRequest, calls: &Arc<Calls>) -> bool {
    match request {
        ClientRequest::Call { call, method, object, body, .. } => {
            calls.push(server, number, (call, method, object, body));
        }
        ClientRequest::Ask { call, question, .. } => {
            let peer = server.tables.lock_unpoisoned().peer(number);
            if let Some(peer) = peer {
                let (status, bytes) = server.ask(question);
                send(server, &peer, (call, status, 0), (&bytes, &Handles::default()));
            }
        }
        ClientRequest::Release { object, .. } => {
            drop_all(server.control(ClientRequest::Release { client: number, object }));
        }
        ClientRequest::Cancel { call, .. } => {
            drop_all(server.control(ClientRequest::Cancel { client: number, call }));
        }
        _ => return false,
    }
    true
}

/// A call that was read and not begun.
type WaitingCall = (u64, u32, u64, CallPayload);

/// The calls of one connection, and the threads that run them.
#[derive(Debug, Default)]
struct Calls {
    state: Mutex<CallsState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct CallsState {
    waiting: VecDeque<WaitingCall>,
    /// Threads that have nothing to do, and all.
    idle: usize,
    threads: usize,
    has_ended: bool,
}

impl Calls {
    /// Has a thread run the call. Waits while too many run.
    fn push(self: &Arc<Self>, server: &Arc<Server>, client: u32, call: WaitingCall) {
        let mut state = self.state.lock_unpoisoned();
        while state.waiting.len() >= MAX_CALLS {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.push_back(call);
        if state.idle >= state.waiting.len() || state.threads >= MAX_CALLS {
            self.changed.notify_all();
            return;
        }
        let (calls, server) = (Arc::clone(self), Arc::clone(server));
        let runs = move || calls.run(&server, client);
        // Without one more thread, those that are there run it later.
        if thread::Builder::new().name("process-task".to_owned()).spawn(runs).is_ok() {
            state.threads += 1;
        }
    }

    fn end(&self) {
        self.state.lock_unpoisoned().has_ended = true;
        self.changed.notify_all();
    }

    fn run(&self, server: &Server, client: u32) {
        while let Some(((number, method, object, body), place)) = self.next(server) {
            let peer = server.tables.lock_unpoisoned().peer(client);
            let Some(peer) = peer else { break };
            let (arguments, received) = body.unpack();
            let arguments = arguments.as_slice();
            let call = MethodCall { method, object, arguments, received: &received, tasks: false };
            server.calls.fetch_add(1, Relaxed);
            let (outcome, answering) =
                deferred::with_caller(CallId { client, call: number }, AnswerPlace::Connection, || {
                    run::run(server, call, (place, Vec::new()), || ())
                });
            if let Answering::Later = answering {
                continue;
            }
            let (status, object, outcome) = made_known(server, &peer, outcome);
            send(server, &peer, (number, status, object), (&outcome.bytes, &outcome.handles));
        }
        self.state.lock_unpoisoned().threads -= 1;
    }

    /// The next call to run, with its place. `None`: there is none for a while, or the connection has ended.
    fn next(&self, server: &Server) -> Option<(WaitingCall, Option<Place>)> {
        let mut state = self.state.lock_unpoisoned();
        loop {
            if state.has_ended {
                return None;
            }
            if let Some(call) = state.waiting.pop_front() {
                self.changed.notify_all();
                // Before another thread takes the next one.
                let place = run::line_up(server, call.1, call.2);
                return Some((call, place));
            }
            state.idle += 1;
            let (after, waited) = self.changed.wait_timeout(state, IDLE_TIME).unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.idle -= 1;
            if waited.timed_out() && state.waiting.is_empty() {
                return None;
            }
        }
    }
}
