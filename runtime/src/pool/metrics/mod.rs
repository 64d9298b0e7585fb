//! What a pool does, for observers: counts, times, a log, a timeline.
//!
//! Runs in: the parent, under the scheduler's mutex. A subscriber's code runs, and a file is written, once the mutex is released:
//! a [`PoolEvent`](event::PoolEvent) is one of the effects, and comes before a thread is woken. Without observers, none is made.
//!
//! | observer | sees | costs, for each call |
//! |---|---|---|
//! | [`Pool::stats`](crate::Pool::stats) | counts; how busy each worker is, by its own word; latencies of a sample | two counters; two looks at a clock for one call in 32 |
//! | a subscriber of `tracing` | workers that come and go, time-outs, retries; each call at the trace level | a look at `tracing`'s own level |
//! | [`Pool::timeline`](crate::Pool::timeline) | the above, with the time of each call | a notification, two looks at a clock, and a line in a file |

mod event;
mod latency;
mod observe;
mod recorder;
mod slot_stats;
mod stats;
mod timeline;
mod tracing;

pub(super) use self::event::WorkerRef;
pub(super) use self::latency::CallTimes;
pub use self::latency::Latency;
pub(super) use self::observe::{Metrics, NotedEvent};
pub(super) use self::recorder::Recorder;
pub(super) use self::slot_stats::SlotStats;
pub use self::stats::{PoolStats, WorkerState, WorkerStats};
pub(super) use self::stats::{private_memory, snapshot};
pub use self::timeline::Timeline;
pub(super) use self::tracing::{emit, entered, has_spans};
