//! Objects that have a name, and programs that are nothing but a manager.
//!
//! Runs in: the test process, which connects to managers as if it were no relative, its tasks, and managers.

use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::objects::{CounterProxy, KeeperProxy, manager, until_objects};
use crate::support::fork_copy::copy_that_is_sent;
use crate::support::scratch::Scratch;
use crate::support::shared_counter::{Stage, stage as new_stage, until};
use crate::support::signals;
use process_task::channel::{Descriptor, Key};
use process_task::managed::{Condition, Dict, Lock, Queue};
use process_task::{ErrorKind, Manager, ManagerHandle, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    published_object_is_shared_by_programs_that_connect,
    published_value_keeps_its_objects_until_it_is_taken_away,
    found_value_must_be_of_the_type_that_was_published,
    process_that_has_connected_publishes_nothing,
    lock_and_condition_are_found_by_two_connections,
    sigterm_ends_a_program_that_serves_forever,
    sigterm_to_a_copy_of_a_program_that_serves_ends_the_copy,
    sigterm_ends_a_manager_gracefully,
    handle_waits_for_the_end,
    port_without_a_host_is_of_this_machine,
    keys_that_are_wrong_empty_or_short_are_refused,
}

#[process_task]
fn count_words(address: String, secret: Vec<u8>, words: Vec<String>) -> usize {
    let there = Manager::connect_tcp(&address, &Key::new(secret).unwrap()).unwrap();
    let (counts, total): (Dict<String, usize>, CounterProxy) = there.find("words").unwrap().unwrap();
    for word in &words {
        counts.insert(word, word.len()).unwrap();
        total.add(1).unwrap();
    }
    words.len()
}

fn published_object_is_shared_by_programs_that_connect(method: StartMethod) {
    let key = Key::random().unwrap();
    let manager = Manager::builder().start_method(method).listen_tcp("0", &key).start().unwrap();
    let counts: Dict<String, usize> = Dict::new(&manager).unwrap();
    let total = CounterProxy::new(&manager, 0).unwrap();
    manager.publish("words", &(counts.clone(), total.clone())).unwrap();
    let start = |words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let args = (manager.addresses().unwrap()[0].clone(), key.secret().to_vec(), words);
        ProcessBuilder::new().start_method(method).spawn(count_words, args).unwrap()
    };
    for process in [start(&["a", "bb"]), start(&["ccc"])] {
        process.join().unwrap();
    }
    assert_eq!((total.get().unwrap(), counts.get("ccc").unwrap(), counts.len().unwrap()), (3, Some(3), 3));
}

fn published_value_keeps_its_objects_until_it_is_taken_away(method: StartMethod) {
    let manager = manager(method);
    let dropped = new_stage();
    manager.publish("keeper", &KeeperProxy::new(&manager, Some(dropped.clone())).unwrap()).unwrap();
    until_objects(&manager, 1);
    let one: KeeperProxy = manager.find("keeper").unwrap().unwrap();
    let same: KeeperProxy = manager.find("keeper").unwrap().unwrap();
    assert_eq!(one, same);
    assert!(manager.find::<KeeperProxy>("nothing").unwrap().is_none());
    // What has the name later replaces it.
    manager.publish("keeper", &vec![1_u8, 2]).unwrap();
    assert_eq!(manager.find::<Vec<u8>>("keeper").unwrap(), Some(vec![1, 2]));
    assert_eq!(dropped.load(SeqCst), 0);
    drop(one);
    same.forget().unwrap();
    drop(same);
    until(&dropped, 1);
    assert!(manager.unpublish("keeper").unwrap());
    assert!(!manager.unpublish("keeper").unwrap());
    until_objects(&manager, 0);
    let counter = CounterProxy::new(&manager, 1).unwrap();
    manager.publish("counter", &counter).unwrap();
    drop(counter);
    until_objects(&manager, 1);
    manager.unpublish("counter").unwrap();
    until_objects(&manager, 0);
}

fn found_value_must_be_of_the_type_that_was_published(method: StartMethod) {
    let manager = manager(method);
    manager.publish("counter", &CounterProxy::new(&manager, 1).unwrap()).unwrap();
    let error = manager.find::<KeeperProxy>("counter").unwrap_err();
    assert!(error.to_string().contains("CounterProxy") && error.to_string().contains("KeeperProxy"), "{error}");
    let null = Descriptor::new(std::fs::File::open("/dev/null").unwrap());
    let error = manager.publish("null", &null).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotEncode { .. }), "{error}");
    let other = crate::objects::manager(method);
    let error = manager.publish("other", &CounterProxy::new(&other, 1).unwrap()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotEncode { .. }), "{error}");
    manager.unpublish("counter").unwrap();
    until_objects(&manager, 0);
    until_objects(&other, 0);
}

fn process_that_has_connected_publishes_nothing(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.path().join("own").join("manager");
    let manager = Manager::builder().start_method(method).listen_unix(&path).start().unwrap();
    let there = Manager::connect_unix(&path).unwrap();
    let counter = CounterProxy::new(&there, 1).unwrap();
    let error = there.publish("counter", &counter).unwrap_err();
    assert!(error.kind() == &ErrorKind::Full && error.to_string().contains("publishes nothing"), "{error}");
    manager.publish("number", &7_u8).unwrap();
    assert!(there.unpublish("number").is_err());
    assert_eq!(there.find::<u8>("number").unwrap(), Some(7));
}

fn lock_and_condition_are_found_by_two_connections(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.path().join("own").join("manager");
    let manager = Manager::builder().start_method(method).listen_unix(&path).start().unwrap();
    let lock = Lock::new(&manager).unwrap();
    let queue: Queue<String> = Queue::unbounded(&manager).unwrap();
    manager.publish("shared", &(lock.clone(), lock.condition().unwrap(), queue)).unwrap();
    let find = || {
        let there = Manager::connect_unix(&path).unwrap();
        there.find::<(Lock, Condition, Queue<String>)>("shared").unwrap().unwrap()
    };
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let (lock, condition, queue) = find();
            let mut guard = lock.lock().unwrap().unwrap();
            while queue.is_empty().unwrap() {
                guard = condition.wait(guard).unwrap().unwrap();
            }
            queue.recv().unwrap()
        });
        let (lock, condition, queue) = find();
        let guard = lock.lock().unwrap().unwrap();
        queue.send("shared".to_owned()).unwrap();
        condition.notify_all().unwrap();
        drop(guard);
        assert_eq!(waits.join().unwrap(), "shared");
    });
    assert!(!lock.is_locked().unwrap());
}

/// A program that is nothing but a manager.
#[process_task]
fn serve(path: std::path::PathBuf, dropped: Stage) -> Option<i32> {
    let manager = Manager::builder().name("forever").listen_unix(&path).start().unwrap();
    manager.publish("keeper", &KeeperProxy::new(&manager, Some(dropped)).unwrap()).unwrap();
    manager.serve_forever().unwrap().code()
}

fn sigterm_ends_a_program_that_serves_forever(method: StartMethod) {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let scratch = Scratch::new();
        let path = scratch.path().join("own").join("manager");
        let dropped = new_stage();
        let args = (path.clone(), dropped.clone());
        let program = ProcessBuilder::new().start_method(method).spawn(serve, args).unwrap();
        let there = loop {
            match Manager::connect_unix(&path) {
                Ok(there) => break there,
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        };
        let keeper: KeeperProxy = loop {
            if let Some(keeper) = there.find("keeper").unwrap() {
                break keeper;
            }
        };
        keeper.forget().unwrap();
        // A signal that comes before ends it as any.
        signals::until_caught(program.pid().unwrap(), signal);
        signals::send(program.pid().unwrap(), signal);
        assert_eq!(program.join().unwrap(), Some(0));
        until(&dropped, 1);
        there.wait();
        let error = keeper.forget().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error}");
        assert!(Manager::connect_unix(&path).is_err());
    }
}

/// Serves, and sends SIGTERM to a copy of this process. How the copy has ended, and whether this program went on to serve.
#[process_task]
fn serve_beside_a_copy(path: std::path::PathBuf) -> (String, bool) {
    let manager = Manager::builder().name("forever").listen_unix(&path).start().unwrap();
    let serves = thread::spawn(move || manager.serve_forever().unwrap().code());
    signals::until_caught(std::process::id(), Signal::SIGTERM);
    let ended = copy_that_is_sent(Signal::SIGTERM);
    let there = Manager::connect_unix(&path).unwrap();
    let goes_on = there.wait_timeout(Duration::from_millis(300)).is_err() && !serves.is_finished();
    signals::send(std::process::id(), Signal::SIGTERM);
    assert_eq!(serves.join().unwrap(), Some(0));
    (format!("{ended:?}"), goes_on)
}

fn sigterm_to_a_copy_of_a_program_that_serves_ends_the_copy(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.path().join("own").join("manager");
    let program = ProcessBuilder::new().start_method(method).spawn(serve_beside_a_copy, path).unwrap();
    let (ended, goes_on) = program.join().unwrap();
    assert!(ended.contains("Signaled") && ended.contains("SIGTERM") && goes_on, "{ended}, {goes_on}");
}

fn sigterm_ends_a_manager_gracefully(method: StartMethod) {
    let manager = manager(method);
    let dropped = new_stage();
    let keeper = KeeperProxy::new(&manager, Some(dropped.clone())).unwrap();
    signals::send(manager.pid(), Signal::SIGTERM);
    assert_eq!(manager.wait().unwrap().code(), Some(0));
    until(&dropped, 1);
    let error = keeper.forget().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error}");
}

#[process_task]
fn outlive(manager: ManagerHandle) -> bool {
    manager.wait();
    manager.stats().is_err()
}

fn handle_waits_for_the_end(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.path().join("own").join("manager");
    let manager = Manager::builder().start_method(method).listen_unix(&path).start().unwrap();
    let there = Manager::connect_unix(&path).unwrap();
    let process = ProcessBuilder::new().start_method(method).spawn(outlive, (*manager).clone()).unwrap();
    assert!(there.wait_timeout(Duration::from_millis(60)).is_err());
    let own: &ManagerHandle = &manager;
    assert!(own.wait_timeout(Duration::from_millis(60)).is_err());
    manager.kill().unwrap();
    own.wait();
    there.wait();
    assert!(process.join().unwrap());
}

fn port_without_a_host_is_of_this_machine(method: StartMethod) {
    let key = Key::random().unwrap();
    for port in ["0", ":0"] {
        let manager = Manager::builder().start_method(method).listen_tcp(port, &key).start().unwrap();
        let address = manager.addresses().unwrap().remove(0);
        assert!(address.starts_with("127.0.0.1:"), "{address}");
    }
}

fn keys_that_are_wrong_empty_or_short_are_refused(method: StartMethod) {
    for short in [&b""[..], b"short", &[7; 31]] {
        let error = Key::new(short).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    }
    let key = Key::random().unwrap();
    let manager = Manager::builder().start_method(method).listen_tcp("0", &key).start().unwrap();
    let error = Manager::connect_tcp(&manager.addresses().unwrap()[0], &Key::random().unwrap()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PeerRefused { reason, .. } if reason.contains("key")), "{error}");
    let stats = manager.stats().unwrap();
    assert_eq!((stats.refused(), stats.clients()), (1, 1));
    assert!(stats.last_refusal().unwrap().contains("key"), "{stats:?}");
}
