//! The pool that a program has without making one.
//!
//! Runs in: the parent. It lives as long as its process. A copy made by `fork()` makes its own.

use std::sync::Mutex;

use super::pool::Pool;
use crate::error::Result;
use crate::sys::atfork;
use crate::sys::mutex::MutexExt as _;

/// The generation of the process that made it, and the pool.
static GLOBAL: Mutex<Option<(u64, &'static Pool)>> = Mutex::new(None);

impl Pool {
    /// The pool that the whole program shares: made when it is first asked for, with one worker for each processor that
    /// this process may use, and there until the process ends. [`close`](Self::close), [`shutdown`](Self::shutdown) and
    /// [`kill`](Self::kill) are refused. In a worker it is a pool of that worker's own.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Pool, process_task};
    ///
    /// #[process_task]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// assert_eq!(Pool::global()?.map(square, 0..4)?, [0, 1, 4, 9]);
    /// assert!(Pool::global()?.close().is_err());
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// A worker could not be started. The next call tries again.
    pub fn global() -> Result<&'static Self> {
        let mut global = GLOBAL.lock_unpoisoned();
        if let Some((generation, pool)) = *global
            && generation == atfork::generation()
        {
            return Ok(pool);
        }
        let pool: &'static Self = Box::leak(Box::new(Self::new()?.for_all()));
        *global = Some((atfork::generation(), pool));
        Ok(pool)
    }
}
