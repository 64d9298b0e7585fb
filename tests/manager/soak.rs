//! Everything at once, while clients are killed at any moment: of the same tree, and some that have connected.
//!
//! Runs in: the test process, its tasks, and a manager.
//!
//! Two seconds under each start method, or half of what `PROCESS_TASK_SOAK_SECONDS` says. At the end the manager has what it had at the
//! start: no object, no lock that is held, no client, no thread and no descriptor more.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::objects::{CounterProxy, KeeperProxy, until_objects};
use crate::support::scratch::Scratch;
use crate::support::soak_load::Random;
use crate::support::{PATIENCE, eventually};
use process_task::channel::Key;
use process_task::managed::{Dict, Event, JoinableQueue, List, Lock, Queue, ReentrantLock, Semaphore};
use process_task::{ErrorKind, Manager, ManagerHandle, Process, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    within 900 seconds;
    killed_clients_of_all_kinds_leave_nothing,
}

fn seconds() -> Duration {
    let seconds = std::env::var("PROCESS_TASK_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(4.0) / 2.0)
}

/// What all clients share.
type Common = (
    (Lock, ReentrantLock, Semaphore, Event),
    (Dict<u64, u64>, List<String>),
    (Queue<u64>, JoinableQueue<u64>),
    CounterProxy,
);

/// Does a bit of everything until it is killed, and always holds something.
fn work(there: &ManagerHandle, seed: u64) {
    let ((lock, reentrant, semaphore, event), (dict, list), (queue, jobs), counter) =
        there.find::<Common>("common").unwrap().unwrap();
    let short = Duration::from_millis(30);
    let (short_lock, short_reentrant, short_jobs) =
        (lock.with_timeout(short), reentrant.with_timeout(short), jobs.with_timeout(short));
    let mut random = Random::new(seed);
    let mut own: Vec<KeeperProxy> = Vec::new();
    loop {
        match random.below(12) {
            0 | 1 => {
                // Poisoned is fine: the holder before was killed.
                let guard = short_lock.lock();
                counter.add(1).unwrap();
                thread::sleep(Duration::from_micros(random.below(1500)));
                drop(guard);
            }
            2 => {
                let outer = short_reentrant.lock();
                let inner = outer.as_ref().ok().map(|_| reentrant.try_lock());
                thread::sleep(Duration::from_micros(random.below(500)));
                drop((inner, outer));
            }
            3 => drop(semaphore.with_timeout(short).acquire()),
            4 => drop(event.with_timeout(short).wait()),
            5 => drop(dict.insert(&random.below(3000), random.below(9)).unwrap()),
            6 => {
                // Half an iteration.
                let half = usize::try_from(random.below(600)).unwrap();
                assert!(dict.iter().take(half).all(|entry| entry.is_ok()));
            }
            7 => {
                list.push("text".to_owned()).unwrap();
                drop(list.pop_front());
            }
            8 => {
                queue.send(random.below(9)).unwrap();
                drop(queue.with_timeout(short).recv());
            }
            9 => {
                jobs.send(random.below(9)).unwrap();
                let item = short_jobs.recv();
                thread::sleep(Duration::from_micros(random.below(500)));
                drop(item);
            }
            10 => {
                own.push(KeeperProxy::new(there, None).unwrap());
                drop(CounterProxy::new(there, 5).unwrap());
                if own.len() > 20 {
                    own.clear();
                }
            }
            _ => {
                let calls: Vec<_> = (0..8).map(|_| counter.later().echo(vec![1; 9000])).collect();
                drop(calls.into_iter().next().map(process_task::CallHandle::join));
            }
        }
    }
}

#[process_task]
fn of_the_tree(manager: ManagerHandle, seed: u64) {
    work(&manager, seed);
}

#[process_task]
fn by_port(address: String, secret: Vec<u8>, seed: u64) {
    work(&Manager::connect_tcp(&address, &Key::new(secret).unwrap()).unwrap(), seed);
}

#[process_task]
fn by_path(path: PathBuf, seed: u64) {
    work(&Manager::connect_unix(&path).unwrap(), seed);
}

/// How many threads, and how many descriptors, that process has.
fn costs(pid: u32) -> (usize, usize) {
    let count = |of: &str| fs::read_dir(format!("/proc/{pid}/{of}")).unwrap().count();
    (count("task"), count("fd"))
}

fn killed_clients_of_all_kinds_leave_nothing(method: StartMethod) {
    const CLIENTS: u64 = 5;
    let (scratch, key) = (Scratch::new(), Key::random().unwrap());
    let path = scratch.path().join("own").join("manager");
    let builder = Manager::builder().name("soaked").start_method(method).listen_unix(&path);
    let manager = builder.listen_tcp("0", &key).start().unwrap();
    let address = manager.addresses().unwrap().remove(1);
    // A standby thread comes with the first call.
    drop(CounterProxy::new(&manager, 0).unwrap());
    let before = costs(manager.pid());
    let (lock, reentrant) = (Lock::new(&manager).unwrap(), ReentrantLock::new(&manager).unwrap());
    let (semaphore, event) = (Semaphore::bounded(&manager, 2).unwrap(), Event::new(&manager).unwrap());
    let (dict, list) = (Dict::new(&manager).unwrap(), List::new(&manager, []).unwrap());
    dict.extend((0..3000).map(|key| (key, key))).unwrap();
    let (queue, jobs) = (Queue::unbounded(&manager).unwrap(), JoinableQueue::unbounded(&manager).unwrap());
    let counter = CounterProxy::new(&manager, 0).unwrap();
    let shared = (lock.clone(), reentrant.clone(), semaphore.clone(), event.clone());
    let common: Common = (shared, (dict, list), (queue, jobs), counter.clone());
    manager.publish("common", &common).unwrap();
    drop(common);
    let start = |seed: u64| -> Process<()> {
        let mut builder = ProcessBuilder::new();
        builder.start_method(method);
        match seed % 3 {
            0 => builder.spawn(of_the_tree, ((*manager).clone(), seed)),
            1 => builder.spawn(by_port, (address.clone(), key.secret().to_vec(), seed)),
            _ => builder.spawn(by_path, (path.clone(), seed)),
        }
        .unwrap()
    };
    let mut clients: Vec<_> = (0..CLIENTS).map(&start).collect();
    let (mut random, mut kills, end) = (Random::new(7), 0, Instant::now() + seconds());
    while Instant::now() < end {
        thread::sleep(Duration::from_micros(3000 + random.below(40_000)));
        kills += 1;
        let victim = usize::try_from(random.below(CLIENTS)).unwrap();
        let killed = std::mem::replace(&mut clients[victim], start(CLIENTS + kills));
        killed.kill().unwrap();
        let error = killed.join().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Killed { .. }), "{error}");
        // A client that is not killed is answered all the time.
        counter.add(1).unwrap();
    }
    for client in clients {
        client.kill().unwrap();
        drop(client.join());
    }
    eventually("the clients are gone", PATIENCE, || manager.stats().unwrap().clients() == 1);
    assert!(!lock.is_locked().unwrap() && !reentrant.is_locked().unwrap());
    assert_eq!(semaphore.available().unwrap(), 2);
    manager.unpublish("common").unwrap();
    drop((lock, reentrant, semaphore, event, counter));
    until_objects(&manager, 0);
    eventually("no thread and no descriptor is left", PATIENCE, || {
        let after = costs(manager.pid());
        after.0 <= before.0 + 1 && after.1 <= before.1
    });
    let stats = manager.stats().unwrap();
    println!("{kills} clients were killed; {} calls; left: {stats:?}", stats.calls());
}
