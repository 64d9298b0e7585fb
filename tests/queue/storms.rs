//! Queues under processes that are killed at any moment, for as long as is asked: what was put, what was got, and what was
//! lost with which process is counted exactly.
//!
//! Runs in: the test process; producers and consumers in children, which note before and after each step what they do.
//! Never: takes an item for lost without knowing which process had it. Each takes what [`seconds`] says.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::time::Duration;

use crate::support::PATIENCE;
use crate::support::chaos::{Herd, Random, seconds, start};
use crate::support::queue_memory;
use process_task::channel::{JoinableQueue, Queue, RecvTimeoutError};
use process_task::{Process, Shared, StartMethod, process_task};
use serde::{Deserialize, Serialize};

under_every_start_method! {
    within 600 seconds;
    kills_lose_no_small_item_but_the_takers,
    kills_lose_no_long_item_but_the_takers,
    kills_lose_no_item_with_handles_but_the_takers,
    kills_leave_every_lent_item_done,
}

const PRODUCERS: usize = 3;
const CONSUMERS: usize = 3;

/// The most items of one producer, in all its lives.
const MOST: u64 = 2_000_000;

/// The fewest that are killed, on a machine that has much else to do.
const FEWEST: usize = 20;

/// What goes through the queue.
#[derive(Serialize, Deserialize)]
struct Item {
    member: usize,
    number: u64,
    padding: String,
    beside: Option<Shared<AtomicU64>>,
}

/// What items are like.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
enum Kind {
    Small,
    Long,
    WithHandles,
}

/// A number as an index.
fn at(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// A string, since that is encoded as one piece.
fn padding(number: u64, len: usize) -> String {
    char::from(b'a' + u8::try_from(number % 26).unwrap()).to_string().repeat(len)
}

impl Item {
    fn new(kind: Kind, member: usize, number: u64) -> Self {
        let len = match kind {
            Kind::Small | Kind::WithHandles => at(number * 37 % 300),
            Kind::Long => [10, 20_000, 70_000, 300_000, 1_000_000][at(number % 5)],
        };
        // Some have some, so that messages are looked for that are not the first.
        let beside = (kind == Kind::WithHandles && !number.is_multiple_of(3))
            .then(|| Shared::new(AtomicU64::new(number)).unwrap());
        Self { member, number, padding: padding(number, len), beside }
    }

    fn is_whole(&self, kind: Kind) -> bool {
        let right = Self::new(if kind == Kind::Long { kind } else { Kind::Small }, self.member, self.number);
        let beside = (kind == Kind::WithHandles && !self.number.is_multiple_of(3)).then_some(self.number);
        self.padding == right.padding && self.beside.as_ref().map(|region| region.load(SeqCst)) == beside
    }
}

/// What every process writes down, by the number of the process in the herd.
#[derive(Clone, Serialize, Deserialize)]
struct Book {
    /// How many steps each has begun, and how many it has finished: items put, or attempts to get one.
    begun: Shared<[AtomicU64]>,
    finished: Shared<[AtomicU64]>,
    /// How often each item was got.
    got: Shared<[AtomicU8]>,
    /// How often something was seen that must not be, by kind of fault; then whether to stop.
    faults: Shared<[AtomicU64]>,
}

const TORN: usize = 0;
const OUT_OF_ORDER: usize = 1;
const ERROR: usize = 2;
const STOP: usize = 3;
const GIVEN_BACK: usize = 4;

impl Book {
    fn new() -> Self {
        let words = |count| Shared::<[AtomicU64]>::zeroed(count).unwrap();
        let got = Shared::<[AtomicU8]>::zeroed(PRODUCERS * at(MOST)).unwrap();
        Self { begun: words(PRODUCERS + CONSUMERS), finished: words(PRODUCERS + CONSUMERS), got, faults: words(5) }
    }

    fn has_stopped(&self) -> bool {
        self.faults[STOP].load(SeqCst) != 0
    }

    fn fault(&self, which: usize) {
        self.faults[which].fetch_add(1, SeqCst);
    }

    /// Steps of one process, until it is to stop; `step` is told the number of each.
    fn steps(&self, member: usize, mut step: impl FnMut(u64)) {
        let mut number = self.begun[member].load(SeqCst);
        while !self.has_stopped() && number < MOST {
            self.begun[member].store(number + 1, SeqCst);
            step(number);
            self.finished[member].store(number + 1, SeqCst);
            number += 1;
        }
        while !self.has_stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Notes an item that was got.
    fn note(&self, item: &Item, kind: Kind) {
        if !item.is_whole(kind) {
            self.fault(TORN);
        }
        self.got[item.member * at(MOST) + at(item.number)].fetch_add(1, SeqCst);
    }

    /// A process was killed: the step in which it was, if it was in one.
    fn bury(&self, member: usize) -> Option<u64> {
        let (begun, finished) =
            (self.begun[member].load(SeqCst), self.finished[member].swap(self.begun[member].load(SeqCst), SeqCst));
        (begun != finished).then_some(finished)
    }

    /// How often the item was got.
    fn count(&self, member: usize, number: u64) -> u8 {
        self.got[member * at(MOST) + at(number)].load(SeqCst)
    }
}

#[process_task]
fn produce(queue: Queue<Item>, book: Book, member: usize, kind: Kind) {
    book.steps(member, |number| {
        // A limit that this process keeps by itself, beside that of the queue.
        while kind == Kind::Long && queue.len() > 20 && !book.has_stopped() {
            std::thread::sleep(Duration::from_micros(100));
        }
        if queue.send(Item::new(kind, member, number)).is_err() {
            book.fault(ERROR);
        }
    });
}

#[process_task]
fn consume(queue: Queue<Item>, book: Book, member: usize, kind: Kind) {
    let mut next = [0; PRODUCERS];
    book.steps(member, |_| match queue.recv_timeout(Duration::from_millis(20)) {
        Ok(item) => {
            book.note(&item, kind);
            if item.number < next[item.member] {
                book.fault(OUT_OF_ORDER);
            }
            next[item.member] = item.number + 1;
        }
        Err(RecvTimeoutError::Timeout) => {}
        Err(_) => book.fault(ERROR),
    });
}

/// What became of the items.
#[derive(Debug, Default)]
struct Tally {
    put: u64,
    got: u64,
    lost_with_a_taker: u64,
    unknown_at_death: u64,
    of_these_got: u64,
    /// How often the item was got that was got most often.
    most_often: u64,
}

/// `unknown`: the items that producers were putting when they were killed.
fn count(book: &Book, unknown: &[(usize, u64)]) -> Tally {
    let mut tally = Tally { unknown_at_death: unknown.len() as u64, ..Tally::default() };
    for member in 0..PRODUCERS {
        let begun = book.begun[member].load(SeqCst);
        assert_eq!(begun, book.finished[member].load(SeqCst), "producer {member} has ended, or was buried");
        for number in 0..begun {
            let count = u64::from(book.count(member, number));
            tally.got += count;
            tally.most_often = tally.most_often.max(count);
            if unknown.contains(&(member, number)) {
                tally.of_these_got += u64::from(count > 0);
            } else {
                tally.put += 1;
                tally.lost_with_a_taker += u64::from(count == 0);
            }
        }
        assert!(
            (begun..begun + 100).all(|number| number >= MOST || book.count(member, number) == 0),
            "{member} never put it"
        );
    }
    tally
}

/// Two items that need more memory than there ever was have all searched that belongs to none.
fn memory_goes_back(before: u64, use_all: impl FnOnce()) {
    use_all();
    let after = queue_memory::of_the_only_one();
    let most = before + queue_memory::KEPT * queue_memory::CHUNK + (64 << 10);
    assert!(after <= most, "{after} bytes are left, {before} were there, and {most} may be");
}

fn storm(method: StartMethod, kind: Kind) {
    let limit = if kind == Kind::Small { 50 } else { 200 };
    let (queue, book) = (Queue::<Item>::bounded(limit).unwrap(), Book::new());
    let before = queue_memory::of_the_only_one();
    let one = |member: usize| -> Process<()> {
        let (queue, book) = (queue.clone(), book.clone());
        if member < PRODUCERS {
            start(method, produce, (queue, book, member, kind))
        } else {
            start(method, consume, (queue, book, member, kind))
        }
    };
    let mut herd = Herd::new(PRODUCERS + CONSUMERS, one);
    let (mut unknown, mut takers) = (vec![], 0);
    let mut killed = 0;
    let mut bury = |member| {
        if let Some(number) = book.bury(member) {
            if member < PRODUCERS { unknown.push((member, number)) } else { takers += 1 }
        }
    };
    while killed < FEWEST {
        killed += herd.hunt_for(seconds(), |_| (), &mut bury);
    }
    // Producers may wait for room when all consumers have stopped.
    book.fault(STOP);
    let rest = || {
        while let Ok(item) = queue.recv_timeout(Duration::from_millis(200)) {
            book.note(&item, kind);
        }
    };
    rest();
    herd.go_home();
    rest();
    let tally = count(&book, &unknown);
    println!("{method:?}, {kind:?}, {:?}: {killed} killed, {takers} of them while getting; {tally:?}", seconds());
    assert_eq!([TORN, OUT_OF_ORDER, ERROR].map(|fault| book.faults[fault].load(SeqCst)), [0; 3], "{tally:?}");
    assert!(tally.most_often <= 1, "an item was got twice: {tally:?}");
    assert!(tally.lost_with_a_taker + tally.of_these_got <= takers + tally.unknown_at_death);
    assert!(tally.lost_with_a_taker <= takers, "an item was lost, and no process had it: {tally:?}");
    assert_eq!(tally.got, tally.put - tally.lost_with_a_taker + tally.of_these_got);
    assert!(tally.got > 100, "{tally:?}");

    assert_eq!(queue.len(), 0);
    (0..50).for_each(|number| queue.try_send(Item::new(kind, 0, number)).unwrap());
    assert!((0..50).all(|number| queue.try_recv().is_ok_and(|item| item.number == number && item.is_whole(kind))));
    memory_goes_back(before, || {
        let long = || Item { member: 0, number: 0, padding: padding(1, 40 << 20), beside: None };
        (0..2).for_each(|_| queue.send(long()).unwrap());
        (0..2).for_each(|_| assert!(queue.recv().is_ok_and(|item| item.padding == long().padding)));
    });
}

fn kills_lose_no_small_item_but_the_takers(method: StartMethod) {
    storm(method, Kind::Small);
}

fn kills_lose_no_long_item_but_the_takers(method: StartMethod) {
    storm(method, Kind::Long);
}

fn kills_lose_no_item_with_handles_but_the_takers(method: StartMethod) {
    storm(method, Kind::WithHandles);
}

#[process_task]
fn order(jobs: JoinableQueue<Item>, book: Book, member: usize) {
    book.steps(member, |number| {
        let kind = if number % 50 == 0 { Kind::Long } else { Kind::Small };
        if jobs.send(Item::new(kind, member, number)).is_err() {
            book.fault(ERROR);
        }
    });
}

#[process_task]
fn work(jobs: JoinableQueue<Item>, book: Book, member: usize) {
    let mut random = Random::new(book.begun[member].load(SeqCst) + 1);
    book.steps(member, |_| match jobs.recv_timeout(Duration::from_millis(20)) {
        Ok(mut job) => {
            book.note(&job, if job.number % 50 == 0 { Kind::Long } else { Kind::Small });
            // One of ten is too much for it.
            if random.below(10) == 0 {
                book.fault(GIVEN_BACK);
            } else {
                job.done();
            }
        }
        Err(RecvTimeoutError::Timeout) => drop(jobs.wait_all_done_timeout(Duration::from_millis(1)).is_ok()),
        Err(_) => book.fault(ERROR),
    });
}

fn kills_leave_every_lent_item_done(method: StartMethod) {
    let (jobs, book) = (JoinableQueue::<Item>::bounded(50).unwrap(), Book::new());
    let before = queue_memory::of_the_only_one();
    let one = |member: usize| -> Process<()> {
        if member < PRODUCERS {
            start(method, order, (jobs.clone(), book.clone(), member))
        } else {
            start(method, work, (jobs.clone(), book.clone(), member))
        }
    };
    let mut herd = Herd::new(PRODUCERS + CONSUMERS, one);
    let (mut unknown, mut holders) = (vec![], 0);
    let mut killed = 0;
    let mut bury = |member| {
        if let Some(number) = book.bury(member) {
            if member < PRODUCERS { unknown.push((member, number)) } else { holders += 1 }
        }
    };
    while killed < FEWEST {
        killed += herd.hunt_for(seconds(), |_| (), &mut bury);
    }
    book.fault(STOP);
    let mut by_us = 0;
    let mut rest = |time| {
        while let Ok(mut job) = jobs.recv_timeout(time) {
            book.note(&job, if job.number % 50 == 0 { Kind::Long } else { Kind::Small });
            job.done();
            by_us += 1;
        }
    };
    rest(Duration::from_millis(200));
    herd.go_home();
    // What a killed process had comes back within a tenth of a second.
    rest(Duration::from_millis(500));
    assert!(jobs.wait_all_done_timeout(PATIENCE).is_ok(), "{} items are not done", jobs.unfinished());
    assert_eq!((jobs.unfinished(), jobs.len()), (0, 0));

    let tally = count(&book, &unknown);
    let given_back = book.faults[GIVEN_BACK].load(SeqCst);
    println!(
        "{method:?}, lent, {:?}: {killed} killed, {holders} of them with an item; {tally:?}, {given_back} given back, {by_us} \
         of the last done by the test",
        seconds()
    );
    assert_eq!([TORN, ERROR].map(|fault| book.faults[fault].load(SeqCst)), [0; 2], "{tally:?}");
    assert_eq!(tally.lost_with_a_taker, 0, "an item was never done: {tally:?}");
    // No process gets an item again but after it was given back, or its holder was killed.
    assert!(tally.got >= tally.put + tally.of_these_got, "{tally:?}");
    assert!(tally.got <= tally.put + tally.of_these_got + given_back + holders, "{tally:?}");
    assert!(tally.got > 100, "{tally:?}");
    memory_goes_back(before, || {
        let long = || Item { member: 0, number: 0, padding: padding(1, 40 << 20), beside: None };
        (0..2).for_each(|_| jobs.send(long()).unwrap());
        (0..2).for_each(|_| jobs.task_done(jobs.recv().unwrap()));
        assert!(jobs.wait_all_done_timeout(PATIENCE).is_ok());
    });
}
