//! What the future of a message promises: it is woken when there is one, in any executor, and dropping it takes nothing.
//!
//! Runs in: the test process; its tasks send from children. Never: counts on time.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use crate::support::executor;
use crate::support::fork_copy;
use crate::support::{PATIENCE, eventually};
use process_task::channel::{Connection, Receiver, RecvError, Sender, one_way, pipe};
use process_task::{ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    a_future_gets_the_next_message,
    two_futures_of_one_end_get_a_message_each,
    a_future_that_is_dropped_takes_nothing,
    future_is_woken_for_a_message_that_came_before,
    a_death_wakes_a_future,
    a_future_goes_on_in_a_copy_of_its_process,
    hundreds_of_futures_wait_side_by_side,
}

/// Sends back what comes, until nothing more does.
#[process_task]
fn echo(end: Connection<Vec<u8>, Vec<u8>>) -> usize {
    end.iter().map(|message| end.send(message.expect("a message")).expect("the other end is there")).count()
}

fn a_future_gets_the_next_message(method: StartMethod) {
    let (mine, theirs) = pipe().unwrap();
    let process = ProcessBuilder::new().start_method(method).spawn(echo, theirs).unwrap();
    executor::block_on(async {
        for len in [0, 1, 100, 100_000] {
            mine.send(vec![7; len]).unwrap();
            assert!(mine.recv_async().await.unwrap() == vec![7; len]);
        }
    });
    drop(mine);
    assert_eq!(process.join().unwrap(), 4);
}

fn two_futures_of_one_end_get_a_message_each(method: StartMethod) {
    let (mine, theirs) = pipe().unwrap();
    let process = ProcessBuilder::new().start_method(method).spawn(echo, theirs).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for _ in 0..20 {
        runtime.block_on(async {
            let both = async { tokio::join!(mine.recv_async(), mine.recv_async()) };
            let send = async { [1, 2].map(|len| mine.send(vec![0; len]).unwrap()) };
            let ((one, two), _) = tokio::join!(both, send);
            let mut lengths = [one.unwrap().len(), two.unwrap().len()];
            lengths.sort_unstable();
            assert_eq!(lengths, [1, 2]);
        });
    }
    drop(mine);
    assert_eq!(process.join().unwrap(), 40);
}

fn a_future_that_is_dropped_takes_nothing(_: StartMethod) {
    let (sender, receiver) = one_way::<u32>().unwrap();
    let waker = executor::waker_of_this_thread();
    for round in 0..20 {
        let mut future = Box::pin(receiver.recv_async());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        sender.send(round).unwrap();
        drop(future);
        assert_eq!(receiver.try_recv(), Ok(round));
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn future_is_woken_for_a_message_that_came_before(_: StartMethod) {
    let (sender, receiver) = one_way::<u32>().unwrap();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let context = &mut Context::from_waker(&waker);
    let mut future = Box::pin(receiver.recv_async());
    for round in 0..20 {
        assert!(future.as_mut().poll(context).is_pending());
        sender.send(round).unwrap();
        eventually("it is woken", PATIENCE, || count.0.load(SeqCst) == round + 1);
        // Another thread was faster: it waits on.
        assert_eq!(receiver.try_recv(), Ok(round));
    }
    assert!(future.as_mut().poll(context).is_pending());
    sender.send(77).unwrap();
    eventually("it is woken", PATIENCE, || count.0.load(SeqCst) == 21);
    assert_eq!(future.as_mut().poll(context), Poll::Ready(Ok(77)));
}

#[process_task]
fn hold(_end: Sender<u32>, ready: Sender<()>) {
    ready.send(()).expect("the other end is there");
    thread::sleep(2 * PATIENCE);
}

fn a_death_wakes_a_future(method: StartMethod) {
    let ((sender, receiver), (mine, ready)) = (one_way().unwrap(), one_way().unwrap());
    let process = ProcessBuilder::new().start_method(method).spawn(hold, (sender, mine)).unwrap();
    ready.recv().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| executor::block_on(receiver.recv_async()));
        process.kill().unwrap();
        assert_eq!(waiting.join().unwrap(), Err(RecvError::Disconnected));
    });
    assert!(process.join().is_err());
}

/// Waits for a message, and goes on to wait in a copy of this process.
#[process_task]
fn wait_in_a_copy(from: Receiver<u32>, ready: Sender<()>) {
    let mut future = Box::pin(from.recv_async());
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let mut future = Some(future);
    fork_copy::in_a_copy(|| {
        ready.send(()).expect("the other end is there");
        assert_eq!(executor::block_on(future.take().expect("a future")), Ok(7));
    });
    ready.send(()).expect("the other end is there");
    assert_eq!(executor::block_on(future.take().expect("a future")), Ok(8));
}

fn a_future_goes_on_in_a_copy_of_its_process(method: StartMethod) {
    let ((numbers, from), (ready, is_ready)) = (one_way().unwrap(), one_way().unwrap());
    let process = ProcessBuilder::new().start_method(method).spawn(wait_in_a_copy, (from, ready)).unwrap();
    for number in [7, 8] {
        is_ready.recv().unwrap();
        // It waits by now, most likely; if not, that shows nothing.
        thread::sleep(Duration::from_millis(50));
        numbers.send(number).unwrap();
    }
    process.join().unwrap();
}

#[process_task]
fn answer_all(ends: Vec<(Receiver<u32>, Sender<u32>)>) {
    for (from, to) in ends.into_iter().rev() {
        to.send(from.recv().expect("a number") * 2).expect("the other end is there");
    }
}

fn hundreds_of_futures_wait_side_by_side(method: StartMethod) {
    const MANY: u32 = 100;
    let pipes = || (0..MANY).map(|_| one_way().unwrap()).unzip::<_, _, Vec<_>, Vec<_>>();
    let ((questions, theirs), (out, answers)) = (pipes(), pipes());
    let ends = theirs.into_iter().zip(out).collect();
    let process = ProcessBuilder::new().start_method(method).spawn(answer_all, ends).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let answers = local.block_on(&runtime, async {
        let wait = |answer: Receiver<u32>| tokio::task::spawn_local(async move { answer.recv_async().await.unwrap() });
        let waiting: Vec<_> = answers.into_iter().map(wait).collect();
        tokio::task::yield_now().await;
        (0..MANY).zip(&questions).for_each(|(number, end)| end.send(number).unwrap());
        let mut answers = Vec::new();
        for one in waiting {
            answers.push(one.await.unwrap());
        }
        answers
    });
    assert!(answers.into_iter().eq((0..MANY).map(|number| 2 * number)));
    process.join().unwrap();
}
