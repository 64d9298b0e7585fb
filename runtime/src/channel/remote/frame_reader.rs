//! Reads frames, and joins them to messages.
//!
//! Owns: [`FrameReader`], one direction of a stream. Runs in: both sides of a connection between machines.
//! Never: asks for memory because a length says so: a message grows by what has come and was found right.

use std::io::{self, Read};

use super::frames::{Cipher, FrameError, MAX_FRAME_BYTES, RecordKind, SHORTEST_SEALED};
use crate::channel::TryRecvError;
use crate::sys::{Errno, errno_of};

/// The most frames that are taken in one go, so that a caller that waits a moment does not wait for ever for a peer that
/// never stops.
const AT_ONCE: usize = 256;

/// What has come, and is not given out yet.
#[derive(Debug)]
pub(super) struct FrameReader {
    /// How many frames were opened.
    opened: u64,
    /// Memory for the next frame, its length first, and how much of it has come.
    frame: Vec<u8>,
    have: usize,
    /// The parts of the message so far.
    message: Vec<u8>,
    /// The message is whole.
    whole: bool,
    /// Nothing more comes, for this reason.
    end: Option<TryRecvError>,
}

impl FrameReader {
    pub(super) fn new(opened: u64) -> Self {
        Self { opened, frame: Vec::new(), have: 0, message: Vec::new(), whole: false, end: None }
    }

    /// Whether a message, or the end, can be had without waiting.
    pub(super) fn is_ready(&self) -> bool {
        self.whole || self.end.is_some()
    }

    /// How the connection ended, if it did.
    pub(super) fn end(&self) -> Option<&TryRecvError> {
        self.end.as_ref()
    }

    /// The message that is there, or how the connection ended.
    pub(super) fn take(&mut self, message: &mut Vec<u8>) -> Result<(), TryRecvError> {
        if !self.whole {
            return Err(self.end.clone().unwrap_or(TryRecvError::Empty));
        }
        // The caller's memory is used for the next one.
        message.clear();
        std::mem::swap(message, &mut self.message);
        self.whole = false;
        Ok(())
    }

    /// Takes what has come, until a message is whole, the end is reached, or there is no more. The wire must not block.
    pub(super) fn go_on(&mut self, wire: &mut impl Read, cipher: &Cipher, most: usize) {
        for _ in 0..AT_ONCE {
            if self.is_ready() {
                return;
            }
            match self.frame(wire) {
                Ok(true) => self.end = self.open(cipher, most).err(),
                Ok(false) => return,
                Err(end) => self.end = Some(end),
            }
        }
    }

    /// Takes what has come of the next frame, and nothing behind it; whether it is whole.
    fn frame(&mut self, wire: &mut impl Read) -> Result<bool, TryRecvError> {
        loop {
            let len = match self.frame.first_chunk::<2>().filter(|_| self.have >= 2) {
                None => 2,
                Some(len) => match usize::from(u16::from_be_bytes(*len)) {
                    sealed if sealed < SHORTEST_SEALED => return Err(wrong(FrameError::Forged)),
                    sealed => 2 + sealed,
                },
            };
            if self.have == len && len > 2 {
                self.have = 0;
                return Ok(true);
            }
            // At most a frame, which is not much: 64 KiB.
            self.frame.resize(len, 0);
            match wire.read(&mut self.frame[self.have..]) {
                // Only a frame of its own says that the other side has nothing more to say: any attacker can end a stream.
                Ok(0) => return Err(cut_off(Errno::ECONNRESET)),
                Ok(read) => self.have += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(cut_off(errno_of(&error))),
            }
        }
    }

    fn open(&mut self, cipher: &Cipher, most: usize) -> Result<(), TryRecvError> {
        let (before, sealed) = (self.message.len(), &self.frame[2..]);
        // What is opened is written behind the message: its kind, which goes again, and the part.
        let plain = sealed.len() - 16;
        if self.message.try_reserve(plain).is_err() {
            return Err(TryRecvError::failed("get memory for a message", Errno::ENOMEM));
        }
        self.message.resize(before + plain, 0);
        let opened = cipher.open(self.opened, sealed, &mut self.message[before..]);
        let opened = opened.inspect_err(|_| self.message.truncate(before)).map_err(wrong)?;
        self.opened += 1;
        self.message.remove_first(before);
        match opened {
            // Parts are as long as they can be, or the other side would make us turn in circles for nothing.
            (RecordKind::More, MAX_FRAME_BYTES) if self.message.len() <= most => Ok(()),
            (RecordKind::Last, _) if self.message.len() <= most => {
                self.whole = true;
                Ok(())
            }
            (RecordKind::Never, 0) if before > 0 => {
                self.message = Vec::new();
                Ok(())
            }
            (RecordKind::Close, 0) if before == 0 => Err(TryRecvError::Disconnected),
            _ => {
                self.message = Vec::new();
                Err(wrong(FrameError::Nonsense))
            }
        }
    }
}

/// Taking out a byte where a part begins.
trait RemoveFirst {
    fn remove_first(&mut self, at: usize);
}

impl RemoveFirst for Vec<u8> {
    fn remove_first(&mut self, at: usize) {
        self.drain(at..=at);
    }
}

#[cold]
fn wrong(wrong: FrameError) -> TryRecvError {
    let (step, errno) = match wrong {
        FrameError::Forged => {
            ("receive a message (a frame was changed, replaced or left out on its way; connect again)", Errno::EBADMSG)
        }
        FrameError::Nonsense => {
            ("receive a message (the other side broke the rules of the connection; connect again)", Errno::EPROTO)
        }
    };
    TryRecvError::failed(step, errno)
}

#[cold]
fn cut_off(errno: Errno) -> TryRecvError {
    TryRecvError::failed(
        "receive a message (the stream was cut off before the other side closed it; connect again)",
        errno,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::remote::frames::pair;

    /// Takes what comes of these frames, of which the wire gives so many bytes at a time.
    fn receive(cipher: &Cipher, frames: &[u8], at_once: usize, most: usize) -> FrameReader {
        struct EncryptedStream<'w>(&'w [u8], usize);
        impl Read for EncryptedStream<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                if self.0.is_empty() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let len = into.len().min(self.1);
                self.0.read(&mut into[..len])
            }
        }
        let mut receiving = FrameReader::new(0);
        receiving.go_on(&mut EncryptedStream(frames, at_once), cipher, most);
        receiving
    }

    fn sealed(cipher: &Cipher, parts: &[(RecordKind, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (kind, part)) in (0..).zip(parts) {
            cipher.seal(number, *kind, part, &mut out).unwrap();
        }
        out
    }

    #[test]
    fn a_message_is_as_long_as_it_may_be_and_no_longer() {
        let (one, other) = pair();
        let part = vec![7; MAX_FRAME_BYTES];
        let frames = sealed(&one, &[(RecordKind::More, &part), (RecordKind::Last, b"end")]);
        let len = MAX_FRAME_BYTES + 3;
        for at_once in [1000, usize::MAX] {
            let mut message = b"what was there before".to_vec();
            receive(&other, &frames, at_once, len).take(&mut message).unwrap();
            assert!(message == [&part[..], b"end"].concat());
            for most in [len - 1, MAX_FRAME_BYTES, MAX_FRAME_BYTES - 1, 0] {
                let refused = receive(&other, &frames, at_once, most).take(&mut message).unwrap_err();
                assert_eq!(refused, wrong(FrameError::Nonsense));
            }
        }
        let mut message = Vec::new();
        receive(&other, &sealed(&one, &[(RecordKind::Last, b"")]), 1, 0).take(&mut message).unwrap();
        assert!(message.is_empty());
    }

    #[test]
    fn memory_is_asked_for_as_bytes_come() {
        let (one, other) = pair();
        let part = vec![7; MAX_FRAME_BYTES];
        let frames = sealed(&one, &[(RecordKind::More, &part), (RecordKind::More, &part)]);
        // Of a frame of which not all has come, nothing is in the message.
        let receiving = receive(&other, &frames[..100], 10, usize::MAX);
        assert_eq!((receiving.message.capacity(), receiving.is_ready()), (0, false));
        let receiving = receive(&other, &frames[..frames.len() - 1], usize::MAX, usize::MAX);
        assert_eq!(receiving.message.len(), MAX_FRAME_BYTES);
        assert!(
            receiving.message.capacity() <= 2 * (MAX_FRAME_BYTES + 1) && receiving.frame.capacity() <= 2 * (1 << 16)
        );
    }
}
