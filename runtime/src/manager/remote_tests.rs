//! What one client that has connected can cost its manager: peers that do not use the code of a client.
//!
//! Runs in: one process, which is the manager, its honest clients, and the peers that break the rules.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use super::client::ClientConnection;
use super::connect::over;
use super::connection_limits::ConnectionLimits;
use super::handle::ManagerHandle;
use super::leader;
use super::memory::ManagerMemory;
use super::remote::{admit, introduction};
use super::server::Server;
use super::tables::ServedConnection;
use super::wire::{CallPayload, CallReply, ClientRequest, ManagerId, ManagerQuestion, Status};
use crate::channel::{Queue, RecvTimeoutError, pipe};
use crate::codec::handles::Handles;
use crate::codec::{Encoded, NoSpill, Writer};
use crate::error::{ErrorKind, Execution};
use crate::process_object;
use crate::process_task;
use crate::sys::mutex::MutexExt as _;
use crate::task::{Task, lookup_method};

/// How long what happens at once may take on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// An object whose answers are as long as is asked for.
pub(super) struct Hoard;

#[process_object(crate = crate)]
#[expect(clippy::unused_self, reason = "what is tested is the call")]
impl Hoard {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn much(&self, bytes: usize) -> Vec<u8> {
        vec![7; bytes]
    }

    pub(crate) fn length(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    pub(crate) fn sleep(&self, milliseconds: u64) {
        thread::sleep(Duration::from_millis(milliseconds));
    }
}

#[process_task]
pub(super) fn like_new() {}

#[process_task]
pub(super) fn like_much(bytes: usize) -> Vec<u8> {
    vec![0; bytes]
}

/// How a method's index is found, and its arguments are encoded.
pub(super) fn method<T: Task>(name: &str, _alike: T, args: T::Args<'_>) -> (u32, Vec<u8>) {
    let full = format!("{}::Hoard::{name}", module_path!());
    let found = (0..u32::MAX).find(|index| lookup_method(*index).is_some_and(|method| method.name() == full));
    let mut spill = NoSpill;
    let mut writer = Writer::new(Vec::new(), usize::MAX, &mut spill);
    T::encode(args, &mut writer).unwrap();
    let Ok(Encoded::Small(bytes)) = writer.finish() else { panic!("there is no spill") };
    (found.unwrap(), bytes)
}

pub(super) struct Listening {
    pub(super) server: Arc<Server>,
    open: Arc<AtomicUsize>,
}

impl Listening {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        let shared = Arc::new(ManagerMemory::create().unwrap());
        let (requests, receiver) = Queue::unbounded().unwrap().split();
        let id = (ManagerId::random(), "listening".to_owned());
        let server = Arc::new(Server::new(id, shared, (receiver, requests), limits).unwrap());
        leader::start(&server).unwrap();
        Self { server, open: Arc::default() }
    }

    /// Both ends of a connection that has been accepted.
    pub(super) fn accept(&self, far: bool) -> ClientConnection {
        let (theirs, ours): (ClientConnection, ServedConnection) = if far { far_pair() } else { pipe().unwrap() };
        admit(&self.server, ours, &self.open);
        theirs
    }

    pub(super) fn honest(&self) -> ManagerHandle {
        over(self.accept(false)).unwrap()
    }

    /// A peer that has introduced itself, and does what it likes after that. With the number that it has.
    pub(super) fn peer(&self, far: bool) -> (ClientConnection, u32) {
        let peer = self.accept(far);
        peer.send(ClientRequest::Introduce(introduction())).unwrap();
        let reply = peer.recv_timeout(PATIENCE).unwrap();
        assert_eq!(reply.status, Status::Done as u32);
        (peer, u32::try_from(reply.object).unwrap())
    }

    fn has(&self, client: u32) -> bool {
        self.server.tables.lock_unpoisoned().peer(client).is_some()
    }

    #[track_caller]
    fn until_dropped(&self, client: u32) {
        let end = Instant::now() + PATIENCE;
        while self.has(client) {
            assert!(Instant::now() < end, "the client is not dropped");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.server.tell(ClientRequest::Shutdown);
        leader::watch(&self.server);
    }
}

#[cfg(feature = "tcp")]
fn far_pair() -> (ClientConnection, ServedConnection) {
    use crate::channel::{Key, Listener, connect_tcp};
    let key = Key::random().unwrap();
    let listener = Listener::tcp("127.0.0.1:0", key.clone()).unwrap();
    let address = listener.local_addr().unwrap();
    let connects = thread::spawn(move || connect_tcp(address, &key).unwrap());
    let ours = listener.accept().unwrap();
    (connects.join().unwrap(), ours)
}

#[cfg(not(feature = "tcp"))]
fn far_pair() -> (ClientConnection, ServedConnection) {
    pipe().unwrap()
}

pub(super) fn call(number: u64, (method, bytes): &(u32, Vec<u8>), object: u64) -> ClientRequest {
    let body = CallPayload::new(bytes, &Handles::default());
    ClientRequest::Call { client: 0, call: number, method: *method, object, body }
}

pub(super) fn small() -> ConnectionLimits {
    let lease = Duration::from_millis(400);
    ConnectionLimits { lease, message_bytes: 1 << 20, answer_bytes: 2 << 20, calls: 100, ..ConnectionLimits::default() }
}

#[test]
fn client_that_reads_no_answer_is_dropped_alone() {
    let limits = ConnectionLimits { running: 4, ..small() };
    for far in [false, true] {
        let listening = Listening::new(limits);
        let hoard = HoardProxy::new(&listening.honest()).unwrap();
        let (peer, number) = listening.peer(far);
        let much = method("much", like_much, 1 << 19);
        peer.send(call(1, &method("new", like_new, ()), 0)).unwrap();
        let object = peer.recv_timeout(PATIENCE).unwrap().object;
        let before = listening.server.calls.load(Relaxed);
        for round in 0..150 {
            let _ = peer.send_timeout(call(2 + round, &much, object), Duration::from_millis(100));
        }
        let mut own = 0;
        let end = Instant::now() + PATIENCE;
        while listening.has(number) {
            assert!(Instant::now() < end, "the client is not dropped");
            // It answers others all the time.
            assert_eq!(hoard.length(&[1; 10]).unwrap(), 10);
            own += 1;
            if far {
                // That it lives changes nothing.
                let _ = peer.send_timeout(ClientRequest::Alive, Duration::ZERO);
            }
            thread::sleep(Duration::from_millis(5));
        }
        let begun = listening.server.calls.load(Relaxed) - before - own;
        // What waits for it, what is in the kernel, and what was running.
        assert!(begun < 40, "{begun} calls were begun for a client that reads nothing");
    }
}

#[test]
fn client_beyond_twice_the_backlog_is_dropped_at_once() {
    let listening = Listening::new(ConnectionLimits { lease: PATIENCE * 4, answer_bytes: 4 << 10, ..small() });
    for question in [ManagerQuestion::Stats, ManagerQuestion::Addresses] {
        let (peer, number) = listening.peer(false);
        let end = Instant::now() + PATIENCE;
        let mut asked = 0;
        while peer
            .send_timeout(ClientRequest::Ask { client: 0, call: asked + 1, question: question.clone() }, Duration::ZERO)
            .is_ok()
            || listening.has(number)
        {
            assert!(Instant::now() < end, "the client is not dropped");
            asked += 1;
        }
    }
}

#[test]
fn silent_client_is_dropped_after_the_lease() {
    let listening = Listening::new(small());
    let (_silent, silent) = listening.peer(true);
    let (speaks, number) = listening.peer(true);
    let honest = over(listening.accept(true)).unwrap();
    let since = Instant::now();
    while since.elapsed() < small().lease * 4 {
        speaks.send(ClientRequest::Alive).unwrap();
        assert_eq!(speaks.recv_timeout(PATIENCE).unwrap().call, 0);
        thread::sleep(small().lease / 20);
    }
    assert_eq!((listening.has(silent), listening.has(number)), (!cfg!(feature = "tcp"), true));
    assert!(honest.stats().is_ok());
    drop(speaks);
    listening.until_dropped(number);
}

#[test]
fn calls_beyond_the_limit_are_refused_in_words() {
    let listening = Listening::new(ConnectionLimits { calls: 5, running: 2, ..small() });
    let (peer, number) = listening.peer(false);
    let sleep = method("sleep", like_sleep, 300);
    peer.send(call(1, &method("new", like_new, ()), 0)).unwrap();
    let object = peer.recv_timeout(PATIENCE).unwrap().object;
    for round in 0..20 {
        peer.send(call(2 + round, &sleep, object)).unwrap();
    }
    let replies: Vec<_> = (0..20).map(|_| peer.recv_timeout(PATIENCE).unwrap()).collect();
    let refused = replies.iter().filter(|reply| reply.status == Status::Refused as u32).count();
    assert!((1..=10).contains(&refused), "{refused}");
    assert!(listening.has(number));
    // An honest client waits instead.
    let hoard = HoardProxy::new(&listening.honest()).unwrap();
    let calls: Vec<_> = (0..12).map(|_| hoard.later().sleep(5)).collect();
    for call in calls {
        call.join().unwrap();
    }
}

#[process_task]
fn like_sleep(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

#[test]
fn arguments_in_flight_are_bounded() {
    let listening = Listening::new(ConnectionLimits { call_bytes: 100_000, ..small() });
    let hoard = HoardProxy::new(&listening.honest()).unwrap();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| hoard.length(&vec![1; 90_000]).unwrap())).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 90_000);
        }
    });
    // One that is longer than all together may be goes alone.
    assert_eq!(hoard.length(&vec![1; 900_000]).unwrap(), 900_000);
}

#[test]
fn message_that_is_too_long_is_refused_in_words() {
    for far in [false, true] {
        let listening = Listening::new(small());
        let hoard = HoardProxy::new(&over(listening.accept(far)).unwrap()).unwrap();
        let error = hoard.length(&vec![1; 2 << 20]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooLong { limit: 0x10_0000, .. }), "{error}");
        assert_eq!(error.execution(), Execution::NotStarted);
        let error = hoard.much(2 << 20).unwrap_err();
        assert!(error.to_string().contains("1048576 at most"), "{error}");
        assert_eq!(hoard.much(1 << 19).unwrap().len(), 1 << 19);
        // One that sends it all the same.
        let (peer, number) = listening.peer(far);
        let _ = peer.send(call(1, &(0, vec![0; 3 << 20]), 0));
        listening.until_dropped(number);
    }
}

#[test]
fn peer_that_has_said_nothing_sends_nothing_long() {
    for far in [false, true] {
        let listening = Listening::new(small());
        let peer = listening.accept(far);
        let mut long = introduction();
        long.program = "x".repeat(1 << 20);
        let _ = peer.send(ClientRequest::Introduce(long));
        assert!(!matches!(peer.recv_timeout(PATIENCE), Ok(_) | Err(RecvTimeoutError::Timeout)));
    }
}

#[test]
fn objects_of_a_connection_are_bounded() {
    let listening = Listening::new(ConnectionLimits { objects: 3, ..small() });
    let (one, other) = (listening.honest(), listening.honest());
    let mut hoards: Vec<_> = (0..3).map(|_| HoardProxy::new(&one).unwrap()).collect();
    let error = HoardProxy::new(&one).unwrap_err();
    assert!(error.kind() == &ErrorKind::Full && error.to_string().contains("3 objects"), "{error}");
    assert_eq!(error.execution(), Execution::NotStarted);
    assert!(HoardProxy::new(&other).is_ok());
    hoards.pop();
    assert!(HoardProxy::new(&one).is_ok());
}

#[test]
fn connections_are_bounded_and_told_so() {
    let listening = Listening::new(ConnectionLimits { connections: 2, ..small() });
    let (one, _other) = (listening.honest(), listening.honest());
    let error = over(listening.accept(false)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PeerRefused { reason, .. } if reason.contains("as many")), "{error}");
    let stats = one.stats().unwrap();
    assert_eq!(stats.refused(), 1);
    drop(one);
    let end = Instant::now() + PATIENCE;
    while over(listening.accept(false)).is_err() {
        assert!(Instant::now() < end, "no place comes free");
    }
}

#[test]
fn peer_of_another_build_is_named_in_the_manager() {
    let listening = Listening::new(small());
    let peer = listening.accept(false);
    let mut theirs = introduction();
    (theirs.fingerprint, theirs.program) = (theirs.fingerprint ^ 1, "older".to_owned());
    peer.send(ClientRequest::Introduce(theirs)).unwrap();
    assert_eq!(peer.recv_timeout(PATIENCE).unwrap().status, Status::OtherBuild as u32);
    assert!(matches!(peer.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected)));
    let stats = listening.honest().stats().unwrap();
    let told = stats.last_refusal().unwrap().to_owned();
    assert!(told.contains("`older` of build") && told.contains(&introduction().to_string()), "{told}");
}

#[test]
fn client_that_breaks_the_rules_is_dropped() {
    let listening = Listening::new(small());
    let sleep = method("sleep", like_sleep, 50);
    let bad: [&dyn Fn() -> Vec<ClientRequest>; 6] = [
        &|| vec![call(0, &sleep, 1)],
        &|| vec![call(1, &sleep, 1), call(1, &sleep, 1)],
        &|| vec![ClientRequest::ClientGone { client: 1 }],
        &|| vec![ClientRequest::TicketGone { ticket: 1 }],
        &|| vec![ClientRequest::Introduce(introduction())],
        &|| vec![ClientRequest::Shutdown],
    ];
    let honest = listening.honest();
    let _object = HoardProxy::new(&honest).unwrap();
    for bad in bad {
        let (peer, number) = listening.peer(false);
        for request in bad() {
            let _ = peer.send(request);
        }
        listening.until_dropped(number);
        assert_eq!(honest.stats().unwrap().clients(), 1);
    }
}

#[test]
fn cancelled_call_that_has_not_begun_does_not_begin() {
    let listening = Listening::new(ConnectionLimits { running: 1, ..small() });
    let hoard = HoardProxy::new(&listening.honest()).unwrap();
    let before = listening.server.calls.load(Relaxed);
    let long = hoard.later().sleep(200);
    for _ in 0..10 {
        let error = hoard.with_timeout(Duration::from_millis(5)).sleep(1).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Elapsed);
    }
    long.join().unwrap();
    assert_eq!(hoard.length(&[]).unwrap(), 0);
    assert_eq!(listening.server.calls.load(Relaxed) - before, 2);
}

#[test]
fn calls_sent_before_a_goodbye_are_made() {
    let listening = Listening::new(ConnectionLimits { running: 1, ..small() });
    for says_goodbye in [true, false] {
        let (peer, number) = listening.peer(false);
        peer.send(call(1, &method("new", like_new, ()), 0)).unwrap();
        let object = peer.recv_timeout(PATIENCE).unwrap().object;
        let before = listening.server.calls.load(Relaxed);
        for of_peer in 2..6 {
            peer.send(call(of_peer, &method("sleep", like_sleep, 20), object)).unwrap();
        }
        if says_goodbye {
            peer.send(ClientRequest::Goodbye { client: number }).unwrap();
        }
        drop(peer);
        listening.until_dropped(number);
        assert_eq!(listening.server.calls.load(Relaxed) - before, 4);
    }
}

#[test]
fn objects_of_others_cannot_be_released() {
    let listening = Listening::new(small());
    let hoard = HoardProxy::new(&listening.honest()).unwrap();
    let (peer, _number) = listening.peer(false);
    for object in 0..5 {
        peer.send(ClientRequest::Release { client: 1, object }).unwrap();
    }
    peer.send(ClientRequest::Alive).unwrap();
    let CallReply { call, .. } = peer.recv_timeout(PATIENCE).unwrap();
    assert_eq!((call, hoard.length(&[1]).unwrap()), (0, 1));
}
