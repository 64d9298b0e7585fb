//! Calls through proxies: arguments, results, errors, panics, and what runs side by side.
//!
//! Runs in: the test process, and managers.

use std::thread;
use std::time::Duration;

use crate::objects::{CounterProxy, JournalProxy, KeeperProxy, manager};
use crate::support::shared_counter::{reach, stage as new_stage, until};
use crate::support::{PATIENCE, eventually};
use process_task::{ErrorKind, Execution, Manager, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    methods_are_called_in_the_manager,
    constructor_that_refuses_makes_nothing,
    arguments_may_be_borrowed_and_long,
    panic_reaches_the_caller_and_poisons_if_exclusive,
    shared_methods_run_side_by_side,
    exclusive_method_waits_for_others,
    long_method_keeps_no_other_object_waiting,
    threads_share_a_proxy,
    later_calls_are_joined_in_any_order,
    later_calls_run_in_the_order_in_which_they_were_made,
    calls_in_order_of_many_threads_and_processes_keep_theirs,
    waited_for_call_comes_behind_those_made_later,
    object_that_calls_itself_hears_of_it,
    manager_that_is_shut_down_is_gone,
    several_managers_live_side_by_side,
    tasks_run_in_a_manager,
    method_may_ask_a_task_that_asks_the_manager,
}

fn methods_are_called_in_the_manager(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 5).unwrap();
    assert_eq!(counter.add(3).unwrap(), 8);
    assert_eq!(counter.get().unwrap(), 8);
    assert_eq!(counter.pid().unwrap(), manager.pid());
    assert_ne!(manager.pid(), std::process::id());
    assert_eq!(counter.checked_div(2).unwrap(), Ok(4));
    assert!(counter.checked_div(0).unwrap().is_err());
    let stats = manager.stats().unwrap();
    assert_eq!((stats.clients(), stats.calls()), (1, 6));
    assert_eq!(
        stats.objects().iter().map(|(name, count)| (name.ends_with("::Counter"), *count)).collect::<Vec<_>>(),
        [(true, 1)]
    );
    assert!(format!("{counter:?}").contains("Counter"), "{counter:?}");
}

fn constructor_that_refuses_makes_nothing(method: StartMethod) {
    let manager = manager(method);
    assert_eq!(CounterProxy::positive(&manager, -1).unwrap().unwrap_err(), "-1 is not positive");
    assert_eq!(manager.stats().unwrap().objects().len(), 0);
    assert_eq!(CounterProxy::positive(&manager, 2).unwrap().unwrap().get().unwrap(), 2);
}

fn arguments_may_be_borrowed_and_long(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    assert_eq!(counter.length("four", &[1, 2, 3]).unwrap(), 7);
    for len in [0, 1, 100, 4000, 4096, 4097, 5000, 1 << 16, 5 << 20] {
        let bytes: Vec<u8> = (0..len).map(|at: usize| at.to_le_bytes()[0]).collect();
        assert_eq!(counter.echo(bytes.clone()).unwrap(), bytes, "{len} bytes");
    }
    assert_eq!(counter.length(&"x".repeat(100_000), &vec![7; 100_000]).unwrap(), 200_000);
}

fn panic_reaches_the_caller_and_poisons_if_exclusive(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 5).unwrap();
    let error = counter.panic_shared().unwrap_err();
    match error.kind() {
        ErrorKind::Panicked { message, location, .. } => {
            assert_eq!(message, "on purpose, shared");
            assert!(location.as_ref().unwrap().contains("objects.rs"));
        }
        other => panic!("{other:?}"),
    }
    assert!(!counter.is_poisoned().unwrap());
    assert_eq!(counter.get().unwrap(), 5);
    let error = counter.panic_exclusive().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Panicked { .. }), "{error}");
    assert!(counter.is_poisoned().unwrap());
    let error = counter.get().unwrap_err();
    assert_eq!((error.kind(), error.execution()), (&ErrorKind::Poisoned, Execution::NotStarted));
    counter.clear_poison().unwrap();
    assert_eq!(counter.get().unwrap(), -1);
}

fn shared_methods_run_side_by_side(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 5).unwrap();
    let stage = new_stage();
    thread::scope(|scope| {
        let calls = [(); 3].map(|()| scope.spawn(|| counter.stay(&stage, 4).unwrap()));
        until(&stage, 3);
        reach(&stage);
        for call in calls {
            assert_eq!(call.join().unwrap(), 4);
        }
    });
}

fn exclusive_method_waits_for_others(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 5).unwrap();
    let stage = new_stage();
    thread::scope(|scope| {
        let alone = scope.spawn(|| counter.stay_alone(&stage, 2).unwrap());
        until(&stage, 1);
        let added = scope.spawn(|| counter.add(1).unwrap());
        eventually("the call has come", PATIENCE, || manager.stats().unwrap().calls() >= 3);
        // Another object is not kept waiting by the call that waits.
        let other = CounterProxy::new(&manager, 9).unwrap();
        for _ in 0..300 {
            assert_eq!(other.get().unwrap(), 9);
            assert!(!added.is_finished());
        }
        reach(&stage);
        assert_eq!(added.join().unwrap(), 6);
        alone.join().unwrap();
    });
}

fn long_method_keeps_no_other_object_waiting(method: StartMethod) {
    let manager = manager(method);
    let (one, other) = (CounterProxy::new(&manager, 1).unwrap(), CounterProxy::new(&manager, 2).unwrap());
    let stage = new_stage();
    let stays: Vec<_> = (0..4).map(|_| one.later().stay(&stage, 5)).collect();
    until(&stage, 4);
    assert_eq!(other.get().unwrap(), 2);
    assert!(stays.iter().all(|stay| !stay.is_finished()));
    reach(&stage);
    for stay in stays {
        assert_eq!(stay.join().unwrap(), 5);
    }
}

fn threads_share_a_proxy(method: StartMethod) {
    const ROUNDS: i64 = 500;
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..ROUNDS).for_each(|_| assert!(counter.add(1).unwrap() > 0)));
        }
    });
    assert_eq!(counter.get().unwrap(), 8 * ROUNDS);
}

fn later_calls_are_joined_in_any_order(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    let mut calls: Vec<_> = (1..=100).map(|more| counter.later().add(more)).collect();
    let last = calls.pop().unwrap().join().unwrap();
    assert_eq!(last, 5050);
    for (call, number) in calls.into_iter().zip(1..) {
        assert_eq!(call.join().unwrap(), number * (number + 1) / 2);
    }
    drop(counter.later().add(1));
    while counter.get().unwrap() != 5051 {}
}

fn later_calls_run_in_the_order_in_which_they_were_made(method: StartMethod) {
    const CALLS: u64 = 400;
    let manager = manager(method);
    let journal = JournalProxy::new(&manager).unwrap();
    let mut expected = Vec::new();
    for number in 0..CALLS {
        // Some take longer than a thread of the manager leads in one call, some are long, and some are of no interest.
        let time = Duration::from_micros(if number % 40 == 7 { 2500 } else { 0 });
        let call = journal.later().note_after(0, number, time, vec![0; if number % 9 == 2 { 5000 } else { 0 }]);
        expected.push((0, number));
        if number % 3 == 0 {
            drop(call);
        } else if number % 50 == 1 {
            assert_eq!(call.join().unwrap(), number);
        }
    }
    assert_eq!(journal.entries().unwrap(), expected);
}

#[process_task]
fn write_in_order(journal: JournalProxy, writer: u64, calls: u64) {
    let mut handles = Vec::new();
    for number in 0..calls {
        let time = Duration::from_micros(if number % 31 == writer { 1500 } else { 0 });
        handles.push(journal.later().note_after(writer, number, time, Vec::new()));
    }
    for (call, number) in handles.into_iter().zip(0..) {
        assert_eq!(call.join().unwrap(), number);
    }
}

fn calls_in_order_of_many_threads_and_processes_keep_theirs(method: StartMethod) {
    const CALLS: u64 = 150;
    let manager = manager(method);
    let journal = JournalProxy::new(&manager).unwrap();
    let start = |writer| {
        let args = (journal.clone(), writer, CALLS);
        ProcessBuilder::new().start_method(method).spawn(write_in_order, args).unwrap()
    };
    let processes = [1, 2, 3].map(start);
    thread::scope(|scope| {
        for writer in [4, 5, 6] {
            let journal = journal.clone();
            scope.spawn(move || write_in_order(journal, writer, CALLS));
        }
    });
    for process in processes {
        process.join().unwrap();
    }
    let entries = journal.entries().unwrap();
    assert_eq!(entries.len() as u64, 6 * CALLS);
    for writer in 1..=6 {
        let its = entries.iter().filter(|(other, _)| *other == writer).map(|(_, number)| *number);
        assert!(its.eq(0..CALLS), "writer {writer}: {entries:?}");
    }
}

fn waited_for_call_comes_behind_those_made_later(method: StartMethod) {
    let manager = manager(method);
    let (journal, counter) = (JournalProxy::new(&manager).unwrap(), CounterProxy::new(&manager, 0).unwrap());
    for (round, count) in (0..100).zip((5..).step_by(5)) {
        for number in 0..5 {
            drop(journal.later().note(round, number));
            drop(counter.later().add(1));
        }
        assert_eq!(journal.note(round, 5).unwrap(), 5);
        assert_eq!(counter.get().unwrap(), count);
    }
    assert!(
        journal.entries().unwrap().into_iter().eq((0..100).flat_map(|round| (0..6).map(move |number| (round, number))))
    );
}

fn object_that_calls_itself_hears_of_it(method: StartMethod) {
    let manager = manager(method);
    let keeper = KeeperProxy::new(&manager, None).unwrap();
    keeper.keep_keeper(keeper.clone()).unwrap();
    let told = keeper.call_itself().unwrap();
    assert!(told.contains("would wait for itself"), "{told}");
}

fn manager_that_is_shut_down_is_gone(method: StartMethod) {
    let manager = manager(method);
    let counter = CounterProxy::new(&manager, 0).unwrap();
    let pid = manager.pid();
    manager.shutdown().unwrap();
    let error = counter.get().unwrap_err();
    match error.kind() {
        ErrorKind::ManagerGone { name, pid: its, signal: None, .. } => assert_eq!((&**name, *its), ("objects", pid)),
        other => panic!("{other:?}"),
    }
    assert!(counter.later().get().join().is_err());
    assert!(counter.manager().stats().is_err());
}

fn several_managers_live_side_by_side(method: StartMethod) {
    let managers = [(); 3].map(|()| manager(method));
    let counters: Vec<_> =
        managers.iter().zip(0..).map(|(manager, at)| CounterProxy::new(manager, at).unwrap()).collect();
    for ((at, counter), manager) in (0..).zip(&counters).zip(&managers) {
        assert_eq!(counter.get().unwrap(), at);
        assert_eq!(counter.manager(), **manager);
    }
    assert_ne!(counters[0], counters[1]);
    assert_eq!(counters[1], counters[1].clone());
}

#[process_task]
fn own_pid() -> u32 {
    std::process::id()
}

fn tasks_run_in_a_manager(method: StartMethod) {
    let manager: Manager = manager(method);
    assert_eq!(manager.call(own_pid, ()).unwrap(), manager.pid());
}

fn method_may_ask_a_task_that_asks_the_manager(method: StartMethod) {
    let manager = manager(method);
    let (one, other) = (CounterProxy::new(&manager, 1).unwrap(), CounterProxy::new(&manager, 40).unwrap());
    assert_eq!(one.by_a_task(other).unwrap(), 41);
    // Also of the same object, which `&self` methods share.
    assert_eq!(one.by_a_task(one.clone()).unwrap(), 2);
}
