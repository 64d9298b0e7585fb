//! What a queue's two sides hear of each other's end: producers and consumers are counted in all processes, and wherever
//! they are on their way.
//!
//! Runs in: the test process; its tasks in children. Never: relies on how fast anything is, but for the one promise that is
//! about time, which is tried several times.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::fork_copy::{beside_a_copy, in_a_copy};
use crate::support::queue_memory;
use crate::support::regions::pool;
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until, until_asleep, until_killed};
use crate::support::{PATIENCE, eventually, rounds};
use process_task::channel::{
    Queue, QueueReceiver, QueueSender, RecvError, RecvTimeoutError, SendError, SimpleQueue, TryRecvError,
};
use process_task::{Pool, Process, ProcessBuilder, StartMethod, Task, process_task};

under_every_start_method! {
    recv_drains_then_reports_dropped_producers,
    send_reports_dropped_consumers_and_returns_the_item,
    waiter_hears_of_a_killed_side_within_a_tenth_of_a_second,
    a_process_that_ends_in_any_way_lets_go_of_its_ends,
    one_of_several_that_ends_is_not_the_last,
    a_killed_waiter_costs_nothing,
    an_end_on_its_way_to_a_call_is_counted,
    end_in_a_result_counts_until_it_is_unreachable,
    an_end_in_another_queue_is_counted,
    an_end_that_comes_back_through_its_own_queue_works,
    whole_queues_never_report_disconnection,
    a_queue_can_be_closed_from_anywhere,
    a_copy_made_by_fork_has_ends_of_its_own,
    try_recv_hears_of_the_end_of_a_copy,
    a_process_that_is_stopped_is_still_there,
    a_queue_is_gone_with_its_last_end,
}

fn start<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> Process<T::Output> {
    ProcessBuilder::new().start_method(method).spawn(task, args).unwrap()
}

#[track_caller]
fn is_closed<E: PartialEq + std::fmt::Debug + From<SendError<u32>>>(sent: Result<(), E>, item: u32) {
    let refused = sent.expect_err("every receiver is gone, or the queue is closed");
    assert_eq!(refused, SendError::Disconnected(item).into());
}

/// Puts two, says so, and waits for `gate`.
#[process_task]
fn put_and_wait(numbers: QueueSender<u32>, stage: &Stage, gate: u32) {
    numbers.send(1).unwrap();
    numbers.send(2).unwrap();
    reach(stage);
    until(stage, gate);
}

/// Gets one, says so, and waits for `gate`.
#[process_task]
fn get_and_wait(numbers: QueueReceiver<u32>, stage: &Stage, gate: u32) {
    numbers.recv().unwrap();
    reach(stage);
    until(stage, gate);
}

fn recv_drains_then_reports_dropped_producers(method: StartMethod) {
    let (producer, consumer) = Queue::unbounded().unwrap().split();
    let stage = new_stage();
    let process = start(method, put_and_wait, (producer.clone(), &stage, 2));
    until(&stage, 1);
    producer.clone().send(3).unwrap();
    drop(producer);
    assert_eq!((consumer.recv(), consumer.recv(), consumer.recv()), (Ok(1), Ok(2), Ok(3)));
    // The process has one.
    assert_eq!(consumer.recv_timeout(Duration::from_millis(120)), Err(RecvTimeoutError::Timeout));
    let waits = consumer.clone();
    let waits = thread::spawn(move || waits.recv());
    reach(&stage);
    assert_eq!(waits.join().unwrap(), Err(RecvError::Disconnected));
    assert_eq!((consumer.recv(), consumer.try_recv()), (Err(RecvError::Disconnected), Err(TryRecvError::Disconnected)));
    assert_eq!(consumer.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    assert!(consumer.iter().next().is_none() && !consumer.is_closed(), "it was not closed");
    process.join().unwrap();
}

fn send_reports_dropped_consumers_and_returns_the_item(method: StartMethod) {
    let (producer, consumer) = Queue::bounded(1).unwrap().split();
    let stage = new_stage();
    let process = start(method, get_and_wait, (consumer.clone(), &stage, 2));
    producer.send(1).unwrap();
    until(&stage, 1);
    drop(consumer);
    producer.send(2).unwrap();
    assert!(producer.send_timeout(3, Duration::from_millis(120)).unwrap_err().is_timeout());
    let waits = producer.clone();
    let waits = thread::spawn(move || waits.send(4));
    reach(&stage);
    is_closed(waits.join().unwrap(), 4);
    is_closed(producer.send(5), 5);
    is_closed(producer.try_send(6), 6);
    is_closed(producer.send_timeout(7, PATIENCE), 7);
    process.join().unwrap();
}

fn waiter_hears_of_a_killed_side_within_a_tenth_of_a_second(method: StartMethod) {
    const TENTH: Duration = Duration::from_millis(100);
    let (mut of_producers, mut of_consumers) = (vec![], vec![]);
    while of_producers.iter().all(|time| *time >= TENTH) || of_consumers.iter().all(|time| *time >= TENTH) {
        assert!(of_producers.len() < 20, "it takes too long: {of_producers:?}, {of_consumers:?}");
        let (producer, consumer) = Queue::unbounded().unwrap().split();
        let stage = new_stage();
        let process = start(method, put_and_wait, (producer, &stage, 100));
        until(&stage, 1);
        assert_eq!((consumer.recv(), consumer.recv()), (Ok(1), Ok(2)));
        let waits = thread::spawn(move || (consumer.recv(), Instant::now()));
        process.kill().unwrap();
        let since = Instant::now();
        let (got, at) = waits.join().unwrap();
        assert_eq!(got, Err(RecvError::Disconnected));
        of_producers.push(at.saturating_duration_since(since));
        // Not before: whether a thread asks how it ended makes no difference to others.
        process.join().unwrap_err();

        let (producer, consumer) = Queue::bounded(1).unwrap().split();
        let stage = new_stage();
        let process = start(method, get_and_wait, (consumer, &stage, 100));
        producer.send(1).unwrap();
        until(&stage, 1);
        producer.send(2).unwrap();
        let waits = thread::spawn(move || (producer.send(3), Instant::now()));
        process.kill().unwrap();
        let since = Instant::now();
        let (put, at) = waits.join().unwrap();
        is_closed(put, 3);
        of_consumers.push(at.saturating_duration_since(since));
        process.join().unwrap_err();
    }
}

#[process_task]
#[expect(clippy::exit, reason = "that is what is tried")]
fn end_somehow(numbers: QueueSender<u32>, others: QueueReceiver<u32>, how: u32) {
    let kept = std::mem::ManuallyDrop::new((numbers, others));
    match how {
        0 => {}
        1 => std::process::exit(3),
        2 => panic!("in the middle"),
        3 => std::process::abort(),
        _ => nix::sys::signal::raise(nix::sys::signal::SIGKILL).unwrap(),
    }
    drop(std::mem::ManuallyDrop::into_inner(kept));
}

fn a_process_that_ends_in_any_way_lets_go_of_its_ends(method: StartMethod) {
    for how in 0..5 {
        let (numbers, consumer) = Queue::unbounded().unwrap().split();
        let (producer, others) = Queue::unbounded().unwrap().split();
        let process = start(method, end_somehow, (numbers, others, how));
        assert_eq!(consumer.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected), "{how}");
        // One that no thread waits for is found out now and then.
        eventually("no consumer is left", PATIENCE, || producer.send(1).is_err());
        is_closed(producer.send(5), 5);
        assert_eq!(process.join().is_ok(), how == 0);
    }
    // In a pool, where the process lives on.
    let pool = pool(method, 1);
    let (numbers, consumer) = Queue::unbounded().unwrap().split();
    let (producer, others) = Queue::unbounded().unwrap().split();
    let call = pool.submit(drop_at_once, (numbers, others));
    assert_eq!(consumer.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    eventually("no consumer is left", PATIENCE, || producer.send(1).is_err());
    call.join().unwrap();
}

#[process_task]
fn drop_at_once(numbers: QueueSender<u32>, others: QueueReceiver<u32>) {
    drop((numbers, others));
}

fn one_of_several_that_ends_is_not_the_last(method: StartMethod) {
    let (producer, consumer) = Queue::unbounded().unwrap().split();
    let stage = new_stage();
    let processes = [(); 3].map(|()| start(method, put_and_wait, (producer.clone(), &stage, 100)));
    let others = [(); 3].map(|()| start(method, get_and_wait, (consumer.clone(), &stage, 100)));
    until(&stage, 6);
    for (process, other) in processes.into_iter().zip(others) {
        producer.send(5).unwrap();
        process.kill().unwrap();
        other.kill().unwrap();
        process.join().unwrap_err();
        other.join().unwrap_err();
        producer.send(6).unwrap();
        assert!(consumer.recv().is_ok());
    }
    drop(producer);
    assert_eq!(consumer.iter().count(), 6);
    assert_eq!(consumer.recv(), Err(RecvError::Disconnected));
}

#[process_task]
fn get_one(numbers: QueueReceiver<u32>) -> u32 {
    numbers.recv().unwrap()
}

#[process_task]
fn put_one(numbers: QueueSender<u32>, number: u32) {
    numbers.send(number).unwrap();
}

/// Also if it was woken already.
fn a_killed_waiter_costs_nothing(method: StartMethod) {
    let (producer, consumer) = Queue::bounded(1).unwrap().split();
    let [first, second, third] = [(); 3].map(|()| start(method, get_one, consumer.clone()));
    for waiter in [&first, &second, &third] {
        until_asleep(waiter.pid().unwrap());
    }
    first.kill().unwrap();
    producer.send(1).unwrap();
    second.kill().unwrap();
    producer.send(2).unwrap();
    let (first, second, third) = (first.join().is_ok(), second.join().ok(), third.join().unwrap());
    assert!(!first && (third == 2 || third == 1 && second.is_none()), "{second:?}, {third}");
    assert_eq!(consumer.try_recv().ok(), (third == 1).then_some(2));

    producer.send(5).unwrap();
    let [first, second, third] = [6, 7, 8].map(|number| start(method, put_one, (producer.clone(), number)));
    for waiter in [&first, &second, &third] {
        until_asleep(waiter.pid().unwrap());
    }
    first.kill().unwrap();
    assert_eq!(consumer.recv(), Ok(5));
    second.kill().unwrap();
    let next = consumer.recv().unwrap();
    assert!(next == 8 || next == 7 && consumer.recv() == Ok(8), "{next}");
    third.join().unwrap();
    assert_eq!(consumer.try_recv(), Err(TryRecvError::Empty));
}

#[process_task]
fn wait_at(stage: &Stage, gate: u32) {
    reach(stage);
    until(stage, gate);
}

fn an_end_on_its_way_to_a_call_is_counted(method: StartMethod) {
    let (producer, consumer) = Queue::unbounded().unwrap().split();
    let (pool, stage) = (pool(method, 1), new_stage());
    let running = pool.submit(wait_at, (&stage, 2));
    until(&stage, 1);
    let waiting = pool.submit(put_and_wait, (producer.clone(), &stage, 0));
    let cancelled = pool.submit(put_and_wait, (producer, &stage, 0));
    assert_eq!(consumer.recv_timeout(Duration::from_millis(120)), Err(RecvTimeoutError::Timeout));
    assert!(cancelled.cancel());
    assert_eq!(consumer.try_recv(), Err(TryRecvError::Empty));
    reach(&stage);
    assert_eq!((consumer.recv(), consumer.recv()), (Ok(1), Ok(2)));
    assert_eq!(consumer.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    running.join().unwrap();
    waiting.join().unwrap();
    assert!(cancelled.join().is_err());
}

#[process_task]
fn make(stage: &Stage) -> (QueueSender<u32>, QueueReceiver<u32>, QueueReceiver<u32>) {
    let ((producer, consumer), (other, others)) =
        (Queue::unbounded().unwrap().split(), Queue::unbounded().unwrap().split());
    (1..=3).for_each(|number| other.send(number).unwrap());
    reach(stage);
    (producer, consumer, others)
}

fn end_in_a_result_counts_until_it_is_unreachable(method: StartMethod) {
    let stage = new_stage();
    let process = start(method, make, &stage);
    until(&stage, 1);
    let (producer, consumer, others) = process.join().unwrap();
    // The process in which they were made is gone, and what it has put is not.
    assert_eq!(others.iter().collect::<Vec<_>>(), [1, 2, 3]);
    let number = start(method, pass, (producer, new_stage()));
    assert_eq!(consumer.recv_timeout(Duration::from_millis(100)), Err(RecvTimeoutError::Timeout));
    let producer = number.join().unwrap();
    producer.send(4).unwrap();
    let dropped = start(method, pass, (producer, stage.clone()));
    until(&stage, 2);
    assert_eq!(consumer.recv(), Ok(4));
    drop(dropped);
    assert_eq!(consumer.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
}

#[process_task]
fn pass(producer: QueueSender<u32>, stage: Stage) -> QueueSender<u32> {
    reach(&stage);
    producer
}

#[process_task]
fn pass_through(
    ends: QueueReceiver<(QueueSender<u32>, QueueReceiver<u32>)>,
    on: QueueSender<(QueueSender<u32>, QueueReceiver<u32>)>,
) {
    ends.iter().for_each(|end| on.send(end).unwrap());
}

fn an_end_in_another_queue_is_counted(method: StartMethod) {
    let (to, ends) = Queue::unbounded().unwrap().split();
    let (on, come) = Queue::unbounded().unwrap().split();
    let process = start(method, pass_through, (ends, on));
    let (producer, consumer) = Queue::unbounded().unwrap().split();
    let (other, others) = Queue::unbounded().unwrap().split();
    to.send((producer, others)).unwrap();
    drop(to);
    process.join().unwrap();
    // They are nowhere but in the second queue now.
    assert_eq!(consumer.recv_timeout(Duration::from_millis(120)), Err(RecvTimeoutError::Timeout));
    other.send(1).unwrap();
    let (producer, others) = come.recv().unwrap();
    producer.send(2).unwrap();
    assert_eq!((others.recv(), consumer.recv()), (Ok(1), Ok(2)));

    // And gone with a queue that no process can get anything from.
    let (last, end) = Queue::unbounded().unwrap().split();
    last.send((producer, others)).unwrap();
    assert_eq!(consumer.try_recv(), Err(TryRecvError::Empty));
    drop(end);
    assert_eq!(consumer.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    is_closed(other.send(3), 3);
}

/// A queue through which it goes itself.
#[derive(serde::Serialize, serde::Deserialize)]
struct Own(u32, Option<Box<(QueueSender<Own>, QueueReceiver<Own>)>>);

fn an_end_that_comes_back_through_its_own_queue_works(method: StartMethod) {
    let (producer, consumer) = Queue::<Own>::unbounded().unwrap().split();
    producer.send(Own(1, Some(Box::new((producer.clone(), consumer.clone()))))).unwrap();
    let Own(1, Some(ends)) = consumer.recv().unwrap() else { panic!("another item came") };
    drop(producer);
    assert!(matches!(consumer.try_recv(), Err(TryRecvError::Empty)));
    ends.0.send(Own(2, None)).unwrap();
    assert_eq!(consumer.recv().unwrap().0, 2);
    drop(consumer);
    let back = start(method, send_back, (ends.0, ends.1)).join().unwrap();
    assert!(matches!(back.recv(), Ok(Own(3, None))));
    assert!(matches!(back.recv(), Err(RecvError::Disconnected)));
}

#[process_task]
fn send_back(producer: QueueSender<Own>, consumer: QueueReceiver<Own>) -> QueueReceiver<Own> {
    producer.send(Own(3, None)).unwrap();
    consumer
}

#[process_task]
fn have(queue: Queue<u32>, simple: SimpleQueue<u32>) {
    drop((queue, simple));
}

fn whole_queues_never_report_disconnection(method: StartMethod) {
    let (queue, simple) = (Queue::bounded(1).unwrap(), SimpleQueue::new().unwrap());
    start(method, have, (queue.clone(), simple.clone())).join().unwrap();
    for _ in 0..3 {
        assert_eq!(queue.recv_timeout(Duration::from_millis(60)), Err(RecvTimeoutError::Timeout));
        assert_eq!(simple.recv_timeout(Duration::from_millis(60)), Err(RecvTimeoutError::Timeout));
        queue.send(1).unwrap();
        simple.send(1).unwrap();
        assert!(queue.send_timeout(2, Duration::from_millis(60)).unwrap_err().is_timeout());
        assert_eq!((queue.recv(), simple.recv()), (Ok(1), Ok(1)));
    }
    // What is left of one that was taken apart is not whole.
    let (queue, other) = (queue.receiver(), queue);
    drop(other);
    assert_eq!(queue.recv(), Err(RecvError::Disconnected));
}

#[process_task]
fn close_it(side: u32, queue: Queue<u32>) {
    match side {
        0 => queue.close(),
        1 => queue.sender().close(),
        _ => queue.receiver().close(),
    }
    is_closed(queue.send(9), 9);
}

fn a_queue_can_be_closed_from_anywhere(method: StartMethod) {
    for side in 0..3 {
        let queue = Queue::bounded(2).unwrap();
        queue.send(1).unwrap();
        queue.send(2).unwrap();
        let waits = queue.sender();
        let waits = thread::spawn(move || waits.send(3));
        let process = start(method, close_it, (side, queue.clone()));
        is_closed(waits.join().unwrap(), 3);
        assert!(queue.is_closed());
        queue.close();
        is_closed(queue.try_send(4), 4);
        assert_eq!(queue.iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!((queue.recv(), queue.try_recv()), (Err(RecvError::Disconnected), Err(TryRecvError::Disconnected)));
        is_closed(queue.send_timeout(5, PATIENCE), 5);
        process.join().unwrap();
    }
    let queue = Queue::<u32>::unbounded().unwrap();
    let consumer = queue.receiver();
    let waits = thread::spawn(move || consumer.recv());
    start(method, close_it, (0, queue)).join().unwrap();
    assert_eq!(waits.join().unwrap(), Err(RecvError::Disconnected));
}

#[process_task]
fn make_copies(producer: QueueSender<u32>, consumer: QueueReceiver<u32>) {
    let (mut ends, mut others) = (Some(producer.clone()), Some((producer, consumer)));
    in_a_copy(|| drop((ends.take(), others.take())));
    let (producer, consumer) = others.take().unwrap();
    drop(ends.take());
    in_a_copy(|| producer.send(1).unwrap());
    in_a_copy(|| assert_eq!(consumer.recv(), Ok(1)));
    in_a_copy(|| (2..5).for_each(|number| producer.send(number).unwrap()));
    assert_eq!(consumer.recv(), Ok(2));
    in_a_copy(|| assert_eq!(consumer.recv_timeout(PATIENCE), Ok(3)));
    in_a_copy(|| {
        let _never_dropped = std::mem::ManuallyDrop::new((producer.clone(), consumer.clone()));
    });
}

fn a_copy_made_by_fork_has_ends_of_its_own(method: StartMethod) {
    let (producer, consumer) = Queue::unbounded().unwrap().split();
    start(method, make_copies, (producer.clone(), consumer.clone())).join().unwrap();
    drop(producer);
    assert_eq!((consumer.recv(), consumer.recv()), (Ok(4), Err(RecvError::Disconnected)));
}

/// Only tries to put, while a copy of this process has the last consumer.
#[process_task]
fn try_beside_a_copy(stage: &Stage) {
    let (producer, consumer) = Queue::bounded(1).unwrap().split();
    producer.send(1).unwrap();
    let is_full = || producer.try_send(2).unwrap_err().is_full();
    let lets_go = || {
        drop(consumer);
        assert!(is_full(), "the copy may still get something");
        reach(stage);
    };
    beside_a_copy(|| until(stage, 1), lets_go);
    eventually("no consumer is left", PATIENCE, || !is_full());
    is_closed(producer.try_send(2), 2);
}

fn try_recv_hears_of_the_end_of_a_copy(method: StartMethod) {
    start(method, try_beside_a_copy, &new_stage()).join().unwrap();
}

#[process_task]
fn have_until_killed(ends: (QueueSender<u32>, QueueReceiver<u32>), stage: &Stage) {
    let _ends = ends;
    reach(stage);
    until_killed();
}

fn a_process_that_is_stopped_is_still_there(method: StartMethod) {
    let (producer, others) = Queue::bounded(1).unwrap().split();
    let (other, consumer) = Queue::bounded(1).unwrap().split();
    let stage = new_stage();
    let process = start(method, have_until_killed, ((other, others), &stage));
    until(&stage, 1);
    until_asleep(process.pid().unwrap());
    let pid = nix::unistd::Pid::from_raw(process.pid().unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGSTOP).unwrap();
    assert_eq!(consumer.recv_timeout(Duration::from_millis(200)), Err(RecvTimeoutError::Timeout));
    producer.send(1).unwrap();
    assert!(producer.send_timeout(2, Duration::from_millis(200)).unwrap_err().is_timeout());
    process.kill().unwrap();
    assert_eq!(consumer.recv(), Err(RecvError::Disconnected));
    is_closed(producer.send(2), 2);
}

fn a_queue_is_gone_with_its_last_end(method: StartMethod) {
    for count in [1, 300] {
        let all: Vec<_> = (0..count).map(|_| Queue::<u32>::unbounded().unwrap().split()).collect();
        assert_eq!(queue_memory::backing().0, count);
        drop(all);
        assert_eq!(queue_memory::backing().0, 0);
    }
    for round in 0..u32::try_from(rounds(600)).unwrap() {
        let queue = Queue::bounded(3).unwrap();
        queue.send(round).unwrap();
        let (producer, consumer) = queue.split();
        drop(producer);
        assert_eq!(consumer.recv(), Ok(round));
    }
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let ends = (0..200).map(|_| Queue::unbounded().unwrap().split()).collect::<Vec<_>>();
    for (number, result) in pool.imap(drop_at_once, ends).enumerate() {
        result.unwrap_or_else(|error| panic!("{number}: {error}"));
    }
    eventually("no queue is left", PATIENCE, || queue_memory::backing().0 == 0);
}
