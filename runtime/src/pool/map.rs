//! `map`: all results of many items, which travel many in a frame.
//!
//! Runs in: the parent, on the thread that maps. Memory does not fill with items that were read ahead, and no item is kept
//! back for long while the next one is awaited.
//!
//! Why a map waits for several batches, for a millisecond at most: to wake up for each one costs more than its items.
//! When the first batch is late, it waits for any: not to read on would leave workers without work.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::thread::{Thread, ThreadId};
use std::time::Duration;

use super::batch_size::BatchSizer;
use super::call::Call;
use super::imap::Imap;
use super::inline;
use super::metrics::{entered, has_spans};
use super::scheduler::Scheduler;
use super::shared::{PendingPermit, Shared};
use super::waitable::Waitable;
use crate::call::decode;
use crate::codec::Writer;
use crate::codec::handles::{self, Handles};
use crate::error::{Direction, Error, ErrorKind, Execution, Result};
use crate::link::batch::{Builder, MAX_ITEM_BYTES};
use crate::link::frame::INLINE;
use crate::link::window::MAX_IN_FLIGHT;
use crate::link::{BufferWriter, Payload};
use crate::sys::clock;
use crate::task::{Options, Task};

/// How long results may lie there while others are awaited, so that many are taken together.
const PATIENCE: Duration = Duration::from_millis(1);

/// How many results, and how many calls, may lie there behind one that is not there yet, before no more is sent.
const MOST_BYTES: usize = 64 << 20;
const MOST_CALLS: usize = 4096;

/// How many handles may be beside a batch before it gets no further items.
const MOST_HANDLES: usize = 64;

/// What is told how many results there are, and how many there will be, if that is known.
pub(super) type Hook<'h> = &'h mut dyn FnMut(usize, Option<usize>);

/// Runs `task` on every item. `hook` is called as results come; the last time, with all of them.
pub(super) fn map<'a, T, I>(shared: &Arc<Shared>, task: T, items: I, hook: Hook<'_>) -> Result<Vec<T::Output>>
where
    T: Task,
    I: Iterator<Item = T::Args<'a>>,
{
    let _span = has_spans().then(|| entered(true, task.registration().name()));
    let total = exact(&items);
    let results = if travels_in_batches(shared, task) {
        MapRun::new(shared, task).run(items, total, hook)?
    } else {
        one_by_one(shared, task, items, total, hook)?
    };
    if total != Some(results.len()) || results.is_empty() {
        hook(results.len(), Some(results.len()));
    }
    Ok(results)
}

/// Whether the task's calls are alike, and nothing has to be said or counted for each.
fn travels_in_batches<T: Task>(shared: &Arc<Shared>, task: T) -> bool {
    let alike = task.options() == Options::new() && task.registration().task_index().is_some();
    alike && !inline::is_on() && allows_batches(shared)
}

/// Whether calls need not be counted one by one.
fn allows_batches(shared: &Shared) -> bool {
    !shared.limit.is_bounded() && shared.config.quota.is_none() && !shared.is_foreign()
}

fn one_by_one<'a, T, I>(
    shared: &Arc<Shared>,
    task: T,
    items: I,
    total: Option<usize>,
    hook: Hook<'_>,
) -> Result<Vec<T::Output>>
where
    T: Task,
    I: Iterator<Item = T::Args<'a>>,
{
    let mut results = Vec::new();
    for result in Imap::new(shared, task, items, 4 * MAX_IN_FLIGHT as usize * shared.workers()) {
        results.push(result?);
        hook(results.len(), total);
    }
    Ok(results)
}

fn exact<I: Iterator>(items: &I) -> Option<usize> {
    let (least, most) = items.size_hint();
    most.filter(|most| *most == least)
}

/// A map under way.
struct MapRun<'p, T: Task> {
    shared: &'p Arc<Shared>,
    /// The task's name and its number in the registry.
    task: (&'static str, u32),
    workers: usize,
    results: Vec<T::Output>,
    /// Calls with results that were not taken, in the items' order.
    pending: VecDeque<SentBatch>,
    /// How many more may be sent before it is counted again how many are not settled.
    room: usize,
    /// So much is there already, behind what is not, that no more is sent.
    full: bool,
    /// The batch that is being put together, its bytes, and how many items it is to get.
    batch: Builder,
    bytes: Vec<u8>,
    size: usize,
    /// What travels beside it.
    handles: Handles,
    filling: BufferWriter,
    pace: BatchSizer,
    /// There may be more items, and they are wanted.
    reads: bool,
}

/// A call that was sent.
struct SentBatch {
    call: Arc<Call>,
    /// How long it took is known to the pace.
    learnt: bool,
}

/// Why a batch gets no further items.
enum BatchEnd {
    /// It has as many as it is to get.
    Full,
    /// It has waited for its next item for milliseconds.
    Late,
    NoMore,
    /// This item did not fit.
    NoRoom(Vec<u8>),
    /// The last item is this many bytes in the shared buffer.
    Spilled(usize),
    /// The last item cannot be encoded, for this reason.
    Refused(String),
}

impl<'p, T: Task> MapRun<'p, T> {
    fn new(shared: &'p Arc<Shared>, task: T) -> Self {
        let workers = shared.workers();
        let registration = task.registration();
        Self {
            shared,
            task: (registration.name(), registration.task_index().unwrap_or_default()),
            workers,
            results: Vec::new(),
            pending: VecDeque::new(),
            room: 2 * workers,
            full: false,
            batch: Builder::default(),
            bytes: Vec::with_capacity(INLINE),
            size: 1,
            handles: Handles::default(),
            filling: BufferWriter::new(&shared.stock),
            pace: BatchSizer::default(),
            reads: true,
        }
    }

    fn run<'a, I>(mut self, items: I, total: Option<usize>, hook: Hook<'_>) -> Result<Vec<T::Output>>
    where
        I: Iterator<Item = T::Args<'a>>,
    {
        // A hint may promise more than memory holds.
        self.results.reserve(total.unwrap_or_default().min(1 << 16));
        let mut items = items.fuse();
        loop {
            while self.has_room() && self.reads {
                let stopped = self.fill(&mut items);
                let handles = self.handles.clone();
                self.send(exact(&items));
                if matches!(stopped, BatchEnd::Late) {
                    // The replies are not looked at while an input is slow.
                    self.shared.update(Scheduler::collect);
                }
                self.go_on(stopped, handles);
                self.take_what_is_there(total, hook)?;
            }
            if self.pending.is_empty() {
                return Ok(mem::take(&mut self.results));
            }
            self.wait();
            self.take_what_is_there(total, hook)?;
        }
    }

    /// Puts items into the batch until it is to be sent.
    fn fill<'a>(&mut self, items: &mut impl Iterator<Item = T::Args<'a>>) -> BatchEnd {
        let mut handles = Handles::default();
        let stopped = handles::collect(&mut handles, || self.fill_from(items));
        self.handles = handles;
        stopped
    }

    /// As [`MapRun::fill`], where handles can be put.
    fn fill_from<'a>(&mut self, items: &mut impl Iterator<Item = T::Args<'a>>) -> BatchEnd {
        let mut tick = clock::coarse();
        let mut writer = Writer::after(mem::take(&mut self.bytes), INLINE, &mut self.filling);
        let stopped = loop {
            if self.batch.count() >= self.size || handles::collected() >= MOST_HANDLES {
                break BatchEnd::Full;
            }
            let Some(item) = items.next() else { break BatchEnd::NoMore };
            writer.begin(self.batch.next_start(), INLINE);
            handles::next_value();
            match T::encode(item, &mut writer).and_then(|()| writer.end()) {
                Ok(None) if self.batch.put(writer.staged().len()) => {}
                Ok(None) => break BatchEnd::NoRoom(writer.staged().split_off(self.batch.next_start())),
                Ok(Some(len)) => break BatchEnd::Spilled(len),
                Err(error) => break BatchEnd::Refused(error.to_string()),
            }
            let now = clock::coarse();
            if now != mem::replace(&mut tick, now) {
                break BatchEnd::Late;
            }
        };
        self.bytes = mem::take(writer.staged());
        stopped
    }

    /// Sends what was read and did not become part of the batch, which was sent. It has the batch's handles, and its own.
    fn go_on(&mut self, stopped: BatchEnd, handles: Handles) {
        match stopped {
            BatchEnd::Full | BatchEnd::Late => {}
            BatchEnd::NoMore => self.reads = false,
            BatchEnd::NoRoom(item) if handles.is_empty() => self.begin_with(item),
            BatchEnd::NoRoom(item) => self.send_alone(Payload::small(item).with(handles)),
            BatchEnd::Spilled(len) => {
                let filling = mem::replace(&mut self.filling, BufferWriter::new(&self.shared.stock));
                match filling.done(len) {
                    Some(loan) => self.send_alone(Payload::in_buffer(loan).with(handles)),
                    None => self.refuse("their shared memory is gone".to_owned()),
                }
            }
            BatchEnd::Refused(reason) => self.refuse(reason),
        }
    }

    /// Whether more may be read: not if workers have enough to do, or if too many results wait for one before them.
    fn has_room(&mut self) -> bool {
        if self.room == 0 {
            self.count();
        }
        self.room > 0
    }

    /// Counts what is not settled, and learns from what is. Returns the former.
    fn count(&mut self) -> Vec<Arc<Call>> {
        let (mut unsettled, mut held) = (Vec::new(), 0);
        for sent in &mut self.pending {
            if sent.call.is_settled() {
                held += sent.learn(&mut self.pace);
            } else {
                unsettled.push(Arc::clone(&sent.call));
            }
        }
        let known = self.pace.is_known();
        let most = self.workers * if known { 4 * MAX_IN_FLIGHT as usize } else { 2 };
        self.full = held > MOST_BYTES || self.pending.len() > MOST_CALLS.max(most);
        self.room = if self.full { 0 } else { most.saturating_sub(unsettled.len()) };
        unsettled
    }

    /// Makes this the first item of the next batch, or sends it alone if it is too long for that.
    fn begin_with(&mut self, item: Vec<u8>) {
        if item.len() > MAX_ITEM_BYTES {
            return self.send_alone(Payload::small(item));
        }
        self.bytes.extend_from_slice(&item);
        self.batch.put(item.len());
    }

    /// Sends the batch, if there is anything in it; `left` items are known to come.
    fn send(&mut self, left: Option<usize>) {
        if self.batch.count() > 0 {
            let items = self.batch.finish(&mut self.bytes);
            let bytes = mem::replace(&mut self.bytes, Vec::with_capacity(INLINE));
            let payload = Payload::small(bytes).with(mem::take(&mut self.handles));
            self.submit(Call::of_batch(self.task.0, self.task.1, items), payload);
        }
        self.bytes.clear();
        self.handles = Handles::default();
        self.size = self.pace.items(left, self.workers);
    }

    fn send_alone(&mut self, payload: Payload) {
        self.submit(Call::new(self.task.0, self.task.1, Options::new()), payload);
    }

    fn submit(&mut self, call: Call, payload: Payload) {
        let call = Arc::new(call);
        PendingPermit::acquire(self.shared).submit(Arc::clone(&call), payload);
        self.pending.push_back(SentBatch::new(call));
        self.room = self.room.saturating_sub(1);
    }

    /// The next item cannot be sent, and none behind it is read.
    fn refuse(&mut self, reason: String) {
        let call = Call::new(self.task.0, self.task.1, Options::new());
        let kind = ErrorKind::CannotEncode { direction: Direction::Arguments, reason };
        drop(call.settle(Err(Error::new(kind, Execution::NotStarted))));
        self.pending.push_back(SentBatch::new(Arc::new(call)));
        self.reads = false;
    }

    /// Waits until results may be taken, or more items sent: if batches are short, until several are done.
    fn wait(&mut self) {
        let unsettled = self.count();
        if self.reads && self.room > 0 {
            return;
        }
        let many = self.pace.batches_in(PATIENCE, self.size, self.workers);
        let several = many.min(unsettled.len() / 2);
        if let Some(next) = unsettled.get(several).filter(|_| several > 0) {
            // Not for ever: an item among these may take long, or wait for one behind them.
            let share = u32::try_from(several).unwrap_or(u32::MAX);
            let time = (PATIENCE / u32::try_from(many).unwrap_or(u32::MAX)).saturating_mul(share).min(PATIENCE);
            self.shared.nap(&|| next.is_settled(), &**next, time);
        }
        let Some(front) = self.pending.front() else { return };
        let any = self.reads && !self.full;
        let done = || front.call.is_settled() || (any && unsettled.iter().any(|call| call.is_settled()));
        let _ = done() || self.shared.wait(&done, &Any(&unsettled), None);
    }

    /// Takes the results that are there, in their order.
    fn take_what_is_there(&mut self, total: Option<usize>, hook: Hook<'_>) -> Result<()> {
        while let Some(mut sent) = self.pending.pop_front_if(|sent| sent.call.is_settled()) {
            if let Some(rest) = sent.call.rest() {
                self.pending.push_front(SentBatch::new(Arc::clone(rest)));
            }
            sent.learn(&mut self.pace);
            let before = self.results.len();
            let taken = self.take(&sent.call);
            if self.results.len() > before {
                hook(self.results.len(), total);
            }
            taken?;
        }
        Ok(())
    }

    fn take(&mut self, call: &Call) -> Result<()> {
        let named = |error: Error| error.in_task(self.task.0);
        let Some(outcome) = call.outcome() else { return Ok(()) };
        let (Some(answered), Ok(body)) = (call.answered(), outcome) else {
            self.results.push(decode(outcome, T::decode_output).map_err(named)?);
            return Ok(());
        };
        handles::provide(&body.received(), || self.take_each(answered.each(body)))
    }

    /// Takes the results of a batch, of which each may be a failure.
    fn take_each<'b>(&mut self, results: impl Iterator<Item = Result<&'b [u8]>>) -> Result<()> {
        let named = |error: Error| error.in_task(self.task.0);
        for result in results {
            let bytes = result.map_err(named)?;
            let decoded = T::decode_output(bytes).map_err(|error| {
                let kind = ErrorKind::CannotDecode { direction: Direction::Result, reason: error.to_string() };
                named(Error::new(kind, Execution::Finished))
            });
            self.results.push(decoded?);
        }
        Ok(())
    }
}

/// Calls of which any is waited for.
struct Any<'c>(&'c [Arc<Call>]);

impl Waitable for Any<'_> {
    fn enlist(&self, thread: Thread) {
        self.0.iter().for_each(|call| call.enlist(thread.clone()));
    }

    fn strike(&self, thread: ThreadId) {
        self.0.iter().for_each(|call| call.strike(thread));
    }
}

impl SentBatch {
    fn new(call: Arc<Call>) -> Self {
        Self { call, learnt: false }
    }

    /// Teaches what is known of a call that is settled, once. Returns the length of its results.
    fn learn(&mut self, pace: &mut BatchSizer) -> usize {
        let Some(Ok(body)) = self.call.outcome() else { return 0 };
        let len = body.bytes().map_or(0, <[u8]>::len);
        if let Some(answered) = self.call.answered()
            && let Some(nanos) = answered.nanos
            && !mem::replace(&mut self.learnt, true)
        {
            pace.learn(answered.items, nanos, len);
        }
        len
    }
}

impl<T: Task> Drop for MapRun<'_, T> {
    /// What is still on the way is not wanted any more.
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.shared.update(|scheduler| {
                self.pending.iter().for_each(|sent| sent.call.abandon_all());
                Scheduler::cancel_abandoned(scheduler);
            });
        }
    }
}
