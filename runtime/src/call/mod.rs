//! One call, without the processes around it: encode arguments, run the task, decode the result, or tell what went wrong.
//!
//! Runs in: the caller's process for arguments and outcomes; for [`run_each`] the child, or the parent if it runs tasks
//! itself.

mod encoded;
pub(crate) mod outcome;
pub(crate) mod panics;
mod run;
mod values;

pub(crate) use self::encoded::EncodedCall;
pub(crate) use self::run::{Ran, ResultSink, put_failure, run_each, run_one};
pub(crate) use self::values::{decode, encode};
