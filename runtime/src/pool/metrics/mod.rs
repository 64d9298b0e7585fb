//! What a pool does, for observers: counts, times, a log, a timeline.
//!
//! Owns: what is counted and measured, and the observers. Runs in: the parent; what is noted is noted under the schedule's
//! mutex. Never: runs a subscriber's code or writes a file while the mutex is held: a [`PoolEvent`](event::PoolEvent) is put into
//! what is owed, and told when that is paid, before a thread is woken. Without observers, none is made.
//!
//! | observer | sees | costs, for each call |
//! |---|---|---|
//! | [`Pool::stats`](crate::Pool::stats) | counts; how busy each worker is, by its own word; latencies of a sample | two counters; two looks at a clock for one call in 32 |
//! | a subscriber of `tracing` | workers that come and go, time-outs, retries; each call at the trace level | a look at `tracing`'s own level |
//! | [`Pool::timeline`](crate::Pool::timeline) | the above, with the time of each call | a bell, two looks at a clock, and a line in a file |

mod event;
mod latency;
mod observe;
mod recorder;
mod stats;
mod timeline;
mod tracing;

pub use self::latency::Latency;
pub(super) use self::observe::{CallTimes, Metrics, NotedEvent};
pub(super) use self::stats::SlotStats;
pub use self::stats::{PoolStats, WorkerState, WorkerStats};
pub use self::timeline::Timeline;
pub(super) use self::tracing::{emit, entered, has_spans};
