//! How a pool is to be made.
//!
//! Runs in: the parent. If not all workers could be started, none is left.

use std::sync::Arc;
use std::time::Duration;

use super::config::PoolConfig;
use super::inline;
use super::pool::Pool;
use super::shared::Shared;
use super::size::check_size;
use super::worker_start;
use crate::call::EncodedCall;
use crate::error::{Error, Result};
use crate::link::StartMethod;
use crate::process::available_parallelism;
use crate::supervisor::{SpawnAttributes, supervisor};
use crate::task::Task;

/// Options for a [`Pool`].
///
/// Unless told otherwise, the pool has one worker for each processor that this process may use, started by
/// [`StartMethod::ForkServer`], and called `worker-0`, `worker-1`, and so on. They block the signals that the thread blocks
/// which builds the pool.
///
/// # Examples
/// ```
/// use process_task::{Pool, process_task};
///
/// #[process_task]
/// fn whoami() -> String { process_task::current().name().to_owned() }
///
/// let pool = Pool::builder().workers(1).name("scanner").build()?;
/// assert_eq!(pool.call(whoami, ())?, "scanner-0");
/// # process_task::Result::Ok(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder starts nothing until `build` is called"]
pub struct PoolBuilder {
    workers: Option<usize>,
    name: Option<String>,
    pub(super) options: SpawnAttributes,
    initializer: Option<Result<EncodedCall>>,
    finalizer: Option<Result<EncodedCall>>,
    max_calls: Option<u64>,
    max_pending: Option<usize>,
    lazy: bool,
    idle_timeout: Option<Duration>,
    grace: Option<Duration>,
    exit_timeout: Option<Duration>,
}

impl PoolBuilder {
    /// How many workers the pool has: at least 1, at most 65,536, and unless it is [`lazy`](Self::lazy) no more than this
    /// process has descriptors for, five for each.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// What the workers are called, each with its number behind.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How the workers are made.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.options.method = method;
        self
    }

    /// A task that each worker runs before its first call. The arguments are encoded here and now.
    ///
    /// If it panics, [`build`](Self::build) fails with that; in a worker that comes later, the pool closes with it.
    /// [`worker_state`](crate::worker_state) keeps what it makes.
    ///
    /// The task's own options act. With `timeout`, a worker is killed when its initializer takes longer. With `retries`,
    /// that is tried again in another process so many times, as is an initializer after its process died; then `build`
    /// fails, or the pool closes, with an error that names the task. Without `retries`, one time-out is enough, and deaths
    /// are tried again three times for each worker. `memory_limit` is as for a call. Without `timeout`, `build` waits as
    /// long as the initializer takes, and [`Pool::stats`] shows a worker that is at it as
    /// [`Initializing`](crate::WorkerState::Initializing).
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, process_task, worker_state};
    ///
    /// #[process_task]
    /// fn greet_with(word: &str) { *worker_state::<String>() = word.to_owned(); }
    ///
    /// #[process_task]
    /// fn greeting(name: &str) -> String { format!("{} {name}", *worker_state::<String>()) }
    ///
    /// let pool = Pool::builder().workers(2).initializer(greet_with, "hello").build()?;
    /// assert_eq!(pool.call(greeting, "world")?, "hello world");
    /// # process_task::Result::Ok(())
    /// ```
    pub fn initializer<T: Task<Output = ()>>(mut self, task: T, args: T::Args<'_>) -> Self {
        self.initializer = Some(EncodedCall::new(task, args));
        self
    }

    /// A task that each worker runs after its last call: when the pool ends, shrinks, or replaces the worker. Not when
    /// the worker is killed or dies.
    ///
    /// It may take as long as its task's `timeout`, else the [`exit_timeout`](Self::exit_timeout), else ten seconds; then the
    /// worker is killed. `memory_limit` is as for a call; `retries` are refused, because a worker that died has nothing left
    /// to finish. A finalizer that fails is counted in [`PoolStats`](crate::PoolStats::failed_finalizers) and told to
    /// `tracing`; one that fails after the pool was closed is what [`Pool::shutdown`] and [`Pool::wait_ended`] return.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn leave_a_note(path: &str) { std::fs::write(path, "done").expect("a file that can be written") }
    ///
    /// # let path = std::env::temp_dir().join(format!("process-task-note-{}", std::process::id()));
    /// # let path = path.to_str().expect("a path in UTF-8");
    /// let pool = Pool::builder().workers(1).finalizer(leave_a_note, path).build()?;
    /// drop(pool);
    /// assert_eq!(std::fs::read_to_string(path).unwrap(), "done");
    /// # std::fs::remove_file(path).unwrap();
    /// # process_task::Result::Ok(())
    /// ```
    pub fn finalizer<T: Task<Output = ()>>(mut self, task: T, args: T::Args<'_>) -> Self {
        self.finalizer = Some(EncodedCall::new(task, args));
        self
    }

    /// How many calls a worker makes, at least 1, before a new process takes its place: against leaks that cannot be
    /// mended. The new one is started before the old one is done, and never works beside it.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn own_id() -> u32 { std::process::id() }
    ///
    /// let pool = Pool::builder().workers(1).max_calls_per_worker(2).build()?;
    /// let ids: Vec<u32> = (0..4).map(|_| pool.call(own_id, ())).collect::<Result<_, _>>()?;
    /// assert!(ids[0] == ids[1] && ids[1] != ids[2] && ids[2] == ids[3]);
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("maxtasksperchild", "max_tasks_per_child"))]
    pub fn max_calls_per_worker(mut self, calls: u64) -> Self {
        self.max_calls = Some(calls);
        self
    }

    /// How much private memory a worker may use, in bytes, before a new process takes its place: against leaks that cannot
    /// be mended. Memory that it shares does not count: long arguments and results, and regions, which are given back by
    /// themselves. It is measured after each call, and no call fails because of it: see
    /// [`memory_limit`](Self::memory_limit) for a bound that one does.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn leak(bytes: usize) -> u32 {
    ///     std::mem::forget(vec![1u8; bytes]);
    ///     std::process::id()
    /// }
    ///
    /// let pool = Pool::builder().workers(1).max_worker_memory(64 << 20).build()?;
    /// let first = pool.call(leak, 1000)?;
    /// assert_eq!(pool.call(leak, 100 << 20)?, first);          // too much, but it is done
    /// assert_ne!(pool.call(leak, 1000)?, first);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn max_worker_memory(mut self, bytes: u64) -> Self {
        self.options.most_memory = Some(bytes);
        self
    }

    /// Starts no worker before there is a call for it.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// let pool = Pool::builder().workers(8).lazy().build()?;      // no process yet
    /// assert_eq!(pool.call(square, 3)?, 9);                        // now one
    /// # process_task::Result::Ok(())
    /// ```
    pub fn lazy(mut self) -> Self {
        self.lazy = true;
        self
    }

    /// How long a worker without work stays. Others are started when there is work again.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// let pool = Pool::builder().idle_timeout(Duration::from_secs(60)).build()?;
    /// assert_eq!(pool.call(square, 3)?, 9);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// How long a worker has to end after SIGTERM when a call of a task with a timeout has taken too long, or a running
    /// call is cancelled; then it gets SIGKILL. Without this it is killed at once. The call is settled when the worker is
    /// dead, so it takes as long as the grace if the worker does not end before; a retry begins after that. A grace beyond
    /// the clock's end, such as `Duration::MAX`, is never over.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use process_task::Pool;
    /// let pool = Pool::builder().termination_grace(Duration::from_millis(200)).build()?;
    /// # process_task::Result::Ok(())
    /// ```
    pub fn termination_grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// How long a worker that leaves has for its finalizer, unless that has a `timeout` of its own, and after that once more
    /// to exit. Then it gets SIGKILL. A worker leaves when the pool ends or shrinks, and when another one replaces it.
    ///
    /// Without this, a finalizer has ten seconds, and exiting takes five, or as long as the
    /// [termination grace](Self::termination_grace) if that is longer. Exit handlers (`atexit`) and destructors of statics
    /// and thread-locals, also those of C++, run while a worker exits; one that never returns would have kept
    /// [`shutdown`](Pool::shutdown) and `drop` waiting for ever.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn hang() { loop { std::thread::sleep(Duration::from_secs(1)) } }
    ///
    /// let pool = Pool::builder().workers(1).finalizer(hang, ()).exit_timeout(Duration::from_millis(50)).build()?;
    /// let error = pool.shutdown(process_task::ShutdownMode::Finish).unwrap_err();
    /// assert!(error.to_string().contains("longer than the limit of 50ms"));
    /// # process_task::Result::Ok(())
    /// ```
    pub fn exit_timeout(mut self, timeout: Duration) -> Self {
        self.exit_timeout = Some(timeout);
        self
    }

    /// How many calls may be submitted and not settled, at least 1. Where there are as many, [`Pool::submit`],
    /// [`Pool::call`] and the maps wait until there is room, and [`Pool::try_submit`] gives the arguments back. Without
    /// this, calls that wait take memory, as many as there are. With it, [`Pool::map`] sends its items one by one.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn length(line: &str) -> usize { line.len() }
    ///
    /// let pool = Pool::builder().workers(2).max_pending(100).build()?;
    /// for line in "to be\nor not to be".lines() {
    ///     drop(pool.submit(length, line)); // never more than 100 lines in memory, however long the text is
    /// }
    /// # process_task::Result::Ok(())
    /// ```
    pub fn max_pending(mut self, calls: usize) -> Self {
        self.max_pending = Some(calls);
        self
    }

    /// Starts the workers, and waits until all are there, and initialized.
    ///
    /// # Errors
    /// A number is 0 that must not be, or larger than it can be, a processor is not there, the arguments of initializer or finalizer could not be encoded, a worker could not
    /// be started or could not become what was asked for, or an initializer failed; then the workers that were started are
    /// ended. What is wanting for a moment, such as descriptors, is an error here too; once the pool is there it is waited for.
    pub fn build(self) -> Result<Pool> {
        // Asked once: the answer is read from files.
        let processors = available_parallelism();
        let workers = self.workers.unwrap_or(processors);
        let eager = !self.lazy && self.idle_timeout.is_none();
        check_size(workers, !self.lazy, "leave it out for one worker per usable core")?;
        self.options.check_for_many()?;
        let may_be_refused = self.options.may_be_refused();
        if self.max_calls == Some(0) {
            return Err(Error::invalid("`max_calls_per_worker` must be at least 1, not 0; leave it out for no limit"));
        }
        if self.max_pending == Some(0) {
            return Err(Error::invalid("`max_pending` must be at least 1, not 0; leave it out for no limit"));
        }
        let finalizer = self.finalizer.transpose()?;
        if let Some(repeated) = finalizer.as_ref().filter(|finalizer| finalizer.options().retries > 0) {
            return Err(Error::invalid(
                "a finalizer is not made again, because its worker is gone when it dies: take its retries back with \
                 `.retries(0)`",
            )
            .in_task(repeated.task().name()));
        }
        let config = PoolConfig {
            processors,
            name: self.name.unwrap_or_else(|| "worker".to_owned()),
            // Noted here, because the workers are asked for by the reactor's thread, also when they replace others.
            options: self.options.of_pool()?,
            initializer: self.initializer.transpose()?,
            finalizer,
            quota: self.max_calls,
            eager,
            may_be_refused,
            idle_timeout: self.idle_timeout,
            grace: self.grace,
            exit_timeout: self.exit_timeout,
        };
        let shared = Shared::new(supervisor()?, config, workers)?;
        if let Some(most) = self.max_pending {
            shared.limit.bound(most);
        }
        let pool = Pool::of(Arc::clone(&shared));
        if (!self.lazy || inline::is_on())
            && let Err(error) = worker_start::start_all(&shared, workers)
        {
            shared.terminate();
            return Err(error);
        }
        Ok(pool)
    }
}
