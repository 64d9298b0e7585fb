//! What slow destructors, threads that leave and a side that does not read cost a connection: nothing that was promised.
//!
//! Runs in: one process, which is the manager and its clients, or plays one of them.

use std::collections::HashSet;
use std::sync::mpsc;
use std::sync::{Arc, Barrier, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use super::client::ClientConnection;
use super::connect::over;
use super::connected::Connected;
use super::connection_limits::ConnectionLimits;
use super::handle::ManagerHandle;
use super::remote_tests::{HoardProxy, Listening, PATIENCE, call, like_new, method, small};
use super::tables::{Peer, PeerLink, ServedConnection};
use super::wire::{CallPayload, CallReply, ClientRequest, ManagerId, ManagerIntroduction, NO_CALL, Status};
use crate::channel::{RecvTimeoutError, pipe};
use crate::codec::handles::Handles;
use crate::codec::message::to_bytes;
use crate::error::{ErrorKind, Execution};
use crate::process_object;
use crate::sys::mutex::MutexExt as _;

/// An object whose destructor takes its time.
struct Slow(Duration);

#[process_object(crate = crate)]
impl Slow {
    pub(crate) fn new(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        thread::sleep(self.0);
    }
}

#[test]
fn long_destructor_ends_no_connection() {
    for far in [false, true] {
        let listening = Listening::new(small());
        let there = over(listening.accept(far)).unwrap();
        let hoard = HoardProxy::new(&there).unwrap();
        let long = small().lease * 4;
        let slow = SlowProxy::new(&there, u64::try_from(long.as_millis()).unwrap()).unwrap();
        let since = Instant::now();
        drop(slow);
        while since.elapsed() < long {
            assert_eq!(hoard.length(&[1]).unwrap(), 1);
            thread::sleep(small().lease / 20);
        }
        assert_eq!(hoard.length(&[1]).unwrap(), 1);
    }
}

#[test]
fn call_that_comes_as_the_last_thread_leaves_is_run() {
    let limits = ConnectionLimits { running: 1, ..small() };
    let listening = Listening::new(limits);
    let (theirs, ours): (ClientConnection, ServedConnection) = pipe().unwrap();
    let connected = Arc::new(Connected::new(7, ours, limits));
    let peer = Peer { number: 7, link: PeerLink::Connected(Arc::clone(&connected)) };
    assert!(listening.server.tables.lock_unpoisoned().add_client(peer, None));
    connected.leave_as_last_thread(&listening.server);
    let ClientRequest::Call { call, method, object, body, .. } = call(1, &method("new", like_new, ()), 0) else {
        panic!("it is a call")
    };
    assert!(connected.push(&listening.server, 7, (call, method, object, body)));
    let reply = theirs.recv_timeout(PATIENCE).unwrap();
    assert_eq!((reply.call, reply.status), (1, Status::Done as u32));
    connected.end();
}

/// What a manager answers to the constructor of an object.
static MADE: LazyLock<CallPayload> = LazyLock::new(|| {
    let listening = Listening::new(small());
    let (peer, _number) = listening.peer(false);
    peer.send(call(1, &method("new", like_new, ()), 0)).unwrap();
    peer.recv_timeout(PATIENCE).unwrap().body
});

fn answer(call: u64, object: u64, body: &CallPayload) -> CallReply {
    CallReply { call, status: Status::Done as u32, object, body: body.clone() }
}

/// A client whose manager is played by the test.
fn played(limits: ConnectionLimits) -> (ManagerHandle, ServedConnection) {
    let (theirs, ours): (ClientConnection, ServedConnection) = pipe().unwrap();
    let introduces = thread::spawn(move || {
        let Ok(ClientRequest::Introduce(mut introduction)) = ours.recv() else { panic!("no introduction") };
        let (id, name) = (ManagerId::random(), "played".to_owned());
        introduction.manager = Some(ManagerIntroduction { id, name, pid: std::process::id(), limits });
        let body = CallPayload::new(&to_bytes(&introduction), &Handles::default());
        ours.send(answer(NO_CALL, 1, &body)).unwrap();
        ours
    });
    let there = over(theirs).unwrap();
    (there, introduces.join().unwrap())
}

/// A proxy of an object in a manager that is played.
fn proxy(there: &ManagerHandle, manager: &ServedConnection) -> HoardProxy {
    thread::scope(|scope| {
        let makes = scope.spawn(|| HoardProxy::new(there).unwrap());
        let Ok(ClientRequest::Call { call, .. }) = manager.recv() else { panic!("no call") };
        manager.send(answer(call, 7, &MADE)).unwrap();
        makes.join().unwrap()
    })
}

#[test]
fn late_calls_wait_for_no_manager_that_does_not_read() {
    let (there, manager) = played(small());
    let hoard = proxy(&there, &manager);
    let (done, is_done) = mpsc::channel();
    // Not joined: a call that waits for ever is what must not be.
    thread::spawn(move || {
        let hasty = hoard.with_timeout(Duration::from_millis(2));
        let (mut sent, mut unsent) = (0, 0);
        while unsent < 20 {
            let error = hasty.length(&[1; 3000]).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::Elapsed, "{error}");
            match error.execution() {
                Execution::NotStarted => unsent += 1,
                _ => sent += 1,
            }
        }
        done.send((sent, hoard)).unwrap();
    });
    let (sent, hoard) = is_done.recv_timeout(PATIENCE).expect("a call waits for the manager");
    // Once it reads, it hears of each call that is not waited for.
    let (mut calls, mut cancelled) = (HashSet::new(), HashSet::new());
    while calls.len() < sent || cancelled.len() < sent {
        match manager.recv_timeout(PATIENCE).expect("a request that was made") {
            ClientRequest::Call { call, .. } => assert!(calls.insert(call)),
            ClientRequest::Cancel { call, .. } => assert!(calls.contains(&call) && cancelled.insert(call)),
            other => panic!("{other:?}"),
        }
    }
    drop(hoard);
    assert_eq!(releases(&manager), [7]);
}

/// The objects that are let go of next.
fn releases(manager: &ServedConnection) -> Vec<u64> {
    match manager.recv_timeout(PATIENCE) {
        Ok(ClientRequest::ReleaseMany { objects, .. }) => objects,
        other => panic!("{other:?}"),
    }
}

#[test]
fn releases_are_gathered_until_the_manager_has_taken_some() {
    let (there, manager) = played(small());
    let client = there.route().client().unwrap();
    client.release(1);
    assert_eq!(releases(&manager), [1]);
    (2..100).for_each(|object| client.release(object));
    assert!(matches!(manager.recv_timeout(Duration::from_millis(30)), Err(RecvTimeoutError::Timeout)));
    // Before a call of this process, whether the manager has said that or not.
    let hoard = proxy_behind(&there, &manager, &(2..100).collect::<Vec<_>>());
    (100..9000).for_each(|object| client.release(object));
    let mut came = Vec::new();
    while came.len() < 8900 {
        manager.send(answer(NO_CALL, 0, &CallPayload::default())).unwrap();
        let more = releases(&manager);
        assert!(more.len() > 1, "one message for each");
        came.extend(more);
    }
    assert!(came.into_iter().eq(100..9000));
    drop(hoard);
}

/// As [`proxy`], where these objects are let go of before the call.
fn proxy_behind(there: &ManagerHandle, manager: &ServedConnection, released: &[u64]) -> HoardProxy {
    thread::scope(|scope| {
        let makes = scope.spawn(|| HoardProxy::new(there).unwrap());
        assert_eq!(releases(manager), released);
        let Ok(ClientRequest::Call { call, .. }) = manager.recv() else { panic!("no call") };
        manager.send(answer(call, 7, &MADE)).unwrap();
        makes.join().unwrap()
    })
}

#[test]
fn handle_is_dropped_beside_a_manager_that_does_not_read() {
    let (there, manager) = played(small());
    let hoard = proxy(&there, &manager);
    while hoard.with_timeout(Duration::from_millis(2)).length(&[1; 3000]).unwrap_err().execution()
        != Execution::NotStarted
    {}
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        drop((hoard, there));
        done.send(()).unwrap();
    });
    is_done.recv_timeout(PATIENCE).expect("the drop waits for the manager");
}

#[test]
fn answer_that_cannot_be_read_ends_the_connection() {
    let (there, manager) = played(ConnectionLimits { message_bytes: 100, ..small() });
    let hoard = proxy(&there, &manager);
    let too_long = CallPayload::new(&vec![0; 200_000], &Handles::default());
    manager.send(answer(5, 0, &too_long)).unwrap();
    let error = hoard.length(&[]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error}");
    let end = Instant::now() + PATIENCE;
    // The manager is told, so that what this client holds does not stay.
    while !matches!(manager.recv_timeout(Duration::from_millis(10)), Err(RecvTimeoutError::Disconnected)) {
        assert!(Instant::now() < end, "the connection stays open");
    }
}

#[test]
fn threads_together_keep_to_the_bound_of_calls() {
    const MOST: usize = 3;
    let (there, manager) = played(ConnectionLimits { calls: MOST, ..small() });
    let hoard = proxy(&there, &manager);
    for _ in 0..40 {
        let barrier = Barrier::new(12);
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    barrier.wait();
                    drop(hoard.later().length(&[]));
                });
            }
            let (mut unanswered, mut left) = (HashSet::new(), 12);
            while left > 0 {
                // What is there is there without an answer.
                let pause = Duration::from_millis(if unanswered.len() < MOST.min(left) { 1000 } else { 3 });
                if let Ok(ClientRequest::Call { call, .. }) = manager.recv_timeout(pause) {
                    unanswered.insert(call);
                    assert!(unanswered.len() <= MOST, "{} calls at once", unanswered.len());
                    continue;
                }
                for call in unanswered.drain() {
                    left -= 1;
                    manager.send(answer(call, 0, &MADE)).unwrap();
                }
            }
        });
    }
}
