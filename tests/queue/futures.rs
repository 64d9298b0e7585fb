//! What the future of an item promises: it is woken when there is one, in any executor, and dropping it takes nothing.
//!
//! Runs in: the test process; its tasks put from children. Never: counts on time.

use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::support;
use crate::support::executor;
use crate::support::fork_copy;
use process_task::channel::{Queue, QueueReceiver, QueueSender, RecvError};
use process_task::{ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    a_future_gets_the_next_item,
    a_future_that_is_dropped_takes_nothing,
    a_close_wakes_a_future,
    the_death_of_the_last_producer_wakes_a_future,
    futures_in_several_processes_get_every_item_once,
    a_future_goes_on_in_a_copy_of_its_process,
}

/// Puts back what it gets, until nothing more comes.
#[process_task]
fn echo(from: QueueReceiver<Vec<u8>>, to: QueueSender<Vec<u8>>) -> usize {
    from.iter().map(|item| to.send(item).expect("there is a consumer")).count()
}

fn a_future_gets_the_next_item(method: StartMethod) {
    let (there, back) = (Queue::bounded(2).unwrap(), Queue::bounded(2).unwrap());
    let process = ProcessBuilder::new().start_method(method).spawn(echo, (there.receiver(), back.sender())).unwrap();
    executor::block_on(async {
        for len in [0, 1, 100, 100_000] {
            there.send(vec![7; len]).unwrap();
            assert!(back.recv_async().await.unwrap() == vec![7; len]);
        }
    });
    drop(there);
    assert_eq!(process.join().unwrap(), 4);
}

fn a_future_that_is_dropped_takes_nothing(_: StartMethod) {
    let queue = Queue::<u32>::unbounded().unwrap();
    let waker = executor::waker_of_this_thread();
    for round in 0..20 {
        let mut future = Box::pin(queue.recv_async());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        queue.send(round).unwrap();
        drop(future);
        assert_eq!(queue.try_recv(), Ok(round));
    }
}

#[process_task]
fn close(queue: QueueReceiver<u32>) {
    queue.close();
}

fn a_close_wakes_a_future(method: StartMethod) {
    let queue = Queue::<u32>::unbounded().unwrap();
    let mut future = Box::pin(queue.recv_async());
    let waker = executor::waker_of_this_thread();
    assert_eq!(future.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    ProcessBuilder::new().start_method(method).spawn(close, queue.receiver()).unwrap().join().unwrap();
    assert_eq!(executor::block_on(future), Err(RecvError::Disconnected));
}

/// Puts one item, and keeps its end until it is killed.
#[process_task]
fn put_and_stay(queue: QueueSender<u32>) {
    queue.send(1).expect("there is a consumer");
    std::thread::park();
    drop(queue);
}

fn the_death_of_the_last_producer_wakes_a_future(method: StartMethod) {
    let (producer, consumer) = Queue::unbounded().unwrap().split();
    let process = ProcessBuilder::new().start_method(method).spawn(put_and_stay, producer).unwrap();
    executor::block_on(async {
        assert_eq!(consumer.recv_async().await, Ok(1));
        process.kill().unwrap();
        assert_eq!(consumer.recv_async().await, Err(RecvError::Disconnected));
    });
    process.join().unwrap_err();
}

/// Awaits items until nothing more comes, and adds them up.
#[process_task]
fn await_all(numbers: QueueReceiver<u64>) -> (u64, u64) {
    executor::block_on(async {
        let (mut count, mut sum) = (0, 0);
        while let Ok(number) = numbers.recv_async().await {
            (count, sum) = (count + 1, sum + number);
        }
        (count, sum)
    })
}

fn futures_in_several_processes_get_every_item_once(method: StartMethod) {
    let (producer, consumer) = Queue::bounded(3).unwrap().split();
    let spawn = |_| ProcessBuilder::new().start_method(method).spawn(await_all, consumer.clone()).unwrap();
    let processes: Vec<_> = (0..3).map(spawn).collect();
    drop(consumer);
    for number in 0..2000 {
        producer.send(number).unwrap();
        if number % 100 == 0 {
            // Now and then they all have to wait.
            support::eventually("they have got all", support::PATIENCE, || producer.is_empty());
        }
    }
    drop(producer);
    let sums = processes.into_iter().map(|process| process.join().unwrap());
    assert_eq!(sums.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1)), (2000, (0..2000).sum()));
}

/// Waits for an item, and goes on to wait in a copy of this process.
#[process_task]
fn wait_in_a_copy(from: QueueReceiver<u32>, ready: QueueSender<()>) {
    let mut future = Box::pin(from.recv_async());
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let mut future = Some(future);
    fork_copy::in_a_copy(|| {
        ready.send(()).expect("there is a consumer");
        assert_eq!(executor::block_on(future.take().expect("a future")), Ok(7));
    });
    ready.send(()).expect("there is a consumer");
    assert_eq!(executor::block_on(future.take().expect("a future")), Ok(8));
}

fn a_future_goes_on_in_a_copy_of_its_process(method: StartMethod) {
    let (numbers, ready) = (Queue::bounded(2).unwrap(), Queue::bounded(2).unwrap());
    let process =
        ProcessBuilder::new().start_method(method).spawn(wait_in_a_copy, (numbers.receiver(), ready.sender())).unwrap();
    for number in [7, 8] {
        ready.recv().unwrap();
        // It waits by now, most likely; if not, that shows nothing.
        thread::sleep(Duration::from_millis(50));
        numbers.send(number).unwrap();
    }
    process.join().unwrap();
}
