//! A queue's memory against a model of it, at random; and what becomes of it when it is written over.
//!
//! Runs in: one process, one thread; what several do at a time is the model checker's (`tests/models/queue.rs` of the runtime).
//! `PROCESS_TASK_SEED` says where chance begins, `PROCESS_TASK_ROUNDS` how many times as long it goes on.

use std::collections::VecDeque;
use std::sync::Arc;

use super::atomic::Ordering::Relaxed;
use super::buffer::Buffer;
use super::dequeue::{DequeueError, Got};
use super::enqueue::EnqueueError;
use super::layout::{ItemLayout, MAX_SHARED_ITEM_BYTES, UNITS};
use super::memory::{CHUNK, QueueMemory};
use super::proc_table;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// Bytes of an item: mostly few, sometimes many.
    fn item(&mut self) -> Vec<u8> {
        let most = [1, 9, 80, 3_000, MAX_SHARED_ITEM_BYTES, MAX_SHARED_ITEM_BYTES + 2, 3 * CHUNK][self.below(7)];
        let len = self.below(most + 1);
        let numbers = std::iter::repeat_with(|| self.next().to_ne_bytes());
        numbers.take(len.div_ceil(8)).flatten().take(len).collect()
    }
}

/// A queue without its ends.
struct Bare {
    memory: Arc<QueueMemory>,
    lends: bool,
}

impl Bare {
    fn new(most_items: u32, lends: bool) -> Self {
        proc_table::prepare().unwrap();
        Self { memory: QueueMemory::create::<Vec<u8>>(most_items, u64::MAX).unwrap(), lends }
    }

    fn put(&self, bytes: &[u8]) -> Result<bool, EnqueueError> {
        let shape = ItemLayout::for_bytes(bytes.len(), false, self.lends);
        let mut long = if shape.long { Some(self.memory.fill(bytes)?) } else { None };
        let mut inside = self.memory.putting(None).unwrap();
        self.memory.put(&mut inside, (shape, bytes), long.as_mut(), |_| Ok(()))
    }

    fn get(&self) -> Result<(Vec<u8>, (u32, u32)), DequeueError> {
        let (mut buffer, mut got) = (Buffer::new(Vec::new), Got::<()>::new());
        let short = if self.lends { None } else { self.memory.get_short(&mut buffer)? };
        let len = if let Some(len) = short {
            len
        } else {
            let mut inside = self.memory.getting(None).unwrap();
            self.memory.get(&mut inside, (&mut buffer, &mut got), |_| Ok(()))?
        };
        self.memory.copy((&got, len), &mut buffer, self.lends);
        Ok((buffer.bytes(len).to_vec(), got.at))
    }

    fn sweep(&self) {
        let (_putting, _getting) = (self.memory.putting(None), self.memory.getting(None));
        self.memory.sweep();
    }
}

/// Thousands of steps, each of which must do what it does to the model.
fn goes_like_its_model(lends: bool) {
    let seed = number("PROCESS_TASK_SEED", 0x5eed);
    let mut random = Random(seed | 1);
    let most = 40;
    let queue = Bare::new(most, lends);
    let (mut waiting, mut lent) = (VecDeque::new(), Vec::new());
    let mut returned: Vec<Vec<u8>> = Vec::new();
    for _ in 0..6_000 * number("PROCESS_TASK_ROUNDS", 1) {
        match random.below(if lends { 9 } else { 7 }) {
            0..3 => {
                let item = random.item();
                match queue.put(&item) {
                    Ok(_) => waiting.push_back(item),
                    Err(refused) => assert!(matches!(refused, EnqueueError::Full(_)) && waiting.len() == most as usize),
                }
            }
            3..6 => match queue.get() {
                Ok((item, at)) => {
                    if let Some(which) = returned.iter().position(|back| *back == item) {
                        returned.swap_remove(which);
                    } else {
                        assert!(returned.is_empty(), "what came back comes first");
                        assert_eq!(Some(&item), waiting.pop_front().as_ref());
                    }
                    lent.push((item, at));
                }
                Err(nothing) => {
                    assert!(matches!(nothing, DequeueError::Empty(_)) && waiting.is_empty() && returned.is_empty());
                }
            },
            6 => queue.sweep(),
            more if !lent.is_empty() => {
                let (item, at) = lent.swap_remove(random.below(lent.len()));
                let mut inside = queue.memory.getting(None).unwrap();
                if more == 7 {
                    assert!(queue.memory.done(&mut inside, at));
                    assert!(!queue.memory.done(&mut inside, at), "it is done once");
                } else {
                    queue.memory.give_up(at);
                    returned.push(item);
                }
            }
            _ => {}
        }
        if !lends {
            lent.clear();
        }
        assert_eq!(queue.memory.len() as usize, waiting.len());
        let _inside = queue.memory.getting(None).unwrap();
        assert_eq!(queue.memory.unfinished(), (waiting.len() + lent.len() + returned.len()) as u64);
    }
    queue.put(&[]).ok();
    queue.memory.words().closed.store(1, Relaxed);
    assert_eq!(queue.put(&[]), Err(EnqueueError::Closed));
}

#[test]
fn a_queue_goes_like_its_model() {
    goes_like_its_model(false);
}

#[test]
fn a_queue_that_lends_goes_like_its_model() {
    goes_like_its_model(true);
}

/// Writes over everything but the locks, which say which process is waited for.
fn write_over(random: &mut Random, memory: &QueueMemory) {
    let words = memory.words();
    for _ in 0..=random.below(4) {
        let number = match random.below(3) {
            0 => random.next(),
            1 => random.next() % 64,
            _ => u64::MAX << random.below(64),
        };
        let small = (number & u64::from(u32::MAX)).try_into().unwrap();
        let side = if random.below(2) == 0 { &words.put } else { &words.get };
        let chunk = u32::try_from(random.below(8)).unwrap();
        match random.below(10) {
            0 => side.place.store(number, Relaxed),
            1 => side.seen.store(number, Relaxed),
            2 => side.bytes[random.below(2)].store(number, Relaxed),
            3 => side.number.store(number, Relaxed),
            4 => side.returned.store(small, Relaxed),
            5 => words.stock.near.store(small, Relaxed),
            6 => [&words.stock.warm, &words.stock.cold, &words.stock.dirty][random.below(3)].store(small, Relaxed),
            7 => memory.state(chunk).store(small, Relaxed),
            8 => memory.lent(chunk).store(small, Relaxed),
            _ => {
                memory.reach(chunk).unwrap();
                let unit = u32::try_from(random.below(40)).unwrap() % UNITS;
                memory.set_unit((chunk, unit), number);
            }
        }
    }
}

#[test]
fn what_was_written_over_is_an_error_and_no_more() {
    let seed = number("PROCESS_TASK_SEED", 0x5eed);
    let mut random = Random(seed | 1);
    let mut corrupt = 0;
    for round in 0..300 * number("PROCESS_TASK_ROUNDS", 1) {
        let queue = Bare::new(100, round % 2 == 1);
        let mut held = Vec::new();
        for _ in 0..20 {
            let _ = queue.put(&random.item());
            held.extend(queue.get().ok().filter(|_| random.below(2) == 0).map(|(_, at)| at));
        }
        for _ in 0..10 {
            write_over(&mut random, &queue.memory);
            for _ in 0..4 {
                let _ = queue.put(&random.item());
                match queue.get() {
                    Ok((_, at)) => held.push(at),
                    Err(error) => corrupt += u64::from(error == DequeueError::Corrupt),
                }
            }
            queue.sweep();
            if let Some(at) = held.pop() {
                let mut inside = queue.memory.getting(None).unwrap();
                queue.memory.done(&mut inside, at);
                queue.memory.give_up(at);
                queue.memory.is_lent_elsewhere();
                queue.memory.count_lent();
            }
        }
    }
    assert!(corrupt > 0, "nothing was ever found out");
}
