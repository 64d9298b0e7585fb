//! Deadlines of proxies, and managers that do not answer.
//!
//! Runs in: the test process, and managers.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::objects::{CounterProxy, manager};
use crate::support::executor::block_on;
use crate::support::shared_counter::{reach, stage as new_stage, until};
use crate::support::{PATIENCE, eventually, signals};
use process_task::managed::{JoinableQueue, Lock, Semaphore};
use process_task::{ErrorKind, Execution, StartMethod, process_task};

under_every_start_method! {
    call_of_a_long_method_ends_in_time,
    stopped_manager_keeps_deadlines,
    late_answers_confuse_no_later_call,
    calls_are_awaited,
    awaited_calls_end_in_time_and_with_the_manager,
    release_that_is_late_is_made_all_the_same,
    limits_of_time_act_in_the_manager_itself,
    idle_manager_does_nothing,
}

const SHORT: Duration = Duration::from_millis(60);

fn call_of_a_long_method_ends_in_time(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    let since = Instant::now();
    let error = counter.with_timeout(SHORT).sleep(Duration::from_secs(2)).unwrap_err();
    assert_eq!((error.kind(), error.execution()), (&ErrorKind::Elapsed, Execution::Unknown));
    assert!(since.elapsed() >= SHORT && since.elapsed() < Duration::from_secs(2));
    let stage = new_stage();
    let error = counter.with_timeout(SHORT).stay(&stage, 2).unwrap_err();
    assert_eq!((error.kind(), error.execution()), (&ErrorKind::Elapsed, Execution::Unknown));
    let error = counter.with_timeout(SHORT).later().stay(&stage, 9).join().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Elapsed);
    (0..9).for_each(|_| reach(&stage));
    assert_eq!(counter.with_timeout(Duration::from_secs(40)).get().unwrap(), 0);
}

fn stopped_manager_keeps_deadlines(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    signals::stop(manager.pid());
    let error = counter.with_timeout(SHORT).add(1).unwrap_err();
    assert_eq!((error.kind(), error.execution()), (&ErrorKind::Elapsed, Execution::NotStarted));
    let error = counter.with_timeout(SHORT).echo(vec![0; 5000]).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Elapsed);
    let error = counter.with_timeout(SHORT).later().get().join().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Elapsed);
    let more = CounterProxy::clone(&counter);
    drop(more);
    signals::send(manager.pid(), Signal::SIGCONT);
    assert_eq!(counter.get().unwrap(), 0, "the call that was taken back was not made");
}

fn late_answers_confuse_no_later_call(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    let mut late = 0;
    for _ in 0..40 {
        // On a busy machine the answer may come before this thread looks at the clock.
        late += usize::from(counter.with_timeout(Duration::from_millis(2)).sleep(Duration::from_millis(6)).is_err());
        assert_eq!(counter.echo(vec![3; 10]).unwrap(), [3; 10]);
    }
    assert!(late > 0, "no call was late");
    for len in [10, 5000] {
        thread::sleep(Duration::from_millis(20));
        for _ in 0..40 {
            assert_eq!(counter.echo(vec![4; len]).unwrap(), vec![4; len]);
        }
    }
}

fn calls_are_awaited(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    block_on(async {
        let calls: Vec<_> = (1..=20).map(|more| counter.later().add(more)).collect();
        for (call, number) in calls.into_iter().zip(1..) {
            assert_eq!(call.await.unwrap(), number * (number + 1) / 2);
        }
    });
}

fn awaited_calls_end_in_time_and_with_the_manager(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    let stage = new_stage();
    let error = block_on(counter.with_timeout(SHORT).later().stay(&stage, 9)).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Elapsed);
    let call = counter.later().stay(&stage, 9);
    until(&stage, 2);
    let killer = thread::spawn(move || {
        thread::sleep(SHORT);
        manager.kill().unwrap();
        manager
    });
    let error = block_on(call).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error}");
    drop(killer.join().unwrap());
}

/// How often the threads of a process have gone to sleep, in all.
fn sleeps(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
    let counts = statuses.filter_map(|status| {
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    counts.sum()
}

fn release_that_is_late_is_made_all_the_same(method: StartMethod) {
    const LIMIT: Duration = Duration::from_millis(300);
    let manager = manager(method);
    let (lock, semaphore) = (Lock::new(&manager).unwrap(), Semaphore::bounded(&manager, 1).unwrap());
    let jobs: JoinableQueue<u64> = JoinableQueue::unbounded(&manager).unwrap();
    jobs.send(7).unwrap();
    let (hasty_lock, hasty_semaphore) = (lock.with_timeout(LIMIT), semaphore.with_timeout(LIMIT));
    let hasty_jobs = jobs.with_timeout(LIMIT);
    let guard = until_ok(|| hasty_lock.lock()).unwrap();
    let permit = until_ok(|| hasty_semaphore.acquire());
    let job = until_ok(|| hasty_jobs.recv());
    signals::stop(manager.pid());
    assert_eq!(guard.unlock().unwrap_err().kind(), &ErrorKind::Elapsed);
    drop(permit);
    assert_eq!(job.done().unwrap_err().kind(), &ErrorKind::Elapsed);
    signals::send(manager.pid(), Signal::SIGCONT);
    eventually("the lock is released", PATIENCE, || !lock.is_locked().unwrap());
    eventually("the permit is back", PATIENCE, || semaphore.available().unwrap() == 1);
    eventually("the job is done", PATIENCE, || jobs.unfinished().unwrap() == 0);
    assert!(jobs.is_empty().unwrap());
}

/// On a busy machine a call may be late at first.
fn until_ok<T>(mut call: impl FnMut() -> process_task::Result<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match call() {
            Ok(made) => return made,
            Err(error) => assert!(*error.kind() == ErrorKind::Elapsed && Instant::now() < end, "{error}"),
        }
    }
}

/// Whether the lock cannot be had in time, asked for twice. It runs in the manager.
#[process_task]
fn is_late_for(lock: Lock) -> bool {
    let hasty = lock.with_timeout(SHORT);
    (0..2).all(|_| hasty.lock().is_err_and(|error| error.kind() == &ErrorKind::Elapsed))
}

fn limits_of_time_act_in_the_manager_itself(method: StartMethod) {
    let manager = manager(method);
    let lock = Lock::new(&manager).unwrap();
    let guard = lock.lock().unwrap().unwrap();
    assert!(manager.call(is_late_for, lock.clone()).unwrap());
    drop(guard);
    // It was not given to a call that is over.
    assert!(lock.try_lock().unwrap().is_some());
}

fn idle_manager_does_nothing(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    for _ in 0..10 {
        counter.add(1).unwrap();
        counter.later().add(1).join().unwrap();
    }
    // Threads that were needed for a moment end after a second.
    eventually("no thread of the manager wakes up for half a second", PATIENCE, || {
        let before = sleeps(manager.pid());
        thread::sleep(Duration::from_millis(500));
        sleeps(manager.pid()) == before
    });
    assert_eq!(counter.get().unwrap(), 20);
}
