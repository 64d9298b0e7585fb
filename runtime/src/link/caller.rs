//! The parent's end of a link: writes requests, reads replies.
//!
//! Runs in: the parent, under whatever lock its owner has. What is in flight, and both cursors, are in private memory.
//! Invariant: nothing that the child wrote is used unchecked. A reply is taken only if it answers the oldest call in flight.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::fence;

use super::ancillary::{self, MAX_PENDING_FDS, PendingFds};
use super::batch::{self, Tally};
use super::buffers::{Arrivals, NO_SLOT, SLOTS};
use super::checksum;
use super::control::NO_FURTHER_ITEM;
use super::frame::{self, BufferName, Frame, FrameKind, HEAD, INLINE, MAX_FRAME_BYTES, RING};
use super::message::{FromChild, ToChild};
use super::reply::{Body, InFlightAtExit, LeasedBuffer, OfBatch, PartialBatch, Reply};
use super::window::{self, MAX_IN_FLIGHT, Window};
use super::{Link, Payload, doorbell};
#[cfg(test)]
use crate::codec::handles::Handles;
use crate::codec::handles::Received;
use crate::codec::message::{from_bytes, to_bytes};
use crate::sys::socket;
use crate::sys::{self, Errno, cpu};

/// The parent's end. `T` is what the owner remembers of a call.
#[derive(Debug)]
pub(crate) struct Caller<T> {
    pub(super) link: Link,
    /// Where the next frame of a request goes, in bytes since the link was made.
    write: u64,
    /// Where the next reply begins.
    read: u64,
    serial: u64,
    /// The limit that we have set, for comparison with what stands in memory.
    pub(super) limit: u32,
    /// How many requests were written that the child does not see yet.
    written: u32,
    /// How many requests were answered.
    pub(super) answered: u32,
    /// The window was found to say what neither side has written there.
    pub(super) broken: bool,
    in_flight: VecDeque<InFlight<T>>,
    /// Which buffer of ours the child has mapped, by slot.
    announced: [u32; SLOTS],
    pub(super) arrivals: Arrivals,
    /// Which reply buffers were let go when the child was last woken because of that.
    pub(super) released: u64,
}

#[derive(Debug)]
struct InFlight<T> {
    serial: u64,
    /// The cursor before this frame, and before the skip that may precede it.
    start: u64,
    /// How many items a batch has to run; 0 for a request of any other kind.
    items: u32,
    payload: Payload,
    tag: T,
}

/// The child wrote something that the protocol does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) &'static str);

const SCRIBBLED: Violation = Violation("the window was written over");

impl<T> Caller<T> {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            link,
            write: 0,
            read: 0,
            serial: 0,
            limit: 0,
            written: 0,
            answered: 0,
            broken: false,
            in_flight: VecDeque::with_capacity(MAX_IN_FLIGHT as usize),
            announced: [0; SLOTS],
            arrivals: Arrivals::default(),
            released: 0,
        }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// How many requests are not answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The oldest request that is not answered.
    pub(crate) fn front(&self) -> Option<&T> {
        self.in_flight.front().map(|oldest| &oldest.tag)
    }

    /// The request that the child is at, as far as the replies that were collected tell.
    pub(crate) fn running(&self) -> Option<&T> {
        self.front().filter(|_| self.claimed() != self.answered)
    }

    /// Whether one more may be pushed.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight.len() < MAX_IN_FLIGHT as usize
    }

    /// Sends descriptors that the next request asks for.
    pub(crate) fn attach(&self, descriptors: &[BorrowedFd<'_>]) -> sys::Result<()> {
        socket::send(self.link.control.as_fd(), &to_bytes(&ToChild::Attached), descriptors)
    }

    /// Gives one request out. The child is not woken yet: see [`Caller::wake`].
    ///
    /// # Errors
    /// The buffer could not be handed over, and nothing was given out: request and tag come back.
    pub(crate) fn push(
        &mut self,
        kind: FrameKind,
        task: u32,
        payload: Payload,
        tag: T,
    ) -> Result<(), (Errno, Payload, T)> {
        self.write(kind, (task, None), payload, tag)?;
        self.publish();
        Ok(())
    }

    /// Lets the child see the requests that were written.
    pub(crate) fn publish(&mut self) {
        let count = std::mem::take(&mut self.written);
        let before = window::push(&self.link.reply.words().window.0, count);
        let known = self.in_flight.len() - count as usize;
        self.broken |= before.limit != self.limit || self.claims(before) > known;
        self.limit = self.limit.wrapping_add(count);
    }

    /// Writes one request, with a limit, in bytes, for the address space that the child has while it runs it. The child
    /// does not see it yet: that costs both sides more than writing, and [`Caller::publish`] does it once for many.
    ///
    /// # Errors
    /// As [`Caller::push`].
    #[inline]
    pub(crate) fn write(
        &mut self,
        kind: FrameKind,
        (task, memory): (u32, Option<u64>),
        payload: Payload,
        tag: T,
    ) -> Result<(), (Errno, Payload, T)> {
        debug_assert!(self.has_room());
        // Not used again if the request cannot be made: what was sent for it is dropped when the next one is read.
        self.serial += 1;
        let (buffer, handles) = match if payload.is_plain() { Ok((None, 0)) } else { self.send_ahead(&payload) } {
            Ok(sent) => sent,
            Err(errno) => return Err((errno, payload, tag)),
        };
        let len = payload.bytes().len();
        let inline = if buffer.is_some() { &[] } else { payload.bytes() };
        let items = if kind == FrameKind::Batch { batch::left(inline) } else { 0 };
        debug_assert_eq!(items > 0, kind == FrameKind::Batch);
        let pages = frame::pages(memory);
        let head = Frame { kind, task, serial: self.serial, len: len as u64, buffer, pages, handles };
        let start = self.write;
        let at = frame::room_for(start, head.extent());
        let half = &self.link.request;
        if at != start {
            half.write(frame::place(start), &Frame::SKIP.bytes());
        }
        half.write(frame::place(at), &head.bytes());
        half.write(frame::place(at) + HEAD, inline);
        self.write = at + head.extent();
        self.written += 1;
        self.in_flight.push_back(InFlight { serial: self.serial, start, items, payload, tag });
        Ok(())
    }

    /// How many requests were written that the child does not see yet.
    pub(crate) fn written(&self) -> u32 {
        self.written
    }

    /// Wakes the child if it said that it sleeps; says whether it did.
    pub(crate) fn wake(&self) -> bool {
        self.link.wake()
    }

    /// Whether a reply has come that was not collected, or a reason to complain.
    pub(crate) fn has_reply(&self) -> bool {
        self.broken || self.link.reply.words().tail.0.load(Relaxed) != self.read
    }

    /// Whether the child uses more memory than it is to.
    pub(crate) fn is_over_memory(&self) -> bool {
        self.link.reply.words().over_memory.0.load(Relaxed) != 0
    }

    /// Tells the child that its parent is about to sleep, or is awake again. To be followed by a look at
    /// [`Caller::has_reply`]: either we see the reply, or the child sees the word.
    pub(crate) fn set_notify_reply(&self, notify_reply: bool) {
        let processor = if notify_reply { cpu::current() + 1 } else { 0 };
        doorbell::set_flag(&self.link.request.words().notify_reply.0, processor);
    }

    /// Tells the child to ring when it runs dry, because calls wait elsewhere. A look at the replies follows.
    pub(crate) fn set_notify_idle(&self, notify_idle: bool) {
        doorbell::set_flag(&self.link.request.words().notify_idle.0, u32::from(notify_idle));
    }

    /// Takes every reply there is, oldest first; says whether there was one.
    pub(crate) fn collect(&mut self, mut each: impl FnMut(T, Reply)) -> Result<bool, Violation> {
        let window = &self.link.reply.words().window.0;
        // With calls behind the one that runs, their callers would wait for ever if the child had claimed them and
        // forgotten.
        let ahead = self.in_flight.len() > 1;
        let before = ahead.then(|| Window::look(window));
        // Loaded once: the child may go on writing it.
        let tail = self.link.reply.words().tail.0.load(Acquire);
        if self.broken {
            return Err(SCRIBBLED);
        }
        if tail == self.read {
            return Ok(false);
        }
        let after = ahead.then(|| Window::look(window));
        if tail.wrapping_sub(self.read) > RING as u64 || !tail.is_multiple_of(HEAD as u64) {
            return Err(Violation("the reply half's tail is out of bounds"));
        }
        while self.read < tail {
            let mut bytes = [0; HEAD];
            self.link.reply.read(frame::place(self.read), &mut bytes);
            let head = Frame::parse(&bytes).map_err(Violation)?;
            if head.kind == FrameKind::Skip {
                self.read = frame::next_lap(self.read + 1);
                continue;
            }
            let end = self.read + head.extent();
            if end > tail || frame::room_for(self.read, head.extent()) != self.read {
                return Err(Violation("a reply reaches beyond what was written"));
            }
            let Some(items) = self.in_flight.front().filter(|one| one.serial == head.serial).map(|one| one.items)
            else {
                return Err(Violation("a reply to something that was not asked"));
            };
            match head.kind {
                FrameKind::Setup | FrameKind::Call | FrameKind::Batch => {
                    return Err(Violation("a request in the reply half"));
                }
                FrameKind::Results if items == 0 => return Err(Violation("many results of one call")),
                FrameKind::Done | FrameKind::Panicked | FrameKind::BadArguments | FrameKind::BadResult
                    if items != 0 =>
                {
                    return Err(Violation("one result of a batch"));
                }
                _ => {}
            }
            if after.is_some_and(|seen| self.claims(seen) == 0) {
                return Err(Violation("a reply to a call that was not claimed"));
            }
            let mut arriving = PendingFds::new(head.serial, head.handles);
            let body = self.body(&head, &mut arriving)?;
            let whole = matches!(body, Body::Small(..) | Body::Tiny(..)) && head.kind != FrameKind::Results;
            let inline = if whole { body.bytes().unwrap_or_default() } else { &[] };
            if !checksum::verify(&bytes, inline) {
                return Err(Violation("a reply was written over"));
            }
            let tally = if head.kind == FrameKind::Results { Some(count(&body, items, head.serial)?) } else { None };
            let body = if head.handles == 0 { body } else { body.with(self.beside(&head, arriving)?) };
            self.read = end;
            self.answered = self.answered.wrapping_add(1);
            if let Some(oldest) = self.in_flight.pop_front() {
                let batch = tally.map(|tally| OfBatch { tally, nanos: head.task, request: oldest.payload });
                each(oldest.tag, Reply { kind: head.kind, body, batch });
            }
        }
        // What was claimed before the tail was stored is answered by now, but for one. It may be less than what was answered.
        let running = before.map_or(0, |seen| seen.claimed.wrapping_sub(self.answered).cast_signed());
        // What a task wrote over before its reply is seen after the tail at the latest.
        if running > 1 || before.into_iter().chain(after).any(|seen| seen.limit != self.limit) {
            return Err(SCRIBBLED);
        }
        Ok(true)
    }

    /// How many requests are claimed and not answered, if the window can be believed.
    fn claims(&self, seen: Window) -> usize {
        seen.claimed.wrapping_sub(self.answered) as usize
    }

    /// Takes back up to `most` of the requests that the child has not claimed, the newest, in order; none that has handles
    /// beside it, which are with the child already, nor any before that.
    pub(crate) fn take_back(&mut self, most: u32) -> Vec<(T, Payload)> {
        let plain = self.in_flight.iter().rev().take_while(|one| one.payload.handles().is_empty()).count();
        self.take_back_any(most.min(u32::try_from(plain).unwrap_or(u32::MAX)))
    }

    fn take_back_any(&mut self, most: u32) -> Vec<(T, Payload)> {
        let window = &self.link.reply.words().window.0;
        let seen = Window::look(window);
        if seen.limit != self.limit || self.claims(seen) > self.in_flight.len() {
            // It says nothing about what runs: what was taken back might run twice.
            self.broken = true;
            return Vec::new();
        }
        let taken = window::take_back(window, most);
        // Either the child sees that it is dry, and rings, or a look from here on sees its reply.
        fence(SeqCst);
        self.limit = self.limit.wrapping_sub(taken);
        let keep = self.in_flight.len().saturating_sub(taken as usize);
        let back = self.in_flight.split_off(keep);
        if let Some(first) = back.front() {
            self.write = first.start;
        }
        back.into_iter().map(|one| (one.tag, one.payload)).collect()
    }

    /// How many requests the child has claimed since the link was made.
    pub(crate) fn claimed(&self) -> u32 {
        Window::look(&self.link.reply.words().window.0).claimed
    }

    /// What was asked of it and is not answered, oldest first.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &T> {
        self.in_flight.iter().map(|one| &one.tag)
    }

    /// Sorts what is in flight, once the child is dead and its last replies are collected; or when it is about to be
    /// killed, and may claim until then.
    pub(crate) fn in_flight_at_exit(mut self) -> InFlightAtExit<T> {
        let seen = Window::look(&self.link.reply.words().window.0);
        let running = seen.claimed.wrapping_sub(self.answered) as usize;
        // A window that was scribbled over says nothing about what ran; then all of it may have.
        let honest = seen.limit == self.limit && running <= 1 && running <= self.in_flight.len();
        let unclaimed = if honest { self.take_back_any(u32::MAX) } else { Vec::new() };
        let salvaged = if honest { self.in_flight.front().and_then(|running| self.salvage(running)) } else { None };
        let running = self.in_flight.into_iter().map(|one| (one.tag, one.payload)).collect();
        InFlightAtExit { running, salvaged, unclaimed }
    }

    /// The results of a batch that the child has written and not published.
    fn salvage(&self, running: &InFlight<T>) -> Option<PartialBatch> {
        let words = self.link.reply.words();
        let progress = words.progress.0.load(Acquire);
        let [done, serial] = [progress, progress >> 32].map(|word| word & u64::from(u32::MAX));
        // Before its first word, there is the one of another batch.
        let done = if serial == running.serial & u64::from(u32::MAX) { done } else { 0 };
        let (done, ended) = (u32::try_from(done & !NO_FURTHER_ITEM).ok()?, done & NO_FURTHER_ITEM != 0);
        if running.items == 0 || done > running.items {
            return None;
        }
        let at = frame::place(frame::room_for(self.read, MAX_FRAME_BYTES as u64)) + HEAD;
        let mut body = Body::filled(INLINE, |bytes| self.link.reply.read(at, bytes));
        let tally = batch::tally(body.bytes().ok()?, done, running.serial);
        body.truncate(tally.len);
        // The last of them may have handles, which were sent before it was counted.
        let mut arriving = PendingFds::new(running.serial, 0);
        for (message, fds) in (0..MAX_PENDING_FDS).map_while(|_| self.receive().ok()) {
            if let FromChild::Beside { serial } = message {
                arriving.add(serial, fds);
            }
        }
        let body = body.with(arriving.received());
        let running = !ended && done < running.items;
        (tally.answered == done).then_some(PartialBatch { tally, body, running })
    }

    /// What the child said on the control socket instead of serving, if it said anything.
    pub(crate) fn excuse(&self) -> Option<FromChild> {
        from_bytes(&socket::receive_last(self.link.control.as_fd()).ok()?.0).ok()
    }

    /// Sends what has to be there before the frame: the buffer that holds the payload, and the handles beside it.
    #[cold]
    fn send_ahead(&mut self, payload: &Payload) -> Result<(Option<BufferName>, u16), Errno> {
        let buffer = payload.loan().map(|loan| self.announce(loan)).transpose()?;
        let message = || to_bytes(&ToChild::Beside { serial: self.serial });
        let handles = ancillary::send(self.link.control.as_fd(), message, payload.handles(), |_| false)?;
        Ok((buffer, handles))
    }

    /// Sends handles for a request that is never made.
    #[cfg(test)]
    pub(super) fn give_up(&mut self, handles: &Handles) {
        self.serial += 1;
        let message = || to_bytes(&ToChild::Beside { serial: self.serial });
        ancillary::send(self.link.control.as_fd(), message, handles, |_| false).unwrap();
    }

    /// The next message of the child, and what came with it.
    ///
    /// # Errors
    /// As [`socket::receive`]; `EPROTO` if it is none that is known.
    fn receive(&self) -> Result<(FromChild, Vec<OwnedFd>), Errno> {
        let (bytes, descriptors) = socket::receive(self.link.control.as_fd())?;
        from_bytes(&bytes).map(|message| (message, descriptors)).map_err(|_| Errno::EPROTO)
    }

    /// What came beside an answer.
    #[cold]
    fn beside(&mut self, head: &Frame, mut arriving: PendingFds) -> Result<Received, Violation> {
        for _ in 0..MAX_PENDING_FDS {
            if arriving.is_complete() {
                return Ok(arriving.received());
            }
            match self.receive() {
                Ok((FromChild::Beside { serial }, fds)) if serial <= head.serial => arriving.add(serial, fds),
                // Of an answer that was given up. A later one may lie there.
                Ok((FromChild::ShmBuffer { slot, id }, fds)) if !fds.is_empty() => {
                    let _ = self.arrivals.add(BufferName { slot, id }, &fds[0]);
                }
                Err(errno @ Errno::EMFILE) => arriving.miss(errno),
                Err(errno @ (Errno::ENFILE | Errno::ENOMEM)) => return Ok(arriving.lost(errno)),
                _ => break,
            }
        }
        Err(Violation("handles were promised and did not come"))
    }

    /// Makes sure that the child can map the buffer of a loan.
    fn announce(&mut self, loan: &super::Lease) -> Result<BufferName, Errno> {
        let (name, fd) = loan.buffer().ok_or(Errno::EINVAL)?;
        let slot = self.announced.get_mut(usize::from(name.slot));
        if slot.as_ref().is_some_and(|id| **id == name.id) {
            return Ok(name);
        }
        let message = to_bytes(&ToChild::ShmBuffer { slot: name.slot, id: name.id });
        socket::send(self.link.control.as_fd(), &message, &[fd])?;
        if let Some(slot) = slot {
            *slot = name.id;
        }
        Ok(name)
    }

    /// The payload. What comes beside it may be there before its buffer is.
    fn body(&mut self, head: &Frame, arriving: &mut PendingFds) -> Result<Body, Violation> {
        let Some(name) = head.buffer else {
            // `Frame::parse` has checked that an inline payload is short, and `collect` that it lies in the ring.
            let len = usize::try_from(head.len).unwrap_or(0);
            let at = frame::place(self.read) + HEAD;
            return Ok(Body::filled(len, |bytes| self.link.reply.read(at, bytes)));
        };
        if usize::from(name.slot) >= SLOTS && name.slot != NO_SLOT {
            return Err(Violation("a parcel in a slot that is none"));
        }
        // A child announces a buffer right before the frame that names it.
        for _ in 0..MAX_PENDING_FDS {
            if arriving.is_lost() {
                return Ok(Body::Lost(Errno::EMFILE));
            }
            if let Some(map) = self.arrivals.find(name, head.len) {
                let len = usize::try_from(head.len).map_err(|_| Violation("a reply longer than memory"))?;
                let request = Arc::clone(&self.link.request);
                return Ok(Body::ShmBuffer(LeasedBuffer { map, len, slot: name.slot, request }));
            }
            match self.receive() {
                Ok((FromChild::ShmBuffer { slot, id }, fds)) if !fds.is_empty() => {
                    if let Err(errno) = self.arrivals.add(BufferName { slot, id }, &fds[0]) {
                        return Ok(Body::Lost(errno));
                    }
                }
                Ok((FromChild::Beside { serial }, fds)) if serial <= head.serial => arriving.add(serial, fds),
                Err(errno @ Errno::EMFILE) if head.handles > 0 => arriving.miss(errno),
                Ok(_) | Err(Errno::EPROTO) => return Err(Violation("a parcel was promised and did not come")),
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Ok(Body::Lost(errno)),
            }
        }
        Err(Violation("a parcel was promised and did not come"))
    }
}

/// Counts the results that answer the first of a batch's items, at least one of them.
fn count(body: &Body, items: u32, serial: u64) -> Result<Tally, Violation> {
    let Ok(bytes) = body.bytes() else {
        // Its buffer could not be received, so it is not known how many there are.
        return Ok(Tally { answered: items, good: false, len: 0 });
    };
    let tally = batch::tally(bytes, items, serial);
    let whole = tally.len == bytes.len() && tally.answered > 0;
    if whole { Ok(tally) } else { Err(Violation("results that are none")) }
}
