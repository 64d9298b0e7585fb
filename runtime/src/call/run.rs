//! Running calls: the task decodes its arguments, runs, and encodes what it returns. A panic becomes a reply.
//!
//! Runs in: a child, on its main thread; in the parent, where pools run their tasks inline.
//! Invariant: no panic of a task leaves [`run_each`].
//!
//! There is one loop over calls. A [`ResultSink`] says where results go: a batch into the reply ring, item by item, a single call into
//! a payload. The loop takes some 20 ns for an item, so nothing in it passes through memory in pieces of two sizes: a
//! vector that is moved as 16 bytes just after its length was stored as 8 waits for the store. Hence one writer for all
//! items, closures that return a `bool`, and failures out of line.

use std::any::Any;
use std::mem;
use std::panic::{self, AssertUnwindSafe};

use super::panics;
use crate::codec::handles::{self, Handles, Received};
use crate::codec::message::to_bytes;
use crate::codec::{self, Writer};
use crate::link::frame::{FrameKind, INLINE};
use crate::link::{BufferWriter, Payload};
use crate::task::{Registration, StubError};

/// What became of a call. Its result, or why there is none, is in the writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    pub(crate) kind: FrameKind,
    /// How many bytes are in the writer's spill; `None` if they are all staged.
    pub(crate) spilled: Option<usize>,
}

/// Where the results of calls go.
pub(crate) trait ResultSink {
    /// Before a call: how many bytes its result may have until it spills. `None` ends the loop, since no result fits any more.
    fn begin(&mut self) -> Option<usize>;

    /// The task has returned, or panicked. Its result is not finished yet.
    fn returned(&mut self);

    /// Takes what `writer` holds; `room` is what `begin` returned. False ends the loop.
    fn put(&mut self, ran: Ran, room: usize, writer: &mut Writer<'_>) -> bool;
}

/// Runs `task` once for the arguments of each item, until `sink` takes no more.
#[inline]
pub(crate) fn run_each<'a>(
    task: &Registration,
    items: impl IntoIterator<Item = &'a [u8]>,
    sink: &mut impl ResultSink,
    writer: &mut Writer<'_>,
) {
    for item in items {
        let Some(room) = sink.begin() else { break };
        writer.begin(0, room);
        let ran = run(task, item, room, sink, writer);
        if !sink.put(ran, room, writer) {
            break;
        }
    }
}

#[inline]
fn run(task: &Registration, item: &[u8], room: usize, sink: &mut impl ResultSink, writer: &mut Writer<'_>) -> Ran {
    let mut refusal = None;
    // The closure returns next to nothing: what it returned by way of memory would take longer than the rest.
    let caught = panic::catch_unwind(AssertUnwindSafe(|| match task.run(item, writer) {
        Ok(()) => true,
        Err(error) => {
            refusal = Some(error);
            false
        }
    }));
    sink.returned();
    if matches!(caught, Ok(true)) {
        match writer.end() {
            Ok(spilled) => return Ran { kind: FrameKind::Done, spilled },
            Err(error) => refusal = Some(StubError::Encode(error)),
        }
    }
    failed(caught.err(), refusal, room, writer)
}

/// Puts into `writer` why a call failed: the task panicked, or a value refused.
#[cold]
fn failed(panic: Option<Box<dyn Any + Send>>, refusal: Option<StubError>, room: usize, writer: &mut Writer<'_>) -> Ran {
    let (kind, why) = match (panic, refusal) {
        (Some(payload), _) => (FrameKind::Panicked, to_bytes(&panics::take_report(payload))),
        (None, Some(StubError::Decode(error))) => (FrameKind::BadArguments, error.to_string().into_bytes()),
        (None, Some(StubError::Encode(error))) => (FrameKind::BadResult, error.to_string().into_bytes()),
        // Only a manager gives methods to run, and it knows the refusal.
        (None, Some(StubError::Object(refusal))) => (FrameKind::BadArguments, refusal.to_string().into_bytes()),
        (None, None) => (FrameKind::BadResult, Vec::new()),
    };
    put_failure(kind, &why, room, writer)
}

/// Replaces what is in `writer` by `why`; by nothing, if there is no memory for that.
pub(crate) fn put_failure(kind: FrameKind, why: &[u8], room: usize, writer: &mut Writer<'_>) -> Ran {
    writer.begin(0, room);
    let spilled = writer.put_bytes(why).and_then(|()| writer.end());
    if spilled.is_err() {
        writer.begin(0, room);
    }
    Ran { kind, spilled: spilled.unwrap_or_default() }
}

/// Runs one call of `task`, whose arguments came with the handles `received`. Long results go into `filling`. `returned` runs
/// when the task has returned or panicked, before its result is finished.
pub(crate) fn run_one(
    task: &Registration,
    arguments: &[u8],
    received: &Received,
    mut filling: BufferWriter,
    returned: impl FnMut(),
) -> (FrameKind, Payload) {
    let mut sink = One { returned, result: None };
    let mut writer = Writer::new(Vec::new(), INLINE, &mut filling);
    handles::provide(received, || {
        handles::collect(&mut Handles::default(), || run_each(task, [arguments], &mut sink, &mut writer));
    });
    let (kind, encoded, handles) = sink.result.unwrap_or((FrameKind::BadResult, NOTHING, Handles::default()));
    match Payload::new(encoded, filling, handles) {
        Some(payload) => (kind, payload),
        None => (FrameKind::BadResult, Payload::small(b"its parcel is gone".to_vec())),
    }
}

const NOTHING: codec::Encoded = codec::Encoded::Small(Vec::new());

/// The result of a single call.
struct One<F> {
    returned: F,
    result: Option<(FrameKind, codec::Encoded, Handles)>,
}

impl<F: FnMut()> ResultSink for One<F> {
    fn begin(&mut self) -> Option<usize> {
        Some(INLINE)
    }

    fn returned(&mut self) {
        (self.returned)();
    }

    fn put(&mut self, ran: Ran, _room: usize, writer: &mut Writer<'_>) -> bool {
        let handles = handles::take_collected();
        let handles = if ran.kind == FrameKind::Done { handles } else { Handles::default() };
        let staged = || codec::Encoded::Small(mem::take(writer.staged()));
        self.result = Some((ran.kind, ran.spilled.map_or_else(staged, codec::Encoded::Spilled), handles));
        false
    }
}
