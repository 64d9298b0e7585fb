//! How a pool shrinks, grows, and ends.
//!
//! Runs in: the parent. A pool does not end with calls unsettled.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::inline;
use super::pending_limit;
use super::pool::Pool;
use super::scheduler::Scheduler;
use super::shared::Shared;
use super::size::check_size;
use super::waitable::AllCalls;
use crate::error::{Elapsed, Error, Result};

/// What [`Pool::shutdown`] does with calls that have not begun.
///
/// # Examples
/// See [`Pool::shutdown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "cancel_futures")]
pub enum ShutdownMode {
    /// They are made.
    Finish,
    /// They fail with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    Cancel,
}

impl Pool {
    /// Takes no more calls; those submitted are finished. Returns at once. A second time it does nothing.
    ///
    /// # Examples
    /// ```
    /// # use process_task::{Pool, process_task};
    /// # #[process_task] fn square(x: i64) -> i64 { x * x }
    /// let pool = Pool::new()?;
    /// let last = pool.submit(square, 3);
    /// pool.close();
    /// assert!(pool.call(square, 4).is_err());
    /// assert_eq!(last.join()?, 9);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn close(&self) {
        self.shared().update(|scheduler| scheduler.close(Error::closed("`close` was called")));
    }

    /// Waits until the calls of a closed pool are made and its workers have ended.
    ///
    /// # Examples
    /// ```
    /// # use process_task::{Pool, process_task};
    /// # #[process_task] fn square(x: i64) -> i64 { x * x }
    /// let pool = Pool::new()?;
    /// let last = pool.submit(square, 3);
    /// pool.close();
    /// pool.wait_ended()?;
    /// assert!(last.is_finished());
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// The pool still takes calls, so that there is no end to wait for. Or a [finalizer](crate::PoolBuilder::finalizer) has failed since the pool was closed: then the error is that of the
    /// first one, and the pool has ended all the same.
    ///
    /// # If the other process dies
    /// See [`Pool`]: every call is settled, whatever its worker does.
    #[doc(alias = "join")]
    pub fn wait_ended(&self) -> Result<()> {
        self.ended_until(None).map(Option::unwrap_or_default)
    }

    /// As [`wait_ended`](Self::wait_ended), for `timeout` at the most.
    ///
    /// # Errors
    /// [`Elapsed`]: the pool has not ended in time. Inside, as [`wait_ended`](Self::wait_ended).
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use process_task::Pool;
    /// let pool = Pool::builder().workers(1).build()?;
    /// pool.close();
    /// pool.wait_ended_timeout(Duration::from_secs(60))??;
    /// # process_task::Result::Ok(())
    /// ```
    pub fn wait_ended_timeout(&self, timeout: Duration) -> std::result::Result<Result<()>, Elapsed> {
        // A time beyond the clock's end is for ever.
        self.ended_until(Instant::now().checked_add(timeout)).transpose().ok_or_else(Elapsed::new)
    }

    /// Takes no more calls, finishes or cancels those that have not begun, and waits for those that run and for the
    /// workers' end, which has a [bound](crate::PoolBuilder::exit_timeout).
    ///
    /// # Examples
    /// ```
    /// # use process_task::{Pool, ShutdownMode, process_task};
    /// # #[process_task] fn square(x: i64) -> i64 { x * x }
    /// let pool = Pool::new()?;
    /// let calls: Vec<_> = (0..10).map(|x| pool.submit(square, x)).collect();
    /// pool.shutdown(ShutdownMode::Finish)?;
    /// assert!(calls.into_iter().all(|call| call.join().is_ok()));
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// A finalizer failed, as [`wait_ended`](Self::wait_ended) has it.
    pub fn shutdown(&self, mode: ShutdownMode) -> Result<()> {
        self.close();
        if mode == ShutdownMode::Cancel && !self.shared().is_foreign() {
            self.shared().update(Scheduler::cancel_all);
        }
        self.wait_ended()
    }

    /// Ends everything now: calls that have not begun fail with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled),
    /// workers are killed, and the calls that they were running fail with [`ErrorKind::Killed`](crate::ErrorKind::Killed).
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use process_task::{ErrorKind, Pool, process_task};
    /// # #[process_task] fn for_ever() { loop { std::thread::sleep(Duration::from_secs(1)) } }
    /// let pool = Pool::builder().workers(1).build()?;
    /// let running = pool.submit(for_ever, ());
    /// pool.kill();
    /// let error = running.join().unwrap_err();
    /// assert!(matches!(error.kind(), ErrorKind::Killed { .. } | ErrorKind::Cancelled));
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("terminate", "terminate_workers", "kill_workers"))]
    pub fn kill(&self) {
        if !self.shared().is_foreign() {
            self.shared().terminate();
        }
    }

    /// Has the pool have this many workers, at least 1, and at most as [`PoolBuilder::workers`](crate::PoolBuilder::workers) says. New ones are started; those that are too many finish the call
    /// that they are at, and end. Returns at once.
    ///
    /// # Examples
    /// ```
    /// # use process_task::{Pool, process_task};
    /// # #[process_task] fn square(x: i64) -> i64 { x * x }
    /// let pool = Pool::builder().workers(1).build()?;
    /// pool.resize(3)?;
    /// assert_eq!(pool.workers(), 3);
    /// assert_eq!(pool.call(square, 3)?, 9);
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// `workers` is 0 or too many, or the pool is closed.
    pub fn resize(&self, workers: usize) -> Result<()> {
        if self.shared().is_foreign() {
            return Err(pending_limit::foreign());
        }
        check_size(workers, self.shared().config.eager, "`close` ends all workers, `idle_timeout` those without work")?;
        self.shared().update(|scheduler| {
            if let Some(error) = scheduler.workers.refusal() {
                return Err(error.clone());
            }
            scheduler.resize(workers);
            Ok(())
        })
    }

    /// `None`: the deadline is over.
    fn ended_until(&self, deadline: Option<Instant>) -> Result<Option<()>> {
        if self.shared().is_foreign() {
            return Ok(Some(()));
        }
        if self.shared().inspect(|scheduler| scheduler.workers.is_open()) {
            return Err(Error::invalid(
                "the pool still takes calls, so `wait_ended` would wait for ever: call `close` first",
            ));
        }
        let ended = finish(self.shared(), deadline);
        match self.shared().inspect(|scheduler| scheduler.workers.finalizer_failure()).filter(|_| ended) {
            Some(failure) => Err(failure),
            None => Ok(ended.then_some(())),
        }
    }
}

/// Waits until every call is settled, sends the workers home, and waits for their end and that of the callbacks; false if
/// `deadline` came first.
fn finish(shared: &Arc<Shared>, deadline: Option<Instant>) -> bool {
    let outstanding = &shared.outstanding;
    while !shared.wait(&|| outstanding.load(SeqCst) == 0, &AllCalls, deadline) {
        if deadline.is_some_and(|at| Instant::now() >= at) {
            return false;
        }
    }
    if inline::is_on()
        && shared.inspect(|scheduler| scheduler.workers.is_closing())
        && let Err(error) = inline::end(&shared.config)
    {
        shared.update(|scheduler| scheduler.workers.finalizer_failed(0, error));
    }
    loop {
        // A worker that comes meanwhile is sent home the next time.
        shared.update(|scheduler| scheduler.workers.stop_all());
        match shared.wait_for_change(|scheduler| scheduler.workers.has_no_process(), deadline) {
            Some(true) => break,
            Some(false) => {}
            None => return false,
        }
    }
    if !shared.callbacks.finish(deadline) {
        return false;
    }
    if let Some(token) = shared.token.get() {
        shared.supervisor.reactor().remove_handler(*token);
    }
    true
}

impl Drop for Pool {
    /// Closes the pool, and waits: for every call, then for the workers' end.
    fn drop(&mut self) {
        if self.shared().is_foreign() {
            return;
        }
        self.shared().update(|scheduler| scheduler.close(Error::closed("it was dropped")));
        finish(self.shared(), None);
        debug_assert_eq!(self.shared().outstanding.load(SeqCst), 0);
    }
}
