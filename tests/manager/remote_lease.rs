//! Clients and managers that vanish without a word: cut off, or stopped.
//!
//! Runs in: the test process, which cuts the cable between its tasks and managers.

use std::io::{ErrorKind as IoErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};

use crate::objects::{CounterProxy, until_objects};
use crate::support::scratch::Scratch;
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until, until_killed};
use crate::support::{PATIENCE, eventually, signals};
use process_task::channel::Key;
use process_task::managed::Lock;
use process_task::{ErrorKind, Manager, ManagerHandle, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    client_that_vanishes_poisons_its_locks,
    manager_that_vanishes_is_gone_after_the_lease,
    client_that_is_stopped_has_the_lease_and_no_more,
    client_of_this_machine_that_is_stopped_keeps_its_locks,
    idle_client_keeps_its_objects,
    client_that_takes_no_answers_is_dropped,
}

const LEASE: Duration = Duration::from_millis(1200);

/// How much longer it may take on a loaded machine.
const SLACK: Duration = Duration::from_secs(10);

const FORWARDS: u8 = 0;
const IS_CUT: u8 = 1;
const IS_OVER: u8 = 2;

/// Takes bytes to a manager and back until it is cut. Then it says nothing at all, as a network does.
struct Cable {
    address: String,
    state: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

impl Cable {
    fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        listener.set_nonblocking(true).unwrap();
        let (state, target) = (Arc::new(AtomicU8::new(FORWARDS)), target.to_owned());
        let of_thread = Arc::clone(&state);
        let thread = thread::spawn(move || {
            let mut threads = Vec::new();
            while of_thread.load(SeqCst) != IS_OVER {
                let Ok((near, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(2));
                    continue;
                };
                let far = TcpStream::connect(&target).unwrap();
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to, state) =
                        (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&of_thread));
                    threads.push(thread::spawn(move || forward(from, to, &state)));
                }
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    fn cut(&self) {
        self.state.store(IS_CUT, SeqCst);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, state: &AtomicU8) {
    from.set_nonblocking(false).unwrap();
    from.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let mut bytes = [0; 4096];
    loop {
        match from.read(&mut bytes) {
            Ok(0) if state.load(SeqCst) == FORWARDS => return drop(to.shutdown(std::net::Shutdown::Write)),
            Ok(len) if state.load(SeqCst) == FORWARDS => {
                if to.write_all(&bytes[..len]).is_err() {
                    return;
                }
            }
            Ok(0) => thread::sleep(Duration::from_millis(10)),
            Err(error) if !matches!(error.kind(), IoErrorKind::WouldBlock | IoErrorKind::TimedOut) => {
                thread::sleep(Duration::from_millis(10));
            }
            Ok(_) | Err(_) => {}
        }
        if state.load(SeqCst) == IS_OVER {
            return;
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.state.store(IS_OVER, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A manager with a lock that is found under its name.
fn with_lock(method: StartMethod, key: &Key) -> (Manager, Lock) {
    let builder = Manager::builder().name("leases").start_method(method).lease(LEASE);
    let manager = builder.listen_tcp("0", key).start().unwrap();
    let lock = Lock::new(&manager).unwrap();
    manager.publish("lock", &lock).unwrap();
    (manager, lock)
}

/// Locks the lock, makes objects, and says so. Then it may stop itself, and tells how its next call went.
fn hold(there: &ManagerHandle, stage: &Stage, stops: bool) -> String {
    let lock: Lock = there.find("lock").unwrap().unwrap();
    let _guard = lock.lock().unwrap().unwrap();
    let counters: Vec<_> = (0..3).map(|start| CounterProxy::new(there, start).unwrap()).collect();
    reach(stage);
    if !stops {
        until_killed();
    }
    raise(Signal::SIGSTOP).unwrap();
    counters[0].get().map_or_else(|error| format!("{:?}", error.kind()), |count| count.to_string())
}

#[process_task]
fn hold_by_port(address: String, secret: Vec<u8>, stage: &Stage, stops: bool) -> String {
    hold(&Manager::connect_tcp(&address, &Key::new(secret).unwrap()).unwrap(), stage, stops)
}

#[process_task]
fn hold_by_path(path: std::path::PathBuf, stage: &Stage, stops: bool) -> String {
    hold(&Manager::connect_unix(&path).unwrap(), stage, stops)
}

fn resume(pid: u32) {
    signals::send(pid, Signal::SIGCONT);
}
fn client_that_vanishes_poisons_its_locks(method: StartMethod) {
    let key = Key::random().unwrap();
    let (manager, lock) = with_lock(method, &key);
    let cable = Cable::to(&manager.addresses().unwrap()[0]);
    let stage = new_stage();
    let args = (cable.address.clone(), key.secret().to_vec(), &stage, false);
    let process = ProcessBuilder::new().start_method(method).spawn(hold_by_port, args).unwrap();
    until(&stage, 1);
    until_objects(&manager, 4);
    // One that says nothing loses its lock in this time.
    thread::sleep(LEASE * 2);
    assert!(lock.is_locked().unwrap());
    cable.cut();
    let since = Instant::now();
    // The next one has it, and is told that its holder died.
    assert!(lock.lock().unwrap().is_err());
    assert!(since.elapsed() < LEASE + SLACK, "{:?}", since.elapsed());
    until_objects(&manager, 1);
    eventually("the client is none any more", PATIENCE, || manager.stats().unwrap().clients() == 1);
    process.kill().unwrap();
    drop(process.join());
}

fn manager_that_vanishes_is_gone_after_the_lease(method: StartMethod) {
    let key = Key::random().unwrap();
    let (manager, _lock) = with_lock(method, &key);
    let cable = Cable::to(&manager.addresses().unwrap()[0]);
    let there = Manager::connect_tcp(&cable.address, &key).unwrap();
    let counter = CounterProxy::new(&there, 7).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| counter.sleep(Duration::from_secs(50)).unwrap_err());
        eventually("the call has begun", PATIENCE, || manager.stats().unwrap().calls() >= 3);
        assert!(there.wait_timeout(LEASE * 2).is_err());
        cable.cut();
        let since = Instant::now();
        let error = waits.join().unwrap();
        assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error}");
        assert!(since.elapsed() < LEASE + SLACK, "{:?}", since.elapsed());
        there.wait();
        let error = counter.get().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error}");
    });
    drop((counter, there));
    manager.kill().unwrap();
}

fn client_that_is_stopped_has_the_lease_and_no_more(method: StartMethod) {
    let key = Key::random().unwrap();
    let (manager, lock) = with_lock(method, &key);
    let stage = new_stage();
    let args = (manager.addresses().unwrap()[0].clone(), key.secret().to_vec(), &stage, true);
    let process = ProcessBuilder::new().start_method(method).spawn(hold_by_port, args).unwrap();
    until(&stage, 1);
    let since = Instant::now();
    assert!(lock.lock().unwrap().is_err());
    assert!(since.elapsed() < LEASE + SLACK, "{:?}", since.elapsed());
    until_objects(&manager, 1);
    resume(process.pid().unwrap());
    let told = process.join().unwrap();
    assert!(told.contains("ManagerGone"), "{told}");
}

fn client_of_this_machine_that_is_stopped_keeps_its_locks(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.path().join("own").join("manager");
    let builder = Manager::builder().name("leases").start_method(method).lease(LEASE / 4);
    let manager = builder.listen_unix(&path).start().unwrap();
    let lock = Lock::new(&manager).unwrap();
    manager.publish("lock", &lock).unwrap();
    let stage = new_stage();
    let process = ProcessBuilder::new().start_method(method).spawn(hold_by_path, (path, &stage, true)).unwrap();
    until(&stage, 1);
    signals::until_stopped(process.pid().unwrap());
    thread::sleep(LEASE);
    assert!(lock.is_locked().unwrap());
    resume(process.pid().unwrap());
    assert_eq!(process.join().unwrap(), "0");
    assert!(lock.lock().unwrap().is_ok());
}

fn idle_client_keeps_its_objects(method: StartMethod) {
    let key = Key::random().unwrap();
    let (manager, _lock) = with_lock(method, &key);
    let there = Manager::connect_tcp(&manager.addresses().unwrap()[0], &key).unwrap();
    let counter = CounterProxy::new(&there, 7).unwrap();
    thread::sleep(LEASE * 3);
    assert_eq!(counter.get().unwrap(), 7);
}

#[process_task]
fn ask_and_stop(path: std::path::PathBuf, stage: &Stage) -> String {
    let there = Manager::connect_unix(&path).unwrap();
    let counter = CounterProxy::new(&there, 7).unwrap();
    let calls: Vec<_> = (0..60).map(|_| counter.later().zeros(4 << 20)).collect();
    reach(stage);
    raise(Signal::SIGSTOP).unwrap();
    let failed = calls.into_iter().filter_map(|call| call.join().err()).last();
    failed.map_or_else(String::new, |error| format!("{:?}", error.kind()))
}

fn client_that_takes_no_answers_is_dropped(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.path().join("own").join("manager");
    let builder = Manager::builder().name("leases").start_method(method).lease(LEASE);
    let manager = builder.listen_unix(&path).start().unwrap();
    let counter = CounterProxy::new(&manager, 0).unwrap();
    let stage = new_stage();
    let process = ProcessBuilder::new().start_method(method).spawn(ask_and_stop, (path, &stage)).unwrap();
    until(&stage, 1);
    eventually("the client is dropped", PATIENCE, || {
        assert_eq!(counter.get().unwrap(), 0);
        manager.stats().unwrap().clients() == 1
    });
    until_objects(&manager, 1);
    resume(process.pid().unwrap());
    let told = process.join().unwrap();
    assert!(told.contains("ManagerGone"), "{told}");
}
