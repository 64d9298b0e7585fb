//! Locks, semaphores, events, barriers and queues in a manager: which call gets what when, and what deaths and time-outs cost.
//!
//! Runs in: the test process, the processes that it starts, and managers.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::{Duration, Instant};

use crate::objects::manager;
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until, until_killed};
use crate::support::{PATIENCE, eventually};
use process_task::managed::{Barrier, Condition, Event, JoinableQueue, Lock, Queue, ReentrantLock, Semaphore, Value};
use process_task::{Error, ErrorKind, Execution, Manager, ManagerHandle, StartMethod, process_task};

/// How long a call waits that is to run out of time.
const SHORT: Duration = Duration::from_millis(50);

fn is_late(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Elapsed)
}

fn is_closed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Disconnected)
}

/// Adds to a value in two steps, under the lock.
#[process_task]
fn add_slowly(lock: &Lock, value: &Value<u64>, times: u64) {
    for _ in 0..times {
        let guard = lock.lock().unwrap().unwrap();
        let old = value.get().unwrap();
        value.set(old + 1).unwrap();
        drop(guard);
    }
}

fn lock_excludes_other_processes_and_threads(method: StartMethod) {
    let manager = manager(method);
    let (lock, value) = (Lock::new(&manager).unwrap(), Value::new(&manager, 0).unwrap());
    let processes: Vec<_> = (0..3).map(|_| add_slowly.spawn(&lock, &value, 20)).collect();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| add_slowly(&lock, &value, 20));
        }
    });
    for process in processes {
        process.join().unwrap();
    }
    assert_eq!(value.get().unwrap(), 120);
    assert!(!lock.is_locked().unwrap());
}

fn lock_that_is_held_is_not_had_at_once_or_in_time(method: StartMethod) {
    let manager = manager(method);
    let lock = Lock::new(&manager).unwrap();
    let guard = lock.lock().unwrap().unwrap();
    assert!(lock.try_lock().unwrap().is_none());
    let since = Instant::now();
    let error = lock.with_timeout(SHORT).lock().unwrap_err();
    assert!(is_late(&error), "{error:?}");
    assert!(since.elapsed() >= SHORT);
    guard.unlock().unwrap();
    // What had waited is gone from the list, or the lock would be given to it.
    drop(lock.with_timeout(PATIENCE).lock().unwrap().unwrap());
    assert!(lock.try_lock().unwrap().is_some());
}

/// Locks, comes to `stage`, and stays.
#[process_task]
fn hold(lock: &Lock, stage: &Stage) {
    let _guard = lock.lock().unwrap().unwrap();
    reach(stage);
    until_killed();
}

fn lock_of_a_killed_holder_is_released_and_poisoned(method: StartMethod) {
    let manager = manager(method);
    let lock = Lock::new(&manager).unwrap();
    let stage = new_stage();
    let holder = hold.spawn(&lock, &stage);
    until(&stage, 1);
    let waiter = thread::spawn({
        let lock = lock.clone();
        move || lock.lock().unwrap().map(drop).is_err()
    });
    holder.kill().unwrap();
    assert!(waiter.join().unwrap(), "the waiter gets the lock, and hears that it is poisoned");
    assert!(lock.is_poisoned().unwrap());
    lock.clear_poison().unwrap();
    drop(lock.lock().unwrap().unwrap());
}

fn lock_of_a_killed_waiter_goes_to_the_next(method: StartMethod) {
    let manager = manager(method);
    let lock = Lock::new(&manager).unwrap();
    let stage = new_stage();
    let guard = lock.lock().unwrap().unwrap();
    let first = waits.spawn(&lock, &stage);
    until(&stage, 1);
    thread::sleep(SHORT);
    let second = thread::spawn({
        let lock = lock.clone();
        move || drop(lock.lock().unwrap().unwrap())
    });
    thread::sleep(SHORT);
    first.kill().unwrap();
    first.join().unwrap_err();
    drop(guard);
    second.join().unwrap();
    assert!(!lock.is_poisoned().unwrap());
}

/// Waits for the lock.
#[process_task]
fn waits(lock: &Lock, stage: &Stage) {
    reach(stage);
    drop(lock.lock().unwrap().unwrap());
}

fn panic_under_a_lock_poisons_it(method: StartMethod) {
    let manager = manager(method);
    let lock = Lock::new(&manager).unwrap();
    let caught = panic::catch_unwind(AssertUnwindSafe(|| {
        let _guard = lock.lock().unwrap().unwrap();
        panic!("on purpose");
    }));
    assert!(caught.is_err());
    let guard = lock.lock().unwrap().unwrap_err().into_inner();
    assert!(lock.is_locked().unwrap(), "a poisoned lock is locked all the same");
    drop(guard);
    assert!(lock.is_poisoned().unwrap());
}

fn reentrant_lock_is_released_with_its_last_guard(method: StartMethod) {
    let manager = manager(method);
    let lock = ReentrantLock::new(&manager).unwrap();
    let outer = lock.lock().unwrap().unwrap();
    let inner = lock.try_lock().unwrap().unwrap().unwrap();
    let other = |lock: &ReentrantLock| {
        thread::scope(|scope| scope.spawn(|| lock.try_lock().unwrap().is_some()).join().unwrap())
    };
    drop(outer);
    assert!(!other(&lock), "the inner guard is there");
    drop(inner);
    assert!(other(&lock));
}

fn calls_that_wait_hold_no_thread_of_the_manager(method: StartMethod) {
    let manager = manager(method);
    let event = Event::new(&manager).unwrap();
    thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| event.wait().unwrap());
        }
        thread::sleep(SHORT);
        let threads = threads_of(&manager);
        event.set().unwrap();
        assert!(threads < 20, "{threads} threads");
    });
}

fn threads_of(manager: &Manager) -> usize {
    fs::read_dir(format!("/proc/{}/task", manager.pid())).unwrap().count()
}

#[process_task]
fn waits_for(event: &Event) {
    event.wait().unwrap();
}

fn event_wakes_all_that_wait(method: StartMethod) {
    let manager = manager(method);
    let event = Event::new(&manager).unwrap();
    assert!(is_late(&event.with_timeout(SHORT).wait().unwrap_err()));
    let before = manager.stats().unwrap().calls();
    let processes: Vec<_> = (0..3).map(|_| waits_for.spawn(&event)).collect();
    eventually("all wait", PATIENCE, || manager.stats().unwrap().calls() >= before + 3);
    event.set().unwrap();
    for process in processes {
        process.join().unwrap();
    }
    event.wait().unwrap();
    event.clear().unwrap();
    assert!(!event.is_set().unwrap());
    assert!(is_late(&event.with_timeout(SHORT).wait().unwrap_err()));
}

#[process_task]
fn hold_permit(semaphore: &Semaphore, stage: &Stage) {
    let _permit = semaphore.acquire().unwrap();
    reach(stage);
    until_killed();
}

fn permits_of_a_killed_holder_come_back(method: StartMethod) {
    let manager = manager(method);
    let semaphore = Semaphore::new(&manager, 2).unwrap();
    let stage = new_stage();
    let holder = hold_permit.spawn(&semaphore, &stage);
    until(&stage, 1);
    let own = semaphore.acquire().unwrap();
    assert_eq!(semaphore.available().unwrap(), 0);
    assert!(semaphore.try_acquire().unwrap().is_none());
    assert!(is_late(&semaphore.with_timeout(SHORT).acquire().map(drop).unwrap_err()));
    holder.kill().unwrap();
    drop(semaphore.with_timeout(PATIENCE).acquire().unwrap());
    drop(own);
    assert_eq!(semaphore.available().unwrap(), 2);
}

fn bounded_semaphore_has_no_more_permits(method: StartMethod) {
    let manager = manager(method);
    let semaphore = Semaphore::bounded(&manager, 1).unwrap();
    assert!(matches!(semaphore.add_permit().unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
    semaphore.acquire().unwrap().forget().unwrap();
    assert_eq!(semaphore.available().unwrap(), 0);
    semaphore.add_permit().unwrap();
    assert_eq!(semaphore.available().unwrap(), 1);
    let more = Semaphore::new(&manager, 0).unwrap();
    more.add_permit().unwrap();
    drop(more.acquire().unwrap());
}

#[process_task]
fn add_one(lock: &Lock, changed: &Condition, value: &Value<u64>) {
    let guard = lock.lock().unwrap().unwrap();
    value.set(value.get().unwrap() + 1).unwrap();
    changed.notify_one().unwrap();
    drop(guard);
}

fn condition_wakes_one_that_waits(method: StartMethod) {
    let manager = manager(method);
    let (lock, value) = (Lock::new(&manager).unwrap(), Value::new(&manager, 0).unwrap());
    let changed = lock.condition().unwrap();
    let processes: Vec<_> = (0..3).map(|_| add_one.spawn(&lock, &changed, &value)).collect();
    let guard = lock.lock().unwrap().unwrap();
    let guard = changed.wait_until(guard, || Ok(value.get()? == 3)).unwrap().unwrap();
    assert!(lock.try_lock().unwrap().is_none());
    drop(guard);
    for process in processes {
        process.join().unwrap();
    }
    assert_eq!(changed.notify_all().unwrap(), 0);
    let other = Lock::new(&manager).unwrap();
    let error = changed.wait(other.lock().unwrap().unwrap()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
    assert!(other.try_lock().unwrap().is_some(), "its guard is gone");
}

/// Waits for the condition, in a process of its own.
#[process_task]
fn waits_for_change(lock: &Lock, changed: &Condition, stage: &Stage) {
    let guard = lock.lock().unwrap().unwrap();
    reach(stage);
    drop(changed.wait(guard).unwrap().unwrap());
}

fn notification_of_a_killed_waiter_goes_to_the_next(method: StartMethod) {
    let manager = manager(method);
    let lock = Lock::new(&manager).unwrap();
    let changed = lock.condition().unwrap();
    let stage = new_stage();
    let first = waits_for_change.spawn(&lock, &changed, &stage);
    until(&stage, 1);
    // The lock is free once the first one waits for the condition.
    drop(lock.lock().unwrap().unwrap());
    let second = waits_for_change.spawn(&lock, &changed, &stage);
    until(&stage, 2);
    let guard = lock.lock().unwrap().unwrap();
    assert!(changed.notify_one().unwrap());
    first.kill().unwrap();
    first.join().unwrap_err();
    drop(guard);
    second.join().unwrap();
    assert!(!lock.is_poisoned().unwrap());
}

fn condition_that_is_not_notified_in_time_gives_the_lock_up(method: StartMethod) {
    let manager = manager(method);
    let lock = Lock::new(&manager).unwrap();
    let changed = lock.condition().unwrap();
    let hasty = lock.with_timeout(SHORT);
    let error = changed.wait(hasty.lock().unwrap().unwrap()).unwrap_err();
    assert!(is_late(&error), "{error:?}");
    eventually("it waits no more", PATIENCE, || changed.notify_all().unwrap() == 0);
    assert!(lock.try_lock().unwrap().is_some());
}

#[process_task]
fn meets(barrier: &Barrier, stage: &Stage) -> bool {
    reach(stage);
    barrier.wait().unwrap().is_ok()
}

fn barrier_lets_all_pass_or_breaks(method: StartMethod) {
    let manager = manager(method);
    let barrier = Barrier::new(&manager, 3).unwrap();
    let stage = new_stage();
    for _ in 0..2 {
        let others: Vec<_> = (0..2).map(|_| meets.spawn(&barrier, &stage)).collect();
        assert!(barrier.wait().unwrap().is_ok());
        for other in others {
            assert!(other.join().unwrap());
        }
    }
    assert_eq!((barrier.parties().unwrap(), barrier.waiting().unwrap()), (3, 0));
    let killed = meets.spawn(&barrier, &stage);
    eventually("the party waits", PATIENCE, || barrier.waiting().unwrap() == 1);
    let other = meets.spawn(&barrier, &stage);
    eventually("the other one waits", PATIENCE, || barrier.waiting().unwrap() == 2);
    killed.kill().unwrap();
    assert!(!other.join().unwrap(), "the barrier breaks");
    assert!(barrier.is_broken().unwrap() && barrier.wait().unwrap().is_err());
    barrier.reset().unwrap();
    assert!(!barrier.is_broken().unwrap());
    assert!(is_late(&barrier.with_timeout(SHORT).wait().unwrap_err()));
    eventually("a party that gave up breaks it", PATIENCE, || barrier.is_broken().unwrap());
    barrier.reset().unwrap();
    barrier.abort().unwrap();
    assert!(barrier.wait().unwrap().is_err());
    assert!(Barrier::new(&manager, 0).is_err());
}

#[process_task]
fn squares(numbers: &Queue<u64>, results: &Queue<u64>) -> u64 {
    let mut count = 0;
    while let Ok(number) = numbers.recv() {
        results.send(number * number).unwrap();
        count += 1;
    }
    count
}

fn queue_items_are_got_once(method: StartMethod) {
    let manager = manager(method);
    let numbers = Queue::bounded(&manager, 4).unwrap();
    let results = Queue::unbounded(&manager).unwrap();
    let processes: Vec<_> = (0..3).map(|_| squares.spawn(&numbers, &results)).collect();
    (0..60).for_each(|number| numbers.send(number).unwrap());
    numbers.close().unwrap();
    let counts: u64 = processes.into_iter().map(|process| process.join().unwrap()).sum();
    assert_eq!(counts, 60);
    let mut all: Vec<u64> = (0..60).map(|_| results.recv().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..60).map(|number| number * number).collect::<Vec<_>>());
    assert!(is_closed(&numbers.send(1).unwrap_err()) && is_closed(&numbers.recv().unwrap_err()));
    assert!(numbers.is_closed().unwrap() && results.try_recv().unwrap().is_none());
}

fn queue_has_a_bound_and_an_end(method: StartMethod) {
    let manager = manager(method);
    let queue: Queue<String> = Queue::bounded(&manager, 1).unwrap();
    assert!(is_late(&queue.with_timeout(SHORT).recv().unwrap_err()));
    queue.send("one".to_owned()).unwrap();
    assert_eq!(queue.try_send("two".to_owned()).unwrap(), Err("two".to_owned()));
    let error = queue.with_timeout(SHORT).send("three".to_owned()).unwrap_err();
    assert!(is_late(&error) && error.execution() != Execution::Finished, "{error:?}");
    assert_eq!(queue.len().unwrap(), 1);
    assert_eq!(queue.recv().unwrap(), "one");
    eventually("what was given up is not put in", PATIENCE, || queue.is_empty().unwrap());
    let sender = thread::spawn({
        let queue = queue.clone();
        move || (0..5).try_for_each(|number: u8| queue.send(number.to_string()))
    });
    let got: Vec<_> = (0..5).map(|_| queue.recv().unwrap()).collect();
    assert_eq!(got, ["0", "1", "2", "3", "4"]);
    sender.join().unwrap().unwrap();
    assert!(Queue::<u8>::bounded(&manager, 0).is_err());
}

/// Borrows an item, and never says that it is done.
#[process_task]
fn borrow(jobs: &JoinableQueue<u64>, stage: &Stage) {
    let _job = jobs.recv().unwrap();
    reach(stage);
    until_killed();
}

#[process_task]
fn work_off(jobs: &JoinableQueue<u64>) -> u64 {
    let mut sum = 0;
    while let Ok(job) = jobs.recv() {
        sum += *job;
        job.done().unwrap();
    }
    sum
}

fn items_of_a_killed_borrower_come_back(method: StartMethod) {
    let manager = manager(method);
    let jobs = JoinableQueue::unbounded(&manager).unwrap();
    let stage = new_stage();
    (1..=3).for_each(|job| jobs.send(job).unwrap());
    let borrower = borrow.spawn(&jobs, &stage);
    until(&stage, 1);
    assert_eq!((jobs.len().unwrap(), jobs.unfinished().unwrap()), (2, 3));
    assert!(is_late(&jobs.with_timeout(SHORT).join().unwrap_err()));
    borrower.kill().unwrap();
    eventually("the item comes back", PATIENCE, || jobs.len().unwrap() == 3);
    let first = jobs.recv().unwrap();
    assert_eq!(*first, 1, "to the front");
    drop(first);
    let workers: Vec<_> = (0..2).map(|_| work_off.spawn(&jobs)).collect();
    jobs.join().unwrap();
    jobs.close().unwrap();
    let sum: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert_eq!((sum, jobs.unfinished().unwrap()), (6, 0));
    assert!(is_closed(&jobs.recv().map(drop).unwrap_err()));
}

#[process_task]
fn waits_long(queue: &Queue<u64>, stage: &Stage) -> u64 {
    reach(stage);
    queue.recv().unwrap()
}

fn item_is_not_lost_with_a_getter_that_waited(method: StartMethod) {
    let manager = manager(method);
    let queue: Queue<u64> = Queue::unbounded(&manager).unwrap();
    let stage = new_stage();
    let getter = waits_long.spawn(&queue, &stage);
    until(&stage, 1);
    thread::sleep(SHORT);
    getter.kill().unwrap();
    queue.send(7).unwrap();
    assert_eq!(queue.with_timeout(PATIENCE).recv().unwrap(), 7);
}

fn waiting_ends_with_the_manager(method: StartMethod) {
    let manager = manager(method);
    let handle: ManagerHandle = manager.as_ref().clone();
    let (lock, queue) = (Lock::new(&manager).unwrap(), Queue::<u8>::unbounded(&manager).unwrap());
    let guard = lock.lock().unwrap().unwrap();
    thread::scope(|scope| {
        let locker = scope.spawn(|| lock.lock().map(drop).unwrap_err());
        let getter = scope.spawn(|| queue.recv().unwrap_err());
        thread::sleep(SHORT);
        let since = Instant::now();
        manager.kill().unwrap();
        for error in [locker.join().unwrap(), getter.join().unwrap()] {
            assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error:?}");
        }
        assert!(since.elapsed() < PATIENCE);
    });
    drop(guard);
    assert!(Event::new(&handle).is_err());
}

under_every_start_method! {
    lock_excludes_other_processes_and_threads,
    lock_that_is_held_is_not_had_at_once_or_in_time,
    lock_of_a_killed_holder_is_released_and_poisoned,
    lock_of_a_killed_waiter_goes_to_the_next,
    panic_under_a_lock_poisons_it,
    reentrant_lock_is_released_with_its_last_guard,
    calls_that_wait_hold_no_thread_of_the_manager,
    event_wakes_all_that_wait,
    permits_of_a_killed_holder_come_back,
    bounded_semaphore_has_no_more_permits,
    condition_wakes_one_that_waits,
    notification_of_a_killed_waiter_goes_to_the_next,
    condition_that_is_not_notified_in_time_gives_the_lock_up,
    barrier_lets_all_pass_or_breaks,
    queue_items_are_got_once,
    queue_has_a_bound_and_an_end,
    items_of_a_killed_borrower_come_back,
    item_is_not_lost_with_a_getter_that_waited,
    waiting_ends_with_the_manager,
}
