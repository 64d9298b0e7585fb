//! The ring under every interleaving that the memory model allows: frames that are written, claimed, answered, taken back.
//!
//! The window's rules are compiled here a second time, with a model checker's atomics, and a frame is a cell that reports
//! a thread that touches it while another may be writing. Each rule is also left out once, to see that the checker finds
//! out: a model that cannot fail shows nothing. Runs in: one process, without children.
#![expect(unsafe_code, reason = "looking into the checker's cells")]

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}
#[path = "../../src/link/doorbell.rs"]
mod doorbell;
#[path = "../../src/link/window.rs"]
mod window;

use std::process::Command;

use crate::checker::{Bed, explore_with};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
use loom::thread;

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The child reads a frame and then claims it.
    ReadsBeforeItClaims,
    /// The child stores the tail before the reply is there.
    TailBeforeReply,
    /// The tail is stored without saying that what came before is to be seen first.
    RelaxedTail,
    /// The parent uses a frame's place again without having taken the frame back.
    ReusesWhatItPushed,
    /// The parent sleeps without a look after it said so.
    NoLookAfterSaying,
    /// The parent's word may be seen later than its look.
    NoFenceAfterSaying,
    /// The child sleeps without a look after it said so.
    NoLookAfterDozing,
}

/// How many frames the ring has room for.
const PLACES: usize = 2;

struct Link {
    window: AtomicU64,
    parked: AtomicU32,
    tail: AtomicU64,
    notify_reply: AtomicU32,
    notify_idle: AtomicU32,
    shutdown: AtomicU32,
    child_bed: Bed,
    parent_bed: Bed,
    request: [UnsafeCell<u64>; PLACES],
    reply: [UnsafeCell<u64>; PLACES],
    fault: Fault,
}

fn place(number: u64) -> usize {
    usize::try_from(number).unwrap_or(0) % PLACES
}

/// What a child answers to a request.
fn answer(request: u64) -> u64 {
    request * 10 + 1
}

impl Link {
    fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            window: AtomicU64::new(0),
            parked: AtomicU32::new(0),
            tail: AtomicU64::new(0),
            notify_reply: AtomicU32::new(0),
            notify_idle: AtomicU32::new(0),
            shutdown: AtomicU32::new(0),
            child_bed: Bed::new(),
            parent_bed: Bed::new(),
            request: std::array::from_fn(|_| UnsafeCell::new(0)),
            reply: std::array::from_fn(|_| UnsafeCell::new(0)),
            fault,
        })
    }

    fn with_child(fault: Fault) -> (Arc<Self>, thread::JoinHandle<()>) {
        let link = Self::new(fault);
        let theirs = Arc::clone(&link);
        (link, thread::spawn(move || theirs.serve()))
    }

    /// Runs in: the parent.
    fn push(&self, number: u64, request: u64) {
        write(&self.request[place(number)], request);
        window::push(&self.window, 1);
        if doorbell::must_wake(&self.parked) {
            self.child_bed.wake();
        }
    }

    fn close(&self) {
        self.shutdown.store(1, SeqCst);
        if doorbell::must_wake(&self.parked) {
            self.child_bed.wake();
        }
    }

    /// Waits until there is the reply of this number, as the leader of a pool does.
    fn collect(&self, number: u64) -> u64 {
        while self.tail.load(Acquire) <= number {
            match self.fault {
                Fault::NoFenceAfterSaying => self.notify_reply.store(1, Release),
                _ => doorbell::set_flag(&self.notify_reply, 1),
            }
            if self.fault == Fault::NoLookAfterSaying || self.tail.load(Acquire) <= number {
                self.parent_bed.listen();
            }
            doorbell::set_flag(&self.notify_reply, 0);
        }
        read(&self.reply[place(number)])
    }

    /// Runs in: the child.
    fn serve(&self) {
        let mut number = 0;
        loop {
            let closed = self.shutdown.load(Acquire) != 0;
            let early = if self.fault == Fault::ReadsBeforeItClaims { read(&self.request[place(number)]) } else { 0 };
            if window::claim(&self.window) {
                let early = (self.fault == Fault::ReadsBeforeItClaims).then_some(early);
                let request = early.unwrap_or_else(|| read(&self.request[place(number)]));
                self.publish(number, answer(request));
                number += 1;
            } else if closed {
                return;
            } else {
                let sleeps = if self.fault == Fault::NoLookAfterDozing {
                    self.parked.store(1, SeqCst);
                    true
                } else {
                    doorbell::park(&self.parked, &self.window, &self.shutdown)
                };
                if sleeps {
                    if doorbell::must_notify_idle(&self.notify_idle) {
                        self.parent_bed.ring();
                    }
                    self.child_bed.wait_on(&self.parked, 1);
                }
                doorbell::unpark(&self.parked);
            }
        }
    }

    fn publish(&self, number: u64, reply: u64) {
        let cell = &self.reply[place(number)];
        match self.fault {
            Fault::TailBeforeReply => {
                self.tail.store(number + 1, Release);
                write(cell, reply);
            }
            Fault::RelaxedTail => {
                write(cell, reply);
                self.tail.store(number + 1, Relaxed);
            }
            _ => {
                write(cell, reply);
                self.tail.store(number + 1, Release);
            }
        }
        if doorbell::must_notify(&self.notify_reply) {
            self.parent_bed.ring();
        }
    }
}

fn read(cell: &UnsafeCell<u64>) -> u64 {
    cell.with(|value| {
        // SAFETY: the checker reports a thread that writes meanwhile, before anything is read.
        unsafe { *value }
    })
}

fn write(cell: &UnsafeCell<u64>, value: u64) {
    cell.with_mut(|place| {
        // SAFETY: as above.
        unsafe { *place = value };
    });
}

/// Three calls through two places: the third one's frame and reply lie where the first one's were.
fn through_the_ring(fault: Fault) {
    let (link, child) = Link::with_child(fault);
    link.push(0, 5);
    link.push(1, 6);
    assert_eq!(link.collect(0), answer(5));
    link.push(2, 7);
    assert_eq!(link.collect(1), answer(6));
    assert_eq!(link.collect(2), answer(7));
    link.close();
    child.join().unwrap();
}

/// A call is taken back if it is not claimed, and another one is written over it.
fn taking_back(fault: Fault) {
    let (link, child) = Link::with_child(fault);
    link.push(0, 5);
    link.push(1, 6);
    let back = if fault == Fault::ReusesWhatItPushed { 1 } else { window::take_back(&link.window, 1) };
    fence(SeqCst);
    // What stands in the second place from now on.
    let second = if back == 1 { 9 } else { 6 };
    if back == 1 {
        link.push(1, second);
    }
    assert_eq!(link.collect(0), answer(5));
    assert_eq!(link.collect(1), answer(second));
    link.close();
    child.join().unwrap();
}

#[test]
fn a_frame_is_read_as_it_was_written_and_its_reply_too() {
    explore_with(2, 1000, || through_the_ring(Fault::None));
}

#[test]
fn slot_of_a_withdrawn_call_is_rewritten_without_a_reader() {
    explore_with(2, 1000, || taking_back(Fault::None));
}

/// The variable that has a test run its model itself, which ends the process when it fails.
const FAULTY: &str = "PROCESS_TASK_FAULTY_MODEL";

/// Has another process run the model without one of the rules, and looks at what the checker says of it there.
fn the_checker_finds(test: &str, fault: Fault, model: fn(Fault), says: &str) {
    if std::env::var_os(FAULTY).is_some() {
        return explore_with(2, 1, move || model(fault));
    }
    let program = std::env::current_exe().expect("this program");
    let mut checker = Command::new(program);
    checker.args(["--exact", test, "--nocapture"]).env(FAULTY, "1");
    let output = checker.output().expect("another process");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(says), "{fault:?} was not found: {said}");
}

/// One for each rule.
macro_rules! the_checker_finds {
    ($($name:ident: $fault:ident, $model:ident, $says:literal;)+) => { $(
        #[test]
        fn $name() {
            the_checker_finds(concat!("ring::", stringify!($name)), Fault::$fault, $model, $says);
        }
    )+ };
}

the_checker_finds! {
    a_frame_that_is_read_before_it_is_claimed: ReadsBeforeItClaims, taking_back, "Causality violation";
    a_tail_that_comes_before_its_reply: TailBeforeReply, through_the_ring, "Causality violation";
    a_tail_that_promises_nothing: RelaxedTail, through_the_ring, "Causality violation";
    a_place_that_is_used_again_too_early: ReusesWhatItPushed, taking_back, "Causality violation";
    a_parent_that_sleeps_without_a_look: NoLookAfterSaying, through_the_ring, "deadlock";
    a_parent_that_is_not_seen_to_sleep: NoFenceAfterSaying, through_the_ring, "deadlock";
    a_child_that_sleeps_without_a_look: NoLookAfterDozing, through_the_ring, "deadlock";
}
