//! Where something runs out: descriptors, calls in flight, room in a client's queue.
//!
//! Runs in: the test process, its tasks, and managers.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;

use crate::objects::{CounterProxy, KeeperProxy, manager, until_objects};
use crate::support::executor::block_on;
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until};
use crate::support::{PATIENCE, eventually, processes, restore};
use process_task::channel::Queue;
use process_task::managed::List;
use process_task::{ErrorKind, Execution, Manager, ManagerHandle, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    calls_in_flight_are_bounded,
    manager_without_descriptors_goes_on,
    manager_that_keeps_too_many_descriptors_refuses_more,
    client_without_descriptors_waits_as_long_as_it_was_told,
    stopped_client_keeps_no_other_waiting,
    ten_thousand_objects_come_and_go,
    proxies_are_unwind_safe,
    builder_refuses_what_makes_no_sense,
}

fn calls_in_flight_are_bounded(method: StartMethod) {
    let manager = Manager::builder().start_method(method).max_pending(3).start().unwrap();
    let counter = CounterProxy::new(&manager, 0).unwrap();
    let stage = new_stage();
    let stays: Vec<_> = (0..3).map(|_| counter.later().stay(&stage, 4)).collect();
    until(&stage, 3);
    let tries = AtomicBool::new(false);
    thread::scope(|scope| {
        let more = scope.spawn(|| {
            tries.store(true, SeqCst);
            counter.later().get()
        });
        eventually("one more call is tried", PATIENCE, || tries.load(SeqCst));
        for _ in 0..300 {
            // Short calls are not counted.
            assert_eq!(counter.get().unwrap(), 0);
            assert!(!more.is_finished());
        }
        reach(&stage);
        assert_eq!(more.join().unwrap().join().unwrap(), 0);
    });
    for stay in stays {
        assert_eq!(stay.join().unwrap(), 4);
    }
    let many: Vec<_> = (0..100).map(|_| counter.later().add(1)).collect();
    assert_eq!(many.into_iter().map(|call| call.join().unwrap()).max(), Some(100));
}

#[process_task]
fn open_files(count: usize) -> usize {
    use std::sync::Mutex;
    static OPEN: Mutex<Vec<std::fs::File>> = Mutex::new(Vec::new());
    let mut open = OPEN.lock().unwrap();
    open.clear();
    open.extend((0..count).map_while(|_| std::fs::File::open("/dev/null").ok()));
    open.len()
}

fn manager_without_descriptors_goes_on(method: StartMethod) {
    let manager = Manager::builder().name("objects").start_method(method).open_files_limit(128).start().unwrap();
    let counter = CounterProxy::new(&manager, 5).unwrap();
    let keeper = KeeperProxy::new(&manager, None).unwrap();
    let opened = manager.call(open_files, 1000).unwrap();
    assert!(opened < 128);
    // A message with a proxy needs one descriptor there for as long as it is on its way. It may be lost, but nothing hangs.
    let queue = Queue::unbounded().unwrap();
    for _ in 0..20 {
        let _ = queue.send(counter.clone());
        assert_eq!(counter.get().unwrap(), 5);
    }
    drop(queue);
    let _ = keeper.keep(counter.clone());
    assert_eq!(counter.add(1).unwrap(), 6);
    assert_eq!(manager.call(open_files, 0).unwrap(), 0);
    keeper.forget().unwrap();
    keeper.keep(counter.clone()).unwrap();
    assert_eq!(keeper.sum().unwrap(), 6);
    drop((keeper, counter));
    until_objects(&manager, 0);
}

fn manager_that_keeps_too_many_descriptors_refuses_more(method: StartMethod) {
    let manager = Manager::builder().name("objects").start_method(method).open_files_limit(128).start().unwrap();
    let counter = CounterProxy::new(&manager, 5).unwrap();
    let kept = List::new(&manager, []).unwrap().with_timeout(PATIENCE);
    let refusal = (0..200).find_map(|_| kept.push(counter.clone()).err()).expect("there are 128 descriptors");
    assert_eq!(refusal.execution(), Execution::NotStarted, "{refusal}");
    assert!(refusal.to_string().contains("descriptors"), "{refusal}");
    // What comes behind is handled: what is let go of makes room.
    assert_eq!(counter.add(1).unwrap(), 6);
    kept.clear().unwrap();
    kept.push(counter.clone()).unwrap();
    drop((kept, counter));
    until_objects(&manager, 0);
}

fn client_without_descriptors_waits_as_long_as_it_was_told(method: StartMethod) {
    let manager = manager(method);
    let keeper = KeeperProxy::new(&manager, None).unwrap();
    keeper.keep(CounterProxy::new(&manager, 5).unwrap()).unwrap();
    let _limit = restore::soft_limit(Resource::RLIMIT_NOFILE, 512);
    let open: Vec<_> = (0..1000).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
    // A limit of time acts, and without one the call fails for want of descriptors.
    let error = keeper.with_timeout(Duration::from_millis(100)).last().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Elapsed);
    assert!(matches!(keeper.last().unwrap_err().kind(), ErrorKind::ChannelFailed { .. }));
    assert!(matches!(block_on(keeper.later().last()).unwrap_err().kind(), ErrorKind::ChannelFailed { .. }));
    drop(open);
    assert_eq!(keeper.last().unwrap().unwrap().get().unwrap(), 5);
}

#[process_task]
fn ask_for_much(counter: CounterProxy, stage: &Stage) {
    let calls: Vec<_> = (0..200).map(|_| counter.later().echo(vec![1; 10_000])).collect();
    reach(stage);
    raise(Signal::SIGSTOP).unwrap();
    for call in calls {
        assert_eq!(call.join().unwrap().len(), 10_000);
    }
}

fn stopped_client_keeps_no_other_waiting(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    let stage = new_stage();
    let process = ProcessBuilder::new().start_method(method).spawn(ask_for_much, (counter.clone(), &stage)).unwrap();
    let pid = process.pid().unwrap();
    until(&stage, 1);
    eventually("the client has stopped itself", PATIENCE, || {
        processes::descendants().get(&pid).is_some_and(|entry| entry.state == 'T')
    });
    for _ in 0..100 {
        assert_eq!(counter.echo(vec![2; 9000]).unwrap(), [2; 9000]);
    }
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGCONT).unwrap();
    process.join().unwrap();
}

fn ten_thousand_objects_come_and_go(method: StartMethod) {
    let manager = manager(method);
    let counters: Vec<_> = (0..10_000).map(|start| CounterProxy::new(&manager, start).unwrap()).collect();
    assert_eq!(counters[7777].get().unwrap(), 7777);
    until_objects(&manager, 10_000);
    drop(counters);
    until_objects(&manager, 0);
}

fn proxies_are_unwind_safe(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    assert!(catch_unwind(|| counter.panic_shared().unwrap()).is_err());
    let handle: ManagerHandle = (*manager).clone();
    assert!(catch_unwind(|| handle.stats().unwrap()).is_ok());
}

fn builder_refuses_what_makes_no_sense(method: StartMethod) {
    let error = Manager::builder().start_method(method).max_pending(0).start().unwrap_err();
    assert!(error.to_string().contains("at least 1"), "{error}");
    let error = Manager::builder().start_method(method).current_dir("/nowhere/at/all").start().unwrap_err();
    assert!(error.to_string().contains("could not start"), "{error}");
}
