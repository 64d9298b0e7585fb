//! `channel::Queue` between processes, against channels between threads, ipc-channel, and Python's queue. The figures are for
//! one item, from the moment when all are ready until the last consumer has its share.
//!
//! ipc-channel's receivers have one owner each, so where there are two consumers there are two channels, and the producers
//! use them in turns; how much is under way there is up to the kernel's buffers.
//!
//! Runs in: the parent, which is one of the consumers; [`produce`] and [`consume`] in other processes or threads. Never: counts
//! the start of these, nor their end.

use std::cell::Cell;
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use ipc_channel::ipc::{IpcReceiver, IpcSender, channel};
use process_task::channel::{Message, Queue, QueueReceiver, QueueSender};
use process_task::sync::Barrier;
use process_task::{Process, Shared, process_task};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ipc::{hand_over, take_over};
use crate::measure::check;
use crate::python::Library;
use crate::race::{Measured, Race};
use crate::table::{Row, Unit};
use crate::{Outcome, python};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "Queue of u64, 1 producer, 1 consumer", unit: Unit::Seconds, run: numbers },
    Row { name: "Queue of 64 bytes, 2 producers, 2 consumers", unit: Unit::Seconds, run: blocks },
];

/// How many items every queue holds.
const CAPACITY: u16 = 1024;
/// How many items go through, in a round.
const COUNT: u64 = 1_000_000;
/// The same for what needs ten times as long and more.
const FEW: u64 = 40_000;
const ROUNDS: u32 = 9;

/// 64 bytes.
type Block = [u64; 8];

/// What goes through a queue, with a number in it.
trait Item: Message + Send {
    fn new(number: u64) -> Self;
    fn number(&self) -> u64;
}

impl Item for u64 {
    fn new(number: u64) -> Self {
        number
    }

    fn number(&self) -> u64 {
        *self
    }
}

impl Item for Block {
    fn new(number: u64) -> Self {
        [number; 8]
    }

    fn number(&self) -> u64 {
        self[7]
    }
}

/// Where a producer puts items.
trait Put<T> {
    fn put(&self, item: T);
}

/// Where a consumer gets them.
trait Get<T> {
    fn get(&self) -> T;
}

impl<T: Item> Put<T> for QueueSender<T> {
    fn put(&self, item: T) {
        self.send(item).expect("the consumers are there");
    }
}

impl<T: Item> Get<T> for QueueReceiver<T> {
    fn get(&self) -> T {
        self.recv().expect("the producers are there, or have put enough")
    }
}

impl<T: Item> Put<T> for Sender<T> {
    fn put(&self, item: T) {
        self.send(item).expect("the consumers are there");
    }
}

impl<T: Item> Get<T> for Receiver<T> {
    fn get(&self) -> T {
        self.recv().expect("the producers are there, or have put enough")
    }
}

/// One channel for each consumer, in turns.
struct InTurns<T>(Vec<IpcSender<T>>, Cell<usize>);

impl<T: Serialize> Put<T> for InTurns<T> {
    fn put(&self, item: T) {
        let turn = self.1.get();
        self.0[turn].send(item).expect("the consumer is there");
        self.1.set((turn + 1) % self.0.len());
    }
}

impl<T: Serialize + DeserializeOwned> Get<T> for IpcReceiver<T> {
    fn get(&self) -> T {
        self.recv().expect("the producers are there, or have put enough")
    }
}

/// What a consumer has to say: the sum of the numbers it got, and in how many seconds.
type Share = (u64, f64);

/// Puts the numbers from 1 to `count`.
fn produce<T: Item>(queue: &impl Put<T>, count: u64, start: &Barrier) {
    start.wait().expect("no process dies");
    (1..=count).for_each(|number| queue.put(T::new(number)));
}

/// Gets so many items.
fn consume<T: Item>(queue: &impl Get<T>, count: u64, start: &Barrier) -> Share {
    start.wait().expect("no process dies");
    let start = Instant::now();
    let sum = (0..count).map(|_| queue.get().number()).sum();
    (sum, start.elapsed().as_secs_f64())
}

#[process_task]
fn produce_numbers(queue: QueueSender<u64>, count: u64, start: Shared<Barrier>) {
    produce(&queue, count, &start);
}

#[process_task]
fn produce_blocks(queue: QueueSender<Block>, count: u64, start: Shared<Barrier>) {
    produce(&queue, count, &start);
}

#[process_task]
fn consume_blocks(queue: QueueReceiver<Block>, count: u64, start: Shared<Barrier>) -> Share {
    consume(&queue, count, &start)
}

#[process_task]
fn produce_numbers_by_ipc(name: String, count: u64, start: Shared<Barrier>) {
    produce::<u64>(&InTurns(take_over(name), Cell::new(0)), count, &start);
}

#[process_task]
fn produce_blocks_by_ipc(name: String, count: u64, start: Shared<Barrier>) {
    produce::<Block>(&InTurns(take_over(name), Cell::new(0)), count, &start);
}

#[process_task]
fn consume_blocks_by_ipc(name: String, count: u64, start: Shared<Barrier>) -> Share {
    consume::<Block>(&take_over::<IpcReceiver<Block>>(name), count, &start)
}

/// Seconds for one item, where each of `producers` put its part of `count`.
fn seconds_each(shares: &[Share], count: u64, producers: u64) -> Outcome<f64> {
    let part = count / producers;
    check(shares.iter().map(|(sum, _)| sum).sum(), producers * (part * (part + 1) / 2))?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(shares.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max) / count as f64)
}

/// Where each waits until all are there: the parent, and so many others.
fn start(others: usize) -> Outcome<Shared<Barrier>> {
    Ok(Shared::new(Barrier::new(others + 1))?)
}

/// What the parent and its processes got; all of them have ended.
fn joined(own: Share, producers: Vec<Process<()>>, consumer: Option<Process<Share>>) -> Outcome<Vec<Share>> {
    producers.into_iter().try_for_each(Process::join)?;
    let other = consumer.map(Process::join).transpose()?;
    Ok(std::iter::once(own).chain(other).collect())
}

/// The same between threads, of which this is one.
fn threads<T: Item>(count: u64, sides: u64) -> Outcome<f64> {
    let (sender, receiver) = bounded::<T>(usize::from(CAPACITY));
    // Where ours is, so that nothing but the queue differs.
    let start = Shared::new(Barrier::new(2 * usize::try_from(sides)?))?;
    let shares = thread::scope(|scope| {
        for _ in 0..sides {
            scope.spawn(|| produce(&sender, count / sides, &start));
        }
        let others: Vec<_> = (1..sides).map(|_| scope.spawn(|| consume(&receiver, count / sides, &start))).collect();
        let own = consume(&receiver, count / sides, &start);
        let join = |other: thread::ScopedJoinHandle<'_, _>| other.join().map_err(|_| "a thread panicked".into());
        std::iter::once(Ok(own)).chain(others.into_iter().map(join)).collect::<Outcome<Vec<_>>>()
    })?;
    seconds_each(&shares, count, sides)
}

fn numbers() -> Outcome<Measured> {
    Race::new(ROUNDS, our_numbers)
        .against("two threads, crossbeam bounded channel", || threads::<u64>(COUNT, 1))
        .aim(1.0 / 0.7)
        .against("ipc-channel", ipc_numbers)
        .aim(1.0)
        .beside(python::peer("Python multiprocessing.Queue", Library::Process, "queue_of_numbers")?)
        .aim(0.02)
        .run()
}

fn our_numbers() -> Outcome<f64> {
    let (producer, consumer) = Queue::<u64>::bounded(CAPACITY.into())?.split();
    let start = start(1)?;
    let producers = vec![produce_numbers.spawn(producer, COUNT, start.clone())];
    let own = consume(&consumer, COUNT, &start);
    seconds_each(&joined(own, producers, None)?, COUNT, 1)
}

fn ipc_numbers() -> Outcome<f64> {
    let (sender, receiver) = channel::<u64>()?;
    let start = start(1)?;
    let producer = hand_over(vec![sender], |name| Ok(produce_numbers_by_ipc.spawn(name, FEW, start.clone())))?;
    let own = consume(&receiver, FEW, &start);
    seconds_each(&joined(own, vec![producer], None)?, FEW, 1)
}

fn blocks() -> Outcome<Measured> {
    Race::new(ROUNDS, our_blocks)
        .against("four threads, crossbeam bounded channel", || threads::<Block>(COUNT, 2))
        .aim(1.0 / 0.5)
        .against("ipc-channel, a channel for each consumer", ipc_blocks)
        .aim(1.0)
        .beside(python::peer("Python multiprocessing.Queue", Library::Process, "queue_of_blocks")?)
        .aim(0.02)
        .run()
}

fn our_blocks() -> Outcome<f64> {
    let (producer, consumer) = Queue::<Block>::bounded(CAPACITY.into())?.split();
    let start = start(3)?;
    let producers = vec![
        produce_blocks.spawn(producer.clone(), COUNT / 2, start.clone()),
        produce_blocks.spawn(producer, COUNT / 2, start.clone()),
    ];
    let other = consume_blocks.spawn(consumer.clone(), COUNT / 2, start.clone());
    let own = consume(&consumer, COUNT / 2, &start);
    seconds_each(&joined(own, producers, Some(other))?, COUNT, 2)
}

fn ipc_blocks() -> Outcome<f64> {
    let ((to_us, receiver), (to_other, for_other)) = (channel::<Block>()?, channel::<Block>()?);
    let start = start(3)?;
    let produce = |name| Ok(produce_blocks_by_ipc.spawn(name, FEW / 2, start.clone()));
    let producers =
        vec![hand_over(vec![to_us.clone(), to_other.clone()], produce)?, hand_over(vec![to_us, to_other], produce)?];
    let other = hand_over(for_other, |name| Ok(consume_blocks_by_ipc.spawn(name, FEW / 2, start.clone())))?;
    let own = consume(&receiver, FEW / 2, &start);
    seconds_each(&joined(own, producers, Some(other))?, FEW, 2)
}
