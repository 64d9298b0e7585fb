//! What a condition variable promises: which waiters are woken, how many, and what a death costs.
//!
//! Runs in: the test process; the tasks in children. Never: relies on how fast anything is.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::shared_counter::{Stage, reach, stage as new_stage, until, until_asleep, until_killed};
use crate::support::{self, PATIENCE, eventually};
use process_task::sync::{Condvar, Mutex, MutexGuard};
use process_task::{Process, ProcessBuilder, Shared, StartMethod, Task, process_task};

under_every_start_method! {
    each_notify_one_wakes_one_waiter_in_order,
    so_many_are_woken_as_were_notified,
    all_that_did_not_time_out_are_woken_together,
    a_wait_ends_with_its_time_and_not_before,
    a_waiter_sees_each_change_that_another_process_makes,
    a_notification_of_a_waiter_that_was_killed_goes_to_the_next,
    notification_of_a_killed_waiter_skips_later_waiters,
    notification_of_a_killed_waiter_goes_to_the_next,
    killed_waiters_cost_nothing,
    killed_notifiers_cost_nothing,
    a_waiter_that_is_woken_by_a_dead_holders_mutex_hears_of_it,
    more_waiters_than_there_are_places_are_all_woken,
}

fn start<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> Process<T::Output> {
    ProcessBuilder::new().start_method(method).spawn(task, args).unwrap()
}

/// Tokens, and those that wait for some.
type Tokens = Shared<(Mutex<u32>, Condvar)>;

fn tokens() -> Tokens {
    Shared::new((Mutex::new(0), Condvar::new())).unwrap()
}

/// One wait, whatever wakes it: says in `stage` that it waits, with the mutex held, and in `woken` that it was woken.
fn wait_once(tokens: &Tokens, stage: &Stage, woken: &Stage) {
    let guard = tokens.0.lock().unwrap();
    reach(stage);
    let guard = tokens.1.wait(guard).unwrap();
    reach(woken);
    drop(guard);
}

#[process_task]
fn wait_for_a_notification(tokens: &Tokens, stage: &Stage, woken: &Stage) {
    wait_once(tokens, stage, woken);
}

/// Waits for a token, and takes it.
fn take(tokens: &Tokens, stage: &Stage) {
    let guard = tokens.0.lock().unwrap();
    reach(stage);
    let mut guard = wait_for_one(tokens, guard);
    *guard -= 1;
}

/// Waits until there is a token. Those that die with the mutex leave the number of tokens whole.
fn wait_for_one<'a>(tokens: &'a Tokens, mut guard: MutexGuard<'a, u32>) -> MutexGuard<'a, u32> {
    loop {
        match tokens.1.wait_while(guard, |tokens| *tokens == 0) {
            Ok(guard) => return guard,
            Err(poisoned) => guard = poisoned.into_inner(),
        }
        tokens.0.clear_poison();
    }
}

#[process_task]
fn take_a_token(tokens: &Tokens, stage: &Stage) {
    take(tokens, stage);
}

/// A process that has said that it waits, with the mutex held, does so once that is free.
fn until_waiting(tokens: &Tokens, stage: &Stage, count: u32) {
    until(stage, count);
    drop(tokens.0.lock().unwrap());
}

/// Exactly so many are woken, and no more: time is given to those that should not be.
fn exactly(woken: &Stage, count: u32) {
    until(woken, count);
    thread::sleep(Duration::from_millis(120));
    assert_eq!(woken.load(SeqCst), count);
}

fn each_notify_one_wakes_one_waiter_in_order(method: StartMethod) {
    let (tokens, stage, woken) = (tokens(), new_stage(), [(); 3].map(|()| new_stage()));
    let mut waiters = vec![];
    for (number, woken) in (1..).zip(&woken) {
        waiters.push(start(method, wait_for_a_notification, (&tokens, &stage, woken)));
        until_waiting(&tokens, &stage, number);
    }
    for first in 0..3 {
        tokens.1.notify_one();
        exactly(&woken[first], 1);
        let so_far: Vec<_> = woken.iter().map(|woken| woken.load(SeqCst)).collect();
        assert_eq!(so_far.iter().sum::<u32>(), u32::try_from(first).unwrap() + 1, "{so_far:?}");
    }
    // No waiter is there any more, and none will find what was not for it.
    tokens.1.notify_one();
    waiters.push(start(method, wait_for_a_notification, (&tokens, &stage, &woken[0])));
    until_waiting(&tokens, &stage, 4);
    exactly(&woken[0], 1);
    tokens.1.notify_all();
    for waiter in waiters {
        waiter.join().unwrap();
    }
}

fn so_many_are_woken_as_were_notified(method: StartMethod) {
    let (tokens, stage, woken) = (tokens(), new_stage(), new_stage());
    thread::scope(|scope| {
        let processes = [(); 3].map(|()| start(method, wait_for_a_notification, (&tokens, &stage, &woken)));
        for _ in 0..3 {
            scope.spawn(|| wait_once(&tokens, &stage, &woken));
        }
        until_waiting(&tokens, &stage, 6);
        tokens.1.notify_n(0);
        exactly(&woken, 0);
        tokens.1.notify_n(2);
        exactly(&woken, 2);
        tokens.1.notify_n(4);
        exactly(&woken, 6);
        tokens.1.notify_n(3);
        for process in processes {
            process.join().unwrap();
        }
    });
}

/// Times out once, and waits again without a time.
fn time_out_and_wait(tokens: &Tokens, stage: &Stage, woken: &Stage) {
    let guard = tokens.0.lock().unwrap();
    let (guard, result) = tokens.1.wait_timeout(guard, Duration::from_millis(10)).unwrap();
    assert!(result.timed_out());
    drop(guard);
    wait_once(tokens, stage, woken);
}

#[process_task]
fn time_out_and_wait_again(tokens: &Tokens, stage: &Stage, woken: &Stage) {
    time_out_and_wait(tokens, stage, woken);
}

fn all_that_did_not_time_out_are_woken_together(method: StartMethod) {
    let (tokens, stage, woken) = (tokens(), new_stage(), new_stage());
    thread::scope(|scope| {
        let processes = [(); 3].map(|()| start(method, time_out_and_wait_again, (&tokens, &stage, &woken)));
        for _ in 0..3 {
            scope.spawn(|| time_out_and_wait(&tokens, &stage, &woken));
        }
        until_waiting(&tokens, &stage, 6);
        exactly(&woken, 0);
        tokens.1.notify_all();
        exactly(&woken, 6);
        for process in processes {
            process.join().unwrap();
        }
    });
}

fn a_wait_ends_with_its_time_and_not_before(_method: StartMethod) {
    let tokens = tokens();
    for millis in [0, 1, 49, 50, 51, 130] {
        let (time, start) = (Duration::from_millis(millis), Instant::now());
        let (guard, result) = tokens.1.wait_timeout(tokens.0.lock().unwrap(), time).unwrap();
        assert!(result.timed_out() && start.elapsed() >= time);
        let start = Instant::now();
        let (guard, result) = tokens.1.wait_timeout_while(guard, time, |tokens| *tokens == 0).unwrap();
        assert!(result.timed_out() && start.elapsed() >= time);
        // What is true already is not waited for.
        let (_guard, result) = tokens.1.wait_timeout_while(guard, PATIENCE, |tokens| *tokens > 0).unwrap();
        assert!(!result.timed_out());
    }
}

#[process_task]
fn count_to_four(tokens: &Tokens) {
    let guard = tokens.0.lock().unwrap();
    let mut guard = tokens.1.wait_while(guard, |tokens| *tokens == 0).unwrap();
    while *guard < 4 {
        *guard += 1;
        tokens.1.notify_all();
        drop(guard);
        guard = tokens.0.lock().unwrap();
    }
}

fn a_waiter_sees_each_change_that_another_process_makes(method: StartMethod) {
    let tokens = tokens();
    let counter = start(method, count_to_four, &tokens);
    let mut guard = tokens.0.lock().unwrap();
    *guard = 1;
    tokens.1.notify_one();
    for count in 2..=4 {
        guard = tokens.1.wait_while(guard, |tokens| *tokens < count).unwrap();
    }
    assert_eq!(*guard, 4);
    drop(guard);
    counter.join().unwrap();
}

fn send(process: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.cast_signed()), signal).unwrap();
}

/// The one that waits longest is stopped, notified, and killed: it never gets to say that it was woken.
fn a_notification_of_a_waiter_that_was_killed_goes_to_the_next(method: StartMethod) {
    let (tokens, stage, woken) = (tokens(), new_stage(), new_stage());
    let first = start(method, wait_for_a_notification, (&tokens, &stage, &woken));
    until_waiting(&tokens, &stage, 1);
    let heirs = [2, 3].map(|number| {
        let heir = start(method, wait_for_a_notification, (&tokens, &stage, &woken));
        until_waiting(&tokens, &stage, number);
        heir
    });
    send(first.pid().unwrap(), nix::sys::signal::Signal::SIGSTOP);
    tokens.1.notify_one();
    exactly(&woken, 0);
    first.kill().unwrap();
    first.join().unwrap_err();
    exactly(&woken, 1);
    let [second, third] = heirs;
    second.join().unwrap();
    tokens.1.notify_all();
    third.join().unwrap();
}

/// They have seen what it was about.
fn notification_of_a_killed_waiter_skips_later_waiters(method: StartMethod) {
    let (tokens, stage, woken) = (tokens(), new_stage(), new_stage());
    let first = start(method, wait_for_a_notification, (&tokens, &stage, &woken));
    until_waiting(&tokens, &stage, 1);
    send(first.pid().unwrap(), nix::sys::signal::Signal::SIGSTOP);
    tokens.1.notify_one();
    let late = start(method, wait_for_a_notification, (&tokens, &stage, &woken));
    until_waiting(&tokens, &stage, 2);
    first.kill().unwrap();
    first.join().unwrap_err();
    exactly(&woken, 0);
    tokens.1.notify_one();
    late.join().unwrap();
}

/// The same at any moment between the notification and the end of the wait.
fn notification_of_a_killed_waiter_goes_to_the_next(method: StartMethod) {
    for round in 0..support::rounds(6) {
        let (tokens, stage) = (tokens(), new_stage());
        let first = start(method, take_a_token, (&tokens, &stage));
        until_waiting(&tokens, &stage, 1);
        let second = start(method, take_a_token, (&tokens, &stage));
        until_waiting(&tokens, &stage, 2);
        *tokens.0.lock().unwrap() += 1;
        tokens.1.notify_one();
        let since = Instant::now();
        while since.elapsed() < Duration::from_micros(10 * (round as u64 % 20)) {
            std::hint::spin_loop();
        }
        first.kill().unwrap();
        let _ = first.join();
        let (mut guard, returned) = match tokens.0.lock() {
            Ok(guard) => (guard, false),
            // The first had the mutex again: its wait may have returned, and then the notification was its own.
            Err(poisoned) => (poisoned.into_inner(), true),
        };
        tokens.0.clear_poison();
        let taken = *guard == 0;
        // By one of them. If that was the second, it has gone home, and this is one too many.
        *guard += u32::from(taken);
        drop(guard);
        if taken || returned {
            tokens.1.notify_one();
        }
        second.join().unwrap();
        assert!(*tokens.0.lock().unwrap() <= 1);
    }
}

fn killed_waiters_cost_nothing(method: StartMethod) {
    let (tokens, stage) = (tokens(), new_stage());
    let mut waiters = Vec::from([(); 4].map(|()| start(method, take_a_token, (&tokens, &stage))));
    until_waiting(&tokens, &stage, 4);
    for waiter in waiters.drain(..2) {
        waiter.kill().unwrap();
        waiter.join().unwrap_err();
    }
    // The two that live get what there is, though the dead came first.
    for _ in 0..2 {
        *tokens.0.lock().unwrap() += 1;
        tokens.1.notify_one();
    }
    for waiter in waiters {
        waiter.join().unwrap();
    }
    assert!(!tokens.0.is_poisoned());
    assert_eq!(*tokens.0.lock().unwrap(), 0);
}

#[process_task]
fn notify_for_ever(tokens: &Tokens, stage: &Stage) {
    loop {
        tokens.1.notify_one();
        reach(stage);
    }
}

/// Killed at any moment inside `notify_one`.
fn killed_notifiers_cost_nothing(method: StartMethod) {
    let (tokens, over) = (tokens(), AtomicU32::new(0));
    thread::scope(|scope| {
        let waits = || {
            let mut count = 0;
            let mut guard = tokens.0.lock().unwrap();
            while over.load(SeqCst) == 0 {
                guard = tokens.1.wait(guard).unwrap();
                count += 1;
            }
            count
        };
        let waiters = [(); 2].map(|()| scope.spawn(waits));
        for _ in 0..support::rounds(6) {
            let stage = new_stage();
            let notifier = start(method, notify_for_ever, (&tokens, &stage));
            until(&stage, 100);
            notifier.kill().unwrap();
            notifier.join().unwrap_err();
        }
        over.store(1, SeqCst);
        eventually("the waiters have heard of the end", PATIENCE, || {
            tokens.1.notify_all();
            waiters.iter().all(thread::ScopedJoinHandle::is_finished)
        });
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap() > 0));
    });
}

#[process_task]
fn notify_and_die(tokens: &Tokens, stage: &Stage) {
    let _guard = tokens.0.lock().unwrap();
    tokens.1.notify_one();
    reach(stage);
    until_killed();
}

fn a_waiter_that_is_woken_by_a_dead_holders_mutex_hears_of_it(method: StartMethod) {
    let (tokens, stage) = (tokens(), new_stage());
    let guard = tokens.0.lock().unwrap();
    let dying = start(method, notify_and_die, (&tokens, &stage));
    until_asleep(dying.pid().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            until(&stage, 1);
            dying.kill().unwrap();
        });
        assert!(tokens.1.wait(guard).is_err());
    });
    assert!(tokens.0.is_poisoned());
    dying.join().unwrap_err();
}

fn more_waiters_than_there_are_places_are_all_woken(method: StartMethod) {
    let (tokens, stage) = (tokens(), new_stage());
    thread::scope(|scope| {
        let other = start(method, take_a_token, (&tokens, &stage));
        for _ in 0..300 {
            scope.spawn(|| take(&tokens, &stage));
        }
        until_waiting(&tokens, &stage, 301);
        for _ in 0..301 {
            *tokens.0.lock().unwrap() += 1;
            tokens.1.notify_one();
        }
        other.join().unwrap();
    });
    assert_eq!(*tokens.0.lock().unwrap(), 0);
}
