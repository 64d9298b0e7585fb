//! Waiting for several calls, also of several pools: for all, for the first, or one by one as they are finished.
//!
//! Runs in: the parent, on the thread that waits. A call that is late is not cancelled.

use std::collections::HashSet;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::completion_queue::CompletionQueue;
use super::handle::JoinHandle;
use super::leader::ReplyInterest;
use super::scheduler::Scheduler;
use super::shared::Shared;
use super::waitable::{Waitable, park};
use crate::error::Elapsed;

/// What [`wait()`] waits for.
///
/// # Examples
/// ```
/// use process_task::{Pool, WaitFor, process_task, wait};
///
/// #[process_task]
/// fn nap(seconds: u64) { std::thread::sleep(std::time::Duration::from_secs(seconds)) }
///
/// let pool = Pool::builder().workers(2).build()?;
/// let waited = wait([600, 0].map(|seconds| pool.submit(nap, seconds)), WaitFor::First, None);
/// assert_eq!((waited.done.len(), waited.pending.len()), (1, 1));
/// pool.kill();
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias("return_when", "FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"))]
pub enum WaitFor {
    /// One call at least is settled.
    First,
    /// One call at least has failed, or all are settled.
    ///
    /// An `Err` that a task *returns* is a result like any other, and one that cannot be decoded is found when it is asked
    /// for.
    FirstError,
    /// All calls are settled.
    All,
}

/// What [`wait()`] gives back: every handle, in one of two lists, each in the order in which they were given.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use process_task::{Pool, WaitFor, process_task, wait};
///
/// #[process_task]
/// fn nap(seconds: u64) -> u64 { std::thread::sleep(Duration::from_secs(seconds)); seconds }
///
/// let pool = Pool::builder().workers(1).build()?;
/// let (short, long) = (pool.submit(nap, 0), pool.submit(nap, 600));
/// short.wait_timeout(Duration::MAX)?;
/// let waited = wait([long, short], WaitFor::All, Some(Duration::from_millis(5)));
/// assert_eq!(waited.pending.len(), 1);
/// for handle in waited.done {
///     assert_eq!(handle.join()?, 0);
/// }
/// pool.kill();
/// # process_task::Result::Ok(())
/// ```
#[derive(Debug)]
#[must_use = "dropping the handles detaches the calls"]
#[doc(alias("DoneAndNotDoneFutures", "not_done"))]
pub struct WaitOutcome<R> {
    /// Calls that are settled, those that failed among them.
    pub done: Vec<JoinHandle<R>>,
    /// Calls that are not.
    pub pending: Vec<JoinHandle<R>>,
}

/// Waits for several calls, of one pool or of several. Without a `timeout`, as long as it takes; with one, what is not
/// settled by then is pending, which is no error. No handles are nothing to wait for.
///
/// # Examples
/// ```
/// use process_task::{Pool, WaitFor, process_task};
///
/// #[process_task]
/// fn half(x: u32) -> u32 { assert!(x % 2 == 0, "{x} is odd"); x / 2 }
///
/// let pool = Pool::new()?;
/// let handles = [8, 7, 6].map(|x| pool.submit(half, x));
/// let waited = process_task::wait(handles, WaitFor::All, None);
/// assert!(waited.pending.is_empty());
/// let halves: Vec<_> = waited.done.into_iter().map(|handle| handle.join().ok()).collect();
/// assert_eq!(halves, [Some(4), None, Some(3)]);
/// # process_task::Result::Ok(())
/// ```
///
/// # If the other process dies
/// The call that it was running is settled: it has failed. The others go on.
pub fn wait<R>(
    handles: impl IntoIterator<Item = JoinHandle<R>>,
    wait_for: WaitFor,
    timeout: Option<Duration>,
) -> WaitOutcome<R> {
    // A time beyond the clock's end is for ever.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let handles: Vec<_> = handles.into_iter().collect();
    let mut pools = CompletionWaiter::new(pools_of(&handles));
    let set = CompletionQueue::new();
    match wait_for {
        WaitFor::First => {}
        WaitFor::FirstError => set.want(handles.len(), true),
        WaitFor::All => set.want(handles.len(), false),
    }
    handles.iter().enumerate().for_each(|(number, handle)| handle.call().subscribe(&set, number));
    if !handles.is_empty() {
        pools.wait(&set, deadline);
    }
    // A call may be settled at any time, so each is asked once.
    let (done, pending): (Vec<_>, _) = handles.into_iter().partition(|handle| handle.call().is_settled());
    for handle in &pending {
        handle.call().unsubscribe(&set);
    }
    WaitOutcome { done, pending }
}

/// The handles of several calls, of one pool or of several, as they are finished: those that are settled already first.
///
/// Each is given out once, and nothing of it is kept. Dropping the iterator detaches the calls that are left.
///
/// # Examples
/// ```
/// use process_task::{Pool, process_task};
///
/// #[process_task]
/// fn square(x: u32) -> u32 { x * x }
///
/// let pool = Pool::new()?;
/// let handles = (0..10).map(|x| pool.submit(square, x));
/// let mut sum = 0;
/// for handle in process_task::as_completed(handles) {
///     sum += handle.join()?;
/// }
/// assert_eq!(sum, 285);
/// # process_task::Result::Ok(())
/// ```
///
/// # If the other process dies
/// The call that it was running has failed, and its handle is given out. The others go on.
pub fn as_completed<R>(handles: impl IntoIterator<Item = JoinHandle<R>>) -> AsCompleted<R> {
    let handles: Vec<_> = handles.into_iter().map(Some).collect();
    let pools = CompletionWaiter::new(pools_of(handles.iter().flatten()));
    let set = CompletionQueue::new();
    for (number, handle) in handles.iter().flatten().enumerate() {
        handle.call().subscribe(&set, number);
    }
    AsCompleted { left: handles.len(), handles, pools, set }
}

/// The iterator that [`as_completed`] gives.
///
/// # Examples
/// ```
/// use process_task::{Pool, as_completed, process_task};
///
/// #[process_task]
/// fn square(x: u32) -> u32 { x * x }
///
/// let pool = Pool::new()?;
/// let mut completed = as_completed([pool.submit(square, 2), pool.submit(square, 2)]);
/// assert_eq!(completed.len(), 2);
/// assert_eq!(completed.next().unwrap().join()?, 4);
/// assert_eq!(completed.len(), 1);
/// # process_task::Result::Ok(())
/// ```
#[must_use = "an iterator does nothing until it is asked, and dropping it detaches the calls"]
pub struct AsCompleted<R> {
    /// Those that were not given out, each in its place.
    handles: Vec<Option<JoinHandle<R>>>,
    left: usize,
    pools: CompletionWaiter,
    set: Arc<CompletionQueue>,
}

impl<R> AsCompleted<R> {
    /// As [`next`](Iterator::next), but waits for `timeout` at the most.
    ///
    /// # Errors
    /// The time was over. The calls go on, and their handles come when they are asked for again.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use process_task::{Pool, as_completed, process_task};
    ///
    /// #[process_task]
    /// fn nap(seconds: u64) { std::thread::sleep(Duration::from_secs(seconds)) }
    ///
    /// let pool = Pool::builder().workers(2).build()?;
    /// let mut completed = as_completed([pool.submit(nap, 600), pool.submit(nap, 0)]);
    /// assert!(completed.next().is_some());
    /// let elapsed = completed.next_timeout(Duration::from_millis(5)).unwrap_err();
    /// assert_eq!(elapsed.unfinished(), 1);
    /// pool.kill();
    /// # process_task::Result::Ok(())
    /// ```
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<JoinHandle<R>>, Elapsed> {
        self.next_until(Instant::now().checked_add(timeout))
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Result<Option<JoinHandle<R>>, Elapsed> {
        if self.left == 0 {
            return Ok(None);
        }
        self.pools.wait(&self.set, deadline);
        let first = self.set.pop().ok_or_else(|| Elapsed::with((), self.left))?;
        self.left -= 1;
        Ok(self.handles[first].take())
    }
}

impl<R> Iterator for AsCompleted<R> {
    type Item = JoinHandle<R>;

    fn next(&mut self) -> Option<JoinHandle<R>> {
        self.next_until(None).ok().flatten()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<R> ExactSizeIterator for AsCompleted<R> {}
impl<R> FusedIterator for AsCompleted<R> {}

impl<R> Drop for AsCompleted<R> {
    /// Handles only detach; what their calls remember of the set would stay until they are settled.
    fn drop(&mut self) {
        self.handles.iter().flatten().for_each(|handle| handle.call().unsubscribe(&self.set));
    }
}

impl<R> fmt::Debug for AsCompleted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.left).finish_non_exhaustive()
    }
}

/// Each pool once. Takes the replies that are there, so that what is settled is known to be.
fn pools_of<'h, R: 'h>(handles: impl IntoIterator<Item = &'h JoinHandle<R>>) -> Vec<Arc<Shared>> {
    let mut seen = HashSet::new();
    let pools = handles.into_iter().map(JoinHandle::shared).filter(|shared| seen.insert(Arc::as_ptr(shared)));
    let pools: Vec<_> = pools.cloned().collect();
    for shared in &pools {
        shared.update(Scheduler::collect);
    }
    pools
}

/// The pools that the calls of a set belong to.
#[derive(Default)]
pub(super) struct CompletionWaiter {
    pools: Vec<Arc<Shared>>,
    interests: Vec<ReplyInterest>,
}

impl CompletionWaiter {
    pub(super) fn new(pools: Vec<Arc<Shared>>) -> Self {
        Self { pools, interests: Vec::new() }
    }

    /// Waits until there is what the owner of `set` wants; false if `deadline` came first.
    pub(super) fn wait(&mut self, set: &CompletionQueue, deadline: Option<Instant>) -> bool {
        if let [shared] = &*self.pools {
            return set.is_enough() || shared.wait(&|| set.is_enough(), set, deadline);
        }
        // No thread can lead several pools. So the reactor listens to all of them, from the first time that this is needed.
        if self.interests.is_empty() && !set.is_enough() {
            self.interests = self.pools.iter().map(ReplyInterest::new).collect();
        }
        let own = std::thread::current();
        loop {
            set.enlist(own.clone());
            let enough = set.is_enough();
            if !enough {
                park(deadline);
            }
            set.strike(own.id());
            if enough || deadline.is_some_and(|at| Instant::now() >= at) {
                return set.is_enough();
            }
        }
    }
}
