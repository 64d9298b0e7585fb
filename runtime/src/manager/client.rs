//! A client's side of a manager: makes calls, and waits for their answers.
//!
//! Runs in: each process that has a handle or a proxy, on the threads that call.
//! Invariant: no thread waits longer than 50 ms without asking whether the manager lives.
//!
//! A short call stands in memory, where the thread that made it looks for its answer. All else goes by the queue of requests,
//! and its answer by the queue of replies of this process, which one of the threads that wait reads for all.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use super::bell;
use super::builder::Started;
use super::held::Held;
use super::memory::{BellMemory, ClientMemory};
use super::pending::{IN_SLOT, Inbox, Pending};
use super::slots::{self, Head, SLOT_BYTES, SLOTS, Slot};
use super::turn::nudge;
use super::wire::{AlignedBytes, Answer, Arrived, Body, Hello, ManagerId, Question, Request, Status};
use crate::channel::{Descriptor, Queue, QueueSender, SendTimeoutError};
use crate::codec::handles::{Handles, Received};
use crate::error::{Error, ErrorKind, Execution, Result};
use crate::link::{CpuCollision, Spin};
use crate::shared::proc_table::{self, ProcId};
use crate::sync::atomic::AtomicU32;
use crate::sync::futex_wait::MAX_SLEEP;
use crate::sys::mutex::MutexExt as _;
use crate::sys::{Errno, atfork, fd, futex, limits, process};

/// How long a thread waits before it asks whether the manager's leader is stuck.
const PATIENCE: Duration = Duration::from_millis(1);

/// The managers that this process is a client of.
static CLIENTS: Mutex<Vec<Weak<Client>>> = Mutex::new(Vec::new());

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) id: ManagerId,
    pub(super) name: String,
    /// What the manager calls this process.
    pub(super) number: u32,
    /// How many `fork()`s of the host program came before: a copy has no connection.
    generation: u64,
    pub(super) bell: Arc<BellMemory>,
    pub(super) requests: QueueSender<Request>,
    /// The manager in the table of processes.
    manager: Option<ProcId>,
    pub(super) pid: u32,
    memory: Arc<ClientMemory>,
    /// A bit for each slot that is free, and for each whose answer no thread waits for.
    free: AtomicU32,
    abandoned: AtomicU32,
    spin: Spin,
    /// Whether the threads of this process share a processor with the manager's leader.
    collision: Mutex<CpuCollision>,
    pub(super) inbox: Inbox,
    calls: AtomicU64,
    tickets: AtomicU32,
    /// Whether a thread reads answers for futures.
    pub(super) serves_futures: AtomicBool,
    /// The objects that this process has references to.
    pub(super) held: Mutex<HashMap<u64, Weak<Held>>>,
    /// The manager's process, in the process that started it.
    pub(super) process: OnceLock<Arc<Mutex<Started>>>,
}

impl Client {
    /// Finds this process's connection to that manager, or becomes a client of it by what `open` gives.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for it.
    pub(super) fn connect(
        (id, name): (ManagerId, &str),
        open: impl FnOnce() -> Result<(QueueSender<Request>, Arc<BellMemory>)>,
    ) -> Result<Arc<Self>> {
        let generation = atfork::generation();
        let mut clients = CLIENTS.lock_unpoisoned();
        let mut found = None;
        clients.retain(|client| {
            let Some(client) = client.upgrade() else { return false };
            if client.id == id && client.generation == generation {
                found = Some(client);
            }
            true
        });
        if let Some(found) = found {
            return Ok(found);
        }
        let client = Arc::new(Self::new((id, name), open()?, generation)?);
        clients.push(Arc::downgrade(&client));
        Ok(client)
    }

    fn new(
        (id, name): (ManagerId, &str),
        (requests, bell): (QueueSender<Request>, Arc<BellMemory>),
        generation: u64,
    ) -> Result<Self> {
        let refused = |errno| Error::cannot_share("become a client of a manager", errno);
        proc_table::prepare().map_err(refused)?;
        let memory = Arc::new(ClientMemory::create().map_err(refused)?);
        let (replies, receiver) = Queue::unbounded()?.split();
        let process = fd::pidfd(process::own_pid()).map_err(refused)?;
        let words = bell.words();
        let number = words.clients.fetch_add(1, Relaxed) + 1;
        let client = Self {
            id,
            name: name.to_owned(),
            number,
            generation,
            manager: ProcId::from_bits(words.process.load(Acquire)),
            pid: words.pid.load(Relaxed),
            bell,
            requests,
            memory: Arc::clone(&memory),
            free: AtomicU32::new(u32::MAX),
            abandoned: AtomicU32::new(0),
            spin: Spin::new(),
            collision: Mutex::new(CpuCollision::new()),
            inbox: Inbox::new(receiver),
            calls: AtomicU64::new(0),
            tickets: AtomicU32::new(0),
            serves_futures: AtomicBool::new(false),
            held: Mutex::default(),
            process: OnceLock::new(),
        };
        let hello = Hello { client: number, replies, process: Descriptor::new(process), memory: Arrived(memory) };
        // To a manager that is gone, the first call says so.
        client.tell(Request::Hello(hello));
        Ok(client)
    }

    /// Whether this is a copy made by `fork()`.
    pub(super) fn is_foreign(&self) -> bool {
        self.generation != atfork::generation()
    }

    /// Sends a request that needs no answer. If the manager is gone, there is nothing to tell it.
    pub(super) fn tell(&self, mut request: Request) {
        if self.is_foreign() {
            return;
        }
        // Counting depends on it, so it is not given up while the manager lives.
        while let Err(SendTimeoutError::Timeout(again)) = self.requests.send_timeout(request, MAX_SLEEP) {
            if !self.is_manager_alive() {
                return;
            }
            request = again;
        }
        self.bell.ring(bell::QUEUE);
    }

    pub(super) fn next_ticket(&self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.tickets.fetch_add(1, Relaxed))
    }

    fn next_call(&self) -> u64 {
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
        if let Some(process) = self.process.get() {
            // The table says it a moment before the supervisor does.
            let status = process.lock_unpoisoned().wait_timeout(MAX_SLEEP);
            signal = status.ok().flatten().and_then(|status| status.signal());
        }
        Error::new(ErrorKind::ManagerGone { name: self.name.clone(), pid: self.pid, signal }, execution)
    }

    /// The error of a call whose time is over.
    pub(super) fn late(&self, execution: Execution) -> Error {
        Error::new(ErrorKind::Elapsed, execution).in_process(&self.name, self.pid)
    }

    /// Makes a call, and waits for its answer.
    ///
    /// # Errors
    /// The manager is gone, the time is over, or this process is a copy made by `fork()`.
    pub(super) fn call(
        &self,
        (method, object): (u32, u64),
        (bytes, handles): (&[u8], &Handles),
        deadline: Option<Instant>,
    ) -> Result<Answer> {
        if self.is_foreign() {
            return Err(foreign());
        }
        if handles.is_empty()
            && bytes.len() <= SLOT_BYTES
            && let Some(at) = self.take_slot()
        {
            return self.call_in_slot(at, (method, object), bytes, deadline);
        }
        let (number, pending) = self.submit((method, object), (bytes, handles))?;
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
    ) -> Result<(u64, Arc<Pending>)> {
        self.request(|client, call| Request::Call { client, call, method, object, body: Body::new(bytes, handles) })
    }

    /// Asks the manager itself.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(super) fn ask(&self, question: Question, deadline: Option<Instant>) -> Result<Answer> {
        let (number, pending) = self.request(|client, call| Request::Ask { client, call, question })?;
        self.wait(number, &pending, deadline)
    }

    fn request(&self, make: impl FnOnce(u32, u64) -> Request) -> Result<(u64, Arc<Pending>)> {
        if self.is_foreign() {
            return Err(foreign());
        }
        let number = self.next_call();
        let pending = self.inbox.expect(number);
        let mut request = make(self.number, number);
        loop {
            let refused = match self.requests.send_timeout(request, MAX_SLEEP) {
                Ok(()) => break,
                Err(refused) => refused,
            };
            let error = match refused {
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
        self.bell.ring(bell::QUEUE);
        Ok((number, pending))
    }

    /// Has a thread of the manager see to it that a call for which no thread waits is not kept by a long one before it.
    pub(super) fn hurry(&self) {
        if self.bell.words().ticks.load(SeqCst) == 0 {
            nudge(&self.bell);
        }
    }

    /// Waits for the answer to a call that was made by the queue.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(super) fn wait(&self, number: u64, pending: &Pending, deadline: Option<Instant>) -> Result<Answer> {
        let patient_until = Instant::now() + PATIENCE;
        let mut until = Some(patient_until);
        loop {
            let next = Instant::now() + MAX_SLEEP;
            let look_at = [until, deadline, Some(next)].into_iter().flatten().min().unwrap_or(next);
            if let Some(answer) = self.inbox.wait(pending, look_at, |call, object| self.unclaimed(call, object)) {
                self.inbox.forget(number);
                return Ok(answer);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.abandon(number);
                return Err(self.late(Execution::Unknown));
            }
            if self.inbox.is_over() || !self.is_manager_alive() {
                // The answer may have come before the end.
                let last = self.inbox.wait(pending, Instant::now(), |call, object| self.unclaimed(call, object));
                self.inbox.forget(number);
                return last.ok_or_else(|| self.gone(Execution::Unknown));
            }
            until = None;
            self.bell.ring(bell::QUEUE);
            nudge(&self.bell);
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
            if pending.is_answered() || self.is_over() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
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

    /// Reads answers until `until`, and wakes the futures that have waited long enough.
    pub(super) fn read_for_futures(&self, until: Instant) {
        let awaited = self.inbox.awaited();
        let until = awaited.iter().filter_map(|pending| pending.deadline()).fold(until, Instant::min);
        self.inbox.serve_futures(until, |call, object| self.unclaimed(call, object));
        let (now, is_over) = (Instant::now(), self.is_over());
        for pending in awaited {
            if is_over || pending.deadline().is_some_and(|deadline| deadline <= now) {
                pending.wake();
            }
        }
        self.bell.ring(bell::QUEUE);
        nudge(&self.bell);
    }

    /// No thread waits for this call any more.
    pub(super) fn abandon(&self, number: u64) {
        if let Some(answer) = self.inbox.forget(number).and_then(|pending| pending.take()) {
            self.unclaimed(number, if answer.status == Status::Done { answer.object } else { 0 });
        }
        self.tell(Request::Cancel { client: self.number, call: number });
    }

    /// An answer came that no thread waits for. The object that it may have brought is let go of.
    fn unclaimed(&self, _call: u64, object: u64) {
        if object != 0 {
            self.tell(Request::Release { client: self.number, object });
        }
    }

    fn call_in_slot(
        &self,
        at: usize,
        (method, object): (u32, u64),
        bytes: &[u8],
        deadline: Option<Instant>,
    ) -> Result<Answer> {
        let words = self.memory.words();
        let slot = &words.slots[at];
        let call = self.next_call() | IN_SLOT;
        self.memory.write(at, bytes);
        slot.request(Head { what: method, object, call, len: u32::try_from(bytes.len()).unwrap_or(0) });
        slots::announce(&words.ready, at);
        self.bell.ring(bell::group_bit(self.number));
        if self.shares_processor() || !self.spin.until(|| slot.is_answered()) {
            self.wait_in_slot(at, slot, deadline)?;
        }
        let Head { what, object, len, .. } = slot.head();
        let len = (len as usize).min(SLOT_BYTES);
        let mut bytes = AlignedBytes::default();
        self.memory.read(at, bytes.of_len(len));
        self.give_back(at, slot);
        match Status::from_number(what) {
            Some(Status::Elsewhere) => {
                let pending = self.inbox.expect(call);
                self.wait(call, &pending, deadline)
            }
            Some(status) => Ok(Answer { status, object, bytes, received: Received::default() }),
            None => {
                let reason = "an answer of an unknown kind".to_owned();
                Err(Error::new(ErrorKind::ProtocolViolation { reason }, Execution::Unknown))
            }
        }
    }

    /// Whether the manager's leader was last seen where this thread runs: then looking would only keep it from running.
    fn shares_processor(&self) -> bool {
        let here = limits::current_cpu();
        note(&self.memory.words().cpu, here + 1);
        let leaders = self.bell.words().cpu.load(Relaxed).checked_sub(1);
        let shares = leaders == Some(here);
        // Another thread that calls will see to it.
        if let Ok(mut collision) = self.collision.try_lock() {
            if shares { collision.met(leaders) } else { collision.apart() }
        }
        shares
    }

    #[cold]
    fn wait_in_slot(&self, at: usize, slot: &Slot, deadline: Option<Instant>) -> Result<()> {
        let since = Instant::now();
        let mut longest = PATIENCE;
        while let Some(asleep) = slot.prepare_sleep() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            futex::wait_until(&slot.state, asleep, left.map_or(longest, |left| left.min(longest)));
            if slot.is_answered() {
                break;
            }
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let is_gone = !self.is_manager_alive();
            // It may have answered before it ended.
            if (is_late || is_gone) && !slot.is_answered() {
                let execution = if slot.take_back() {
                    self.give_back(at, slot);
                    Execution::NotStarted
                } else {
                    self.abandoned.fetch_or(1 << at, AcqRel);
                    self.tell(Request::Cancel { client: self.number, call: slot.head().call });
                    Execution::Unknown
                };
                return Err(if is_gone { self.gone(execution) } else { self.late(execution) });
            }
            if slot.is_untouched() {
                slots::announce(&self.memory.words().ready, at);
                self.bell.ring(bell::group_bit(self.number));
                nudge(&self.bell);
            }
            longest = MAX_SLEEP;
        }
        self.spin.slept(since);
        Ok(())
    }

    /// Takes a free slot.
    fn take_slot(&self) -> Option<usize> {
        let mut free = self.free.load(Relaxed);
        loop {
            if free == 0 {
                free = self.reclaim()?;
                continue;
            }
            let at = free.trailing_zeros();
            match self.free.compare_exchange_weak(free, free & !(1 << at), Acquire, Relaxed) {
                Ok(_) => return Some(at as usize),
                Err(now) => free = now,
            }
        }
    }

    fn give_back(&self, at: usize, slot: &Slot) {
        slot.free();
        self.free.fetch_or(1 << at, Release);
    }

    /// Frees slots of calls that no thread waits for and that are answered now. What is free then, if something is.
    #[cold]
    fn reclaim(&self) -> Option<u32> {
        let words = self.memory.words();
        for at in 0..SLOTS {
            let bit = 1 << at;
            let slot = &words.slots[at];
            if self.abandoned.load(Acquire) & bit == 0
                || !slot.is_answered()
                || self.abandoned.fetch_and(!bit, AcqRel) & bit == 0
            {
                continue;
            }
            let head = slot.head();
            match Status::from_number(head.what) {
                Some(Status::Done) => self.unclaimed(head.call, head.object),
                Some(Status::Elsewhere) => {
                    if let Some(answer) = self.inbox.ignore(head.call).filter(|answer| answer.status == Status::Done) {
                        self.unclaimed(head.call, answer.object);
                    }
                }
                _ => {}
            }
            self.give_back(at, slot);
        }
        Some(self.free.load(Acquire)).filter(|free| *free != 0)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tell(Request::Goodbye { client: self.number });
    }
}

/// Writes a word that others read, if it is not there already.
pub(super) fn note(word: &AtomicU32, number: u32) {
    if word.load(Relaxed) != number {
        word.store(number, Relaxed);
    }
}

#[cold]
fn foreign() -> Error {
    Error::invalid("this process is a `fork()` of one that has a connection to the manager, and has none itself")
        .with_note(Errno::ENOTCONN.desc())
}
