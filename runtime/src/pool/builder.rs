//! How a pool is to be made.
//!
//! Owns: [`PoolBuilder`]. Runs in: the parent. Never: leaves a worker behind if not all could be started.

use std::sync::Arc;

use super::core::Core;
use super::pool_type::Pool;
use crate::error::{Error, Result};
use crate::launch::{Options, hub};
use crate::link::StartMethod;
use crate::process::available_parallelism;
use crate::sys::{limits, signal};

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
    options: Options,
}

impl PoolBuilder {
    /// How many workers the pool has, at least 1.
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

    /// Starts the workers, and waits until all are there.
    ///
    /// # Errors
    /// The number of workers is 0, or one could not be started; then those that were are ended.
    pub fn build(self) -> Result<Pool> {
        let workers = self.workers.unwrap_or_else(available_parallelism);
        if workers == 0 {
            return Err(Error::invalid("a pool needs at least one worker, and 0 were asked for"));
        }
        let name = self.name.unwrap_or_else(|| "worker".to_owned());
        // Noted here, because the workers are asked for by the hub's thread, also when they replace others.
        let options = Options { mask: Some(signal::mask()), niceness: Some(limits::niceness()), ..self.options };
        let core = Core::new(hub()?, name, options, workers)?;
        let pool = Pool::of(Arc::clone(&core));
        if let Err(error) = core.start_all(workers) {
            pool.terminate();
            return Err(error);
        }
        Ok(pool)
    }
}
