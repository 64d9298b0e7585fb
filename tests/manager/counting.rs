//! Objects are dropped with their last proxy, wherever that is, and however it went.
//!
//! Runs in: the test process, its tasks, and managers.

use std::time::Duration;

use crate::objects::{CounterProxy, KeeperProxy, manager, until_objects};
use crate::support::chaos::start;
use crate::support::fork_copy::in_a_copy;
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until, until_killed};
use crate::support::{PATIENCE, eventually};
use process_task::channel::Queue;
use process_task::managed::Dict;
use process_task::{Pool, StartMethod, process_task};

under_every_start_method! {
    last_proxy_drops_the_object,
    object_is_dropped_with_the_proxy_of_a_task,
    object_of_a_killed_client_is_dropped,
    object_whose_message_was_lost_is_dropped,
    proxy_in_a_queue_holds_its_object,
    object_in_an_object_lives_as_long_as_that,
    killed_clients_leave_no_object,
    proxy_kept_in_its_own_manager_costs_its_ticket_alone,
    copy_made_by_fork_has_no_reference,
    proxies_may_outlive_the_manager,
}

fn last_proxy_drops_the_object(method: StartMethod) {
    let manager = manager(method);
    let dropped = new_stage();
    let keeper = KeeperProxy::new(&manager, Some(dropped.clone())).unwrap();
    let another = keeper.clone();
    drop(keeper);
    another.forget().unwrap();
    assert_eq!(dropped.load(std::sync::atomic::Ordering::SeqCst), 0);
    drop(another);
    until(&dropped, 1);
    until_objects(&manager, 0);
}

#[process_task]
fn add_and_wait(counter: CounterProxy, stage: &Stage, gate: u32) -> i64 {
    let count = counter.add(1).unwrap();
    reach(stage);
    until(stage, gate);
    drop(counter);
    count
}

fn object_is_dropped_with_the_proxy_of_a_task(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 41).unwrap();
    let stage = new_stage();
    let process = start(method, add_and_wait, (counter.clone(), &stage, 2));
    until(&stage, 1);
    drop(counter);
    until_objects_at_least(&manager, 1);
    reach(&stage);
    assert_eq!(process.join().unwrap(), 42);
    until_objects(&manager, 0);
}

#[track_caller]
fn until_objects_at_least(manager: &process_task::ManagerHandle, count: usize) {
    let stats = manager.stats().unwrap();
    assert!(stats.objects().values().sum::<usize>() >= count, "{stats:?}");
}

#[process_task]
fn hold_until_killed(counter: CounterProxy, stage: &Stage) {
    assert_eq!(counter.get().unwrap(), 1);
    reach(stage);
    until_killed();
}

fn object_of_a_killed_client_is_dropped(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 1).unwrap();
    let stage = new_stage();
    let process = start(method, hold_until_killed, (counter.clone(), &stage));
    until(&stage, 1);
    drop(counter);
    until_objects_at_least(&manager, 1);
    process.kill().unwrap();
    process.join().unwrap_err();
    until_objects(&manager, 0);
    assert_eq!(manager.stats().unwrap().clients(), 1);
}

fn object_whose_message_was_lost_is_dropped(method: StartMethod) {
    let manager = manager(method);
    let (sender, receiver) = Queue::unbounded().unwrap().split();
    sender.send(CounterProxy::new(&manager, 1).unwrap()).unwrap();
    assert_eq!(manager.stats().unwrap().objects().len(), 1);
    drop((sender, receiver));
    until_objects(&manager, 0);
}

fn proxy_in_a_queue_holds_its_object(method: StartMethod) {
    let manager = manager(method);
    let queue = Queue::unbounded().unwrap();
    for start in 0..10 {
        queue.send(CounterProxy::new(&manager, start).unwrap()).unwrap();
    }
    for start in 0..10 {
        assert_eq!(queue.recv().unwrap().get().unwrap(), start);
    }
    until_objects(&manager, 0);
}

fn object_in_an_object_lives_as_long_as_that(method: StartMethod) {
    let manager = manager(method);
    let keeper = KeeperProxy::new(&manager, None).unwrap();
    for start in 1..=3 {
        keeper.keep(CounterProxy::new(&manager, start).unwrap()).unwrap();
    }
    assert_eq!(keeper.sum().unwrap(), 6);
    let last = keeper.last().unwrap().unwrap();
    until_objects(&manager, 4);
    keeper.forget().unwrap();
    until_objects(&manager, 2);
    assert_eq!(last.add(1).unwrap(), 4);
    drop(last);
    until_objects(&manager, 1);
    let outer = KeeperProxy::new(&manager, None).unwrap();
    outer.keep_keeper(keeper).unwrap();
    let made = outer.make(7).unwrap();
    assert_eq!(made.get().unwrap(), 7);
    until_objects(&manager, 3);
    drop((outer, made));
    until_objects(&manager, 0);
}

#[process_task]
fn churn(manager: process_task::ManagerHandle, counter: CounterProxy, rounds: u32) {
    for round in 0..rounds {
        let keeper = KeeperProxy::new(&manager, None).unwrap();
        keeper.keep(counter.clone()).unwrap();
        keeper.keep(CounterProxy::new(&manager, round.into()).unwrap()).unwrap();
        assert_eq!(keeper.last().unwrap().unwrap().get().unwrap(), i64::from(round));
        counter.add(1).unwrap();
    }
}

fn killed_clients_leave_no_object(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    let handle: &process_task::ManagerHandle = &manager;
    for round in 0..crate::support::rounds(6) {
        let processes: Vec<_> =
            (0..3).map(|_| start(method, churn, (handle.clone(), counter.clone(), 1_000_000))).collect();
        let before = counter.get().unwrap();
        while counter.get().unwrap() < before + 5 * i64::try_from(round).unwrap() {
            std::thread::sleep(Duration::from_micros(300));
        }
        for process in processes {
            process.kill().unwrap();
            process.join().unwrap_err();
        }
    }
    until_objects(&manager, 1);
    eventually("this process is the only client", PATIENCE, || manager.stats().unwrap().clients() == 1);
}

#[process_task]
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn proxy_kept_in_its_own_manager_costs_its_ticket_alone(method: StartMethod) {
    const KEPT: usize = 40;
    let manager = manager(method);
    let dict: Dict<usize, CounterProxy> = Dict::new(&manager).unwrap();
    let before = manager.call(descriptors, ()).unwrap();
    for (key, start) in (0..KEPT).zip(0..) {
        dict.insert(&key, CounterProxy::new(&manager, start).unwrap()).unwrap();
    }
    // Both ends of the ticket: one that is watched, and one that is passed on with the value.
    eventually("no more is kept", PATIENCE, || manager.call(descriptors, ()).unwrap() <= before + 2 * KEPT);
    assert_eq!(dict.get(&7).unwrap().unwrap().get().unwrap(), 7);
    assert!(dict.iter().zip(0..).all(|(entry, start)| entry.unwrap().1.get().unwrap() == start));
    assert_eq!(start(method, sum_of, dict.clone()).join().unwrap(), 780);
    dict.clear().unwrap();
    eventually("nothing is kept", PATIENCE, || manager.call(descriptors, ()).unwrap() <= before);
    until_objects(&manager, 1);
}

#[process_task]
fn sum_of(dict: Dict<usize, CounterProxy>) -> i64 {
    dict.to_vec().unwrap().iter().map(|(_, counter)| counter.get().unwrap()).sum()
}

#[process_task]
fn use_in_a_copy(counter: CounterProxy) -> i64 {
    counter.add(1).unwrap();
    in_a_copy(|| {
        assert!(counter.add(1).unwrap_err().to_string().contains("`fork()`"));
        drop(counter.clone());
        let refusal = Queue::unbounded().unwrap().send(counter.clone()).unwrap_err();
        assert!(refusal.to_string().contains("cannot travel"), "{refusal}");
    });
    counter.add(1).unwrap()
}

fn copy_made_by_fork_has_no_reference(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    assert_eq!(start(method, use_in_a_copy, counter.clone()).join().unwrap(), 2);
    assert_eq!(counter.get().unwrap(), 2);
}

#[process_task]
fn get(counter: CounterProxy) -> Result<i64, String> {
    counter.get().map_err(|error| error.to_string())
}

fn proxies_may_outlive_the_manager(method: StartMethod) {
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 3).unwrap();
    assert_eq!(pool.call(get, counter.clone()).unwrap(), Ok(3));
    drop(manager);
    assert!(counter.get().is_err());
    assert!(pool.call(get, counter.clone()).unwrap().unwrap_err().contains("has ended"));
}
