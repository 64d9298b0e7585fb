//! Messages as sealed frames: what goes over the wire once the handshake is done.
//!
//! Owns: [`Cipher`], and the layout of a frame. Runs in: both sides of a connection between machines.
//! Never: seals two frames of one direction under the same number.
//!
//! # A frame
//!
//! | bytes | what |
//! |---|---|
//! | 0 and 1 | how long the rest is, the greater byte first: 17 to 65,535 |
//! | 2 to the end | a Noise message: [`RecordKind`] and part of a message, encrypted, and a tag of 16 bytes |
//!
//! The tag covers the frame's number in its direction, which is not sent: a frame that was left out, played twice, put
//! elsewhere or cut has none that is right. Its length is not covered, and need not be: another length makes other bytes.
//!
//! | kind | meaning |
//! |---|---|
//! | [`RecordKind::More`] | part of a message, as long as a frame can be; more follows |
//! | [`RecordKind::Last`] | the rest of a message |
//! | [`RecordKind::Never`] | the parts so far belong to a message that was given up |
//! | [`RecordKind::Close`] | nothing follows: the other end was dropped. Without it, the stream was cut off |
//! | [`RecordKind::Proof`] | the third message of the handshake, and in no other place |
//!
//! # Keys
//!
//! Each direction has a key of its own. It is replaced by Noise's `REKEY` after each [`FRAMES_PER_KEY`] frames, and the one
//! before is gone: an attacker that breaks into a machine cannot read what went over the wire long before.

use std::sync::{PoisonError, RwLock};

use snow::{HandshakeState, StatelessTransportState};

/// The longest part of a message in one frame: what is left of a Noise message.
pub(super) const MAX_FRAME_BYTES: usize = 65_535 - 16 - 1;

/// How long the frame of [`RecordKind::Proof`] is, with its length.
pub(super) const PROOF: usize = 2 + 1 + 16;

/// The shortest length that a frame may say it has.
pub(super) const SHORTEST_SEALED: usize = 1 + 16;

/// After so many frames of one direction, its key is replaced.
const FRAMES_PER_KEY: u64 = 4096;

/// What a frame is for. The numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RecordKind {
    /// Part of a message.
    More = 1,
    /// The rest of a message.
    Last = 2,
    /// The message is given up.
    Never = 3,
    /// Nothing follows.
    Close = 4,
    /// The sender has understood the handshake.
    Proof = 5,
}

impl RecordKind {
    fn of(byte: u8) -> Option<Self> {
        [Self::More, Self::Last, Self::Never, Self::Close, Self::Proof].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A frame is not what it should be: it was not made by the other side, or that one breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    /// Its tag is not right.
    Forged,
    /// Its tag is right, and what it says is nonsense; or no number is left for it.
    Nonsense,
}

/// The keys of a connection.
pub(crate) struct Cipher(RwLock<Keys>);

struct Keys {
    noise: StatelessTransportState,
    /// How often the key of each direction was replaced.
    outgoing: u64,
    incoming: u64,
}

impl Cipher {
    pub(super) fn new(done: HandshakeState) -> Option<Self> {
        let noise = done.into_stateless_transport_mode().ok()?;
        Some(Self(RwLock::new(Keys { noise, outgoing: 0, incoming: 0 })))
    }

    /// Puts frame `number` of our direction behind what is in `out`.
    pub(super) fn seal(&self, number: u64, kind: RecordKind, part: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        let sealed = 1 + part.len() + 16;
        let length = u16::try_from(sealed).map_err(|_| FrameError::Nonsense)?;
        self.replace_keys(number, |keys| &mut keys.outgoing, StatelessTransportState::rekey_outgoing);
        let mut plain = Vec::with_capacity(1 + part.len());
        plain.push(kind as u8);
        plain.extend_from_slice(part);
        let start = out.len() + 2;
        out.extend_from_slice(&length.to_be_bytes());
        out.resize(start + sealed, 0);
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let written = keys.noise.write_message(number, &plain, &mut out[start..]);
        if written == Ok(sealed) { Ok(()) } else { Err(FrameError::Nonsense) }
    }

    /// Opens frame `number` of the other direction, without its length, into `part`: its kind comes first, and then as many
    /// bytes of the message as the result says.
    pub(super) fn open(&self, number: u64, sealed: &[u8], part: &mut [u8]) -> Result<(RecordKind, usize), FrameError> {
        self.replace_keys(number, |keys| &mut keys.incoming, StatelessTransportState::rekey_incoming);
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let opened = keys.noise.read_message(number, sealed, part).map_err(|_| FrameError::Forged)?;
        let kind = part[..opened].first().and_then(|kind| RecordKind::of(*kind)).ok_or(FrameError::Nonsense)?;
        Ok((kind, opened - 1))
    }

    /// Has the keys that frame `number` of a direction needs.
    fn replace_keys(&self, number: u64, count: fn(&mut Keys) -> &mut u64, rekey: fn(&mut StatelessTransportState)) {
        let epoch = number / FRAMES_PER_KEY;
        if epoch == 0 || !number.is_multiple_of(FRAMES_PER_KEY) {
            return;
        }
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        while *count(&mut keys) < epoch {
            *count(&mut keys) += 1;
            rekey(&mut keys.noise);
        }
    }
}

impl std::fmt::Debug for Cipher {
    /// Never a key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(..)")
    }
}

/// The keys of both sides of one connection, for tests of what frames are put together to.
#[cfg(test)]
pub(super) fn pair() -> (Cipher, Cipher) {
    let noise =
        || snow::Builder::new("Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s".parse().unwrap()).psk(0, &[7; 32]).unwrap();
    let (mut one, mut other) = (noise().build_initiator().unwrap(), noise().build_responder().unwrap());
    let mut message = [0; 48];
    one.write_message(&[], &mut message).unwrap();
    other.read_message(&message, &mut []).unwrap();
    other.write_message(&[], &mut message).unwrap();
    one.read_message(&message, &mut []).unwrap();
    (Cipher::new(one).unwrap(), Cipher::new(other).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_replaced_at_the_same_frame_on_both_sides() {
        let (one, other) = pair();
        let (mut part, mut before) = ([0; 100], Vec::new());
        for number in [0, 1, FRAMES_PER_KEY - 1, FRAMES_PER_KEY, FRAMES_PER_KEY + 1, 2 * FRAMES_PER_KEY] {
            for (from, to) in [(&one, &other), (&other, &one)] {
                let mut frame = Vec::new();
                from.seal(number, RecordKind::Last, b"hello", &mut frame).unwrap();
                assert_eq!(to.open(number, &frame[2..], &mut part), Ok((RecordKind::Last, 5)), "{number}");
                assert_eq!(part[1..6], *b"hello");
                // A frame is not for the side that sealed it, and not valid under another number.
                assert_eq!(from.open(number, &frame[2..], &mut part), Err(FrameError::Forged));
                assert_eq!(to.open(number ^ 1, &frame[2..], &mut part), Err(FrameError::Forged));
                before.push(frame);
            }
        }
        // The first key is gone, for an attacker that would take it from a machine now.
        assert_eq!(other.open(0, &before[0][2..], &mut part), Err(FrameError::Forged));
    }

    #[test]
    fn the_last_number_is_given_to_no_frame() {
        let (one, other) = pair();
        assert_eq!(one.seal(u64::MAX, RecordKind::Last, b"hello", &mut Vec::new()), Err(FrameError::Nonsense));
        assert!(other.open(u64::MAX, &[0; 22], &mut [0; 22]).is_err());
        assert_eq!(
            one.seal(0, RecordKind::Last, &vec![0; MAX_FRAME_BYTES + 1], &mut Vec::new()),
            Err(FrameError::Nonsense)
        );
    }
}
