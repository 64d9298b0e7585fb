//! What a queue promises when no process dies: order, limits, time-outs, and memory that goes back.
//!
//! Runs in: the test process; its tasks in children. Never: relies on how fast anything is; that a time-out is not shorter
//! than asked is tried, and that it is not much longer is left to the other side's patience.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::chaos::{Random, start};
use crate::support::queue_memory;
use crate::support::signal_storm::{HANDLED, storm};
use crate::support::{PATIENCE, promise, rounds};
use process_task::channel::{
    Queue, QueueLimits, QueueReceiver, QueueSender, RecvError, RecvTimeoutError, SimpleQueue, TryRecvError,
};
use process_task::{Error, ErrorKind, StartMethod, process_task};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

under_every_start_method! {
    what_was_put_before_a_process_began_comes_first,
    each_producers_items_come_in_its_order_and_each_comes_once,
    items_of_any_length_come_as_they_were_put,
    simple_queue_is_empty_until_a_send,
    signals_neither_lose_items_nor_end_a_wait,
}

const A_WHILE: Duration = Duration::from_millis(80);

/// What it says, and how long it took.
fn timed<R>(what: impl FnOnce() -> R) -> (R, Duration) {
    let since = Instant::now();
    let result = what();
    (result, since.elapsed())
}

#[test]
fn a_full_queue_says_so_at_once_or_when_the_time_is_over() {
    promise(|| {
        let queue = Queue::bounded(6).unwrap();
        let (producer, clone) = (queue.sender(), queue.clone());
        queue.send(1).unwrap();
        queue.try_send(2).unwrap();
        queue.send_timeout(3, Duration::ZERO).unwrap();
        producer.send(4).unwrap();
        producer.try_send(5).unwrap();
        clone.send_timeout(6, Duration::MAX).unwrap();
        assert_eq!((queue.len(), queue.is_empty()), (6, false));

        let error = queue.try_send(7).unwrap_err();
        assert!(error.is_full() && !error.to_string().is_empty());
        assert_eq!(error.into_inner(), 7);
        for time in [Duration::ZERO, A_WHILE] {
            let (result, took) = timed(|| producer.send_timeout(7, time));
            assert!(result.unwrap_err().is_timeout());
            assert!(took >= time, "{took:?}");
        }
        // Nothing of that has changed the queue.
        assert_eq!((0..6).map(|_| queue.recv().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert_eq!((queue.len(), queue.is_empty()), (0, true));
        queue.try_send(8).unwrap();
    });
}

#[test]
fn an_empty_queue_says_so_at_once_or_when_the_time_is_over() {
    promise(|| {
        let queue = Queue::unbounded().unwrap();
        let (consumer, clone) = (queue.receiver(), queue.clone());
        (1..=6).for_each(|number| queue.send(number).unwrap());
        assert_eq!(queue.recv(), Ok(1));
        assert_eq!(queue.try_recv(), Ok(2));
        assert_eq!(consumer.recv_timeout(Duration::ZERO), Ok(3));
        assert_eq!(consumer.recv_timeout(Duration::MAX), Ok(4));
        assert_eq!(clone.iter().next(), Some(5));
        assert_eq!((&consumer).into_iter().next(), Some(6));

        assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
        for time in [Duration::ZERO, A_WHILE] {
            let (result, took) = timed(|| consumer.recv_timeout(time));
            assert_eq!(result, Err(RecvTimeoutError::Timeout));
            assert!(took >= time, "{took:?}");
        }
        let later = thread::spawn(move || clone.recv_timeout(PATIENCE));
        queue.send(7).unwrap();
        assert_eq!(later.join().unwrap(), Ok(7));
    });
}

#[process_task]
fn put_ten(queue: Queue<u32>, from: u32) {
    (from..from + 10).for_each(|number| queue.send(number).unwrap());
}

fn what_was_put_before_a_process_began_comes_first(method: StartMethod) {
    let queue = Queue::unbounded().unwrap();
    (0..10).for_each(|number| queue.send(number).unwrap());
    start(method, put_ten, (queue.clone(), 10)).join().unwrap();
    let all: Vec<_> = (0..20).map(|_| queue.recv().unwrap()).collect();
    assert_eq!(all, (0..20).collect::<Vec<_>>());
    assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
}

const EACH: u32 = 3000;

#[process_task]
fn produce(index: u32, numbers: QueueSender<(u32, u32, Vec<u8>)>) {
    for number in 0..EACH {
        // Of many lengths, so that they end at many places of a chunk.
        let padding = vec![7; (number * 131 % 977) as usize];
        numbers.send((index, number, padding)).unwrap();
    }
}

#[process_task]
fn consume(numbers: QueueReceiver<(u32, u32, Vec<u8>)>) -> Vec<(u32, u32)> {
    let check = |(index, number, padding): (u32, u32, Vec<u8>)| {
        assert!(padding.len() == (number * 131 % 977) as usize && padding.iter().all(|byte| *byte == 7));
        (index, number)
    };
    numbers.iter().map(check).collect()
}

fn each_producers_items_come_in_its_order_and_each_comes_once(method: StartMethod) {
    const PRODUCERS: u32 = 3;
    for queue in [
        Queue::bounded(1).unwrap(),
        Queue::with_limits(QueueLimits { items: 1000, bytes: 9000 }).unwrap(),
        Queue::unbounded().unwrap(),
    ] {
        let (producer, consumer) = queue.split();
        let producers: Vec<_> = (0..PRODUCERS).map(|index| start(method, produce, (index, producer.clone()))).collect();
        let consumers: Vec<_> = (0..2).map(|_| start(method, consume, consumer.clone())).collect();
        drop((producer, consumer));
        let got: Vec<Vec<_>> = consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect();
        for list in &got {
            for index in 0..PRODUCERS {
                let of_one = list.iter().filter(|(of, _)| *of == index).map(|(_, number)| *number);
                assert!(of_one.is_sorted(), "the items of {index} are out of order");
            }
        }
        let mut all = got.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq((0..PRODUCERS).flat_map(|index| (0..EACH).map(move |number| (index, number)))));
        for producer in producers {
            producer.join().unwrap();
        }
    }
}

/// So many bytes, each another one than those near it; every 64 KiB begin with their number.
fn pattern(len: usize) -> Vec<u8> {
    // By whole slices: a loop over so many bytes takes longer than all else in a build without optimization.
    let mut bytes = (0..251).collect::<Vec<u8>>().repeat(len / 251 + 1);
    bytes.truncate(len);
    for (number, part) in bytes.chunks_exact_mut(64 << 10).enumerate() {
        part[..8].copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

/// Lengths beside which something changes: units, the longest item that stands among others, chunks, stretches.
fn lengths() -> Vec<usize> {
    let edges = [32 << 10, 64 << 10, 128 << 10, 1 << 20, 16 << 20, 20 << 20];
    let near = edges.into_iter().flat_map(|edge| [edge - 24, edge - 17, edge - 16, edge - 8, edge - 1, edge, edge + 1]);
    [0, 1, 7, 8, 9].into_iter().chain(near).collect()
}

#[process_task]
fn echo(there: QueueReceiver<Vec<u8>>, back: QueueSender<Vec<u8>>) {
    there.iter().for_each(|item| back.send(item).unwrap());
}

fn items_of_any_length_come_as_they_were_put(method: StartMethod) {
    let (there, from) = Queue::bounded(3).unwrap().split();
    let (to, back) = Queue::bounded(3).unwrap().split();
    let process = start(method, echo, (from, to));
    for len in lengths() {
        let sent = pattern(len);
        there.send(sent.clone()).unwrap();
        // Among others, which must come as they are, too.
        there.send(vec![9; 5]).unwrap();
        let item = back.recv().unwrap();
        assert!(item == sent, "{len} bytes came as {}", item.len());
        assert_eq!(back.recv().unwrap(), [9; 5]);
    }
    drop(there);
    assert_eq!(back.recv(), Err(RecvError::Disconnected));
    process.join().unwrap();
}

#[process_task]
fn put_both(queue: SimpleQueue<bool>) {
    queue.send(true).unwrap();
    queue.send(false).unwrap();
}

fn simple_queue_is_empty_until_a_send(method: StartMethod) {
    let queue = SimpleQueue::new().unwrap();
    assert!(queue.is_empty());
    assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
    assert!(timed(|| queue.recv_timeout(A_WHILE).unwrap_err()).1 >= A_WHILE);
    start(method, put_both, queue.clone()).join().unwrap();
    assert!(!queue.is_empty());
    assert_eq!((queue.recv(), queue.recv_timeout(PATIENCE)), (Ok(true), Ok(false)));
    assert!(queue.is_empty());
}

#[process_task]
fn get_in_a_storm(numbers: QueueReceiver<u32>, back: QueueSender<u32>) -> (Duration, u32) {
    storm();
    let (result, took) = timed(|| numbers.recv_timeout(A_WHILE));
    assert_eq!(result, Err(RecvTimeoutError::Timeout));
    back.send(0).unwrap();
    let sum = numbers.iter().inspect(|number| back.send(*number).unwrap()).sum::<u32>();
    assert_eq!(sum, (1..=2000).sum());
    (took, HANDLED.load(Relaxed))
}

fn signals_neither_lose_items_nor_end_a_wait(method: StartMethod) {
    let (producer, numbers) = Queue::bounded(2).unwrap().split();
    let (to, back) = Queue::bounded(2).unwrap().split();
    let process = start(method, get_in_a_storm, (numbers, to));
    assert_eq!(back.recv(), Ok(0));
    let getter = thread::spawn(move || back.iter().collect::<Vec<_>>());
    (1..=2000).for_each(|number| producer.send(number).unwrap());
    drop(producer);
    let (took, signals) = process.join().unwrap();
    assert!(took >= A_WHILE && signals > 100, "{took:?}, {signals} signals");
    assert!(getter.join().unwrap().into_iter().eq(1..=2000));
}

#[test]
fn a_limit_of_bytes_counts_what_waits_and_nothing_else() {
    promise(|| {
        let queue = Queue::with_limits(QueueLimits { items: 1000, bytes: 4000 }).unwrap();
        let fill = || std::iter::repeat_with(|| queue.try_send([5u64; 100].to_vec())).take_while(Result::is_ok).count();
        let first = fill();
        // 800 bytes each, and up to 40 for itself.
        assert_eq!(first, 4);
        for _ in 0..1000 {
            assert_eq!(queue.recv().unwrap(), [5; 100]);
            assert_eq!(fill(), 1);
        }
        while queue.try_recv().is_ok() {}
        assert_eq!(fill(), first);
        while queue.try_recv().is_ok() {}
        // One that would never fit is refused at once, with what would.
        let error = queue.send(vec![1; 501]).unwrap_err();
        let Some(ErrorKind::TooLong { bytes, limit, .. }) = error.failure().map(Error::kind) else { panic!("{error}") };
        assert!(*bytes > 4000 && *limit <= 4000, "{bytes} {limit}");
        assert_eq!((error.into_inner().len(), queue.len()), (501, 0));
        queue.try_send(vec![1; 490]).unwrap();
    });
}

#[test]
fn a_queue_with_room_for_nothing_is_not_made() {
    promise(|| {
        assert!(Queue::<u8>::bounded(0).is_err());
        assert!(Queue::<u8>::with_limits(QueueLimits { items: 0, bytes: 1 }).is_err());
        assert!(Queue::<u8>::with_limits(QueueLimits { items: 1, bytes: 0 }).is_err());
        let tiny = Queue::<u8>::with_limits(QueueLimits { items: 1, bytes: 1 }).unwrap();
        assert!(matches!(tiny.send(1).unwrap_err().failure().map(Error::kind), Some(ErrorKind::TooLong { .. })));
        let endless = Queue::<u8>::with_limits(QueueLimits { items: usize::MAX, bytes: usize::MAX }).unwrap();
        endless.send(1).unwrap();
        assert_eq!(endless.recv(), Ok(1));
    });
}

/// Refuses to be encoded if it is 1, panics if it is 2; refuses to be decoded if it is 3.
#[derive(Debug, PartialEq)]
struct Fragile(u8);

impl Serialize for Fragile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            1 => Err(ser::Error::custom("it does not like to")),
            2 => panic!("it breaks"),
            number => serializer.serialize_u8(number),
        }
    }
}

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            3 => Err(de::Error::custom("it does not like to come out")),
            number => Ok(Self(number)),
        }
    }
}

#[test]
fn a_value_that_cannot_be_encoded_leaves_the_queue_as_it_was() {
    promise(|| {
        let queue = Queue::bounded(1).unwrap();
        for _ in 0..5 {
            let error = queue.send((vec![0u8; 50_000], Fragile(1))).unwrap_err();
            assert!(
                matches!(error.failure().map(Error::kind), Some(ErrorKind::CannotEncode { reason, .. }) if reason.contains("does not like"))
            );
            assert_eq!(error.into_inner().1, Fragile(1));
            let put = std::panic::AssertUnwindSafe(|| queue.send((vec![], Fragile(2))));
            assert!(std::panic::catch_unwind(put).is_err());
            assert_eq!(queue.len(), 0);
        }
        queue.try_send((vec![], Fragile(0))).unwrap();
        assert_eq!(queue.recv(), Ok((vec![], Fragile(0))));
    });
}

#[test]
fn item_that_cannot_be_decoded_is_an_error_and_the_next_comes() {
    promise(|| {
        let queue = Queue::unbounded().unwrap();
        for number in [3, 4, 3] {
            queue.send(Fragile(number)).unwrap();
        }
        assert!(
            matches!(queue.recv(), Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { reason, .. } if reason.contains("come out")))
        );
        assert_eq!(queue.recv(), Ok(Fragile(4)));
        let next = std::panic::AssertUnwindSafe(|| queue.iter().next());
        assert!(std::panic::catch_unwind(next).is_err(), "going through it panics");
        assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
    });
}

#[test]
fn memory_goes_back_as_items_are_got() {
    promise(|| {
        let queue = Queue::<Vec<u8>>::unbounded().unwrap();
        let empty = queue_memory::of_the_only_one();
        // The chunks that are kept, and the pages on which it is written which chunk is whose.
        let kept = empty + queue_memory::KEPT * queue_memory::CHUNK + (64 << 10);
        for (len, count) in [(1, 200_000), (100, 100_000), (9000, 3000), (32_768, 1000), (1 << 20, 60), (20 << 20, 4)] {
            let item = pattern(len);
            (0..count).for_each(|_| queue.send(item.clone()).unwrap());
            let full = queue_memory::of_the_only_one();
            assert!(full > (len * count) as u64, "{full} bytes hold {count} items of {len}");
            (0..count).for_each(|_| assert!(queue.recv().unwrap() == item));
            let left = queue_memory::of_the_only_one();
            assert!(
                left <= kept,
                "{left} bytes are left of {full} after {count} items of {len}, and {empty} were there"
            );
        }
    });
}

#[test]
fn what_goes_through_slowly_takes_no_more_memory_than_waits() {
    promise(|| {
        let queue = Queue::<Vec<u8>>::unbounded().unwrap();
        let empty = queue_memory::of_the_only_one();
        for round in 0..60_000 {
            queue.send(vec![1; 100 + round % 3000]).unwrap();
            if round >= 10 {
                queue.recv().unwrap();
            }
        }
        let now = queue_memory::of_the_only_one();
        assert!(now <= empty + queue_memory::KEPT * queue_memory::CHUNK, "{now} bytes are there for ten items");
    });
}

#[test]
fn long_items_never_get_memory_in_which_others_stand() {
    promise(|| {
        // Of so many chunks, all but the last of which are full.
        let long = |chunks: usize, byte| vec![byte; chunks * ((64 << 10) - 8) - 100];
        let queue = Queue::unbounded().unwrap();
        queue.send(long(20, 1)).unwrap();
        queue.send(long(40, 2)).unwrap();
        assert!(queue.recv().unwrap() == long(20, 1));
        queue.send(long(16, 3)).unwrap();
        assert!(queue.recv().unwrap() == long(40, 2));
        // What no item has now, and not more, is used for this one.
        queue.send(long(43, 4)).unwrap();
        queue.send(vec![5; 10]).unwrap();
        assert!(queue.recv().unwrap() == long(16, 3));
        assert!(queue.recv().unwrap() == long(43, 4));
        assert_eq!(queue.recv().unwrap(), [5; 10]);
    });
}

/// One thread, any order of operations, and a list that does the same.
#[test]
fn a_queue_does_what_a_list_does_whatever_the_order() {
    promise(|| {
        let mut random = Random::new(11);
        for round in 0..rounds(10) {
            let items = 1 + random.below(200);
            let queue = if round % 2 == 0 { Queue::unbounded() } else { Queue::bounded(items) }.unwrap();
            let (mut list, mut next) = (VecDeque::new(), 0u8);
            for _ in 0..400 {
                let many = [1, 4, 20][random.below(3)];
                if random.below(2) == 0 {
                    for _ in 0..many {
                        let len = [0, 9, 300, 20_000, 33_000, 70_000, 400_000][random.below(7)] + random.below(100);
                        let is_full = round % 2 == 1 && list.len() == items;
                        next = next.wrapping_add(1);
                        assert_eq!(queue.try_send(vec![next; len]).is_err(), is_full);
                        if !is_full {
                            list.push_back((next, len));
                        }
                    }
                } else {
                    for _ in 0..many {
                        let got = queue.try_recv().ok();
                        let fits = |item: &Vec<u8>, (byte, len)| *item == vec![byte; len];
                        match (got, list.pop_front()) {
                            (None, None) => {}
                            (Some(item), Some(known)) if fits(&item, known) => {}
                            (got, known) => panic!("{:?} came for {known:?}", got.map(|item| item.len())),
                        }
                    }
                }
                assert_eq!(queue.len(), list.len());
            }
        }
    });
}

#[test]
fn many_threads_of_one_process_share_one_handle() {
    promise(|| {
        let queue = Queue::bounded(5).unwrap();
        let sum = thread::scope(|scope| {
            let getters: Vec<_> = (0..4).map(|_| scope.spawn(|| queue.iter().sum::<u64>())).collect();
            let putters: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (1..=2000).for_each(|number| queue.send(number).unwrap()))).collect();
            for putter in putters {
                putter.join().unwrap();
            }
            queue.close();
            getters.into_iter().map(|getter| getter.join().unwrap()).sum::<u64>()
        });
        assert_eq!(sum, 4 * (1..=2000).sum::<u64>());
    });
}
