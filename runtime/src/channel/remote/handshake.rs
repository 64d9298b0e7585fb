//! Showing each other, over a wire that others can write to, that one has the key.
//!
//! Owns: both sides of a handshake. Runs in: the process that connects, and the one that listens.
//! Never: reads a byte that stands behind the handshake, asks for memory, or believes in a length: there is none.
//!
//! # The conversation
//!
//! | # | connecting side | listening side |
//! |---|---|---|
//! | 1 | [`CONNECTS`], then Noise's `psk, e`: 64 bytes | |
//! | 2 | | [`LISTENS`], then Noise's `e, ee`: 64 bytes |
//! | 3 | a sealed frame of [`RecordKind::Proof`]: 19 bytes | |
//!
//! It is `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s`, with [`CONNECTS`] and [`LISTENS`] as its prologue: both sides agree on
//! the protocol, its version, and on the role of each, or no tag that one makes is right for the other. `ee` is made of two
//! numbers that are new each time, so what was recorded is of no use later, not even with the key; the frames' keys are
//! made of it, one for each direction.
//!
//! Noise alone is content after 2. Then the listening side would let in an attacker that plays back a message 1 from
//! another day: it cannot read or write a frame, but is connected. So the listening side waits for 3, which only a peer
//! that has understood 2 can make.
//!
//! The words in front of 1 and 2 are there for people: a version that differs, or two that connect to each other, are told
//! from a wrong key. They are not believed, but compared.

use std::io::{self, Read, Write};

use snow::{Builder, HandshakeState};

use super::frames::{Cipher, PROOF, RecordKind};
use super::key::Key;

/// What the connecting side says first.
pub(super) const CONNECTS: &[u8; 16] = b"process-task 1 c";

/// What the listening side says first.
pub(super) const LISTENS: &[u8; 16] = b"process-task 1 l";

/// How much of it has nothing to do with version and role.
const NAME: usize = b"process-task ".len();

const NOISE: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// How long messages 1 and 2 are: the words, a public key, a tag.
const HELLO: usize = CONNECTS.len() + 32 + 16;

/// Why a handshake came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HandshakeRefusal {
    /// The other side said something else than it should have.
    Said(&'static str),
    /// It was cut off.
    CutOff,
}

impl HandshakeRefusal {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Said(reason) => reason,
            Self::CutOff => {
                "the peer ended the connection during the handshake, as one does that has another key; give both sides the \
                 same `Key`"
            }
        }
    }
}

const WRONG_KEY: HandshakeRefusal =
    HandshakeRefusal::Said("the peer could not show that it has the key; give both sides the same `Key`");

/// What a handshake comes to.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) cipher: Cipher,
    /// How many frames were sealed, and opened, already.
    pub(super) sealed: u64,
    pub(super) opened: u64,
}

/// A handshake that waits for the other side.
pub(crate) struct Handshake {
    turn: HandshakeTurn,
    /// What the other side has said since its turn began.
    said: [u8; HELLO],
    len: usize,
}

enum HandshakeTurn {
    /// We connect, and wait for message 2.
    Second(Box<HandshakeState>),
    /// We listen, and wait for message 1.
    First(Box<HandshakeState>),
    /// We listen, and wait for message 3.
    Third(Cipher),
    /// There is nothing more to wait for.
    Over,
}

impl Handshake {
    /// Listens.
    pub(crate) fn listen(key: &Key) -> Result<Self, HandshakeRefusal> {
        Ok(Self::waiting(HandshakeTurn::First(noise(key, false)?)))
    }

    /// Connects: says message 1.
    pub(crate) fn connect(key: &Key, wire: &mut impl Write) -> Result<Self, HandshakeRefusal> {
        let mut noise = noise(key, true)?;
        say(&mut noise, CONNECTS, wire)?;
        Ok(Self::waiting(HandshakeTurn::Second(noise)))
    }

    fn waiting(turn: HandshakeTurn) -> Self {
        Self { turn, said: [0; HELLO], len: 0 }
    }

    /// Goes on with what has come, as far as that reaches; the key for what follows once it is done. The wire must not
    /// block. `None`: the rest has not come yet.
    pub(crate) fn go_on(&mut self, wire: &mut (impl Read + Write)) -> Result<Option<Session>, HandshakeRefusal> {
        while self.hear(wire)? {
            match std::mem::replace(&mut self.turn, HandshakeTurn::Over) {
                HandshakeTurn::First(mut noise) => {
                    understand(&mut noise, &self.said)?;
                    say(&mut noise, LISTENS, wire)?;
                    *self = Self::waiting(HandshakeTurn::Third(Cipher::new(*noise).ok_or(WRONG_KEY)?));
                }
                HandshakeTurn::Second(mut noise) => {
                    understand(&mut noise, &self.said)?;
                    let cipher = Cipher::new(*noise).ok_or(WRONG_KEY)?;
                    let mut proof = Vec::with_capacity(PROOF);
                    cipher.seal(0, RecordKind::Proof, &[], &mut proof).map_err(|_| WRONG_KEY)?;
                    wire.write_all(&proof).map_err(|_| HandshakeRefusal::CutOff)?;
                    return Ok(Some(Session { cipher, sealed: 1, opened: 0 }));
                }
                HandshakeTurn::Third(cipher) => {
                    let opened = cipher.open(0, &self.said[2..PROOF], &mut [0; 1]);
                    let proven = opened.is_ok_and(|opened| opened == (RecordKind::Proof, 0));
                    return if proven { Ok(Some(Session { cipher, sealed: 0, opened: 1 })) } else { Err(WRONG_KEY) };
                }
                HandshakeTurn::Over => return Err(HandshakeRefusal::CutOff),
            }
        }
        Ok(None)
    }

    /// Takes what has come, but nothing beyond this turn's message; whether that is whole.
    fn hear(&mut self, wire: &mut impl Read) -> Result<bool, HandshakeRefusal> {
        let (words, all): (&[u8], _) = match self.turn {
            HandshakeTurn::First(_) => (CONNECTS, HELLO),
            HandshakeTurn::Second(_) => (LISTENS, HELLO),
            // Its length is known: two bytes that say so, and the sealed frame.
            HandshakeTurn::Third(_) => (&PROOF_LENGTH, PROOF),
            HandshakeTurn::Over => return Err(HandshakeRefusal::CutOff),
        };
        while self.len < all {
            match wire.read(&mut self.said[self.len..all]) {
                Ok(0) => return Err(HandshakeRefusal::CutOff),
                Ok(read) => self.len += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(HandshakeRefusal::CutOff),
            }
            // At once, since a peer that speaks another protocol may wait for an answer now.
            compare(&self.said[..self.len.min(words.len())], words)?;
        }
        Ok(self.len == all)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "17")]
const PROOF_LENGTH: [u8; 2] = [0, (PROOF - 2) as u8];

/// Compares the first words with what they should be, and says what is wrong with them.
fn compare(said: &[u8], words: &[u8]) -> Result<(), HandshakeRefusal> {
    if words.starts_with(said) {
        return Ok(());
    }
    let at = said.iter().zip(words).take_while(|(said, word)| said == word).count();
    Err(match words.len() {
        // The words of message 3 are a length.
        2 => WRONG_KEY,
        _ if said == LISTENS => HandshakeRefusal::Said("the peer listens too; one side has to connect"),
        _ if said == CONNECTS => HandshakeRefusal::Said("the peer connects too; one side has to listen"),
        _ if at < NAME => HandshakeRefusal::Said("the peer speaks another protocol; is it a program with this crate?"),
        _ => HandshakeRefusal::Said(
            "the peer speaks another version of the protocol; use the same version of this crate on both sides",
        ),
    })
}

fn noise(key: &Key, connects: bool) -> Result<Box<HandshakeState>, HandshakeRefusal> {
    let (shared, prologue) = (key.shared(), [*CONNECTS, *LISTENS].concat());
    let built = NOISE.parse().and_then(|params| {
        let builder = Builder::new(params).psk(0, &shared)?.prologue(&prologue)?;
        if connects { builder.build_initiator() } else { builder.build_responder() }
    });
    built
        .map(Box::new)
        .map_err(|_| HandshakeRefusal::Said("this build of the library lacks a part of the cryptography"))
}

fn say(noise: &mut HandshakeState, words: &[u8; 16], wire: &mut impl Write) -> Result<(), HandshakeRefusal> {
    let mut message = [0; HELLO];
    message[..words.len()].copy_from_slice(words);
    let written = noise.write_message(&[], &mut message[words.len()..]);
    if written != Ok(HELLO - words.len()) {
        return Err(HandshakeRefusal::Said("the kernel has no random bytes for the handshake"));
    }
    // The first bytes that go this way: there is room for them, or something is very wrong.
    wire.write_all(&message).map_err(|_| HandshakeRefusal::CutOff)
}

fn understand(noise: &mut HandshakeState, message: &[u8; HELLO]) -> Result<(), HandshakeRefusal> {
    match noise.read_message(&message[CONNECTS.len()..], &mut []) {
        Ok(0) => Ok(()),
        _ => Err(WRONG_KEY),
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("heard", &self.len).finish_non_exhaustive()
    }
}
