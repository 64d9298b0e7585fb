//! What a task is: the contract between the code that `#[process_task]` writes and the rest of this crate.
//!
//! Runs in: the parent, which encodes arguments and decodes results, and the child, which does the rest in
//! [`Registration::run`]. Two processes compare the fingerprint to know that they have the same registry.

mod object;
mod options;
mod registration;
mod registry;

#[cfg(test)]
mod tests;

use crate::codec::{CodecError, Writer};

pub use self::object::{Object, ObjectRefusal, ObjectType};
pub use self::options::Options;
pub use self::registration::{Registration, RegistrationKind, StubError};
pub use self::registry::{Entry, Preload};
pub(crate) use self::registry::{fingerprint, lookup, lookup_method, preloads};

/// A function that can run in another process.
///
/// Only [`#[process_task]`](macro@crate::process_task) implements this: it turns a function into a constant of a type
/// that has this trait, and that still derefs to the function.
///
/// ```
/// use process_task::{Task, process_task};
///
/// #[process_task]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// fn takes_a_task<T: Task<Output = i64>>(_task: T) {}
/// takes_a_task(square);
/// assert_eq!(square(3), 9);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a process task",
    label = "not a process task",
    note = "put `#[process_task]` on the function; a closure cannot be one, since no other process has its captures",
    note = "pass a task by its name alone: `*task` is the function, and `task.spawn(…)` is a process that runs already"
)]
pub trait Task: Copy + Send + Sync + 'static {
    /// What one call takes: the argument itself for one parameter, a tuple for several, `()` for none. References in it
    /// live for `'a`.
    type Args<'a>;

    /// What one call gives back.
    type Output;

    /// The task's identity, the same for all copies of the task.
    #[doc(hidden)]
    fn registration(&self) -> &'static Registration;

    /// How calls made through this copy of the task behave.
    #[doc(hidden)]
    fn options(&self) -> Options;

    /// Appends the arguments of one call.
    ///
    /// # Errors
    /// An argument refuses, or there is no memory for its bytes.
    #[doc(hidden)]
    fn encode(args: Self::Args<'_>, writer: &mut Writer<'_>) -> Result<(), CodecError>;

    /// The result of one call.
    ///
    /// # Errors
    /// `bytes` are no such result.
    #[doc(hidden)]
    fn decode_output(bytes: &[u8]) -> Result<Self::Output, CodecError>;
}
