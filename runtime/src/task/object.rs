//! What a process object is: the contract between the code that `#[process_object]` writes and the rest of this crate.
//!
//! Runs in: every process. An [`ObjectType`] is a `static` in the user's crate.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::registry::registry;

/// What [`ObjectType::index`] holds before the registry is built, and for a type that is not in it.
const UNLISTED: u32 = u32::MAX;

/// A type whose values a manager can hold. Only `#[process_object]` implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a process object",
    label = "not a process object",
    note = "put `#[process_object]` on the `impl` block with the type's own methods, too: it makes the proxy"
)]
pub trait Object: Send + Sync + Sized + 'static {
    /// The type's identity, of which there is one.
    fn object_type() -> &'static ObjectType;
}

/// One type of objects: its name, its place in the source, and its number.
///
/// Its address tells types apart. Name and place are for messages and for statistics.
pub struct ObjectType {
    name: &'static str,
    file: &'static str,
    line: u32,
    /// Written when the registry is built, each time with the same value.
    index: AtomicU32,
}

impl ObjectType {
    /// For generated code: a type that is not in the registry yet.
    #[must_use]
    pub const fn new(name: &'static str, file: &'static str, line: u32) -> Self {
        Self { name, file, line, index: AtomicU32::new(UNLISTED) }
    }

    /// The type's module and name, such as `demo::Counter`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The file and the line of the attribute.
    #[must_use]
    pub const fn location(&self) -> (&'static str, u32) {
        (self.file, self.line)
    }

    /// The type's number: the same in every process that runs this binary. `None` if nothing of it is registered here.
    pub fn index(&self) -> Option<u32> {
        registry();
        match self.index.load(Relaxed) {
            UNLISTED => None,
            index => Some(index),
        }
    }

    // Relaxed, because the registry is published by the lock that it is built under.
    pub(super) fn set_index(&self, index: u32) {
        self.index.store(index, Relaxed);
    }
}

impl fmt::Debug for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.name, self.file, self.line)
    }
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for ObjectType {}

/// Why a method did not get the object that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectRefusal {
    /// This thread has no object of that type in its hands: the stub was run outside a manager.
    Absent,
    /// A method with `&mut self` panicked, and may have left the object half changed.
    Poisoned,
    /// A method that this thread runs on the object calls another one, and one of them has `&mut self`.
    Reentered,
}

impl fmt::Display for ObjectRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "there is no object for this method; call it through a proxy",
            Self::Poisoned => {
                "the object is poisoned: a method with `&mut self` panicked; use `clear_poison` if the object is sound"
            }
            Self::Reentered => {
                "the object is in use by the method that makes this call, and one of them has `&mut self`: that would \
                 wait for itself; call the object's own methods directly"
            }
        })
    }
}
