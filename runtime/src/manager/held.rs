//! References to objects: how a process has one, and how one travels.
//!
//! Runs in: any process. Invariant: the manager has counted each reference before the one that it was made from can be gone.
//!
//! A process has one reference to each object, however many proxies share it; when the last proxy is dropped, it says
//! so to the manager. A proxy that travels is held by a **ticket** of its message: one end of a socket pair goes with the
//! message, and the manager watches the other. So the object is held until the message is gone, wherever it is lost.
//! The process that decodes the proxy claims a reference of its own first, and lets go of the ticket after that.
//! What one process sends to the manager is handled in order.

use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::client::{Client, ClientLink};
use super::memory::ManagerMemory;
use super::server::Server;
use super::wire::{Answer, ClientRequest, FromDescriptor, ManagerId, ManagerQuestion, TravellingHandle};
use crate::channel::{Descriptor, QueueSender, Travelling};
use crate::codec::CodecError;
use crate::codec::handles::{self, Handle, Handles};
use crate::error::{Error, ErrorKind, Execution, Result};
use crate::sys::mutex::MutexExt as _;
use crate::sys::{atfork, socket};

/// Where a manager is: what a process needs to become its client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(super) id: ManagerId,
    pub(super) name: String,
    /// The queue of its requests and the memory that wakes it, by the indices of their handles. Only a process that is no
    /// client yet opens them.
    requests: Travelling,
    shared: u32,
}

impl Address {
    /// Opens what a client needs.
    fn open(&self) -> Result<(QueueSender<ClientRequest>, Arc<ManagerMemory>)> {
        let shared = || handles::open(self.shared, |fd| ManagerMemory::from_descriptor(fd).map(Arc::new));
        let opened = QueueSender::arrived(self.requests).and_then(|requests| Ok((requests, shared()?)));
        opened.map_err(|error| Error::invalid(error.to_string()))
    }
}

/// How this process reaches a manager.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    Client(Arc<Client>),
    /// This process is the manager.
    Own(Arc<Server>),
}

impl Route {
    /// The client that this process is of the manager, unless it is the manager.
    #[cfg(test)]
    pub(super) fn client(&self) -> Option<&Arc<Client>> {
        match self {
            Self::Client(client) => Some(client),
            Self::Own(_) => None,
        }
    }

    /// Whether the manager is reached by a connection.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self, Self::Client(client) if matches!(client.link, ClientLink::Connected(_)))
    }

    pub(super) fn id(&self) -> ManagerId {
        match self {
            Self::Client(client) => client.id,
            Self::Own(server) => server.id,
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Client(client) => &client.name,
            Self::Own(server) => &server.name,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Client(client) => client.pid,
            Self::Own(_) => std::process::id(),
        }
    }

    /// The way to the manager whose parts came with the payload that this thread decodes.
    pub(super) fn arrived(address: &Address) -> std::result::Result<Self, CodecError> {
        if let Some(server) = Server::own().filter(|server| server.id == address.id) {
            return Ok(Self::Own(Arc::clone(server)));
        }
        let client = Client::connect((address.id, &address.name), || address.open());
        let client = client.map_err(|error| CodecError::new(error.to_string()))?;
        Ok(Self::Client(client))
    }

    /// The manager's parts, for the payload that this thread encodes.
    pub(super) fn travelling(&self) -> std::result::Result<Address, CodecError> {
        let (shared, requests) = match self {
            Self::Client(client) => match &client.link {
                ClientLink::Local(local) => (&local.shared, &local.requests),
                ClientLink::Connected(_) => {
                    return Err(CodecError::new(
                        "a proxy, or a handle, of a manager that this process has connected to cannot travel; connect to the \
                         manager from the other process",
                    ));
                }
            },
            Self::Own(server) => (&server.shared, &server.sender),
        };
        let (requests, shared) = (requests.travelling()?, handles::attach(Arc::clone(shared) as Arc<dyn Handle>)?);
        Ok(Address { id: self.id(), name: self.name().to_owned(), requests, shared })
    }

    /// Whether the manager has ended, as far as is known here.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Client(client) => client.is_over(),
            Self::Own(server) => server.has_ended(),
        }
    }

    /// Makes a call, and waits for its answer. `in_queue`: behind the calls that this process has put into the queue.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(super) fn call(
        &self,
        what: (u32, u64),
        arguments: (&[u8], &Handles),
        (in_queue, deadline): (bool, Option<Instant>),
    ) -> Result<Answer> {
        match self {
            Self::Client(client) => client.call(what, arguments, (in_queue, deadline)),
            Self::Own(server) => call_here(server, what, arguments, deadline),
        }
    }

    /// Asks the manager itself.
    ///
    /// # Errors
    /// As [`Client::call`].
    fn ask(&self, question: ManagerQuestion, deadline: Option<Instant>) -> Result<Answer> {
        match self {
            Self::Client(client) => client.ask(question, deadline),
            Self::Own(server) => {
                let (status, bytes) = server.ask(0, question);
                let bytes = super::wire::AlignedBytes::copied(&bytes);
                Ok(Answer { status, object: 0, bytes, received: handles::Received::default() })
            }
        }
    }

    /// Asks the manager itself. What it says, as bytes.
    ///
    /// # Errors
    /// As [`Client::call`]; or what was asked for is not there.
    pub(super) fn ask_for_bytes(&self, question: ManagerQuestion, deadline: Option<Instant>) -> Result<Vec<u8>> {
        let asked = self.ask(question, deadline).and_then(|answer| Ok(answer.checked()?.0.to_vec()));
        asked.map_err(|error| error.in_process(self.name(), self.pid()))
    }

    /// The reference to an object that the manager has counted for this process: a constructor's answer brought it.
    pub(super) fn adopt(&self, object: u64) -> Arc<Held> {
        let held = Held::new(self.clone(), object);
        if let Self::Client(client) = self {
            client.held.lock_unpoisoned().insert(object, Arc::downgrade(&held));
        }
        held
    }

    /// The reference to an object that the manager has counted for this process, which may have one already.
    pub(super) fn adopt_found(&self, object: u64) -> Arc<Held> {
        let Self::Client(client) = self else { return Held::new(self.clone(), object) };
        let mut held = client.held.lock_unpoisoned();
        if let Some(known) = held.get(&object).and_then(Weak::upgrade) {
            drop(held);
            client.release(object);
            return known;
        }
        let new = Held::new(self.clone(), object);
        held.insert(object, Arc::downgrade(&new));
        new
    }

    /// A reference to an object that a message on its way holds.
    fn claim(&self, object: u64) -> Arc<Held> {
        match self {
            Self::Own(server) => {
                server.tables.lock_unpoisoned().claim_here(object);
                Held::new(self.clone(), object)
            }
            Self::Client(client) => {
                let mut held = client.held.lock_unpoisoned();
                if let Some(known) = held.get(&object).and_then(Weak::upgrade) {
                    return known;
                }
                let new = Held::new(self.clone(), object);
                held.insert(object, Arc::downgrade(&new));
                client.tell(ClientRequest::Claim { client: client.number, object });
                new
            }
        }
    }
}

/// Makes a call in the manager itself, and waits for its answer.
///
/// # Errors
/// The call waits, and its time is over.
pub(super) fn call_here(
    server: &Server,
    what: (u32, u64),
    arguments: (&[u8], &Handles),
    deadline: Option<Instant>,
) -> Result<Answer> {
    let late = || Error::new(ErrorKind::Elapsed, Execution::Unknown).in_process(&server.name, std::process::id());
    server.call_here(what, arguments, deadline).ok_or_else(late)
}

/// This process's reference to an object.
pub(crate) struct Held {
    pub(super) route: Route,
    pub(super) object: u64,
    /// Number of calls in the queue of requests that no short call may overtake.
    pub(super) queued: Arc<AtomicU32>,
    /// See [`atfork::generation`].
    generation: u64,
}

impl Held {
    fn new(route: Route, object: u64) -> Arc<Self> {
        Arc::new(Self { route, object, queued: Arc::default(), generation: atfork::generation() })
    }

    /// Has the message that this thread encodes hold the object. The index of the message's ticket.
    ///
    /// # Errors
    /// This thread encodes no message, there is no descriptor for a ticket, or this process is a copy made by `fork()`.
    pub(super) fn travelling(&self) -> std::result::Result<u32, CodecError> {
        if self.generation != atfork::generation() {
            return Err(CodecError::new(
                "a proxy of a process that this one is a `fork()` of cannot travel: the manager does not hear of it",
            ));
        }
        let id = self.route.id();
        let known = handles::find_collected(|ticket: &Ticket| ticket.own.as_ref().is_some_and(|own| own.manager == id));
        let ticket = match known {
            Some(ticket) => {
                ticket.hold(self);
                ticket
            }
            None => Arc::new(Ticket::new(self)?),
        };
        handles::attach(ticket)
    }

    /// The reference to the object whose proxy came with the payload that this thread decodes, held by the ticket of that index.
    ///
    /// # Errors
    /// There is no such ticket.
    pub(super) fn arrived(route: &Route, object: u64, ticket: u32) -> std::result::Result<Arc<Self>, CodecError> {
        let _holds_meanwhile = handles::open(ticket, |fd| Ticket::from_descriptor(fd).map(Arc::new))?;
        Ok(route.claim(object))
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("manager", &self.route.name())
            .field("object", &self.object)
            .finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.generation != atfork::generation() {
            return;
        }
        match &self.route {
            Route::Own(server) => {
                let dropped = server.tables.lock_unpoisoned().release_here(self.object);
                drop(dropped);
            }
            Route::Client(client) => {
                let mut held = client.held.lock_unpoisoned();
                if let Entry::Occupied(known) = held.entry(self.object)
                    && known.get().strong_count() == 0
                {
                    known.remove();
                }
                drop(held);
                client.release(self.object);
            }
        }
    }
}

/// What holds the objects whose proxies are in a message.
#[derive(Debug)]
struct Ticket {
    end: OwnedFd,
    /// In the process that made it.
    own: Option<OwnTicket>,
}

#[derive(Debug)]
struct OwnTicket {
    manager: ManagerId,
    number: u64,
    /// The objects that it holds.
    objects: Mutex<HashSet<u64>>,
}

impl Ticket {
    fn new(held: &Held) -> std::result::Result<Self, CodecError> {
        let object = held.object;
        let refused = |errno| CodecError::new(format!("a proxy cannot travel: {}", crate::error::why(errno)));
        let (number, end) = match &held.route {
            Route::Own(server) => server.new_ticket(object).map_err(refused)?,
            Route::Client(client) => {
                let (ours, theirs) = socket::pair().map_err(refused)?;
                let ticket = client.next_ticket();
                client.tell(ClientRequest::Hold { ticket, object, end: Some(Descriptor::new(ours)) });
                (ticket, theirs)
            }
        };
        let own = OwnTicket { manager: held.route.id(), number, objects: Mutex::new(HashSet::from([object])) };
        Ok(Self { end, own: Some(own) })
    }

    fn hold(&self, held: &Held) {
        let Some(own) = &self.own else { return };
        let object = held.object;
        if own.objects.lock_unpoisoned().insert(object) {
            match &held.route {
                Route::Own(server) => server.hold_more(own.number, object),
                Route::Client(client) => client.tell(ClientRequest::Hold { ticket: own.number, object, end: None }),
            }
        }
    }
}

impl FromDescriptor for Ticket {
    fn from_descriptor(descriptor: OwnedFd) -> std::result::Result<Self, CodecError> {
        Ok(Self { end: descriptor, own: None })
    }
}

impl Handle for Ticket {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    /// It ends with the message, and not before: another proxy in it may not be decoded yet.
    fn is_cacheable(&self) -> bool {
        false
    }
}

/// The memory of a manager, on its way to the manager that is started.
pub(super) type TravellingMemory = TravellingHandle<ManagerMemory>;
