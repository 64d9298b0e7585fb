//! Managers that are connected to: the client's side.
//!
//! Runs in: any process. A thread of each connection brings the answers to those that wait.

#[cfg(feature = "tcp")]
use std::net::ToSocketAddrs;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Client, ClientConnection};
use super::connected_link::ConnectedLink;
use super::connection_limits::ConnectionLimits;
use super::handle::ManagerHandle;
use super::held::Route;
use super::owner::Manager;
use super::pending::Inbox;
use super::remote::introduction;
use super::wire::{ClientRequest, Introduction, NO_CALL, Status};
#[cfg(feature = "tcp")]
use crate::channel::{Key, connect_tcp};
use crate::channel::{RecvTimeoutError, connect_unix};
use crate::codec::message::from_bytes;
use crate::error::{Error, ErrorKind, Execution, Result};

/// How long the manager may take to say of which build it is.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a thread that waits for answers looks whether the connection is still wanted.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How often it tries to send what there was no room for.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

impl Manager {
    /// Connects to a manager that [listens](crate::ManagerBuilder::listen_unix) at `path`: one of this user, and of the
    /// same build of this program.
    ///
    /// # Errors
    /// As [`channel::connect_unix`](crate::channel::connect_unix); and [`ErrorKind::BinaryMismatch`] if the manager is of another
    /// build, which the error names.
    ///
    /// # If the manager dies
    /// As that of any: each call fails with [`ErrorKind::ManagerGone`], also where it ended this process's connection only.
    pub fn connect_unix(path: impl AsRef<Path>) -> Result<ManagerHandle> {
        over(connect_unix(path)?)
    }

    /// Connects to a manager that [listens](crate::ManagerBuilder::listen_tcp) at this address, and that has the same key
    /// and is of the same build of this program.
    ///
    /// # Errors
    /// As [`channel::connect_tcp`](crate::channel::connect_tcp); and [`ErrorKind::BinaryMismatch`] if the manager is of another
    /// build, which the error names.
    ///
    /// # If the manager dies
    /// As with [`connect_unix`](Self::connect_unix).
    #[cfg(feature = "tcp")]
    #[doc(alias = "connect")]
    pub fn connect_tcp(address: impl ToSocketAddrs, key: &Key) -> Result<ManagerHandle> {
        over(connect_tcp(address, key)?)
    }
}

pub(super) fn over(connection: ClientConnection) -> Result<ManagerHandle> {
    let refused = |reason: &str| {
        let reason = format!("connect to a manager: {reason}");
        Error::new(ErrorKind::PeerRefused { reason }, Execution::NotStarted)
    };
    let ours = introduction();
    let sent = connection.send_timeout(ClientRequest::Introduce(ours.clone()), INTRODUCTION_TIMEOUT);
    // One that has closed the connection may have said why before.
    let reply = connection.recv_timeout(INTRODUCTION_TIMEOUT).map_err(|_| match sent {
        Err(_) => refused("the other side has closed the connection"),
        Ok(()) => refused("the other side does not answer as a manager of this crate's version does"),
    })?;
    let (bytes, _) = reply.body.unpack();
    if reply.status == Status::Refused as u32 {
        return Err(refused(&String::from_utf8_lossy(bytes.as_slice())));
    }
    let theirs: Option<Introduction> = from_bytes(bytes.as_slice()).ok();
    let theirs = theirs.ok_or_else(|| refused("the other side does not say of which build it is"))?;
    if reply.status != Status::Done as u32 || theirs.fingerprint != ours.fingerprint {
        let note = format!("the manager is {theirs}, and this is {ours}");
        return Err(Error::new(ErrorKind::BinaryMismatch, Execution::NotStarted).with_note(note));
    }
    let manager = theirs.manager.ok_or_else(|| refused("the other side does not say which manager it is"))?;
    let number = u32::try_from(reply.object).unwrap_or(0);
    connection.set_longest(manager.limits.frame_bytes());
    let (link, inbox) = (Arc::new(ConnectedLink::new(connection, manager.limits)), Arc::new(Inbox::new(None)));
    let client = Arc::new(Client::connected(&manager, number, (Arc::clone(&link), Arc::clone(&inbox))));
    let (own, reader) = (Arc::downgrade(&client), thread::Builder::new().name("process-task".to_owned()));
    let read = move || read(&own, &link, &inbox);
    reader.spawn(read).map_err(|error| Error::could_not_start("start a thread", crate::sys::errno_of(&error)))?;
    Ok(ManagerHandle::new(Route::Client(client)))
}

/// Brings answers to the threads that wait, and sends what no thread waits to send, until the connection ends or is not wanted
/// any more; or until the manager, over the network, has sent nothing for the lease.
fn read(client: &Weak<Client>, link: &ConnectedLink, inbox: &Inbox) {
    let (connection, limits) = (&link.connection, link.limits);
    let mut keep_alive = KeepAlive::new(connection, limits);
    let is_wanted = || client.strong_count() > 0;
    while is_wanted() && keep_alive.go_on() {
        let timeout = if link.go_on() { LOOK_INTERVAL.min(limits.look_interval()) } else { RETRY_INTERVAL };
        match connection.recv_timeout(timeout) {
            Ok(reply) if reply.call == NO_CALL => link.answered(),
            Ok(reply) => inbox.deliver(reply, &|_, object| {
                // No thread waits for it any more.
                if object != 0 {
                    link.release(object);
                }
            }),
            Err(RecvTimeoutError::Timeout) => {}
            Err(_) => break,
        }
    }
    inbox.end();
    if is_wanted() {
        // The manager hears of it now, and not when the last proxy is dropped.
        connection.shut_down();
    }
}

/// What keeps a connection over the network alive, and sees that the other side does.
struct KeepAlive<'c> {
    connection: &'c ClientConnection,
    limits: ConnectionLimits,
    came: u64,
    came_at: Instant,
    said_at: Instant,
}

impl<'c> KeepAlive<'c> {
    fn new(connection: &'c ClientConnection, limits: ConnectionLimits) -> Self {
        let now = Instant::now();
        Self { connection, limits, came: 0, came_at: now, said_at: now }
    }

    /// Says that this side lives, if it is time to. False: the other side has said nothing for the lease.
    fn go_on(&mut self) -> bool {
        let Some((came, _)) = self.connection.traffic() else { return true };
        let now = Instant::now();
        if came != self.came {
            (self.came, self.came_at) = (came, now);
        }
        if now.duration_since(self.said_at) >= self.limits.look_interval() {
            self.said_at = now;
            // While a long message leaves, that says it.
            let _ = self.connection.send_timeout(ClientRequest::Alive, Duration::ZERO);
        }
        now.duration_since(self.came_at) < self.limits.lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::pipe;
    use crate::codec::handles::Handles;
    use crate::codec::message::to_bytes;
    use crate::manager::wire::{CallPayload, CallReply};

    /// What a client hears of another side that answers so.
    fn told_by(answer: impl FnOnce(Introduction) -> Option<(Status, Vec<u8>)> + Send) -> Error {
        let (client, manager) = pipe::<ClientRequest, CallReply>().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let Ok(ClientRequest::Introduce(theirs)) = manager.recv() else { panic!("no introduction") };
                if let Some((status, bytes)) = answer(theirs) {
                    let body = CallPayload::new(&bytes, &Handles::default());
                    manager.send(CallReply { call: 0, status: status as u32, object: 1, body }).unwrap();
                }
            });
            over(client).unwrap_err()
        })
    }

    #[test]
    fn other_build_is_named_on_both_sides() {
        for status in [Status::OtherBuild, Status::Done] {
            let error = told_by(|theirs| {
                assert!(!theirs.program.is_empty() && theirs.manager.is_none());
                let fingerprint = theirs.fingerprint ^ 1;
                let ours = Introduction { fingerprint, program: "older".to_owned(), manager: None };
                Some((status, to_bytes(&ours)))
            });
            assert_eq!(error.kind(), &ErrorKind::BinaryMismatch);
            let own = format!("{:016x}", introduction().fingerprint);
            let text = error.to_string();
            assert!(text.contains("`older` of build") && text.contains(&own), "{text}");
        }
    }

    #[test]
    fn other_side_that_is_no_manager_is_refused() {
        for error in [told_by(|_| None), told_by(|_| Some((Status::Done, vec![7; 3])))] {
            assert!(matches!(error.kind(), ErrorKind::PeerRefused { .. }), "{error}");
        }
    }
}
