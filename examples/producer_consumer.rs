//! Three producers, three consumers, one queue, and two of the six are killed in the middle: where did every item go?
//!
//! Run it with `cargo run --example producer_consumer`. It prints (the numbers differ from run to run):
//!
//! ```text
//! producer-0 put 2000 items
//! producer-1 put 500 items: process `producer-1` (pid 4127) was killed by SIGKILL while running `producer_consumer::produce`
//! producer-2 put 2000 items
//! consumer-0 consumed 2000 items
//! consumer-1 consumed 501 items: process `consumer-1` (pid 4130) was killed by SIGKILL while running `producer_consumer::consume`
//! consumer-2 consumed 1998 items
//! put: 4500, consumed once: 4499, twice: 0, lost with their taker: 1
//! ```
//!
//! With `--ledger` it also prints each item that was put, and which process consumed it.
//!
//! A killed producer leaves no half of an item, and no process waits for it: the consumers get what it had put before. A killed
//! consumer takes along the one item that it had taken, if any; all others go to the other consumers. When
//! the last producer is gone, the consumers get what is left, and then the word that the queue is closed. To have an item
//! back whose taker was killed, use a `JoinableQueue`.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use process_task::channel::{Queue, QueueReceiver, QueueSender};
use process_task::{Process, ProcessBuilder, Shared, process_task};

const PRODUCERS: usize = 3;
const CONSUMERS: usize = 3;
/// How many items a producer puts that is not killed.
const ITEMS: usize = 2_000;
/// How far those have come that are killed.
const MIDDLE: u32 = 500;
/// The producer and the consumer that are killed.
const DOOMED: usize = 1;

/// Where an item comes from, and its number there.
type Item = (usize, usize);

/// How far each producer, or consumer, has come.
type Progress = Shared<[AtomicU32]>;

/// Which process consumed each item, and how often: a byte for each consumer.
type Ledger = Shared<[AtomicU32]>;

#[process_task]
fn produce(own: usize, items: QueueSender<Item>, progress: Progress) {
    for number in 0..ITEMS {
        items.send((own, number)).expect("there are consumers as long as there are items");
        progress[own].fetch_add(1, Relaxed);
    }
}

#[process_task]
fn consume(own: usize, items: QueueReceiver<Item>, ledger: Ledger, progress: Progress) {
    let mut next = [0; PRODUCERS];
    for (producer, number) in &items {
        assert!(number >= next[producer], "of each producer, what was put first comes first");
        next[producer] = number + 1;
        thread::sleep(Duration::from_micros(100)); // What an item is for.
        ledger[producer * ITEMS + number].fetch_add(1 << (8 * own), Relaxed);
        progress[own].fetch_add(1, Relaxed);
    }
}

fn main() -> process_task::Result<()> {
    let (items, taken) = Queue::<Item>::bounded(64)?.split();
    let zeros = |count| Shared::from_iter((0..count).map(|_| AtomicU32::new(0)));
    let (ledger, put, consumed) = (zeros(PRODUCERS * ITEMS)?, zeros(PRODUCERS)?, zeros(CONSUMERS)?);

    let mut builder = ProcessBuilder::new();
    let mut producers = Vec::new();
    for own in 0..PRODUCERS {
        builder.name(format!("producer-{own}"));
        producers.push(builder.spawn(produce, (own, items.clone(), put.clone()))?);
    }
    let mut consumers = Vec::new();
    for own in 0..CONSUMERS {
        builder.name(format!("consumer-{own}"));
        consumers.push(builder.spawn(consume, (own, taken.clone(), ledger.clone(), consumed.clone()))?);
    }
    drop((items, taken)); // We are neither: as long as we had an end for putting, the queue would not be over.

    kill_in_the_middle(&producers[DOOMED], &put[DOOMED])?;
    kill_in_the_middle(&consumers[DOOMED], &consumed[DOOMED])?;
    let ends: Vec<_> = producers.into_iter().map(Process::join).collect();
    for (own, end) in ends.into_iter().enumerate() {
        println!("producer-{own} put {} items{}", put_by(own, &ledger, &put), in_words(end));
    }
    let ends: Vec<_> = consumers.into_iter().map(Process::join).collect();
    for (own, end) in ends.into_iter().enumerate() {
        println!("consumer-{own} consumed {} items{}", times(&ledger, own).sum::<u32>(), in_words(end));
    }
    account(&ledger, &put);
    Ok(())
}

fn kill_in_the_middle(process: &Process<()>, progress: &AtomicU32) -> process_task::Result<()> {
    while progress.load(Relaxed) < MIDDLE && !process.is_finished() {
        thread::sleep(Duration::from_millis(1));
    }
    process.kill()
}

fn in_words(end: process_task::Result<()>) -> String {
    end.err().map_or(String::new(), |error| format!(": {error}"))
}

/// How often each item was consumed by one of the consumers.
fn times(ledger: &Ledger, consumer: usize) -> impl Iterator<Item = u32> {
    ledger.iter().map(move |entry| entry.load(Relaxed) >> (8 * consumer) & 0xff)
}

/// How many items a producer has put. One that was killed may not have counted its last.
fn put_by(producer: usize, ledger: &Ledger, put: &Progress) -> usize {
    let own = &ledger[producer * ITEMS..(producer + 1) * ITEMS];
    let consumed = own.iter().rposition(|entry| entry.load(Relaxed) != 0).map_or(0, |last| last + 1);
    consumed.max(put[producer].load(Relaxed) as usize)
}

/// Every item that was put was consumed once, or the consumer that was killed had it.
fn account(ledger: &Ledger, put: &Progress) {
    let (mut all, mut once, mut lost) = (0, 0, 0);
    for producer in 0..PRODUCERS {
        for number in 0..put_by(producer, ledger, put) {
            let entry = ledger[producer * ITEMS + number].load(Relaxed);
            let by: Vec<_> = (0..CONSUMERS).filter(|consumer| entry >> (8 * consumer) & 0xff != 0).collect();
            all += 1;
            once += usize::from(entry.to_ne_bytes().iter().sum::<u8>() == 1);
            lost += usize::from(entry == 0);
            if std::env::args().any(|argument| argument == "--ledger") {
                println!("item {number} of producer-{producer}: {by:?}");
            }
        }
    }
    println!("put: {all}, consumed once: {once}, twice: {}, lost with their taker: {lost}", all - once - lost);
    assert!(once + lost == all && lost <= 1, "nothing else may happen");
}
