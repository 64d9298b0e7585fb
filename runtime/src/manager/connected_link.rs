//! A client's side of a connection: what it has to say and no answer is needed to.
//!
//! Runs in: each process that has connected, on the threads that call, and on the one that reads.
//! Invariant: no thread waits for room here, so that a manager that does not read makes no drop and no call with a limit wait.
//!
//! Objects that are let go of are gathered while a message with others is on its way. The manager says when it has taken it,
//! and the thread that reads sends the next ones.

use std::sync::Mutex;
use std::time::Duration;

use super::client::ClientConnection;
use super::connection_limits::ConnectionLimits;
use super::wire::ClientRequest;
use crate::sys::mutex::MutexExt as _;

/// Number of objects that go with one message.
pub(super) const MAX_RELEASED_OBJECTS: usize = 4096;

/// A connection, what the manager allows, and what was not sent yet.
#[derive(Debug)]
pub(crate) struct ConnectedLink {
    pub(super) connection: ClientConnection,
    pub(super) limits: ConnectionLimits,
    unsent: Mutex<Unsent>,
}

#[derive(Debug, Default)]
struct Unsent {
    released: Vec<u64>,
    cancelled: Vec<u64>,
    /// A message with objects is on its way.
    awaits: bool,
}

impl ConnectedLink {
    pub(super) fn new(connection: ClientConnection, limits: ConnectionLimits) -> Self {
        Self { connection, limits, unsent: Mutex::default() }
    }

    /// Lets go of one reference to `object`.
    pub(super) fn release(&self, object: u64) {
        let mut unsent = self.unsent.lock_unpoisoned();
        unsent.released.push(object);
        if !unsent.awaits {
            self.send_released(&mut unsent);
        }
    }

    /// Says that no thread waits for this call any more.
    pub(super) fn cancel(&self, call: u64) {
        let mut unsent = self.unsent.lock_unpoisoned();
        unsent.cancelled.push(call);
        self.send_cancelled(&mut unsent);
    }

    /// The manager has taken the objects that were sent last.
    pub(super) fn answered(&self) {
        self.unsent.lock_unpoisoned().awaits = false;
    }

    /// Sends what can be sent. False: there is something left for which there was no room.
    pub(super) fn go_on(&self) -> bool {
        let mut unsent = self.unsent.lock_unpoisoned();
        let released = unsent.awaits || self.send_released(&mut unsent);
        self.send_cancelled(&mut unsent) && released
    }

    /// Sends all objects now, so that they are let go of before what this thread sends next.
    pub(super) fn hurry(&self) {
        let mut unsent = self.unsent.lock_unpoisoned();
        while !unsent.released.is_empty() && self.send_released(&mut unsent) {}
    }

    /// Says that this process is no client any more, if there is room. The end of the connection says so, too.
    pub(super) fn say_goodbye(&self) {
        let _ = self.connection.send_timeout(ClientRequest::Goodbye { client: 0 }, Duration::ZERO);
    }

    /// False: there is no room.
    fn send_released(&self, unsent: &mut Unsent) -> bool {
        let count = unsent.released.len().min(MAX_RELEASED_OBJECTS);
        if count == 0 {
            return true;
        }
        let objects = unsent.released[..count].to_vec();
        let is_sent =
            self.connection.send_timeout(ClientRequest::ReleaseMany { client: 0, objects }, Duration::ZERO).is_ok();
        if is_sent {
            unsent.released.drain(..count);
            unsent.awaits = true;
        }
        is_sent
    }

    /// False: there is no room for all.
    fn send_cancelled(&self, unsent: &mut Unsent) -> bool {
        let is_said = |call: &u64| {
            let cancel = ClientRequest::Cancel { client: 0, call: *call };
            self.connection.send_timeout(cancel, Duration::ZERO).is_ok()
        };
        let count = unsent.cancelled.iter().take_while(|call| is_said(call)).count();
        unsent.cancelled.drain(..count);
        unsent.cancelled.is_empty()
    }
}
