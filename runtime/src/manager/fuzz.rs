//! Clients of a manager that do whatever some bytes say: one that shares memory with it, and one that has connected.
//!
//! Owns: the meaning of the bytes, and what has to hold whatever they are. Runs in: a fuzzer, and in the test that goes
//! through the inputs that are worth keeping. Never: is part of the library that programs get.
//!
//! An input is a list of steps: one byte that says which, and the bytes that it needs; missing ones are zero. The manager is
//! real, with its threads, and an honest client has to be answered after each input.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzzer's crate calls what the tests call"))]

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use super::client::Client;
use super::connected::Connected;
use super::connection_limits::ConnectionLimits;
use super::leader;
use super::memory::{ClientMemory, ManagerMemory};
use super::pending::Inbox;
use super::remote;
use super::server::Server;
use super::slots::{self, Head, SLOT_BYTES, SLOTS};
use super::tables::{Peer, PeerLink};
use super::wakeup;
use super::wire::{
    CallPayload, CallReply, ClientRequest, Hello, Introduction, ManagerId, ManagerQuestion, Status, TravellingHandle,
};
use crate::channel::{Descriptor, Queue, QueueReceiver, QueueSender, pipe};
use crate::codec::handles::{Handles, Received};
use crate::codec::message::from_bytes;
use crate::codec::message_format::{of_message, to_message};
use crate::codec::{Encoded, Message, NoSpill};
use crate::process_task;
use crate::sys::mutex::MutexExt as _;
use crate::sys::{fd, process};
use crate::task::{Task as _, lookup_method};

#[process_task]
fn double(number: u64) -> u64 {
    number * 2
}

/// A manager, its honest client, and the way in for others.
pub(super) struct Attacked {
    pub(super) server: Arc<Server>,
    pub(super) shared: Arc<ManagerMemory>,
    requests: QueueSender<ClientRequest>,
    pub(super) client: Arc<Client>,
}

impl Attacked {
    pub(super) fn new() -> Option<Self> {
        let shared = Arc::new(ManagerMemory::create().ok()?);
        let (requests, receiver) = Queue::unbounded().ok()?.split();
        let id = ManagerId::random();
        let limits = ConnectionLimits { running: 2, calls: 32, message_bytes: 1 << 16, ..ConnectionLimits::default() };
        let own = (id, "attacked".to_owned());
        let server = Arc::new(Server::new(own, Arc::clone(&shared), (receiver, requests.clone()), limits).ok()?);
        leader::start(&server).ok()?;
        let client = Client::connect((id, "attacked"), || Ok((requests.clone(), Arc::clone(&shared)))).ok()?;
        Some(Self { server, shared, requests, client })
    }

    /// A client that says hello and nothing that it should after that.
    pub(super) fn enemy(&self) -> Option<Enemy> {
        let number = self.shared.words().clients.fetch_add(1, Relaxed) + 1;
        let memory = Arc::new(ClientMemory::create().ok()?);
        let (replies, receiver) = Queue::unbounded().ok()?.split();
        self.hello(number, (replies, &memory))?;
        Some(Enemy { number, memory, replies: receiver })
    }

    pub(super) fn hello(
        &self,
        client: u32,
        (replies, memory): (QueueSender<CallReply>, &Arc<ClientMemory>),
    ) -> Option<()> {
        let process = Descriptor::new(fd::pidfd(process::own_pid()).ok()?);
        self.send(ClientRequest::Hello(Hello {
            client,
            replies,
            process,
            memory: TravellingHandle(Arc::clone(memory)),
        }));
        Some(())
    }

    pub(super) fn send(&self, request: ClientRequest) {
        let _ = self.requests.send(request);
        self.shared.announce(wakeup::QUEUE);
    }

    /// An honest client is answered.
    pub(super) fn is_sound(&self) {
        let method = double.registration().index().expect("it is registered");
        let in_time = Some(Instant::now() + Duration::from_secs(30));
        for bytes in [21_u64.to_ne_bytes().to_vec(), vec![1; 5000]] {
            let answer =
                self.client.call((method, 0), (&bytes, &Handles::default()), (false, in_time)).expect("an answer");
            match bytes.len() {
                8 => assert!(answer.checked().expect("a result").0 == 42_u64.to_ne_bytes()),
                _ => assert_eq!(answer.status, Status::BadArguments),
            }
        }
        let answer = self.client.ask(ManagerQuestion::Stats, in_time).expect("an answer");
        assert_eq!(answer.status, Status::Done);
    }
}

impl Drop for Attacked {
    fn drop(&mut self) {
        self.send(ClientRequest::Shutdown);
        leader::watch(&self.server);
    }
}

/// See [`Attacked::enemy`].
pub(super) struct Enemy {
    pub(super) number: u32,
    pub(super) memory: Arc<ClientMemory>,
    replies: QueueReceiver<CallReply>,
}

/// The methods that an input can name: those of the library's own objects, but for the one that makes any amount of memory of one
/// number.
pub(super) static METHODS: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let own = |name: &str| name.contains("manager::managed::") && !name.ends_with("::repeat");
    let is_own = |index: &u32| lookup_method(*index).is_some_and(|method| own(method.name()));
    (0..1 << 16).filter(is_own).collect()
});

/// The method of that number; none for a number in 16.
fn method(number: u8) -> u32 {
    let number = usize::from(number);
    if number % 16 == 15 || METHODS.is_empty() { u32::MAX } else { METHODS[number % METHODS.len()] }
}

/// What is left of an input.
struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.take();
        byte
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn chunk(&mut self) -> &'a [u8] {
        let (chunk, rest) = self.0.split_at(usize::from(self.byte()).min(self.0.len()));
        self.0 = rest;
        chunk
    }
}

/// A client writes into what it shares with the manager, and into its queue.
pub fn shared(input: &[u8]) {
    static ATTACKED: LazyLock<Option<Attacked>> = LazyLock::new(Attacked::new);
    let Some(attacked) = &*ATTACKED else { return };
    let Some(mut enemy) = attacked.enemy() else { return };
    let mut steps = Steps(input);
    for _ in 0..100 {
        if steps.0.is_empty() {
            break;
        }
        step(attacked, &mut enemy, &mut steps);
    }
    attacked.send(ClientRequest::ClientGone { client: enemy.number });
    attacked.is_sound();
    while enemy.replies.try_recv().is_ok() {}
}

fn step(attacked: &Attacked, enemy: &mut Enemy, steps: &mut Steps<'_>) {
    let (client, words) = (enemy.number, enemy.memory.words());
    match steps.byte() % 12 {
        0 => {
            let slot = &words.slots[usize::from(steps.byte()) % SLOTS];
            slot.what.store(method(steps.byte()), Relaxed);
            slot.object.store(u64::from(steps.byte()), Relaxed);
            slot.call.store(u64::from_le_bytes(steps.take()), Relaxed);
            slot.len.store(steps.word(), Relaxed);
            slot.state.store(steps.word(), Relaxed);
        }
        1 => words.ready.store(steps.word(), Relaxed),
        2 => attacked.shared.announce(steps.word() & !wakeup::PARKED),
        3 => {
            // A call as an honest client makes it, but for what it says.
            let at = usize::from(steps.byte()) % SLOTS;
            let (what, object, bytes) = (method(steps.byte()), u64::from(steps.byte()), steps.chunk());
            enemy.memory.write(at, &bytes[..bytes.len().min(SLOT_BYTES)]);
            let len = u32::from(steps.byte()) * if bytes.len() % 2 == 0 { 1 } else { 1 << 20 };
            words.slots[at].request(Head { what, object, call: 1, len });
            slots::announce(&words.ready, at);
            attacked.shared.announce(wakeup::group_bit(client));
        }
        4 => {
            let at = usize::from(steps.byte()) % SLOTS;
            enemy.memory.write(at, steps.chunk());
        }
        5 => {
            let (call, method, object) = (u64::from(steps.byte()), method(steps.byte()), u64::from(steps.byte()));
            let body = CallPayload::new(steps.chunk(), &Handles::default());
            attacked.send(ClientRequest::Call { client, call, method, object, body });
        }
        6 => {
            let object = u64::from(steps.byte());
            attacked.send(match steps.byte() % 3 {
                0 => ClientRequest::Claim { client, object },
                1 => ClientRequest::Release { client, object },
                _ => ClientRequest::Cancel { client, call: object },
            });
        }
        7 => {
            let ticket = u64::from(client) << 32 | u64::from(steps.byte());
            attacked.send(match steps.byte() % 2 {
                0 => ClientRequest::Hold { ticket, object: u64::from(steps.byte()), end: None },
                _ => ClientRequest::TicketGone { ticket },
            });
        }
        8 => {
            let (call, question) = (u64::from(steps.byte()), question(steps));
            attacked.send(ClientRequest::Ask { client, call, question });
        }
        9 => {
            attacked.send(ClientRequest::Goodbye { client });
            if let Some(new) = attacked.enemy() {
                *enemy = new;
            }
        }
        10 => {
            let (replies, _) = match Queue::unbounded() {
                Ok(queue) => queue.split(),
                Err(_) => return,
            };
            let _ = attacked.hello(client, (replies, &enemy.memory));
        }
        _ => {
            let words = attacked.shared.words();
            words.nudges.store(steps.word(), Relaxed);
            words.cpu.store(steps.word(), Relaxed);
        }
    }
}

fn question(steps: &mut Steps<'_>) -> ManagerQuestion {
    let object = u64::from(steps.byte());
    match steps.byte() % 5 {
        0 => ManagerQuestion::Stats,
        1 => ManagerQuestion::Addresses,
        2 => ManagerQuestion::IsPoisoned { object },
        3 => ManagerQuestion::ClearPoison { object },
        _ => ManagerQuestion::Find { name: object.to_string() },
    }
}

/// A client that has connected sends what it likes, and the parsers of both sides get any bytes.
pub fn connected(input: &[u8]) {
    static ATTACKED: LazyLock<Option<Attacked>> = LazyLock::new(Attacked::new);
    again::<ClientRequest>(input);
    again::<CallReply>(input);
    let _ = from_bytes::<Introduction>(input);
    let Some(attacked) = &*ATTACKED else { return };
    let Ok((theirs, ours)) = pipe::<ClientRequest, CallReply>() else { return };
    let number = attacked.shared.words().clients.fetch_add(1, Relaxed) + 1;
    let server = &attacked.server;
    let connected = Arc::new(Connected::new(number, ours, server.limits));
    let peer = Peer { number, link: PeerLink::Connected(Arc::clone(&connected)) };
    server.tables.lock_unpoisoned().add_client(peer, None);
    let (mut steps, inbox) = (Steps(input), Inbox::new(None));
    for _ in 0..100 {
        if steps.0.is_empty() {
            break;
        }
        let Some(request) = request(&mut steps) else { continue };
        if !remote::handle(server, number, request, &connected) {
            break;
        }
        while let Ok(reply) = theirs.try_recv() {
            inbox.deliver(reply, &|_, _| ());
        }
    }
    connected.end();
    drop(server.control(ClientRequest::ClientGone { client: number }));
    attacked.is_sound();
}

fn request(steps: &mut Steps<'_>) -> Option<ClientRequest> {
    let call = u64::from(steps.byte());
    Some(match steps.byte() % 8 {
        // Whatever some bytes say, if they say anything.
        0 => match of_message(steps.chunk(), &Received::default()).ok()? {
            ClientRequest::Call { client, call, method: what, object, body } => {
                ClientRequest::Call { client, call, method: method(what.to_le_bytes()[0]), object, body }
            }
            request => request,
        },
        1 => ClientRequest::Ask { client: 0, call, question: question(steps) },
        2 => ClientRequest::Release { client: steps.word(), object: call },
        3 => ClientRequest::Cancel { client: steps.word(), call },
        4 => ClientRequest::Alive,
        _ => {
            let (what, object) = (method(steps.byte()), u64::from(steps.byte()));
            let body = CallPayload::new(steps.chunk(), &Handles::default());
            ClientRequest::Call { client: steps.byte().into(), call, method: what, object, body }
        }
    })
}

/// Reads these bytes as a message, and sends again what they are.
fn again<T: Message>(bytes: &[u8]) {
    let Ok(value) = of_message::<T>(bytes, &Received::default()) else { return };
    if let Ok((Encoded::Small(sent), _)) = to_message(&value, Vec::new(), (usize::MAX, &mut NoSpill)) {
        assert!(of_message::<T>(&sent, &Received::default()).is_ok(), "what was sent does not arrive");
    }
}
