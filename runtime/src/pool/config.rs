//! The settings of a pool: what its workers are, and when they come and go.
//!
//! Runs in: the parent. They do not change once the pool is built.

use std::time::Duration;

use crate::call::EncodedCall;
use crate::error::Error;
use crate::supervisor::SpawnAttributes;

/// The settings that workers are made by.
#[derive(Debug)]
pub(super) struct PoolConfig {
    pub(super) name: String,
    pub(super) options: SpawnAttributes,
    /// How many processors there are, for workers and for us.
    pub(super) processors: usize,
    /// What each worker runs before its first call, and after its last.
    pub(super) initializer: Option<EncodedCall>,
    pub(super) finalizer: Option<EncodedCall>,
    /// How many calls a worker makes before another takes its place.
    pub(super) quota: Option<u64>,
    /// Something was asked for that a worker may be refused, which `build` is to hear of.
    pub(super) may_be_refused: bool,
    /// Workers are started before there is work for them.
    pub(super) eager: bool,
    /// How long a worker without work stays.
    pub(super) idle_timeout: Option<Duration>,
    /// How long a worker has between being asked to end and being killed, when its call has taken too long.
    pub(super) grace: Option<Duration>,
    /// How long a worker that leaves may take for its finalizer, and then to exit, if not as long as usual.
    pub(super) exit_timeout: Option<Duration>,
}

impl PoolConfig {
    /// How long its initializer may take.
    pub(super) fn initializer_limit(&self) -> Option<Duration> {
        self.initializer.as_ref()?.options().timeout
    }

    /// How many times more its initializer is tried.
    pub(super) fn initializer_retries(&self) -> usize {
        self.initializer.as_ref().map_or(0, |initializer| initializer.options().retries as usize)
    }

    /// Adds to `error` that it is the initializer's.
    pub(super) fn in_initializer(&self, error: &Error) -> Error {
        match &self.initializer {
            Some(initializer) => error.clone().in_task(initializer.task().name()),
            None => error.clone(),
        }
    }
}
