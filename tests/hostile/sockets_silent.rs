//! What strangers can do by silence, haste, or another language, to those that shake hands over a network: nothing but end it.
//!
//! Runs in: the test process, over its own loopback. Never: waits for time where there is a condition.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::noise_peer::{
    CONNECTS, CONNECTS_TOO, ENDED, HELLO, LATE, LISTENS, LISTENS_TOO, OTHER_PROTOCOL, OTHER_VERSION, PROOF, Port,
    Staged, hello, is_ended, is_open, let_them_meet, listener, noise, refused, reset, staged, stream, take,
};
use crate::support::{PATIENCE, promise};
use process_task::channel::{Connection, Key, RecvError, connect_tcp, connect_tcp_timeout, wait_readable};
use process_task::{ErrorKind, Result};

macro_rules! promises {
    ($($name:ident),+ $(,)?) => {
        mod promises { $(#[test] fn $name() { super::promise(super::$name) })+ }
    };
}

promises! {
    a_handshake_that_is_cut_or_reset_anywhere_fails,
    other_versions_roles_and_protocols_are_told_apart_at_once,
    silent_peer_blocks_no_accept_and_is_refused_in_time,
    a_byte_now_and_then_does_not_buy_time,
    a_listener_that_says_nothing_is_given_up,
    a_crowd_of_silent_peers_makes_room,
}

type End = Connection<String, String>;

fn a_handshake_that_is_cut_or_reset_anywhere_fails() {
    let (listener, key, _) = listener();
    let end = |stream: TcpStream, hard: bool| if hard { reset(stream) } else { drop(stream) };
    for hard in [false, true] {
        for upto in [0, 1, 15, 16, 47, HELLO - 1, HELLO] {
            let Staged { client, server, .. } = staged(&listener, &key, |mut client, mut server| {
                let first = take(&mut client, HELLO);
                server.write_all(&first[..upto]).unwrap();
                end(server, hard);
                end(client, hard);
            });
            assert_eq!((refused(client), refused(server)), (ENDED.to_owned(), ENDED.to_owned()), "{upto} {hard}");
            let Staged { client, server, .. } = staged(&listener, &key, |mut client, mut server| {
                server.write_all(&take(&mut client, HELLO)).unwrap();
                let second = take(&mut server, HELLO);
                client.write_all(&second[..upto.min(HELLO - 1)]).unwrap();
                end(client, hard);
                end(server, hard);
            });
            assert_eq!((refused(client), refused(server)), (ENDED.to_owned(), ENDED.to_owned()), "{upto} {hard}");
        }
        for upto in [0, 1, 2, 3, PROOF - 1] {
            let Staged { client, server, .. } = staged(&listener, &key, |mut client, mut server| {
                server.write_all(&take(&mut client, HELLO)).unwrap();
                client.write_all(&take(&mut server, HELLO)).unwrap();
                let third = take(&mut client, PROOF);
                server.write_all(&third[..upto]).unwrap();
                end(server, hard);
                end(client, hard);
            });
            assert_eq!(refused(server), ENDED, "{upto} {hard}");
            assert!(matches!(client.unwrap().recv(), Err(RecvError::Failed(_))), "{upto} {hard}");
        }
    }
    // It says all that it has to say, and no more can be said to it: that is fine.
    let Staged { client, server, .. } = staged(&listener, &key, |mut client, mut server| {
        let_them_meet(&mut client, &mut server);
        server.shutdown(Shutdown::Write).unwrap();
    });
    let (client, server) = (client.unwrap(), server.unwrap());
    assert!(matches!((client.recv(), server.recv()), (Err(RecvError::Failed(_)), Err(RecvError::Failed(_)))));
    is_open(&listener, &key);
}

fn other_versions_roles_and_protocols_are_told_apart_at_once() {
    let (listener, key, address) = listener();
    for (said, reason) in [
        // Each waits for an answer, and has not said as much as a handshake has.
        (&b"GET / HTTP/1.1\r\n\r\n"[..], OTHER_PROTOCOL),
        (b"\x16\x03\x01\x02\x00\x01\x00", OTHER_PROTOCOL),
        (b"SSH-2.0-x\r\n", OTHER_PROTOCOL),
        (b"\0", OTHER_PROTOCOL),
        (b"process-task 0 c", OTHER_VERSION),
        (b"process-task 2", OTHER_VERSION),
        (LISTENS, LISTENS_TOO),
        (&[b'p'; 5000], OTHER_PROTOCOL),
        (&vec![0xff; 1 << 20], OTHER_PROTOCOL),
    ] {
        let mut stranger = stream(address);
        // It may be thrown out while it speaks.
        let _ = stranger.write_all(said);
        assert_eq!(refused(listener.accept::<u32, u32>()), reason);
        assert!(is_ended(&mut stranger));
        let port = Port::new();
        let at = port.address();
        let reason = if reason == LISTENS_TOO { CONNECTS_TOO } else { reason };
        let said = if said == LISTENS { CONNECTS } else { said };
        thread::scope(|scope| {
            let client = scope.spawn(|| -> Result<End> { connect_tcp(at, &key) });
            let mut server = port.accept();
            let _ = server.write_all(said);
            assert_eq!(refused(client.join().unwrap()), reason);
        });
    }
    is_open(&listener, &key);
}

fn silent_peer_blocks_no_accept_and_is_refused_in_time() {
    let limit = Duration::from_millis(400);
    let (listener, key, address) = listener();
    let listener = listener.handshake_timeout(limit);
    let begun = Instant::now();
    let mut silent = [stream(address), stream(address)];
    silent[1].write_all(b"process-task 1").unwrap();
    thread::scope(|scope| {
        let client = scope.spawn(|| -> Result<End> { connect_tcp(address, &key) });
        let server: End = listener.accept().expect("the first that has shown its key, and not the first that came");
        server.send("hello".to_owned()).unwrap();
        assert_eq!(client.join().unwrap().unwrap().recv().unwrap(), "hello");
    });
    // Also for those that only look at the descriptor, which tells when the time is over.
    for silent in &mut silent {
        let reason = loop {
            assert_eq!(wait_readable(&[&listener], Some(PATIENCE)).unwrap(), [0]);
            match listener.try_accept::<u32, u32>() {
                Err(error) if *error.kind() == ErrorKind::Empty => {}
                other => break refused(other),
            }
        };
        assert_eq!(reason, LATE);
        assert!(begun.elapsed() >= limit && is_ended(silent));
    }
    assert_eq!(wait_readable(&[&listener], Some(Duration::ZERO)).unwrap(), [0; 0]);
}

fn a_byte_now_and_then_does_not_buy_time() {
    let limit = Duration::from_millis(300);
    let (listener, key, address) = listener();
    let listener = listener.handshake_timeout(limit);
    let mut client = noise(&key, &[*CONNECTS, *LISTENS].concat(), true);
    let first = hello(&mut client, CONNECTS);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut slow = stream(address);
            // All of it would take three times as long as it may.
            for byte in &first {
                if slow.write_all(&[*byte]).is_err() {
                    return;
                }
                thread::sleep(3 * limit / 64);
            }
        });
        let begun = Instant::now();
        assert_eq!(refused(listener.accept::<u32, u32>()), LATE);
        assert!(begun.elapsed() >= limit / 2);
    });
    // The other way round.
    let port = Port::new();
    let at = port.address();
    thread::scope(|scope| {
        let client = scope.spawn(|| -> Result<End> { connect_tcp_timeout(at, &key, limit) });
        let mut server = port.accept();
        for byte in LISTENS {
            if server.write_all(&[*byte]).is_err() {
                break;
            }
            thread::sleep(limit / 10);
        }
        assert_eq!(refused(client.join().unwrap()), LATE);
    });
    is_open(&listener, &key);
}

fn a_listener_that_says_nothing_is_given_up() {
    let (port, key) = (Port::new(), Key::random().unwrap());
    let (limit, begun) = (Duration::from_millis(200), Instant::now());
    // Nothing even accepts.
    assert_eq!(refused(connect_tcp_timeout::<u32, u32>(port.address(), &key, limit)), LATE);
    assert!(begun.elapsed() >= limit);
}

fn a_crowd_of_silent_peers_makes_room() {
    const MOST: usize = 4;
    let (listener, key, address) = listener();
    let listener = listener.max_handshakes(MOST);
    let mut crowd: Vec<_> = (0..MOST).map(|_| stream(address)).collect();
    // There is room for them, for as long as their time is not over.
    assert_eq!(*listener.try_accept::<u32, u32>().unwrap_err().kind(), ErrorKind::Empty);
    let crowded_out = "the peer said nothing until others took its place; `max_handshakes` of the listener allows more";
    for more in 1..=20 {
        let one_more = stream(address);
        assert_eq!(refused(listener.accept::<u32, u32>()), crowded_out, "{more}");
        // The one that came first.
        assert!(is_ended(&mut crowd.remove(0)));
        crowd.push(one_more);
    }
    for stranger in &crowd {
        stranger.set_nonblocking(true).unwrap();
        let still_there = stranger.peek(&mut [0; 1]).unwrap_err();
        assert_eq!(still_there.kind(), std::io::ErrorKind::WouldBlock);
    }
    is_open(&listener, &key);
}
