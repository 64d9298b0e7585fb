//! Calls that no worker has: the backlog, and how many calls the pool has in all.
//!
//! Runs in: the parent, under the scheduler's mutex.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::call::{Call, QueuedCall};
use super::load_index::LoadIndex;
use super::pending_limit::PendingLimit;
use crate::link::window::MAX_IN_FLIGHT;

/// After this many calls that were submitted while all workers were busy, the submitting thread polls for replies.
const POLL_EVERY_CALLS: u32 = MAX_IN_FLIGHT;

/// Calls that wait for a worker, in their order.
#[derive(Debug)]
pub(super) struct Dispatcher {
    backlog: VecDeque<QueuedCall>,
    /// Calls without an outcome; also read without the mutex.
    outstanding: Arc<AtomicUsize>,
    limit: Arc<PendingLimit>,
    /// A call was queued, or is to be tried again, since calls were last given out.
    due: bool,
    /// Since when calls cannot be given out because too many descriptors are under way.
    refused_since: Option<Instant>,
    /// Workers that were given calls which they do not see yet; empty but while calls are given out.
    unpublished: Vec<usize>,
    /// Calls that were submitted while all were busy, since replies were last polled for.
    unpolled: u32,
}

impl Dispatcher {
    pub(super) fn new() -> Self {
        Self {
            backlog: VecDeque::new(),
            outstanding: Arc::default(),
            limit: Arc::new(PendingLimit::unbounded()),
            due: false,
            refused_since: None,
            unpublished: Vec::new(),
            unpolled: 0,
        }
    }

    pub(super) fn outstanding(&self) -> &Arc<AtomicUsize> {
        &self.outstanding
    }

    pub(super) fn limit(&self) -> &Arc<PendingLimit> {
        &self.limit
    }

    /// Counts a call. Returns how many others there are.
    #[inline]
    pub(super) fn admit(&mut self) -> usize {
        self.outstanding.fetch_add(1, SeqCst)
    }

    /// Counts a call that was part of another one, which had a permit.
    pub(super) fn admit_part(&mut self) {
        self.outstanding.fetch_add(1, SeqCst);
        self.limit.force_acquire();
    }

    /// A call has an outcome. Returns a thread that waits for its permit.
    #[must_use = "it would sleep on"]
    #[inline]
    pub(super) fn release(&mut self) -> Option<Thread> {
        let next = self.limit.release();
        self.outstanding.fetch_sub(1, SeqCst);
        next
    }

    #[inline]
    pub(super) fn push(&mut self, queued: QueuedCall) {
        self.due = true;
        self.backlog.push_back(queued);
    }

    /// Puts calls back to the front, the first of them first.
    pub(super) fn requeue(&mut self, calls: impl DoubleEndedIterator<Item = QueuedCall>) {
        for queued in calls.rev() {
            queued.call.set_worker(None);
            self.due = true;
            self.backlog.push_front(queued);
        }
    }

    /// Puts a call back that could not be given out. It is tried again when something has changed, or after
    /// [`try_again`](Self::try_again).
    pub(super) fn put_back(&mut self, queued: QueuedCall) {
        queued.call.set_worker(None);
        self.backlog.push_front(queued);
    }

    pub(super) fn try_again(&mut self) {
        self.due = true;
    }

    #[inline]
    pub(super) fn take_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }

    /// The next call, and the worker that gets it: the idle one that was used last, else the least loaded. Calls that were
    /// cancelled where they stood are dropped.
    #[inline]
    pub(super) fn next(&mut self, index: &LoadIndex) -> Option<(usize, QueuedCall)> {
        loop {
            let first = self.backlog.front()?;
            if first.call.is_settled() {
                self.backlog.pop_front();
                continue;
            }
            // Descriptors travel first, which is simplest when nothing else does.
            let number = if first.payload.is_plain() { index.least() } else { index.idle() }?;
            return self.backlog.pop_front().map(|queued| (number, queued));
        }
    }

    /// The next call, whatever the workers do.
    pub(super) fn pop(&mut self) -> Option<QueuedCall> {
        self.backlog.pop_front()
    }

    /// Removes the calls that are not wanted any more.
    pub(super) fn take_abandoned(&mut self) -> Vec<Arc<Call>> {
        let (abandoned, wanted) =
            self.backlog.drain(..).partition::<Vec<_>, _>(|queued| queued.call.abandoned.load(Relaxed));
        self.backlog.extend(wanted);
        // Calls that stood behind one of them may be first now.
        self.due |= !abandoned.is_empty();
        abandoned.into_iter().map(|queued| queued.call).collect()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.backlog.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &QueuedCall> {
        self.backlog.iter()
    }

    /// Too many descriptors are under way. Whether it is worth trying again, which it is for `patience`.
    pub(super) fn refused(&mut self, now: Instant, patience: Duration) -> bool {
        now.duration_since(*self.refused_since.get_or_insert(now)) < patience
    }

    /// Descriptors were taken.
    pub(super) fn accepted(&mut self) {
        self.refused_since = None;
    }

    /// A worker was given calls that it does not see yet.
    #[inline]
    pub(super) fn add_unpublished(&mut self, number: usize) {
        self.unpublished.push(number);
    }

    #[inline]
    pub(super) fn next_unpublished(&mut self) -> Option<usize> {
        self.unpublished.pop()
    }

    /// A call was submitted while all were busy. Whether replies are to be polled for now.
    pub(super) fn polls_now(&mut self) -> bool {
        self.unpolled += 1;
        let polls = self.unpolled >= POLL_EVERY_CALLS;
        if polls {
            self.unpolled = 0;
        }
        polls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind, Execution};
    use crate::link::Payload;
    use crate::pool::load_index::Load;
    use crate::task::Options;

    fn queued(name: &'static str) -> QueuedCall {
        QueuedCall { call: Arc::new(Call::new(name, 0, Options::new())), payload: Payload::small(Vec::new()) }
    }

    fn index(loads: &[usize]) -> LoadIndex {
        let mut index = LoadIndex::default();
        index.grow(loads.len());
        loads.iter().enumerate().for_each(|(number, load)| index.put(number, Some(Load { load: *load, open: true })));
        index
    }

    fn names(dispatcher: &Dispatcher) -> Vec<&'static str> {
        dispatcher.iter().map(|queued| queued.call.task).collect()
    }

    #[test]
    fn least_loaded_worker_gets_the_first_call() {
        let mut dispatcher = Dispatcher::new();
        dispatcher.push(queued("a"));
        dispatcher.push(queued("b"));
        let (number, first) = dispatcher.next(&index(&[2, 1, 3])).unwrap();
        assert_eq!((number, first.call.task), (1, "a"));
        assert!(dispatcher.next(&index(&[])).is_none());
        assert_eq!(names(&dispatcher), ["b"]);
    }

    #[test]
    fn requeued_calls_come_first_in_their_order() {
        let mut dispatcher = Dispatcher::new();
        dispatcher.push(queued("c"));
        assert!(dispatcher.take_due() && !dispatcher.take_due());
        dispatcher.requeue(["a", "b"].map(queued).into_iter());
        assert!(dispatcher.take_due());
        assert_eq!(names(&dispatcher), ["a", "b", "c"]);
    }

    #[test]
    fn call_put_back_is_not_tried_at_once() {
        let mut dispatcher = Dispatcher::new();
        dispatcher.put_back(queued("a"));
        assert!(!dispatcher.take_due());
        dispatcher.try_again();
        assert!(dispatcher.take_due());
    }

    #[test]
    fn cancelled_call_is_passed_over() {
        let mut dispatcher = Dispatcher::new();
        let cancelled = queued("a");
        drop(cancelled.call.settle(Err(Error::new(ErrorKind::Cancelled, Execution::NotStarted))));
        dispatcher.push(cancelled);
        dispatcher.push(queued("b"));
        assert_eq!(dispatcher.next(&index(&[0])).unwrap().1.call.task, "b");
        assert!(dispatcher.is_empty());
    }

    #[test]
    fn abandoned_calls_are_taken_out() {
        let mut dispatcher = Dispatcher::new();
        ["a", "b", "c"].map(queued).into_iter().for_each(|queued| dispatcher.push(queued));
        dispatcher.iter().nth(1).unwrap().call.abandon();
        let abandoned: Vec<_> = dispatcher.take_abandoned().iter().map(|call| call.task).collect();
        assert_eq!((abandoned, names(&dispatcher)), (vec!["b"], vec!["a", "c"]));
    }
}
