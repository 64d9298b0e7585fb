//! Memory for messages that are too long for a packet: made once, kept warm, filled again and again.
//!
//! Owns: [`OutgoingBuffers`], what one end fills, and [`IncomingBuffers`], what it reads. Runs in: any process.
//! Invariant: a parcel is filled again only after its reader has released it.
//!
//! A parcel is a memfd: a page that holds one word, then the message. Its descriptor goes with every message that is in it,
//! so that it does not matter which process holds the other end by now; a process that has seen it before, by its number,
//! has it mapped already.
//!
//! # Which side's turn it is
//!
//! | [`BufferOwner::turn`] | the parcel is | written next by |
//! |---|---|---|
//! | [`OWNED_BY_WRITER`] | kept, or being filled | the writer: [`OWNED_BY_READER`] when the message is sent, [`ABANDONED`] |
//! | [`OWNED_BY_READER`] | with its message, on its way or being read | the reader: [`OWNED_BY_WRITER`] when the message is read; or the writer: [`ABANDONED`] |
//! | [`ABANDONED`] | let go of by its writer, or of one that is gone | none |
//!
//! A writer that dies leaves what it sent: the memory lives as long as its descriptor is on its way, or mapped. A message
//! that it was filling was never sent, and goes with it. A reader that dies leaves [`OWNED_BY_READER`]: its writer finds the
//! connection closed. If others hold the reading end, too, the connection is open; a writer that needs room then sees that
//! all was received long ago, and lets go of the parcel, which is always allowed: a process that maps it keeps it.
//!
//! # How much there is
//!
//! One message of any length is on its way at a time, or several, [`MAX_BUFFERS`] at most, of [`MAX_BUFFER_BYTES`] bytes together; a sender
//! of more waits. As much is kept warm. What is longer than that is given back by its reader at once; what is kept goes
//! when [`SHORT_MESSAGES_UNTIL_IDLE`] short messages were sent since the last long one, or the end is dropped.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::channel::error::NotSent;
use crate::codec::Spill;
use crate::shared::{MappedHeader, words};
use crate::sync::deadline::Deadline;
use crate::sys::mutex::MutexExt as _;

use crate::sys::fd::{self, FileId};
use crate::sys::memory::{self, Access, Map};
use crate::sys::{self, atfork, futex, packet, poll};

/// The name of the memory in `/proc/<pid>/maps`.
const NAME: &str = "process-task-message";

/// Number of messages that may be under way in parcels.
const MAX_BUFFERS: usize = 8;

/// Number of bytes that may be under way in parcels. As many are kept warm.
const MAX_BUFFER_BYTES: usize = 64 << 20;

/// Number of short messages in a row after which parcels are freed.
const SHORT_MESSAGES_UNTIL_IDLE: u32 = 100;

/// The longest sleep before the next look.
pub(super) const ROOM_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// How long a reader that has received all may keep a parcel. A reader that keeps one longer is dead, or so slow that another
/// parcel costs less.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The word of a parcel.
#[derive(Debug)]
#[repr(C)]
struct BufferOwner {
    turn: AtomicU32,
}

words! {
    BufferOwner { turn: AtomicU32 }
}

const OWNED_BY_WRITER: u32 = 0;
const OWNED_BY_READER: u32 = 1;
const ABANDONED: u32 = 2;

/// Where the message begins.
const MESSAGE: usize = MappedHeader::<BufferOwner>::size_with(0);

/// A parcel of ours.
#[derive(Debug)]
pub(super) struct MessageBuffer {
    fd: OwnedFd,
    /// The first page; held longer by threads that wait for it.
    word: Arc<MappedHeader<BufferOwner>>,
    map: Map,
    /// When it was first seen that it was received, if it was looked for.
    received: Option<Instant>,
    /// Which process it belongs to, where the host calls `fork()`.
    generation: u64,
}

impl MessageBuffer {
    fn new(len: usize) -> sys::Result<Self> {
        const STEP: usize = 2 << 20;
        let len = MESSAGE.saturating_add(len);
        let len = if len < STEP { len.next_power_of_two().max(64 << 10) } else { len.next_multiple_of(STEP) };
        let (fd, map) = memory::create_huge(NAME, len)?;
        let word = Arc::new(MappedHeader::map(fd.as_fd(), 0, Access::Write)?);
        Ok(Self { fd, word, map, received: None, generation: atfork::generation() })
    }

    /// How long a message may be.
    fn room(&self) -> usize {
        self.map.len() - MESSAGE
    }

    fn turn(&self) -> &AtomicU32 {
        &self.word.words().turn
    }

    /// The descriptor that goes with the message.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for MessageBuffer {
    fn drop(&mut self) {
        if self.generation == atfork::generation() {
            self.turn().store(ABANDONED, Relaxed);
        }
    }
}

/// The parcels that one end fills.
#[derive(Debug, Default)]
pub(super) struct OutgoingBuffers {
    stock: Mutex<MessagePool>,
    quiet: IdleCounter,
}

#[derive(Debug, Default)]
struct MessagePool {
    generation: u64,
    /// The oldest first.
    sent: VecDeque<MessageBuffer>,
    /// Those that were let go of the longest time ago first.
    warm: Vec<MessageBuffer>,
}

impl OutgoingBuffers {
    /// A short message is about to go.
    #[inline]
    pub(super) fn short(&self) {
        if self.quiet.is_enough() {
            let mut stock = self.stock();
            stock.take_back();
            stock.warm.clear();
            self.quiet.begin(!stock.sent.is_empty());
        }
    }

    fn stock(&self) -> MutexGuard<'_, MessagePool> {
        let mut stock = self.stock.lock_unpoisoned();
        // A copy made by `fork()` fills no memory of its original's.
        if stock.generation != atfork::generation() {
            *stock = MessagePool { generation: atfork::generation(), ..MessagePool::default() };
        }
        stock
    }

    /// A parcel for so long a message; if `largest`, the largest that is kept, since it will become longer.
    fn lend(
        &self,
        socket: BorrowedFd<'_>,
        (len, largest): (usize, bool),
        deadline: Deadline,
    ) -> Result<MessageBuffer, NotSent> {
        loop {
            let mut stock = self.stock();
            stock.take_back();
            if stock.has_room(len) {
                let parcel = stock.take(len, largest);
                let step = "reserve memory for a long message";
                return parcel.map_err(|errno| NotSent::failed(step, errno));
            }
            if packet::is_drained(socket) && stock.give_up() {
                continue;
            }
            let Some(oldest) = stock.sent.front().map(|oldest| Arc::clone(&oldest.word)) else { continue };
            drop(stock);
            if poll::is_hung_up(socket) {
                return Err(NotSent::Disconnected(()));
            }
            let left = deadline.instant().map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(NotSent::Full(()));
            }
            futex::wait_until(
                &oldest.words().turn,
                OWNED_BY_READER,
                left.map_or(ROOM_CHECK_INTERVAL, |left| left.min(ROOM_CHECK_INTERVAL)),
            );
        }
    }

    /// Keeps a parcel with a message that was not sent.
    fn give_back(&self, parcel: MessageBuffer) {
        self.stock().keep(parcel);
    }
}

impl MessagePool {
    /// Takes back what was read.
    fn take_back(&mut self) {
        let mut at = 0;
        while let Some(parcel) = self.sent.get(at) {
            if parcel.turn().load(Acquire) == OWNED_BY_READER {
                at += 1;
            } else if let Some(parcel) = self.sent.remove(at) {
                self.keep(parcel);
            }
        }
    }

    /// All that was sent was received. Lets go of what was so long ago, and says whether there was any.
    fn give_up(&mut self) -> bool {
        let before = self.sent.len();
        self.sent.retain_mut(|parcel| parcel.received.get_or_insert_with(Instant::now).elapsed() < RELEASE_TIMEOUT);
        self.sent.len() < before
    }

    /// How much memory there is, all in all.
    fn bytes(&self) -> usize {
        self.sent.iter().chain(&self.warm).map(|parcel| parcel.map.len()).sum()
    }

    fn keep(&mut self, mut parcel: MessageBuffer) {
        parcel.turn().store(OWNED_BY_WRITER, Relaxed);
        parcel.received = None;
        if self.bytes().saturating_add(parcel.map.len()) <= MAX_BUFFER_BYTES
            && self.warm.len() + self.sent.len() < MAX_BUFFERS
        {
            self.warm.push(parcel);
        }
    }

    /// Whether one more message of this length may be on its way.
    fn has_room(&self, len: usize) -> bool {
        let sent: usize = self.sent.iter().map(|parcel| parcel.map.len()).sum();
        self.sent.is_empty() || (self.sent.len() < MAX_BUFFERS && sent.saturating_add(len) <= MAX_BUFFER_BYTES)
    }

    fn take(&mut self, len: usize, largest: bool) -> sys::Result<MessageBuffer> {
        let fitting = self.warm.iter().enumerate().filter(|(_, parcel)| parcel.room() >= len);
        // Of several that are as long, the one that was let go of last: it is still in a cache.
        let fitting = fitting.map(|(at, parcel)| (parcel.room(), Reverse(at)));
        let best = if largest { fitting.max() } else { fitting.min() };
        if let Some((_, Reverse(at))) = best {
            return Ok(self.warm.remove(at));
        }
        self.trim(len);
        MessageBuffer::new(len)
    }

    /// Notes that a parcel is the reader's.
    fn send(&mut self, parcel: MessageBuffer) {
        self.sent.push_back(parcel);
        // It was not counted while it was filled.
        self.trim(0);
    }

    /// Lets go of what there is too much of, with so many bytes more.
    fn trim(&mut self, more: usize) {
        while !self.warm.is_empty()
            && (self.bytes().saturating_add(more) > MAX_BUFFER_BYTES || self.warm.len() + self.sent.len() > MAX_BUFFERS)
        {
            self.warm.remove(0);
        }
    }
}

/// A parcel that is being filled, or nothing while the message is short.
#[derive(Debug)]
pub(super) struct MessageWriter<'o> {
    outgoing: &'o OutgoingBuffers,
    socket: BorrowedFd<'o>,
    deadline: Deadline,
    parcel: Option<MessageBuffer>,
    /// Why there was no memory.
    pub(super) failure: Option<NotSent>,
}

impl<'o> MessageWriter<'o> {
    pub(super) fn new(outgoing: &'o OutgoingBuffers, socket: BorrowedFd<'o>, deadline: Deadline) -> Self {
        Self { outgoing, socket, deadline, parcel: None, failure: None }
    }

    /// Has `send` send the parcel, which is the reader's from then on.
    pub(super) fn sent(mut self, send: impl FnOnce(&MessageBuffer) -> Result<(), NotSent>) -> Result<(), NotSent> {
        let Some(parcel) = self.parcel.take() else { return Ok(()) };
        // The packet carries the message's bytes over to the reader; a look at the word needs no order of its own.
        parcel.turn().store(OWNED_BY_READER, Release);
        match send(&parcel) {
            Ok(()) => {
                self.outgoing.quiet.begin(true);
                self.outgoing.stock().send(parcel);
                Ok(())
            }
            Err(kind) => {
                self.parcel = Some(parcel);
                Err(kind)
            }
        }
    }
}

impl Spill for MessageWriter<'_> {
    fn grow(&mut self, written: usize, capacity: usize) -> io::Result<()> {
        if self.parcel.as_ref().is_some_and(|parcel| parcel.room() >= capacity) {
            return Ok(());
        }
        match self.outgoing.lend(self.socket, (capacity, written > 0), self.deadline) {
            Ok(parcel) => {
                if let Some(old) = self.parcel.replace(parcel)
                    && let Some(new) = &self.parcel
                {
                    new.map.write(MESSAGE, old.map.lend(MESSAGE, written));
                    self.outgoing.give_back(old);
                }
                Ok(())
            }
            Err(kind) => {
                self.failure = Some(kind);
                Err(io::ErrorKind::OutOfMemory.into())
            }
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.parcel.as_mut().map_or(&mut [], |parcel| parcel.map.bytes_mut_from(MESSAGE))
    }
}

impl Drop for MessageWriter<'_> {
    fn drop(&mut self) {
        if let Some(parcel) = self.parcel.take() {
            self.outgoing.give_back(parcel);
        }
    }
}

/// The parcels that one end has read, still mapped.
#[derive(Debug, Default)]
pub(super) struct IncomingBuffers {
    /// Those that came last are last.
    known: Mutex<Vec<(FileId, Arc<Arrived>)>>,
    quiet: IdleCounter,
}

/// A parcel of the other end's.
#[derive(Debug)]
struct Arrived {
    word: MappedHeader<BufferOwner>,
    map: Map,
}

impl Arrived {
    fn new(fd: BorrowedFd<'_>) -> sys::Result<Self> {
        // Only memory of fixed size that is there as a whole: no process can take it away while it is mapped.
        let len = memory::checked_len_present(fd)?;
        if len < MESSAGE {
            return Err(sys::Errno::EMSGSIZE);
        }
        let word = MappedHeader::map(fd, 0, Access::Write)?;
        Ok(Self { word, map: Map::new(fd, len, Access::Read)? })
    }

    fn turn(&self) -> &AtomicU32 {
        &self.word.words().turn
    }
}

impl IncomingBuffers {
    /// A short message has come.
    #[inline]
    pub(super) fn short(&self) {
        if self.quiet.is_enough() {
            self.clear();
        }
    }

    /// No more parcels will come.
    pub(super) fn clear(&self) {
        self.known.lock_unpoisoned().clear();
        self.quiet.begin(false);
    }

    /// The parcel of this descriptor, which holds a message of this length.
    pub(super) fn open(&self, descriptor: OwnedFd, len: usize) -> sys::Result<Reading<'_>> {
        let identity = fd::file_id(descriptor.as_fd()).ok_or(sys::Errno::EBADF)?;
        let mut known = self.known.lock_unpoisoned();
        known.retain(|(_, parcel)| parcel.turn().load(Relaxed) != ABANDONED);
        let at = known.iter().position(|(other, _)| *other == identity);
        let parcel = match at.map(|at| known.remove(at)) {
            Some((_, parcel)) => parcel,
            None => Arc::new(Arrived::new(descriptor.as_fd())?),
        };
        if len > parcel.map.len() - MESSAGE {
            return Err(sys::Errno::EMSGSIZE);
        }
        if parcel.map.len() <= MAX_BUFFER_BYTES {
            known.push((identity, Arc::clone(&parcel)));
            self.quiet.begin(true);
        }
        // Those of many writers, each of which keeps as much.
        while known.len() > MAX_BUFFERS
            || known.iter().map(|(_, parcel)| parcel.map.len()).sum::<usize>() > 2 * MAX_BUFFER_BYTES
        {
            known.remove(0);
        }
        drop(known);
        Ok(Reading { descriptor, parcel, len, incoming: self })
    }
}

/// A message that is being read. Dropped, its parcel is the writer's again.
#[derive(Debug)]
pub(super) struct Reading<'i> {
    descriptor: OwnedFd,
    parcel: Arc<Arrived>,
    len: usize,
    incoming: &'i IncomingBuffers,
}

impl Reading<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        self.parcel.map.lend(MESSAGE, self.len)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let (turn, len) = (self.parcel.turn(), self.parcel.map.len());
        if len > MAX_BUFFER_BYTES {
            memory::punch_hole(self.descriptor.as_fd(), MESSAGE, len - MESSAGE);
        }
        if turn.compare_exchange(OWNED_BY_READER, OWNED_BY_WRITER, Release, Relaxed).is_ok() {
            futex::wake(turn, u32::MAX);
        } else {
            self.incoming.known.lock_unpoisoned().retain(|(_, parcel)| !Arc::ptr_eq(parcel, &self.parcel));
        }
    }
}

/// Counts the short messages since the last long one.
#[derive(Debug, Default)]
struct IdleCounter {
    /// There are parcels.
    any: AtomicBool,
    short: AtomicU32,
}

impl IdleCounter {
    /// A short message; true if no long one is expected any more, but there are parcels.
    #[inline]
    fn is_enough(&self) -> bool {
        self.any.load(Relaxed) && self.short.fetch_add(1, Relaxed) >= SHORT_MESSAGES_UNTIL_IDLE
    }

    fn begin(&self, any: bool) {
        self.short.store(0, Relaxed);
        self.any.store(any, Relaxed);
    }
}
