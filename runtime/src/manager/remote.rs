//! Managers that are connected to: the manager's side.
//!
//! Runs in: the manager. A thread accepts, one for each connection reads, and others run its calls.
//! Invariant: what comes is believed to be nothing but bytes. Only methods and constructors can be named.
//!
//! A connection's end is its client's death: its references, locks and calls go, once those calls that came before have begun. So
//! does a client over the network that has sent nothing for the lease, since a host that has vanished ends no connection: one that
//! has nothing to say says [`Alive`](ClientRequest::Alive). What one client may cost stands in
//! [`connection_limits`](super::connection_limits) and [`connected`](super::connected).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::connected::Connected;
use super::connected_link::MAX_RELEASED_OBJECTS;
use super::connection_limits::INTRODUCTION_BYTES;
use super::connection_state::Progress;
use super::server::Server;
use super::tables::{Peer, PeerLink, ServedConnection};
use super::wire::{CallPayload, CallReply, ClientRequest, Introduction, ManagerIntroduction, NO_CALL, Status};
use crate::channel::{Listener, RecvTimeoutError};
use crate::codec::handles::Handles;
use crate::codec::message::to_bytes;
use crate::error::{ErrorKind, Result};
use crate::sys::mutex::MutexExt as _;
use crate::task::fingerprint;

/// How long a peer may take to say of which build it is.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait where a connection cannot be accepted.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

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
            Self::Tcp(address, secret) => Listener::tcp(with_host(address), crate::channel::Key::new(secret)?),
        }
    }
}

/// The address, on this machine alone where it names no other.
#[cfg(feature = "tcp")]
fn with_host(address: &str) -> String {
    let port = address.strip_prefix(':').unwrap_or(address);
    if port.parse::<u16>().is_ok() { format!("127.0.0.1:{port}") } else { address.to_owned() }
}

impl fmt::Display for Introduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of build {:016x}", self.program, self.fingerprint)
    }
}

/// How this program is called where it is of another build.
pub(super) fn introduction() -> Introduction {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    Introduction { fingerprint: fingerprint(), program: program.unwrap_or_default(), manager: None }
}

/// Listens, and serves the processes that connect, until the process ends. Returns where.
///
/// # Errors
/// One of the addresses cannot be listened at, or there is no thread to be had.
pub(super) fn listen(server: &Arc<Server>, at: &[ListenAt]) -> std::result::Result<Vec<String>, String> {
    let open = Arc::new(AtomicUsize::new(0));
    let mut addresses = Vec::new();
    for at in at {
        let listener = at.listen().map_err(|error| error.to_string())?;
        addresses.push(listener.to_string());
        let (server, open) = (Arc::clone(server), Arc::clone(&open));
        let accepts = move || {
            loop {
                match listener.accept::<CallReply, ClientRequest>() {
                    Ok(connection) => admit(&server, connection, &open),
                    Err(error) if matches!(error.kind(), ErrorKind::PeerRefused { .. }) => {
                        server.refused(error.to_string());
                    }
                    // There are no descriptors.
                    Err(_) => thread::sleep(SHORTAGE_PAUSE),
                }
            }
        };
        let builder = thread::Builder::new().name("process-task".to_owned());
        builder.spawn(accepts).map_err(|error| format!("start a thread: {error}"))?;
    }
    Ok(addresses)
}

/// One of the connections that are open, until it is dropped.
struct OpenConnection(Arc<AtomicUsize>);

impl OpenConnection {
    /// One more of those that `open` counts. `None`: there are `most` already.
    fn new(open: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let before = open.fetch_add(1, AcqRel);
        let this = Self(Arc::clone(open));
        (before < most).then_some(this)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, AcqRel);
    }
}

pub(super) fn admit(server: &Arc<Server>, connection: ServedConnection, open: &Arc<AtomicUsize>) {
    connection.set_longest(INTRODUCTION_BYTES);
    let Some(open) = OpenConnection::new(open, server.limits.connections) else {
        server.refused(format!("there are {} connections already", server.limits.connections));
        let body = CallPayload::new(b"it has as many connections as it may have", &Handles::default());
        let reply = CallReply { call: NO_CALL, status: Status::Refused as u32, object: 0, body };
        // There is room for the first message.
        let _ = connection.send_timeout(reply, Duration::ZERO);
        return;
    };
    let server = Arc::clone(server);
    let runs = move || {
        serve(&server, connection);
        drop(open);
    };
    // Without a thread the connection ends.
    let _ = thread::Builder::new().name("process-task".to_owned()).spawn(runs);
}

/// A client that is served. When this is dropped, also by a panic, it is none any more.
struct ServedClient<'s> {
    server: &'s Arc<Server>,
    number: u32,
    connected: &'s Connected,
}

impl Drop for ServedClient<'_> {
    fn drop(&mut self) {
        self.connected.end();
        drop(self.server.control(ClientRequest::ClientGone { client: self.number }));
    }
}

/// Serves one client until its connection ends, or until it breaks the rules.
fn serve(server: &Arc<Server>, connection: ServedConnection) {
    let Ok(ClientRequest::Introduce(theirs)) = connection.recv_timeout(INTRODUCTION_TIMEOUT) else {
        return server.refused("it did not say of which build it is".to_owned());
    };
    let mut ours = introduction();
    let number = server.shared.words().clients.fetch_add(1, Relaxed) + 1;
    let (id, name, limits) = (server.id, server.name.clone(), server.limits);
    ours.manager = Some(ManagerIntroduction { id, name, pid: std::process::id(), limits });
    let is_same = theirs.fingerprint == ours.fingerprint;
    let status = if is_same { Status::Done } else { Status::OtherBuild };
    let body = CallPayload::new(&to_bytes(&ours), &Handles::default());
    let reply = CallReply { call: NO_CALL, status: status as u32, object: number.into(), body };
    if !is_same {
        server.refused(format!("it is {theirs}, and the manager is {ours}"));
        let _ = connection.send_timeout(reply, INTRODUCTION_TIMEOUT);
        return;
    }
    connection.set_longest(limits.frame_bytes());
    let connected = Arc::new(Connected::new(number, connection, limits));
    let peer = Peer { number, link: PeerLink::Connected(Arc::clone(&connected)) };
    if !server.tables.lock_unpoisoned().add_client(peer, None) {
        return;
    }
    let _served = ServedClient { server, number, connected: &connected };
    // A client that has its number is counted.
    if connected.connection().send_timeout(reply, INTRODUCTION_TIMEOUT).is_ok() && receive(server, number, &connected) {
        connected.close();
    }
}

/// Handles a client's requests until its connection ends, or until it breaks the rules. True: it has ended, or said goodbye.
fn receive(server: &Arc<Server>, number: u32, connected: &Arc<Connected>) -> bool {
    let limits = server.limits;
    let mut progress = Progress::new();
    while connected.is_in_time(&mut progress) {
        let goes_on = match connected.connection().recv_timeout(limits.look_interval()) {
            Ok(ClientRequest::Goodbye { .. }) | Err(RecvTimeoutError::Disconnected) => return true,
            Ok(request) => handle(server, number, request, connected),
            Err(error) => error == RecvTimeoutError::Timeout,
        };
        if !goes_on {
            return false;
        }
    }
    false
}

/// Handles one request of client `number`, whatever number stands in it. False: it breaks the rules, or says goodbye.
pub(super) fn handle(server: &Arc<Server>, number: u32, request: ClientRequest, connected: &Arc<Connected>) -> bool {
    match request {
        ClientRequest::Call { call, method, object, body, .. } => {
            connected.push(server, number, (call, method, object, body))
        }
        ClientRequest::Ask { call, question, .. } => connected.ask(server, number, (call, question)),
        ClientRequest::Alive => {
            connected.say_alive();
            true
        }
        ClientRequest::Release { object, .. } => {
            connected.drop_beside(server.control(ClientRequest::Release { client: number, object }));
            true
        }
        ClientRequest::ReleaseMany { objects, .. } => {
            if objects.len() > MAX_RELEASED_OBJECTS {
                return false;
            }
            connected.drop_beside(server.control(ClientRequest::ReleaseMany { client: number, objects }));
            // The client sends the next ones when it hears that these were taken.
            connected.say_alive();
            true
        }
        ClientRequest::Cancel { call, .. } => {
            connected.cancel(call);
            connected.drop_beside(server.control(ClientRequest::Cancel { client: number, call }));
            true
        }
        _ => false,
    }
}
