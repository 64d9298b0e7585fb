//! Changes of a part that a task computes: the part is locked while the task runs, and the rest is not.
//!
//! Runs in: the manager. Clients encode the task's arguments here ([`UpdateCall::of`]).
//!
//! The task takes the value that there is, as an `Option`, and an argument. Value and argument were encoded apart. The
//! argument is put behind the value here, with the [padding](Padding) that it needs there.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use serde::{Deserialize, Serialize};

use super::stored::Stored;
use crate::codec::NoSpill;
use crate::codec::handles::{self, Handles, Received};
use crate::codec::message_format::{is_option_otherwise, take_option};
use crate::codec::writer::{Padding, append, noting_paddings};
use crate::codec::{Encoded, Message, Reader, Writer};
use crate::error::{Direction, Error, ErrorKind, Execution, Result};
use crate::manager::deferred;
use crate::manager::wire::AlignedBytes;
use crate::sys::mutex::MutexExt as _;
use crate::task::{StubError, Task, lookup};

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum UpdateError {
    /// The thread that would wait runs the task that is waited for.
    Reentered,
    /// There is no such task in this binary.
    UnknownTask,
    /// The task could not read what it was given.
    Decode(String),
    /// What the task returned could not be written.
    Encode(String),
    /// A descriptor could not be copied, for this reason.
    Descriptor(String),
    /// There is nothing of that index; the list is so long.
    OutOfRange { index: usize, len: usize },
    /// The manager has no memory for so many elements.
    NoMemory,
}

impl UpdateError {
    /// What the caller is told.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Reentered => Error::invalid(
                "the task of an update changes what it updates by a call, which would wait for the task; return the new \
                 value instead",
            ),
            Self::UnknownTask => Error::unknown_task(),
            Self::Decode(reason) => {
                let reason =
                    format!("{reason} (a type of the value that travels as numbers may need a struct around it)");
                Error::new(ErrorKind::CannotDecode { direction: Direction::Arguments, reason }, Execution::NotStarted)
            }
            Self::Encode(reason) => {
                Error::new(ErrorKind::CannotEncode { direction: Direction::Result, reason }, Execution::Finished)
            }
            Self::Descriptor(reason) => {
                Error::new(ErrorKind::CannotDecode { direction: Direction::Arguments, reason }, Execution::NotStarted)
            }
            Self::NoMemory => Error::invalid("the manager has no memory for so many elements"),
            Self::OutOfRange { index, len } => {
                Error::invalid(format!("index {index} is out of range: there are {len} elements"))
            }
        }
    }
}

/// A task of an update, and its argument, behind the encoding of an absent value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UpdateCall {
    task: u32,
    arguments: Stored,
    /// Where the argument begins.
    from: usize,
    /// Where it has padding.
    paddings: Vec<(usize, usize)>,
}

impl UpdateCall {
    /// `task` with the argument `arg`.
    ///
    /// # Errors
    /// The argument refuses, or the task is not registered.
    pub(super) fn of<'a, V, A, T>(task: T, arg: A) -> Result<Self>
    where
        V: Message,
        T: Task<Args<'a> = (Option<V>, A), Output = Option<V>>,
    {
        if is_option_otherwise::<V>() {
            let name = std::any::type_name::<V>();
            return Err(Error::invalid(format!("a value of type `{name}` cannot be updated: put a struct around it")));
        }
        let task = task.registration().task_index().ok_or_else(Error::unknown_task)?;
        let (mut handles, mut none) = (Handles::default(), NoSpill);
        let mut writer = Writer::new(Vec::new(), usize::MAX, &mut none);
        let encode = || handles::collect(&mut handles, || T::encode((None, arg), &mut writer));
        let (encoded, paddings) = noting_paddings(encode);
        let bytes = match encoded
            .and_then(|()| writer.finish())
            .map_err(|error| Error::cannot_encode_arguments(error.to_string()))?
        {
            Encoded::Small(bytes) => bytes,
            Encoded::Spilled(_) => return Err(Error::cannot_encode_arguments("the argument is too long")),
        };
        let mut reader = Reader::new(&bytes);
        let absent =
            take_option::<V>(&mut reader).map_err(|error| Error::cannot_encode_arguments(error.to_string()))?;
        if absent.is_some() {
            return Err(Error::cannot_encode_arguments("an absent value is not encoded as one"));
        }
        let from = reader.position();
        let paddings = paddings.into_iter().map(|padding| (padding.from, padding.to)).collect();
        Ok(Self { task, arguments: Stored::new(&bytes, handles), from, paddings })
    }

    /// Runs the task on `value`, and returns what it made of it.
    fn run(&self, value: Option<&Stored>) -> std::result::Result<Option<Stored>, UpdateError> {
        if deferred::is_from_elsewhere() {
            return Err(UpdateError::UnknownTask);
        }
        let task = lookup(self.task).ok_or(UpdateError::UnknownTask)?;
        let bytes = self.arguments.bytes();
        let (absent, _) = bytes.split_at_checked(self.from).ok_or(UpdateError::UnknownTask)?;
        let received = self.received(value)?;
        let mut payload = value.map_or(absent, Stored::bytes).to_vec();
        let paddings: Vec<_> = self.paddings.iter().map(|&(from, to)| Padding { from, to }).collect();
        append(&mut payload, (bytes, self.from), &paddings);
        let payload = AlignedBytes::copied(&payload);
        let (mut handles, mut none) = (Handles::default(), NoSpill);
        let mut writer = Writer::new(Vec::new(), usize::MAX, &mut none);
        let run = || task.run(payload.as_slice(), &mut writer);
        let ran = handles::provide(&received, || handles::collect(&mut handles, run));
        let finished = ran.and_then(|()| writer.finish().map_err(StubError::Encode));
        match finished {
            Ok(Encoded::Small(bytes)) if bytes == absent => Ok(None),
            Ok(Encoded::Small(bytes)) => Ok(Some(Stored::new(&bytes, handles))),
            Ok(Encoded::Spilled(_)) => Err(UpdateError::Encode("it is too long".to_owned())),
            Err(StubError::Encode(error)) => Err(UpdateError::Encode(error.to_string())),
            Err(error) => Err(UpdateError::Decode(error.to_string())),
        }
    }

    fn received(&self, value: Option<&Stored>) -> std::result::Result<Received, UpdateError> {
        let value = value.filter(|value| value.handles() > 0);
        match value {
            Some(_) if self.arguments.handles() > 0 => {
                let why =
                    "the value and the argument cannot both have handles: pass the argument as a value of its own";
                Err(UpdateError::Descriptor(why.to_owned()))
            }
            value => {
                value.unwrap_or(&self.arguments).received().map_err(|errno| UpdateError::Descriptor(errno.to_string()))
            }
        }
    }
}

/// A collection, of which updates lock parts called `K`.
#[derive(Debug)]
pub(crate) struct Updatable<S, K> {
    inner: Mutex<Updates<S, K>>,
    /// Notified when an update has ended.
    ended: Condvar,
}

#[derive(Debug)]
struct Updates<S, K> {
    state: S,
    /// The parts that are being updated, and by which thread.
    updating: Vec<(K, ThreadId)>,
}

impl<S, K: Clone + PartialEq> Updatable<S, K> {
    pub(super) fn new(state: S) -> Self {
        Self { inner: Mutex::new(Updates { state, updating: Vec::new() }), ended: Condvar::new() }
    }

    /// Looks at the state, in which what is being updated is as it was.
    pub(super) fn read<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.inner.lock_unpoisoned().state)
    }

    /// Changes the state, once no part that `touches` names is being updated.
    pub(super) fn write<R>(
        &self,
        touches: impl Fn(&K) -> bool,
        change: impl FnOnce(&mut S) -> R,
    ) -> std::result::Result<R, UpdateError> {
        let mut inner = self.wait(touches)?;
        Ok(change(&mut inner.state))
    }

    /// Has `call` make a new value of that which `find` finds, and has `put` put it in. The part `key` is locked meanwhile.
    ///
    /// # Panics
    /// If the task does. Then nothing has changed.
    pub(super) fn update(
        &self,
        key: &K,
        call: &UpdateCall,
        find: impl FnOnce(&S) -> std::result::Result<Option<Stored>, UpdateError>,
        put: impl FnOnce(&mut S, Option<Stored>),
    ) -> std::result::Result<Option<Stored>, UpdateError> {
        let mut inner = self.wait(|other| other == key)?;
        let value = find(&inner.state)?;
        inner.updating.push((key.clone(), thread::current().id()));
        drop(inner);
        let part = LockedPart { of: self, key };
        let made = call.run(value.as_ref())?;
        put(&mut self.inner.lock_unpoisoned().state, made.clone());
        drop(part);
        Ok(made)
    }

    fn wait(&self, touches: impl Fn(&K) -> bool) -> std::result::Result<MutexGuard<'_, Updates<S, K>>, UpdateError> {
        let mut inner = self.inner.lock_unpoisoned();
        loop {
            let mut locked = inner.updating.iter().filter(|(key, _)| touches(key)).peekable();
            if locked.peek().is_none() {
                drop(locked);
                return Ok(inner);
            }
            if locked.any(|(_, by)| *by == thread::current().id()) {
                return Err(UpdateError::Reentered);
            }
            inner = self.ended.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Unlocks the part when it is dropped, also if the task panicked.
struct LockedPart<'u, S, K: Clone + PartialEq> {
    of: &'u Updatable<S, K>,
    key: &'u K,
}

impl<S, K: Clone + PartialEq> Drop for LockedPart<'_, S, K> {
    fn drop(&mut self) {
        let mut inner = self.of.inner.lock_unpoisoned();
        inner.updating.retain(|(key, _)| key != self.key);
        drop(inner);
        self.of.ended.notify_all();
    }
}
