//! What can be done to a connection between machines once both sides have met: by what is on the wire, which can only end it,
//! and by a peer that has the key, which can only talk nonsense.
//!
//! Runs in: the test process, over its own loopback. Never: waits for time where there is a condition.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::noise_peer::{
    CLOSE, LAST, MORE, NEVER, PROOF_KIND, Peer, frame, is_ended, let_them_meet, listener, reset, staged,
};
use crate::support::{PATIENCE, eventually, promise};
use nix::errno::Errno;
use process_task::ErrorKind;
use process_task::channel::{Connection, Key, Listener, RecvError, RecvTimeoutError, TryRecvError, wait_readable};

macro_rules! promises {
    ($($name:ident),+ $(,)?) => {
        mod promises { $(#[test] fn $name() { super::promise(super::$name) })+ }
    };
}

promises! {
    a_bit_that_is_changed_anywhere_is_noticed,
    frames_that_are_left_out_repeated_or_exchanged_are_noticed,
    an_end_that_hears_itself_notices,
    a_frame_of_another_connection_is_none_of_this,
    a_stream_that_is_cut_anywhere_is_no_end,
    what_stands_behind_the_end_is_not_read,
    a_peer_that_only_says_half_is_waited_for,
    nonsense_from_a_peer_with_the_key_ends_the_connection,
    lengths_that_no_frame_has_end_the_connection,
    a_message_that_is_given_up_never_arrives,
    endless_message_does_not_block_try_recv,
    endless_frames_do_not_outlast_a_timeout,
    values_that_are_none_cost_themselves_only,
}

type End = Connection<String, String>;

/// Both ends, and what leads to them.
struct Met {
    client: End,
    server: End,
    to_client: TcpStream,
    to_server: TcpStream,
}

fn met(listener: &Listener, key: &Key) -> Met {
    let staged = staged(listener, key, |mut client, mut server| {
        let_them_meet(&mut client, &mut server);
        (client, server)
    });
    let (to_client, to_server) = staged.middle;
    Met { client: staged.client.unwrap(), server: staged.server.unwrap(), to_client, to_server }
}

impl Met {
    /// What the client's words are on the wire.
    fn said(&mut self, words: &[&str]) -> Vec<Vec<u8>> {
        let seal = |word: &&str| {
            self.client.send((*word).to_owned()).unwrap();
            frame(&mut self.to_client)
        };
        words.iter().map(seal).collect()
    }
}

const CHANGED: &str = "a frame was changed, replaced or left out on its way";
const CUT_OFF: &str = "the stream was cut off before the other side closed it";
const NONSENSE: &str = "the other side broke the rules of the connection";

/// The end has failed for this reason, for good, and says nothing any more.
#[track_caller]
fn has_failed(end: &End, reason: &str, expected: Errno) {
    for _ in 0..2 {
        match end.recv() {
            Err(RecvError::Failed(error)) => {
                let ErrorKind::ChannelFailed { step, errno, .. } = error.kind() else { panic!("{error}") };
                assert!(step.contains(reason), "{step}");
                assert_eq!(Errno::from_raw(*errno), expected);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(end.send("word".to_owned()).unwrap_err().is_disconnected());
}

fn a_bit_that_is_changed_anywhere_is_noticed() {
    let (listener, key, _) = listener();
    let len = met(&listener, &key).said(&["two"])[0].len();
    for at in 0..len {
        let mut met = met(&listener, &key);
        let [one, mut two, three] = <[Vec<u8>; 3]>::try_from(met.said(&["one", "two", "three"])).unwrap();
        two[at] ^= 1 << (at % 8);
        met.to_server.write_all(&[one, two, three].concat()).unwrap();
        met.to_server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(met.server.recv().unwrap(), "one");
        // The first byte of the length makes a frame of which not all is there.
        let (reason, errno) = if at == 0 { (CUT_OFF, Errno::ECONNRESET) } else { (CHANGED, Errno::EBADMSG) };
        has_failed(&met.server, reason, errno);
        // The peer that did that hears no more.
        assert!(is_ended(&mut met.to_server));
    }
}

fn frames_that_are_left_out_repeated_or_exchanged_are_noticed() {
    let (listener, key, _) = listener();
    for (order, heard) in [
        (&[0, 2][..], 1),
        (&[0, 0], 1),
        (&[1, 0, 2], 0),
        (&[0, 2, 1], 1),
        (&[1], 0),
        (&[0, 1, 2, 1], 3),
        (&[0, 1, 0], 2),
    ] {
        let mut met = met(&listener, &key);
        let words = ["one", "two", "three"];
        let said = met.said(&words);
        for at in order {
            met.to_server.write_all(&said[*at]).unwrap();
        }
        for word in &words[..heard] {
            assert_eq!(met.server.recv().unwrap(), *word, "{order:?}");
        }
        has_failed(&met.server, CHANGED, Errno::EBADMSG);
        assert!(is_ended(&mut met.to_server));
        // The other side, if it is told, hears that it was cut off.
        drop((met.to_client, met.to_server));
        has_failed(&met.client, CUT_OFF, Errno::ECONNRESET);
    }
}

fn an_end_that_hears_itself_notices() {
    let (listener, key, _) = listener();
    let mut met = met(&listener, &key);
    // The first frame of each direction has the same number, and another key.
    met.server.send("word".to_owned()).unwrap();
    let said = frame(&mut met.to_server);
    met.to_server.write_all(&said).unwrap();
    has_failed(&met.server, CHANGED, Errno::EBADMSG);
    let said = met.said(&["word"]);
    met.to_client.write_all(&said[0]).unwrap();
    has_failed(&met.client, CHANGED, Errno::EBADMSG);
}

fn a_frame_of_another_connection_is_none_of_this() {
    let (listener, key, _) = listener();
    let (mut one, mut other) = (met(&listener, &key), met(&listener, &key));
    let said = one.said(&["word"]);
    other.to_server.write_all(&said[0]).unwrap();
    has_failed(&other.server, CHANGED, Errno::EBADMSG);
    one.to_server.write_all(&said[0]).unwrap();
    assert_eq!(one.server.recv().unwrap(), "word");
}

fn a_stream_that_is_cut_anywhere_is_no_end() {
    let (listener, key, _) = listener();
    let len = met(&listener, &key).said(&["two"])[0].len();
    for hard in [false, true] {
        for upto in 0..len {
            let mut met = met(&listener, &key);
            let said = met.said(&["one", "two"]);
            met.to_server.write_all(&said[0]).unwrap();
            // A reset may throw away what was not read yet.
            assert_eq!(met.server.recv().unwrap(), "one");
            met.to_server.write_all(&said[1][..upto]).unwrap();
            if hard {
                reset(met.to_server);
            } else {
                drop(met.to_server);
            }
            has_failed(&met.server, CUT_OFF, Errno::ECONNRESET);
        }
    }
}

fn what_stands_behind_the_end_is_not_read() {
    let (listener, key, _) = listener();
    let mut met = met(&listener, &key);
    let said = met.said(&["word"]);
    drop(met.client);
    let end = frame(&mut met.to_client);
    met.to_server.write_all(&[&said[0][..], &end, b"and more"].concat()).unwrap();
    assert_eq!(met.server.recv().unwrap(), "word");
    assert_eq!((met.server.recv(), met.server.recv()), (Err(RecvError::Disconnected), Err(RecvError::Disconnected)));
}

fn a_peer_that_only_says_half_is_waited_for() {
    let (listener, key, _) = listener();
    let mut met = met(&listener, &key);
    let said = met.said(&["word"]);
    for byte in &said[0] {
        assert_eq!(met.server.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(met.server.is_ready_timeout(Duration::ZERO), Ok(false));
        met.to_server.write_all(&[*byte]).unwrap();
    }
    assert_eq!(met.server.recv().unwrap(), "word");
    // Its own words get through all the while.
    met.server.send("answer".to_owned()).unwrap();
    let answer = frame(&mut met.to_server);
    met.to_client.write_all(&answer).unwrap();
    assert_eq!(met.client.recv().unwrap(), "answer");
}

/// An end, and at the other a peer that has the key.
fn peer(listener: &Listener, key: &Key) -> (End, Peer) {
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let peer = scope.spawn(|| Peer::connect(address, key));
        (listener.accept().unwrap(), peer.join().unwrap())
    })
}

/// What a string is on the wire: as a connection of the library says it.
fn string(listener: &Listener, key: &Key, word: &str) -> Vec<u8> {
    let (end, mut peer) = peer(listener, key);
    end.send(word.to_owned()).unwrap();
    let (kind, message) = peer.hear();
    assert_eq!(kind, LAST);
    message
}

fn full() -> Vec<u8> {
    vec![7; 65_518]
}

fn nonsense_from_a_peer_with_the_key_ends_the_connection() {
    let (listener, key, _) = listener();
    let scripts: [&[(u8, Vec<u8>)]; 11] = [
        &[(0, vec![])],
        &[(6, vec![])],
        &[(255, vec![1, 2, 3])],
        &[(PROOF_KIND, vec![])],
        // Parts that are shorter than they could be, and none at all.
        &[(MORE, vec![7; 100])],
        &[(MORE, vec![])],
        &[(NEVER, vec![])],
        &[(MORE, full()), (NEVER, vec![1])],
        &[(MORE, full()), (CLOSE, vec![])],
        &[(CLOSE, vec![1])],
        &[(MORE, full()), (PROOF_KIND, vec![])],
    ];
    for script in scripts {
        let (end, mut peer) = peer(&listener, &key);
        for (kind, part) in script {
            peer.say(*kind, part);
        }
        has_failed(&end, NONSENSE, Errno::EPROTO);
        assert!(is_ended(&mut peer.stream));
    }
}

fn lengths_that_no_frame_has_end_the_connection() {
    let (listener, key, _) = listener();
    for len in 0..17_u16 {
        let (end, mut peer) = peer(&listener, &key);
        peer.stream.write_all(&len.to_be_bytes()).unwrap();
        // At once: nothing else has to come.
        has_failed(&end, CHANGED, Errno::EBADMSG);
    }
    // Well made, and without a kind.
    let (end, mut other) = peer(&listener, &key);
    let nothing = other.sealed_bytes(&[]);
    other.stream.write_all(&nothing).unwrap();
    has_failed(&end, CHANGED, Errno::EBADMSG);
    // As long as a frame can be, of which nothing comes.
    let (end, mut other) = peer(&listener, &key);
    other.stream.write_all(&[0xff, 0xff, 1]).unwrap();
    assert_eq!(end.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Timeout));
    drop(other);
    has_failed(&end, CUT_OFF, Errno::ECONNRESET);
}

fn a_message_that_is_given_up_never_arrives() {
    let (listener, key, _) = listener();
    let hello = string(&listener, &key, "hello");
    let (end, mut peer) = peer(&listener, &key);
    for parts in 1..4 {
        (0..parts).for_each(|_| peer.say(MORE, &full()));
        peer.say(NEVER, &[]);
        peer.say(LAST, &hello);
        assert_eq!(end.recv().unwrap(), "hello");
    }
    peer.say(CLOSE, &[]);
    assert_eq!(end.recv(), Err(RecvError::Disconnected));
}

fn endless_message_does_not_block_try_recv() {
    let (listener, key, _) = listener();
    let hello = string(&listener, &key, "hello");
    let (end, mut peer) = peer(&listener, &key);
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..400 {
                peer.say(MORE, &full());
                peer.say(NEVER, &[]);
            }
            peer.say(LAST, &hello);
            peer.say(CLOSE, &[]);
        });
        let mut looks = 0;
        eventually("it has come to the point", PATIENCE, || {
            looks += 1;
            end.try_recv().is_ok_and(|message| message == "hello")
        });
        // One look takes a part of what is there, however fast more comes.
        assert!(looks > 2, "{looks}");
    });
    assert_eq!(end.recv(), Err(RecvError::Disconnected));
}

fn endless_frames_do_not_outlast_a_timeout() {
    let (listener, key, _) = listener();
    let hello = string(&listener, &key, "hello");
    let (end, mut peer) = peer(&listener, &key);
    // Made beforehand: then it speaks faster than the other can listen.
    let mut words = Vec::new();
    for _ in 0..300 {
        words.extend([peer.sealed(MORE, &full()), peer.sealed(NEVER, &[])].concat());
    }
    words.extend(peer.sealed(LAST, &hello));
    thread::scope(|scope| {
        scope.spawn(move || peer.stream.write_all(&words).unwrap());
        wait_readable(&[&end], None).unwrap();
        assert_eq!(
            end.is_ready_timeout(Duration::ZERO),
            Ok(false),
            "no message is there yet, though there is always something"
        );
        assert_eq!(end.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        assert_eq!(end.recv().unwrap(), "hello");
    });
}

fn values_that_are_none_cost_themselves_only() {
    let (listener, key, _) = listener();
    let hello = string(&listener, &key, "hello");
    let (end, mut peer) = peer(&listener, &key);
    let mut longer = hello.clone();
    // It says that it is as long as memory is, as if that were to be had.
    longer[..8].copy_from_slice(&(1_u64 << 62).to_ne_bytes());
    let no_text = [&hello[..hello.len() - 1], &[0xff]].concat();
    for bytes in [
        &b""[..],
        &[0],
        &hello[1..],
        &hello[..hello.len() - 1],
        &longer,
        &no_text,
        &[hello.clone(), hello.clone()].concat(),
    ] {
        peer.say(LAST, bytes);
        let heard = end.recv();
        assert!(
            matches!(&heard, Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { .. })),
            "{bytes:?}: {heard:?}"
        );
    }
    peer.say(LAST, &hello);
    assert_eq!(end.recv().unwrap(), "hello");
}
