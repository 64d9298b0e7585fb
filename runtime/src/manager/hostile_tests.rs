//! A client that writes whatever it likes into what it shares with a manager, and sends whatever it likes.
//!
//! Runs in: one process, which is manager and client at once. What is hostile is a client that does not use the code of one.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::connection_limits::ConnectionLimits;
use super::fuzz::{self, Attacked};
use super::leader::{Job, Seen, next_in_slots};
use super::memory::{ClientMemory, ManagerMemory};
use super::pending::IN_SLOT;
use super::server::Server;
use super::slots::{self, CallSlot, Head, SLOTS};
use super::tables::Peer;
use super::unsent::send_soon;
use super::wakeup::{self, GROUPS};
use super::wire::{CallPayload, CallReply, ClientRequest, Hello, ManagerId, ManagerQuestion, Status, TravellingHandle};
use crate::channel::{Descriptor, Queue};
use crate::codec::handles::{Handles, Received};
use crate::codec::message_format::{of_message, to_message};
use crate::codec::{Encoded, NoSpill};
use crate::error::ErrorKind;
use crate::sys::counting_alloc::largest_within;
use crate::sys::mutex::MutexExt as _;

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
    let attacked = Attacked::new().unwrap();
    let enemy = attacked.enemy().unwrap();
    let (number, memory) = (enemy.number, &enemy.memory);
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

/// No call was made before, so that no thread stands by yet.
#[test]
fn client_that_reads_no_answer_keeps_no_other_waiting() {
    let attacked = Attacked::new().unwrap();
    let number = attacked.shared.words().clients.fetch_add(1, Relaxed) + 1;
    // Not read from: the second answer has no room.
    let (replies, _receiver) = Queue::bounded(1).unwrap().split();
    attacked.hello(number, (replies, &Arc::new(ClientMemory::create().unwrap()))).unwrap();
    for call in 1..3 {
        attacked.send(ClientRequest::Ask { client: number, call, question: ManagerQuestion::Stats });
    }
    attacked.is_sound();
}

/// The kernel cannot watch such a descriptor, so that no end of the client, or of the message, would ever be told.
#[test]
fn what_cannot_be_watched_is_refused() {
    let attacked = Attacked::new().unwrap();
    let null = || Descriptor::new(fs::File::open("/dev/null").unwrap());
    let (replies, receiver) = Queue::unbounded().unwrap().split();
    let number = attacked.shared.words().clients.fetch_add(1, Relaxed) + 1;
    let memory = TravellingHandle(Arc::new(ClientMemory::create().unwrap()));
    attacked.send(ClientRequest::Hello(Hello { client: number, replies, process: null(), memory }));
    let told: CallReply = receiver.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(told.status, Status::NoDescriptors as u32);
    let ticket = u64::from(number) << 32 | 1;
    attacked.send(ClientRequest::Hold { ticket, object: 1, end: Some(null()) });
    attacked.is_sound();
    let tables = attacked.server.tables.lock_unpoisoned();
    assert_eq!((tables.clients(), tables.tickets()), (1, 0));
}

/// As many calls of others are answered by one thread as end at the same time.
#[test]
fn client_that_reads_no_answer_keeps_no_thread_that_answers() {
    let attacked = Attacked::new().unwrap();
    let number = attacked.shared.words().clients.fetch_add(1, Relaxed) + 1;
    let (replies, receiver) = Queue::bounded(1).unwrap().split();
    attacked.hello(number, (replies, &Arc::new(ClientMemory::create().unwrap()))).unwrap();
    attacked.is_sound();
    let peer = attacked.server.tables.lock_unpoisoned().peer(number).unwrap();
    for call in 1..=3 {
        send_soon(&attacked.server, &peer, CallReply { call, status: 0, object: 0, body: CallPayload::default() });
    }
    let came: BTreeSet<_> = (0..3).map(|_| receiver.recv().unwrap().call).collect();
    assert_eq!(came, BTreeSet::from([1, 2, 3]));
}

/// The order of the calls that stand in memory, for which no thread is needed.
#[test]
fn clients_that_call_without_end_keep_no_other_waiting() {
    let shared = Arc::new(ManagerMemory::create().unwrap());
    let (requests, receiver) = Queue::unbounded().unwrap().split();
    let of = (ManagerId::random(), "attacked".to_owned());
    let server = Server::new(of, shared, (receiver, requests), ConnectionLimits::default()).unwrap();
    // The first two are of one group.
    let memories = [1, 1 + GROUPS, 2].map(|number| {
        let memory = Arc::new(ClientMemory::create().unwrap());
        let peer = Peer::local(number, Arc::clone(&memory), Queue::unbounded().unwrap().split().0);
        assert!(server.tables.lock_unpoisoned().add_client(peer, None));
        memory
    });
    let request = |memory: &ClientMemory, at: usize| {
        memory.words().slots[at].request(Head { what: 0, object: 0, call: 1, len: 0 });
        slots::announce(&memory.words().ready, at);
    };
    (0..SLOTS).for_each(|at| request(&memories[0], at));
    memories[1..].iter().for_each(|memory| request(memory, SLOTS - 1));
    let mut seen = Seen::default();
    seen.bits = wakeup::group_bit(1) | wakeup::group_bit(2);
    let mut taken = Vec::new();
    while taken.len() < SLOTS + 2 {
        let Some(Job::Slot(peer, _, at, _)) = next_in_slots(&server, &mut seen) else { panic!("{taken:?}") };
        taken.push((peer.number, at));
        if peer.number == 1 {
            // The first client calls again at once.
            request(&memories[0], at);
        }
    }
    let others: Vec<_> = taken.iter().filter(|(number, _)| *number != 1).collect();
    assert!(others.len() == 2 && taken[..4].contains(others[0]) && taken[..4].contains(others[1]), "{taken:?}");
    // Each of its own threads has its turn, too.
    let slots: BTreeSet<_> = taken.iter().filter(|(number, _)| *number == 1).map(|(_, at)| *at).collect();
    assert_eq!(slots.len(), SLOTS);
    // One that announces calls that are none is not looked at for long.
    for memory in &memories {
        memory.words().slots.iter().for_each(CallSlot::free);
        memory.words().ready.store(u32::MAX, Relaxed);
    }
    assert!(next_in_slots(&server, &mut seen).is_none());
}

/// It stood in memory, and its answer is to come by the queue, as it does not fit.
#[test]
fn short_call_given_up_before_its_long_answer_is_forgotten() {
    let attacked = Attacked::new().unwrap();
    let (client, call) = (&attacked.client, IN_SLOT | 0x77);
    client.inbox.expect(call);
    client.abandon(call);
    let released = Cell::new(0);
    let reply = CallReply { call, status: Status::Done as u32, object: 5, body: CallPayload::default() };
    client.inbox.deliver(reply, &|_, object| released.set(object));
    assert_eq!((released.get(), client.inbox.known(), client.inbox.in_flight()), (5, 0, (0, 0)));
}

#[test]
fn requests_that_make_no_sense_are_not_heard() {
    let attacked = Attacked::new().unwrap();
    let enemy = attacked.enemy().unwrap();
    let number = enemy.number;
    let mut next = numbers(11);
    for _ in 0..100 {
        let (client, object) = (low(next() % 5) + 1000, next() % 3);
        let body = CallPayload::new(&next().to_ne_bytes(), &Handles::default());
        attacked.send(ClientRequest::Call { client, call: 1, method: low(next()), object, body });
        attacked.send(ClientRequest::Claim { client: number, object });
        attacked.send(ClientRequest::Release { client: number, object });
        attacked.send(ClientRequest::ReleaseMany { client: number, objects: vec![object; 5] });
        for buffer in [low(next()) % 10, low(next())] {
            if let Some(word) = enemy.memory.words().released.get(buffer as usize) {
                word.store(low(next()), Relaxed);
            }
            attacked.send(ClientRequest::Released { client: number, buffer });
        }
        attacked.send(ClientRequest::Release { client, object });
        attacked.send(ClientRequest::Hold { ticket: next() % 4, object, end: None });
        attacked.send(ClientRequest::TicketGone { ticket: next() % 4 });
        attacked.send(ClientRequest::ClientGone { client });
        attacked.send(ClientRequest::Cancel { client: number, call: next() });
        attacked.send(ClientRequest::Ask { client: number, call: 3, question: ManagerQuestion::IsPoisoned { object } });
    }
    // A second client of the same number is none.
    let (replies, _) = Queue::unbounded().unwrap().split();
    attacked.hello(attacked.client.number, (replies, &Arc::new(ClientMemory::create().unwrap()))).unwrap();
    attacked.is_sound();
    let none = attacked.client.call((u32::MAX, 0), (&[], &Handles::default()), (false, None)).unwrap();
    assert_eq!(none.checked().unwrap_err().kind(), &ErrorKind::UnknownTask);
}

/// The inputs that are kept because each reaches something that the others do not.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let inputs: Vec<_> = entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(inputs.len() >= 20, "{} inputs in {}", inputs.len(), folder.display());
    inputs
}

/// Inputs that look like chance: short steps, and now and then long ones.
fn chance(seed: u64, count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut next = numbers(seed);
    (0..count).map(move |round| {
        let small = round % 2 == 0;
        (0..next() % 160).map(|_| next().to_ne_bytes()[0] % if small { 24 } else { 255 }).collect()
    })
}

#[test]
fn no_client_can_confuse_its_manager() {
    assert!(fuzz::METHODS.len() > 50, "an input names methods of the library's own objects");
    for input in corpus("manager_shared").into_iter().chain(chance(3, 300)) {
        fuzz::shared(&input);
    }
}

#[test]
fn no_connected_client_can_confuse_its_manager() {
    for input in corpus("manager_connected").into_iter().chain(chance(5, 300)) {
        fuzz::connected(&input);
    }
}

/// What a client that has connected sends, and what it is answered.
fn messages() -> Vec<Vec<u8>> {
    fn bytes<T: crate::codec::Message>(message: &T) -> Vec<u8> {
        let Ok((Encoded::Small(bytes), _)) = to_message(message, Vec::new(), (usize::MAX, &mut NoSpill)) else {
            panic!("it can be encoded")
        };
        bytes
    }
    let body = || CallPayload::new(&[7; 40], &Handles::default());
    let ask = |question| bytes(&ClientRequest::Ask { client: 1, call: 2, question });
    vec![
        bytes(&ClientRequest::Call { client: 1, call: 2, method: 3, object: 4, body: body() }),
        bytes(&ClientRequest::Introduce(super::remote::introduction())),
        bytes(&ClientRequest::Cancel { client: 1, call: 2 }),
        bytes(&ClientRequest::Release { client: 1, object: 2 }),
        bytes(&ClientRequest::Alive),
        ask(ManagerQuestion::Stats),
        ask(ManagerQuestion::Find { name: "name".to_owned() }),
        bytes(&CallReply { call: 1, status: 1, object: 2, body: body() }),
    ]
}

#[test]
fn lengths_reserve_no_more_than_has_come() {
    // The elements of a list that are reserved on the word of its length alone, as the codec has it, with room for large ones.
    const MOST: usize = 4096 * 64;
    for message in messages() {
        for at in 0..message.len() {
            for garbage in [u64::MAX, 1 << 62, 1 << 40, 1 << 31, 1 << 24] {
                let mut forged = message.clone();
                for (place, byte) in forged[at..].iter_mut().zip(garbage.to_le_bytes()) {
                    *place = byte;
                }
                let none = Received::default();
                let largest = largest_within(|| {
                    let _ = of_message::<ClientRequest>(&forged, &none);
                    let _ = of_message::<CallReply>(&forged, &none);
                });
                assert!(largest <= MOST, "{largest} bytes at once for {forged:?}");
            }
        }
    }
}
