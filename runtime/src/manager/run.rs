//! Runs one call in a manager: finds the object, lets the call in, and runs the stub.
//!
//! Runs in: the manager, on the thread that took the call, or that makes it for an object of the manager's own.

use std::io::Write as _;
use std::mem;
use std::sync::Arc;

use super::instance::{Instance, Place};
use super::scope;
use super::server::Server;
use super::wire::Status;
use crate::call::{Ran, ResultSink, run_each};
use crate::codec::NoSpill;
use crate::codec::Writer;
use crate::codec::handles::{self, Handles, Received};
use crate::link::frame::FrameKind;
use crate::sys::mutex::MutexExt as _;
use crate::sys::{atfork, process};
use crate::task::{Registration, RegistrationKind, lookup, lookup_method};

/// A call: which method of which object, and its arguments.
#[derive(Clone, Copy, Debug)]
pub(super) struct MethodCall<'a> {
    pub(super) method: u32,
    pub(super) object: u64,
    pub(super) arguments: &'a [u8],
    pub(super) received: &'a Received,
    /// Whether it may be a task that is no method.
    pub(super) tasks: bool,
}

impl<'a> MethodCall<'a> {
    fn payload(self) -> (&'a [u8], &'a Received) {
        (self.arguments, self.received)
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: Status,
    /// The object that a constructor made.
    pub(super) made: Option<Arc<Instance>>,
    pub(super) bytes: Vec<u8>,
    pub(super) handles: Handles,
}

impl Outcome {
    pub(super) fn without_result(status: Status, buffer: Vec<u8>) -> Self {
        let mut bytes = buffer;
        bytes.clear();
        Self { status, made: None, bytes, handles: Handles::default() }
    }
}

/// The place of a call in the line of its object. `None`: it is of no object that is there.
///
/// Runs in: the manager, on the thread that takes a client's calls, before another thread can take the next one.
pub(super) fn line_up(server: &Server, method: u32, object: u64) -> Option<Place> {
    let RegistrationKind::Method { exclusive, .. } = lookup_method(method)?.kind() else { return None };
    let instance = server.tables.lock_unpoisoned().object(object)?;
    Some(instance.line_up(exclusive))
}

/// Runs a call, which may have a `place` in the line of its object. The result goes into `buffer`. `before_wait` runs before
/// this thread waits for another call.
pub(super) fn run(
    server: &Server,
    call: MethodCall<'_>,
    (place, buffer): (Option<Place>, Vec<u8>),
    before_wait: impl FnOnce(),
) -> Outcome {
    let Some(task) = lookup_method(call.method).or_else(|| lookup(call.method).filter(|_| call.tasks)) else {
        return Outcome::without_result(Status::UnknownTask, buffer);
    };
    match task.kind() {
        RegistrationKind::Task => execute(task, call.payload(), buffer),
        RegistrationKind::Constructor(_) => {
            let (mut outcome, made) = scope::with_constructor(|| execute(task, call.payload(), buffer));
            if outcome.status == Status::Done {
                outcome.made = made;
            }
            outcome
        }
        RegistrationKind::Method { of, exclusive } => {
            let instance = match &place {
                Some(place) => Some(Arc::clone(place.instance())),
                None => server.tables.lock_unpoisoned().object(call.object),
            };
            let Some(instance) = instance else { return Outcome::without_result(Status::NoObject, buffer) };
            if instance.object_type() != of() {
                return Outcome::without_result(Status::WrongType, buffer);
            }
            let admission = match scope::try_admit(&instance, exclusive, place) {
                Ok(Ok(admission)) => admission,
                Ok(Err(place)) => {
                    before_wait();
                    place.admit()
                }
                Err(_) => return Outcome::without_result(Status::Reentered, buffer),
            };
            if instance.is_poisoned() {
                return Outcome::without_result(Status::Poisoned, buffer);
            }
            drop(instance);
            scope::with_object(admission, || execute(task, call.payload(), buffer))
        }
    }
}

/// Runs a stub on these arguments, with what came beside them. The result goes into `buffer`.
pub(super) fn execute(task: &Registration, (arguments, received): (&[u8], &Received), buffer: Vec<u8>) -> Outcome {
    let mut sink = SingleResult { generation: atfork::generation(), result: None };
    let (mut spill, mut handles) = (NoSpill, Handles::default());
    let mut writer = Writer::new(buffer, usize::MAX, &mut spill);
    handles::provide(received, || {
        handles::collect(&mut handles, || run_each(task, [arguments], &mut sink, &mut writer));
    });
    let _ = std::io::stdout().flush();
    sink.result.unwrap_or_else(|| Outcome::without_result(Status::BadResult, Vec::new()))
}

/// The result of a single call.
struct SingleResult {
    generation: u64,
    result: Option<Outcome>,
}

impl ResultSink for SingleResult {
    fn begin(&mut self) -> Option<usize> {
        Some(usize::MAX)
    }

    fn returned(&mut self) {
        if atfork::generation() != self.generation {
            // The method called `fork()`, and this is the copy: the clients are the original's.
            process::exit_now(0);
        }
    }

    fn put(&mut self, ran: Ran, _room: usize, writer: &mut Writer<'_>) -> bool {
        let handles = handles::take_collected();
        let status = match ran.kind {
            FrameKind::Done => Status::Done,
            FrameKind::Panicked => Status::Panicked,
            FrameKind::BadArguments => Status::BadArguments,
            _ => Status::BadResult,
        };
        let handles = if status == Status::Done { handles } else { Handles::default() };
        self.result = Some(Outcome { status, made: None, bytes: mem::take(writer.staged()), handles });
        false
    }
}
