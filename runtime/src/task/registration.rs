//! One task's identity: where it was written, and the stub that runs it.
//!
//! Runs in: every process. It is a `static` in the user's crate.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::object::{ObjectRefusal, ObjectType};
use super::registry::registry;
use crate::codec::{CodecError, Writer};

/// Decodes the arguments, calls the function, encodes what it returned.
type Stub = fn(&[u8], &mut Writer<'_>) -> Result<(), StubError>;

/// What [`Registration::index`] holds before the registry is built, and for a task that is not in it.
const UNLISTED: u32 = u32::MAX;

/// What a registration is of.
#[derive(Clone, Copy, Debug)]
pub enum RegistrationKind {
    /// A function: for pools and processes.
    Task,
    /// A constructor of a process object: for managers.
    Constructor(fn() -> &'static ObjectType),
    /// A method of a process object: for managers.
    Method {
        /// Gives the type that it is a method of.
        of: fn() -> &'static ObjectType,
        /// Whether it has `&mut self`.
        exclusive: bool,
    },
}

/// One task: its name, its place in the source, and how to run it. Methods and constructors of process objects have one,
/// too.
///
/// There is one for each expansion of the attribute, so its address tells tasks apart; name and place may be shared by
/// several tasks that one macro made, and are for messages.
pub struct Registration {
    name: &'static str,
    file: &'static str,
    line: u32,
    stub: Stub,
    kind: RegistrationKind,
    /// Written when the registry is built, each time with the same value.
    index: AtomicU32,
}

impl Registration {
    /// For generated code: a task that is not in the registry yet.
    #[must_use]
    pub const fn new(name: &'static str, file: &'static str, line: u32, stub: Stub) -> Self {
        Self { name, file, line, stub, kind: RegistrationKind::Task, index: AtomicU32::new(UNLISTED) }
    }

    /// The same as a constructor of the type that `of` gives.
    #[must_use]
    pub const fn constructor(self, of: fn() -> &'static ObjectType) -> Self {
        Self { kind: RegistrationKind::Constructor(of), ..self }
    }

    /// The same as a method of the type that `of` gives; `exclusive` if it has `&mut self`.
    #[must_use]
    pub const fn method(self, of: fn() -> &'static ObjectType, exclusive: bool) -> Self {
        Self { kind: RegistrationKind::Method { of, exclusive }, ..self }
    }

    /// What this is a registration of.
    #[must_use]
    pub const fn kind(&self) -> RegistrationKind {
        self.kind
    }

    /// The type that this is a method or a constructor of.
    pub fn object_type(&self) -> Option<&'static ObjectType> {
        match self.kind {
            RegistrationKind::Task => None,
            RegistrationKind::Constructor(of) | RegistrationKind::Method { of, .. } => Some(of()),
        }
    }

    /// Whether this is a function, which pools and processes run.
    pub(crate) fn is_task(&self) -> bool {
        matches!(self.kind, RegistrationKind::Task)
    }

    /// The task's module and name, such as `demo::square`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The function's name alone, such as `square`.
    pub(crate) fn short_name(&self) -> &'static str {
        self.name.rsplit("::").next().unwrap_or(self.name)
    }

    /// The file and the line of the task's attribute.
    #[must_use]
    pub const fn location(&self) -> (&'static str, u32) {
        (self.file, self.line)
    }

    /// Makes one call: decodes `args`, calls the function, appends its result to `output`, and returns when the
    /// destructors of result and arguments ran, in this order.
    ///
    /// Runs in: the child.
    ///
    /// # Errors
    /// The arguments or the result did not survive; in the first case the function was not called.
    ///
    /// # Panics
    /// When the function does, or a `Serialize`, `Deserialize` or `Drop` of its types.
    pub fn run(&self, args: &[u8], output: &mut Writer<'_>) -> Result<(), StubError> {
        (self.stub)(args, output)
    }

    /// The task's number: the same in every process that runs this binary. `None` if the task is not registered here.
    pub fn index(&self) -> Option<u32> {
        registry();
        match self.index.load(Relaxed) {
            UNLISTED => None,
            index => Some(index),
        }
    }

    /// As [`index`](Self::index), of a task alone: what pools and processes are sent. A method has none.
    pub(crate) fn task_index(&self) -> Option<u32> {
        self.index().filter(|_| self.is_task())
    }

    /// Where in this binary the stub is, counted from `anchor`: different for two tasks, whatever they are called, and
    /// the same wherever the binary was loaded.
    pub(super) fn offset_from(&self, anchor: fn()) -> usize {
        (self.stub as usize).wrapping_sub(anchor as usize)
    }

    // Relaxed, because the registry is published by the lock that it is built under.
    pub(super) fn set_index(&self, index: u32) {
        self.index.store(index, Relaxed);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.name, self.file, self.line)
    }
}

/// Why a stub did not produce a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StubError {
    /// The arguments could not be read; the function was not called.
    Decode(CodecError),
    /// The function returned, but what it returned could not be written.
    Encode(CodecError),
    /// The object that the method is for could not be had; the method was not called.
    Object(ObjectRefusal),
}

impl fmt::Display for StubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(error) => write!(f, "the arguments could not be read: {error}"),
            Self::Encode(error) => write!(f, "the result could not be written: {error}"),
            Self::Object(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for StubError {}
