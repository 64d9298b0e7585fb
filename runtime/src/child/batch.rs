//! A batch: one call after the other, each one's result in shared memory before the next begins.
//!
//! Owns: the loop over the items. Runs in: a child, on its main thread. Never: holds back results for long: a batch that
//! takes longer than expected ends early, and the parent gives the rest of it to a free worker.

use std::any::Any;
use std::cell::Cell;
use std::io::{self, Write as _};
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use super::{panics, serve};
use crate::codec::handles::{self, Handles};
use crate::codec::message::to_bytes;
use crate::codec::{Spill, Writer};
use crate::link::batch::Items;
use crate::link::frame::{INLINE, Kind};
use crate::link::{Callee, Filling, Given, LastWords};
use crate::sys::{clock, forked, process};
use crate::task::{Registration, StubError, lookup};

/// A batch that has taken so long is answered as far as it has come. The parent makes them a hundred times shorter.
const LONG: Duration = Duration::from_millis(2);

/// Runs the items that fit into one answer, and answers them whatever happens.
pub(super) fn run(callee: &mut Callee, given: &Given, last_words: LastWords) {
    let Some(task) = lookup(given.task) else {
        return serve::answer(callee, given, Kind::UnknownTask, &[]);
    };
    let items = match given.payload().map(Items::parse) {
        Ok(Ok(items)) => items,
        // Only the parent can write there.
        Ok(Err(why)) => unreachable!("the parent wrote {why}"),
        Err(errno) => unreachable!("a batch is never in a parcel: {errno}"),
    };
    handles::provide(&given.received, || {
        handles::collect(&mut Handles::default(), || run_items(callee, given, (task, items), last_words));
    });
}

/// As [`run`], where handles can be taken and put.
fn run_items(callee: &mut Callee, given: &Given, (task, items): (&Registration, Items<'_>), last_words: LastWords) {
    let mut filling = callee.filling();
    let mut answer = callee.begin_answer(given);
    let mut watch = Watch::start();
    let start = Cell::new(0);
    let mut behind = Behind { filling: &mut filling, start: &start };
    let mut writer = Writer::new(Vec::with_capacity(64), INLINE, &mut behind);
    for item in items {
        let Some(room) = answer.room() else { break };
        last_words.clear();
        start.set(answer.len_with_head());
        writer.begin(0, room);
        let (mut kind, mut spilled) = one(task, item, room, &mut writer);
        let handles = handles::take_collected();
        let has_handles = kind == Kind::Done && !handles.is_empty();
        if has_handles && let Err(errno) = callee.put_beside(&mut answer, &handles) {
            let why = format!("the result cannot be handed over: {errno}");
            (kind, spilled) = refused(Kind::BadResult, why.as_bytes(), room, &mut writer);
        }
        drop(handles);
        if let Some(len) = spilled {
            drop(writer);
            given.received.let_go();
            let _ = io::stdout().flush();
            if let Err(errno) = callee.finish_answer_in_parcel(&answer, (kind, len), filling, watch.nanos()) {
                let why = format!("the result cannot be handed over: {errno}");
                let why = why.as_bytes();
                callee.put_result(&mut answer, Kind::BadResult, &why[..room.min(why.len())]);
                callee.finish_answer(&answer, watch.nanos());
            }
            return;
        }
        callee.put_result(&mut answer, kind, writer.staged());
        // Handles belong to the last result, so that they are there if the answer is never finished.
        if has_handles || watch.is_long() {
            break;
        }
    }
    given.received.let_go();
    callee.end_items(&answer);
    // What the tasks printed is there before their results are.
    let _ = io::stdout().flush();
    callee.finish_answer(&answer, watch.nanos());
}

/// Runs one item. What became of it is in `writer`, or in its spill, if it says how many bytes that are.
#[inline]
fn one(task: &Registration, item: &[u8], room: usize, writer: &mut Writer<'_>) -> (Kind, Option<usize>) {
    let generation = forked::generation();
    let mut refusal = None;
    // The closure returns next to nothing: what it returned by way of memory would take longer than the rest.
    let ran = panic::catch_unwind(AssertUnwindSafe(|| match task.run(item, writer) {
        Ok(()) => true,
        Err(error) => {
            refusal = Some(error);
            false
        }
    }));
    if forked::generation() != generation {
        // The task called `fork()`, and this is the copy: the link is the original's.
        process::exit_now(0);
    }
    if matches!(ran, Ok(true)) {
        match writer.end() {
            Ok(spilled) => return (Kind::Done, spilled),
            Err(error) => refusal = Some(StubError::Encode(error)),
        }
    }
    failed(ran.err(), refusal, room, writer)
}

/// Puts into `writer` why an item failed: it panicked, or a value refused.
#[cold]
fn failed(
    panic: Option<Box<dyn Any + Send>>,
    refusal: Option<StubError>,
    room: usize,
    writer: &mut Writer<'_>,
) -> (Kind, Option<usize>) {
    let (kind, why) = match (panic, refusal) {
        (Some(payload), _) => (Kind::Panicked, to_bytes(&panics::caught(payload))),
        (None, Some(StubError::Decode(error))) => (Kind::BadArguments, error.to_string().into_bytes()),
        (None, Some(StubError::Encode(error))) => (Kind::BadResult, error.to_string().into_bytes()),
        (None, None) => (Kind::BadResult, Vec::new()),
    };
    refused(kind, &why, room, writer)
}

/// Puts these words into `writer`, instead of what is there.
fn refused(kind: Kind, why: &[u8], room: usize, writer: &mut Writer<'_>) -> (Kind, Option<usize>) {
    writer.begin(0, room);
    let spilled = writer.put_bytes(why).and_then(|()| writer.end());
    if spilled.is_err() {
        writer.begin(0, room);
    }
    (kind, spilled.unwrap_or_default())
}

/// The part of a parcel behind what stands there already.
struct Behind<'f> {
    filling: &'f mut Filling,
    start: &'f Cell<usize>,
}

impl Spill for Behind<'_> {
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
struct Watch {
    start: Instant,
    /// A clock that costs nearly nothing, and moves every few milliseconds.
    tick: u64,
}

impl Watch {
    fn start() -> Self {
        Self { start: Instant::now(), tick: clock::coarse() }
    }

    #[inline]
    fn is_long(&mut self) -> bool {
        let tick = clock::coarse();
        tick != mem::replace(&mut self.tick, tick) && self.start.elapsed() >= LONG
    }

    fn nanos(&self) -> u32 {
        u32::try_from(self.start.elapsed().as_nanos()).unwrap_or(u32::MAX)
    }
}
