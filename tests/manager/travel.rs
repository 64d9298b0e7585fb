//! Ways of proxies and handles of managers: tasks, results, queues, pipes, other managers.
//!
//! Runs in: the test process, its tasks, and managers.

use crate::objects::{CounterProxy, KeeperProxy, manager, until_objects};
use process_task::channel::pipe;
use process_task::{ManagerHandle, Pool, StartMethod, process_task};

under_every_start_method! {
    proxies_go_to_tasks_and_come_back,
    proxies_go_through_pipes_and_lists,
    handle_makes_objects_elsewhere,
    objects_of_one_manager_use_those_of_another,
}

#[process_task]
fn add(counter: CounterProxy, more: i64) -> CounterProxy {
    counter.add(more).unwrap();
    counter
}

fn proxies_go_to_tasks_and_come_back(method: StartMethod) {
    let manager = manager(method);
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let counter = CounterProxy::new(&manager, 0).unwrap();
    let back = pool.call(add, (counter.clone(), 5)).unwrap();
    assert_eq!(back, counter);
    assert_eq!(back.get().unwrap(), 5);
    let all = pool.map(add, (0..20).map(|more| (counter.clone(), more))).unwrap();
    assert_eq!(all.len(), 20);
    assert_eq!(counter.get().unwrap(), 5 + 190);
    drop((back, all, counter));
    until_objects(&manager, 0);
}

fn proxies_go_through_pipes_and_lists(method: StartMethod) {
    let manager = manager(method);
    let (one, other) = pipe::<Vec<CounterProxy>, Vec<CounterProxy>>().unwrap();
    let counters: Vec<_> = (0..5).map(|start| CounterProxy::new(&manager, start).unwrap()).collect();
    one.send(counters).unwrap();
    let came = other.recv().unwrap();
    assert_eq!(came.iter().map(|counter| counter.get().unwrap()).sum::<i64>(), 10);
    drop(came);
    until_objects(&manager, 0);
}

#[process_task]
fn make(manager: ManagerHandle, start: i64) -> CounterProxy {
    CounterProxy::new(&manager, start).unwrap()
}

fn handle_makes_objects_elsewhere(method: StartMethod) {
    let manager = manager(method);
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let handle = ManagerHandle::clone(&manager);
    let counter = pool.call(make, (handle, 4)).unwrap();
    assert_eq!(counter.add(1).unwrap(), 5);
    assert_eq!(counter.manager(), *manager);
    drop(counter);
    until_objects(&manager, 0);
}

fn objects_of_one_manager_use_those_of_another(method: StartMethod) {
    let (near, far) = (manager(method), manager(method));
    let keeper = KeeperProxy::new(&near, None).unwrap();
    keeper.keep(CounterProxy::new(&far, 30).unwrap()).unwrap();
    keeper.keep(CounterProxy::new(&near, 12).unwrap()).unwrap();
    assert_eq!(keeper.sum().unwrap(), 42);
    until_objects(&far, 1);
    keeper.forget().unwrap();
    until_objects(&far, 0);
}
