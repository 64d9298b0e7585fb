//! The time was over before what was waited for had happened.
//!
//! Runs in: any process. Invariant: it names nothing else of this crate, since the model checker compiles it too.

use std::fmt;

/// The time given to a call that waits is over: `x_timeout(duration)` gives what `x` gives, or this.
///
/// Nothing is lost, and nothing is ended: what was waited for may still happen, and calling again goes on waiting. What
/// the call took by value is inside: [`into_inner`](Self::into_inner) gives it back.
///
/// Three groups have time-outs of another shape. Channels have crossbeam's errors, such as
/// [`RecvTimeoutError`](crate::channel::RecvTimeoutError). The twins of std's types have std's: `TryLockError` of locks, and
/// `WaitTimeoutResult` of `Condvar`. Functions that answer with a list, or with yes or no, such as
/// [`wait`](crate::wait()), answer when the time is over.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use process_task::{Pool, process_task};
///
/// #[process_task]
/// fn nap(seconds: u64) { std::thread::sleep(Duration::from_secs(seconds)) }
///
/// let pool = Pool::builder().workers(1).build()?;
/// let elapsed = pool.submit(nap, 600).join_timeout(Duration::from_millis(5)).unwrap_err();
/// assert_eq!(elapsed.to_string(), "timed out with 1 call unfinished");
/// let handle = elapsed.into_inner();
/// assert!(!handle.is_finished());
/// pool.kill();
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Elapsed<T = ()> {
    given: T,
    unfinished: usize,
}

impl Elapsed {
    /// What was waited for is no call.
    pub(crate) fn new() -> Self {
        Self { given: (), unfinished: 0 }
    }
}

impl<T> Elapsed<T> {
    /// `unfinished` calls were waited for, and `given` was taken by value.
    pub(crate) fn with(given: T, unfinished: usize) -> Self {
        Self { given, unfinished }
    }

    /// What the call took by value.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.given
    }

    /// How many calls that were waited for have not been given out; 0 if it was not for calls.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }
}

impl<T> std::error::Error for Elapsed<T> {}

impl<T> fmt::Debug for Elapsed<T> {
    /// Without what was given, which need not be printable.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elapsed").field("unfinished", &self.unfinished).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Elapsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unfinished {
            0 => f.write_str("timed out"),
            1 => f.write_str("timed out with 1 call unfinished"),
            more => write!(f, "timed out with {more} calls unfinished"),
        }
    }
}
