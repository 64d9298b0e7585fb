//! Answers that come by a client's queue: which call they are for, and which thread reads them.
//!
//! Runs in: a client.
//! Invariant: one thread at a time reads the queue, for all threads that wait.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::wire::{Answer, CallReply, Status};
use crate::channel::{QueueReceiver, RecvTimeoutError};
use crate::error::Error;
use crate::reactor;
use crate::sys::mutex::MutexExt as _;

/// How long to try again where the kernel refuses what the next answer needs, such as room for descriptors.
const MAX_FAILURE: Duration = Duration::from_secs(1);

/// How long to wait before it is tried again.
const FAILURE_PAUSE: Duration = Duration::from_millis(1);

/// How many answers a thread reads that waits for none of them.
const MAX_READ_AT_ONCE: usize = 256;

/// One call whose answer comes by the queue.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    answer: Option<Answer>,
    /// The answer has come, even if it was taken.
    was_answered: bool,
    waker: Option<Waker>,
    deadline: Option<Instant>,
    /// No thread waits for it: what comes is thrown away.
    ignored: bool,
    /// A thread sleeps until it changes.
    sleeps: bool,
    queued: Option<OrderedCall>,
    /// How long its arguments are.
    bytes: usize,
}

/// A call that others of the same object must not overtake, until it is answered.
#[derive(Debug)]
pub(super) struct OrderedCall(Arc<AtomicU32>);

impl OrderedCall {
    /// One more of those that `count` counts.
    pub(super) fn new(count: &Arc<AtomicU32>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for OrderedCall {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Pending {
    /// The answer, if it is there; the first time only.
    pub(super) fn take(&self) -> Option<Answer> {
        self.state.lock_unpoisoned().answer.take()
    }

    pub(super) fn is_answered(&self) -> bool {
        self.state.lock_unpoisoned().answer.is_some()
    }

    /// It is counted by `queued` until it is answered.
    pub(super) fn count(&self, queued: OrderedCall) {
        self.state.lock_unpoisoned().queued = Some(queued);
    }

    /// Has `waker` woken when the answer is there, or at `deadline`. True: it is there.
    pub(super) fn register(&self, waker: &Waker, deadline: Option<Instant>) -> bool {
        // Cloning and dropping a waker is the program's code.
        let waker = waker.clone();
        let mut state = self.state.lock_unpoisoned();
        let is_answered = state.answer.is_some();
        let unused = if is_answered {
            Some(waker)
        } else {
            state.deadline = deadline;
            state.waker.replace(waker)
        };
        drop(state);
        drop(unused);
        is_answered
    }

    /// When the future that waits for it is to be woken at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.state.lock_unpoisoned().deadline
    }

    pub(super) fn has_waker(&self) -> bool {
        self.state.lock_unpoisoned().waker.is_some()
    }

    pub(super) fn wake(&self) {
        let mut state = self.state.lock_unpoisoned();
        let waker = state.waker.take();
        state.sleeps = false;
        self.changed.notify_all();
        drop(state);
        if let Some(waker) = waker {
            reactor::wake(waker);
        }
    }

    /// Asks a thread that sleeps to look whether it should read. True: there is one.
    fn ask_to_read(&self) -> bool {
        let mut state = self.state.lock_unpoisoned();
        let sleeps = std::mem::take(&mut state.sleeps);
        if sleeps {
            self.changed.notify_all();
        }
        sleeps
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Inbox {
    /// `None` if a thread of its own brings the answers.
    replies: Option<QueueReceiver<CallReply>>,
    /// Held by the thread that reads.
    reading: Mutex<()>,
    pending: Mutex<HashMap<u64, Arc<Pending>>>,
    /// Number of calls in `pending` that are not answered.
    in_flight: AtomicUsize,
    /// Number of bytes of their arguments.
    bytes_in_flight: AtomicUsize,
    /// Number of threads that sleep, or are about to.
    sleepers: AtomicUsize,
    /// A thread that reads for futures sleeps, or is about to, until the thread that reads has left.
    futures_wait: AtomicBool,
    has_left: Mutex<bool>,
    left: Condvar,
    /// The first answer that waits cannot be received, for this reason, since then.
    failure: Mutex<Option<(Instant, Error)>>,
    /// The manager has no end of the queue any more.
    is_over: AtomicBool,
    /// The manager lives, and has not let this process become a client.
    is_refused: AtomicBool,
}

/// See [`Inbox::sleeper`].
struct Sleeper<'i>(&'i AtomicUsize);

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Marks the number of a call that stands in memory, and whose answer comes by the queue only if it does not fit there.
pub(super) const IN_SLOT: u64 = 1 << 63;

impl Inbox {
    pub(super) fn new(replies: Option<QueueReceiver<CallReply>>) -> Self {
        Self {
            replies,
            reading: Mutex::new(()),
            pending: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            bytes_in_flight: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            futures_wait: AtomicBool::new(false),
            has_left: Mutex::default(),
            left: Condvar::new(),
            failure: Mutex::default(),
            is_over: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
        }
    }

    /// Why no answer can be received, if that has been so for longer than [`MAX_FAILURE`].
    pub(super) fn failure(&self) -> Option<Error> {
        let failure = self.failure.lock_unpoisoned();
        failure.as_ref().filter(|(since, _)| since.elapsed() >= MAX_FAILURE).map(|(_, error)| error.clone())
    }

    /// Whether nothing will come any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Acquire)
    }

    /// Whether the manager has no descriptors for this client.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Acquire)
    }

    /// Number of calls of which something is known.
    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.pending.lock_unpoisoned().len()
    }

    /// Where the answer to that call will be, or is.
    pub(super) fn expect(&self, call: u64) -> Arc<Pending> {
        match self.pending.lock_unpoisoned().entry(call) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(place) => {
                self.in_flight.fetch_add(1, SeqCst);
                Arc::clone(place.insert(Arc::default()))
            }
        }
    }

    /// As [`expect`](Self::expect), for a new call whose arguments have so many bytes, unless `most` are in flight, or as many
    /// bytes of arguments as the second number says.
    pub(super) fn expect_within(&self, (call, bytes): (u64, usize), most: (usize, usize)) -> Option<Arc<Pending>> {
        let mut all = self.pending.lock_unpoisoned();
        if !self.has_room(bytes, most) {
            return None;
        }
        self.in_flight.fetch_add(1, SeqCst);
        self.bytes_in_flight.fetch_add(bytes, SeqCst);
        let pending = Arc::<Pending>::default();
        pending.state.lock_unpoisoned().bytes = bytes;
        all.insert(call, Arc::clone(&pending));
        Some(pending)
    }

    /// Whether one more call may be in flight. One alone may have any number of bytes.
    pub(super) fn has_room(&self, bytes: usize, (most, most_bytes): (usize, usize)) -> bool {
        match self.in_flight() {
            (0, _) => true,
            (calls, others) => calls < most && others.saturating_add(bytes) <= most_bytes,
        }
    }

    /// The call is over, or no thread waits for it.
    pub(super) fn forget(&self, call: u64) -> Option<Arc<Pending>> {
        let pending = self.pending.lock_unpoisoned().remove(&call)?;
        let state = pending.state.lock_unpoisoned();
        if !state.was_answered {
            self.count_out(&state);
        }
        drop(state);
        Some(pending)
    }

    /// No thread waits for this call any more. It is in flight until it is answered. What has come is returned.
    pub(super) fn detach(&self, call: u64) -> Option<Answer> {
        let pending = self.pending.lock_unpoisoned().get(&call).map(Arc::clone)?;
        let mut state = pending.state.lock_unpoisoned();
        if !state.was_answered {
            state.ignored = true;
            // Its destructor is the program's code.
            let waker = state.waker.take();
            drop(state);
            drop(waker);
            return None;
        }
        let answer = state.answer.take();
        drop(state);
        self.forget(call);
        answer
    }

    /// A call is not in flight any more.
    fn count_out(&self, state: &State) {
        self.in_flight.fetch_sub(1, SeqCst);
        self.bytes_in_flight.fetch_sub(state.bytes, SeqCst);
    }

    /// How many calls are not answered, and how many bytes their arguments have.
    pub(super) fn in_flight(&self) -> (usize, usize) {
        (self.in_flight.load(SeqCst), self.bytes_in_flight.load(SeqCst))
    }

    /// An answer will come that no thread waits for. It is returned if it has come.
    pub(super) fn ignore(&self, call: u64) -> Option<Answer> {
        match self.pending.lock_unpoisoned().entry(call) {
            Entry::Occupied(known) => known.remove().take(),
            Entry::Vacant(place) => {
                self.in_flight.fetch_add(1, SeqCst);
                place.insert(Arc::default()).state.lock_unpoisoned().ignored = true;
                None
            }
        }
    }

    /// The calls that futures wait for.
    pub(super) fn awaited(&self) -> Vec<Arc<Pending>> {
        self.pending.lock_unpoisoned().values().filter(|pending| pending.has_waker()).map(Arc::clone).collect()
    }

    /// Waits until the answer is there or until `deadline`, and reads for all meanwhile, unless another thread does. Returns
    /// whether this thread has read. What comes for a call of which nothing is known is told to `unclaimed`, with the object
    /// that it brought.
    pub(super) fn look(&self, pending: &Pending, deadline: Instant, unclaimed: impl Fn(u64, u64)) -> bool {
        let read = |reading: MutexGuard<'_, ()>| {
            self.read_until(deadline, &unclaimed, || pending.is_answered());
            drop(reading);
            self.pass_on();
            true
        };
        loop {
            if pending.is_answered() {
                return false;
            }
            if let Some(reading) = self.lead() {
                return read(reading);
            }
            let _sleeper = self.sleeper();
            pending.state.lock_unpoisoned().sleeps = true;
            // The thread that reads may have left before it could see that this one is about to sleep.
            if let Some(reading) = self.lead() {
                return read(reading);
            }
            let mut state = pending.state.lock_unpoisoned();
            while state.answer.is_none() && state.sleeps {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return false;
                }
                state = pending.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// One more thread that sleeps until another one has read, or has left.
    fn sleeper(&self) -> Sleeper<'_> {
        self.sleepers.fetch_add(1, SeqCst);
        Sleeper(&self.sleepers)
    }

    /// Reads for all until `deadline`, or until there is no call that a future waits for; or waits for another thread that reads
    /// to leave.
    pub(super) fn serve_futures(&self, deadline: Instant, unclaimed: impl Fn(u64, u64)) {
        let read = |reading: MutexGuard<'_, ()>| {
            self.read_until(deadline, &unclaimed, || self.awaited().is_empty());
            drop(reading);
            self.pass_on();
        };
        if let Some(reading) = self.lead() {
            return read(reading);
        }
        let mut has_left = self.has_left.lock_unpoisoned();
        *has_left = false;
        self.futures_wait.store(true, SeqCst);
        // The thread that reads may have left before it could see that this one is about to sleep.
        let reading = self.lead();
        while reading.is_none() && !*has_left {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            has_left = self.left.wait_timeout(has_left, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.futures_wait.store(false, SeqCst);
        drop(has_left);
        if let Some(reading) = reading {
            read(reading);
        }
    }

    /// Reads for all until `deadline`, or until `done`; or lets another thread read for a moment.
    pub(super) fn read_for_room(&self, deadline: Instant, done: impl Fn() -> bool, unclaimed: impl Fn(u64, u64)) {
        if let Some(reading) = self.lead() {
            self.read_until(deadline, &unclaimed, done);
            drop(reading);
            self.pass_on();
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reads some of the answers that are there, unless another thread reads.
    pub(super) fn read_some(&self, unclaimed: impl Fn(u64, u64)) {
        if let Some(reading) = self.lead() {
            let left = Cell::new(MAX_READ_AT_ONCE);
            let done = || left.replace(left.get().saturating_sub(1)) == 0;
            self.read_until(Instant::now(), &unclaimed, done);
            drop(reading);
            self.pass_on();
        }
    }

    fn lead(&self) -> Option<MutexGuard<'_, ()>> {
        self.replies.as_ref()?;
        match self.reading.try_lock() {
            Ok(reading) => Some(reading),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Reads until `done`, until `deadline`, or until nothing will come any more.
    fn read_until(&self, deadline: Instant, unclaimed: &impl Fn(u64, u64), done: impl Fn() -> bool) {
        let Some(replies) = &self.replies else { return };
        while !done() {
            match replies.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(reply) => {
                    self.failure.lock_unpoisoned().take();
                    self.deliver(reply, unclaimed);
                }
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => {
                    self.is_over.store(true, Release);
                    return;
                }
                // What cannot be decoded is of no call that can be told; what could not be received is tried again.
                Err(RecvTimeoutError::Failed(error)) => {
                    let now = Instant::now();
                    self.failure.lock_unpoisoned().get_or_insert_with(|| (now, error));
                    // The queue says so whatever the time.
                    if now >= deadline {
                        return;
                    }
                    std::thread::sleep(FAILURE_PAUSE.min(deadline.saturating_duration_since(now)));
                }
            }
        }
    }

    /// Nothing will come any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Release);
        let waiting: Vec<_> = self.pending.lock_unpoisoned().values().map(Arc::clone).collect();
        for pending in waiting {
            pending.wake();
        }
    }

    /// Gives an answer to the call that it is for.
    pub(super) fn deliver(&self, reply: CallReply, unclaimed: &impl Fn(u64, u64)) {
        let CallReply { call, status, object, body } = reply;
        let status = Status::from_number(status).unwrap_or(Status::BadResult);
        if status == Status::NoDescriptors {
            self.is_refused.store(true, Release);
            return;
        }
        let (bytes, received) = body.unpack();
        let answer = Answer { status, object, bytes, received };
        let mut all = self.pending.lock_unpoisoned();
        let pending = match all.entry(call) {
            Entry::Occupied(known) => Some(Arc::clone(known.get())),
            // Its thread does not know yet that the answer comes by the queue.
            Entry::Vacant(place) if call & IN_SLOT != 0 => {
                self.in_flight.fetch_add(1, SeqCst);
                Some(Arc::clone(place.insert(Arc::default())))
            }
            Entry::Vacant(_) => None,
        };
        let Some(pending) = pending else {
            drop(all);
            if answer.status == Status::Done {
                unclaimed(call, object);
            }
            return;
        };
        // One lock before the other is released: a thread that forgets the call meanwhile would count it as answered, too.
        let mut state = pending.state.lock_unpoisoned();
        drop(all);
        drop(state.queued.take());
        if state.ignored {
            drop(state);
            self.forget(call);
            if answer.status == Status::Done {
                unclaimed(call, object);
            }
            return;
        }
        state.answer = Some(answer);
        if !std::mem::replace(&mut state.was_answered, true) {
            self.count_out(&state);
        }
        drop(state);
        pending.wake();
    }

    /// Lets another thread read, if one waits.
    fn pass_on(&self) {
        if self.futures_wait.load(SeqCst) {
            *self.has_left.lock_unpoisoned() = true;
            self.left.notify_all();
        }
        if self.sleepers.load(SeqCst) == 0 {
            return;
        }
        let waiting: Vec<_> = self.pending.lock_unpoisoned().values().map(Arc::clone).collect();
        let _ = waiting.iter().any(|pending| pending.ask_to_read());
    }
}
