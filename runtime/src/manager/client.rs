//! A client's side of a manager: makes calls, and waits for their answers.
//!
//! Runs in: each process that has a handle or a proxy, on the threads that call.
//! Invariant: no thread waits longer than 50 ms without asking whether the manager lives.
//!
//! A short call stands in memory, where the thread that made it looks for its answer. All else goes by the queue of requests,
//! and its answer by the queue of replies of this process, which one of the threads that wait reads for all.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use super::builder::Started;
use super::connected_link::ConnectedLink;
use super::held::Held;
use super::memory::{ClientMemory, ManagerMemory};
use super::pending::{IN_SLOT, Inbox, OrderedCall, Pending};
use super::releases::Releases;
use super::slots::SLOT_BYTES;
use super::turn::{hurry, nudge};
use super::wakeup;
use super::wire::{
    Answer, CallPayload, CallReply, ClientRequest, Hello, ManagerId, ManagerIntroduction, ManagerQuestion, Status,
    TravellingHandle,
};
use crate::channel::{Connection, Descriptor, Queue, QueueSender, SendTimeoutError};
use crate::codec::handles::Handles;
use crate::error::{Error, ErrorKind, Execution, Result};
use crate::link::{CpuCollision, Spin};
use crate::shared::MappingCache;
use crate::shared::proc_table::{self, ProcId};
use crate::sync::atomic::AtomicU32;
use crate::sync::futex_wait::MAX_SLEEP;
use crate::sys::mutex::MutexExt as _;
use crate::sys::{Errno, atfork, fd, process};

/// How long a thread waits before it asks whether the manager's leader is stuck.
pub(super) const NUDGE_AFTER: Duration = Duration::from_millis(1);

/// After how many calls by the queue the answers that no thread waits for are read.
const READ_INTERVAL: u64 = 64;

/// The managers that this process is a client of.
static CLIENTS: MappingCache<Client, ManagerId> = MappingCache::new();

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) id: ManagerId,
    pub(super) name: String,
    /// What the manager calls this process.
    pub(super) number: u32,
    /// How many `fork()`s of the host program came before: a copy has no connection.
    generation: u64,
    pub(super) link: ClientLink,
    /// The manager in the table of processes.
    manager: Option<ProcId>,
    pub(super) pid: u32,
    /// A bit for each slot that is free, and for each whose answer no thread waits for.
    pub(super) free: AtomicU32,
    pub(super) abandoned: AtomicU32,
    pub(super) spin: Spin,
    /// Whether the threads of this process share a processor with the manager's leader.
    pub(super) collision: Mutex<CpuCollision>,
    pub(super) inbox: Arc<Inbox>,
    calls: AtomicU64,
    tickets: AtomicU32,
    /// Whether a thread reads answers for futures.
    pub(super) serves_futures: AtomicBool,
    /// The objects that this process has references to.
    pub(super) held: Mutex<HashMap<u64, Weak<Held>>>,
    /// The manager's process, in the process that started it.
    pub(super) process: OnceLock<Arc<Mutex<Started>>>,
}

/// The ways from a client to its manager.
#[derive(Debug)]
pub(crate) enum ClientLink {
    /// The manager is a process of the same tree.
    Local(LocalLink),
    /// The client has connected.
    Connected(Arc<ConnectedLink>),
}

/// A connection, as a client has it.
pub(super) type ClientConnection = Connection<ClientRequest, CallReply>;

/// Queues and memory that a client and its manager share.
#[derive(Debug)]
pub(crate) struct LocalLink {
    pub(super) requests: QueueSender<ClientRequest>,
    pub(super) shared: Arc<ManagerMemory>,
    pub(super) memory: Arc<ClientMemory>,
    pub(super) releases: Releases,
}

impl Client {
    /// Finds this process's connection to that manager, or becomes a client of it by what `open` gives.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for it.
    pub(super) fn connect(
        (id, name): (ManagerId, &str),
        open: impl FnOnce() -> Result<(QueueSender<ClientRequest>, Arc<ManagerMemory>)>,
    ) -> Result<Arc<Self>> {
        CLIENTS.find_or_insert(id, || Self::new((id, name), open()?))
    }

    fn new(
        (id, name): (ManagerId, &str),
        (requests, shared): (QueueSender<ClientRequest>, Arc<ManagerMemory>),
    ) -> Result<Self> {
        let refused = |errno| Error::cannot_share("become a client of a manager", errno);
        proc_table::prepare().map_err(refused)?;
        let memory = Arc::new(ClientMemory::create().map_err(refused)?);
        let (replies, receiver) = Queue::unbounded()?.split();
        let process = fd::pidfd(process::own_pid()).map_err(refused)?;
        let words = shared.words();
        let number = words.clients.fetch_add(1, Relaxed) + 1;
        let (manager, pid) = (ProcId::from_bits(words.process.load(Acquire)), words.pid.load(Relaxed));
        let local = LocalLink { requests, shared, memory: Arc::clone(&memory), releases: Releases::new() };
        let link = ClientLink::Local(local);
        let client = Self::of((id, name, pid), number, (link, Arc::new(Inbox::new(Some(receiver)))), manager);
        let hello =
            Hello { client: number, replies, process: Descriptor::new(process), memory: TravellingHandle(memory) };
        // To a manager that is gone, the first call says so.
        client.tell(ClientRequest::Hello(hello));
        Ok(client)
    }

    /// A client of the manager at the other end of a connection, which calls it `number`.
    pub(super) fn connected(
        ManagerIntroduction { id, name, pid, .. }: &ManagerIntroduction,
        number: u32,
        (link, inbox): (Arc<ConnectedLink>, Arc<Inbox>),
    ) -> Self {
        Self::of((*id, name, *pid), number, (ClientLink::Connected(link), inbox), None)
    }

    fn of(
        (id, name, pid): (ManagerId, &str, u32),
        number: u32,
        (link, inbox): (ClientLink, Arc<Inbox>),
        manager: Option<ProcId>,
    ) -> Self {
        Self {
            id,
            name: name.to_owned(),
            number,
            generation: atfork::generation(),
            link,
            manager,
            pid,
            free: AtomicU32::new(u32::MAX),
            abandoned: AtomicU32::new(0),
            spin: Spin::new(),
            collision: Mutex::new(CpuCollision::new()),
            inbox,
            calls: AtomicU64::new(0),
            tickets: AtomicU32::new(0),
            serves_futures: AtomicBool::new(false),
            held: Mutex::default(),
            process: OnceLock::new(),
        }
    }

    #[expect(clippy::result_large_err, reason = "as with queues and connections, the item comes back")]
    pub(super) fn send(
        &self,
        request: ClientRequest,
        timeout: Duration,
    ) -> std::result::Result<(), SendTimeoutError<ClientRequest>> {
        match &self.link {
            ClientLink::Local(local) => local.requests.send_timeout(request, timeout),
            ClientLink::Connected(link) => link.connection.send_timeout(request, timeout),
        }
    }

    /// Announces that something is in the queue of requests.
    pub(super) fn announce(&self) {
        if let ClientLink::Local(local) = &self.link {
            local.shared.announce(wakeup::QUEUE);
        }
    }

    /// Asks a thread of the manager to look whether the leader is stuck.
    pub(super) fn nudge(&self) {
        if let ClientLink::Local(local) = &self.link {
            nudge(&local.shared);
        }
    }

    /// Whether this is a copy made by `fork()`.
    pub(super) fn is_foreign(&self) -> bool {
        self.generation != atfork::generation()
    }

    pub(super) fn next_ticket(&self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.tickets.fetch_add(1, Relaxed))
    }

    pub(super) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Relaxed) + 1
    }

    /// Whether the manager has not ended, as far as is known.
    pub(super) fn is_manager_alive(&self) -> bool {
        self.manager.is_none_or(proc_table::is_alive)
    }

    /// The error of a call to a manager that has ended.
    pub(super) fn gone(&self, execution: Execution) -> Error {
        use std::os::unix::process::ExitStatusExt as _;
        let mut signal = None;
        if self.inbox.is_refused() {
            let reason = format!("become a client of manager `{}`, which has no descriptors left", self.name);
            return Error::new(ErrorKind::ChannelFailed { step: reason, errno: Errno::EMFILE as i32 }, execution);
        }
        if let Some(process) = self.process.get() {
            // The table says it a moment before the supervisor does.
            let status = process.lock_unpoisoned().wait_timeout(MAX_SLEEP);
            signal = status.ok().and_then(Result::ok).and_then(|status| status.signal());
        }
        Error::new(ErrorKind::ManagerGone { name: self.name.clone(), pid: self.pid, signal }, execution)
    }

    /// The error of a call whose time is over.
    pub(super) fn late(&self, execution: Execution) -> Error {
        Error::new(ErrorKind::Elapsed, execution).in_process(&self.name, self.pid)
    }

    /// Makes a call, and waits for its answer. `in_queue`: behind the calls that this process has put into the queue.
    ///
    /// # Errors
    /// The manager is gone, the time is over, or this process is a copy made by `fork()`.
    pub(super) fn call(
        &self,
        (method, object): (u32, u64),
        (bytes, handles): (&[u8], &Handles),
        (in_queue, deadline): (bool, Option<Instant>),
    ) -> Result<Answer> {
        if self.is_foreign() {
            return Err(foreign());
        }
        if let ClientLink::Local(local) = &self.link
            && !in_queue
            && handles.is_empty()
            && bytes.len() <= SLOT_BYTES
            && let Some(at) = self.take_slot(local)
        {
            return self.call_in_slot(local, (at, method, object), bytes, deadline);
        }
        let (number, pending) = self.submit((method, object), (bytes, handles), None, deadline)?;
        self.wait(number, &pending, deadline)
    }

    /// Makes a call by the queue, and does not wait for its answer. Its number, and where the answer will be.
    ///
    /// # Errors
    /// The manager is gone, or the call cannot be sent.
    pub(super) fn submit(
        &self,
        (method, object): (u32, u64),
        (bytes, handles): (&[u8], &Handles),
        queued: Option<OrderedCall>,
        deadline: Option<Instant>,
    ) -> Result<(u64, Arc<Pending>)> {
        if let ClientLink::Connected(link) = &self.link
            && bytes.len() > link.limits.message_bytes
        {
            let (bytes, limit) = (bytes.len(), link.limits.message_bytes);
            return Err(Error::new(ErrorKind::TooLong { bytes, limit }, Execution::NotStarted));
        }
        let make =
            |client, call| ClientRequest::Call { client, call, method, object, body: CallPayload::new(bytes, handles) };
        self.request(make, (bytes.len(), queued), deadline)
    }

    /// Asks the manager itself.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(super) fn ask(&self, question: ManagerQuestion, deadline: Option<Instant>) -> Result<Answer> {
        let (number, pending) =
            self.request(|client, call| ClientRequest::Ask { client, call, question }, (0, None), deadline)?;
        self.wait(number, &pending, deadline)
    }

    fn request(
        &self,
        make: impl FnOnce(u32, u64) -> ClientRequest,
        (bytes, queued): (usize, Option<OrderedCall>),
        deadline: Option<Instant>,
    ) -> Result<(u64, Arc<Pending>)> {
        if self.is_foreign() {
            return Err(foreign());
        }
        if let ClientLink::Connected(link) = &self.link {
            link.hurry();
        }
        let number = self.next_call();
        if number.is_multiple_of(READ_INTERVAL) && self.inbox.in_flight().0 > 0 {
            // Where no thread waits for answers, such as those of calls that were detached, this one reads them.
            self.inbox.read_some(|call, object| self.unclaimed(call, object));
        }
        let pending = self.expect_within_bounds(number, bytes, deadline)?;
        if let Some(queued) = queued {
            pending.count(queued);
        }
        let mut request = make(self.number, number);
        loop {
            let left = deadline.map_or(MAX_SLEEP, |deadline| deadline.saturating_duration_since(Instant::now()));
            let refused = match self.send(request, left.min(MAX_SLEEP)) {
                Ok(()) => break,
                Err(refused) => refused,
            };
            let error = match refused {
                SendTimeoutError::Timeout(_) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    self.late(Execution::NotStarted)
                }
                SendTimeoutError::Timeout(again) if self.is_manager_alive() => {
                    request = again;
                    continue;
                }
                SendTimeoutError::Failed(_, error) => error,
                _ => self.gone(Execution::NotStarted),
            };
            self.inbox.forget(number);
            return Err(error);
        }
        self.close_releases();
        self.announce();
        Ok((number, pending))
    }

    /// Where the answer to that call will be. Waits while this process has as many calls in flight as it may have.
    fn expect_within_bounds(&self, number: u64, bytes: usize, deadline: Option<Instant>) -> Result<Arc<Pending>> {
        let (most, most_bytes) = match &self.link {
            ClientLink::Local(local) => (local.shared.words().most_calls.load(Relaxed) as usize, usize::MAX),
            ClientLink::Connected(link) => (link.limits.calls, link.limits.call_bytes),
        };
        let most = if most == 0 { usize::MAX } else { most };
        loop {
            if let Some(pending) = self.inbox.expect_within((number, bytes), (most, most_bytes)) {
                return Ok(pending);
            }
            if self.is_over() {
                return Err(self.gone(Execution::NotStarted));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(self.late(Execution::NotStarted));
            }
            self.hurry();
            let has_room = || self.inbox.has_room(bytes, (most, most_bytes));
            self.inbox.read_for_room(Instant::now() + MAX_SLEEP, has_room, |call, object| self.unclaimed(call, object));
            if let Some(error) = self.inbox.failure().filter(|_| !has_room()) {
                return Err(error);
            }
        }
    }

    /// Has a thread of the manager see to it that a call for which no thread waits is not kept by a long one before it.
    pub(super) fn hurry(&self) {
        if let ClientLink::Local(local) = &self.link {
            hurry(&local.shared);
        }
    }

    /// Waits for the answer to a call that was made by the queue.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(super) fn wait(&self, number: u64, pending: &Pending, deadline: Option<Instant>) -> Result<Answer> {
        if self.is_foreign() {
            return Err(foreign());
        }
        let nudge_at = Instant::now() + NUDGE_AFTER;
        let mut until = Some(nudge_at);
        loop {
            let next = Instant::now() + MAX_SLEEP;
            let look_at = [until, deadline, Some(next)].into_iter().flatten().min().unwrap_or(next);
            let has_read = self.inbox.look(pending, look_at, |call, object| self.unclaimed(call, object));
            if let Some(answer) = pending.take() {
                self.inbox.forget(number);
                return Ok(answer);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.abandon(number);
                return Err(self.late(Execution::Unknown));
            }
            if self.inbox.is_over() || !self.is_manager_alive() {
                // The answer may have come before the end.
                self.inbox.look(pending, Instant::now(), |call, object| self.unclaimed(call, object));
                let last = pending.take();
                self.inbox.forget(number);
                return last.ok_or_else(|| self.gone(Execution::Unknown));
            }
            if let Some(error) = self.inbox.failure() {
                self.abandon(number);
                return Err(error);
            }
            // After the first time, the thread that reads for all asks for all.
            if until.take().is_some() || has_read {
                self.announce();
                self.nudge();
            }
        }
    }

    /// Waits until the answer is there, until `until`, or until waiting for it would fail. True: joining would return at once.
    pub(super) fn wait_until_answered(
        &self,
        pending: &Pending,
        until: Option<Instant>,
        deadline: Option<Instant>,
    ) -> bool {
        loop {
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if pending.is_answered() || is_late || self.is_over() || self.inbox.failure().is_some() {
                return true;
            }
            let now = Instant::now();
            let next = [until, deadline, Some(now + MAX_SLEEP)].into_iter().flatten().min().unwrap_or(now);
            self.inbox.look(pending, next, |call, object| self.unclaimed(call, object));
            if until.is_some_and(|until| Instant::now() >= until) {
                return pending.is_answered();
            }
        }
    }

    /// Whether nothing will come any more, or this process has no connection.
    pub(super) fn is_over(&self) -> bool {
        self.is_foreign() || self.inbox.is_over() || !self.is_manager_alive()
    }

    /// No thread waits for this call any more.
    pub(super) fn abandon(&self, number: u64) {
        // The answer of a call that stood in memory comes as that of no known call would.
        let come = match number & IN_SLOT {
            0 => self.inbox.forget(number).and_then(|pending| pending.take()),
            _ => self.inbox.detach(number),
        };
        if let Some(answer) = come {
            self.unclaimed(number, if answer.status == Status::Done { answer.object } else { 0 });
        }
        self.cancel(number);
        self.hurry();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        CLIENTS.remove(&self.id, self);
        match &self.link {
            ClientLink::Connected(link) if !self.is_foreign() => link.say_goodbye(),
            _ => self.tell(ClientRequest::Goodbye { client: self.number }),
        }
    }
}

#[cold]
fn foreign() -> Error {
    Error::invalid("this process is a `fork()` of one that has a connection to the manager, and has none itself")
        .with_note(Errno::ENOTCONN.desc())
}
