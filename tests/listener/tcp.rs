//! What connections between machines promise: the same as a pipe's, but that an end which was not said is none.
//!
//! Runs in: the test process, over its own loopback; some of the other ends are in children. Never: waits for time where
//! there is a condition.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::executor::block_on;
use crate::support::fork_copy;
use crate::support::listener_pair::{FAMILIES, Family, Meeting, Place, pair};
use crate::support::signal_storm;
use crate::support::{self, PATIENCE, eventually, promise, rounds};
use nix::errno::Errno;
use process_task::channel::{
    Connection, Key, Listener, RecvError, RecvTimeoutError, Sender, TryRecvError, connect_tcp, connect_unix, one_way,
    wait_readable,
};
use process_task::{Error, ErrorKind, process_task};

macro_rules! promises {
    ($($name:ident),+ $(,)?) => {
        mod promises { $(#[test] fn $name() { super::promise(super::$name) })+ }
    };
}

promises! {
    messages_of_every_length_arrive_whole,
    a_message_is_there_until_it_is_received,
    many_threads_send_through_keys_that_are_replaced,
    what_was_given_back_never_arrives_and_all_else_does,
    sender_hears_that_the_peer_is_gone,
    a_drop_says_that_it_was_the_end_however_full_the_way_is,
    what_was_sent_arrives_although_the_other_side_still_sends,
    both_may_drop_at_once,
    a_killed_process_is_cut_off_after_all_that_it_sent,
    a_process_that_ends_without_a_drop_is_cut_off,
    a_message_of_another_type_costs_itself_only,
    a_future_gets_the_next_message,
    signals_end_nothing,
    a_copy_of_a_process_has_no_part_in_its_connections,
}

/// What a frame holds of a message.
const FRAME: usize = 65_518;

/// What a vector of bytes has in front of them.
const HEAD: usize = 16;

/// So many, which differ by `seed` and from place to place.
fn bytes(len: usize, seed: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=250).map(|at| u8::try_from((at * 31 + seed * 7) % 256).unwrap()).take(len).collect();
    bytes.resize(len, 0);
    for at in (251..len).step_by(251) {
        bytes[at] = u8::try_from(at / 251 % 256).unwrap();
    }
    bytes
}

/// The failure that says that a stream ended too early.
fn is_cut_off(error: &RecvError) -> bool {
    error.failure().is_some_and(|error| error.to_string().contains("cut off before the other side closed it"))
}

fn messages_of_every_length_arrive_whole() {
    let (one, other) = pair::<Vec<u8>, Vec<u8>>(Family::Tcp);
    let around = |len: usize| [len - 1, len, len + 1];
    let lengths: Vec<_> = [0, 1, 2, 15, 16, 17, 4096]
        .into_iter()
        .chain(around(FRAME - HEAD))
        .chain(around(2 * FRAME - HEAD))
        .chain([1 << 20, 5_000_000])
        .collect();
    thread::scope(|scope| {
        // Each way at the same time: neither waits for the other.
        for (from, to) in [(&one, &other), (&other, &one)] {
            let lengths = &lengths;
            scope.spawn(move || lengths.iter().for_each(|len| from.send(bytes(*len, *len)).unwrap()));
            scope.spawn(move || {
                for len in lengths {
                    assert!(to.recv().unwrap() == bytes(*len, *len), "{len}");
                }
            });
        }
    });
}

fn a_message_is_there_until_it_is_received() {
    let (one, other) = pair::<Vec<u8>, Vec<u8>>(Family::Tcp);
    assert!(!other.is_ready_timeout(Duration::ZERO).unwrap());
    let (limit, begun) = (Duration::from_millis(30), Instant::now());
    assert_eq!(other.recv_timeout(limit), Err(RecvTimeoutError::Timeout));
    assert!(begun.elapsed() >= limit && !other.is_ready_timeout(limit).unwrap() && begun.elapsed() >= 2 * limit);
    assert_eq!(other.try_recv(), Err(TryRecvError::Empty));
    for message in [vec![], b"a".to_vec(), vec![], bytes(3 * FRAME, 1)] {
        one.send(message.clone()).unwrap();
        for _ in 0..3 {
            assert!(other.is_ready_timeout(PATIENCE).unwrap());
            // Also for those that only look at the descriptor: it was taken from the socket, and is not given out.
            assert_eq!(wait_readable(&[&other], Some(PATIENCE)).unwrap(), [0]);
        }
        assert!(other.try_recv().unwrap() == message);
        assert_eq!((other.is_ready_timeout(Duration::ZERO), other.try_recv()), (Ok(false), Err(TryRecvError::Empty)));
        assert_eq!(wait_readable(&[&other], Some(Duration::ZERO)).unwrap(), [0; 0]);
    }
    drop(one);
    for _ in 0..3 {
        assert!(other.is_ready_timeout(PATIENCE).unwrap());
        assert_eq!(wait_readable(&[&other], Some(PATIENCE)).unwrap(), [0]);
        assert_eq!(other.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(other.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    }
    assert_eq!(other.iter().count(), 0);
}

fn many_threads_send_through_keys_that_are_replaced() {
    // More than twice as many frames as a key is used for, each way.
    const EACH: usize = 3000;
    let (one, other) = pair::<(usize, usize), (usize, usize)>(Family::Tcp);
    thread::scope(|scope| {
        for (from, to) in [(&one, &other), (&other, &one)] {
            for thread in 0..3 {
                scope.spawn(move || (0..EACH).for_each(|number| from.send((thread, number)).unwrap()));
            }
            scope.spawn(move || {
                let mut next = [0; 3];
                for _ in 0..3 * EACH {
                    let (thread, number) = to.recv().unwrap();
                    assert_eq!(number, next[thread]);
                    next[thread] += 1;
                }
                assert_eq!(next, [EACH; 3]);
            });
        }
    });
}

fn what_was_given_back_never_arrives_and_all_else_does() {
    let lengths = [10, FRAME, 5 * FRAME, 300, 20 * FRAME, 0, FRAME - HEAD - 8, 2 * FRAME];
    for patience in [None, Some(Duration::from_micros(300)), Some(Duration::from_millis(5))] {
        let (one, other) = pair::<Vec<u8>, ()>(Family::Tcp);
        let numbered =
            |number: usize| [&number.to_ne_bytes()[..], &bytes(lengths[number % lengths.len()], number)].concat();
        let number_of = |message: Vec<u8>| {
            let number = usize::from_ne_bytes(*message.first_chunk().unwrap());
            assert!(message == numbered(number), "{number} is torn");
            number
        };
        let (mut next, mut sent, mut received) = (0, Vec::new(), Vec::new());
        for round in 0..rounds(6) {
            // The way is full, so that some messages leave in part before they are given back.
            let mut given_back = 0;
            while given_back < 5 {
                let result = match patience {
                    None => one.try_send(numbered(next)).map_err(|error| (error.is_full(), error.into_inner())),
                    Some(limit) => {
                        let sent = one.send_timeout(numbered(next), limit);
                        sent.map_err(|error| (error.is_timeout(), error.into_inner()))
                    }
                };
                match result {
                    Ok(()) => sent.push(next),
                    Err((is_over, message)) => {
                        assert!(is_over);
                        assert_eq!(number_of(message), next);
                        given_back += 1;
                    }
                }
                next += 1;
            }
            // All of it, or only so much that there is a little room.
            let outstanding = sent.len() - received.len();
            for _ in 0..outstanding.min([3, 20, usize::MAX][round % 3]) {
                received.push(number_of(other.recv().unwrap()));
            }
        }
        drop(one);
        received.extend(other.iter().map(|message| number_of(message.unwrap())));
        assert_eq!((received, other.recv().unwrap_err()), (sent, RecvError::Disconnected), "{patience:?}");
    }
}

fn sender_hears_that_the_peer_is_gone() {
    let meeting = Meeting::new(Family::Tcp);
    let port = format!(":{:04X}", meeting.listener.local_addr().unwrap().port());
    let (one, other) = meeting.pair::<u32, u32>();
    // Which is not read.
    other.send(1).unwrap();
    drop(other);
    eventually("the kernel has heard the end", PATIENCE, || {
        // An end whose other one is closed is in state 08.
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| row[3] == "08" && row[2].ends_with(&port))
    });
    // The first already, which the kernel would have taken.
    assert!(one.send(7).unwrap_err().is_disconnected());
    assert_eq!((one.recv(), one.recv()), (Ok(1), Err(RecvError::Disconnected)));
}

fn block(number: usize) -> Vec<u8> {
    [vec![0; 20_000], number.to_ne_bytes().to_vec()].concat()
}

/// Sends until there is no room, or no peer.
fn fill(end: &Connection<Vec<u8>, Vec<u8>>) -> usize {
    (0..1000).take_while(|number| end.try_send(block(*number)).is_ok()).count()
}

/// Receives so many of those, and then the end.
fn empty(end: &Connection<Vec<u8>, Vec<u8>>, count: usize) {
    for number in 0..count {
        assert!(end.recv().unwrap() == block(number), "{number} of {count}");
    }
    assert_eq!(end.recv(), Err(RecvError::Disconnected), "after {count}");
}

fn a_drop_says_that_it_was_the_end_however_full_the_way_is() {
    let (one, other) = pair(Family::Tcp);
    let count = fill(&one);
    assert!(count > 10);
    drop(one);
    empty(&other, count);
}

fn what_was_sent_arrives_although_the_other_side_still_sends() {
    let (one, other) = pair(Family::Tcp);
    let (there, back) = (fill(&one), fill(&other));
    assert!(there > 10 && back > 10);
    // With messages before it that no process will read.
    drop(one);
    // It may or may not be known here already, and in the end it is.
    eventually("the other end is gone", PATIENCE, || {
        matches!(other.try_send(Vec::new()), Err(error) if error.is_disconnected())
            || other.is_ready_timeout(Duration::ZERO).unwrap()
    });
    empty(&other, there);
    assert!(other.send(Vec::new()).unwrap_err().is_disconnected());
}

fn both_may_drop_at_once() {
    for _ in 0..rounds(2) {
        let (one, other) = pair::<Vec<u8>, Vec<u8>>(Family::Tcp);
        thread::scope(|scope| {
            scope.spawn(move || fill(&one));
            scope.spawn(move || fill(&other));
        });
    }
}

#[process_task]
fn say_three_and_wait(address: String, secret: Vec<u8>, said: Sender<()>) {
    let end = connect_tcp::<u32, u32>(address, &Key::new(secret).unwrap()).unwrap();
    (1..=3).for_each(|number| end.send(number).unwrap());
    said.send(()).unwrap();
    let _ = end.recv();
}

/// A child at the other end, which has said three things.
fn child(meeting: &Meeting) -> (process_task::Process<()>, Connection<u32, u32>) {
    let Place::Port(address, key) = &meeting.place else { unreachable!() };
    let (said, has_said) = one_way().unwrap();
    let child = say_three_and_wait.spawn(address.to_string(), key.secret().to_vec(), said);
    let end = meeting.listener.accept().unwrap();
    has_said.recv().unwrap();
    (child, end)
}

fn a_killed_process_is_cut_off_after_all_that_it_sent() {
    let meeting = Meeting::new(Family::Tcp);
    let (victim, end) = child(&meeting);
    victim.kill().unwrap();
    assert!(victim.join().is_err());
    let heard: Vec<_> = (0..3).map(|_| end.recv().unwrap()).collect();
    assert_eq!(heard, [1, 2, 3]);
    for _ in 0..2 {
        let error = end.recv().unwrap_err();
        assert!(is_cut_off(&error), "{error:?}");
    }
    let sentence = "cannot use the channel: receive a message (the stream was cut off before the other side closed it; \
                    connect again): Connection reset by peer";
    assert_eq!(end.recv().unwrap_err().to_string(), sentence);
    assert_eq!(end.iter().map(|message| message.is_err()).take(2).collect::<Vec<_>>(), [true], "a loop ends");
    assert!(end.send(7).unwrap_err().is_disconnected());
    // The same process, over a pipe's transport, would just be gone; one that was asked to end says so itself.
    let (child, end) = child(&meeting);
    end.send(0).unwrap();
    child.join().unwrap();
    let heard: Vec<_> = end.iter().map(Result::unwrap).collect();
    assert_eq!((heard, end.recv()), (vec![1, 2, 3], Err(RecvError::Disconnected)));
}

#[expect(clippy::exit, reason = "this is how a process ends without a drop")]
#[process_task]
fn say_and_exit(address: String, secret: Vec<u8>) {
    let end = connect_tcp::<u32, u32>(address, &Key::new(secret).unwrap()).unwrap();
    end.send(1).unwrap();
    std::process::exit(0);
}

fn a_process_that_ends_without_a_drop_is_cut_off() {
    let meeting = Meeting::new(Family::Tcp);
    let Place::Port(address, key) = &meeting.place else { unreachable!() };
    let child = say_and_exit.spawn(address.to_string(), key.secret().to_vec());
    let end = meeting.listener.accept::<u32, u32>().unwrap();
    assert!(child.join().is_err());
    assert_eq!(end.recv(), Ok(1));
    let error = end.recv().unwrap_err();
    assert!(is_cut_off(&error), "{error:?}");
}

fn a_message_of_another_type_costs_itself_only() {
    for family in FAMILIES {
        let meeting = Meeting::new(family);
        let (client, server) = thread::scope(|scope| {
            let client = scope.spawn(|| meeting.place.connect::<(u64, Vec<u8>), ()>().unwrap());
            let server: Connection<(), String> = meeting.listener.accept().unwrap();
            (client.join().unwrap(), server)
        });
        // Its first eight bytes are no length that a string of what follows can have.
        client.send((1 << 60, Vec::new())).unwrap();
        client.send((0, Vec::new())).unwrap();
        for _ in 0..2 {
            let error = server.recv().unwrap_err();
            assert!(
                matches!(error.failure().map(Error::kind), Some(ErrorKind::CannotDecode { .. })),
                "{family:?}: {error:?}"
            );
        }
        drop(client);
        assert_eq!(server.recv(), Err(RecvError::Disconnected), "{family:?}");
    }
}

fn a_future_gets_the_next_message() {
    let (one, other) = pair::<Vec<u8>, ()>(Family::Tcp);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| block_on(async { (other.recv_async().await, other.recv_async().await) }));
        // In parts, which wake it for nothing.
        one.send(bytes(50 * FRAME, 1)).unwrap();
        one.send(vec![7]).unwrap();
        assert!(waiting.join().unwrap() == (Ok(bytes(50 * FRAME, 1)), Ok(vec![7])));
    });
    drop(one);
    assert_eq!(block_on(other.recv_async()), Err(RecvError::Disconnected));
}

#[process_task]
fn serve_in_a_storm(path: Option<String>, secret: Vec<u8>, address: Sender<String>) -> usize {
    signal_storm::storm();
    let listener = match &path {
        Some(path) => Listener::unix(path).unwrap(),
        None => Listener::tcp("127.0.0.1:0", Key::new(secret).unwrap()).unwrap(),
    };
    address.send(listener.to_string()).unwrap();
    let mut served = 0;
    for _ in 0..3 {
        let guest = listener.accept::<Vec<u8>, Vec<u8>>().unwrap();
        served += guest.iter().map(|message| guest.send(message.unwrap()).unwrap()).count();
    }
    assert!(signal_storm::HANDLED.load(Relaxed) > 100);
    served
}

fn signals_end_nothing() {
    for family in FAMILIES {
        let (scratch, key) = (support::scratch::Scratch::new(), Key::random().unwrap());
        let path = (family == Family::Unix).then(|| scratch.path().join("ours/socket").to_str().unwrap().to_owned());
        let (address, its_address) = one_way().unwrap();
        let server = serve_in_a_storm.spawn(path, key.secret().to_vec(), address);
        let place = its_address.recv().unwrap();
        for _ in 0..3 {
            // Nothing hurries: most of the signals come while it waits for a peer, or for something.
            thread::sleep(Duration::from_millis(20));
            let client: Connection<Vec<u8>, Vec<u8>> = match family {
                Family::Unix => connect_unix(&place).unwrap(),
                Family::Tcp => connect_tcp(&*place, &key).unwrap(),
            };
            for len in [0, 100, 200_000] {
                client.send(bytes(len, 1)).unwrap();
                assert!(client.recv().unwrap() == bytes(len, 1), "{family:?}");
            }
        }
        assert_eq!(server.join().unwrap(), 9, "{family:?}");
    }
}

#[process_task]
fn copied(address: String, secret: Vec<u8>) {
    let end = connect_tcp::<u32, u32>(address, &Key::new(secret).unwrap()).unwrap();
    end.send(1).unwrap();
    let mut end = Some(end);
    fork_copy::in_a_copy(|| {
        let copy = end.take().unwrap();
        let refused = |error: Option<&Error>| {
            let Some(ErrorKind::ChannelFailed { step, errno, .. }) = error.map(Error::kind) else { return false };
            step.contains("this one is a copy") && *errno == Errno::EPERM as i32
        };
        // The same keys with the same numbers would give both messages away.
        assert!(refused(copy.send(666).unwrap_err().failure()));
        assert!(refused(copy.try_recv().unwrap_err().failure()));
        // A look would take what is the original's.
        let looked = copy.is_ready_timeout(PATIENCE).unwrap_err();
        assert!(matches!(looked.kind(), ErrorKind::ChannelFailed { errno, .. } if *errno == Errno::EPERM as i32));
        drop(copy);
    });
    let end = end.unwrap();
    assert_eq!(end.recv(), Ok(2));
    end.send(3).unwrap();
}

fn a_copy_of_a_process_has_no_part_in_its_connections() {
    let meeting = Meeting::new(Family::Tcp);
    let Place::Port(address, key) = &meeting.place else { unreachable!() };
    let child = copied.spawn(address.to_string(), key.secret().to_vec());
    let end = meeting.listener.accept::<u32, u32>().unwrap();
    assert_eq!(end.recv(), Ok(1));
    end.send(2).unwrap();
    assert_eq!((end.recv(), end.recv()), (Ok(3), Err(RecvError::Disconnected)));
    child.join().unwrap();
}
