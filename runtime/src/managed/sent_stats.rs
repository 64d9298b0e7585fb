//! A pool's statistics on their way from a manager to a client.
//!
//! Runs in: both.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::SentError;
use crate::pool::{Latency, PoolStats, WorkerState, WorkerStats};

/// A [`PoolStats`] as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SentStats {
    workers: Vec<SentWorkerStats>,
    queued: usize,
    in_flight: usize,
    settled: u64,
    stopped: usize,
    shared_memory: u64,
    latency: (Vec<(u64, u64)>, u64),
    start_failure: Option<SentError>,
    forced_ends: u64,
    failed_finalizers: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct SentWorkerStats {
    name: String,
    pid: Option<u32>,
    #[serde(with = "StateAsSent")]
    state: WorkerState,
    stopped: Option<i32>,
    calls: u64,
    busy: Duration,
    idle: Duration,
    memory: Option<u64>,
    restarts: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "WorkerState")]
enum StateAsSent {
    Absent,
    Starting,
    Initializing,
    Idle,
    Busy,
    Leaving,
}

impl SentStats {
    pub(super) fn of(stats: PoolStats) -> Self {
        let PoolStats { workers, queued, in_flight, settled, stopped, shared_memory, .. } = stats;
        let worker = |worker: WorkerStats| {
            let WorkerStats { name, pid, state, stopped, calls, busy, idle, memory, restarts } = worker;
            SentWorkerStats { name, pid, state, stopped, calls, busy, idle, memory, restarts }
        };
        Self {
            workers: workers.into_iter().map(worker).collect(),
            queued,
            in_flight,
            settled,
            stopped,
            shared_memory,
            latency: stats.latency.counts(),
            start_failure: stats.start_failure.as_ref().map(SentError::of),
            forced_ends: stats.forced_ends,
            failed_finalizers: stats.failed_finalizers,
        }
    }

    pub(super) fn into_stats(self) -> PoolStats {
        let Self { workers, queued, in_flight, settled, stopped, shared_memory, .. } = self;
        let worker = |worker: SentWorkerStats| {
            let SentWorkerStats { name, pid, state, stopped, calls, busy, idle, memory, restarts } = worker;
            WorkerStats { name, pid, state, stopped, calls, busy, idle, memory, restarts }
        };
        PoolStats {
            workers: workers.into_iter().map(worker).collect(),
            queued,
            in_flight,
            settled,
            stopped,
            shared_memory,
            latency: Latency::of_counts(self.latency),
            start_failure: self.start_failure.map(|failure| failure.into_error(None)),
            forced_ends: self.forced_ends,
            failed_finalizers: self.failed_finalizers,
        }
    }
}
