//! What a manager does, in numbers.
//!
//! Runs in: the manager, which counts, and its clients, which read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a manager does: [`ManagerHandle::stats`](crate::ManagerHandle::stats).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStats {
    pub(super) objects: BTreeMap<String, usize>,
    pub(super) calls: u64,
    pub(super) clients: usize,
    pub(super) travelling: usize,
    pub(super) queued: usize,
    pub(super) refused: u64,
    pub(super) last_refusal: Option<String>,
}

impl ManagerStats {
    /// Number of objects, by the name of their type with its module.
    #[must_use]
    pub fn objects(&self) -> &BTreeMap<String, usize> {
        &self.objects
    }

    /// Number of calls that were begun since the manager was started.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Number of processes that have a proxy or a handle of the manager.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// Number of messages with proxies that have not arrived yet, or whose receiver still has the message.
    #[must_use]
    pub fn travelling(&self) -> usize {
        self.travelling
    }

    /// Number of requests that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Number of connections that were refused: with a wrong key, of another build, or one too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Why the last connection that was refused was so. Of another build, it names both.
    #[must_use]
    pub fn last_refusal(&self) -> Option<&str> {
        self.last_refusal.as_deref()
    }
}
