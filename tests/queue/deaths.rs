//! What is left of a queue when a process dies in it: at every moment of putting, of getting, and of all else.
//!
//! Runs in: the test process, which follows children instruction by instruction and kills them where it likes.
//! Never: counts on chance to hit a moment. `PROCESS_TASK_ROUNDS` says how many times as many moments are tried.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::support::queue_memory;
use crate::support::rounds;
use crate::support::shared_counter::{Stage, stage as new_stage};
use crate::support::single_step::{Followed, followed, moments};
use process_task::channel::{
    Item, JoinableQueue, Queue, QueueReceiver, QueueSender, Receiver, RecvTimeoutError, Sender, TryRecvError, one_way,
};
use process_task::{Process, ProcessBuilder, Shared, StartMethod, Task, process_task};

under_every_start_method! {
    within 300 seconds;
    killed_while_putting_its_item_is_there_or_was_never_put,
    killed_while_getting_the_item_is_still_there_or_was_taken,
}

/// How a process was started makes no difference to what it does in a queue: one way is enough for what takes long.
macro_rules! under_the_fork_server {
    ($($name:ident),+ $(,)?) => {
        mod anyhow {
            $(#[test] fn $name() {
                let limit = std::time::Duration::from_mins(5);
                let test = || super::$name(process_task::StartMethod::ForkServer);
                crate::support::promise_with(limit, &[crate::support::single_step::SHORT_COPIES], test);
            })+
        }
    };
}

under_the_fork_server! {
    killed_while_sending_a_chunks_first_item_sends_or_not,
    killed_while_sending_a_long_item_sends_whole_or_nothing,
    killed_while_putting_handles_they_are_there_or_gone,
    killed_while_receiving_a_chunks_first_item_leaves_or_takes,
    killed_while_receiving_a_long_item_leaves_or_takes_it,
    killed_while_getting_handles_they_are_still_there_or_gone,
    killed_while_it_borrows_an_item_comes_back,
    killed_while_calling_done_is_done_or_item_comes_back,
    killed_while_it_gives_an_item_back_it_comes_back,
    killed_while_it_closes_the_queue_is_closed_or_is_not,
    killed_while_it_lets_go_of_an_end_it_has,
    stopped_while_putting_others_keep_their_time_outs,
    stopped_while_getting_others_get_all_else,
}

fn start<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> Process<T::Output> {
    ProcessBuilder::new().start_method(method).spawn(task, args).unwrap()
}

/// How soon those that live must get on.
const SOON: Duration = Duration::from_secs(10);

/// What it gets is what it puts; and after two items that need more memory than there ever was, so that all is searched which
/// is free, there is not more than there may be.
macro_rules! has_lost_no_memory {
    ($queue:expr, $before:expr) => {{
        let (queue, before) = (&$queue, $before);
        (0..2).for_each(|_| queue.send_timeout(vec![7; 40 << 20], SOON).unwrap());
        (0..2).for_each(|_| drop(queue.recv_timeout(SOON).map(is_done).unwrap()));
        assert_eq!(queue.len(), 0);
        let now = queue_memory::of_the_only_one();
        assert!(
            now <= before + queue_memory::KEPT * queue_memory::CHUNK + (8 << 10),
            "{now} bytes are there, and {before} were"
        );
    }};
}

trait Done {
    fn done(&mut self);
}

impl Done for Vec<u8> {
    fn done(&mut self) {}
}

impl Done for Item<'_, Vec<u8>> {
    fn done(&mut self) {
        Item::done(self);
    }
}

fn is_done<T: Done + Deref<Target = I>, I: ?Sized>(mut item: T) -> T {
    item.done();
    item
}

/// Kills a process at moments from the first to the last of what `begin` has it do. `check` says whether it has happened, if that
/// can be told: then both must be seen, a process that came to the end of it has done it, and the moments just before and
/// after are looked for.
fn at_every_moment(mut begin: impl FnMut(&Stage) -> Process<()>, mut check: impl FnMut() -> Option<bool>) {
    let count = rounds(3);
    let (mut not_yet, mut tried) = (0, 0);
    let mut try_one = |most| {
        let stage = new_stage();
        let followed = Followed::follow(begin(&stage), &stage, most);
        let steps = followed.steps;
        let is_done = followed.kill();
        let has_happened = check();
        assert!(has_happened != Some(false) || !is_done, "it was done, and has not happened");
        tried += 1;
        (steps, has_happened)
    };
    let (all, can_be_told) = try_one(usize::MAX);
    let mut already = all;
    moments(all, count, |most| match try_one(most) {
        (steps, Some(false)) => not_yet = not_yet.max(steps),
        (steps, _) => already = already.min(steps),
    });
    if can_be_told.is_some() {
        for _ in 0..count {
            match try_one(usize::midpoint(not_yet, already)) {
                (steps, Some(false)) => not_yet = steps,
                (steps, _) => already = steps,
            }
        }
        assert!(0 < not_yet && already <= all + all / 2, "{not_yet}, {already} of {all}");
    }
    println!("killed at {tried} of {all} instructions; it happens after {not_yet}");
}

/// What this thread keeps for items of that length is there, and is not to be followed.
fn warm_up(len: usize) {
    let queue = Queue::unbounded().unwrap();
    queue.send(vec![0u8; len]).unwrap();
    assert_eq!(queue.recv().unwrap().len(), len);
}

#[process_task]
fn put_one(queue: Queue<Vec<u8>>, len: usize, stage: &Stage) {
    warm_up(len);
    let item = vec![3; len];
    followed(stage, || queue.send(item).unwrap());
}

#[process_task]
fn get_one(queue: Queue<Vec<u8>>, stage: &Stage) {
    warm_up(40_000);
    followed(stage, || drop(queue.recv().unwrap()));
}

/// Items before the one that is put, of so many bytes each, and its length.
fn killed_while_putting(method: StartMethod, (others, len): (usize, usize)) {
    let queue = Queue::<Vec<u8>>::unbounded().unwrap();
    let before = queue_memory::of_the_only_one();
    let begin = |stage: &Stage| {
        (1..=2).for_each(|number| queue.send(vec![number; others]).unwrap());
        start(method, put_one, (queue.clone(), len, stage))
    };
    at_every_moment(begin, || {
        let since = Instant::now();
        assert!((1..=2).all(|number| queue.recv_timeout(SOON).unwrap() == vec![number; others]));
        queue.send_timeout(vec![4], SOON).unwrap();
        let next = queue.recv_timeout(SOON).unwrap();
        let was_put = next != [4];
        if was_put {
            assert!(next == vec![3; len], "what was put is torn");
            assert_eq!(queue.recv_timeout(SOON).unwrap(), [4]);
        }
        assert!(since.elapsed() < SOON);
        Some(was_put)
    });
    has_lost_no_memory!(queue, before);
}

fn killed_while_putting_its_item_is_there_or_was_never_put(method: StartMethod) {
    killed_while_putting(method, (10, 10));
}

fn killed_while_sending_a_chunks_first_item_sends_or_not(method: StartMethod) {
    killed_while_putting(method, (25_000, 20_000));
}

fn killed_while_sending_a_long_item_sends_whole_or_nothing(method: StartMethod) {
    killed_while_putting(method, (10, 40_000));
}

fn killed_while_getting(method: StartMethod, len: usize) {
    let queue = Queue::<Vec<u8>>::unbounded().unwrap();
    let before = queue_memory::of_the_only_one();
    let begin = |stage: &Stage| {
        (1..=3).for_each(|number| queue.send(vec![number; len]).unwrap());
        // So that some begin at the end of a chunk.
        assert!(queue.recv().unwrap() == vec![1; len]);
        start(method, get_one, (queue.clone(), stage))
    };
    at_every_moment(begin, || {
        let next = queue.recv_timeout(SOON).unwrap();
        let was_taken = next != vec![2; len];
        let last = if was_taken { next } else { queue.recv_timeout(SOON).unwrap() };
        assert!(last == vec![3; len], "what was there is torn");
        assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
        Some(was_taken)
    });
    has_lost_no_memory!(queue, before);
}

fn killed_while_getting_the_item_is_still_there_or_was_taken(method: StartMethod) {
    killed_while_getting(method, 10);
}

fn killed_while_receiving_a_chunks_first_item_leaves_or_takes(method: StartMethod) {
    killed_while_getting(method, 25_000);
}

fn killed_while_receiving_a_long_item_leaves_or_takes_it(method: StartMethod) {
    killed_while_getting(method, 40_000);
}

/// What is on its way in a socket is in no list of the system's; but it is known of an end whether a process has it.
type End = Sender<u64>;

#[process_task]
fn put_end(queue: Queue<End>, end: End, stage: &Stage) {
    followed(stage, || queue.send(end).unwrap());
}

#[process_task]
fn get_end(queue: Queue<End>, stage: &Stage) {
    followed(stage, || drop(queue.recv().unwrap()));
}

fn new_end() -> (End, Receiver<u64>) {
    one_way().unwrap()
}

fn killed_while_putting_handles_they_are_there_or_gone(method: StartMethod) {
    let (queue, other) = (Queue::unbounded().unwrap(), Cell::new(None));
    let begin = |stage: &Stage| {
        queue.send(new_end().0).unwrap();
        let (end, receiver) = new_end();
        other.set(Some(receiver));
        start(method, put_end, (queue.clone(), end, stage))
    };
    let mut turn = 0;
    at_every_moment(begin, || {
        drop(queue.recv_timeout(SOON).unwrap());
        let (was_put, receiver) = (!queue.is_empty(), other.take().unwrap());
        if was_put {
            queue.recv_timeout(SOON).unwrap().send(2).unwrap();
            assert_eq!(receiver.recv_timeout(SOON), Ok(2));
        }
        // Some time later a process waits, or there is something else.
        turn += 1;
        if turn % 3 == 0 {
            queue.send(new_end().0).unwrap();
            drop(queue.recv_timeout(SOON).unwrap());
        } else {
            assert!(matches!(queue.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout)));
        }
        assert_eq!(receiver.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected), "a process has what was put");
        Some(was_put)
    });
}

fn killed_while_getting_handles_they_are_still_there_or_gone(method: StartMethod) {
    let (queue, others) = (Queue::unbounded().unwrap(), Cell::new(None));
    let begin = |stage: &Stage| {
        let ((first, of_first), (second, of_second)) = (new_end(), new_end());
        others.set(Some((of_first, of_second)));
        queue.send(first).unwrap();
        queue.send(second).unwrap();
        start(method, get_end, (queue.clone(), stage))
    };
    at_every_moment(begin, || {
        let (of_first, of_second) = others.take().unwrap();
        let was_taken = queue.len() == 1;
        if !was_taken {
            queue.recv_timeout(SOON).unwrap().send(1).unwrap();
            assert_eq!(of_first.recv_timeout(SOON), Ok(1));
        }
        queue.recv_timeout(SOON).unwrap().send(2).unwrap();
        assert_eq!(of_second.recv_timeout(SOON), Ok(2));
        let both = [of_first.recv_timeout(SOON), of_second.recv_timeout(SOON)];
        assert_eq!(
            both,
            [Err(RecvTimeoutError::Disconnected), Err(RecvTimeoutError::Disconnected)],
            "a process has what was got"
        );
        Some(was_taken)
    });
}

#[process_task]
fn borrow(queue: JoinableQueue<Vec<u8>>, stage: &Stage) {
    warm_up(40_000);
    followed(stage, || _ = std::mem::ManuallyDrop::new(queue.recv().unwrap()));
}

#[process_task]
fn finish(queue: JoinableQueue<Vec<u8>>, is_done: bool, stage: &Stage) {
    let mut item = queue.recv().unwrap();
    assert_eq!(item[0], 1);
    followed(stage, || {
        if is_done {
            item.done();
        }
        drop(item);
    });
}

/// Which items come until all are done.
fn until_all_are_done(queue: &JoinableQueue<Vec<u8>>, len: usize) -> Vec<u8> {
    let mut seen = vec![];
    while queue.wait_all_done_timeout(Duration::ZERO).is_err() {
        let mut item = queue.recv_timeout(SOON).unwrap();
        assert!(*item == vec![item[0]; len], "what was lent is torn");
        seen.push(item[0]);
        item.done();
    }
    assert_eq!((queue.len(), queue.unfinished()), (0, 0));
    seen.sort_unstable();
    seen
}

fn killed_while_it_borrows_an_item_comes_back(method: StartMethod) {
    for len in [10, 40_000] {
        let queue = JoinableQueue::unbounded().unwrap();
        let before = queue_memory::of_the_only_one();
        let begin = |stage: &Stage| {
            (1..=3).for_each(|number| queue.send(vec![number; len]).unwrap());
            start(method, borrow, (queue.clone(), stage))
        };
        at_every_moment(begin, || {
            assert_eq!(until_all_are_done(&queue, len), [1, 2, 3]);
            None
        });
        has_lost_no_memory!(queue, before);
    }
}

fn killed_while_calling_done_is_done_or_item_comes_back(method: StartMethod) {
    for len in [10, 40_000] {
        let queue = JoinableQueue::unbounded().unwrap();
        let before = queue_memory::of_the_only_one();
        let begin = |stage: &Stage| {
            (1..=3).for_each(|number| queue.send(vec![number; len]).unwrap());
            start(method, finish, (queue.clone(), true, stage))
        };
        at_every_moment(begin, || {
            let rest = until_all_are_done(&queue, len);
            assert!(rest == [1, 2, 3] || rest == [2, 3], "{rest:?}");
            Some(rest.len() == 2)
        });
        has_lost_no_memory!(queue, before);
    }
}

fn killed_while_it_gives_an_item_back_it_comes_back(method: StartMethod) {
    let queue = JoinableQueue::unbounded().unwrap();
    let before = queue_memory::of_the_only_one();
    let begin = |stage: &Stage| {
        (1..=3).for_each(|number| queue.send(vec![number; 10]).unwrap());
        start(method, finish, (queue.clone(), false, stage))
    };
    at_every_moment(begin, || {
        assert_eq!(until_all_are_done(&queue, 10), [1, 2, 3]);
        None
    });
    has_lost_no_memory!(queue, before);
}

#[process_task]
fn close(queue: Queue<u64>, stage: &Stage) {
    followed(stage, || queue.close());
}

fn killed_while_it_closes_the_queue_is_closed_or_is_not(method: StartMethod) {
    let queue = RefCell::new(Queue::unbounded().unwrap());
    let begin = |stage: &Stage| {
        queue.replace(Queue::unbounded().unwrap());
        queue.borrow().send(1).unwrap();
        start(method, close, (queue.borrow().clone(), stage))
    };
    at_every_moment(begin, || {
        let queue = queue.borrow();
        let is_closed = queue.is_closed();
        assert_eq!(queue.send_timeout(2, SOON).is_err(), is_closed);
        assert_eq!(queue.recv_timeout(SOON), Ok(1));
        let next = if is_closed { Err(RecvTimeoutError::Disconnected) } else { Ok(2) };
        assert_eq!(queue.recv_timeout(SOON), next);
        Some(is_closed)
    });
}

#[process_task]
fn let_go(producer: QueueSender<u64>, other: QueueReceiver<u64>, stage: &Stage) {
    followed(stage, || drop((producer, other)));
}

fn killed_while_it_lets_go_of_an_end_it_has(method: StartMethod) {
    let ends = RefCell::new(None);
    let begin = |stage: &Stage| {
        let ((producer, consumer), (other, others)) =
            (Queue::unbounded().unwrap().split(), Queue::bounded(1).unwrap().split());
        producer.send(1).unwrap();
        other.send(1).unwrap();
        ends.replace(Some((consumer, other)));
        start(method, let_go, (producer, others, stage))
    };
    at_every_moment(begin, || {
        let (consumer, producer): (QueueReceiver<u64>, QueueSender<u64>) = ends.take().unwrap();
        assert_eq!(
            (consumer.recv_timeout(SOON), consumer.recv_timeout(SOON)),
            (Ok(1), Err(RecvTimeoutError::Disconnected))
        );
        let since = Instant::now();
        producer.send_timeout(2, SOON).unwrap_err();
        assert!(since.elapsed() < SOON, "no waiter was told");
        None
    });
}

/// How long a wait lasts that must not last for ever.
const A_WHILE: Duration = Duration::from_millis(60);

#[process_task]
fn put_number(queue: Queue<u64>, number: u64, stage: &Stage) {
    followed(stage, || queue.send(number).unwrap());
}

fn stopped_while_putting_others_keep_their_time_outs(method: StartMethod) {
    let mut kept_waiting = 0;
    let all = Cell::new(0);
    let mut stop_at = |most| {
        let (queue, stage) = (Queue::unbounded().unwrap(), new_stage());
        (1..=2).for_each(|number| queue.send(number).unwrap());
        let stopped = Followed::follow(start(method, put_number, (queue.clone(), 9, &stage)), &stage, most);
        all.set(stopped.steps);
        let since = Instant::now();
        let mut expected = vec![1, 2, 9];
        let put = [queue.try_send(3).is_ok(), queue.send_timeout(4, A_WHILE).is_ok()];
        for (number, put) in (3..).zip(put) {
            if put {
                expected.push(number);
            } else {
                kept_waiting += 1;
            }
        }
        // What is there can be got meanwhile, and waiting for more ends.
        let mut got: Vec<_> = std::iter::from_fn(|| queue.recv_timeout(A_WHILE).ok()).collect();
        assert!(since.elapsed() < SOON && got.len() >= 2, "{:?}, {got:?}", since.elapsed());
        stopped.go_on(&stage);
        got.extend(std::iter::from_fn(|| queue.try_recv().ok()));
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got, expected);
    };
    stop_at(usize::MAX);
    moments(all.get(), rounds(3) * 3, stop_at);
    assert!(kept_waiting > 0, "it was never stopped where it keeps others waiting");
}

#[process_task]
fn get_number(queue: Queue<u64>, got: Shared<AtomicU64>, stage: &Stage) {
    followed(stage, || got.store(queue.recv().unwrap(), SeqCst));
}

fn stopped_while_getting_others_get_all_else(method: StartMethod) {
    let all = Cell::new(0);
    let stop_at = |most| {
        let (queue, stage, its) = (Queue::unbounded().unwrap(), new_stage(), Shared::new(AtomicU64::new(0)).unwrap());
        let mut expected: Vec<u64> = (1..=3).collect();
        for number in &expected {
            queue.send(*number).unwrap();
        }
        let process = start(method, get_number, (queue.clone(), its.clone(), &stage));
        let stopped = Followed::follow(process, &stage, most);
        all.set(stopped.steps);
        let mut got: Vec<_> = std::iter::from_fn(|| queue.try_recv().ok()).collect();
        // The memory that it looks at is used for others, more than once.
        for number in 10..30_000 {
            queue.send_timeout(number, SOON).unwrap();
            expected.push(number);
            got.extend(queue.recv_timeout(SOON));
        }
        for number in 30_000..30_003 {
            queue.send(number).unwrap();
            expected.push(number);
        }
        stopped.go_on(&stage);
        got.push(its.load(SeqCst));
        got.extend(std::iter::from_fn(|| queue.try_recv().ok()));
        got.sort_unstable();
        assert!(got == expected, "{} came of {}", got.len(), expected.len());
    };
    stop_at(usize::MAX);
    moments(all.get(), rounds(3) * 3, stop_at);
}
