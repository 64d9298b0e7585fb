//! The protocol between machines as it is documented, said by other code than the library's; and what stands on the wire.
//!
//! Runs in: the test process. Never: uses a line of the library to make or read a byte.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};
use process_task::channel::{Connection, Key, Listener, connect_tcp};
use process_task::{Error, ErrorKind};
use snow::params::HashChoice;
use snow::resolvers::{CryptoResolver as _, DefaultResolver};
use snow::{Builder, HandshakeState, TransportState};

use crate::support::PATIENCE;

pub(crate) const CONNECTS: &[u8; 16] = b"process-task 1 c";
pub(crate) const LISTENS: &[u8; 16] = b"process-task 1 l";

/// How long the three messages of a handshake are.
pub(crate) const HELLO: usize = 64;
pub(crate) const PROOF: usize = 19;

/// Kinds of frames.
pub(crate) const MORE: u8 = 1;
pub(crate) const LAST: u8 = 2;
pub(crate) const NEVER: u8 = 3;
pub(crate) const CLOSE: u8 = 4;
pub(crate) const PROOF_KIND: u8 = 5;

pub(crate) const WRONG_KEY: &str = "the peer could not show that it has the key; give both sides the same `Key`";
pub(crate) const ENDED: &str = "the peer ended the connection during the handshake, as one does that has another \
                                key; give both sides the same `Key`";
pub(crate) const LATE: &str =
    "the peer did not authenticate in time; `handshake_timeout` and `connect_tcp_timeout` allow more";
pub(crate) const CONNECTS_TOO: &str = "the peer connects too; one side has to listen";
pub(crate) const LISTENS_TOO: &str = "the peer listens too; one side has to connect";
pub(crate) const OTHER_PROTOCOL: &str = "the peer speaks another protocol; is it a program with this crate?";
pub(crate) const OTHER_VERSION: &str =
    "the peer speaks another version of the protocol; use the same version of this crate on both sides";

/// Why a peer was refused.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T, Error>) -> String {
    match result.map_err(|error| error.kind().clone()) {
        Err(ErrorKind::PeerRefused { reason, .. }) => reason,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a stranger was let in"),
    }
}

/// A side's Noise, with whatever prologue.
pub(crate) fn noise(key: &Key, prologue: &[u8], connects: bool) -> HandshakeState {
    let mut shared = [0; 32];
    let mut hash = DefaultResolver.resolve_hash(&HashChoice::Blake2s).unwrap();
    hash.input(b"process-task pre-shared key 1\n");
    hash.input(key.secret());
    hash.result(&mut shared);
    let params = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s".parse().unwrap();
    let builder = Builder::new(params).psk(0, &shared).unwrap().prologue(prologue).unwrap();
    if connects { builder.build_initiator().unwrap() } else { builder.build_responder().unwrap() }
}

/// The words and what Noise says behind them.
pub(crate) fn hello(noise: &mut HandshakeState, words: &[u8; 16]) -> Vec<u8> {
    let mut message = vec![0; HELLO];
    message[..16].copy_from_slice(words);
    assert_eq!(noise.write_message(&[], &mut message[16..]), Ok(HELLO - 16));
    message
}

/// A peer that has the key, and may do what it likes with it.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    noise: TransportState,
}

impl Peer {
    /// Connects as it is documented, with other words or another prologue if asked; `None` if the answer is none.
    pub(crate) fn connect_as(at: SocketAddr, key: &Key, words: &[u8; 16], prologue: &[u8]) -> Option<Self> {
        let mut stream = stream(at);
        let mut noise = noise(key, prologue, true);
        stream.write_all(&hello(&mut noise, words)).unwrap();
        let mut answer = [0; HELLO];
        stream.read_exact(&mut answer).ok()?;
        noise.read_message(&answer[16..], &mut []).ok().filter(|_| answer.starts_with(LISTENS))?;
        let mut peer = Self { stream, noise: noise.into_transport_mode().unwrap() };
        peer.say(PROOF_KIND, &[]);
        Some(peer)
    }

    pub(crate) fn connect(at: SocketAddr, key: &Key) -> Self {
        Self::connect_as(at, key, CONNECTS, &[*CONNECTS, *LISTENS].concat()).unwrap()
    }

    /// Answers a peer that connects, as it is documented.
    pub(crate) fn answer(mut stream: TcpStream, key: &Key) -> Self {
        let mut noise = noise(key, &[*CONNECTS, *LISTENS].concat(), false);
        let said = take(&mut stream, HELLO);
        assert!(said.starts_with(CONNECTS));
        assert_eq!(noise.read_message(&said[16..], &mut []), Ok(0));
        stream.write_all(&hello(&mut noise, LISTENS)).unwrap();
        let mut peer = Self { stream, noise: noise.into_transport_mode().unwrap() };
        assert_eq!(peer.hear(), (PROOF_KIND, vec![]));
        peer
    }

    /// The next frame, with its length.
    pub(crate) fn sealed(&mut self, kind: u8, part: &[u8]) -> Vec<u8> {
        self.sealed_bytes(&[&[kind][..], part].concat())
    }

    pub(crate) fn sealed_bytes(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 2 + plain.len() + 16];
        frame[..2].copy_from_slice(&u16::try_from(plain.len() + 16).unwrap().to_be_bytes());
        assert_eq!(self.noise.write_message(plain, &mut frame[2..]), Ok(plain.len() + 16));
        frame
    }

    pub(crate) fn say(&mut self, kind: u8, part: &[u8]) {
        let frame = self.sealed(kind, part);
        self.stream.write_all(&frame).unwrap();
    }

    /// What the other side says next.
    pub(crate) fn hear(&mut self) -> (u8, Vec<u8>) {
        let frame = frame(&mut self.stream);
        let mut plain = vec![0; frame.len()];
        let len = self.noise.read_message(&frame[2..], &mut plain).unwrap();
        (plain[0], plain[1..len].to_vec())
    }
}

/// A peer that connects, and then does not wait for ever.
pub(crate) fn stream(at: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(at).unwrap())
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The next so many bytes.
#[track_caller]
pub(crate) fn take(from: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).unwrap();
    bytes
}

/// The next frame, whatever is in it, with its length.
#[track_caller]
pub(crate) fn frame(from: &mut TcpStream) -> Vec<u8> {
    let len = take(from, 2);
    let rest = take(from, u16::from_be_bytes([len[0], len[1]]).into());
    [len, rest].concat()
}

/// Whether the other side has ended it, in one way or another; it must not say anything more.
#[track_caller]
pub(crate) fn is_ended(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(0) => true,
        Ok(_) => panic!("it goes on to speak"),
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// Ends a stream so that the other side's kernel hears of a reset.
pub(crate) fn reset(stream: TcpStream) {
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream.as_fd(), sockopt::Linger, &at_once).unwrap();
    drop(stream);
}

/// A port that is not the library's.
pub(crate) struct Port(TcpListener);

impl Port {
    pub(crate) fn new() -> Self {
        Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) fn accept(&self) -> TcpStream {
        patient(self.0.accept().unwrap().0)
    }
}

pub(crate) type End = Result<Connection<String, String>, Error>;

/// What became of both sides, and what the one between them has to say.
pub(crate) struct Staged<R> {
    pub(crate) client: End,
    pub(crate) server: End,
    pub(crate) middle: R,
}

/// A client and a listener with the same key, and between them a relay that has it not: `middle` gets what leads to each.
pub(crate) fn staged<R>(listener: &Listener, key: &Key, middle: impl FnOnce(TcpStream, TcpStream) -> R) -> Staged<R> {
    let port = Port::new();
    let address = port.address();
    thread::scope(|scope| {
        let client = scope.spawn(move || connect_tcp(address, key));
        let server = scope.spawn(|| listener.accept());
        let middle = middle(port.accept(), stream(listener.local_addr().unwrap()));
        Staged { client: client.join().unwrap(), server: server.join().unwrap(), middle }
    })
}

/// Brings both through their handshake, unchanged; what was said.
pub(crate) fn let_them_meet(client: &mut TcpStream, server: &mut TcpStream) -> [Vec<u8>; 3] {
    let first = take(client, HELLO);
    server.write_all(&first).unwrap();
    let second = take(server, HELLO);
    client.write_all(&second).unwrap();
    let third = take(client, PROOF);
    server.write_all(&third).unwrap();
    [first, second, third]
}

/// A peer that listens, with the key that it listens for.
pub(crate) fn listener() -> (Listener, Key, SocketAddr) {
    let key = Key::random().unwrap();
    let listener = Listener::tcp("127.0.0.1:0", key.clone()).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, key, address)
}

/// Lets a client in that has the key, to see that nothing else has changed.
pub(crate) fn is_open(listener: &Listener, key: &Key) {
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let client = scope.spawn(|| -> End { connect_tcp(address, key) });
        // Errors of those before may still be told.
        let server: Connection<String, String> = loop {
            match listener.accept() {
                Ok(server) => break server,
                Err(error) => assert!(matches!(error.kind(), ErrorKind::PeerRefused { .. }), "{error}"),
            }
        };
        client.join().unwrap().unwrap().send("hello".to_owned()).unwrap();
        assert_eq!(server.recv().unwrap(), "hello");
    });
}

// None of the files that use this needs all of it.
const _: fn() = || {
    let _ = (refused::<()>, reset, is_ended, is_open, frame, let_them_meet, MORE, LAST, NEVER, CLOSE, PROOF_KIND);
    let _ = (Peer::connect_as, Peer::connect, Peer::answer, Peer::sealed, Peer::sealed_bytes, Peer::say, Peer::hear);
    let _ = (LATE, CONNECTS_TOO, LISTENS_TOO, OTHER_PROTOCOL, OTHER_VERSION, WRONG_KEY, ENDED);
    let _ = |staged: Staged<()>| staged.middle;
};
