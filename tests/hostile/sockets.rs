//! What strangers can do to those that shake hands over a network: nothing but end it.
//!
//! Runs in: the test process, over its own loopback; no stranger here has the key, unless it says so. Never: waits for time
//! where there is a condition.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::support::noise_peer::{
    self, CONNECTS, CONNECTS_TOO, ENDED, HELLO, LATE, LISTENS, LISTENS_TOO, OTHER_PROTOCOL, OTHER_VERSION, PROOF, Peer,
    Port, Staged, WRONG_KEY, hello, is_ended, is_open, let_them_meet, listener, noise, refused, staged, stream, take,
};
use crate::support::{promise, rounds};
use process_task::Result;
use process_task::channel::{Connection, Key, Listener, RecvError, connect_tcp};

macro_rules! promises {
    ($($name:ident),+ $(,)?) => {
        mod promises { $(#[test] fn $name() { super::promise(super::$name) })+ }
    };
}

promises! {
    empty_short_or_wrong_key_is_refused,
    documented_handshake_is_accepted,
    what_each_side_says_tells_its_role_and_never_comes_again,
    a_recorded_handshake_that_is_replayed_fails,
    a_client_that_hears_itself_fails,
    a_listener_that_hears_itself_fails,
    two_clients_that_are_joined_fail,
    two_listeners_that_are_joined_fail,
    a_relay_that_changes_a_bit_anywhere_fails,
}

type End = Connection<String, String>;

fn empty_short_or_wrong_key_is_refused() {
    for short in [&b""[..], b"secret", &[7; 31]] {
        let error = Key::new(short).unwrap_err().to_string();
        assert!(error.contains("a key must have at least 32 random bytes") && !error.contains("secret"), "{error}");
    }
    let (listener, key, address) = listener();
    // Its beginning is the same, it is the same and longer, or it is any.
    let first = [&key.secret()[..31], &[key.secret()[31] ^ 1]].concat();
    let longer = [key.secret(), &[0]].concat();
    for other in [&first[..], &longer, &[0; 32]] {
        let other = Key::new(other).unwrap();
        thread::scope(|scope| {
            let client = scope.spawn(|| -> Result<End> { connect_tcp(address, &other) });
            assert_eq!(refused(listener.accept::<u32, u32>()), WRONG_KEY);
            assert_eq!(refused(client.join().unwrap()), ENDED);
        });
    }
    // A listener with another key cannot make itself believed.
    let (other, _, _) = noise_peer::listener();
    let Staged { client, server, .. } = staged(&other, &key, |mut client, mut server| {
        server.write_all(&take(&mut client, HELLO)).unwrap();
        assert!(is_ended(&mut server));
    });
    assert_eq!((refused(client), refused(server)), (ENDED.to_owned(), WRONG_KEY.to_owned()));
    is_open(&listener, &key);
}

fn documented_handshake_is_accepted() {
    let (listener, key, address) = listener();
    // The prologue, of which no byte is sent, names the protocol, its version, and which side has which role.
    let both = [*CONNECTS, *LISTENS].concat();
    let older = [*b"process-task 0 c", *b"process-task 0 l"].concat();
    let no_roles = [*b"process-task 1  ", *b"process-task 1  "].concat();
    let turned_around = [*LISTENS, *CONNECTS].concat();
    let longer = [&both[..], b" "].concat();
    thread::scope(|scope| {
        let peer = scope.spawn(|| Peer::connect(address, &key));
        listener.accept::<u32, u32>().unwrap();
        peer.join().unwrap();
        for prologue in [&b""[..], &older, &no_roles, &turned_around, &both[..16], &longer] {
            let peer = scope.spawn(|| Peer::connect_as(address, &key, CONNECTS, prologue).is_some());
            assert_eq!(refused(listener.accept::<u32, u32>()), WRONG_KEY);
            assert!(!peer.join().unwrap());
        }
        // As the one that listens.
        let port = Port::new();
        let at = port.address();
        let key = &key;
        let client = scope.spawn(move || -> Result<End> { connect_tcp(at, key) });
        let mut peer = Peer::answer(port.accept(), key);
        let client = client.join().unwrap().unwrap();
        client.send("hello".to_owned()).unwrap();
        let (kind, message) = peer.hear();
        assert!(kind == noise_peer::LAST && message.ends_with(b"hello"));
    });
}

fn what_each_side_says_tells_its_role_and_never_comes_again() {
    let (listener, key, _) = listener();
    let (mut heads, mut tails) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..3 {
        let Staged { client, server, middle } = staged(&listener, &key, |mut client, mut server| {
            let said = let_them_meet(&mut client, &mut server);
            (said, client, server)
        });
        let ([first, second, third], mut to_client, mut to_server) = middle;
        assert!(first.starts_with(CONNECTS) && second.starts_with(LISTENS) && third.starts_with(&[0, 17]));
        assert_eq!((first.len(), second.len(), third.len()), (HELLO, HELLO, PROOF));
        for message in [first, second] {
            heads.insert(message[..16].to_vec());
            assert!(tails.insert(message[16..].to_vec()), "a number was used twice");
        }
        assert!(tails.insert(third));
        // The same words from both sides, again and again: never the same bytes, and none of them to be read.
        let mut pass_on = |from: &mut TcpStream, to: &mut TcpStream, end: &End| {
            for _ in 0..3 {
                end.send("a word for the peer alone".to_owned()).unwrap();
                let sealed = noise_peer::frame(from);
                assert!(!sealed.windows(4).any(|part| part == b"word"));
                to.write_all(&sealed).unwrap();
                assert!(tails.insert(sealed));
            }
        };
        pass_on(&mut to_client, &mut to_server, client.as_ref().unwrap());
        pass_on(&mut to_server, &mut to_client, server.as_ref().unwrap());
        let hear = |end: &End| (0..3).all(|_| end.recv().unwrap() == "a word for the peer alone");
        assert!(
            hear(&client.unwrap()) && hear(&server.unwrap()),
            "a relay that passes on what is said changes nothing"
        );
    }
    assert_eq!(heads.len(), 2, "the words of the two roles differ, and are the same each time");
}

fn a_recorded_handshake_that_is_replayed_fails() {
    let (listener, key, address) = listener();
    // A relay on the wire has everything that a client said, and what it sent then.
    let Staged { client, server, middle } = staged(&listener, &key, |mut client, mut server| {
        let said = let_them_meet(&mut client, &mut server);
        (said, client, server)
    });
    let ([first, second, third], mut to_client, mut to_server) = middle;
    let (client, server) = (client.unwrap(), server.unwrap());
    client.send("pay".to_owned()).unwrap();
    let order = noise_peer::frame(&mut to_client);
    to_server.write_all(&order).unwrap();
    assert_eq!(server.recv().unwrap(), "pay");

    for _ in 0..2 {
        let mut replay = stream(address);
        replay.write_all(&first).unwrap();
        thread::scope(|scope| {
            let accepted = scope.spawn(|| listener.accept::<String, String>());
            let answer = take(&mut replay, HELLO);
            assert!(answer.starts_with(LISTENS) && answer != second);
            replay.write_all(&[&third[..], &order].concat()).unwrap();
            assert_eq!(refused(accepted.join().unwrap()), WRONG_KEY);
            assert!(is_ended(&mut replay));
        });
    }
    // To a client: the answer was made for another number.
    let port = Port::new();
    let at = port.address();
    thread::scope(|scope| {
        let client = scope.spawn(|| -> Result<End> { connect_tcp(at, &key) });
        let mut to_client = port.accept();
        take(&mut to_client, HELLO);
        to_client.write_all(&second).unwrap();
        assert_eq!(refused(client.join().unwrap()), WRONG_KEY);
        assert!(is_ended(&mut to_client));
    });
    drop((client, server));
    is_open(&listener, &key);
}

/// The same message, with the words of this role.
fn as_if(words: &[u8; 16], message: &[u8]) -> Vec<u8> {
    [words, &message[16..]].concat()
}

fn a_client_that_hears_itself_fails() {
    let key = Key::random().unwrap();
    // As it said it, and with the words of the other role.
    for (turned, reason) in [(false, CONNECTS_TOO), (true, WRONG_KEY)] {
        let port = Port::new();
        let at = port.address();
        thread::scope(|scope| {
            let client = scope.spawn(|| -> Result<End> { connect_tcp(at, &key) });
            let mut mirror = port.accept();
            let first = take(&mut mirror, HELLO);
            let back = if turned { as_if(LISTENS, &first) } else { first };
            mirror.write_all(&back).unwrap();
            assert_eq!(refused(client.join().unwrap()), reason);
            assert!(is_ended(&mut mirror));
        });
    }
}

fn a_listener_that_hears_itself_fails() {
    let (listener, key, address) = listener();
    let limit = Duration::from_millis(300);
    let listener = listener.handshake_timeout(limit);
    // Joined to itself, it waits for itself to begin, at both ends.
    let (one, other) = (stream(address), stream(address));
    for _ in 0..2 {
        assert_eq!(refused(listener.accept::<u32, u32>()), LATE);
    }
    drop((one, other));
    // A stranger has recorded how a client begins, and hands the listener's answer to the listener.
    let mut client = noise(&key, &[*CONNECTS, *LISTENS].concat(), true);
    let first = hello(&mut client, CONNECTS);
    for (turned, reason) in [(false, LISTENS_TOO), (true, WRONG_KEY)] {
        let (mut one, mut other) = (stream(address), stream(address));
        thread::scope(|scope| {
            let accepted = scope.spawn(|| [(); 2].map(|()| refused(listener.accept::<u32, u32>())));
            one.write_all(&first).unwrap();
            let second = take(&mut one, HELLO);
            other.write_all(&if turned { as_if(CONNECTS, &second) } else { second }).unwrap();
            assert!(is_ended(&mut other));
            // The first is still waiting for a proof, which no stranger can make.
            assert_eq!(accepted.join().unwrap(), [reason, LATE]);
            assert!(is_ended(&mut one));
        });
    }
    is_open(&listener, &key);
}

fn two_clients_that_are_joined_fail() {
    let key = Key::random().unwrap();
    for (turned, reason) in [(false, CONNECTS_TOO), (true, WRONG_KEY)] {
        let port = Port::new();
        let at = port.address();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..2).map(|_| scope.spawn(|| -> Result<End> { connect_tcp(at, &key) })).collect();
            let (mut one, mut other) = (port.accept(), port.accept());
            let (first, second) = (take(&mut one, HELLO), take(&mut other, HELLO));
            let pass_on = |message: Vec<u8>| if turned { as_if(LISTENS, &message) } else { message };
            one.write_all(&pass_on(second)).unwrap();
            other.write_all(&pass_on(first)).unwrap();
            for client in clients {
                assert_eq!(refused(client.join().unwrap()), reason);
            }
            assert!(is_ended(&mut one) && is_ended(&mut other));
        });
    }
}

fn two_listeners_that_are_joined_fail() {
    let (one, key, at_one) = listener();
    let other = Listener::tcp("127.0.0.1:0", key.clone()).unwrap();
    let at_other = other.local_addr().unwrap();
    let mut client = noise(&key, &[*CONNECTS, *LISTENS].concat(), true);
    let first = hello(&mut client, CONNECTS);
    for (turned, reason) in [(false, LISTENS_TOO), (true, WRONG_KEY)] {
        let (mut to_one, mut to_other) = (stream(at_one), stream(at_other));
        thread::scope(|scope| {
            let of_one = scope.spawn(|| refused(one.accept::<u32, u32>()));
            let of_other = scope.spawn(|| refused(other.accept::<u32, u32>()));
            to_one.write_all(&first).unwrap();
            let second = take(&mut to_one, HELLO);
            to_other.write_all(&if turned { as_if(CONNECTS, &second) } else { second }).unwrap();
            assert!(is_ended(&mut to_other));
            assert_eq!(of_other.join().unwrap(), reason);
            drop(to_one);
            assert_eq!(of_one.join().unwrap(), ENDED);
        });
    }
    is_open(&one, &key);
    is_open(&other, &key);
}

/// What a listener, or a client, says of words in which one bit is another.
fn reason_for(at: usize) -> &'static str {
    match at {
        0..13 => OTHER_PROTOCOL,
        13..16 => OTHER_VERSION,
        _ => WRONG_KEY,
    }
}

fn flipped(mut message: Vec<u8>, at: usize, bit: usize) -> Vec<u8> {
    message[at] ^= 1 << bit;
    message
}

fn a_relay_that_changes_a_bit_anywhere_fails() {
    let (listener, key, _) = listener();
    for round in 0..rounds(1) {
        for at in 0..HELLO {
            let bit = (at + round) % 8;
            let Staged { client, server, .. } = staged(&listener, &key, |mut client, mut server| {
                server.write_all(&flipped(take(&mut client, HELLO), at, bit)).unwrap();
                assert!(is_ended(&mut server));
            });
            assert_eq!((refused(client), refused(server)), (ENDED.to_owned(), reason_for(at).to_owned()), "{at}");
            let Staged { client, server, .. } = staged(&listener, &key, |mut client, mut server| {
                server.write_all(&take(&mut client, HELLO)).unwrap();
                client.write_all(&flipped(take(&mut server, HELLO), at, bit)).unwrap();
                assert!(is_ended(&mut client));
            });
            assert_eq!((refused(client), refused(server)), (reason_for(at).to_owned(), ENDED.to_owned()), "{at}");
        }
        for at in 0..PROOF {
            let Staged { client, server, .. } = staged(&listener, &key, |mut client, mut server| {
                server.write_all(&take(&mut client, HELLO)).unwrap();
                client.write_all(&take(&mut server, HELLO)).unwrap();
                server.write_all(&flipped(take(&mut client, PROOF), at, (at + round) % 8)).unwrap();
                assert!(is_ended(&mut server));
            });
            assert_eq!(refused(server), WRONG_KEY, "{at}");
            // It has done all that it had to do, and hears that there is no peer.
            let heard = client.unwrap().recv();
            assert!(
                matches!(&heard, Err(RecvError::Failed(error)) if error.to_string().contains("cut off")),
                "{at}: {heard:?}"
            );
        }
    }
    is_open(&listener, &key);
}
