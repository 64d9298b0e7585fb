//! How much one client that has connected may cost its manager.
//!
//! Runs in: the manager, which keeps to it, and each client, which is told when it connects.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ConnectionLimits {
    /// Number of connections of one manager. More are refused.
    pub(super) connections: usize,
    /// Number of bytes of a call's arguments, or of its result.
    pub(super) message_bytes: usize,
    /// Number of objects that one connection may have.
    pub(super) objects: usize,
    /// How long a client that sends nothing, or takes nothing, is still thought to live.
    pub(super) lease: Duration,
    /// Number of calls in flight: read, and not answered. The client waits with more.
    pub(super) calls: usize,
    /// Number of bytes of their arguments, all together. A single call may have more.
    pub(super) call_bytes: usize,
    /// Number of calls that run side by side.
    pub(super) running: usize,
    /// Number of bytes of answers that were not taken, from which on no call begins.
    pub(super) answer_bytes: usize,
}

/// The shortest lease. A client that has to wait for a processor is not taken for dead so soon.
const MIN_LEASE: Duration = Duration::from_millis(100);

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            message_bytes: 64 << 20,
            objects: 1 << 16,
            lease: Duration::from_secs(15),
            calls: 1 << 14,
            call_bytes: 64 << 20,
            running: 64,
            answer_bytes: 64 << 20,
        }
    }
}

impl ConnectionLimits {
    /// # Errors
    /// One of them makes no sense.
    pub(super) fn check(&self) -> Result<()> {
        let at_least_1 = [
            ("max_connections", self.connections),
            ("max_message_bytes", self.message_bytes),
            ("max_connection_objects", self.objects),
        ];
        if let Some((name, _)) = at_least_1.into_iter().find(|(_, limit)| *limit == 0) {
            return Err(Error::invalid(format!("{name} must be at least 1; leave it out for the default")));
        }
        if self.lease < MIN_LEASE {
            return Err(Error::invalid(format!("lease must be at least {MIN_LEASE:?}, not {:?}", self.lease)));
        }
        Ok(())
    }

    /// The most bytes of a message on the wire: a call or an answer, and what stands around it.
    pub(super) fn frame_bytes(&self) -> usize {
        self.message_bytes.saturating_add(INTRODUCTION_BYTES)
    }

    /// How often a client says that it lives, and how often the manager looks.
    pub(super) fn look_interval(&self) -> Duration {
        self.lease / 4
    }
}

/// The most bytes of a message of a peer that has not said of which build it is.
pub(super) const INTRODUCTION_BYTES: usize = 64 << 10;
