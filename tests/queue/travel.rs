//! What goes through queues: handles of everything that processes share, queues themselves, and what is refused because it was
//! something else.
//!
//! Runs in: the test process; its tasks in children. Never: relies on how fast anything is.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::support::queue_memory;
use crate::support::regions::inode;
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until};
use crate::support::{self, PATIENCE, promise};
use process_task::channel::{
    JoinableQueue, Queue, QueueLimits, QueueReceiver, QueueSender, RecvError, SimpleQueue, TryRecvError,
};
use process_task::sync::Mutex;
use process_task::{Error, ErrorKind, Pool, Process, ProcessBuilder, Shared, StartMethod, Task, process_task};
use serde::{Deserialize, Deserializer, Serialize};

under_every_start_method! {
    regions_go_through_queues_and_end_with_their_last_holder,
    a_queue_in_a_queue_in_a_queue_works,
    every_kind_of_end_is_an_argument_a_result_and_an_item,
    questions_come_with_the_queue_for_their_answer,
    so_many_handles_go_with_one_item_and_no_more,
    socket_full_of_handles_fills_the_queue_until_a_recv,
    unreceived_items_go_with_the_queue,
}

fn start<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> Process<T::Output> {
    ProcessBuilder::new().start_method(method).spawn(task, args).unwrap()
}

type Region = Shared<Mutex<u64>>;

#[process_task]
fn add_to_each(regions: QueueReceiver<Option<Region>>, back: QueueSender<Option<Region>>) {
    for region in &regions {
        if let Some(region) = &region {
            *region.lock().unwrap() += 1;
        }
        back.send(region).unwrap();
    }
}

fn regions_go_through_queues_and_end_with_their_last_holder(method: StartMethod) {
    let (producer, regions) = Queue::bounded(5).unwrap().split();
    let (to, back) = Queue::bounded(5).unwrap().split();
    let process = start(method, add_to_each, (regions, to));
    for round in 0..100 {
        let region = Shared::new(Mutex::new(round)).unwrap();
        // Among those that have none.
        producer.send(None).unwrap();
        producer.send(Some(region.clone())).unwrap();
        producer.send(None).unwrap();
        assert!(back.recv().unwrap().is_none());
        let same = back.recv().unwrap().unwrap();
        assert!(same == region && *region.lock().unwrap() == round + 1);
        assert!(back.recv().unwrap().is_none());
        let memory = inode(&region);
        drop((region, same));
        if round % 20 == 0 {
            memory.is_gone();
        }
    }
    drop(producer);
    assert_eq!(back.recv(), Err(RecvError::Disconnected));
    process.join().unwrap();
}

#[process_task]
fn unwrap_and_answer(outer: Queue<Queue<Queue<u64>>>) {
    let inner = outer.recv().unwrap().recv().unwrap();
    let number = inner.recv().unwrap();
    inner.send(number + 1).unwrap();
    // And packed in again.
    let middle = Queue::unbounded().unwrap();
    middle.send(inner).unwrap();
    outer.send(middle).unwrap();
}

fn a_queue_in_a_queue_in_a_queue_works(method: StartMethod) {
    let (outer, middle, inner) = (Queue::unbounded().unwrap(), Queue::unbounded().unwrap(), Queue::bounded(1).unwrap());
    inner.send(41).unwrap();
    middle.send(inner.clone()).unwrap();
    outer.send(middle).unwrap();
    start(method, unwrap_and_answer, outer.clone()).join().unwrap();
    let same = outer.recv().unwrap().recv().unwrap();
    assert!(same == inner);
    assert_eq!((same.recv(), inner.try_recv()), (Ok(42), Err(TryRecvError::Empty)));
}

#[derive(Serialize, Deserialize, Clone)]
struct Everything {
    queue: Queue<String>,
    ends: (QueueSender<Vec<u8>>, Option<QueueReceiver<Vec<u8>>>),
    simple: Vec<SimpleQueue<(u8, f64)>>,
    jobs: JoinableQueue<[u32; 4]>,
}

#[process_task]
fn use_all(all: Everything, on: Queue<Everything>) -> Everything {
    all.queue.send("from far away".to_owned()).unwrap();
    all.ends.0.send(vec![1; 100_000]).unwrap();
    all.simple.iter().for_each(|simple| simple.send((1, 2.5)).unwrap());
    all.jobs.recv().unwrap().done();
    on.send(all.clone()).unwrap();
    all
}

fn every_kind_of_end_is_an_argument_a_result_and_an_item(method: StartMethod) {
    let (producer, consumer) = Queue::with_limits(QueueLimits { items: 10, bytes: 1 << 20 }).unwrap().split();
    let simple = SimpleQueue::new().unwrap();
    let all = Everything {
        queue: Queue::bounded(3).unwrap(),
        ends: (producer, Some(consumer)),
        simple: vec![simple.clone(), SimpleQueue::new().unwrap(), simple],
        jobs: JoinableQueue::unbounded().unwrap(),
    };
    let on = Queue::unbounded().unwrap();
    all.jobs.send([4; 4]).unwrap();
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let back = start(method, use_all, (all.clone(), on.clone())).join().unwrap();
    all.jobs.send([5; 4]).unwrap();
    let again = pool.call(use_all, (all.clone(), on.clone())).unwrap();
    for came in [back, again, on.recv().unwrap(), on.recv().unwrap()] {
        let (producer, consumer) = (came.ends.0, came.ends.1.unwrap());
        assert!(
            came.queue == all.queue && came.simple == all.simple && came.jobs == all.jobs && producer == all.ends.0
        );
        assert!(came.simple[0] == came.simple[2] && came.simple[0] != came.simple[1]);
        producer.send(vec![2]).unwrap();
        let got = consumer.recv().unwrap();
        assert!(got == vec![1; 100_000] || got == [2]);
    }
    assert_eq!((all.queue.len(), all.simple[0].len(), all.simple[1].len(), all.jobs.unfinished()), (2, 4, 2, 0));
}

#[process_task]
fn answer(questions: QueueReceiver<(u64, QueueSender<u64>)>) {
    questions.iter().for_each(|(number, back)| back.send(number * number).unwrap());
}

fn questions_come_with_the_queue_for_their_answer(method: StartMethod) {
    let (ask, questions) = Queue::bounded(3).unwrap().split();
    let servers = [(); 2].map(|()| start(method, answer, questions.clone()));
    drop(questions);
    for number in 0..300 {
        let (back, answers) = Queue::bounded(1).unwrap().split();
        ask.send((number, back)).unwrap();
        assert_eq!((answers.recv(), answers.recv()), (Ok(number * number), Err(RecvError::Disconnected)));
    }
    drop(ask);
    for server in servers {
        server.join().unwrap();
    }
}

type Regions = Vec<Shared<AtomicU64>>;

fn new_regions(count: u64) -> Regions {
    (0..count).map(|number| Shared::new(AtomicU64::new(number)).unwrap()).collect()
}

#[process_task]
fn add_up(regions: QueueReceiver<Regions>) -> u64 {
    regions.iter().map(|regions| regions.iter().map(|region| region.load(SeqCst)).sum::<u64>()).sum()
}

fn so_many_handles_go_with_one_item_and_no_more(method: StartMethod) {
    let (producer, regions) = Queue::unbounded().unwrap().split();
    let process = start(method, add_up, regions);
    let mut sum = 0;
    for count in [1, 30, 64] {
        producer.send(new_regions(count)).unwrap();
        sum += (0..count).sum::<u64>();
    }
    let many = new_regions(65);
    let error = producer.send(many).unwrap_err();
    assert!(
        matches!(error.failure().map(Error::kind), Some(ErrorKind::CannotEncode { .. }))
            && error.to_string().contains("64"),
        "{error}"
    );
    // The same one often is one.
    let one = error.into_inner().swap_remove(5);
    producer.send(vec![one; 2000]).unwrap();
    drop(producer);
    assert_eq!(process.join().unwrap(), sum + 2000 * 5);
}

#[process_task]
fn get_all_slowly(regions: QueueReceiver<Regions>, stage: &Stage) -> usize {
    until(stage, 1);
    regions.iter().count()
}

fn socket_full_of_handles_fills_the_queue_until_a_recv(method: StartMethod) {
    let (queue, stage) = (Queue::unbounded().unwrap(), new_stage());
    let (producer, regions) = queue.split();
    let process = start(method, get_all_slowly, (regions, &stage));
    let item = new_regions(1);
    let first = (0..5000).take_while(|_| producer.try_send(item.clone()).is_ok()).count();
    assert!((100..5000).contains(&first), "{first}");
    let error = producer.send_timeout(item.clone(), Duration::from_millis(60)).unwrap_err();
    assert!(error.is_timeout());
    // What has none is not kept out, and does not overtake.
    producer.try_send(vec![]).unwrap();
    reach(&stage);
    (0..2 * first).for_each(|_| producer.send_timeout(item.clone(), PATIENCE).unwrap());
    drop(producer);
    assert_eq!(process.join().unwrap(), 3 * first + 1);
}

fn unreceived_items_go_with_the_queue(method: StartMethod) {
    let (queue, region) = (Queue::unbounded().unwrap(), Shared::new(AtomicU64::new(1)).unwrap());
    let memory = inode(&region);
    let inner = Queue::<Regions>::unbounded().unwrap();
    inner.send(vec![region.clone()]).unwrap();
    queue.send((vec![region], inner)).unwrap();
    start(method, look_at, queue.clone()).join().unwrap();
    assert_eq!(queue.len(), 1);
    drop(queue);
    memory.is_gone();
    support::eventually("no queue is left", PATIENCE, || queue_memory::backing().0 == 0);
}

#[process_task]
fn look_at(queue: Queue<(Regions, Queue<Regions>)>) {
    assert!(!queue.is_empty());
}

/// Goes in as one thing, and comes out as another.
struct Disguised<A, B>(Result<A, B>);

impl<A: Serialize, B> Serialize for Disguised<A, B> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().ok().expect("it goes in once").serialize(serializer)
    }
}

impl<'de, A, B: Deserialize<'de>> Deserialize<'de> for Disguised<A, B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        B::deserialize(deserializer).map(|came| Self(Err(came)))
    }
}

/// What is said when an `A` is read as a `B`.
fn mixed_up<A, B>(value: A) -> String
where
    A: Serialize + 'static,
    B: for<'de> Deserialize<'de> + 'static,
{
    let queue = Queue::<Disguised<A, B>>::unbounded().unwrap();
    if let Err(error) = queue.send(Disguised(Ok(value))) {
        // Both are written in so different ways that it is seen there.
        return error.to_string();
    }
    match queue.recv() {
        Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was taken for what it is not"),
    }
}

#[test]
fn one_kind_of_queue_is_not_taken_for_another() {
    promise(|| {
        let queue = || Queue::<u32>::unbounded().unwrap();
        let said = [
            mixed_up::<_, Queue<u64>>(queue()),
            mixed_up::<_, Queue<i32>>(queue()),
            mixed_up::<_, SimpleQueue<u32>>(queue()),
            mixed_up::<_, JoinableQueue<u32>>(queue()),
            mixed_up::<_, Queue<u32>>(SimpleQueue::<u32>::new().unwrap()),
            mixed_up::<_, QueueSender<u64>>(queue().sender()),
            mixed_up::<_, QueueReceiver<u64>>(queue().receiver()),
        ];
        for said in said {
            assert!(said.contains("handle of another type"), "{said}");
        }
        let said = [
            mixed_up::<_, Queue<u32>>(queue().sender()),
            mixed_up::<_, Queue<u32>>(queue().receiver()),
            mixed_up::<_, QueueSender<u32>>(queue()),
            mixed_up::<_, QueueSender<u32>>(queue().receiver()),
            mixed_up::<_, QueueReceiver<u32>>(queue()),
            mixed_up::<_, QueueReceiver<u32>>(queue().sender()),
        ];
        for said in said {
            assert!(said.contains("end of a queue was read as another"), "{said}");
        }
        let said = mixed_up::<_, Queue<u32>>((0u32, Some(1u32), Some(2u32)));
        assert!(said.contains("did not come"), "{said}");
        mixed_up::<_, Shared<u32>>(queue());
        mixed_up::<_, Queue<u32>>(Shared::new(0u32).unwrap());
        assert_eq!(queue_memory::backing().0, 0);
    });
}
