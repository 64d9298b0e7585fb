//! A call that is kept: its arguments are encoded once, and it may be made again and again.
//!
//! Runs in: the parent. An initializer is one, of a pool's workers or of a manager.

use super::encode;
use crate::codec::handles::Handles;
use crate::error::Result;
use crate::link::{Payload, SharedBufferPool};
use crate::sys;
use crate::task::{Options as Limits, Registration, Task};

/// A task with its arguments, which are encoded.
#[derive(Debug)]
pub(crate) struct EncodedCall {
    task: &'static Registration,
    options: Limits,
    arguments: Vec<u8>,
    handles: Handles,
}

impl EncodedCall {
    /// # Errors
    /// The arguments cannot be encoded.
    pub(crate) fn new<T: Task<Output = ()>>(task: T, args: T::Args<'_>) -> Result<Self> {
        let (registration, options) = (task.registration(), task.options());
        let payload = encode::<T>(args, &SharedBufferPool::default())?;
        let arguments = payload.bytes().to_vec();
        Ok(Self { task: registration, options, arguments, handles: payload.handles().clone() })
    }

    pub(crate) fn task(&self) -> &'static Registration {
        self.task
    }

    /// How it is to behave.
    pub(crate) fn options(&self) -> Limits {
        self.options
    }

    /// The arguments' bytes, and what travels beside them.
    pub(crate) fn arguments(&self) -> (&[u8], &Handles) {
        (&self.arguments, &self.handles)
    }

    /// The request for it.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn payload(&self) -> sys::Result<Payload> {
        Ok(Payload::of_bytes(&self.arguments)?.with(self.handles.clone()))
    }
}
