//! A call that is many: what becomes of it when some of its items were answered and others were not.
//!
//! Runs in: the parent, mostly under the scheduler's mutex. No item is settled twice, and none is left out.
//!
//! A batch is settled as soon as anything is known of it. What is known is the outcome of its first items; the others are
//! its *rest*, another call, which is linked before the first is settled, so that a thread that sees the
//! outcome sees the rest:
//!
//! | what has happened | outcome | rest |
//! |---|---|---|
//! | the worker answered all items | their results | none |
//! | it answered the first ones | their results | the others, at the front of the backlog |
//! | it died in the first one | the error, of one item | the others, at the front of the backlog |
//! | it died in a later one | the results before | the error of that one, and its rest are the others, at the front of the backlog |
//! | it died between two, when it was about to answer | the results before | the others, at the front of the backlog |
//! | it died after the last | their results | none |
//! | it is unknown what ran; or it never began | the error, of all items | none |

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use super::call::{Call, QueuedCall};
use crate::call::outcome;
use crate::error::{Direction, Error, ErrorKind, Execution, Result};
use crate::link::batch::{Results, Tally, pass_over};
use crate::link::frame::FrameKind;
use crate::link::{Body, PartialBatch, Payload, Reply};
use crate::supervisor::ChildHandle;
use crate::task::Options;

/// What a call of many items has.
#[derive(Debug)]
pub(super) struct Batch {
    /// How many items it has.
    items: u32,
    answered: OnceLock<BatchResults>,
    rest: OnceLock<Arc<Call>>,
}

/// What is known of a batch beside its bytes.
#[derive(Debug)]
pub(super) struct BatchResults {
    pub(super) items: u32,
    /// How long these took the worker, in nanoseconds.
    pub(super) nanos: Option<u32>,
    /// The process in which an item failed, if one did.
    failed_in: Option<Arc<ChildHandle>>,
}

impl Call {
    /// A call of `items` items.
    pub(super) fn of_batch(task: &'static str, index: u32, items: u32) -> Self {
        let batch = Batch { items, answered: OnceLock::new(), rest: OnceLock::new() };
        let mut call = Self::new(task, index, Options::new());
        call.batch = Some(Box::new(batch));
        call
    }

    pub(super) fn is_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// How many calls it is.
    pub(super) fn items(&self) -> u32 {
        self.batch.as_ref().map_or(1, |batch| batch.items)
    }

    /// How many calls its outcome is about, once it is known what it is not about.
    pub(super) fn settles(&self) -> u32 {
        self.items() - self.rest().map_or(0, |rest| rest.items())
    }

    /// What its request is.
    pub(super) fn kind(&self) -> FrameKind {
        if self.is_batch() { FrameKind::Batch } else { FrameKind::Call }
    }

    /// What is known beside the outcome, if that is the results of a batch.
    pub(super) fn answered(&self) -> Option<&BatchResults> {
        self.batch.as_ref()?.answered.get()
    }

    /// Where its items are that the outcome is not about. To be looked at when it is settled.
    pub(super) fn rest(&self) -> Option<&Arc<Call>> {
        self.batch.as_ref()?.rest.get()
    }

    /// As [`Call::abandon`], with all that it has become. Under the mutex.
    pub(super) fn abandon_all(&self) {
        let mut call = Some(self);
        while let Some(one) = call {
            one.abandon();
            call = one.rest().map(|rest| &**rest);
        }
    }

    fn part(&self, items: u32) -> Arc<Self> {
        let part = Self::of_batch(self.task, self.index, items);
        if self.abandoned.load(Relaxed) {
            part.abandon();
        }
        Arc::new(part)
    }

    fn set_rest(&self, rest: &Arc<Self>) {
        if let Some(batch) = &self.batch {
            let _ = batch.rest.set(Arc::clone(rest));
        }
    }

    fn set_answered(&self, tally: Tally, nanos: Option<u32>, record: Option<&Arc<ChildHandle>>) {
        if let Some(batch) = &self.batch {
            let failed_in = record.filter(|_| !tally.good).cloned();
            let _ = batch.answered.set(BatchResults { items: tally.answered, nanos, failed_in });
        }
    }
}

impl BatchResults {
    /// The results, each of which may be a failure.
    pub(super) fn each<'b>(&self, body: &'b Body) -> impl Iterator<Item = Result<&'b [u8]>> {
        let failed = |kind, bytes: &[u8]| {
            let Err(error) = outcome::of_reply(Reply::new(kind, Body::of_bytes(bytes))) else {
                return Error::new(ErrorKind::UnknownTask, Execution::Unknown);
            };
            in_process(self.failed_in.as_deref(), error)
        };
        let mut results = Results::of(body.bytes().unwrap_or_default());
        (0..self.items).map(move |_| match results.next() {
            Some((FrameKind::Done, bytes)) => Ok(bytes),
            Some((kind, bytes)) => Err(failed(kind, bytes)),
            // They were counted when they came. But a child may write to a shared buffer as long as it lives.
            None => {
                let reason = "it was changed after it had come".to_owned();
                let kind = ErrorKind::CannotDecode { direction: Direction::Result, reason };
                Err(Error::new(kind, Execution::Finished))
            }
        })
    }
}

/// Adds its process to `error`.
fn in_process(record: Option<&ChildHandle>, error: Error) -> Error {
    match record {
        Some(record) => error.in_process(&record.name(), record.pid),
        None => error,
    }
}

/// What a reply says of a batch.
pub(super) struct SettledBatch {
    /// The outcome of the call.
    pub(super) outcome: Result<Body>,
    /// The items that it is not about, linked to the call and not counted yet.
    pub(super) rest: Option<QueuedCall>,
}

/// What is known of a batch whose worker died in it.
pub(super) struct BatchRemains {
    /// The results of the items that were answered, if there is anything to say of them.
    pub(super) answered: Option<Body>,
    /// The call whose item was running, which has failed: a new one, not counted yet, if items before it were answered.
    pub(super) lost: Option<Arc<Call>>,
    /// The items that had not begun, not counted yet.
    pub(super) rest: Option<QueuedCall>,
}

/// A worker has answered a batch, or the first items of one.
pub(super) fn on_reply(record: Option<&Arc<ChildHandle>>, call: &Arc<Call>, reply: Reply) -> SettledBatch {
    let Reply { kind, body, batch } = reply;
    let named = |error| in_process(record.map(|record| &**record), error);
    let Some(batch) = batch else {
        return SettledBatch { outcome: outcome::of_reply(Reply::new(kind, body)).map_err(named), rest: None };
    };
    let rest = split(call, batch.request, batch.tally.answered);
    call.set_answered(batch.tally, Some(batch.nanos), record);
    // A buffer that could not be received is an error of all items that it may have answered.
    SettledBatch { outcome: outcome::of_reply(Reply::new(FrameKind::Done, body)).map_err(named), rest }
}

/// The worker that was running this batch is dead.
pub(super) fn on_death(
    record: &Arc<ChildHandle>,
    call: &Arc<Call>,
    mut payload: Payload,
    PartialBatch { tally, body, running }: PartialBatch,
) -> BatchRemains {
    if !running {
        let rest = split(call, payload, tally.answered);
        call.set_answered(tally, None, Some(record));
        return BatchRemains { answered: Some(body), lost: None, rest };
    }
    let lost = if tally.answered == 0 {
        Arc::clone(call)
    } else {
        let lost = call.part(call.items() - tally.answered);
        lost.set_worker(call.worker());
        call.set_rest(&lost);
        lost
    };
    pass_over(payload.small_bytes_mut(), tally.answered);
    let rest = split(&lost, payload, 1);
    let answered = (tally.answered > 0).then(|| {
        call.set_answered(tally, None, Some(record));
        body
    });
    BatchRemains { answered, lost: Some(lost), rest }
}

/// Makes a call of those items of a batch that are behind the first `answered`, if there are any, and links it to the batch,
/// which is to be settled after this.
fn split(call: &Arc<Call>, mut payload: Payload, answered: u32) -> Option<QueuedCall> {
    let left = call.items().checked_sub(answered).filter(|left| *left > 0)?;
    pass_over(payload.small_bytes_mut(), answered);
    let rest = call.part(left);
    call.set_rest(&rest);
    Some(QueuedCall { call: rest, payload })
}
