//! Managers that processes connect to, by a path and by a port.
//!
//! Runs in: the test process, which connects to managers as if it were no relative, its tasks, and managers.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::objects::{CounterProxy, KeeperProxy, until_objects};
use crate::support::scratch::Scratch;
use crate::support::shared_counter::{reach, stage as new_stage, until, until_killed};
use crate::support::{PATIENCE, eventually};
use process_task::channel::{Key, connect_tcp, connect_unix};
use process_task::managed::{Dict, Lock, Queue};
use process_task::{ErrorKind, Manager, ManagerHandle, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    connected_process_makes_and_calls_objects,
    calls_of_one_connection_run_side_by_side,
    process_that_has_connected_starts_no_pool,
    key_is_needed_to_connect,
    killed_client_is_let_go_of,
    killed_manager_is_gone_for_those_connected,
    calls_may_be_made_later_and_end_in_time,
    tasks_and_handles_are_refused,
    strangers_and_babble_harm_no_other,
    peer_of_a_byte_at_a_time_is_cut_off,
    connected_client_waits_as_others_do,
    item_too_long_for_a_connection_goes_back,
}

fn listening(method: StartMethod, key: &Key) -> Manager {
    Manager::builder().name("remote").start_method(method).listen_tcp("127.0.0.1:0", key).start().unwrap()
}

fn connected(manager: &ManagerHandle, key: &Key) -> ManagerHandle {
    Manager::connect_tcp(&manager.addresses().unwrap()[0], key).unwrap()
}

fn connected_process_makes_and_calls_objects(method: StartMethod) {
    let (key, scratch) = (Key::random().unwrap(), Scratch::new());
    let path = scratch.path().join("own").join("manager");
    let builder = Manager::builder().name("remote").start_method(method).listen_unix(&path);
    let manager = builder.listen_tcp("127.0.0.1:0", &key).start().unwrap();
    let by_path = Manager::connect_unix(&path).unwrap();
    let by_port = Manager::connect_tcp(&manager.addresses().unwrap()[1], &key).unwrap();
    for there in [by_path, by_port] {
        assert_eq!((there.name(), there.pid()), ("remote", manager.pid()));
        assert_eq!(there, *manager);
        let counter = CounterProxy::new(&there, 5).unwrap();
        assert_eq!(counter.add(3).unwrap(), 8);
        assert_eq!(counter.checked_div(0).unwrap().unwrap_err(), "division by zero");
        let error = counter.panic_shared().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Panicked { .. }), "{error}");
        for len in [0, 5000, 3 << 20] {
            assert_eq!(counter.echo(vec![7; len]).unwrap().len(), len);
        }
        assert_eq!(there.stats().unwrap().objects().len(), 1);
        drop(counter);
        until_objects(&manager, 0);
    }
    eventually("the clients are gone", PATIENCE, || manager.stats().unwrap().clients() == 1);
}

fn calls_of_one_connection_run_side_by_side(method: StartMethod) {
    let key = Key::random().unwrap();
    let manager = listening(method, &key);
    let counter = CounterProxy::new(&connected(&manager, &key), 5).unwrap();
    thread::scope(|scope| {
        // None returns before all have begun.
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| counter.meet(8))).collect();
        assert_eq!(counter.get().unwrap(), 5);
        for call in calls {
            assert!(call.join().unwrap().unwrap());
        }
    });
}

fn process_that_has_connected_starts_no_pool(method: StartMethod) {
    let key = Key::random().unwrap();
    let manager = listening(method, &key);
    let error = process_task::managed::Pool::new(&connected(&manager, &key), 1).unwrap_err();
    assert!(error.to_string().contains("cannot start a pool"), "{error}");
    until_objects(&manager, 0);
}

fn key_is_needed_to_connect(method: StartMethod) {
    let key = Key::random().unwrap();
    let manager = listening(method, &key);
    let address = &manager.addresses().unwrap()[0];
    let error = Manager::connect_tcp(address, &Key::random().unwrap()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PeerRefused { .. }), "{error}");
    assert!(CounterProxy::new(&connected(&manager, &key), 1).is_ok());
}

#[process_task]
fn hold(address: String, secret: Vec<u8>, stage: &crate::support::shared_counter::Stage) {
    let there = Manager::connect_tcp(&address, &Key::new(secret).unwrap()).unwrap();
    let _counters: Vec<_> = (0..10).map(|start| CounterProxy::new(&there, start).unwrap()).collect();
    reach(stage);
    until_killed();
}

fn killed_client_is_let_go_of(method: StartMethod) {
    let key = Key::random().unwrap();
    let manager = listening(method, &key);
    let stage = new_stage();
    let args = (manager.addresses().unwrap()[0].clone(), key.secret().to_vec(), &stage);
    let process = ProcessBuilder::new().start_method(method).spawn(hold, args).unwrap();
    until(&stage, 1);
    assert_eq!(manager.stats().unwrap().objects().values().sum::<usize>(), 10);
    process.kill().unwrap();
    process.join().unwrap_err();
    until_objects(&manager, 0);
}

fn killed_manager_is_gone_for_those_connected(method: StartMethod) {
    let key = Key::random().unwrap();
    let manager = listening(method, &key);
    let counter = CounterProxy::new(&connected(&manager, &key), 1).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| counter.sleep(Duration::from_secs(50)).unwrap_err());
        while manager.stats().unwrap().calls() < 2 {}
        manager.kill().unwrap();
        let error = waits.join().unwrap();
        assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error}");
        let error = counter.get().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error}");
    });
}

fn calls_may_be_made_later_and_end_in_time(method: StartMethod) {
    let key = Key::random().unwrap();
    let manager = listening(method, &key);
    let counter = CounterProxy::new(&connected(&manager, &key), 0).unwrap();
    let calls: Vec<_> = (0..100).map(|_| counter.later().add(1)).collect();
    assert_eq!(calls.into_iter().map(|call| call.join().unwrap()).max(), Some(100));
    let error = counter.with_timeout(Duration::from_millis(40)).sleep(Duration::from_millis(400)).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Elapsed);
    let awaited = crate::support::executor::block_on(counter.later().get());
    assert_eq!(awaited.unwrap(), 100);
}

#[process_task]
fn nothing() {}

fn tasks_and_handles_are_refused(method: StartMethod) {
    let key = Key::random().unwrap();
    let manager = listening(method, &key);
    let there = connected(&manager, &key);
    assert_eq!(there.call(nothing, ()).unwrap_err().kind(), &ErrorKind::UnknownTask);
    let keeper = KeeperProxy::new(&there, None).unwrap();
    let error = keeper.keep(CounterProxy::new(&there, 1).unwrap()).unwrap_err();
    assert!(error.to_string().contains("cannot travel"), "{error}");
    let error = keeper.keep(CounterProxy::new(&manager, 1).unwrap()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotEncode { .. }), "{error}");
    assert_eq!(keeper.sum().unwrap(), 0);
}

fn strangers_and_babble_harm_no_other(method: StartMethod) {
    let (key, scratch) = (Key::random().unwrap(), Scratch::new());
    let path = scratch.path().join("own").join("manager");
    let builder = Manager::builder().start_method(method).listen_unix(&path);
    let manager = builder.listen_tcp("127.0.0.1:0", &key).start().unwrap();
    let address = &manager.addresses().unwrap()[1];
    let counter = CounterProxy::new(&Manager::connect_unix(&path).unwrap(), 1).unwrap();
    let silent = connect_unix::<String, String>(&path).unwrap();
    for round in 0..20_u8 {
        let babbles = connect_tcp::<Vec<u8>, Vec<u8>>(address, &key).unwrap();
        let _ = babbles.send((0..round).map(|at| at.wrapping_mul(37)).collect());
        assert!(babbles.recv().is_err() || round > 0);
        assert_eq!(counter.get().unwrap(), 1);
    }
    drop(silent);
    assert_eq!(counter.add(1).unwrap(), 2);
}

fn peer_of_a_byte_at_a_time_is_cut_off(method: StartMethod) {
    let key = Key::random().unwrap();
    let manager = listening(method, &key);
    let address = manager.addresses().unwrap().remove(0);
    let counter = CounterProxy::new(&connected(&manager, &key), 1).unwrap();
    let since = Instant::now();
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let mut stream = TcpStream::connect(&address).unwrap();
            // What a client says first, and then one byte after another, for as long as it may.
            let said = b"process-task 1 c".iter().copied().chain(std::iter::repeat(7)).take(60);
            for byte in said {
                if stream.write_all(&[byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(200));
            }
            since.elapsed()
        });
        while !slow.is_finished() {
            assert_eq!(counter.get().unwrap(), 1);
            thread::sleep(Duration::from_millis(20));
        }
        let lasted = slow.join().unwrap();
        assert!(lasted > Duration::from_secs(4) && lasted < Duration::from_secs(11), "{lasted:?}");
    });
    assert_eq!(manager.stats().unwrap().refused(), 1);
}

#[process_task]
fn replace(_: Option<u64>, by: u64) -> Option<u64> {
    (by > 0).then_some(by)
}

fn connected_client_waits_as_others_do(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.path().join("own").join("manager");
    let manager = Manager::builder().start_method(method).listen_unix(&path).start().unwrap();
    let there = Manager::connect_unix(&path).unwrap();
    let (lock, queue) = (Lock::new(&there).unwrap(), Queue::<u64>::unbounded(&there).unwrap());
    let guard = lock.lock().unwrap().unwrap();
    assert!(lock.with_timeout(Duration::from_millis(40)).lock().unwrap_err().kind() == &ErrorKind::Elapsed);
    thread::scope(|scope| {
        let locker = scope.spawn(|| drop(lock.lock().unwrap().unwrap()));
        let getter = scope.spawn(|| queue.recv().unwrap());
        thread::sleep(Duration::from_millis(40));
        drop(guard);
        queue.send(7).unwrap();
        locker.join().unwrap();
        assert_eq!(getter.join().unwrap(), 7);
    });
    assert!(!lock.is_locked().unwrap());
    let dict: Dict<u8, u64> = Dict::new(&there).unwrap();
    dict.insert(&1, 1).unwrap();
    let error = dict.update(&1, replace, 2).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::UnknownTask, "one from elsewhere names no tasks");
    assert_eq!(dict.get(&1).unwrap(), Some(1));
    drop((lock, queue, dict, there));
    eventually("the connection has ended", PATIENCE, || manager.stats().unwrap().clients() == 1);
}

fn item_too_long_for_a_connection_goes_back(method: StartMethod) {
    let key = Key::random().unwrap();
    let builder = Manager::builder().start_method(method).listen_tcp("127.0.0.1:0", &key).max_message_bytes(10_000);
    let manager = builder.start().unwrap();
    let queue = Queue::unbounded(&manager).unwrap();
    manager.publish("queue", &queue).unwrap();
    queue.send(vec![7_u8; 20_000]).unwrap();
    let there = connected(&manager, &key);
    let of_there: Queue<Vec<u8>> = there.find("queue").unwrap().unwrap();
    let error = of_there.recv().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotEncode { .. }), "{error:?}");
    // Its getter lives.
    assert_eq!(queue.with_timeout(PATIENCE).recv().unwrap().len(), 20_000);
    assert!(of_there.is_empty().unwrap());
}
