//! The child's end of a link: claims requests, writes replies.
//!
//! Runs in: the child, on its main thread.
//! Invariant: a frame is read only after it was claimed, and the doorbell is notified only if the parent asks for it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::time::{Duration, Instant};

use super::ancillary::{self, PendingFds};
use super::batch;
use super::batch_reply::BatchReply;
use super::buffers::{self, Arrivals, BUFFER_IDLE_TIME, SLOTS};
use super::checksum;
use super::control::{NO_FURTHER_ITEM, ReplyControl, RequestControl};
use super::cpu_collision::CpuCollision;
use super::crash_note::CrashNote;
use super::frame::{self, BufferName, Frame, FrameKind, HEAD, INLINE, MAX_FRAME_BYTES, RING};
use super::message::{FromChild, MAGIC, ToChild};
use super::window::{self, Window};
use super::{BufferWriter, Lease, Payload, PayloadStorage, SharedBufferPool, Spin, busy, doorbell};
use crate::codec::Spill as _;
use crate::codec::handles::{Handles, Received};
use crate::codec::message::{from_bytes, to_bytes};
use crate::error;
use crate::shared::MappedHeader;
use crate::sys::memory::{Access, Map};
use crate::sys::socket;
use crate::sys::{Errno, clock, fd, futex, process};

/// How long an idle child keeps mapped what came with its last call and may linger.
const LINGER_TIME: Duration = Duration::from_millis(50);

/// The child's end.
#[derive(Debug)]
pub(crate) struct Callee {
    pub(super) request: &'static MappedHeader<RequestControl>,
    pub(super) reply: &'static MappedHeader<ReplyControl>,
    control: OwnedFd,
    bell: OwnedFd,
    read: u64,
    write: u64,
    /// How many calls were claimed, for comparison with what stands in memory.
    claimed: u32,
    /// More private memory than this is too much.
    most_memory: Option<u64>,
    /// What came with the request before, and may be wanted again.
    lingering: Received,
    /// Descriptors for the request at hand that came before its buffer.
    attached_early: Option<Vec<OwnedFd>>,
    spin: Spin,
    cpu_collision: CpuCollision,
    pub(super) arrivals: Arrivals,
    pub(super) pool: SharedBufferPool,
    /// Which buffer of ours the parent has mapped, by slot.
    announced: [u32; SLOTS],
    /// Replies that the parent still reads, by slot, and the bits that say so, as last seen.
    pub(super) lent: [Option<Lease>; SLOTS],
    pub(super) released: u64,
    /// There may be buffers, or maps of such, and when to look at them next, by the coarse clock.
    pub(super) keeps: bool,
    pub(super) tend_at: u64,
}

/// One request that was claimed.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) kind: FrameKind,
    pub(crate) task: u32,
    pub(crate) serial: u64,
    /// How many bytes of address space this process may have while it runs the request, if that is limited.
    pub(crate) memory: Option<u64>,
    /// What came beside the payload.
    pub(crate) received: Received,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Ring(&'static [u8]),
    ShmBuffer(Arc<Map>, usize),
    Missing(Errno),
}

impl Incoming {
    /// The payload where it lies. The parent leaves it alone until the answer.
    ///
    /// # Errors
    /// It is in a buffer that could not be received.
    pub(crate) fn payload(&self) -> Result<&[u8], Errno> {
        match &self.bytes {
            Bytes::Ring(bytes) => Ok(bytes),
            Bytes::ShmBuffer(map, len) => Ok(map.lend(0, *len)),
            Bytes::Missing(errno) => Err(*errno),
        }
    }
}

impl Callee {
    /// Takes the link out of the control socket, where the parent has put it before this process existed.
    ///
    /// # Errors
    /// There is no such message, or its memory cannot be mapped.
    pub(crate) fn open(control: OwnedFd, fingerprint: u64) -> Result<Self, Errno> {
        let (bytes, fds) = socket::receive(control.as_fd())?;
        let Ok(ToChild::Hello { magic: MAGIC, fingerprint: theirs }) = from_bytes(&bytes) else {
            return Err(Errno::EPROTO);
        };
        if theirs != fingerprint {
            let mismatch = to_bytes(&FromChild::Mismatch { fingerprint });
            let _ = socket::send(control.as_fd(), &mismatch, &[]);
            return Err(Errno::EXDEV);
        }
        let [request, reply, bell] = <[OwnedFd; 3]>::try_from(fds).map_err(|_| Errno::EPROTO)?;
        // Mapped for the rest of this process's life: borrowed arguments may be anywhere.
        let request = Box::leak(Box::new(MappedHeader::map(request.as_fd(), RING, Access::Read)?));
        let reply = Box::leak(Box::new(MappedHeader::map(reply.as_fd(), RING, Access::Write)?));
        Ok(Self {
            request,
            reply,
            control,
            bell,
            read: 0,
            write: 0,
            claimed: 0,
            most_memory: None,
            lingering: Received::default(),
            attached_early: None,
            spin: Spin::new(),
            cpu_collision: CpuCollision::new(),
            arrivals: Arrivals::default(),
            pool: SharedBufferPool::default(),
            announced: [0; SLOTS],
            lent: Default::default(),
            released: 0,
            keeps: false,
            tend_at: 0,
        })
    }

    /// From now on, the parent is told when this process uses more private memory than `most`, in bytes.
    pub(crate) fn watch_memory(&mut self, most: Option<u64>) {
        self.most_memory = most;
    }

    /// The word in which the handler of a stack overflow leaves its note.
    pub(crate) fn overflow_flag(&self) -> &'static AtomicU32 {
        &self.reply.words().overflowed.0
    }

    /// What a panic writes its text to, in case it is the last thing this process says.
    pub(crate) fn crash_note(&self) -> CrashNote {
        CrashNote::new(self.reply)
    }

    /// The next request, waiting as long as it takes; `None` when the parent has closed the link and all are done.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Incoming> {
        let window = &self.reply.words().window.0;
        let shutdown = &self.request.words().shutdown.0;
        loop {
            // Looked at before the window: what was given out before the shutdown is claimed first.
            let closed = shutdown.load(Acquire) != 0;
            if window::claim(window) {
                self.claimed = self.claimed.wrapping_add(1);
                busy::begin(&self.reply.words().busy.0, clock::coarse);
                if self.keeps {
                    self.tend_in_time();
                }
                return Some(self.read_frame());
            }
            busy::end(&self.reply.words().busy.0, clock::coarse);
            if closed {
                return None;
            }
            if self.spin.until(|| doorbell::has_work(window, shutdown)) {
                continue;
            }
            let tail = self.reply.words().tail.0.load(Relaxed);
            if Window::look(window).claimed != self.claimed || tail != self.write {
                // A task has written over it. The parent believes that a call runs here, and would wait for ever.
                process::exit_now(1);
            }
            let since = Instant::now();
            let parked = &self.reply.words().parked.0;
            if doorbell::park(parked, window, shutdown) {
                if doorbell::must_notify_idle(&self.request.words().notify_idle.0) {
                    self.ring();
                }
                self.park(parked);
            }
            doorbell::unpark(parked);
            self.spin.slept(since);
        }
    }

    /// Sleeps until the parent clears the word. What lingers is let go of meanwhile, and then what is kept warm.
    #[cold]
    fn park(&mut self, parked: &AtomicU32) {
        self.arrivals.forget(&buffers::load(&self.request.words().gone.0));
        if !self.lingering.is_empty() {
            futex::wait_until(parked, 1, LINGER_TIME);
            if parked.load(SeqCst) == 0 {
                return;
            }
            self.lingering = Received::default();
        }
        // What an answer that was given up had begun to fill is warm, too.
        if self.keeps || self.pool.bytes() > 0 {
            let end = Instant::now() + BUFFER_IDLE_TIME;
            while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                futex::wait_until(parked, 1, left);
                if parked.load(SeqCst) == 0 {
                    return;
                }
            }
            self.tend(Duration::ZERO);
        }
        // What the parent still reads, or has mapped, it tells of by waking this process.
        futex::wait(parked, 1);
    }

    /// The request is answered. What may stay mapped for the next one does, until then, or for [`LINGER_TIME`].
    pub(crate) fn linger(&mut self, given: Incoming) {
        self.lingering = given.received;
    }

    /// Memory for a result that may turn out to be long.
    pub(crate) fn filling(&mut self) -> BufferWriter {
        self.take_back_released();
        BufferWriter::new(&self.pool)
    }

    /// Answers `given`, which is the oldest request that is not answered.
    pub(crate) fn answer(&mut self, given: &Incoming, kind: FrameKind, payload: Payload) {
        let handed_over = payload.loan().map(|loan| self.announce(loan)).transpose();
        let handed_over = handed_over.and_then(|_| self.send_beside(given.serial, payload.handles()));
        let handles = match handed_over {
            Ok(handles) => handles,
            Err(errno) => {
                let why = format!("the result cannot be handed over: {}", error::why(errno));
                return self.answer(given, FrameKind::BadResult, Payload::small(why.into_bytes()));
            }
        };
        let Payload { place, handles: kept } = payload;
        // The parent may take it that nothing of what it gets is held here.
        drop(kept);
        let (inline, len, buffer): (&[u8], _, _) = match &place {
            // Only our own messages can be longer, and the end of such a text can be spared.
            PayloadStorage::Small(bytes) => (&bytes[..bytes.len().min(INLINE)], bytes.len().min(INLINE), None),
            PayloadStorage::ShmBuffer(loan) => (&[], loan.len(), loan.buffer().map(|(name, _)| name)),
        };
        let head = Frame { kind, task: 0, serial: given.serial, len: len as u64, buffer, pages: 0, handles };
        let at = self.place_for(head.extent());
        self.reply.write(frame::place(at) + HEAD, inline);
        // Of what was to be written, not of what is there by now: another thread of a task may have written over it.
        let mut bytes = head.bytes();
        checksum::write(&mut bytes, inline);
        if let PayloadStorage::ShmBuffer(loan) = place {
            self.lend(loan);
        }
        // The parent does not wait for the word that a setup worked: the first call follows it.
        let awaited = given.kind != FrameKind::Setup || kind != FrameKind::Done;
        self.publish(at, &head, bytes, awaited);
    }

    /// Begins to answer a batch, which is the oldest request that is not answered.
    pub(crate) fn begin_answer(&mut self, given: &Incoming) -> BatchReply {
        // The parent knows where this is: it must find the results there if the answer is never finished.
        let at = self.place_for(MAX_FRAME_BYTES as u64);
        self.reply.words().progress.0.store(given.serial << 32, Release);
        BatchReply { at, serial: given.serial, len: 0, done: 0, handles: 0 }
    }

    /// Sends the handles of the next item's result, before [`Callee::put_result`] is told of it: it is to be the last.
    ///
    /// # Errors
    /// They cannot be sent.
    pub(crate) fn put_handles(&self, answer: &mut BatchReply, handles: &Handles) -> Result<(), Errno> {
        answer.handles = self.send_beside(answer.serial, handles)?;
        Ok(())
    }

    fn send_beside(&self, serial: u64, handles: &Handles) -> Result<u16, Errno> {
        let message = || to_bytes(&FromChild::Beside { serial });
        ancillary::send_patiently(self.control.as_fd(), message, handles, || self.ring())
    }

    /// What became of the next item, in not more bytes than the answer has [`room`](BatchReply::room) for. From here on, the
    /// death of this process does not cost this item.
    #[inline]
    pub(crate) fn put_result(&self, answer: &mut BatchReply, kind: FrameKind, result: &[u8]) {
        let place = frame::place(answer.at) + HEAD + answer.len;
        self.reply.write(place, &batch::head(kind, (answer.serial, answer.done), result));
        self.reply.write(place + batch::HEAD, result);
        answer.len = batch::next_result(answer.len + batch::HEAD + result.len());
        answer.done += 1;
        self.reply.words().progress.0.store(answer.serial << 32 | answer.done, Release);
    }

    /// From here on, the death of this process costs no item of the batch.
    pub(crate) fn end_items(&self, answer: &BatchReply) {
        let progress = answer.serial << 32 | NO_FURTHER_ITEM | answer.done;
        self.reply.words().progress.0.store(progress, Release);
    }

    /// Publishes the results of the items that were done, and that they took `nanos` nanoseconds.
    pub(crate) fn finish_answer(&mut self, answer: &BatchReply, nanos: u32) {
        self.publish_results(answer, &answer.frame(answer.len, None, nanos));
    }

    /// As [`Callee::finish_answer`], with one more item. Its result is too long for the rest of the frame: it was written
    /// [`BatchReply::len_with_head`] bytes behind the start of `filling`, and is `len` bytes long.
    ///
    /// # Errors
    /// The buffer cannot be handed over; nothing was answered.
    pub(crate) fn finish_answer_in_buffer(
        &mut self,
        answer: &BatchReply,
        (kind, len): (FrameKind, usize),
        mut filling: BufferWriter,
        nanos: u32,
    ) -> Result<(), Errno> {
        let bytes = filling.bytes();
        let start = bytes.get_mut(..answer.len + batch::HEAD).ok_or(Errno::ENOMEM)?;
        let (before, head) = start.split_at_mut(answer.len);
        self.reply.read(frame::place(answer.at) + HEAD, before);
        head.copy_from_slice(&batch::head_of_long(kind, (answer.serial, answer.done)));
        let loan = filling.done(answer.len + batch::HEAD + len).ok_or(Errno::ENOMEM)?;
        self.announce(&loan)?;
        let buffer = loan.buffer().map(|(name, _)| name);
        let head = answer.frame(loan.len(), buffer, nanos);
        self.lend(loan);
        self.publish_results(answer, &head);
        Ok(())
    }

    /// Does what a task may do that writes where it must not.
    #[cfg(test)]
    pub(super) fn scribble(&self, answer: &BatchReply, at: usize, bytes: &[u8]) {
        self.reply.write(frame::place(answer.at) + HEAD + at, bytes);
    }

    /// Where the next frame goes, which is no longer than `extent`.
    fn place_for(&mut self, extent: u64) -> u64 {
        let at = frame::room_for(self.write, extent);
        if at != self.write {
            self.reply.write(frame::place(self.write), &Frame::SKIP.bytes());
        }
        at
    }

    /// Notes that the parent reads this buffer.
    fn lend(&mut self, loan: Lease) {
        if let Some((name, _)) = loan.buffer()
            && let Some(slot) = self.lent.get_mut(usize::from(name.slot))
        {
            *slot = Some(loan);
            self.keeps = true;
        }
    }

    /// As [`Callee::publish`], for a batch: its results have sums of their own, made when each of them came.
    fn publish_results(&mut self, answer: &BatchReply, head: &Frame) {
        let mut bytes = head.bytes();
        checksum::write(&mut bytes, &[]);
        self.publish(answer.at, head, bytes, true);
    }

    /// Writes the head of a frame that has its payload already, with its sum, and lets the parent see it.
    fn publish(&mut self, at: u64, head: &Frame, bytes: [u8; HEAD], awaited: bool) {
        self.reply.write(frame::place(at), &bytes);
        self.write = at + head.extent();
        if let Some(most) = self.most_memory
            && process::private_memory(std::process::id()).is_some_and(|used| used > most)
        {
            self.reply.words().over_memory.0.store(1, Relaxed);
        }
        self.reply.words().tail.0.store(self.write, Release);
        let words = self.request.words();
        if awaited && doorbell::must_notify(&words.notify_reply.0) {
            self.ring();
            self.cpu_collision.met(words.notify_reply.0.load(Relaxed).checked_sub(1));
        } else {
            self.cpu_collision.apart();
        }
    }

    fn ring(&self) {
        if !fd::try_notify(self.bell.as_fd()) {
            // The task has closed what is not its own. The parent is told by our end, and then finds the reply.
            process::exit_now(1);
        }
    }

    /// The descriptors that the parent sent for the request at hand.
    pub(crate) fn attached(&mut self) -> Result<Vec<OwnedFd>, Errno> {
        if let Some(fds) = self.attached_early.take() {
            return Ok(fds);
        }
        loop {
            match self.receive()? {
                (ToChild::Attached, fds) => return Ok(fds),
                (ToChild::Hello { .. } | ToChild::ShmBuffer { .. } | ToChild::Beside { .. }, _) => {}
            }
        }
    }

    /// The next message of the parent, and what came with it. If that is a buffer, it is mapped.
    fn receive(&mut self) -> Result<(ToChild, Vec<OwnedFd>), Errno> {
        if !self.lingering.is_empty() && socket::look(self.control.as_fd()).err() == Some(Errno::EMFILE) {
            // What came with the request before takes the room that this one needs.
            self.lingering = Received::default();
        }
        let (bytes, fds) = socket::receive(self.control.as_fd())?;
        let message = from_bytes(&bytes).map_err(|_| Errno::EPROTO)?;
        if let ToChild::ShmBuffer { slot, id } = message {
            self.arrivals.add(BufferName { slot, id }, fds.first().ok_or(Errno::EPROTO)?)?;
        }
        Ok((message, fds))
    }

    /// The handles beside a request.
    #[cold]
    fn beside(&mut self, head: &Frame) -> Received {
        let mut arriving = PendingFds::new(head.serial, head.handles);
        while !arriving.is_complete() {
            match self.receive() {
                Ok((ToChild::Beside { serial }, fds)) if serial <= head.serial => arriving.add(serial, fds),
                Ok(_) => return arriving.lost(Errno::EPROTO),
                Err(errno @ Errno::EMFILE) => arriving.miss(errno),
                Err(errno) => return arriving.lost(errno),
            }
        }
        arriving.received()
    }

    #[inline]
    fn read_frame(&mut self) -> Incoming {
        let head = loop {
            let mut head = [0; HEAD];
            self.request.read(frame::place(self.read), &mut head);
            match Frame::parse(&head) {
                Ok(Frame { kind: FrameKind::Skip, .. }) => self.read = frame::next_lap(self.read + 1),
                Ok(head) => break head,
                // Only the parent can write there.
                Err(why) => unreachable!("the parent wrote {why}"),
            }
        };
        let at = frame::place(self.read) + HEAD;
        self.read += head.extent();
        let len = usize::try_from(head.len).unwrap_or(0);
        let bytes = match head.buffer {
            None => Bytes::Ring(self.request.lend(at, len)),
            Some(name) => match self.find(name, head.len) {
                Ok(map) => Bytes::ShmBuffer(map, len),
                Err(errno) => Bytes::Missing(errno),
            },
        };
        let received = if head.handles == 0 { Received::default() } else { self.beside(&head) };
        let memory = (head.pages > 0).then(|| u64::from(head.pages) * frame::PAGE);
        Incoming { kind: head.kind, task: head.task, serial: head.serial, memory, received, bytes }
    }

    fn find(&mut self, name: BufferName, len: u64) -> Result<Arc<Map>, Errno> {
        loop {
            if let Some(map) = self.arrivals.find(name, len) {
                self.keeps = true;
                return Ok(map);
            }
            match self.receive()? {
                // The latter of a request that could not be read.
                (ToChild::ShmBuffer { .. } | ToChild::Beside { .. }, _) => {}
                // They were sent before the buffer of the setup that they belong to.
                (ToChild::Attached, fds) => self.attached_early = Some(fds),
                (ToChild::Hello { .. }, _) => return Err(Errno::EPROTO),
            }
        }
    }

    /// Makes sure that the parent can map the buffer of a loan.
    fn announce(&mut self, loan: &Lease) -> Result<(), Errno> {
        let (name, fd) = loan.buffer().ok_or(Errno::EINVAL)?;
        let slot = self.announced.get_mut(usize::from(name.slot));
        if slot.as_ref().is_some_and(|id| **id == name.id) {
            return Ok(());
        }
        let message = to_bytes(&FromChild::ShmBuffer { slot: name.slot, id: name.id });
        socket::send(self.control.as_fd(), &message, &[fd])?;
        if let Some(slot) = slot {
            *slot = name.id;
        }
        Ok(())
    }
}
