//! What a manager knows: its objects, its clients, and the messages on their way that hold objects.
//!
//! Runs in: the manager, under one mutex.
//! Invariant: an object is here for as long as a client, a message on its way or a value in the manager has it. What is
//! taken out is dropped by the caller, outside the mutex, since its destructor may make calls.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::connected::Connected;
use super::instance::Instance;
use super::memory::ClientMemory;
use super::published::PublishedValue;
use super::unsent::UnsentReplies;
use super::wakeup::GROUPS;
use super::wire::{CallReply, ClientRequest};
use crate::channel::{Connection, QueueSender, SendTimeoutError};
use crate::sync::atomic::AtomicU32;

/// A client, as the threads of the manager that answer it have it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) number: u32,
    pub(super) link: PeerLink,
}

/// The ways to a client.
#[derive(Debug)]
pub(super) enum PeerLink {
    /// A process of the manager's tree.
    Local {
        memory: Arc<ClientMemory>,
        /// A bit for each slot in which the leader has yet to look for a call. Changed by the leader alone.
        announced: AtomicU32,
        replies: QueueSender<CallReply>,
        unsent: UnsentReplies,
    },
    /// One that has connected.
    Connected(Arc<Connected>),
}

/// A connection, as the manager has it.
pub(super) type ServedConnection = Connection<CallReply, ClientRequest>;

impl Peer {
    /// A process of the manager's tree.
    pub(super) fn local(number: u32, memory: Arc<ClientMemory>, replies: QueueSender<CallReply>) -> Self {
        let (announced, unsent) = (AtomicU32::new(0), UnsentReplies::default());
        Self { number, link: PeerLink::Local { memory, announced, replies, unsent } }
    }

    /// Sends an answer through the client's queue, or its connection, for which nothing waits.
    pub(super) fn send(&self, reply: CallReply, timeout: Duration) -> Result<(), SendTimeoutError<CallReply>> {
        match &self.link {
            PeerLink::Local { replies, .. } => replies.send_timeout(reply, timeout),
            PeerLink::Connected(connected) => {
                connected.answer(reply);
                Ok(())
            }
        }
    }
}

#[derive(Debug)]
struct CountedObject {
    instance: Arc<Instance>,
    /// How many references there are, wherever they are.
    references: u64,
}

#[derive(Debug)]
struct ClientEntry {
    peer: Arc<Peer>,
    /// Its pidfd, which is watched; of one that has connected, the connection is.
    process: Option<OwnedFd>,
    /// How many references to which object it has.
    references: HashMap<u64, u64>,
}

#[derive(Debug)]
struct TicketEntry {
    /// The end that is watched.
    end: OwnedFd,
    objects: Vec<u64>,
}

/// Objects that no reference is left to. To be dropped outside the mutex.
pub(super) type Dropped = Vec<Arc<Instance>>;

/// The clients that share a bit of the wake-up word. It is replaced, never changed, so that a thread may go through it.
pub(super) type Group = Arc<Vec<Arc<Peer>>>;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Tables {
    objects: HashMap<u64, CountedObject>,
    last_object: u64,
    clients: HashMap<u32, ClientEntry>,
    groups: Vec<Group>,
    tickets: HashMap<u64, TicketEntry>,
    published: HashMap<String, PublishedValue>,
}

impl Tables {
    pub(super) fn new() -> Self {
        Self {
            objects: HashMap::new(),
            last_object: 0,
            clients: HashMap::new(),
            groups: (0..GROUPS).map(|_| Group::default()).collect(),
            tickets: HashMap::new(),
            published: HashMap::new(),
        }
    }

    pub(super) fn object(&self, object: u64) -> Option<Arc<Instance>> {
        self.objects.get(&object).map(|counted| Arc::clone(&counted.instance))
    }

    /// How many objects there are of which type.
    pub(super) fn objects_by_type(&self) -> HashMap<&'static str, usize> {
        let mut counts = HashMap::new();
        for counted in self.objects.values() {
            *counts.entry(counted.instance.object_type().name()).or_default() += 1;
        }
        counts
    }

    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Number of messages on their way that hold objects.
    pub(super) fn tickets(&self) -> usize {
        self.tickets.len()
    }

    pub(super) fn peer(&self, client: u32) -> Option<Arc<Peer>> {
        self.clients.get(&client).map(|client| Arc::clone(&client.peer))
    }

    /// The clients of the group with that number.
    pub(super) fn group(&self, number: u32) -> Group {
        self.groups.get(number as usize).cloned().unwrap_or_default()
    }

    /// Adds a client, unless there is one with its number.
    pub(super) fn add_client(&mut self, peer: Peer, process: Option<OwnedFd>) -> bool {
        let number = peer.number;
        let Entry::Vacant(place) = self.clients.entry(number) else { return false };
        let peer = Arc::new(peer);
        let has_memory = matches!(peer.link, PeerLink::Local { .. });
        place.insert(ClientEntry { peer: Arc::clone(&peer), process, references: HashMap::new() });
        if has_memory && let Some(group) = self.groups.get_mut((number % GROUPS) as usize) {
            Arc::make_mut(group).push(peer);
        }
        true
    }

    /// Removes a client and all references that it has. Its pidfd is not to be watched any more.
    pub(super) fn remove_client(&mut self, number: u32) -> Option<(Option<OwnedFd>, Dropped)> {
        let client = self.clients.remove(&number)?;
        if let Some(group) = self.groups.get_mut((number % GROUPS) as usize) {
            Arc::make_mut(group).retain(|peer| peer.number != number);
        }
        let mut dropped = Dropped::new();
        for (object, count) in client.references {
            dropped.extend(self.subtract(object, count));
        }
        Some((client.process, dropped))
    }

    /// Calls `look` with the client's pidfd, which is watched.
    pub(super) fn with_process<R>(&self, client: u32, look: impl FnOnce(&OwnedFd) -> R) -> Option<R> {
        self.clients.get(&client).and_then(|client| client.process.as_ref()).map(look)
    }

    /// Adds an object that `client` has one reference to; the manager itself if there is none. Its number; or the object,
    /// if the client is gone.
    pub(super) fn add_object(&mut self, client: Option<u32>, instance: Arc<Instance>) -> Result<u64, Arc<Instance>> {
        let number = self.last_object + 1;
        if let Some(client) = client {
            let Some(client) = self.clients.get_mut(&client) else { return Err(instance) };
            client.references.insert(number, 1);
        }
        self.last_object = number;
        self.objects.insert(number, CountedObject { instance, references: 1 });
        Ok(number)
    }

    /// How many objects that client has references to.
    pub(super) fn objects_of(&self, client: u32) -> usize {
        self.clients.get(&client).map_or(0, |client| client.references.len())
    }

    /// `client` has one more reference to `object`.
    pub(super) fn claim(&mut self, client: u32, object: u64) {
        if let (Some(client), Some(counted)) = (self.clients.get_mut(&client), self.objects.get_mut(&object)) {
            *client.references.entry(object).or_default() += 1;
            counted.references += 1;
        }
    }

    /// `client` has one less.
    pub(super) fn release(&mut self, client: u32, object: u64) -> Option<Arc<Instance>> {
        let Entry::Occupied(mut count) = self.clients.get_mut(&client)?.references.entry(object) else { return None };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
        self.subtract(object, 1)
    }

    /// A value in the manager has one more reference to `object`, which is there.
    pub(super) fn claim_here(&mut self, object: u64) -> bool {
        let counted = self.objects.get_mut(&object);
        counted.map(|counted| counted.references += 1).is_some()
    }

    /// A value in the manager has one less.
    pub(super) fn release_here(&mut self, object: u64) -> Option<Arc<Instance>> {
        self.subtract(object, 1)
    }

    /// A message on its way holds `object`. Its `end`, which is watched, comes with the first one.
    pub(super) fn hold(&mut self, ticket: u64, object: u64, end: Option<OwnedFd>) {
        let ticket = match (self.tickets.entry(ticket), end) {
            (Entry::Occupied(known), None) => known.into_mut(),
            (Entry::Vacant(place), Some(end)) => place.insert(TicketEntry { end, objects: Vec::new() }),
            // A client that says otherwise breaks the rules, and is not heard.
            (Entry::Occupied(_), Some(_)) | (Entry::Vacant(_), None) => return,
        };
        if let Some(counted) = self.objects.get_mut(&object) {
            counted.references += 1;
            ticket.objects.push(object);
        }
    }

    /// A message is gone. Its end is not to be watched any more.
    pub(super) fn remove_ticket(&mut self, ticket: u64) -> Option<(OwnedFd, Dropped)> {
        let ticket = self.tickets.remove(&ticket)?;
        let dropped = ticket.objects.into_iter().filter_map(|object| self.subtract(object, 1)).collect();
        Some((ticket.end, dropped))
    }

    /// Gives a value a name, and holds its objects. `None`: one of them is not there.
    pub(super) fn publish(&mut self, name: String, value: PublishedValue) -> Option<Dropped> {
        if !value.objects.iter().all(|object| self.objects.contains_key(object)) {
            return None;
        }
        for object in &value.objects {
            self.claim_here(*object);
        }
        let before = self.published.insert(name, value);
        Some(before.map_or_else(Dropped::new, |before| self.let_go(before)))
    }

    /// The value of that name, whose objects are counted for `client`; for the manager itself if it is 0.
    pub(super) fn find(&mut self, client: u32, name: &str) -> Option<PublishedValue> {
        let value = self.published.get(name).cloned()?;
        for object in &value.objects {
            if client == 0 {
                self.claim_here(*object);
            } else {
                self.claim(client, *object);
            }
        }
        Some(value)
    }

    /// Takes a name away. `None`: there was none.
    pub(super) fn unpublish(&mut self, name: &str) -> Option<Dropped> {
        let value = self.published.remove(name)?;
        Some(self.let_go(value))
    }

    fn let_go(&mut self, value: PublishedValue) -> Dropped {
        value.objects.into_iter().filter_map(|object| self.subtract(object, 1)).collect()
    }

    /// Takes all objects out, for the end.
    pub(super) fn take_objects(&mut self) -> Dropped {
        self.published.clear();
        self.objects.drain().map(|(_, counted)| counted.instance).collect()
    }

    fn subtract(&mut self, object: u64, count: u64) -> Option<Arc<Instance>> {
        let Entry::Occupied(mut counted) = self.objects.entry(object) else { return None };
        let left = counted.get().references.saturating_sub(count);
        counted.get_mut().references = left;
        (left == 0).then(|| counted.remove().instance)
    }
}
