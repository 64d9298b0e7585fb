//! A pool as a manager keeps it: the processes that it runs calls in, and which calls are whose.
//!
//! Runs in: the manager. No thread waits for a call of a client: the pool calls back.
//!
//! | what dies | what it costs |
//! |---|---|
//! | a worker | the call that it was running, which fails with that; another takes its place |
//! | a client | its calls that no worker has begun are not made; what the others give is thrown away |
//! | a client's time is over | the same, of that call |

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::encoded_task::EncodedTask;
use super::sent_stats::SentStats;
use crate::error::{Error, Result as Outcome, SentError};
use crate::manager::deferred::{self, CallId, ClientBound, Deferred, is_cancelled};
use crate::manager::managed::registrations::Registrations;
use crate::manager::managed::stored::Stored;
use crate::pool::{JoinHandle, Pool};
use crate::process_object;
use crate::sys::mutex::MutexExt as _;
use crate::task::{Options, lookup};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct RawPool {
    core: Arc<PoolCore>,
}

/// What one call gave.
pub(super) type SentResult = Result<Stored, SentError>;

/// The options of a task: timeout, retries, memory limit.
pub(super) type SentOptions = (Option<Duration>, u32, Option<u64>);

#[derive(Debug)]
struct PoolCore {
    pool: Pool,
    /// The calls that are not settled, by the request that brought them.
    calls: Mutex<HashMap<CallId, Vec<JoinHandle<Stored>>>>,
    registrations: Registrations,
}

impl PoolCore {
    /// The calls of these requests are not made, unless a worker has begun them.
    fn cancel(&self, is_one: impl Fn(CallId) -> bool) {
        let gone: Vec<_> = self.calls.lock_unpoisoned().extract_if(|caller, _| is_one(*caller)).collect();
        for call in gone.iter().flat_map(|(_, calls)| calls) {
            call.cancel();
        }
    }
}

impl ClientBound for PoolCore {
    fn cancelled(&self, caller: CallId) {
        self.cancel(|other| other == caller);
    }

    fn client_gone(&self, client: u32) {
        self.registrations.remove(client);
        self.cancel(|other| other.client == client);
    }
}

/// The results of one request, until all are there.
#[derive(Debug)]
struct Gathered {
    state: Mutex<GatheredResults>,
}

#[derive(Debug)]
struct GatheredResults {
    results: Vec<Option<SentResult>>,
    /// Number of results that are not there.
    missing: usize,
    /// Taken by the thread that answers.
    deferred: Option<Deferred>,
}

impl Gathered {
    fn new(count: usize, deferred: Deferred) -> Self {
        let results = (0..count).map(|_| None).collect();
        Self { state: Mutex::new(GatheredResults { results, missing: count, deferred: Some(deferred) }) }
    }

    /// Puts a result in. True: it was the last, and the request is answered.
    fn put(&self, at: usize, result: Outcome<Stored>) -> bool {
        let mut state = self.state.lock_unpoisoned();
        let result = result.map_err(|error| SentError::of(&error));
        let is_first = state.results.get_mut(at).is_some_and(|place| place.replace(result).is_none());
        state.missing -= usize::from(is_first);
        if state.missing > 0 {
            return false;
        }
        let (results, deferred) = (std::mem::take(&mut state.results), state.deferred.take());
        drop(state);
        if let Some(deferred) = deferred {
            deferred.answer(&results.into_iter().flatten().collect::<Vec<SentResult>>());
        }
        true
    }

    fn is_answered(&self) -> bool {
        self.state.lock_unpoisoned().deferred.is_none()
    }
}

#[process_object(crate = crate)]
impl RawPool {
    pub(crate) fn new(workers: usize) -> Result<Self, SentError> {
        if deferred::is_from_elsewhere() {
            let reason = "a process that has connected to a manager cannot start a pool in it";
            return Err(SentError::of(&Error::invalid(reason)));
        }
        let pool = Pool::builder().workers(workers).build().map_err(|error| SentError::of(&error))?;
        let core = PoolCore { pool, calls: Mutex::default(), registrations: Registrations::default() };
        Ok(Self { core: Arc::new(core) })
    }

    /// Has workers run a task, once for each of these arguments. Is answered when all calls are settled.
    ///
    /// It is exclusive so that the calls of a client come to the pool in their order.
    pub(crate) fn run(&mut self, task: u32, options: SentOptions, arguments: &[Stored]) -> Vec<SentResult> {
        let refuse = |error: &Error| arguments.iter().map(|_| Err(SentError::of(error))).collect();
        let known = lookup(task).filter(|_| !deferred::is_from_elsewhere());
        let Some(registration) = known else { return refuse(&Error::unknown_task()) };
        let (core, client) = (&self.core, deferred::caller().client);
        core.registrations.add(client, core);
        if arguments.is_empty() {
            return Vec::new();
        }
        let Some(deferred) = deferred::defer() else {
            return refuse(&Error::invalid("a call of a pool cannot wait where it is"));
        };
        let caller = deferred.caller();
        let gathered = Arc::new(Gathered::new(arguments.len(), deferred));
        let (timeout, retries, memory_limit) = options;
        let task = EncodedTask { registration, options: Options { timeout, retries, memory_limit } };
        let calls: Vec<_> = arguments.iter().map(|arguments| core.pool.submit(task, arguments)).collect();
        for (at, call) in calls.iter().enumerate() {
            let (gathered, core) = (Arc::clone(&gathered), Arc::downgrade(core));
            call.on_done(move |result| {
                if gathered.put(at, result)
                    && let Some(core) = core.upgrade()
                {
                    let calls = core.calls.lock_unpoisoned().remove(&caller);
                    drop(calls);
                }
            });
        }
        let mut unsettled = core.calls.lock_unpoisoned();
        if !gathered.is_answered() {
            unsettled.insert(caller, calls);
        }
        drop(unsettled);
        if is_cancelled(caller) {
            core.cancelled(caller);
        }
        Vec::new()
    }

    pub(crate) fn workers(&self) -> usize {
        self.core.pool.workers()
    }

    pub(crate) fn stats(&self) -> SentStats {
        SentStats::of(self.core.pool.stats())
    }

    /// Takes no more calls.
    pub(crate) fn close(&self) {
        self.core.pool.close();
    }

    /// Takes no more calls, and kills the workers.
    pub(crate) fn kill(&self) {
        self.core.pool.kill();
    }
}
