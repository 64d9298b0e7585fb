//! Faults at each stage of a call, methods that do not end, and every order in which things are dropped.
//!
//! Runs in: the test process, the processes that it starts, and managers. Rows 24, 25, 36, 40, 42 and 73 of part 2 of the list of
//! faults, as far as they are of managers.
#![expect(
    clippy::unused_self,
    clippy::needless_pass_by_value,
    reason = "what is tested is the call, and what it costs to pass values"
)]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::gettid;
use serde::{Deserialize, Serialize};

use crate::objects::{CounterProxy, JournalProxy, KeeperProxy, manager, until_objects};
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until};
use crate::support::{PATIENCE, eventually, rounds, signals};
use process_task::managed::{Dict, Event, Lock};
use process_task::{
    CallHandle, Direction, Error, ErrorKind, Execution, Manager, StartMethod, process_object, process_task,
};

under_every_start_method! {
    within 240 seconds;
    manager_killed_at_each_stage_of_a_call_is_told_of,
    method_that_never_ends_keeps_no_other_object_waiting,
    manager_whose_method_never_ends_is_shut_down,
    stopped_manager_keeps_deadlines_of_what_waits,
    argument_that_cannot_travel_leaves_the_object_untouched,
    manager_asks_a_task_that_asks_the_manager_again,
    things_are_dropped_in_any_order,
    things_are_dropped_while_a_panic_unwinds,
    things_in_statics_and_thread_locals_are_dropped,
}

fn gone(error: &Error) -> Execution {
    assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }), "{error}");
    error.execution()
}

/// Whether that thread of this process sleeps.
fn sleeps(thread: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// The stages at which a manager is killed: what its clients wait for by then. Returns how many of their calls were answered.
fn killed_at(stage: usize, method: StartMethod) -> usize {
    let mut answered = 0;
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    let steps = new_stage();
    let kill = || {
        manager.kill().unwrap();
        Instant::now()
    };
    let since = match stage {
        // Requests stand in memory and in the queue, and no thread has begun them.
        0 => {
            signals::stop(manager.pid());
            let long = [6000, 10].map(|len| counter.later().echo(vec![0; len]));
            let caller = AtomicI32::new(0);
            thread::scope(|scope| {
                let in_memory = scope.spawn(|| {
                    caller.store(gettid().as_raw(), SeqCst);
                    counter.echo(vec![0; 10])
                });
                eventually("the call waits", PATIENCE, || sleeps(caller.load(SeqCst)));
                let since = kill();
                assert_eq!(gone(&in_memory.join().unwrap().unwrap_err()), Execution::NotStarted);
                for call in long {
                    assert_eq!(gone(&call.join().unwrap_err()), Execution::Unknown);
                }
                since
            })
        }
        // The methods run.
        1 => thread::scope(|scope| {
            let in_memory = scope.spawn(|| counter.sleep(Duration::from_secs(50)));
            let later = counter.later().stay(&steps, 9);
            until(&steps, 1);
            while manager.stats().unwrap().calls() < 3 {}
            let since = kill();
            assert_eq!(gone(&in_memory.join().unwrap().unwrap_err()), Execution::Unknown);
            assert_eq!(gone(&later.join().unwrap_err()), Execution::Unknown);
            since
        }),
        // The calls wait for another object.
        2 => {
            let (event, lock) = (Event::new(&manager).unwrap(), Lock::new(&manager).unwrap());
            let guard = lock.lock().unwrap().unwrap();
            thread::scope(|scope| {
                let waits = scope.spawn(|| event.wait());
                let locks = scope.spawn(|| lock.lock().map(drop));
                while manager.stats().unwrap().calls() < 7 {}
                let since = kill();
                gone(&waits.join().unwrap().unwrap_err());
                gone(&locks.join().unwrap().unwrap_err());
                drop(guard);
                since
            })
        }
        // Answers, short and long, have come, and no thread has read them.
        3 => {
            let later: Vec<CallHandle<Vec<u8>>> = [10, 6000].map(|len| counter.later().echo(vec![1; len])).into();
            drop(counter.later().stay(&steps, 1));
            // One behind the other: this one has begun.
            until(&steps, 1);
            let since = kill();
            for (call, len) in later.into_iter().zip([10, 6000]) {
                match call.join() {
                    Ok(bytes) => {
                        assert_eq!(bytes, vec![1; len]);
                        answered += 1;
                    }
                    // On a busy machine another thread has begun the next call, before the answer of this one was sent.
                    Err(error) => assert_eq!(gone(&error), Execution::Unknown),
                }
            }
            since
        }
        // At any moment of calls that follow one another.
        _ => thread::scope(|scope| {
            let calls = [0, 5000].map(|len| {
                let counter = &counter;
                scope.spawn(move || {
                    loop {
                        if let Err(error) = counter.echo(vec![1; len]) {
                            return error;
                        }
                    }
                })
            });
            thread::sleep(Duration::from_micros(37 * (stage as u64 % 50)));
            let since = kill();
            for call in calls {
                gone(&call.join().unwrap());
            }
            since
        }),
    };
    assert!(since.elapsed() < Duration::from_secs(10), "stage {stage}: {:?}", since.elapsed());
    gone(&counter.get().unwrap_err());
    answered
}

fn manager_killed_at_each_stage_of_a_call_is_told_of(method: StartMethod) {
    // A hundred of each stage, and six hundred at any moment, with `PROCESS_TASK_ROUNDS=20`.
    let mut answered = 0;
    for round in 0..rounds(5) {
        answered += (0..4).map(|stage| killed_at(stage, method)).sum::<usize>();
        (0..6).for_each(|more| assert_eq!(killed_at(4 + 6 * round + more, method), 0));
    }
    assert!(answered > 0, "no answer that had come was read after the manager's death");
}

/// Has a method that never ends, and one that others can call.
struct Endless;

#[process_object]
impl Endless {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn spin_for_ever(&self, stage: &Stage) {
        reach(stage);
        loop {
            std::hint::spin_loop();
        }
    }

    pub(crate) fn sleep_for_ever(&mut self, stage: &Stage) {
        reach(stage);
        loop {
            thread::sleep(Duration::from_secs(1000));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        std::process::id()
    }
}

fn method_that_never_ends_keeps_no_other_object_waiting(method: StartMethod) {
    let manager = manager(method);
    let (endless, other) = (EndlessProxy::new(&manager).unwrap(), CounterProxy::new(&manager, 0).unwrap());
    let stage = new_stage();
    let spins = endless.later().spin_for_ever(&stage);
    until(&stage, 1);
    assert_eq!(endless.pid().unwrap(), manager.pid());
    for count in 1..=50 {
        assert_eq!(other.add(1).unwrap(), count);
    }
    // What comes behind it at the same object waits, for as long as its proxy says.
    let limit = Duration::from_millis(50);
    let error = endless.with_timeout(limit).sleep_for_ever(&stage).unwrap_err();
    assert_eq!((error.kind(), error.execution()), (&ErrorKind::Elapsed, Execution::Unknown));
    assert!(!spins.is_finished());
    manager.kill().unwrap();
    gone(&spins.join().unwrap_err());
}

fn manager_whose_method_never_ends_is_shut_down(method: StartMethod) {
    let manager = manager(method);
    let endless = EndlessProxy::new(&manager).unwrap();
    let stage = new_stage();
    let sleeps = endless.later().sleep_for_ever(&stage);
    until(&stage, 1);
    let since = Instant::now();
    manager.shutdown().unwrap();
    assert!(since.elapsed() < Duration::from_secs(20));
    gone(&sleeps.join().unwrap_err());
}

fn stopped_manager_keeps_deadlines_of_what_waits(method: StartMethod) {
    const SHORT: Duration = Duration::from_millis(60);
    let manager = manager(method);
    let (event, lock) = (Event::new(&manager).unwrap(), Lock::new(&manager).unwrap());
    let dict: Dict<u8, u8> = Dict::new(&manager).unwrap();
    signals::stop(manager.pid());
    let since = Instant::now();
    let errors = [
        event.with_timeout(SHORT).wait().unwrap_err(),
        lock.with_timeout(SHORT).lock().map(drop).unwrap_err(),
        dict.with_timeout(SHORT).insert(&1, 1).unwrap_err(),
        dict.with_timeout(SHORT).iter().next().unwrap().unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), &ErrorKind::Elapsed);
    }
    assert!(since.elapsed() >= 4 * SHORT && since.elapsed() < Duration::from_secs(20));
    signals::send(manager.pid(), Signal::SIGCONT);
    assert!(dict.is_empty().unwrap(), "the call that was taken back was not made");
    drop(lock.with_timeout(PATIENCE).lock().unwrap().unwrap());
}

/// Travels if it is odd.
#[derive(Debug, PartialEq)]
struct Odd(u64);

impl Serialize for Odd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(2) {
            return Err(serde::ser::Error::custom("it is even"));
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Odd {
    /// Refuses 13.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            13 => Err(serde::de::Error::custom("it is unlucky")),
            number => Ok(Self(number)),
        }
    }
}

struct OddSum(u64);

#[process_object]
impl OddSum {
    pub(crate) fn new(first: Odd) -> Self {
        Self(first.0)
    }

    pub(crate) fn add(&mut self, one: Odd, other: Odd) -> Odd {
        self.0 += one.0 + other.0;
        Odd(self.0)
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0
    }
}

fn argument_that_cannot_travel_leaves_the_object_untouched(method: StartMethod) {
    let manager = manager(method);
    let error = OddSumProxy::new(&manager, Odd(4)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotEncode { direction: Direction::Arguments, .. }), "{error}");
    assert_eq!(error.execution(), Execution::NotStarted);
    let error = OddSumProxy::new(&manager, Odd(13)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotDecode { direction: Direction::Arguments, .. }), "{error}");
    assert!(manager.stats().unwrap().objects().is_empty());
    let sum = OddSumProxy::new(&manager, Odd(5)).unwrap();
    for (one, other) in [(2, 1), (1, 2), (13, 1), (1, 13)] {
        let errors =
            [sum.add(Odd(one), Odd(other)).unwrap_err(), sum.later().add(Odd(one), Odd(other)).join().unwrap_err()];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains("it is even") || text.contains("it is unlucky"), "{text}");
            assert_eq!(error.execution(), Execution::NotStarted, "{text}");
        }
        assert!(!sum.is_poisoned().unwrap());
        assert_eq!(sum.sum().unwrap(), 5);
    }
    // A result that cannot travel is one of a call that was made.
    let error = sum.add(Odd(1), Odd(3)).map(drop);
    assert_eq!(error, Ok(()));
    let error = sum.add(Odd(1), Odd(3)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotDecode { direction: Direction::Result, .. }), "{error}");
    assert_eq!((error.execution(), sum.sum().unwrap()), (Execution::Finished, 13));
}

/// Calls itself through tasks of its manager's, so many times.
struct Deep {
    own: Mutex<Option<DeepProxy>>,
}

#[process_object]
impl Deep {
    pub(crate) fn new() -> Self {
        Self { own: Mutex::new(None) }
    }

    pub(crate) fn set_own(&self, own: DeepProxy) {
        *self.own.lock().unwrap() = Some(own);
    }

    pub(crate) fn forget_own(&self) {
        *self.own.lock().unwrap() = None;
    }

    pub(crate) fn descend(&self, levels: u32) -> Vec<u32> {
        if levels == 0 {
            return Vec::new();
        }
        let own = self.own.lock().unwrap().clone().unwrap();
        let mut pids = descend_from_a_task.spawn(own, levels - 1).join().unwrap();
        pids.push(std::process::id());
        pids
    }
}

#[process_task]
fn descend_from_a_task(deep: DeepProxy, levels: u32) -> Vec<u32> {
    let mut pids = deep.descend(levels).unwrap();
    pids.push(std::process::id());
    pids
}

fn manager_asks_a_task_that_asks_the_manager_again(method: StartMethod) {
    let manager = manager(method);
    let deep = DeepProxy::new(&manager).unwrap();
    deep.set_own(deep.clone()).unwrap();
    let pids = deep.descend(4).unwrap();
    assert_eq!(pids.len(), 8);
    assert_eq!(pids.iter().filter(|pid| **pid == manager.pid()).count(), 4, "{pids:?}");
    deep.forget_own().unwrap();
    drop(deep);
    until_objects(&manager, 0);
}

/// What a user of a manager has, each of which may go first.
struct Things {
    manager: Option<Manager>,
    proxy: Option<CounterProxy>,
    clone: Option<CounterProxy>,
    handle: Option<process_task::ManagerHandle>,
    running: Option<CallHandle<u32>>,
    answered: Option<CallHandle<i64>>,
    stage: Stage,
}

impl Things {
    fn new(method: StartMethod) -> Self {
        let (manager, stage) = (manager(method), new_stage());
        let proxy = CounterProxy::new(&manager, 1).unwrap();
        let running = proxy.later().stay(&stage, 2);
        let answered = proxy.later().get();
        until(&stage, 1);
        while !answered.is_finished() {}
        let handle = Some((*manager).clone());
        let (clone, running, answered) = (Some(proxy.clone()), Some(running), Some(answered));
        Self { manager: Some(manager), proxy: Some(proxy), clone, handle, running, answered, stage }
    }

    /// Drops one of them.
    fn drop_one(&mut self, which: usize) {
        match which {
            0 => {
                // It would wait for the method.
                reach(&self.stage);
                drop(self.manager.take());
            }
            1 => drop(self.proxy.take()),
            2 => drop(self.clone.take()),
            3 => drop(self.handle.take()),
            4 => drop(self.running.take()),
            _ => drop(self.answered.take()),
        }
    }
}

fn things_are_dropped_in_any_order(method: StartMethod) {
    // Each of the six goes first once, and last once.
    for first in 0..6 {
        let mut things = Things::new(method);
        (0..6).for_each(|at| things.drop_one((first + at) % 6));
        let mut things = Things::new(method);
        (0..6).for_each(|at| things.drop_one((first + 6 - at) % 6));
    }
    // After the shutdown.
    let mut things = Things::new(method);
    reach(&things.stage);
    things.manager.take().unwrap().shutdown().unwrap();
    gone(&things.proxy.as_ref().unwrap().get().unwrap_err());
    assert!(things.handle.as_ref().unwrap().stats().is_err());
    assert_eq!(things.answered.take().unwrap().join().unwrap(), 1, "the answer had come");
    drop(things);
}

fn things_are_dropped_while_a_panic_unwinds(method: StartMethod) {
    let things = Things::new(method);
    reach(&things.stage);
    let caught = catch_unwind(AssertUnwindSafe(move || {
        let _things = things;
        panic!("on purpose, with things of a manager");
    }));
    assert!(caught.is_err());
    // Also in a manager: what the arguments of a method held is let go of when it panics.
    let manager = manager(method);
    let keeper = KeeperProxy::new(&manager, None).unwrap();
    let counter = CounterProxy::new(&manager, 1).unwrap();
    assert!(manager.call(panic_with, counter).is_err());
    until_objects(&manager, 1);
    drop(keeper);
    until_objects(&manager, 0);
}

#[process_task]
fn panic_with(_counter: CounterProxy) {
    panic!("on purpose, with a proxy");
}

static KEPT: Mutex<Option<(CounterProxy, JournalProxy)>> = Mutex::new(None);

thread_local! {
    static LOCAL: RefCell<Option<CounterProxy>> = const { RefCell::new(None) };
}

/// Leaves proxies where no code drops them, or where they are dropped late.
#[process_task]
fn keep_in_odd_places(counter: CounterProxy, journal: JournalProxy, exits: bool) -> i64 {
    LOCAL.set(Some(counter.clone()));
    let other = counter.clone();
    let thread = thread::spawn(move || LOCAL.set(Some(other)));
    thread.join().unwrap();
    let count = counter.add(1).unwrap();
    *KEPT.lock().unwrap() = Some((counter, journal));
    if exits {
        #[expect(clippy::exit, reason = "destructors of thread locals may not run then")]
        std::process::exit(3);
    }
    count
}

fn things_in_statics_and_thread_locals_are_dropped(method: StartMethod) {
    let manager = manager(method);
    let (counter, journal) = (CounterProxy::new(&manager, 0).unwrap(), JournalProxy::new(&manager).unwrap());
    // Here: a thread local of a thread that ends, and a static that is emptied after the manager has gone.
    let local = counter.clone();
    thread::spawn(move || LOCAL.set(Some(local))).join().unwrap();
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some((counter.clone(), journal.clone()));
    // In other processes: they end with them.
    let ran = [false, true].map(|exits| keep_in_odd_places.spawn(counter.clone(), journal.clone(), exits).join());
    assert_eq!(ran[0], Ok(1));
    assert!(matches!(ran[1].as_ref().unwrap_err().kind(), ErrorKind::Exited { code: 3, .. }));
    drop((counter, journal));
    eventually("this process alone has proxies", PATIENCE, || {
        let stats = manager.stats().unwrap();
        stats.clients() == 1 && stats.travelling() == 0
    });
    until_objects(&manager, 2);
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(manager);
    gone(&kept.as_ref().unwrap().0.get().unwrap_err());
    drop(kept);
}
