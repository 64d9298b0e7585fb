//! What a mutex promises when those that hold it, or wait for it, end in any way.
//!
//! Runs in: the test process; the tasks in children. Never: relies on how fast anything is, but for the one promise that is about
//! time, which is tried several times.
#![expect(unsafe_code, reason = "a lock word that is written by hand")]

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::PATIENCE;
use crate::support::fork_copy::in_a_copy;
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until, until_asleep, until_killed};
use process_task::sync::{Condvar, Mutex, ReentrantMutex, TryLockError};
use process_task::{Process, ProcessBuilder, Shared, StartMethod, Task, process_task};

under_every_start_method! {
    a_killed_holder_poisons_within_a_tenth_of_a_second,
    a_killed_waiter_costs_nothing,
    a_guard_dropped_in_a_panic_poisons,
    the_next_holder_clears_the_poison_of_a_dead_one,
    a_holder_that_exits_with_a_guard_poisons,
    a_holder_that_returns_and_forgets_its_guard_poisons,
    a_holder_that_lives_keeps_the_mutex,
    copy_made_by_fork_does_not_unlock_and_may_hold_a_lock,
    forgotten_guard_of_a_dropped_region_does_no_harm,
    a_thousand_primitives_of_one_region_work_side_by_side,
    a_reentrant_mutex_is_held_until_its_last_guard_is_dropped,
    killed_holder_poisons_a_reentrant_mutex_at_any_depth,
    mutex_says_which_process_holds_it,
    corrupt_lock_word_blocks_no_locker_for_ever,
}

fn start<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> Process<T::Output> {
    ProcessBuilder::new().start_method(method).spawn(task, args).unwrap()
}

type Counter = Shared<Mutex<u64>>;

fn counter() -> Counter {
    Shared::new(Mutex::new(0)).unwrap()
}

/// Half of a change, and then the end.
#[process_task]
fn begin_to_count(counter: &Counter, stage: &Stage) {
    let mut guard = counter.lock().unwrap();
    *guard += 1;
    reach(stage);
    until_killed();
}

#[process_task]
fn count(counter: &Counter, stage: &Stage) {
    reach(stage);
    *counter.lock().unwrap() += 1;
}

fn a_killed_holder_poisons_within_a_tenth_of_a_second(method: StartMethod) {
    let mut times = vec![];
    while times.iter().all(|time| *time >= Duration::from_millis(100)) {
        assert!(times.len() < 20, "it takes too long: {times:?}");
        let (counter, stage) = (counter(), new_stage());
        let holder = start(method, begin_to_count, (&counter, &stage));
        until(&stage, 1);
        assert!(matches!(counter.try_lock(), Err(TryLockError::WouldBlock)));
        assert!(!counter.is_poisoned());

        holder.kill().unwrap();
        let since = Instant::now();
        let guard = counter.lock().unwrap_err().into_inner();
        times.push(since.elapsed());
        assert_eq!(*guard, 1);
        assert!(counter.is_poisoned());
        drop(guard);
        // It stays so until a process says otherwise.
        assert!(matches!(counter.try_lock(), Err(TryLockError::Poisoned(_))));
        assert!(matches!(counter.lock_timeout(PATIENCE), Err(TryLockError::Poisoned(_))));
        holder.join().unwrap_err();
    }
}

fn a_killed_waiter_costs_nothing(method: StartMethod) {
    let (counter, stage) = (counter(), new_stage());
    let guard = counter.lock().unwrap();
    let waiters = [(); 3].map(|()| start(method, count, (&counter, &stage)));
    until(&stage, 3);
    for waiter in &waiters {
        until_asleep(waiter.pid().unwrap());
    }
    let [first, second, third] = waiters;
    first.kill().unwrap();
    // The second is killed when it may have been woken already.
    drop(guard);
    second.kill().unwrap();
    third.join().unwrap();
    first.join().unwrap_err();
    let finished = second.join().is_ok();
    let guard = counter.lock().unwrap_or_else(|poisoned| {
        assert!(!finished, "it has come to its end, and holds nothing");
        poisoned.into_inner()
    });
    assert!((1..=2).contains(&*guard), "{} have counted", *guard);
}

#[process_task]
fn panic_with(counter: &Counter) {
    let mut guard = counter.lock().unwrap();
    *guard += 1;
    panic!("in the middle");
}

struct CountsWhenDropped<'a>(&'a Counter);

impl Drop for CountsWhenDropped<'_> {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

fn a_guard_dropped_in_a_panic_poisons(method: StartMethod) {
    let counter = counter();
    start(method, panic_with, &counter).join().unwrap_err();
    assert!(counter.is_poisoned());
    assert_eq!(**counter.lock().unwrap_err().get_ref(), 1);

    // In a thread of this process it is the same, and a panic that was there before is no reason.
    counter.clear_poison();
    let panicked = |body: &(dyn Fn() + Sync)| thread::scope(|scope| scope.spawn(body).join().is_err());
    assert!(panicked(&|| {
        let _counts = CountsWhenDropped(&counter);
        panic!("with no guard");
    }));
    assert_eq!(*counter.lock().unwrap(), 2);
    assert!(panicked(&|| {
        let _guard = counter.lock().unwrap();
        panic!("with a guard");
    }));
    assert!(counter.is_poisoned());
}

fn the_next_holder_clears_the_poison_of_a_dead_one(method: StartMethod) {
    let (counter, stage) = (counter(), new_stage());
    for round in 1..=3 {
        let holder = start(method, begin_to_count, (&counter, &stage));
        until(&stage, round);
        holder.kill().unwrap();
        let mut guard = counter.lock().unwrap_err().into_inner();
        assert_eq!(*guard, 1);
        *guard = 0;
        counter.clear_poison();
        drop(guard);
        assert_eq!(*counter.lock().unwrap(), 0);
    }
}

#[process_task]
fn exit_with(counter: &Counter, code: i32) {
    let _guard = counter.lock().unwrap();
    #[expect(clippy::exit, reason = "that is what is tried")]
    std::process::exit(code);
}

fn a_holder_that_exits_with_a_guard_poisons(method: StartMethod) {
    for code in [0, 3] {
        let counter = counter();
        start(method, exit_with, (&counter, code)).join().unwrap_err();
        assert!(counter.lock().is_err());
    }
}

#[process_task]
fn forget_a_guard(counter: &Counter) {
    let _forgotten = ManuallyDrop::new(counter.lock().unwrap());
}

fn a_holder_that_returns_and_forgets_its_guard_poisons(method: StartMethod) {
    let counter = counter();
    start(method, forget_a_guard, &counter).join().unwrap();
    assert!(counter.lock().is_err());
}

#[process_task]
fn hold(counter: &Counter, stage: &Stage) {
    let guard = counter.lock().unwrap();
    reach(stage);
    until(stage, 2);
    drop(guard);
}

/// However often a process looks whether it lives, and for longer than it takes to believe in a death.
fn a_holder_that_lives_keeps_the_mutex(method: StartMethod) {
    let (counter, stage) = (counter(), new_stage());
    let holder = start(method, hold, (&counter, &stage));
    until(&stage, 1);
    let pid = nix::unistd::Pid::from_raw(holder.pid().unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let late = counter.lock_timeout(Duration::from_millis(300));
    assert!(matches!(late, Err(TryLockError::WouldBlock)), "a process that is stopped is not dead");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    assert!(matches!(counter.try_lock(), Err(TryLockError::WouldBlock)));
    reach(&stage);
    assert!(counter.lock().is_ok());
    holder.join().unwrap();
}

#[process_task]
fn make_copies(counter: &Counter) -> bool {
    let guard = counter.lock().unwrap();
    let mut inherited = Some(guard);
    in_a_copy(|| drop(inherited.take()));
    let still_held = matches!(counter.try_lock(), Err(TryLockError::WouldBlock));
    drop(inherited.take());
    assert!(counter.lock().is_ok(), "the copy was no holder");

    in_a_copy(|| *counter.lock().unwrap() += 1);
    assert_eq!(*counter.lock().unwrap(), 1);
    in_a_copy(|| {
        let _held_to_the_end = ManuallyDrop::new(counter.lock());
    });
    still_held && counter.lock().is_err()
}

fn copy_made_by_fork_does_not_unlock_and_may_hold_a_lock(method: StartMethod) {
    let counter = counter();
    assert!(start(method, make_copies, &counter).join().unwrap());
    assert!(counter.is_poisoned());
}

fn forgotten_guard_of_a_dropped_region_does_no_harm(method: StartMethod) {
    for _ in 0..100 {
        let counter = counter();
        let _forgotten = ManuallyDrop::new(counter.lock().unwrap());
    }
    // What lies there now is not touched by the end of any process.
    let counter = counter();
    start(method, forget_a_guard, &counter).join().unwrap();
    drop(counter);
    let mut moved = Mutex::new(5);
    let _forgotten = ManuallyDrop::new(moved.lock().unwrap());
    let moved_while_locked = std::mem::replace(&mut moved, Mutex::new(6));
    assert!(moved_while_locked.try_lock().is_err());
    assert_eq!(moved_while_locked.into_inner().unwrap(), 5);
    assert_eq!(*moved.lock().unwrap(), 6);
}

type Pairs = Shared<[(Mutex<u64>, Condvar)]>;

/// Says that it is here, and waits for the other, at each pair.
#[process_task]
fn meet_at_all(pairs: &Pairs) {
    for (arrived, changed) in pairs.iter() {
        let mut guard = arrived.lock().unwrap();
        *guard += 1;
        changed.notify_all();
        let met = changed.wait_timeout_while(guard, PATIENCE, |arrived| *arrived < 2);
        assert!(!met.unwrap().1.timed_out());
    }
}

fn a_thousand_primitives_of_one_region_work_side_by_side(method: StartMethod) {
    let pairs = (0..500).map(|_| (Mutex::new(0), Condvar::new()));
    let pairs = Pairs::from_iter(pairs).unwrap();
    let both = [(); 2].map(|()| start(method, meet_at_all, &pairs));
    for process in both {
        process.join().unwrap();
    }
    assert!(pairs.iter().all(|(arrived, _)| *arrived.lock().unwrap() == 2));
}

type Door = Shared<ReentrantMutex<AtomicU64>>;

#[process_task]
fn is_open(door: &Door) -> bool {
    let first = door.try_lock();
    let open = first.is_ok();
    let second = door.lock_timeout(Duration::ZERO);
    assert_eq!(second.is_ok(), open);
    open
}

fn a_reentrant_mutex_is_held_until_its_last_guard_is_dropped(method: StartMethod) {
    let door: Door = Shared::new(ReentrantMutex::new(AtomicU64::new(0))).unwrap();
    let mut guards: Vec<_> = (0..3).map(|_| door.lock().unwrap()).collect();
    assert!(format!("{door:?}").contains("held_by: this thread, 3 times"), "{door:?}");
    for _ in 0..3 {
        assert!(!start(method, is_open, &door).join().unwrap());
        thread::scope(|scope| scope.spawn(|| assert!(door.try_lock().is_err())).join().unwrap());
        // In no particular order.
        drop(guards.remove(0));
    }
    assert!(start(method, is_open, &door).join().unwrap());
    assert!(format!("{door:?}").contains("held_by: no thread"), "{door:?}");
}

#[process_task]
fn keep(door: &Door, stage: &Stage) {
    let _guards: Vec<_> = (0..3).map(|_| door.lock().unwrap()).collect();
    door.lock().unwrap().store(7, Relaxed);
    reach(stage);
    until_killed();
}

fn killed_holder_poisons_a_reentrant_mutex_at_any_depth(method: StartMethod) {
    let door: Door = Shared::new(ReentrantMutex::new(AtomicU64::new(0))).unwrap();
    let stage = new_stage();
    let keeper = start(method, keep, (&door, &stage));
    until(&stage, 1);
    assert!(format!("{door:?}").contains("held_by: another process, 3 times"), "{door:?}");
    keeper.kill().unwrap();
    let guard = door.lock().unwrap_err().into_inner();
    assert_eq!(guard.load(Relaxed), 7);
    // The count began anew.
    drop(guard);
    door.clear_poison();
    assert!(start(method, is_open, &door).join().unwrap());
    assert!(format!("{door:?}").contains("held_by: no thread"), "{door:?}");
}

fn mutex_says_which_process_holds_it(method: StartMethod) {
    let (counter, stage) = (counter(), new_stage());
    assert_eq!(format!("{:?}", *counter), "Mutex { data: 0, poisoned: false, .. }");
    let guard = counter.lock().unwrap();
    assert_eq!(format!("{:?}", *counter), "Mutex { data: <held by this process>, poisoned: false, .. }");
    assert_eq!(format!("{guard:?} {guard}"), "0 0");
    drop(guard);
    let holder = start(method, begin_to_count, (&counter, &stage));
    until(&stage, 1);
    assert_eq!(format!("{:?}", *counter), "Mutex { data: <held by another process>, poisoned: false, .. }");
    holder.kill().unwrap();
    drop(counter.lock());
    assert_eq!(format!("{:?}", *counter), "Mutex { data: 1, poisoned: true, .. }");
}

/// Writes over the word by which this mutex names its holder, which is its first; says what was there.
fn scribble(counter: &Counter, word: u32) -> u32 {
    let first = std::ptr::from_ref(&**counter).cast::<u32>().cast_mut();
    // SAFETY: `first` points to memory that is mapped for writing, aligned as a mutex is, and all use it as an atomic.
    unsafe { AtomicU32::from_ptr(first) }.swap(word, Relaxed)
}

#[process_task]
fn scribble_over(counter: &Counter, word: u32) {
    scribble(counter, word);
}

fn corrupt_lock_word_blocks_no_locker_for_ever(method: StartMethod) {
    let counter = counter();
    let is_free = |word: u32| {
        start(method, scribble_over, (&counter, word)).join().unwrap();
        assert!(matches!(counter.lock_timeout(PATIENCE), Err(TryLockError::Poisoned(_))), "{word:#x}");
        counter.clear_poison();
    };
    for word in [1 << 31, 1 << 30, u32::MAX, (9 << 14) + 16_000] {
        is_free(word);
    }
    let guard = ManuallyDrop::new(counter.lock().unwrap());
    let own = scribble(&counter, 0);
    drop(ManuallyDrop::into_inner(guard));
    is_free(own | 1 << 31);
    // This process lives, so what is said to be held by it is: until a deadline.
    start(method, scribble_over, (&counter, own)).join().unwrap();
    assert!(matches!(counter.lock_timeout(Duration::from_millis(60)), Err(TryLockError::WouldBlock)));
    // A process that writes over it while it is held gets in, which no lock can help; but none is shut out.
    scribble(&counter, 0);
    assert!(counter.lock_timeout(Duration::MAX).is_ok());
}
