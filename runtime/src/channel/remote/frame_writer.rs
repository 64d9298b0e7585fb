//! Writes messages as frames.
//!
//! Owns: [`FrameWriter`], one direction of a stream. Runs in: both sides of a connection between machines.
//! Never: reports a message as sent that cannot arrive whole, or as not sent when it can.
//!
//! A frame that has begun to leave has to leave to its end, whatever its sender does. So a message that is given up halfway
//! is ended with [`RecordKind::Never`], in front of the next one. Only of a frame of which no byte has left is the number given
//! to another.

use std::io::{self, Write};

use super::frames::{Cipher, MAX_FRAME_BYTES, RecordKind};
use crate::channel::error::NotSent;
use crate::sys::{Errno, errno_of};

/// How a message left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteResult {
    /// All of it is with the kernel.
    Whole,
    /// It will arrive if [`FrameWriter::flush`] is called until it is done: the rest of its last frame has not left yet.
    AllButTheEnd,
}

/// What has still to leave.
#[derive(Debug)]
pub(super) struct FrameWriter {
    /// How many frames were sealed.
    sealed: u64,
    /// The frame that leaves.
    frame: Vec<u8>,
    /// How much of it has left.
    left: usize,
    /// Parts of a message that was given up have left.
    given_up: bool,
    /// The last frame is sealed.
    closing: bool,
    /// The wire is of no use any more.
    end: Option<NotSent>,
}

/// Waits until the wire can be written to; false if that took too long.
pub(super) type WaitFn<'w> = &'w mut dyn FnMut() -> Result<bool, Errno>;

impl FrameWriter {
    pub(super) fn new(sealed: u64) -> Self {
        Self { sealed, frame: Vec::new(), left: 0, given_up: false, closing: false, end: None }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// `NotSent::Full` if `wait` says that it took too long; then it will never arrive.
    pub(super) fn message(
        &mut self,
        bytes: &[u8],
        cipher: &Cipher,
        wire: &mut impl Write,
        wait: WaitFn<'_>,
    ) -> Result<WriteResult, NotSent> {
        if self.closing {
            return Err(NotSent::Disconnected(()));
        }
        self.give_up(cipher, wire, wait)?;
        let (mut parts, mut some_left) = (bytes.chunks(MAX_FRAME_BYTES).peekable(), false);
        // A message of no bytes has one part, too.
        let mut next = parts.next().or(Some(&[]));
        while let Some(part) = next {
            let kind = if parts.peek().is_some() { RecordKind::More } else { RecordKind::Last };
            self.seal(kind, part, cipher)?;
            match self.flush(wire, wait) {
                Ok(()) => {}
                Err(NotSent::Full(())) => {
                    if self.left == 0 {
                        self.frame.clear();
                        self.sealed -= 1;
                        self.given_up = some_left;
                    } else if kind == RecordKind::Last {
                        return Ok(WriteResult::AllButTheEnd);
                    } else {
                        self.given_up = true;
                    }
                    return Err(NotSent::Full(()));
                }
                Err(end) => return Err(end),
            }
            some_left = true;
            next = parts.next();
        }
        Ok(WriteResult::Whole)
    }

    /// Says that nothing follows, or goes on to do so.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub(super) fn close(&mut self, cipher: &Cipher, wire: &mut impl Write, wait: WaitFn<'_>) -> Result<(), NotSent> {
        if !self.closing {
            self.give_up(cipher, wire, wait)?;
            self.closing = true;
            self.seal(RecordKind::Close, &[], cipher)?;
        }
        self.flush(wire, wait)
    }

    /// Sends the rest of the frame that leaves.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub(super) fn flush(&mut self, wire: &mut impl Write, wait: WaitFn<'_>) -> Result<(), NotSent> {
        match &self.end {
            Some(end) => Err(end.clone()),
            None => self.write(wire, wait),
        }
    }

    /// Has what was left unfinished out of the way of the next message.
    fn give_up(&mut self, cipher: &Cipher, wire: &mut impl Write, wait: WaitFn<'_>) -> Result<(), NotSent> {
        self.flush(wire, wait)?;
        if self.given_up {
            self.given_up = false;
            self.seal(RecordKind::Never, &[], cipher)?;
            self.flush(wire, wait)?;
        }
        Ok(())
    }

    fn seal(&mut self, kind: RecordKind, part: &[u8], cipher: &Cipher) -> Result<(), NotSent> {
        self.frame.clear();
        self.left = 0;
        let sealed = cipher.seal(self.sealed, kind, part, &mut self.frame);
        self.sealed += 1;
        sealed.map_err(|_| failed("seal a frame", Errno::EOVERFLOW))
    }

    fn write(&mut self, wire: &mut impl Write, wait: WaitFn<'_>) -> Result<(), NotSent> {
        while self.left < self.frame.len() {
            let end = match wire.write(&self.frame[self.left..]) {
                Ok(written) => {
                    self.left += written;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match wait() {
                    Ok(true) => continue,
                    Ok(false) => return Err(NotSent::Full(())),
                    Err(errno) => failed("wait for room", errno),
                },
                Err(error) => match errno_of(&error) {
                    Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN | Errno::ETIMEDOUT => NotSent::Disconnected(()),
                    errno => failed("send a message", errno),
                },
            };
            self.end = Some(end.clone());
            return Err(end);
        }
        self.frame.clear();
        self.left = 0;
        Ok(())
    }
}

fn failed(step: &'static str, errno: Errno) -> NotSent {
    NotSent::failed(step, errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::remote::frame_reader::FrameReader;
    use crate::channel::remote::frames::pair;

    /// A wire with so much room.
    struct Narrow {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(self.room);
            if len == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= len;
            self.bytes.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn wherever_a_message_gets_stuck_it_arrives_whole_or_never() {
        let (long, short) = (vec![7; 2 * MAX_FRAME_BYTES + 5], b"short".to_vec());
        let frame = 2 + 1 + MAX_FRAME_BYTES + 16;
        let last = 2 + 1 + 5 + 16;
        let edges = [0, frame, 2 * frame, 2 * frame + last];
        for room in edges.into_iter().flat_map(|edge| edge.saturating_sub(2)..edge + 3) {
            let (one, other) = pair();
            let (mut sending, mut wire) = (FrameWriter::new(0), Narrow { bytes: Vec::new(), room });
            let stuck = sending.message(&long, &one, &mut wire, &mut || Ok(false));
            let expected = match room {
                _ if room >= 2 * frame + last => Ok(WriteResult::Whole),
                _ if room > 2 * frame => Ok(WriteResult::AllButTheEnd),
                _ => Err(NotSent::Full(())),
            };
            assert_eq!(stuck, expected, "{room}");
            wire.room = usize::MAX;
            sending.message(&short, &one, &mut wire, &mut || Ok(false)).unwrap();
            sending.close(&one, &mut wire, &mut || Ok(false)).unwrap();
            assert_eq!(sending.message(&short, &one, &mut wire, &mut || Ok(false)), Err(NotSent::Disconnected(())));

            let (mut receiving, mut message, mut came) = (FrameReader::new(0), Vec::new(), Vec::new());
            let mut bytes = &wire.bytes[..];
            let end = loop {
                receiving.go_on(&mut bytes, &other, usize::MAX);
                match receiving.take(&mut message) {
                    Ok(()) => came.push(message.clone()),
                    Err(end) => break end,
                }
            };
            let all = if stuck.is_ok() { vec![long.clone(), short.clone()] } else { vec![short.clone()] };
            assert!(
                came == all && end == crate::channel::TryRecvError::Disconnected && bytes.is_empty(),
                "{room}: {end:?}"
            );
        }
    }

    #[test]
    fn no_two_frames_that_left_have_the_same_number() {
        let (one, other) = pair();
        let (mut sending, mut wire) = (FrameWriter::new(0), Narrow { bytes: Vec::new(), room: 0 });
        // Nothing of it has left, so its number is another's, again and again.
        for _ in 0..3 {
            assert_eq!(sending.message(b"a", &one, &mut wire, &mut || Ok(false)), Err(NotSent::Full(())));
        }
        wire.room = usize::MAX;
        sending.message(b"b", &one, &mut wire, &mut || Ok(false)).unwrap();
        let mut part = [0; 2];
        assert_eq!(other.open(0, &wire.bytes[2..], &mut part), Ok((RecordKind::Last, 1)));
        assert_eq!(part[1], b'b');
    }
}
