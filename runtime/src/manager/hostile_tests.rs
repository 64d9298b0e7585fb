//! A client that writes whatever it likes into what it shares with a manager, and sends whatever it likes.
//!
//! Runs in: one process, which is manager and client at once. What is hostile is a client that does not use the code of one.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::client::Client;
use super::leader;
use super::memory::{ClientMemory, ManagerMemory};
use super::server::Server;
use super::slots::SLOTS;
use super::wakeup;
use super::wire::{CallPayload, ClientRequest, Hello, ManagerId, ManagerQuestion, Status, TravellingHandle};
use crate::channel::{Descriptor, Queue, QueueSender};
use crate::codec::handles::Handles;
use crate::error::ErrorKind;
use crate::process_task;
use crate::sys::{fd, process};
use crate::task::Task as _;

#[process_task]
fn double(number: u64) -> u64 {
    number * 2
}

struct Attacked {
    server: Arc<Server>,
    shared: Arc<ManagerMemory>,
    requests: QueueSender<ClientRequest>,
    client: Arc<Client>,
}

impl Attacked {
    fn new() -> Self {
        let shared = Arc::new(ManagerMemory::create().unwrap());
        let (requests, receiver) = Queue::unbounded().unwrap().split();
        let id = ManagerId::random();
        let server =
            Server::new((id, "attacked".to_owned()), Arc::clone(&shared), (receiver, requests.clone())).unwrap();
        let server = Arc::new(server);
        leader::start(&server).unwrap();
        let client = Client::connect((id, "attacked"), || Ok((requests.clone(), Arc::clone(&shared)))).unwrap();
        Self { server, shared, requests, client }
    }

    /// A client that says hello and nothing that it should after that.
    fn enemy(&self) -> (u32, Arc<ClientMemory>) {
        let number = self.shared.words().clients.fetch_add(1, Relaxed) + 1;
        let memory = Arc::new(ClientMemory::create().unwrap());
        let (replies, _) = Queue::unbounded().unwrap().split();
        let process = Descriptor::new(fd::pidfd(process::own_pid()).unwrap());
        let hello = Hello { client: number, replies, process, memory: TravellingHandle(Arc::clone(&memory)) };
        self.send(ClientRequest::Hello(hello));
        (number, memory)
    }

    fn send(&self, request: ClientRequest) {
        self.requests.send(request).unwrap();
        self.shared.announce(wakeup::QUEUE);
    }

    /// An honest client is answered.
    fn is_sound(&self) {
        let method = double.registration().index().unwrap();
        let in_time = Some(Instant::now() + Duration::from_secs(30));
        for bytes in [21_u64.to_ne_bytes().to_vec(), vec![1; 5000]] {
            let answer = self.client.call((method, 0), (&bytes, &Handles::default()), (false, in_time)).unwrap();
            match bytes.len() {
                8 => assert_eq!(answer.checked().unwrap().0, 42_u64.to_ne_bytes()),
                _ => assert_eq!(answer.status, Status::BadArguments),
            }
        }
        let answer = self.client.ask(ManagerQuestion::Stats, in_time).unwrap();
        assert_eq!(answer.status, Status::Done);
    }
}

impl Drop for Attacked {
    fn drop(&mut self) {
        self.send(ClientRequest::Shutdown);
        self.server.wait_for_end();
    }
}

/// Numbers that look like chance, the same each time.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 24
    }
}

/// The low half of a random number.
fn low(number: u64) -> u32 {
    (number & u64::from(u32::MAX)).try_into().expect("it is masked")
}

#[test]
fn garbage_in_memory_harms_no_other_client() {
    let attacked = Attacked::new();
    let (number, memory) = attacked.enemy();
    let mut next = numbers(7);
    for round in 0..300 {
        for at in 0..SLOTS {
            let slot = &memory.words().slots[at];
            let garbage: Vec<u8> = (0..64).map(|_| next().to_ne_bytes()[0]).collect();
            memory.write(at, &garbage);
            slot.what.store(low(next()) % 100, Relaxed);
            slot.object.store(next() % 3, Relaxed);
            slot.call.store(next(), Relaxed);
            slot.len.store(if round % 2 == 0 { low(next()) } else { low(next()) % 5000 }, Relaxed);
            slot.state.store(low(next()), Relaxed);
        }
        memory.words().ready.store(low(next()), Relaxed);
        attacked.shared.announce(wakeup::group_bit(number) | low(next()) & !wakeup::PARKED);
        if round % 50 == 0 {
            attacked.is_sound();
        }
    }
    attacked.is_sound();
}

#[test]
fn requests_that_make_no_sense_are_not_heard() {
    let attacked = Attacked::new();
    let (number, _memory) = attacked.enemy();
    let mut next = numbers(11);
    for _ in 0..100 {
        let (client, object) = (low(next() % 5) + 1000, next() % 3);
        let body = CallPayload::new(&next().to_ne_bytes(), &Handles::default());
        attacked.send(ClientRequest::Call { client, call: 1, method: low(next()), object, body });
        attacked.send(ClientRequest::Claim { client: number, object });
        attacked.send(ClientRequest::Release { client: number, object });
        attacked.send(ClientRequest::Release { client, object });
        attacked.send(ClientRequest::Hold { ticket: next() % 4, object, end: None });
        attacked.send(ClientRequest::TicketGone { ticket: next() % 4 });
        attacked.send(ClientRequest::ClientGone { client });
        attacked.send(ClientRequest::Cancel { client: number, call: next() });
        attacked.send(ClientRequest::Ask { client: number, call: 3, question: ManagerQuestion::IsPoisoned { object } });
    }
    // A second client of the same number is none.
    let (replies, _) = Queue::unbounded().unwrap().split();
    let process = Descriptor::new(fd::pidfd(process::own_pid()).unwrap());
    let memory = TravellingHandle(Arc::new(ClientMemory::create().unwrap()));
    attacked.send(ClientRequest::Hello(Hello { client: attacked.client.number, replies, process, memory }));
    attacked.is_sound();
    let none = attacked.client.call((u32::MAX, 0), (&[], &Handles::default()), (false, None)).unwrap();
    assert_eq!(none.checked().unwrap_err().kind(), &ErrorKind::UnknownTask);
}
