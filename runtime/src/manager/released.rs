//! Buffers in memory in which a client gathers the objects that it lets go of: the rules, without the memory.
//!
//! Runs in: the manager, and each client.
//! Invariant: no system call here, so that a model checker can run it.
//!
//! The client puts the first object into a free buffer, and then one request into the queue, which names the buffer. Until the
//! manager handles that request, the client adds objects, which cost no request of their own. So a client that lets go of many
//! is not slower than its manager, and nothing waits for more to come.
//!
//! A client must not add to a buffer once it has put another request into the queue: what it lets go of may be held by that
//! request, and the buffer stands before it. [`ReleaseOrder`] sees to that.
//!
//! | word | meaning | changed by |
//! |---|---|---|
//! | [`FREE`] | of no request | the client: to 1 |
//! | a number | so many objects are in it | the client: to one more; the manager: to taken |
//! | [`TAKEN`] | the manager reads it | the manager: to free |
//!
//! Whichever side dies, at whatever step, costs nothing: without the manager there are no objects, and without the client none
//! of its references.

use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use super::atomic::{AtomicU32, AtomicU64};

/// Number of buffers of a client.
pub(super) const BUFFERS: usize = 8;

/// Number of objects in one.
pub(super) const BUFFER_OBJECTS: u32 = 512;

const FREE: u32 = 0;
const TAKEN: u32 = 1 << 31;

/// Whether the buffer is of no request.
///
/// Runs in: the client.
pub(super) fn is_free(word: &AtomicU32) -> bool {
    word.load(Acquire) == FREE
}

/// The first object is in a free buffer.
///
/// Runs in: the client.
pub(super) fn begin(word: &AtomicU32) {
    word.store(1, Release);
}

/// One more object is behind the `count` that were there. False: it is not, since the manager has taken the others.
///
/// Runs in: the client.
pub(super) fn add(word: &AtomicU32, count: u32) -> bool {
    word.compare_exchange(count, count + 1, Release, Relaxed).is_ok()
}

/// Takes what is in the buffer: so many objects. It is not free before [`give_back`].
///
/// Runs in: the manager, which believes no number.
pub(super) fn take(word: &AtomicU32) -> u32 {
    let count = word.swap(TAKEN, Acquire);
    if count == TAKEN { 0 } else { count.min(BUFFER_OBJECTS) }
}

/// What was in the buffer was read.
///
/// Runs in: the manager.
pub(super) fn give_back(word: &AtomicU32) {
    word.store(FREE, Release);
}

/// How many other requests a client has put into the queue.
#[derive(Debug)]
pub(super) struct ReleaseOrder(AtomicU64);

impl ReleaseOrder {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Another request is in the queue. No object that it may hold is added to a buffer whose request stands before it.
    pub(super) fn close(&self) {
        self.0.fetch_add(1, AcqRel);
    }

    /// Objects may be added to a buffer for as long as this returns what it did before the buffer's request was put.
    pub(super) fn number(&self) -> u64 {
        self.0.load(Acquire)
    }
}
