//! Which calls of a set are settled, in the order in which that became known.
//!
//! Runs in: the parent; any thread that settles a call writes, the set's owner reads. Each call is named once, by the thread
//! that settles it, so a call costs the same in a set of any size.
//!
//! Why numbers are written under the pool's mutex: the leader looks there before any thread is woken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{Thread, ThreadId};

use super::waitable::Waitable;
use crate::sys::mutex::MutexExt as _;

/// The settled calls of a set that its owner has not taken yet.
#[derive(Debug, Default)]
pub(super) struct CompletionQueue(Mutex<Completions>);

#[derive(Debug, Default)]
struct Completions {
    settled: VecDeque<usize>,
    /// How many the owner wants before it is woken, at least 1.
    wanted: usize,
    /// One that failed is enough, too.
    or_failed: bool,
    failed: bool,
    thread: Option<Thread>,
}

impl CompletionQueue {
    /// A set for an owner that wants to know of each call.
    pub(super) fn new() -> Arc<Self> {
        let new = Self::default();
        new.want(1, false);
        Arc::new(new)
    }

    /// The owner is to be woken when `count` calls that it has not taken are settled, or when one has failed.
    pub(super) fn want(&self, count: usize, or_failed: bool) {
        let mut inner = self.inner();
        (inner.wanted, inner.or_failed) = (count.max(1), or_failed);
    }

    /// The call with this number is settled. Returns the thread that is to be woken.
    pub(super) fn push(&self, number: usize, failed: bool) -> Option<Thread> {
        let mut inner = self.inner();
        inner.settled.push_back(number);
        inner.failed |= failed;
        if inner.is_enough() { inner.thread.take() } else { None }
    }

    /// The number of the call that was settled first, if one was.
    pub(super) fn pop(&self) -> Option<usize> {
        self.inner().settled.pop_front()
    }

    /// Whether there is what the owner waits for.
    pub(super) fn is_enough(&self) -> bool {
        self.inner().is_enough()
    }

    fn inner(&self) -> MutexGuard<'_, Completions> {
        self.0.lock_unpoisoned()
    }
}

impl Completions {
    fn is_enough(&self) -> bool {
        self.settled.len() >= self.wanted || (self.or_failed && self.failed)
    }
}

impl Waitable for CompletionQueue {
    fn enlist(&self, thread: Thread) {
        self.inner().thread = Some(thread);
    }

    fn strike(&self, _: ThreadId) {
        self.inner().thread = None;
    }
}
