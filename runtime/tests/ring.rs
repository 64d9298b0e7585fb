//! Two threads on a ring of heap memory: frames, window, bell, sums and batches as a link uses them, without a system call.
//!
//! The files that hold the rules are compiled here a second time. What they are used on is a small parent and a small
//! child that copy frames with raw pointers, as the runtime does with what it maps, so that Miri sees every access:
//!
//! ```text
//! cargo +nightly miri test -p process-task --test ring -- --skip tests::
//! ```
//! Runs in: one process, without children. Never: shares more between its threads than a link does.
#![expect(unsafe_code, reason = "copying frames into memory that another thread reads")]

mod codec {
    pub(crate) const ALIGNMENT: usize = 16;
}
mod atomic {
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}
#[path = "../src/link/batch.rs"]
mod batch;
#[path = "../src/link/checksum.rs"]
mod checksum;
#[path = "../src/link/doorbell.rs"]
mod doorbell;
#[path = "../src/link/frame.rs"]
mod frame;
#[path = "../src/link/window.rs"]
mod window;

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::sync::{Condvar, Mutex};
use std::thread;

use frame::{Frame, FrameKind, HEAD, INLINE, MAX_FRAME_BYTES, RING};
use window::{MAX_IN_FLIGHT, Window};

/// How many calls go through the ring, and how long the longest is: many laps, or under Miri, which is slow, one.
const CALLS: u64 = if cfg!(miri) { 60 } else { 20_000 };
const LONGEST_PAYLOAD: u64 = if cfg!(miri) { 600 } else { INLINE as u64 };

/// Where both sides' cursors begin: soon, the ring comes to its end.
const START: u64 = RING as u64 - 2 * MAX_FRAME_BYTES as u64;

/// Bytes that two threads copy to and from. The window and the tail say which may do so when.
///
/// A raw pointer, as to mapped memory: Miri would go through all of a reference's memory at each use.
struct Bytes(*mut [u8]);

// SAFETY: the memory belongs to no thread.
unsafe impl Send for Bytes {}
// SAFETY: every access goes through `read` and `write`, and the protocol under test keeps them apart.
unsafe impl Sync for Bytes {}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: it came from a box, and the threads that used it have ended.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

impl Bytes {
    fn new() -> Self {
        Self(Box::into_raw(vec![0; RING].into_boxed_slice()))
    }

    fn start(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at + len <= RING);
        self.0.cast::<u8>().wrapping_add(at)
    }

    fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let from = self.start(at, len);
        // SAFETY: `start` keeps the range inside; that nothing writes there meanwhile is what Miri watches over.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len) };
        bytes
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        let to = self.start(at, bytes.len());
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    fn head(&self, at: u64) -> [u8; HEAD] {
        self.read(frame::place(at), HEAD).try_into().unwrap()
    }

    /// Puts a frame where there is room for it from `cursor` on; returns where it is.
    fn put(&self, cursor: u64, head: Frame, payload: &[u8]) -> u64 {
        let at = frame::room_for(cursor, head.extent());
        if at != cursor {
            self.write(frame::place(cursor), &Frame::SKIP.bytes());
        }
        let mut bytes = head.bytes();
        checksum::write(&mut bytes, payload);
        self.write(frame::place(at), &bytes);
        self.write(frame::place(at) + HEAD, payload);
        at
    }

    /// The frame at `cursor`, or the one that a skip there leads to, and where the next one is.
    fn get(&self, mut cursor: u64) -> (Frame, Vec<u8>, u64) {
        loop {
            let bytes = self.head(cursor);
            let head = Frame::parse(&bytes).expect("a frame that the other thread wrote");
            if head.kind == FrameKind::Skip {
                cursor = frame::next_lap(cursor + 1);
                continue;
            }
            let payload = self.read(frame::place(cursor) + HEAD, usize::try_from(head.len).unwrap());
            assert!(checksum::verify(&bytes, &payload), "a frame was written over");
            return (head, payload, cursor + head.extent());
        }
    }
}

/// A lock and a bell that was rung or not: what a futex and an eventfd are in a link.
struct Bed {
    rung: Mutex<bool>,
    waking: Condvar,
}

impl Bed {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.waking.notify_one();
    }

    fn listen(&self) {
        let mut rung = self.waking.wait_while(self.rung.lock().unwrap(), |rung| !*rung).unwrap();
        *rung = false;
    }

    /// Sleeps while the word says so.
    fn wait_on(&self, word: &AtomicU32) {
        drop(self.waking.wait_while(self.rung.lock().unwrap(), |_| word.load(SeqCst) == 1).unwrap());
    }

    fn wake(&self) {
        let _rung = self.rung.lock().unwrap();
        self.waking.notify_one();
    }
}

struct Link {
    request: Bytes,
    reply: Bytes,
    window: AtomicU64,
    parked: AtomicU32,
    tail: AtomicU64,
    progress: AtomicU64,
    notify_reply: AtomicU32,
    notify_idle: AtomicU32,
    shutdown: AtomicU32,
    child_bed: Bed,
    parent_bed: Bed,
}

impl Link {
    fn new() -> Self {
        let bed = || Bed { rung: Mutex::new(false), waking: Condvar::new() };
        Self {
            request: Bytes::new(),
            reply: Bytes::new(),
            window: AtomicU64::new(0),
            parked: AtomicU32::new(0),
            tail: AtomicU64::new(START),
            progress: AtomicU64::new(0),
            notify_reply: AtomicU32::new(0),
            notify_idle: AtomicU32::new(0),
            shutdown: AtomicU32::new(0),
            child_bed: bed(),
            parent_bed: bed(),
        }
    }

    fn rouse(&self) {
        if doorbell::must_wake(&self.parked) {
            self.child_bed.wake();
        }
    }

    /// Runs in: the child's thread.
    fn serve(&self) {
        let (mut read, mut write) = (START, START);
        loop {
            let closed = self.shutdown.load(Acquire) != 0;
            if window::claim(&self.window) {
                let (head, payload, next) = self.request.get(read);
                read = next;
                write = match head.kind {
                    FrameKind::Batch => self.answer_batch(write, head.serial, &payload),
                    _ => self.answer(write, head.serial, FrameKind::Done, &reversed(&payload)),
                };
                self.tail.store(write, Release);
                if doorbell::must_notify(&self.notify_reply) {
                    self.parent_bed.ring();
                }
            } else if closed {
                return;
            } else {
                if doorbell::park(&self.parked, &self.window, &self.shutdown) {
                    if doorbell::must_notify_idle(&self.notify_idle) {
                        self.parent_bed.ring();
                    }
                    self.child_bed.wait_on(&self.parked);
                }
                doorbell::unpark(&self.parked);
            }
        }
    }

    fn answer(&self, write: u64, serial: u64, kind: FrameKind, payload: &[u8]) -> u64 {
        let head = Frame { kind, task: 0, serial, len: payload.len() as u64, pages: 0, handles: 0, buffer: None };
        self.reply.put(write, head, payload) + head.extent()
    }

    /// Puts one result after the other where the answer will stand.
    fn answer_batch(&self, write: u64, serial: u64, request: &[u8]) -> u64 {
        let items = batch::Items::parse(request).expect("a batch that the parent wrote");
        let at = frame::room_for(write, MAX_FRAME_BYTES as u64);
        if at != write {
            self.reply.write(frame::place(write), &Frame::SKIP.bytes());
        }
        let (mut len, mut done) = (0, 0);
        for item in items {
            let result = reversed(item);
            let place = frame::place(at) + HEAD + len;
            self.reply.write(place, &batch::head(FrameKind::Done, (serial, done), &result));
            self.reply.write(place + batch::HEAD, &result);
            len = batch::next_result(len + batch::HEAD + result.len());
            done += 1;
            self.progress.store(serial << 32 | done, Release);
        }
        let payload = self.reply.read(frame::place(at) + HEAD, len);
        self.answer(at, serial, FrameKind::Results, &payload)
    }
}

fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

/// The bytes that only this number has; of all lengths that fit into a frame.
fn payload(number: u64) -> Vec<u8> {
    let len = number.wrapping_mul(number).wrapping_mul(7) % (LONGEST_PAYLOAD + 1);
    (0..len).map(|at| (number.wrapping_add(at) & 0xff) as u8).collect()
}

/// The parent's private part.
struct Parent<'a> {
    link: &'a Link,
    write: u64,
    read: u64,
    serial: u64,
    /// Serial, where its frame began, and the call's number.
    in_flight: VecDeque<(u64, u64, u64)>,
    answered: Vec<u64>,
}

impl<'a> Parent<'a> {
    fn of(link: &'a Link) -> Self {
        Self { link, write: START, read: START, serial: 0, in_flight: VecDeque::new(), answered: Vec::new() }
    }

    fn push(&mut self, kind: FrameKind, number: u64, payload: &[u8]) {
        self.serial += 1;
        let head =
            Frame { kind, task: 0, serial: self.serial, len: payload.len() as u64, pages: 0, handles: 0, buffer: None };
        self.in_flight.push_back((self.serial, self.write, number));
        self.write = self.link.request.put(self.write, head, payload) + head.extent();
        window::push(&self.link.window, 1);
        self.link.rouse();
    }

    fn take_back(&mut self) -> Vec<u64> {
        let taken = window::take_back(&self.link.window, 3);
        fence(SeqCst);
        let back = self.in_flight.split_off(self.in_flight.len() - taken as usize);
        if let Some((_, start, _)) = back.front() {
            self.write = *start;
        }
        back.into_iter().map(|(_, _, number)| number).collect()
    }

    /// Takes what there is; says whether there was something.
    fn collect(&mut self, mut check: impl FnMut(u64, FrameKind, &[u8])) -> bool {
        let tail = self.link.tail.load(Acquire);
        let any = self.read != tail;
        while self.read < tail {
            let (head, payload, next) = self.link.reply.get(self.read);
            let (serial, _, number) = self.in_flight.pop_front().expect("a call in flight");
            assert_eq!(head.serial, serial, "the oldest is answered first");
            self.read = next;
            check(number, head.kind, &payload);
            self.answered.push(number);
        }
        any
    }

    fn sleep(&self) {
        doorbell::set_flag(&self.link.notify_reply, 1);
        if self.link.tail.load(Acquire) == self.read {
            self.link.parent_bed.listen();
        }
        doorbell::set_flag(&self.link.notify_reply, 0);
    }
}

#[test]
fn every_call_goes_through_the_ring_once_and_comes_back() {
    let link = Link::new();
    thread::scope(|scope| {
        scope.spawn(|| link.serve());
        let mut parent = Parent::of(&link);
        let mut waiting: VecDeque<u64> = (0..CALLS).collect();
        let mut turn = 0u32;
        while parent.answered.len() as u64 != CALLS {
            turn += 1;
            while parent.in_flight.len() < MAX_IN_FLIGHT as usize
                && let Some(number) = waiting.pop_front()
            {
                parent.push(FrameKind::Call, number, &payload(number));
            }
            if turn.is_multiple_of(5) {
                let back = parent.take_back();
                back.into_iter().rev().for_each(|number| waiting.push_front(number));
            }
            let any = parent.collect(|number, _, reply| assert_eq!(reply, reversed(&payload(number)), "call {number}"));
            if !any && !parent.in_flight.is_empty() {
                parent.sleep();
            }
        }
        assert!(parent.answered.iter().copied().eq(0..CALLS), "each once, in order");
        link.shutdown.store(1, SeqCst);
        link.rouse();
    });
    assert_eq!(Window::look(&link.window).unclaimed(), 0);
}

#[test]
fn results_of_a_batch_lie_where_the_parent_finds_them() {
    let link = Link::new();
    let item = |number: u64, at: u64| payload(number * 31 + at).into_iter().take(70).collect::<Vec<_>>();
    thread::scope(|scope| {
        scope.spawn(|| link.serve());
        let mut parent = Parent::of(&link);
        for number in 0..if cfg!(miri) { 3 } else { CALLS / 10 } {
            let (mut builder, mut request) = (batch::Builder::default(), Vec::new());
            let items: Vec<_> = (0..20).map(|at| item(number, at)).collect();
            for item in &items {
                request.resize(builder.next_start(), 0);
                request.extend_from_slice(item);
                assert!(builder.put(request.len()));
            }
            builder.finish(&mut request);
            parent.push(FrameKind::Batch, number, &request);
            let check = |_, kind, reply: &[u8]| {
                assert_eq!(kind, FrameKind::Results);
                let results: Vec<_> = batch::Results::of(reply).map(|(_, result)| result.to_vec()).collect();
                assert_eq!(results, items.iter().map(|item| reversed(item)).collect::<Vec<_>>());
            };
            while !parent.collect(check) {
                parent.sleep();
            }
            assert_eq!(link.progress.load(Acquire), parent.serial << 32 | items.len() as u64);
        }
        link.shutdown.store(1, SeqCst);
        link.rouse();
    });
}
