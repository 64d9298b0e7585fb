//! Runs a batch: one call after the other, each result in shared memory before the next call begins.
//!
//! Runs in: a child, on its main thread.
//! A batch that takes longer than expected ends early, and the parent gives the rest of it to a free worker.
//!
//! Why a result is written before `progress` counts it: when the child dies, the results before are there, one item
//! is lost, and the rest is the same request with another first item. A child that ends a batch early says so, or its
//! death would cost an item that did not run.

use std::cell::Cell;
use std::io::{self, Write as _};
use std::mem;
use std::time::{Duration, Instant};

use super::serve;
use crate::call::{self, Ran, ResultSink};
use crate::codec::handles::{self, Handles};
use crate::codec::{Spill, Writer};
use crate::link::batch::Items;
use crate::link::frame::{FrameKind, INLINE};
use crate::link::{BatchReply, BufferWriter, Callee, CrashNote, Incoming};
use crate::sys::{Errno, atfork, clock, process};
use crate::task::{Registration, lookup};

/// A batch that takes longer is answered as far as it has come. The parent makes batches a hundred times shorter.
const MAX_BATCH_TIME: Duration = Duration::from_millis(2);

/// Runs the items that fit into one answer, and answers them whatever happens.
pub(super) fn run(callee: &mut Callee, given: &Incoming, crash_note: CrashNote) {
    let Some(task) = lookup(given.task) else {
        return serve::answer(callee, given, FrameKind::UnknownTask, &[]);
    };
    let items = match given.payload().map(Items::parse) {
        Ok(Ok(items)) => items,
        // Only the parent can write there.
        Ok(Err(why)) => unreachable!("the parent wrote {why}"),
        Err(errno) => unreachable!("a batch is never in a parcel: {errno}"),
    };
    handles::provide(&given.received, || {
        handles::collect(&mut Handles::default(), || run_items(callee, given, (task, items), crash_note));
    });
}

/// As [`run`], where handles can be taken and put.
fn run_items(callee: &mut Callee, given: &Incoming, (task, items): (&Registration, Items<'_>), crash_note: CrashNote) {
    let mut filling = callee.filling();
    let start = Cell::new(0);
    let mut behind = OffsetSpill { filling: &mut filling, start: &start };
    let mut writer = Writer::new(Vec::with_capacity(64), INLINE, &mut behind);
    let answer = callee.begin_answer(given);
    let (watch, generation) = (Stopwatch::start(), atfork::generation());
    let mut results = BatchSink { callee, answer, watch, start: &start, crash_note, generation, spilled: None };
    call::run_each(task, items, &mut results, &mut writer);
    drop(writer);
    let BatchSink { callee, mut answer, watch, spilled, .. } = results;
    given.received.release();
    if spilled.is_none() {
        callee.end_items(&answer);
    }
    // What the tasks printed is there before their results are.
    let _ = io::stdout().flush();
    let Some((kind, len)) = spilled else { return callee.finish_answer(&answer, watch.nanos()) };
    let room = answer.room().unwrap_or_default();
    if let Err(errno) = callee.finish_answer_in_buffer(&answer, (kind, len), filling, watch.nanos()) {
        let why = not_handed_over(errno);
        let why = why.as_bytes();
        callee.put_result(&mut answer, FrameKind::BadResult, &why[..room.min(why.len())]);
        callee.finish_answer(&answer, watch.nanos());
    }
}

/// The results of a batch, which go into its answer in the reply half, one behind the other.
struct BatchSink<'c, 'f> {
    callee: &'c mut Callee,
    answer: BatchReply,
    watch: Stopwatch,
    /// Where the next result begins in a parcel, should it not fit into the ring.
    start: &'f Cell<usize>,
    crash_note: CrashNote,
    generation: u64,
    /// The last result, if it is in a parcel, and how many bytes it has.
    spilled: Option<(FrameKind, usize)>,
}

impl ResultSink for BatchSink<'_, '_> {
    #[inline]
    fn begin(&mut self) -> Option<usize> {
        let room = self.answer.room()?;
        self.crash_note.clear();
        self.start.set(self.answer.len_with_head());
        Some(room)
    }

    #[inline]
    fn returned(&mut self) {
        if atfork::generation() != self.generation {
            // The task called `fork()`, and this is the copy: the link is the original's.
            process::exit_now(0);
        }
    }

    #[inline]
    fn put(&mut self, mut ran: Ran, room: usize, writer: &mut Writer<'_>) -> bool {
        let handles = handles::take_collected();
        let has_handles = ran.kind == FrameKind::Done && !handles.is_empty();
        if has_handles && let Err(errno) = self.callee.put_handles(&mut self.answer, &handles) {
            ran = call::put_failure(FrameKind::BadResult, not_handed_over(errno).as_bytes(), room, writer);
        }
        drop(handles);
        if let Some(len) = ran.spilled {
            self.spilled = Some((ran.kind, len));
            return false;
        }
        self.callee.put_result(&mut self.answer, ran.kind, writer.staged());
        // Handles belong to the last result, so that they are there if the answer is never finished.
        !has_handles && !self.watch.is_long()
    }
}

#[cold]
fn not_handed_over(errno: Errno) -> String {
    format!("the result cannot be handed over: {errno}")
}

/// The part of a parcel behind what stands there already.
struct OffsetSpill<'f> {
    filling: &'f mut BufferWriter,
    start: &'f Cell<usize>,
}

impl Spill for OffsetSpill<'_> {
    fn grow(&mut self, written: usize, capacity: usize) -> io::Result<()> {
        // More than memory is refused below.
        let start = self.start.get();
        self.filling.grow(start.saturating_add(written), start.saturating_add(capacity))
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.filling.bytes().get_mut(self.start.get()..).unwrap_or(&mut [])
    }
}

/// How long a batch has taken, asked after each item.
struct Stopwatch {
    start: Instant,
    /// A clock that costs nearly nothing, and moves every few milliseconds.
    tick: u64,
}

impl Stopwatch {
    fn start() -> Self {
        Self { start: Instant::now(), tick: clock::coarse() }
    }

    #[inline]
    fn is_long(&mut self) -> bool {
        let tick = clock::coarse();
        tick != mem::replace(&mut self.tick, tick) && self.start.elapsed() >= MAX_BATCH_TIME
    }

    fn nanos(&self) -> u32 {
        u32::try_from(self.start.elapsed().as_nanos()).unwrap_or(u32::MAX)
    }
}
