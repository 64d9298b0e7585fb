//! A queue as one process has it: its memory, one end or both, and the waiting.
//!
//! Owns: encoding and decoding around the two. Runs in: any process that has an end of the queue.
//! Never: runs a value's own code, such as its `Serialize`, while it holds a lock.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use super::buffer::Buffer;
use super::dequeue::{DequeueError, Got};
use super::endpoint::{EndKind, Endpoint, MAX_HANDLES};
use super::enqueue::{EnqueueError, LargeItem};
use super::event_count::ALL;
use super::futex_wait::short_deadline;
use super::layout::{ItemLayout, MAX_ITEMS, UNIT};
use super::lease_wait::ReturnOnDrop;
use super::limits::QueueLimits;
use super::memory::QueueMemory;
use super::proc_table;
use super::wait::for_lock;
use crate::channel::error::{NotSent, TryRecvError, TrySendError, channel_failed};
use crate::codec::handles::{Handles, Received};
use crate::codec::message_format::{as_bytes, of_message, to_message};
use crate::codec::{CodecError, Encoded, Message, NoSpill};
use crate::error::Result;
use crate::link::{CpuCollision, FD_RETRY_TIME, Spin, is_temporary};
use crate::sync::deadline::Deadline;
use crate::sys::Errno;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct QueueCore {
    pub(super) memory: Arc<QueueMemory>,
    pub(super) puts: Option<Arc<Endpoint>>,
    pub(super) gets: Option<Arc<Endpoint>>,
    /// Whether its items are lent.
    pub(super) lends: bool,
    /// How long to look for an item, and for room.
    pub(super) for_items: Spin,
    pub(super) for_room: Spin,
    /// Whether this end and the other side share a processor.
    pub(super) crowd: Mutex<CpuCollision>,
    /// What [`QueueCore::death_epoch`] was when an end was seen at the other side; [`GONE`] once there is none any more.
    pub(super) seen: AtomicU64,
    /// How many processes had ended when it was looked for items of the dead.
    pub(super) ended: AtomicU64,
}

/// The other side has no end, and will have none.
const GONE: u64 = u64::MAX;

thread_local! {
    /// What items are encoded into, and decoded from.
    static ENCODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static DECODED: Cell<Vec<u128>> = const { Cell::new(Vec::new()) };
}

/// How often to look how many items there are, before a guess has to do.
const SPINS: u32 = 16;

/// Longer memory is not kept for the next item.
const MAX_KEPT_BYTES: usize = 1 << 20;

impl QueueCore {
    /// A new queue of type `Q`, with both ends.
    pub(super) fn new<Q: 'static>(limits: QueueLimits, lends: bool) -> Result<Self> {
        limits.check()?;
        let refused = |errno| channel_failed("make a queue", errno);
        proc_table::prepare().map_err(refused)?;
        let items = u32::try_from(limits.items).unwrap_or(u32::MAX).min(MAX_ITEMS);
        let memory = QueueMemory::create::<Q>(items, limits.bytes as u64).map_err(refused)?;
        let (puts, gets) = Endpoint::pair(&memory).map_err(refused)?;
        Ok(Self::of(memory, Some(puts), Some(gets), lends))
    }

    pub(super) fn of(
        memory: Arc<QueueMemory>,
        puts: Option<Arc<Endpoint>>,
        gets: Option<Arc<Endpoint>>,
        lends: bool,
    ) -> Self {
        Self {
            memory,
            puts,
            gets,
            lends,
            for_items: Spin::new(),
            for_room: Spin::new(),
            crowd: Mutex::new(CpuCollision::new()),
            seen: AtomicU64::new(GONE - 1),
            ended: AtomicU64::new(0),
        }
    }

    /// Another handle of the same queue.
    pub(super) fn again(&self) -> Self {
        Self::of(Arc::clone(&self.memory), self.puts.clone(), self.gets.clone(), self.lends)
    }

    /// The same queue with one of the ends only.
    pub(super) fn only(&self, side: EndKind) -> Self {
        let keep = |end: &Option<Arc<Endpoint>>, of| end.as_ref().filter(|_| side == of).map(Arc::clone);
        Self::of(Arc::clone(&self.memory), keep(&self.puts, EndKind::Puts), keep(&self.gets, EndKind::Gets), self.lends)
    }

    /// How many items wait.
    pub(super) fn len(&self) -> usize {
        let words = self.memory.words();
        // While one place is looked at and then the other, many items may go through.
        for _ in 0..SPINS {
            let head = words.get.place.load(Acquire);
            let len = self.memory.len();
            if words.get.place.load(Acquire) == head {
                return len as usize;
            }
        }
        self.memory.len().min(words.most_items.load(Relaxed)) as usize
    }

    /// Puts `value` in, last.
    #[inline]
    pub(super) fn put<T: Message>(&self, value: T, deadline: Deadline) -> std::result::Result<(), TrySendError<T>> {
        if let Some(bytes) = as_bytes(&value) {
            let put = self.put_bytes(bytes, &Handles::default(), deadline);
            return put.map_err(|refused| refused.with(value));
        }
        let encoded = to_message(&value, ENCODED.take(), (usize::MAX, &mut NoSpill));
        let put = match encoded {
            Ok((Encoded::Small(bytes), handles)) => {
                let put = self.put_bytes(&bytes, &handles, deadline);
                if bytes.capacity() <= MAX_KEPT_BYTES {
                    ENCODED.set(bytes);
                }
                put
            }
            Ok((Encoded::Spilled(_), _)) => Err(CodecError::new("it is too long").into()),
            Err(error) => Err(error.into()),
        };
        put.map_err(|refused| refused.with(value))
    }

    fn put_bytes(&self, bytes: &[u8], handles: &Handles, deadline: Deadline) -> std::result::Result<(), NotSent> {
        let Some(end) = &self.puts else { return Err(NotSent::Disconnected(())) };
        let beside = !handles.is_empty();
        let shape = ItemLayout::for_bytes(bytes.len(), beside, self.lends);
        if beside || shape.long {
            self.check(bytes, handles, shape)?;
        }
        let cost = QueueMemory::cost(bytes.len(), shape);
        if cost > self.memory.words().most_bytes.load(Relaxed) {
            return Err(self.too_long(bytes.len(), shape));
        }
        let (mut long, mut give_up_at) = (None, None);
        loop {
            if self.is_disconnected(end, self.death_epoch()) {
                return Err(NotSent::Disconnected(()));
            }
            let put = self.try_put((shape, bytes), cost, (&mut long, for_lock(deadline)), |number| {
                if !beside {
                    return Ok(());
                }
                end.send(number, handles).map_err(|errno| match errno {
                    Errno::EAGAIN => EnqueueError::Full(self.memory.words().get.place.load(Acquire)),
                    Errno::EPIPE | Errno::ECONNRESET => EnqueueError::Closed,
                    errno => EnqueueError::MemoryError(errno),
                })
            });
            match put {
                Ok(hops) => {
                    if hops {
                        // Now and then also where no end was reported.
                        self.check_receivers(end, self.death_epoch());
                    }
                    return Ok(());
                }
                Err(EnqueueError::Closed) => return Err(NotSent::Disconnected(())),
                Err(EnqueueError::Late) => return Err(NotSent::Full(())),
                Err(EnqueueError::Full(head)) => {
                    let waited = deadline != Deadline::Now && self.wait_for_room(head, deadline.instant());
                    // Also before giving up: a caller that only tries would else never hear of an end that was not
                    // reported.
                    let gone = self.check_receivers(end, self.death_epoch());
                    if !waited {
                        return Err(if gone { NotSent::Disconnected(()) } else { NotSent::Full(()) });
                    }
                }
                Err(EnqueueError::MemoryError(errno)) => {
                    let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + FD_RETRY_TIME);
                    let may_wait = deadline != Deadline::Now || errno == Errno::ETOOMANYREFS;
                    if !(beside && is_temporary(errno) && may_wait) || Instant::now() >= give_up_at {
                        return Err(NotSent::failed("send an item", errno));
                    }
                    if deadline.is_over() {
                        return Err(NotSent::Full(()));
                    }
                    // Too many descriptors are under way, to whomever.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    #[inline]
    fn try_put<'a>(
        &'a self,
        (shape, bytes): (ItemLayout, &[u8]),
        cost: u64,
        (long, deadline): (&mut Option<LargeItem<'a>>, Option<Instant>),
        send: impl FnOnce(u64) -> std::result::Result<(), EnqueueError>,
    ) -> std::result::Result<bool, EnqueueError> {
        if shape.long && long.is_none() {
            // Not before there is room: what waits outside the queue takes memory, too.
            if let Some(_inside) = self.memory.putting(deadline) {
                self.memory.room(cost)?;
            }
            *long = Some(self.memory.fill(bytes)?);
        }
        let mut inside = self.memory.putting(deadline).ok_or(EnqueueError::Late)?;
        let hops = self.memory.put(&mut inside, (shape, bytes), long.as_mut(), send)?;
        let wanted = &self.memory.words().put.wanted;
        if wanted.load(Relaxed) != 0
            && let Some(end) = &self.puts
        {
            // In this order: a message too many, should this process be killed in between.
            end.ring();
            wanted.store(0, Relaxed);
        }
        Ok(hops)
    }

    #[cold]
    fn check(&self, bytes: &[u8], handles: &Handles, shape: ItemLayout) -> std::result::Result<(), NotSent> {
        if handles.len() > MAX_HANDLES {
            let reason = format!("more than {MAX_HANDLES} handles cannot travel with one item");
            return Err(CodecError::new(reason).into());
        }
        if self.lends && !handles.is_empty() {
            let reason = "handles cannot go through a `JoinableQueue`: an item that comes back would come without them";
            return Err(CodecError::new(reason).into());
        }
        if shape.long && bytes.len() > self.memory.longest() {
            return Err(self.too_long(bytes.len(), shape));
        }
        Ok(())
    }

    #[cold]
    fn too_long(&self, bytes: usize, shape: ItemLayout) -> NotSent {
        let most = usize::try_from(self.memory.words().most_bytes.load(Relaxed)).unwrap_or(usize::MAX);
        let beside = usize::try_from(QueueMemory::cost(bytes, shape)).map_or(usize::MAX, |cost| cost - bytes);
        let limit = most.saturating_sub(beside).min(self.memory.longest());
        // Short ones take whole units.
        let part = if shape.long { 0 } else { limit % UNIT };
        NotSent::too_long(bytes, limit - part)
    }

    /// A number that is another one once a process has ended, or has let go of its consumers.
    #[inline]
    pub(super) fn death_epoch(&self) -> u64 {
        proc_table::deaths().wrapping_add(self.memory.words().dropped.load(Acquire).into()) & (GONE >> 2)
    }

    /// Whether no consumer is left. The kernel is asked if there is news since it was asked last.
    #[inline]
    fn is_disconnected(&self, end: &Endpoint, news: u64) -> bool {
        let seen = self.seen.load(Relaxed);
        if seen == news {
            return false;
        }
        seen == GONE || self.check_receivers(end, news)
    }

    #[cold]
    fn check_receivers(&self, end: &Endpoint, news: u64) -> bool {
        // A process that has a consumer itself is one that gets.
        let gone = self.gets.is_none() && end.is_alone();
        self.seen.store(if gone { GONE } else { news }, Relaxed);
        gone
    }

    /// Takes the first item out. Where it stands, if it is lent.
    #[inline]
    pub(super) fn get<T: Message>(&self, deadline: Deadline) -> std::result::Result<(T, (u32, u32)), TryRecvError> {
        let (mut buffer, mut got) = (Buffer::new(|| DECODED.take()), Got::new());
        let len = self.get_bytes(&mut buffer, &mut got, deadline)?;
        // Should its `Deserialize` panic, others may have it.
        let mut returns = ReturnOnDrop(self.lends.then_some(self), got.at);
        let none = Received::default();
        let value = of_message(buffer.bytes(len), got.beside.as_ref().unwrap_or(&none));
        returns.0 = None;
        let lent = buffer.into_lent();
        if lent.capacity() > 0 && lent.capacity() <= MAX_KEPT_BYTES {
            DECODED.set(lent);
        }
        if value.is_err() {
            self.return_lease(got.at);
        }
        Ok((value?, got.at))
    }

    /// An item that is lent cannot be decoded: no other process could either.
    #[cold]
    fn return_lease(&self, at: (u32, u32)) {
        if self.lends {
            self.done(at);
        }
    }

    #[inline]
    fn get_bytes(
        &self,
        buffer: &mut Buffer,
        got: &mut Got<Received>,
        deadline: Deadline,
    ) -> std::result::Result<usize, TryRecvError> {
        let Some(end) = &self.gets else { return Err(TryRecvError::Disconnected) };
        let (mut is_over, mut has_looked) = (false, !self.lends);
        loop {
            let len = match if self.lends { Ok(None) } else { self.memory.get_short(buffer) } {
                Ok(Some(len)) => return Ok(len),
                Ok(None) => self.get_locked(end, for_lock(deadline), (buffer, got)),
                Err(error) => Err(error),
            };
            match len {
                Ok(len) => {
                    self.memory.copy((got, len), buffer, self.lends);
                    return Ok(len);
                }
                Err(DequeueError::Corrupt) => {
                    return Err(TryRecvError::failed(
                        "receive an item from memory that was written over",
                        Errno::EPROTO,
                    ));
                }
                Err(DequeueError::MemoryError(errno)) => {
                    return Err(TryRecvError::failed("receive an item", errno));
                }
                Err(DequeueError::Late) => return Err(TryRecvError::Empty),
                // No item can have been put after it was seen to be over.
                Err(DequeueError::Empty(_)) if is_over => return Err(TryRecvError::Disconnected),
                Err(DequeueError::Empty(tail)) => {
                    let waits = !matches!(deadline, Deadline::Now);
                    if waits && self.look_for_item(tail) {
                        continue;
                    }
                    is_over = self.is_over(end);
                    let may_come = is_over || waits && self.wait_for_item(end, tail, deadline.instant());
                    if !may_come {
                        // A process may have had one and have died without a report.
                        if !std::mem::replace(&mut has_looked, true) && self.look_for_dead(true) {
                            continue;
                        }
                        return Err(TryRecvError::Empty);
                    }
                }
            }
        }
    }

    /// Takes the first item out, of whatever kind it is.
    fn get_locked(
        &self,
        end: &Endpoint,
        deadline: Option<Instant>,
        (buffer, got): (&mut Buffer, &mut Got<Received>),
    ) -> std::result::Result<usize, DequeueError> {
        let mut inside = self.memory.getting(deadline).ok_or(DequeueError::Late)?;
        if self.lends {
            self.look_for_dead(false);
        }
        let mut number = None;
        let len = self.memory.get(&mut inside, (buffer, got), |this| {
            number = Some(this);
            end.look(this)
        });
        if let (Ok(_), Some(number)) = (&len, number) {
            end.forget(number);
        }
        len
    }

    /// Whether nothing will come any more that is not there already.
    pub(super) fn is_over(&self, end: &Endpoint) -> bool {
        let closed = self.memory.words().closed.load(SeqCst) != 0;
        if self.lends {
            // What others have may come back.
            return closed
                && self.memory.getting(short_deadline()).is_some_and(|_inside| !self.memory.is_lent_elsewhere());
        }
        closed || self.puts.is_none() && end.is_alone()
    }

    /// What is told of the next item, and of the end of the last producer; has them told.
    pub(super) fn bell(&self) -> Option<&Endpoint> {
        let end = self.gets.as_ref()?;
        if let Some(_inside) = self.memory.putting(short_deadline()) {
            self.drop_orphans(end);
            self.memory.words().put.wanted.store(1, Relaxed);
        }
        Some(end)
    }

    /// Takes no more items; those that are there can be got.
    pub(super) fn close(&self) {
        if let Some(mut inside) = self.memory.putting(None) {
            self.memory.words().closed.store(1, SeqCst);
            inside.call(ALL);
        }
        if let Some(mut inside) = self.memory.getting(None) {
            inside.call(ALL);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.memory.words().closed.load(Acquire) != 0
    }
}
