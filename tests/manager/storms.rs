//! Kills at any moment, again and again: no call hangs, no object stays.
//!
//! Runs in: the test process, its tasks, and managers.

use std::thread;
use std::time::{Duration, Instant};

use crate::objects::{CounterProxy, KeeperProxy, manager, until_objects};
use crate::support::chaos::{Herd, start};
use crate::support::{PATIENCE, eventually, rounds};
use process_task::channel::Queue;
use process_task::{ErrorKind, ManagerHandle, Process, StartMethod, process_task};

under_every_start_method! {
    within 300 seconds;
    killed_managers_answer_or_are_gone,
    killed_clients_leave_nothing,
}

fn gone(error: &process_task::Error) {
    assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error}");
}

fn killed_managers_answer_or_are_gone(method: StartMethod) {
    for round in 0..rounds(30) {
        let manager = manager(method);
        let counter = CounterProxy::new(&manager, 0).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| gone(&(0..).find_map(|_| counter.add(1).err()).unwrap()));
            scope.spawn(|| gone(&(0..).find_map(|_| counter.echo(vec![0; 6000]).err()).unwrap()));
            scope.spawn(|| gone(&(0..).find_map(|_| CounterProxy::new(&manager, 1).err()).unwrap()));
            scope.spawn(|| {
                let calls: Vec<_> = (0..20).map(|_| counter.later().sleep(Duration::from_millis(30))).collect();
                for call in calls {
                    if let Err(error) = call.join() {
                        gone(&error);
                    }
                }
            });
            scope.spawn(|| {
                let queue = Queue::unbounded().unwrap();
                while counter.get().is_ok() {
                    queue.send(counter.clone()).unwrap();
                    drop(queue.recv().unwrap());
                }
            });
            thread::sleep(Duration::from_micros(700 * round as u64 % 20_000));
            manager.kill().unwrap();
            let since = Instant::now();
            while counter.get().is_ok() {}
            assert!(since.elapsed() < Duration::from_secs(20));
        });
    }
}

/// Makes objects, puts them into one another, and sends them around, until it is killed.
#[process_task]
fn churn(manager: ManagerHandle, shared: KeeperProxy, queue: Queue<CounterProxy>) {
    for round in 0.. {
        let keeper = KeeperProxy::new(&manager, None).unwrap();
        let counters: Vec<_> = (0..3).map(|start| CounterProxy::new(&manager, start).unwrap()).collect();
        for counter in &counters {
            keeper.keep(counter.clone()).unwrap();
            queue.send(counter.clone()).unwrap();
        }
        shared.keep_keeper(keeper.clone()).unwrap();
        drop(counters);
        assert_eq!(keeper.sum().unwrap(), 3);
        for _ in 0..3 {
            drop(queue.try_recv());
        }
        if round % 8 == 0 {
            shared.forget_keepers().unwrap();
        }
        let later = shared.later().sum();
        if round % 3 == 0 {
            later.join().unwrap();
        }
    }
}

fn killed_clients_leave_nothing(method: StartMethod) {
    const CLIENTS: usize = 4;
    let manager = manager(method);
    let (shared, queue) = (KeeperProxy::new(&manager, None).unwrap(), Queue::unbounded().unwrap());
    let handle: &ManagerHandle = &manager;
    let mut herd = Herd::new(CLIENTS, |_| -> Process<()> {
        start(method, churn, (handle.clone(), shared.clone(), queue.clone()))
    });
    herd.hunt(|_| (), |_| ());
    herd.kill();
    drop(queue);
    shared.forget_keepers().unwrap();
    until_objects(&manager, 1);
    eventually("this process is the only client", PATIENCE, || manager.stats().unwrap().clients() == 1);
    drop(shared);
    until_objects(&manager, 0);
}
