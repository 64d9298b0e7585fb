//! What the workers of a pool find around them: environment, directory, limits, processors.
//!
//! Runs in: the parent. Workers differ in their names alone and, if they are pinned, in their processors.
//!
//! Why a pool notes the signal mask of the thread that builds it: the reactor's thread asks for workers, and it
//! blocks every signal.

use super::builder::PoolBuilder;
use crate::process::attribute_setters;

impl PoolBuilder {
    attribute_setters! {
        setter: (mut self) -> Self, this: self,
        it: "a worker", its: "the workers'", new: "Pool::builder()", run: "build()?.call(seen, ())?"
    }

    /// Gives each worker one processor, in turn: of those of [`cpus`](Self::cpus), or else of those that this process may
    /// use when the pool is built. With more workers than processors, some share one.
    ///
    /// For work that keeps every worker busy all the time. Otherwise the kernel knows better.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, available_parallelism, process_task};
    ///
    /// #[process_task]
    /// fn processors() -> usize { available_parallelism() }
    ///
    /// let pool = Pool::builder().pin().build()?;
    /// assert_eq!(pool.call(processors, ())?, 1);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn pin(mut self) -> Self {
        self.options.pin = true;
        self
    }
}
