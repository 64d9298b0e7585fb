//! The threads of a manager: one leads, and takes requests; the others wait, or run long calls.
//!
//! Runs in: the manager.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::deferred::{self, AnswerPlace, Answering, CallId};
use super::instance::Place;
use super::memory::ClientMemory;
use super::run::{self, MethodCall, Outcome};
use super::server::{END, END_REQUEST, Server, TICKET};
use super::short_calls::note;
use super::slots::{self, Head, SLOT_BYTES};
use super::tables::{Peer, PeerLink};
use super::turn::Lead;
use super::wakeup::{self, GROUPS, QUEUE};
use super::wire::{AlignedBytes, CallPayload, CallReply, ClientRequest, Status};
use crate::channel::SendTimeoutError;
use crate::codec::handles::{Handles, Received};
use crate::link::Spin;
use crate::sync::futex_wait;
use crate::sys::mutex::MutexExt as _;
use crate::sys::{cpu, process};

/// How often a thread that waits for room in a client's queue of replies looks whether the client lives.
const ROOM_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// What the leader has seen and not handled yet. It goes from leader to leader.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The bits that were taken from the word.
    pub(super) bits: u32,
    /// Whether a call in memory is to be looked for before the queue.
    slots_first: bool,
    /// The group in which a call in memory is looked for first, and in each group the client. Each moves on with each call, so
    /// that no client waits for more than one call of each other one.
    group: u32,
    peers: [usize; GROUPS as usize],
}

/// Something to do.
pub(super) enum Job {
    Request(ClientRequest),
    Slot(Arc<Peer>, Arc<ClientMemory>, usize, Head),
}

/// What the threads share beside the server.
#[derive(Debug)]
pub(super) struct ServerThreads {
    server: Arc<Server>,
    seen: Mutex<Seen>,
    spin: Spin,
    /// The processor, and 1, of the client that last made a call in memory.
    last_caller: AtomicU32,
    /// Whether something that needs no answer was handled since the leader last waited.
    yields: AtomicBool,
}

/// What a thread uses again and again.
#[derive(Debug, Default)]
struct CallBuffers {
    arguments: AlignedBytes,
    result: Vec<u8>,
}

/// Starts the first leader.
///
/// # Errors
/// There is no thread to be had.
pub(super) fn start(server: &Arc<Server>) -> std::io::Result<()> {
    let threads = ServerThreads {
        server: Arc::clone(server),
        seen: Mutex::default(),
        spin: Spin::new(),
        last_caller: AtomicU32::new(0),
        yields: AtomicBool::new(false),
    };
    spawn(&Arc::new(threads))
}

fn spawn(threads: &Arc<ServerThreads>) -> std::io::Result<()> {
    let of_thread = Arc::clone(threads);
    // Before it runs, so that no second one is started meanwhile.
    threads.server.turn.add_standby();
    let spawned = thread::Builder::new().name("process-task".to_owned()).spawn(move || work(&of_thread));
    spawned.map(drop).inspect_err(|_| threads.server.turn.remove_standby())
}

/// Tells the leader of clients and messages that are gone, until the manager has ended.
///
/// Runs in: the manager's main thread.
pub(super) fn watch(server: &Server) {
    let mut tokens = Vec::new();
    while !server.has_ended() {
        tokens.clear();
        if server.watched.wait(&mut tokens, None).is_err() {
            // It cannot fail for long: the set is there, and there is memory for its answer.
            thread::sleep(Duration::from_millis(10));
        }
        for token in tokens.iter().filter(|token| **token != END) {
            server.tell(match token & TICKET {
                _ if *token == END_REQUEST => ClientRequest::Shutdown,
                0 => ClientRequest::ClientGone { client: u32::try_from(*token).unwrap_or(0) },
                _ => ClientRequest::TicketGone { ticket: token & !TICKET },
            });
        }
    }
}

fn work(threads: &Arc<ServerThreads>) {
    let server = &threads.server;
    let mut scratch = CallBuffers::default();
    while let Some(mut lead) = server.turn.wait(&server.shared) {
        while threads.lead(&mut lead, &mut scratch) {
            if server.has_ended() {
                return;
            }
        }
        server.turn.add_standby();
    }
}

impl ServerThreads {
    /// Does one thing, or waits for one. False: this thread is not the leader any more.
    fn lead(self: &Arc<Self>, lead: &mut Lead, scratch: &mut CallBuffers) -> bool {
        let server = &self.server;
        match self.next() {
            None => {
                self.wait();
                true
            }
            Some(Job::Slot(peer, memory, at, head)) => {
                note(&self.last_caller, memory.words().cpu.load(Relaxed));
                self.begin(lead);
                self.call_in_slot((&peer, &memory), (at, head), scratch, lead);
                server.turn.end(lead)
            }
            Some(Job::Request(ClientRequest::Call { client, call, method, object, body })) => {
                // The next request may be the news of its end.
                let peer = server.tables.lock_unpoisoned().peer(client);
                let Some(peer) = peer else { return true };
                let place = run::line_up(server, method, object);
                self.begin(lead);
                self.call_in_queue((&peer, call), (method, object, body), place, lead);
                server.turn.end(lead)
            }
            Some(Job::Request(ClientRequest::Ask { client, call, question })) => {
                let peer = server.tables.lock_unpoisoned().peer(client);
                if let Some(peer) = peer {
                    // It may drop objects.
                    self.begin(lead);
                    let (status, bytes) = server.ask(client, question);
                    send(server, &peer, (call, status, 0), (&bytes, &Handles::default()));
                    return server.turn.end(lead);
                }
                true
            }
            Some(Job::Request(request)) => {
                self.yields.store(true, Relaxed);
                let is_end = matches!(request, ClientRequest::Shutdown);
                let dropped = server.control(request);
                let mut leads = true;
                if !dropped.is_empty() {
                    self.begin(lead);
                    drop(dropped);
                    leads = server.turn.end(lead);
                }
                if is_end {
                    server.end();
                }
                leads
            }
        }
    }

    /// The leader begins what may take long: a call, a drop, or an answer to a client that does not read. Another thread
    /// must be able to take its place meanwhile.
    fn begin(self: &Arc<Self>, lead: &mut Lead) {
        if self.server.turn.lacks_standby() {
            // Where there is no thread to be had, it is tried again the next time.
            let _ = spawn(self);
        }
        self.server.turn.begin(lead);
    }

    /// The next thing to do.
    fn next(&self) -> Option<Job> {
        let server = &self.server;
        let mut seen = self.seen.lock_unpoisoned();
        seen.bits |= wakeup::take(&server.shared.words().wakeup);
        if seen.bits == 0 {
            return None;
        }
        seen.slots_first = !seen.slots_first;
        if seen.slots_first
            && let Some(job) = next_in_slots(server, &mut seen)
        {
            return Some(job);
        }
        if seen.bits & QUEUE != 0 {
            if server.receiver.is_empty() {
                seen.bits &= !QUEUE;
            } else if let Some(request) = server.receive() {
                return Some(Job::Request(request));
            }
        }
        next_in_slots(server, &mut seen)
    }

    /// Waits until something is announced.
    fn wait(&self) {
        let shared = &self.server.shared;
        let word = &shared.words().wakeup;
        if self.yields.swap(false, Relaxed) {
            // Such requests come in numbers, and a client that runs on this processor cannot bring the next one meanwhile.
            process::yield_now();
            if word.load(Relaxed) != 0 {
                return;
            }
        }
        let here = cpu::current() + 1;
        note(&shared.words().cpu, here);
        // Where the last caller runs on this processor, looking would only keep it from running.
        if self.last_caller.load(Relaxed) != here && self.spin.until(|| word.load(Relaxed) != 0) {
            return;
        }
        if wakeup::park(word) {
            let since = Instant::now();
            shared.sleep();
            self.spin.slept(since);
        }
    }

    fn call_in_slot(
        &self,
        (peer, memory): (&Peer, &ClientMemory),
        (at, head): (usize, Head),
        scratch: &mut CallBuffers,
        lead: &Lead,
    ) {
        let server = &self.server;
        let len = (head.len as usize).min(SLOT_BYTES);
        memory.read(at, scratch.arguments.of_len(len));
        let none = Received::default();
        let call = MethodCall {
            method: head.what,
            object: head.object,
            arguments: scratch.arguments.as_slice(),
            received: &none,
            tasks: true,
        };
        server.calls.fetch_add(1, Relaxed);
        let caller = CallId { client: peer.number, call: head.call };
        let (outcome, _) = deferred::with_caller(caller, AnswerPlace::Slot, || {
            run::run(server, call, (None, std::mem::take(&mut scratch.result)), || {
                server.turn.give_up(lead, &server.shared);
            })
        });
        let outcome = made_known(server, peer, outcome);
        let (status, object, Outcome { bytes, handles, .. }) = outcome;
        let fits = handles.is_empty() && bytes.len() <= SLOT_BYTES;
        let answer = if fits {
            memory.write(at, &bytes);
            Head { what: status as u32, object, call: head.call, len: u32::try_from(bytes.len()).unwrap_or(0) }
        } else {
            send(server, peer, (head.call, status, object), (&bytes, &handles));
            Head { what: Status::Elsewhere as u32, object: 0, call: head.call, len: 0 }
        };
        if let Some(slot) = memory.words().slots.get(at)
            && slot.reply(answer)
        {
            futex_wait::wake_one(&slot.state);
        }
        if bytes.capacity() <= 2 * SLOT_BYTES {
            scratch.result = bytes;
        }
    }

    fn call_in_queue(
        &self,
        (peer, number): (&Peer, u64),
        (method, object, body): (u32, u64, CallPayload),
        place: Option<Place>,
        lead: &Lead,
    ) {
        let server = &self.server;
        let (arguments, received) = body.unpack();
        let call = MethodCall { method, object, arguments: arguments.as_slice(), received: &received, tasks: true };
        server.calls.fetch_add(1, Relaxed);
        let caller = CallId { client: peer.number, call: number };
        let (outcome, answering) = deferred::with_caller(caller, AnswerPlace::Queue, || {
            run::run(server, call, (place, Vec::new()), || server.turn.give_up(lead, &server.shared))
        });
        // What came beside the arguments is let go of before the caller has the result.
        received.release();
        drop(received);
        if let Answering::Later = answering {
            return;
        }
        let (status, object, outcome) = made_known(server, peer, outcome);
        send(server, peer, (number, status, object), (&outcome.bytes, &outcome.handles));
    }
}

/// Counts the object that a call has made as its client's. Its number is 0 if there is none.
pub(super) fn made_known(server: &Server, peer: &Peer, mut outcome: Outcome) -> (Status, u64, Outcome) {
    let made = outcome.made.take().map(|made| server.tables.lock_unpoisoned().add_object(Some(peer.number), made));
    match made {
        None => (outcome.status, 0, outcome),
        Some(Ok(object)) => (outcome.status, object, outcome),
        Some(Err(made)) => {
            // The client is gone.
            drop(made);
            (outcome.status, 0, outcome)
        }
    }
}

/// The first group from `from` on, and then from 0 on, whose bit is set.
fn next_group(bits: u32, from: u32) -> Option<u32> {
    let groups = bits & (QUEUE - 1);
    let behind = groups & (u32::MAX << (from % GROUPS));
    [behind, groups].into_iter().find(|bits| *bits != 0).map(u32::trailing_zeros)
}

/// Takes one call that was announced in a client's memory.
pub(super) fn next_in_slots(server: &Server, seen: &mut Seen) -> Option<Job> {
    while let Some(number) = next_group(seen.bits, seen.group) {
        let group = server.tables.lock_unpoisoned().group(number);
        let first = seen.peers.get_mut(number as usize)?;
        let (before, behind) = group.split_at((*first).min(group.len()));
        for (at, peer) in behind.iter().chain(before).enumerate() {
            let PeerLink::Local { memory, announced, .. } = &peer.link else { continue };
            let words = memory.words();
            if let Some((slot, head)) = slots::take_next(&words.slots, (&words.ready, announced)) {
                *first = (before.len() + at + 1) % group.len();
                seen.group = number + 1;
                return Some(Job::Slot(Arc::clone(peer), Arc::clone(memory), slot, head));
            }
        }
        seen.bits &= !(1 << number);
    }
    None
}

/// Answers through the client's queue.
pub(super) fn send(
    server: &Server,
    peer: &Peer,
    (call, status, object): (u64, Status, u64),
    result: (&[u8], &Handles),
) {
    let body = CallPayload::new(result.0, result.1);
    send_reply(server, peer, CallReply { call, status: status as u32, object, body });
}

/// As [`send`].
pub(super) fn send_reply(server: &Server, peer: &Peer, mut reply: CallReply) {
    let mut is_second = false;
    loop {
        reply = match peer.send(reply, ROOM_CHECK_INTERVAL) {
            Ok(()) | Err(SendTimeoutError::Disconnected(_)) => return,
            // A client that does not read keeps this thread, and no other.
            Err(SendTimeoutError::Timeout(reply)) => reply,
            Err(SendTimeoutError::Failed(reply, error)) if !is_second => {
                is_second = true;
                // The caller does not get what the call was given, such as an item, which is taken back.
                server.tell(ClientRequest::Cancel { client: peer.number, call: reply.call });
                let body = CallPayload::new(error.to_string().as_bytes(), &Handles::default());
                CallReply { status: Status::BadResult as u32, body, ..reply }
            }
            // What the kernel refuses now it may not refuse later, and the caller waits.
            Err(SendTimeoutError::Failed(reply, _)) => {
                thread::sleep(ROOM_CHECK_INTERVAL);
                reply
            }
        };
        if server.tables.lock_unpoisoned().peer(peer.number).is_none() {
            return;
        }
    }
}
