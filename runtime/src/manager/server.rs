//! A manager's side: takes requests, runs calls, and answers.
//!
//! Runs in: the manager.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::connection_limits::ConnectionLimits;
use super::deferred::{self, AnswerPlace, Answering, CallId};
use super::memory::ManagerMemory;
use super::run::{self, MethodCall};
use super::stats::ManagerStats;
use super::tables::{Dropped, Peer, PeerLink, Tables};
use super::turn::{Turn, hurry};
use super::wakeup;
use super::wire::{
    AlignedBytes, Answer, CallPayload, CallReply, ClientRequest, Hello, ManagerId, ManagerQuestion, NO_CALL, Status,
};
use crate::channel::{QueueReceiver, QueueSender, TryRecvError};
use crate::codec::handles::{Handle, Handles, Received};
use crate::codec::message::to_bytes;
use crate::error::ErrorKind;
use crate::sys::fd::FileId;
use crate::sys::mutex::MutexExt as _;
use crate::sys::poll::{Epoll, Trigger};
use crate::sys::{self, fd, limits as process_limits, socket};

/// The manager that this process is.
static SERVER: OnceLock<Arc<Server>> = OnceLock::new();

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Server {
    pub(super) id: ManagerId,
    pub(super) name: String,
    pub(super) shared: Arc<ManagerMemory>,
    pub(super) receiver: QueueReceiver<ClientRequest>,
    pub(super) sender: QueueSender<ClientRequest>,
    pub(super) tables: Mutex<Tables>,
    pub(super) turn: Turn,
    /// What tells that a client's process, or a message on its way, is gone.
    pub(super) watched: Epoll,
    /// Number of the message that was sent last with proxies of this manager.
    tickets: AtomicU32,
    /// Descriptors that are there to be given up.
    spare: Mutex<Vec<OwnedFd>>,
    pub(super) calls: AtomicU64,
    /// What each process that connects may cost.
    pub(super) limits: ConnectionLimits,
    /// How many connections were refused, and why the last one was.
    refused: Mutex<(u64, Option<String>)>,
    /// Where it listens.
    pub(super) addresses: OnceLock<Vec<String>>,
    has_ended: AtomicBool,
    /// An eventfd among what is watched: the manager has ended.
    end: OwnedFd,
    /// What each address of this manager travels with, by the files that they are.
    own_handles: Vec<(FileId, Arc<dyn Handle>)>,
}

/// How many descriptors are kept for times when there are no more: as many as come with one request, or a quarter of those that
/// this process may have.
fn spare_descriptors() -> usize {
    let (limit, _) = process_limits::current()[process_limits::OPEN_FILES];
    socket::MAX_DESCRIPTORS.min(usize::try_from(limit / 4).unwrap_or(usize::MAX))
}

/// How long to wait where even those are too few.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

/// Adds what is missing of the descriptors that are kept. False: there are not so many.
fn fill(spare: &mut Vec<OwnedFd>) -> bool {
    for _ in spare.len()..spare_descriptors() {
        let next = match spare.first() {
            Some(first) => first.try_clone().ok(),
            None => fd::dev_null().ok(),
        };
        let Some(next) = next else { return false };
        spare.push(next);
    }
    true
}

/// Says to a process that it cannot be a client.
fn refuse(replies: &QueueSender<CallReply>) {
    let (status, body) = (Status::NoDescriptors as u32, CallPayload::new(&[], &Handles::default()));
    // A queue that is new has room, unless its client breaks the rules.
    let _ = replies.send_timeout(CallReply { call: NO_CALL, status, object: 0, body }, Duration::ZERO);
}

/// Marks what is watched as a message on its way: the rest of the token is its number.
pub(super) const TICKET: u64 = 1 << 63;

/// Marks what is watched for a request to end.
pub(super) const END_REQUEST: u64 = u64::MAX;

/// Marks what is watched for the end itself. Clients have smaller numbers.
pub(super) const END: u64 = 1 << 62;

impl Server {
    pub(super) fn new(
        (id, name): (ManagerId, String),
        shared: Arc<ManagerMemory>,
        (receiver, sender): (QueueReceiver<ClientRequest>, QueueSender<ClientRequest>),
        limits: ConnectionLimits,
    ) -> sys::Result<Self> {
        let (watched, end) = (Epoll::new()?, fd::eventfd()?);
        let mut spare = Vec::new();
        fill(&mut spare);
        watched.add(end.as_fd(), END, Trigger::Level)?;
        let memory: Arc<dyn Handle> = Arc::clone(&shared) as _;
        let with_file = |handle: Arc<dyn Handle>| fd::file_id(handle.descriptor()).map(|file| (file, handle));
        let own_handles = [memory].into_iter().chain(sender.handles()).filter_map(with_file).collect();
        Ok(Self {
            id,
            name,
            shared,
            receiver,
            sender,
            tables: Mutex::new(Tables::new()),
            turn: Turn::new(),
            watched,
            tickets: AtomicU32::new(0),
            spare: Mutex::new(spare),
            calls: AtomicU64::new(0),
            limits,
            refused: Mutex::default(),
            addresses: OnceLock::new(),
            has_ended: AtomicBool::new(false),
            end,
            own_handles,
        })
    }

    /// The manager that this process is, if it is one.
    pub(super) fn own() -> Option<&'static Arc<Self>> {
        SERVER.get()
    }

    /// Makes this process the manager `server`.
    pub(super) fn become_own(server: &Arc<Self>) {
        let _ = SERVER.set(Arc::clone(server));
    }

    /// The handle of this manager's own that the descriptor is a copy of, if it is one.
    pub(crate) fn own_handle(&self, descriptor: BorrowedFd<'_>) -> Option<Arc<dyn Handle>> {
        let file = fd::file_id(descriptor)?;
        self.own_handles.iter().find(|(own, _)| *own == file).map(|(_, handle)| Arc::clone(handle))
    }

    /// A connection was refused, for this reason.
    pub(super) fn refused(&self, reason: String) {
        let mut refused = self.refused.lock_unpoisoned();
        refused.0 += 1;
        refused.1 = Some(reason);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Acquire)
    }

    pub(super) fn end(&self) {
        self.has_ended.store(true, Release);
        fd::notify(self.end.as_fd());
    }

    /// Takes the first request out of the queue, which is not empty, if it can be received.
    ///
    /// Where descriptors have run out, those that were kept for this make it possible. What this process then has to keep it lets
    /// go of again: a new client is refused, a proxy on its way is lost, and a call's handles are. So those that are kept for this
    /// are there the next time, and all else goes on.
    pub(super) fn receive(&self) -> Option<ClientRequest> {
        let mut spare = self.spare.lock_unpoisoned();
        let error = match self.receiver.try_recv() {
            Ok(request) => return Some(request),
            Err(TryRecvError::Failed(error)) => Some(error),
            // There is something, but another process keeps this one from having it.
            Err(_) => None,
        };
        // There may be more behind it. The leader must not sleep over that.
        self.shared.announce(wakeup::QUEUE);
        let error = error?;
        if !matches!(error.kind(), ErrorKind::ChannelFailed { .. }) {
            // It could not be decoded, and is gone.
            return None;
        }
        spare.clear();
        let request = match self.receiver.try_recv() {
            Ok(ClientRequest::Hello(hello)) => {
                refuse(&hello.replies);
                None
            }
            Ok(ClientRequest::Hold { end: Some(_), .. }) => None,
            Ok(request) => Some(request),
            Err(_) => {
                std::thread::sleep(SHORTAGE_PAUSE);
                None
            }
        };
        let is_full = fill(&mut spare);
        match request {
            Some(ClientRequest::Call { client, call, method, object, mut body }) if !is_full => {
                body.lose_handles();
                fill(&mut spare);
                Some(ClientRequest::Call { client, call, method, object, body })
            }
            request => request,
        }
    }

    /// Tells the leader, in order behind what was sent before.
    pub(super) fn tell(&self, request: ClientRequest) {
        let _ = self.sender.send(request);
        self.shared.announce(wakeup::QUEUE);
        hurry(&self.shared);
    }

    /// Handles a request that is no call. The objects to which it took the last reference are to be dropped.
    ///
    /// Runs in: the leader, which is not busy, so that requests take effect in their order; and the threads of connections, for
    /// theirs.
    pub(super) fn control(&self, request: ClientRequest) -> Dropped {
        match request {
            ClientRequest::Cancel { client, call } => {
                deferred::cancel(CallId { client, call });
                Dropped::new()
            }
            ClientRequest::Goodbye { client } | ClientRequest::ClientGone { client } => {
                let dropped = self.control_tables(request);
                deferred::client_gone(client);
                dropped
            }
            request => self.control_tables(request),
        }
    }

    fn control_tables(&self, request: ClientRequest) -> Dropped {
        let mut tables = self.tables.lock_unpoisoned();
        match request {
            ClientRequest::Hello(hello) => {
                self.welcome(&mut tables, hello);
                Dropped::new()
            }
            ClientRequest::Goodbye { client } | ClientRequest::ClientGone { client } => {
                let removed = tables.remove_client(client);
                let (process, dropped) = removed.unwrap_or_default();
                self.forget(process.as_ref(), dropped)
            }
            ClientRequest::Hold { ticket, object, end } => {
                let end = end.and_then(|end| end.into_owned().ok());
                // Where it cannot be held, it may be lost on its way, as where there are no descriptors.
                let _ = self.hold(&mut tables, ticket, object, end);
                Dropped::new()
            }
            ClientRequest::TicketGone { ticket } => {
                let removed = tables.remove_ticket(ticket);
                removed.map(|(end, dropped)| self.forget(Some(&end), dropped)).unwrap_or_default()
            }
            ClientRequest::Claim { client, object } => {
                tables.claim(client, object);
                Dropped::new()
            }
            ClientRequest::Release { client, object } => tables.release(client, object).into_iter().collect(),
            ClientRequest::ReleaseMany { client, objects } => {
                objects.into_iter().filter_map(|object| tables.release(client, object)).collect()
            }
            ClientRequest::Released { client, buffer } => {
                let peer = tables.peer(client);
                let objects = match peer.as_deref().map(|peer| &peer.link) {
                    Some(PeerLink::Local { memory, .. }) => memory.take_released(buffer),
                    _ => Vec::new(),
                };
                objects.into_iter().filter_map(|object| tables.release(client, object)).collect()
            }
            ClientRequest::Shutdown => tables.take_objects(),
            ClientRequest::Introduce(_)
            | ClientRequest::Alive
            | ClientRequest::Cancel { .. }
            | ClientRequest::Call { .. }
            | ClientRequest::Ask { .. } => Dropped::new(),
        }
    }

    fn welcome(&self, tables: &mut Tables, hello: Hello) {
        let Hello { client, replies, process, memory } = hello;
        let Ok(process) = process.into_owned() else { return };
        if client == 0 || tables.peer(client).is_some() {
            return;
        }
        if self.watched.add(process.as_fd(), client.into(), Trigger::OneShot).is_err() {
            // Its end would never be told.
            return refuse(&replies);
        }
        let peer = Peer::local(client, memory.0, replies);
        tables.add_client(peer, Some(process));
    }

    /// The message with this number holds the object. Its `end` comes with the first one.
    ///
    /// # Errors
    /// The end cannot be watched, and so would never be told: the message holds nothing.
    fn hold(&self, tables: &mut Tables, ticket: u64, object: u64, end: Option<OwnedFd>) -> sys::Result<()> {
        let ticket = ticket & !TICKET;
        if let Some(end) = &end {
            self.watched.add(end.as_fd(), TICKET | ticket, Trigger::OneShot)?;
        }
        tables.hold(ticket, object, end);
        Ok(())
    }

    fn forget(&self, watched: Option<&OwnedFd>, dropped: Dropped) -> Dropped {
        if let Some(watched) = watched {
            self.watched.remove(watched.as_fd());
        }
        dropped
    }

    /// A new message is on its way with proxies of this manager: its number, and the end that travels.
    pub(super) fn new_ticket(&self, object: u64) -> sys::Result<(u64, OwnedFd)> {
        let (ours, theirs) = socket::pair()?;
        // Clients have numbers from 1 on, which stand in the upper half.
        let ticket = u64::from(self.tickets.fetch_add(1, Relaxed));
        self.hold(&mut self.tables.lock_unpoisoned(), ticket, object, Some(ours))?;
        Ok((ticket, theirs))
    }

    /// The message holds one more object.
    pub(super) fn hold_more(&self, ticket: u64, object: u64) {
        self.tables.lock_unpoisoned().hold(ticket & !TICKET, object, None);
    }

    /// Answers a question about the manager itself, which `client` asks; the manager if it is 0.
    pub(super) fn ask(&self, client: u32, question: ManagerQuestion) -> (Status, Vec<u8>) {
        let mut tables = self.tables.lock_unpoisoned();
        let question = match question {
            ManagerQuestion::Publish { name, value } => {
                let published = tables.publish(name, value);
                drop(tables);
                // Dropped without the lock: a destructor may make calls.
                let status = if published.is_some() { Status::Done } else { Status::NoObject };
                drop(published);
                return (status, Vec::new());
            }
            ManagerQuestion::Unpublish { name } => {
                let unpublished = tables.unpublish(&name);
                drop(tables);
                let was_there = unpublished.is_some();
                drop(unpublished);
                return (Status::Done, vec![u8::from(was_there)]);
            }
            ManagerQuestion::Find { name } => return (Status::Done, to_bytes(&tables.find(client, &name))),
            question => question,
        };
        let of_object = |object, look: &dyn Fn(&super::instance::Instance) -> Vec<u8>| {
            tables.object(object).map_or((Status::NoObject, Vec::new()), |instance| (Status::Done, look(&instance)))
        };
        match question {
            ManagerQuestion::IsPoisoned { object } => {
                of_object(object, &|instance| vec![u8::from(instance.is_poisoned())])
            }
            ManagerQuestion::ClearPoison { object } => of_object(object, &|instance| {
                instance.clear_poison();
                Vec::new()
            }),
            ManagerQuestion::Addresses => (Status::Done, to_bytes(&self.addresses.get().cloned().unwrap_or_default())),
            ManagerQuestion::Stats => {
                let objects = tables.objects_by_type().into_iter().map(|(name, count)| (name.to_owned(), count));
                let (refused, last_refusal) = self.refused.lock_unpoisoned().clone();
                let stats = ManagerStats {
                    objects: objects.collect::<BTreeMap<_, _>>(),
                    calls: self.calls.load(Relaxed),
                    clients: tables.clients(),
                    travelling: tables.tickets(),
                    queued: self.receiver.len(),
                    refused,
                    last_refusal,
                };
                (Status::Done, to_bytes(&stats))
            }
            // They were answered above, where objects may be counted.
            ManagerQuestion::Publish { .. } | ManagerQuestion::Find { .. } | ManagerQuestion::Unpublish { .. } => {
                (Status::UnknownTask, Vec::new())
            }
        }
    }

    /// Makes a call that a thread of the manager itself asks for. `None`: the call waits, and its time is over. What it waits for it
    /// does not get.
    pub(super) fn call_here(
        &self,
        (method, object): (u32, u64),
        (bytes, handles): (&[u8], &Handles),
        deadline: Option<Instant>,
    ) -> Option<Answer> {
        let number = self.calls.fetch_add(1, Relaxed) + 1;
        let (arguments, received) = (AlignedBytes::copied(bytes), Received::of_own(handles));
        let call = MethodCall { method, object, arguments: arguments.as_slice(), received: &received, tasks: true };
        let caller = CallId { client: 0, call: number };
        let run = || run::run(self, call, (None, Vec::new()), || ());
        let (mut outcome, answering) = deferred::with_caller(caller, AnswerPlace::Own, run);
        if let Answering::Own(answer) = answering {
            let Some(given) = answer.wait(deadline) else {
                deferred::cancel(caller);
                return None;
            };
            (outcome.status, outcome.bytes, outcome.handles) = given;
        }
        let made = outcome.made.take().and_then(|made| self.tables.lock_unpoisoned().add_object(None, made).ok());
        Some(Answer {
            status: outcome.status,
            object: made.unwrap_or(0),
            bytes: AlignedBytes::copied(&outcome.bytes),
            received: Received::of_own(&outcome.handles),
        })
    }
}
