//! A child that does whatever some bytes say, and the parent's end that has to bear it.
//!
//! Owns: the meaning of the bytes, and what has to hold whatever they are. Runs in: a fuzzer, and in the test that goes
//! through the inputs that the fuzzer found worth keeping. Never: is part of the library that programs get.
//!
//! An input is a list of steps: one byte that says which, and the bytes that it needs; missing ones are zero. Both sides
//! are real, but for the child's code: the link has its memory and its socket, and [`Caller`] is the one that pools use.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzzer's crate calls what the tests call"))]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;

use super::batch::{self, Items, Results};
use super::frame::{self, BufferName, Frame, FrameKind, HEAD, INLINE, RING};
use super::message::FromChild;
use super::{Body, Caller, Link, Payload, Reply, checksum, window};
use crate::codec::message::{from_bytes, to_bytes};
use crate::sys::{memory, socket};

/// Does what `input` says. Panics if the parent's end loses a call, settles one twice or out of order, or says more than
/// there is.
pub fn replay(input: &[u8]) {
    let Ok((link, control)) = Link::new(0) else { return };
    let Ok(link) = link.for_worker() else { return };
    let mut case = Case { caller: Caller::new(link), control, input, tail: 0, asked: 0, settled: 0, over: false };
    for _ in 0..200 {
        if case.input.is_empty() || case.over {
            break;
        }
        case.step();
    }
    case.end();
}

/// The parsers alone, on bytes that need no link around them.
pub fn parse(input: &[u8]) {
    if let Some(head) = input.first_chunk::<HEAD>()
        && let Ok(frame) = Frame::parse(head)
    {
        assert!(frame.extent() <= frame::MAX_FRAME_BYTES as u64 && frame.extent().is_multiple_of(HEAD as u64));
        assert!(frame.buffer.is_some() || frame.len <= INLINE as u64);
        let again = Frame::parse(&frame.bytes());
        assert_eq!(again, Ok(frame));
    }
    if let Ok(items) = Items::parse(input) {
        let (left, read) = (items.left(), items.count());
        assert!(read <= left);
        if read == left {
            let mut passed = input.to_vec();
            batch::pass_over(&mut passed, 1);
            assert_eq!(batch::left(&passed) as usize, left - 1);
        }
    }
    let mut right = input.to_vec();
    put_heads(&mut right, 0);
    for answer in [input, &right] {
        let results: Vec<_> = Results::of(answer).collect();
        assert!(results.iter().map(|(_, bytes)| bytes.len() + batch::HEAD).sum::<usize>() <= answer.len());
        for most in [0, 1, u32::MAX] {
            let tally = batch::tally(answer, most, 0);
            assert!(tally.answered <= most && tally.answered as usize <= results.len() && tally.len <= answer.len());
            assert_eq!(batch::tally(&answer[..tally.len], most, 0), tally);
        }
    }
    crate::codec::message_format::any(input);
    let _ = from_bytes::<FromChild>(input);
    let _ = from_bytes::<super::message::PanicReport>(input);
    let _ = from_bytes::<super::message::SetupRefusal>(input);
}

/// Puts heads with right sums where `answer` has the length of a result, and in the eighth byte its kind.
fn put_heads(answer: &mut [u8], serial: u64) {
    let mut at = 0;
    for number in 0.. {
        let Some((head, behind)) =
            answer.get_mut(at..).and_then(|rest| rest.split_first_chunk_mut::<{ batch::HEAD }>())
        else {
            return;
        };
        let len = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let (Some(kind), Some(result)) = (FrameKind::of_result(head[7]), behind.get(..len)) else { return };
        *head = batch::head(kind, (serial, number), result);
        at = batch::next_result(at + batch::HEAD + len);
    }
}

struct Case<'a> {
    /// What it remembers of a call is the call's number, counted from 0.
    caller: Caller<u64>,
    /// The child's end of the socket.
    control: OwnedFd,
    input: &'a [u8],
    /// The child's cursor.
    tail: u64,
    asked: u64,
    settled: u64,
    over: bool,
}

impl Case<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let len = N.min(self.input.len());
        let (taken, rest) = self.input.split_at(len);
        bytes[..len].copy_from_slice(taken);
        self.input = rest;
        bytes
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.take();
        byte
    }

    fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn step(&mut self) {
        match self.byte() % 12 {
            0 => self.push_call(),
            1 => self.push_batch(),
            2 => {
                window::claim(&self.caller.link().reply.words().window.0);
            }
            3 => self.reply(),
            4 => self.scribble(),
            5 => {
                let to = self.long();
                self.caller.link().reply.words().tail.0.store(to, SeqCst);
            }
            6 => {
                let change = self.long();
                self.caller.link().reply.words().window.0.fetch_xor(change, SeqCst);
            }
            7 => self.take_back(),
            8 => self.say(),
            9 => {
                let progress = self.long();
                self.caller.link().reply.words().progress.0.store(progress, SeqCst);
            }
            10 => self.answer_honestly(),
            _ => self.collect(),
        }
    }

    fn push_call(&mut self) {
        let len = usize::from(self.byte()) * 16;
        self.push(FrameKind::Call, vec![7; len]);
    }

    fn push_batch(&mut self) {
        let (count, len) = (self.byte() % 64, usize::from(self.byte() % 32));
        let (mut builder, mut bytes) = (batch::Builder::default(), Vec::new());
        for _ in 0..=count {
            bytes.resize(builder.next_start() + len, 7);
            assert!(builder.put(bytes.len()));
        }
        builder.finish(&mut bytes);
        self.push(FrameKind::Batch, bytes);
    }

    fn push(&mut self, kind: FrameKind, mut bytes: Vec<u8>) {
        if self.caller.has_room() {
            bytes.truncate(INLINE);
            assert!(self.caller.push(kind, 0, Payload::small(bytes), self.asked).is_ok());
            self.asked += 1;
        }
    }

    /// A frame that may be right, with the right sum or without.
    fn reply(&mut self) {
        let [kind, slot, sealed] = self.take();
        let serial = u64::from(self.byte());
        let (len, id) = (u64::from(u16::from_le_bytes(self.take())), u32::from(self.byte()));
        let [fill] = self.take();
        let buffer = (id != 0).then_some(BufferName { slot, id });
        let mut head = Frame { kind: FrameKind::Skip, task: 0, serial, len, pages: 0, handles: 0, buffer }.bytes();
        head[0] = kind;
        let inline = if buffer.is_some() { 0 } else { usize::try_from(len).map_or(INLINE, |len| len.min(INLINE)) };
        let mut payload: Vec<u8> = std::iter::repeat_n(fill, inline).collect();
        let given = self.input.len().min(usize::from(sealed >> 1)).min(inline);
        payload[..given].copy_from_slice(&self.input[..given]);
        self.input = &self.input[given..];
        if sealed & 1 == 0 && kind == FrameKind::Results as u8 {
            put_heads(&mut payload, serial);
            checksum::write(&mut head, &[]);
        } else if sealed & 1 == 0 {
            checksum::write(&mut head, &payload);
        }
        self.publish(head, &payload);
    }

    /// Answers as a child does that has claimed the oldest call.
    fn answer_honestly(&mut self) {
        let window = &self.caller.link().reply.words().window.0;
        window::claim(window);
        let serial = u64::from(self.byte());
        let mut head =
            Frame { kind: FrameKind::Done, task: 0, serial, len: 8, pages: 0, handles: 0, buffer: None }.bytes();
        checksum::write(&mut head, &[1; 8]);
        self.publish(head, &[1; 8]);
    }

    fn publish(&mut self, head: [u8; HEAD], payload: &[u8]) {
        let extent = (HEAD + payload.len().next_multiple_of(HEAD)) as u64;
        let half = &self.caller.link().reply;
        let at = frame::room_for(self.tail, extent);
        if at != self.tail {
            half.write(frame::place(self.tail), &[FrameKind::Skip as u8]);
        }
        half.write(frame::place(at), &head);
        half.write(frame::place(at) + HEAD, payload);
        self.tail = at + extent;
        half.words().tail.0.store(self.tail, SeqCst);
    }

    fn scribble(&mut self) {
        let at = usize::from(u16::from_le_bytes(self.take())) * 2;
        let garbage = self.take::<24>();
        self.caller.link().reply.write(at.min(RING - garbage.len()), &garbage);
    }

    fn take_back(&mut self) {
        let most = u32::from(self.byte());
        let back = self.caller.take_back(most);
        // They are the newest, in order, and no other process has them.
        let first = self.asked - back.len() as u64;
        assert!(back.iter().map(|(number, _)| *number).eq(first..self.asked));
        assert!(first >= self.settled);
        self.asked = first;
    }

    /// Says something on the control socket, perhaps with memory beside it.
    fn say(&mut self) {
        let [how, slot, id] = self.take();
        let message = match how % 4 {
            0 => self.take::<4>().to_vec(),
            1 => Vec::new(),
            _ => to_bytes(&FromChild::ShmBuffer { slot, id: u32::from(id) }),
        };
        let Ok(memory) = memory::create("fuzz", 4096) else { return };
        let beside = if how & 4 == 0 { &[memory.as_fd()][..] } else { &[] };
        // It may be full.
        let _ = socket::send(self.control.as_fd(), &message, beside);
    }

    fn collect(&mut self) {
        let (settled, asked) = (&mut self.settled, self.asked);
        let collected = self.caller.collect(|number, reply| {
            assert!(number == *settled && number < asked, "call {number} is not the oldest");
            *settled += 1;
            check(&reply);
        });
        assert!(!matches!(collected, Ok(false)) || !self.caller.has_reply());
        self.over = collected.is_err();
    }

    /// The child is dead, or is killed for what it did.
    fn end(mut self) {
        if !self.over {
            self.collect();
        }
        let remains = self.caller.in_flight_at_exit();
        let running = remains.running.into_iter().map(|(number, _)| number);
        let unclaimed = remains.unclaimed.into_iter().map(|(number, _)| number);
        assert!(running.chain(unclaimed).eq(self.settled..self.asked), "calls are lost");
        if let Some(salvaged) = remains.salvaged {
            let bytes = salvaged.body.bytes().unwrap_or_default();
            assert_eq!(Results::of(bytes).count(), salvaged.tally.answered as usize);
        }
    }
}

fn check(reply: &Reply) {
    assert!(!matches!(reply.kind, FrameKind::Skip | FrameKind::Setup | FrameKind::Call | FrameKind::Batch));
    let len = reply.body.bytes().map_or(0, <[u8]>::len);
    if let Body::Small(..) = reply.body {
        assert!(len <= INLINE);
    }
    if let (Some(of_batch), Ok(bytes)) = (&reply.batch, reply.body.bytes()) {
        assert!(of_batch.tally.answered > 0 && of_batch.tally.len == len);
        assert_eq!(Results::of(bytes).count(), of_batch.tally.answered as usize);
    }
    // Read to the end, as a decoder would.
    assert!(
        reply
            .body
            .bytes()
            .is_ok_and(|bytes| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>() <= 255 * len as u64)
            || len == 0
    );
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// The inputs that the fuzzer kept because each reaches something that the others do not.
    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let entries = fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
        let inputs: Vec<_> = entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
        assert!(inputs.len() >= 20, "{} inputs in {}", inputs.len(), folder.display());
        inputs
    }

    #[test]
    fn no_child_can_confuse_its_parent() {
        for input in corpus("link") {
            super::replay(&input);
        }
    }

    #[test]
    fn no_bytes_can_confuse_a_parser() {
        for input in corpus("parse") {
            super::parse(&input);
        }
    }
}
