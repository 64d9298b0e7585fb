//! What a pool has done so far, in numbers.
//!
//! Runs in: the parent. No worker is asked: one that is stopped or dead answers nothing, and is counted all the same.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::latency::Latency;
use super::observe::Metrics;
use crate::error::Error;
use crate::pool::call::Call;
use crate::pool::config::PoolConfig;
use crate::pool::dispatcher::Dispatcher;
use crate::pool::slot::{Request, Slot, SlotState};
use crate::pool::slots::Slots;
use crate::supervisor::ChildHandle;
use crate::sys::process;

/// A look at a [`Pool`](crate::Pool): what each worker has done, and what is on the way.
///
/// As text it is a small table.
///
/// # Examples
/// ```
/// use process_task::{Pool, process_task};
///
/// #[process_task]
/// fn square(x: i64) -> i64 { x * x }
///
/// let pool = Pool::builder().workers(2).build()?;
/// pool.map(square, 0..100)?;
/// let stats = pool.stats();
/// println!("{stats}");
/// assert_eq!(stats.workers.len(), 2);
/// assert_eq!(stats.workers.iter().map(|worker| worker.calls).sum::<u64>(), 100);
/// assert_eq!((stats.settled, stats.in_flight, stats.queued), (100, 0, 0));
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PoolStats {
    /// The slots of the pool, in their order.
    pub workers: Vec<WorkerStats>,
    /// Calls that no worker has been given.
    pub queued: usize,
    /// Calls that a worker has and has not answered: one is running, and the others wait behind it.
    pub in_flight: usize,
    /// Calls that have a result or an error.
    pub settled: u64,
    /// Workers that are stopped; see [`WorkerStats::stopped`].
    pub stopped: usize,
    /// How much memory it shares with its workers for long arguments and results, in bytes: what is in use, and what is kept
    /// warm for the next ones. It is no worker's own. What was not used for a second or two is given back.
    pub shared_memory: u64,
    /// How long calls took, from their submission until they were settled.
    pub latency: Latency,
    /// Why the last worker that was asked for could not be started, while the pool goes on trying: calls wait meanwhile if
    /// there is no other worker. `None` once one has started.
    pub start_failure: Option<Error>,
    /// Workers that were told to end, did not do so in time, and were killed: see
    /// [`exit_timeout`](crate::PoolBuilder::exit_timeout).
    pub forced_ends: u64,
    /// Finalizers that panicked, took too long, or ended with the death of their worker.
    pub failed_finalizers: u64,
}

/// A look at one worker of a pool; part of [`PoolStats`]. Calls, times and restarts are those of its slot in the pool:
/// a worker that takes over a slot counts on.
///
/// # Examples
/// ```
/// use process_task::{Pool, WorkerState};
///
/// let pool = Pool::builder().workers(1).name("scanner").build()?;
/// let worker = &pool.stats().workers[0];
/// assert_eq!(worker.name, "scanner-0");
/// assert!(worker.state == WorkerState::Idle || worker.state == WorkerState::Starting);
/// assert!(worker.pid.is_some() && worker.memory > Some(0));
/// assert_eq!((worker.calls, worker.restarts), (0, 0));
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// What it is called.
    pub name: String,
    /// Its process id; `None` while there is no process.
    pub pid: Option<u32>,
    /// What it does.
    pub state: WorkerState,
    /// The signal that has stopped it, while it is stopped: it does nothing then, whatever its state, and its call waits for
    /// SIGCONT, or for the end of its timeout.
    pub stopped: Option<i32>,
    /// How many calls it has answered.
    pub calls: u64,
    /// How long it has worked. It measures that itself with a cheap clock, which has steps of some milliseconds that even
    /// out.
    pub busy: Duration,
    /// How long it has been there and had nothing to do.
    pub idle: Duration,
    /// The memory that is its own, in bytes: resident, and not shared. `None` while there is no process. What it shares
    /// with the pool is counted by [`PoolStats::shared_memory`].
    pub memory: Option<u64>,
    /// How many workers were in this slot before.
    pub restarts: u64,
}

/// What a worker does; part of [`WorkerStats`].
///
/// # Examples
/// ```
/// use process_task::{Pool, WorkerState, process_task};
///
/// #[process_task]
/// fn nap() { std::thread::sleep(std::time::Duration::from_secs(60)) }
///
/// let pool = Pool::builder().workers(1).build()?;
/// let pending = pool.submit(nap, ());
/// assert_eq!(pool.stats().workers[0].state, WorkerState::Busy);
/// pool.kill();
/// # drop(pending);
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerState {
    /// There is no process, and none was asked for yet.
    Absent,
    /// It was asked for, or sets itself up.
    Starting,
    /// It is at the pool's initializer.
    Initializing,
    /// It waits for calls.
    Idle,
    /// It has calls that it has not answered.
    Busy,
    /// It was killed, or told to end, and has not ended.
    Leaving,
}

/// What the parts of a pool's scheduler tell, and the processes whose memory is to be read once the mutex is released.
pub(in crate::pool) fn snapshot(
    config: &PoolConfig,
    slots: &Slots,
    backlog: &Dispatcher,
    metrics: &Metrics,
    start_failure: Option<Error>,
) -> (PoolStats, Vec<Option<Arc<ChildHandle>>>) {
    let now = metrics.now();
    let all = slots.iter().enumerate();
    let (workers, records) = all.map(|(number, slot)| worker_stats(config, number, slot, now)).unzip();
    let many = |call: &Call| call.items() as usize;
    let queued = backlog.iter().map(|queued| many(&queued.call)).sum();
    let dying = slots.iter().filter_map(|slot| match &slot.state {
        SlotState::Dying(dying) => Some(dying.running.iter().map(|(queued, _)| many(&queued.call)).sum::<usize>()),
        _ => None,
    });
    let requests = slots.iter().filter_map(Slot::worker).flat_map(|worker| worker.caller.tags());
    let in_flight = requests.map(|request| if let Request::Call(call) = request { many(call) } else { 0 });
    let in_flight = in_flight.chain(dying).sum();
    let arrived = slots.iter().filter_map(Slot::worker).map(|worker| worker.caller.arrived_bytes() as u64);
    let workers: Vec<WorkerStats> = workers;
    let stopped = workers.iter().filter(|worker| worker.stopped.is_some()).count();
    let stats = PoolStats {
        workers,
        queued,
        in_flight,
        settled: metrics.settled,
        stopped,
        shared_memory: arrived.sum(),
        latency: metrics.sampling.latency(),
        start_failure,
        forced_ends: metrics.forced,
        failed_finalizers: metrics.failed_finalizers,
    };
    (stats, records)
}

fn worker_stats(config: &PoolConfig, number: usize, slot: &Slot, now: u64) -> (WorkerStats, Option<Arc<ChildHandle>>) {
    let (state, record) = match &slot.state {
        SlotState::Vacant | SlotState::Backoff => (WorkerState::Absent, None),
        SlotState::Starting => (WorkerState::Starting, None),
        SlotState::Ready(worker) => {
            let state = if worker.load() > 0 {
                WorkerState::Busy
            } else if worker.setup_pending == 0 {
                WorkerState::Idle
            } else if worker.is_in_initializer() {
                WorkerState::Initializing
            } else {
                WorkerState::Starting
            };
            (state, Some(&worker.record))
        }
        SlotState::Dying(dying) => (WorkerState::Leaving, Some(&dying.record)),
    };
    let busy = slot.worker().map_or(Duration::ZERO, |worker| worker.caller.busy());
    let (busy, idle) = slot.stats.times(busy, now);
    let worker = WorkerStats {
        name: format!("{}-{number}", config.name),
        pid: record.map(|record| record.pid),
        state,
        stopped: record.and_then(|record| record.stopped_by()),
        calls: slot.stats.calls,
        busy,
        idle,
        memory: None,
        restarts: slot.stats.restarts(),
    };
    (worker, record.cloned())
}

/// Resident memory that is not shared.
pub(in crate::pool) fn private_memory(record: &ChildHandle) -> Option<u64> {
    let used = process::private_memory(record.pid)?;
    // As long as it has not ended, the number was its own.
    record.status().is_none().then_some(used)
}

impl fmt::Display for PoolStats {
    /// A line for each worker, and one for the pool.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self.workers.iter().map(|worker| worker.name.len()).max().unwrap_or(0).max("worker".len());
        writeln!(
            f,
            "{:wide$} {:>8} {:8} {:>10} {:>9} {:>9} {:>10} {:>8}",
            "worker", "pid", "state", "calls", "busy", "idle", "memory", "restarts"
        )?;
        for worker in &self.workers {
            let pid = worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let memory = worker.memory.map_or_else(|| "-".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
            let (busy, idle) = (short(worker.busy), short(worker.idle));
            writeln!(
                f,
                "{:wide$} {pid:>8} {:8} {:>10} {busy:>9} {idle:>9} {memory:>10} {:>8}",
                worker.name,
                if worker.stopped.is_some() { "stopped".to_owned() } else { worker.state.to_string() },
                worker.calls,
                worker.restarts
            )?;
        }
        let Self { queued, in_flight, settled, stopped, latency, start_failure, .. } = self;
        if let Some(failure) = start_failure {
            writeln!(f, "no worker could be started the last time: {failure}")?;
        }
        write!(f, "{queued} queued, {in_flight} in flight, {settled} settled")?;
        if *stopped > 0 {
            write!(f, ", {stopped} stopped")?;
        }
        if latency.count() > 0 {
            let [p50, p90, p99, max] = [latency.p50(), latency.p90(), latency.p99(), latency.max()].map(short);
            write!(f, "; latency: p50 {p50}, p90 {p90}, p99 {p99}, max {max}")?;
        }
        if self.shared_memory > 0 {
            write!(f, "; {} KiB shared", self.shared_memory >> 10)?;
        }
        Ok(())
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Absent => "absent",
            Self::Starting => "starting",
            Self::Initializing => "in init",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Leaving => "leaving",
        })
    }
}

/// Three digits and the unit.
fn short(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        _ if seconds >= 1.0 => (seconds, "s"),
        _ if seconds >= 1e-3 => (seconds * 1e3, "ms"),
        _ if seconds >= 1e-6 => (seconds * 1e6, "us"),
        _ => (seconds * 1e9, "ns"),
    };
    let digits = if value >= 100.0 || unit == "ns" {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let texts =
            [0, 999, 1_500, 123_456, 12_300_000, 1_000_000_000, 123_456_000_000].map(Duration::from_nanos).map(short);
        assert_eq!(texts, ["0 ns", "999 ns", "1.50 us", "123 us", "12.3 ms", "1.00 s", "123 s"]);
    }

    #[test]
    fn the_table_has_a_line_for_each_worker() {
        let worker = WorkerStats {
            name: "scanner-0".to_owned(),
            pid: Some(4127),
            state: WorkerState::Busy,
            stopped: None,
            calls: 1_000_000,
            busy: Duration::from_millis(1250),
            idle: Duration::ZERO,
            memory: Some(3 << 20),
            restarts: 1,
        };
        let stopped = WorkerStats { stopped: Some(19), ..worker.clone() };
        let absent = WorkerStats { pid: None, state: WorkerState::Absent, memory: None, ..worker.clone() };
        let stats = PoolStats {
            workers: vec![worker, stopped, absent],
            queued: 7,
            in_flight: 2,
            settled: 9,
            stopped: 1,
            ..PoolStats::default()
        };
        let expected = "\
worker         pid state         calls      busy      idle     memory restarts
scanner-0     4127 busy        1000000    1.25 s      0 ns   3072 KiB        1
scanner-0     4127 stopped     1000000    1.25 s      0 ns   3072 KiB        1
scanner-0        - absent      1000000    1.25 s      0 ns          -        1
7 queued, 2 in flight, 9 settled, 1 stopped";
        assert_eq!(stats.to_string(), expected);
        let stats = PoolStats { shared_memory: 5 << 20, ..stats };
        assert_eq!(stats.to_string(), format!("{expected}; 5120 KiB shared"));
    }
}
