//! Short calls in memory that one client and the manager share: the rules, without the memory and without the sleeping.
//!
//! Runs in: the manager, and each client.
//! Invariant: no system call here, so that a model checker can run it.
//!
//! | state | meaning | changed by |
//! |---|---|---|
//! | free | of no call | the client, which has a list of its own of those that are free: to request |
//! | request | a call that no thread of the manager has begun | the manager: to taken; the client that waits no longer: to free |
//! | taken | a call that a thread of the manager runs, or has left to wait | the manager: to reply |
//! | reply | the answer is there | the client: to free |
//!
//! Each change is one exchange of the word, which also says whether the client's thread sleeps on it. So an answer is never
//! given without waking a thread that sleeps, and a thread never sleeps over an answer.
//!
//! | what dies | what it costs |
//! |---|---|
//! | the client, at any step | nothing: its memory goes when its death is handled |
//! | the client, between the request and its bit in `ready` | the call, which was not announced |
//! | the manager, at any step | the calls that were not answered; each waiting thread asks every 50 ms whether it lives |

use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use super::atomic::{AtomicU32, AtomicU64};

/// Number of short calls that a client has in flight at a time.
pub(super) const SLOTS: usize = 32;

/// Number of bytes of a short call's arguments, and of its result.
pub(super) const SLOT_BYTES: usize = 4096;

const FREE: u32 = 0;
const REQUEST: u32 = 1;
const TAKEN: u32 = 2;
const REPLY: u32 = 3;
const STATE: u32 = 3;

/// The client's thread sleeps on the word.
const SLEEPS: u32 = 4;

/// One call, but for its bytes.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct CallSlot {
    pub(super) state: AtomicU32,
    /// The method of a request, the status of a reply.
    pub(super) what: AtomicU32,
    /// The object of a request, or the one that a reply's constructor made.
    pub(super) object: AtomicU64,
    /// The client's number of the call, by which an answer comes that does not fit.
    pub(super) call: AtomicU64,
    /// How many bytes there are.
    pub(super) len: AtomicU32,
}

/// A call, or its answer, without its bytes. As it came: not checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) what: u32,
    pub(super) object: u64,
    pub(super) call: u64,
    pub(super) len: u32,
}

impl CallSlot {
    fn put(&self, head: Head) {
        self.what.store(head.what, Relaxed);
        self.object.store(head.object, Relaxed);
        self.call.store(head.call, Relaxed);
        self.len.store(head.len, Relaxed);
    }

    /// What stands in it. Only the side whose turn it is gets anything whole.
    pub(super) fn head(&self) -> Head {
        Head {
            what: self.what.load(Relaxed),
            object: self.object.load(Relaxed),
            call: self.call.load(Relaxed),
            len: self.len.load(Relaxed),
        }
    }

    /// Makes a free slot a request. Its bytes are there.
    ///
    /// Runs in: the client.
    pub(super) fn request(&self, head: Head) {
        self.put(head);
        self.state.store(REQUEST, Release);
    }

    /// Takes the call, unless the client has taken it back.
    ///
    /// Runs in: the manager.
    pub(super) fn take(&self) -> Option<Head> {
        let mut state = self.state.load(Relaxed);
        while state & STATE == REQUEST {
            match self.state.compare_exchange_weak(state, state & SLEEPS | TAKEN, Acquire, Relaxed) {
                Ok(_) => return Some(self.head()),
                Err(now) => state = now,
            }
        }
        None
    }

    /// Gives the answer, whose bytes are there. True: the client's thread sleeps, and must be woken.
    ///
    /// Runs in: the manager.
    #[must_use = "the client's thread may sleep"]
    pub(super) fn reply(&self, head: Head) -> bool {
        self.put(head);
        self.state.swap(REPLY, AcqRel) & SLEEPS != 0
    }

    /// Whether the answer is there.
    ///
    /// Runs in: the client.
    #[inline]
    pub(super) fn is_answered(&self) -> bool {
        self.state.load(Acquire) & STATE == REPLY
    }

    /// Whether no thread of the manager has begun the call.
    ///
    /// Runs in: the client.
    pub(super) fn is_untouched(&self) -> bool {
        self.state.load(Relaxed) & STATE == REQUEST
    }

    /// The client's thread is about to sleep for as long as the word is what this returns. `None`: the answer is there.
    ///
    /// Runs in: the client.
    pub(super) fn prepare_sleep(&self) -> Option<u32> {
        let before = self.state.fetch_or(SLEEPS, AcqRel);
        (before & STATE != REPLY).then_some(before | SLEEPS)
    }

    /// Takes the call back. False: a thread of the manager has begun it, or has answered.
    ///
    /// Runs in: the client.
    pub(super) fn take_back(&self) -> bool {
        let mut state = self.state.load(Relaxed);
        while state & STATE == REQUEST {
            match self.state.compare_exchange_weak(state, FREE, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// The answer was read.
    ///
    /// Runs in: the client.
    pub(super) fn free(&self) {
        self.state.store(FREE, Relaxed);
    }
}

/// Announces that there is a request in slot `at`.
///
/// Runs in: the client.
pub(super) fn announce(ready: &AtomicU32, at: usize) {
    ready.fetch_or(1 << at, Release);
}

/// The slots in which requests were put, which are no longer announced: a bit for each.
///
/// Runs in: the manager's leader.
pub(super) fn take_announced(ready: &AtomicU32) -> u32 {
    // The word is read far more often than it is written.
    if ready.load(Relaxed) == 0 { 0 } else { ready.swap(0, Acquire) }
}

/// Takes one call of a client: where it is. `announced`: a bit for each slot that was announced and not looked at yet. Those are
/// looked at first, so each is before any is looked at again.
///
/// Runs in: the manager's leader.
pub(super) fn take_next(slots: &[CallSlot], (ready, announced): (&AtomicU32, &AtomicU32)) -> Option<(usize, Head)> {
    let mut bits = announced.load(Relaxed);
    let mut is_last = false;
    loop {
        while bits != 0 {
            let at = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            if let Some(head) = slots.get(at).and_then(CallSlot::take) {
                announced.store(bits, Relaxed);
                return Some((at, head));
            }
        }
        // A client that announces without an end is not looked at for longer.
        if is_last {
            announced.store(0, Relaxed);
            return None;
        }
        is_last = true;
        bits = take_announced(ready);
    }
}
