//! What the models share: a place to sleep, and the exploring of every interleaving.
//!
//! Runs in: one process, inside the model checker.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use loom::sync::atomic::AtomicU32;
use loom::sync::atomic::Ordering::SeqCst;
use loom::sync::{Condvar, Mutex};

/// Where a thread sleeps: a lock, a bell that was rung or not, and the waking.
pub(crate) struct Bed {
    rung: Mutex<bool>,
    waking: Condvar,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self { rung: Mutex::new(false), waking: Condvar::new() }
    }

    /// `FUTEX_WAIT`: sleeps if the word still has that value.
    pub(crate) fn wait_on(&self, word: &AtomicU32, expected: u32) {
        self.wait_on_unless(word, expected, || false);
    }

    /// The same, of a sleep that ends by itself, sooner or later, once that is true. Then a wake-up follows.
    pub(crate) fn wait_on_unless(&self, word: &AtomicU32, expected: u32, ends: impl FnOnce() -> bool) {
        let bell = self.rung.lock().unwrap();
        if word.load(SeqCst) == expected && !ends() {
            drop(self.waking.wait(bell).unwrap());
        }
    }

    /// `FUTEX_WAKE`.
    pub(crate) fn wake(&self) {
        let _bell = self.rung.lock().unwrap();
        self.waking.notify_one();
    }

    /// A write to an eventfd: it is kept until a thread listens.
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.waking.notify_one();
    }

    /// `epoll_wait` on that eventfd, which is read when it wakes a thread.
    pub(crate) fn listen(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.waking.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// More steps than an execution takes that comes to an end.
const MOST_STEPS: usize = 5000;

/// How many executions a model must have by default, whose interleavings have fewer preemptions then.
const FEW: usize = 5;

/// Runs `model` under every interleaving with few preemptions, and insists that there were many.
pub(crate) fn explore(at_least: usize, model: impl Fn() + Send + Sync + 'static) {
    explore_with(3, at_least, model);
}

/// As [`explore`], with so many preemptions; without `PROCESS_TASK_ROUNDS` with one fewer, but one at least.
pub(crate) fn explore_with(preemptions: usize, at_least: usize, model: impl Fn() + Send + Sync + 'static) {
    let at_least = if times_rounds(1) > 1 { at_least } else { at_least.min(FEW) };
    explore_some(for_every_day(preemptions), (at_least, None), model);
}

/// As [`explore_with`], with that many every day: for a model in which a mistake is only found so.
pub(crate) fn explore_fully(preemptions: usize, at_least: usize, model: impl Fn() + Send + Sync + 'static) {
    explore_some(preemptions, (at_least, None), model);
}

/// Far fewer executions have one preemption fewer, and every mistake that tests make on purpose is found in them.
fn for_every_day(preemptions: usize) -> usize {
    if times_rounds(1) > 1 { preemptions } else { preemptions.saturating_sub(1).max(1) }
}

/// As [`explore_with`], of a model with too many interleavings for every day: `many`, times `PROCESS_TASK_ROUNDS`.
pub(crate) fn explore_up_to(preemptions: usize, many: usize, model: impl Fn() + Send + Sync + 'static) {
    // The checker stops before the last one.
    explore_some(preemptions, (many.saturating_sub(1), Some(times_rounds(many))), model);
}

fn times_rounds(count: usize) -> usize {
    let times = std::env::var("PROCESS_TASK_ROUNDS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    count.saturating_mul(times)
}

/// Returns how many executions were explored.
fn explore_some(
    preemptions: usize,
    (at_least, at_most): (usize, Option<usize>),
    model: impl Fn() + Send + Sync + 'static,
) -> usize {
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = MOST_STEPS;
    builder.max_permutations = at_most;
    builder.checkpoint_interval = at_most.unwrap_or(usize::MAX).clamp(1, builder.checkpoint_interval);
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        model();
    });
    let explored = runs.load(Relaxed);
    println!("{explored} executions");
    assert!(explored >= at_least, "only {explored} executions were explored");
    explored
}

/// Explores a model, as [`explore_with`] does, with a process that dies after no step, after one, and so on, until it
/// never does: until it has come to its end under every interleaving. The model says whether it died.
pub(crate) fn at_each_step(preemptions: usize, model: impl Fn(u32) -> bool + Clone + Send + Sync + 'static) {
    at_each_step_up_to(preemptions, usize::MAX, model);
}

/// As [`at_each_step`], with so many executions for each step at most, as [`explore_up_to`].
pub(crate) fn at_each_step_up_to(
    preemptions: usize,
    at_most: usize,
    model: impl Fn(u32) -> bool + Clone + Send + Sync + 'static,
) {
    let mut explored = 0;
    for steps in 0.. {
        let deaths = std::sync::Arc::new(AtomicUsize::new(0));
        let (counted, model) = (std::sync::Arc::clone(&deaths), model.clone());
        explored += explore_some(for_every_day(preemptions), (1, Some(times_rounds(at_most))), move || {
            counted.fetch_add(usize::from(model(steps)), Relaxed);
        });
        if deaths.load(Relaxed) == 0 {
            assert!(steps > 2, "no process died after {steps} steps");
            println!("{explored} executions of {steps} steps");
            return;
        }
    }
}

// No model needs all of these.
const _: fn() = || {
    let bed = Bed::new();
    bed.wait_on(&AtomicU32::new(0), 1);
    bed.wake();
    bed.ring();
    bed.listen();
    explore(0, || ());
    explore_with(0, 0, || ());
    explore_fully(0, 0, || ());
    at_each_step(0, |_| false);
    explore_up_to(0, 0, || ());
    at_each_step_up_to(0, 0, |_| false);
};
