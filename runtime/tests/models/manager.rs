//! A manager's wake-up word and the words of short calls under every interleaving, with the death of either side as a step.
//!
//! The three files that hold the rules are compiled here a second time, with a model checker's atomics. A sleep is the kernel's
//! futex wait, as in `link`. A thread that sleeps for good is a deadlock, which the checker reports.
//! Runs in: one process, without children.

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}
#[expect(dead_code, reason = "the order of requests is the queue's, which has a model of its own")]
#[path = "../../src/manager/released.rs"]
mod released;
#[expect(dead_code, reason = "the memory in which the slots stand is not modelled")]
#[path = "../../src/manager/slots.rs"]
mod slots;
#[path = "../../src/manager/wakeup.rs"]
mod wakeup;

use crate::checker::{Bed, explore, explore_up_to, explore_with};
use crate::mortal::{Fault, the_checker_finds};
use loom::sync::Arc;
use loom::sync::atomic::Ordering::SeqCst;
use loom::sync::atomic::{AtomicU32, AtomicU64};
use loom::thread;
use slots::{CallSlot, Head};

const FOR_EVER: usize = usize::MAX;

/// Steps until a death.
struct Life(usize);

impl Life {
    /// Whether there is one more step.
    fn goes_on(&mut self) -> bool {
        let goes_on = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        goes_on
    }
}

/// A manager and two clients, each with one slot and a word that announces it.
struct World {
    wakeup: AtomicU32,
    ready: [AtomicU32; 2],
    slots: [CallSlot; 2],
    has_ended: AtomicU32,
    leader_bed: Bed,
    client_beds: [Bed; 2],
}

/// How a client's call went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Went {
    Answered,
    NotStarted,
    Unknown,
    /// The client died.
    Died,
}

impl World {
    fn new() -> Arc<Self> {
        let slot = |_| CallSlot {
            state: AtomicU32::new(0),
            what: AtomicU32::new(0),
            object: AtomicU64::new(0),
            call: AtomicU64::new(0),
            len: AtomicU32::new(0),
        };
        Arc::new(Self {
            wakeup: AtomicU32::new(0),
            ready: [0, 1].map(|_| AtomicU32::new(0)),
            slots: [0, 1].map(slot),
            has_ended: AtomicU32::new(0),
            leader_bed: Bed::new(),
            client_beds: [0, 1].map(|_| Bed::new()),
        })
    }

    fn announce(&self, bits: u32) {
        if wakeup::announce(&self.wakeup, bits) && !Fault::WakesAreLost.is_made() {
            self.leader_bed.wake();
        }
    }

    /// The leader: answers until it is told to end, or dies.
    fn lead(&self, steps: usize) {
        let mut life = Life(steps);
        while life.goes_on() {
            let bits = wakeup::take(&self.wakeup);
            if bits == 0 {
                if Fault::LooksTooEarly.is_made() {
                    self.wakeup.store(wakeup::PARKED, SeqCst);
                    self.leader_bed.wait_on(&self.wakeup, wakeup::PARKED);
                } else if wakeup::park(&self.wakeup) {
                    self.leader_bed.wait_on(&self.wakeup, wakeup::PARKED);
                }
                continue;
            }
            for (ready, (slot, bed)) in self.ready.iter().zip(self.slots.iter().zip(&self.client_beds)) {
                let announced = slots::take_announced(ready);
                if announced != 0 {
                    assert_eq!(announced, 1);
                    if !life.goes_on() {
                        return;
                    }
                    let Some(head) = slot.take() else { continue };
                    if !life.goes_on() {
                        return;
                    }
                    let wakes = slot.reply(Head { what: head.what + 1, ..head });
                    if !life.goes_on() {
                        return;
                    }
                    if wakes {
                        bed.wake();
                    }
                }
            }
            if bits & wakeup::QUEUE != 0 && self.has_ended.load(SeqCst) != 0 {
                return;
            }
        }
    }

    /// A client: makes one call, and waits for its answer as long as the manager lives.
    fn call(&self, number: usize, steps: usize) -> Went {
        let mut life = Life(steps);
        let slot = &self.slots[number];
        if !life.goes_on() {
            return Went::Died;
        }
        slot.request(Head { what: 7, object: 8, call: 9, len: 0 });
        if !life.goes_on() {
            return Went::Died;
        }
        slots::announce(&self.ready[number], 0);
        if !life.goes_on() {
            return Went::Died;
        }
        let must_wake = wakeup::announce(&self.wakeup, wakeup::group_bit(u32::try_from(number).unwrap()));
        if !life.goes_on() {
            return Went::Died;
        }
        if must_wake && !Fault::WakesAreLost.is_made() {
            self.leader_bed.wake();
        }
        while let Some(asleep) = slot.prepare_sleep() {
            if !life.goes_on() {
                return Went::Died;
            }
            if self.has_ended.load(SeqCst) == 2 {
                return self.give_up(number);
            }
            self.client_beds[number].wait_on_unless(&slot.state, asleep, || self.has_ended.load(SeqCst) == 2);
            if self.has_ended.load(SeqCst) == 2 {
                return self.give_up(number);
            }
        }
        self.answered(number)
    }

    /// The manager is known to be dead.
    fn give_up(&self, number: usize) -> Went {
        match &self.slots[number] {
            slot if slot.is_answered() => self.answered(number),
            slot if slot.take_back() => Went::NotStarted,
            _ => Went::Unknown,
        }
    }

    fn answered(&self, number: usize) -> Went {
        let slot = &self.slots[number];
        assert_eq!(slot.head(), Head { what: 8, object: 8, call: 9, len: 0 }, "the answer is whole");
        slot.free();
        Went::Answered
    }

    fn end(&self) {
        self.has_ended.store(1, SeqCst);
        self.announce(wakeup::QUEUE);
    }

    fn with_leader(steps: usize) -> (Arc<Self>, thread::JoinHandle<()>) {
        let world = Self::new();
        let its = Arc::clone(&world);
        (world, thread::spawn(move || its.lead(steps)))
    }
}

#[test]
fn no_side_sleeps_over_what_the_other_brought() {
    explore(300, || {
        let (world, leader) = World::with_leader(FOR_EVER);
        assert_eq!(world.call(0, FOR_EVER), Went::Answered);
        assert_eq!(world.call(0, FOR_EVER), Went::Answered);
        world.end();
        leader.join().unwrap();
    });
}

#[test]
fn two_clients_are_answered() {
    explore_up_to(2, 5000, || {
        let (world, leader) = World::with_leader(FOR_EVER);
        let its = Arc::clone(&world);
        let other = thread::spawn(move || its.call(1, FOR_EVER));
        assert_eq!(world.call(0, FOR_EVER), Went::Answered);
        assert_eq!(other.join().unwrap(), Went::Answered);
        world.end();
        leader.join().unwrap();
    });
}

#[test]
fn client_killed_at_any_step_keeps_no_other_waiting() {
    for steps in 0..6 {
        explore_with(2, 50, move || {
            let (world, leader) = World::with_leader(FOR_EVER);
            let its = Arc::clone(&world);
            let killed = thread::spawn(move || its.call(1, steps));
            // No timer and no news of the death helps it.
            assert_eq!(world.call(0, FOR_EVER), Went::Answered);
            let _ = killed.join().unwrap();
            world.end();
            leader.join().unwrap();
        });
    }
}

#[test]
fn manager_killed_at_any_step_leaves_a_call_that_is_told_apart() {
    let all = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    for steps in 0..6 {
        let noted = std::sync::Arc::clone(&all);
        explore_with(2, 50, move || {
            let (world, leader) = World::with_leader(steps);
            let its = Arc::clone(&world);
            let client = thread::spawn(move || its.call(0, FOR_EVER));
            // If the leader outlives the call, it sleeps until the end.
            world.end();
            leader.join().unwrap();
            // The death becomes known, and the client looks again.
            world.has_ended.store(2, SeqCst);
            world.client_beds[0].wake();
            let went = client.join().unwrap();
            noted.lock().unwrap().push(went);
            let state = world.slots[0].state.load(SeqCst);
            assert_eq!(state & 3 == 2, went == Went::Unknown, "{went:?}, {state}, {steps} steps");
        });
    }
    let seen = all.lock().unwrap();
    for went in [Went::Answered, Went::NotStarted, Went::Unknown] {
        assert!(seen.contains(&went), "no execution ended so: {went:?}");
    }
}

#[test]
fn call_is_taken_or_taken_back_and_never_both() {
    let all = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = std::sync::Arc::clone(&all);
    explore(20, move || {
        let (world, leader) = World::with_leader(FOR_EVER);
        let slot = &world.slots[0];
        slot.request(Head { what: 7, object: 8, call: 9, len: 0 });
        slots::announce(&world.ready[0], 0);
        world.announce(wakeup::group_bit(0));
        let back = slot.take_back();
        world.end();
        leader.join().unwrap();
        assert_eq!(slot.is_answered(), !back);
        assert!(!slot.is_untouched());
        noted.lock().unwrap().push(back);
    });
    let seen = all.lock().unwrap();
    assert!(seen.contains(&true) && seen.contains(&false), "both happen");
}

the_checker_finds! {
    leader_that_is_not_woken_is_found: WakesAreLost, no_side_sleeps_over_what_the_other_brought, "deadlock";
    leader_that_parks_without_a_look_is_found: LooksTooEarly, no_side_sleeps_over_what_the_other_brought, "deadlock";
}

/// A client with one buffer of objects, and the place of its request in the queue: how many requests were put, and handled.
struct Gathering {
    word: AtomicU32,
    objects: [AtomicU32; 3],
    /// Requests that name the buffer and were not handled.
    requests: AtomicU32,
}

impl Gathering {
    fn new() -> Arc<Self> {
        let objects = std::array::from_fn(|_| AtomicU32::new(0));
        Arc::new(Self { word: AtomicU32::new(0), objects, requests: AtomicU32::new(0) })
    }

    /// Handles one request, if there is one. What was in the buffer.
    fn handle(&self) -> Vec<u32> {
        if self.requests.load(SeqCst) == 0 {
            return Vec::new();
        }
        self.requests.fetch_sub(1, SeqCst);
        let count = released::take(&self.word) as usize;
        let taken = self.objects[..count].iter().map(|object| object.load(SeqCst)).collect();
        released::give_back(&self.word);
        taken
    }

    /// Lets go of the objects. How many there was no buffer for.
    fn release(&self, objects: std::ops::Range<u32>) -> Vec<u32> {
        let (mut count, mut alone) = (0, Vec::new());
        for object in objects {
            if count > 0 {
                self.objects[count as usize].store(object, SeqCst);
                if released::add(&self.word, count) {
                    count += 1;
                    continue;
                }
            }
            if released::is_free(&self.word) {
                self.objects[0].store(object, SeqCst);
                released::begin(&self.word);
                count = 1;
                self.requests.fetch_add(1, SeqCst);
            } else {
                count = 0;
                alone.push(object);
            }
        }
        alone
    }
}

#[test]
fn each_gathered_object_is_taken_once() {
    explore(20, || {
        let gathering = Gathering::new();
        let manager = {
            let gathering = Arc::clone(&gathering);
            thread::spawn(move || [gathering.handle(), gathering.handle()].concat())
        };
        let mut all = gathering.release(1..4);
        all.extend(manager.join().unwrap());
        while gathering.requests.load(SeqCst) != 0 {
            all.extend(gathering.handle());
        }
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
    });
}
