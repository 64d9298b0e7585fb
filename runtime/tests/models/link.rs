//! The words of a link under every interleaving that the memory model allows, with the death of the child as a step.
//!
//! The two files that hold the rules are compiled here a second time, with a model checker's atomics. A sleep is modelled
//! as the kernel's futex is: the look at the word and the falling asleep are one step under a lock that the waker takes
//! too. If a thread sleeps for good, the checker reports a deadlock; if it explored only a few executions, the model is at
//! fault, so that is counted. Runs in: one process, without children.

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}
#[path = "../../src/link/doorbell.rs"]
mod doorbell;
#[path = "../../src/link/window.rs"]
mod window;

use crate::checker::{Bed, explore};
use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicU32, AtomicU64};
use loom::thread;

/// How many items a batch of the model has.
const ITEMS: usize = 2;

/// One link: its words, and the two places where a thread sleeps.
struct Link {
    window: AtomicU64,
    parked: AtomicU32,
    tail: AtomicU64,
    progress: AtomicU64,
    /// What stands where the answer to a batch will be: the results of its items.
    results: [AtomicU32; ITEMS],
    notify_reply: AtomicU32,
    notify_idle: AtomicU32,
    shutdown: AtomicU32,
    child_bed: Bed,
    parent_bed: Bed,
}

impl Link {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            window: AtomicU64::new(0),
            parked: AtomicU32::new(0),
            tail: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            results: std::array::from_fn(|_| AtomicU32::new(0)),
            notify_reply: AtomicU32::new(0),
            notify_idle: AtomicU32::new(0),
            shutdown: AtomicU32::new(0),
            child_bed: Bed::new(),
            parent_bed: Bed::new(),
        })
    }

    /// With a child that lives to take `steps`.
    fn with_child(steps: usize) -> (Arc<Self>, thread::JoinHandle<()>) {
        let link = Self::new();
        let theirs = Arc::clone(&link);
        (link, thread::spawn(move || theirs.serve(steps)))
    }

    fn push(&self) {
        window::push(&self.window, 1);
        self.rouse();
    }

    fn rouse(&self) {
        if doorbell::must_wake(&self.parked) {
            self.child_bed.wake();
        }
    }

    fn close(&self) {
        self.shutdown.store(1, SeqCst);
        self.rouse();
    }

    /// The child: claims and answers until it is told to end, or dies.
    fn serve(&self, mut steps: usize) {
        let mut lives = || {
            let alive = steps > 0;
            steps = steps.saturating_sub(1);
            alive
        };
        let mut tail = 0;
        while lives() {
            let closed = self.shutdown.load(Acquire) != 0;
            if window::claim(&self.window) {
                if !lives() {
                    return;
                }
                tail += 1;
                self.tail.store(tail, Release);
                if !lives() {
                    return;
                }
                if doorbell::must_notify(&self.notify_reply) {
                    self.parent_bed.ring();
                }
            } else if closed {
                return;
            } else {
                if doorbell::park(&self.parked, &self.window, &self.shutdown) {
                    if doorbell::must_notify_idle(&self.notify_idle) {
                        self.parent_bed.ring();
                    }
                    self.child_bed.wait_on(&self.parked, 1);
                }
                doorbell::unpark(&self.parked);
            }
        }
    }
}

impl Link {
    /// The child, with a batch: each result, then the word that counts it, then the answer's tail. It dies after `steps`.
    fn serve_a_batch(&self, mut steps: usize) {
        let mut lives = || {
            let alive = steps > 0;
            steps = steps.saturating_sub(1);
            alive
        };
        while !window::claim(&self.window) {
            thread::yield_now();
        }
        for (done, result) in (1..).zip(&self.results) {
            if !lives() {
                return;
            }
            result.store(1, Relaxed);
            if !lives() {
                return;
            }
            self.progress.store(done, Release);
        }
        if lives() {
            self.tail.store(1, Release);
        }
    }
}

const FOR_EVER: usize = usize::MAX;

#[test]
fn neither_side_sleeps_over_what_the_other_brought() {
    explore(1000, || {
        let (link, child) = Link::with_child(FOR_EVER);
        link.push();
        while link.tail.load(Acquire) == 0 {
            doorbell::set_flag(&link.notify_reply, 1);
            if link.tail.load(Acquire) == 0 {
                link.parent_bed.listen();
            }
            doorbell::set_flag(&link.notify_reply, 0);
        }
        link.close();
        child.join().unwrap();
    });
}

#[test]
fn a_hungry_parent_hears_of_a_child_that_ran_dry() {
    explore(500, || {
        let (link, child) = Link::with_child(FOR_EVER);
        link.push();
        doorbell::set_flag(&link.notify_idle, 1);
        // The look after the word: if the reply is not seen now, the bell rings for it; perhaps once before, when the child
        // went to sleep over an empty window.
        while link.tail.load(Acquire) == 0 {
            link.parent_bed.listen();
        }
        assert_eq!(link.tail.load(Acquire), 1);
        link.close();
        child.join().unwrap();
    });
}

#[test]
fn a_call_is_claimed_or_taken_back_and_never_both() {
    explore(100, || {
        let (link, child) = Link::with_child(FOR_EVER);
        link.push();
        link.push();
        let back = window::take_back(&link.window, 1);
        link.close();
        child.join().unwrap();
        assert_eq!(link.tail.load(Acquire) + u64::from(back), 2);
    });
}

#[test]
fn a_death_at_any_step_costs_one_call_at_most() {
    for steps in 1..7 {
        explore(2, move || {
            let (link, child) = Link::with_child(steps);
            link.push();
            link.push();
            link.close();
            // From here on, its end is known.
            child.join().unwrap();
            let (answered, seen) = (link.tail.load(Acquire), window::Window::look(&link.window));
            let running = u64::from(seen.claimed) - answered;
            assert!(running <= 1, "{running} calls are lost");
            let back = window::take_back(&link.window, u32::MAX);
            assert_eq!(answered + running + u64::from(back), 2);
        });
    }
}

#[test]
fn death_in_a_batch_costs_one_item_at_most() {
    for steps in 0..=2 * ITEMS + 1 {
        explore(5, move || {
            let link = Link::new();
            let theirs = Arc::clone(&link);
            let child = thread::spawn(move || theirs.serve_a_batch(steps));
            link.push();
            // A thread looks while it is still at work: what is counted is there, whatever comes later.
            let seen = usize::try_from(link.progress.load(Acquire)).unwrap();
            assert!(link.results[..seen].iter().all(|result| result.load(Relaxed) != 0));
            child.join().unwrap();
            let (published, done) = (link.tail.load(Acquire) == 1, link.progress.load(Acquire));
            let begun = link.results.iter().filter(|result| result.load(Relaxed) != 0).count() as u64;
            assert!(done <= begun && begun <= done + 1, "{done} of {begun} items are counted");
            assert!(!published || done == ITEMS as u64);
        });
    }
}
