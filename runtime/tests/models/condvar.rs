//! The robust lock and the wait queue of a condition variable under every interleaving, with the death of a process after each of its steps.
//!
//! Their files are compiled here a second time, as they are, on top of processes that die ([`mortal`]). The models check
//! that no thread sleeps for good, that one thread at a time holds the lock, that the next holder learns of a dead one, and
//! that a notification reaches a living waiter. Runs in: one process, without children.
//!
//! Each rule is left out once, at every run (`the_checker_finds`). Beyond that, these mistakes were put into the files
//! themselves, one at a time, and each was found by a test here. In `lock.rs`: a thread that has slept takes the lock without setting
//! the flag; the flag stays set when it was read, is cleared after the wake-up, or is read before the word is free; a thread
//! that set it does not read the word again, or sleeps on the word; a dead holder's lock counts as released; any process
//! frees it. In `wait_queue.rs`: the notification of a killed waiter is lost with its slot; no waiter looks for such slots; a
//! waiter that times out takes a notification with it; a notification is not marked, or wakes no thread; threads in overflow are
//! not woken. One mistake was not found, since it only causes a delay: to notify a waiter that is known to be dead. The
//! others then find its slot.
#![expect(unsafe_code, reason = "looking into the checker's cells")]

#[path = "../../src/sync/lock.rs"]
mod lock;
#[path = "../../src/sync/wait_queue.rs"]
mod wait_queue;

use std::time::Instant;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::checker::{explore, explore_with};
use crate::mortal::{FOR_EVER, Fault, Process, atomic, futex_wait, proc_table, the_checker_finds};
use lock::{Acquired, RobustLock};
use proc_table::ProcId;
use wait_queue::{WaitQueue, Woken};

/// So few that the queue of a model overflows.
const WAIT_SLOTS: usize = 2;

/// A lock and what it guards.
struct Account {
    lock: RobustLock,
    /// Two numbers that are equal whenever the lock is free.
    balance: UnsafeCell<[u32; 2]>,
}

impl Account {
    fn new() -> Arc<Self> {
        let account = Self { lock: RobustLock::new(), balance: UnsafeCell::new([0; 2]) };
        // Its words must be there before there are other threads.
        assert_eq!(account.lock.try_lock(), Some(Acquired::Clean));
        account.lock.unlock();
        Arc::new(account)
    }

    /// Adds to both numbers with the lock held; says whether it was told of a dead holder.
    fn pay_in(&self) -> bool {
        let taken = self.lock.lock(None).unwrap();
        self.change(taken);
        self.lock.unlock();
        taken == Acquired::OwnerDied
    }

    fn change(&self, taken: Acquired) {
        self.balance.with_mut(|balance| {
            // SAFETY: the checker reports any other access meanwhile, before anything is read.
            let balance = unsafe { &mut *balance };
            match taken {
                Acquired::Clean => assert_eq!(balance[0], balance[1], "a holder left it half changed"),
                Acquired::OwnerDied => balance[1] = balance[0],
            }
            balance[0] += 1;
            // A step, at which a holder can be killed.
            assert!(self.lock.is_held_by_own());
            balance[1] += 1;
        });
    }
}

#[test]
fn lock_excludes_and_leaves_no_thread_asleep() {
    explore(1000, || {
        let account = Account::new();
        let others = [2, 3].map(|number| Process::start(number, FOR_EVER, &account, Account::pay_in));
        assert!(!account.pay_in());
        assert_eq!(others.map(Process::join), [Some(false); 2]);
        assert_eq!(account.lock.owner(), None);
    });
}

#[test]
fn timeout_leaves_no_waiter_asleep() {
    explore(1000, || {
        let account = Account::new();
        let waiter = Process::start(2, FOR_EVER, &account, Account::pay_in);
        let hasty = Process::start(3, FOR_EVER, &account, |account| {
            if let Some(taken) = account.lock.lock(Some(Instant::now())) {
                account.change(taken);
                account.lock.unlock();
            }
            if let Some(taken) = account.lock.try_lock() {
                account.change(taken);
                account.lock.unlock();
            }
        });
        account.pay_in();
        assert_eq!(waiter.join(), Some(false));
        hasty.join().unwrap();
    });
}

#[test]
fn death_at_any_step_leaves_the_lock_available() {
    for steps in 0..LONGEST_PAYMENT {
        explore_with(2, 10, move || {
            let account = Account::new();
            let victim = Process::start(2, steps, &account, Account::pay_in);
            let other = Process::start(3, FOR_EVER, &account, Account::pay_in);
            account.pay_in();
            other.join().unwrap();
            victim.join();
            account.pay_in();
            assert_eq!(account.lock.owner(), None);
        });
    }
}

#[test]
fn two_deaths_in_a_row_leave_the_lock_available() {
    for steps in [1, 2, 4, 6] {
        explore_with(2, 10, move || {
            let account = Account::new();
            let victims = [2, 3].map(|number| Process::start(number, steps, &account, Account::pay_in));
            account.pay_in();
            for victim in victims {
                victim.join();
            }
            // Whichever was the last to die inside, it is known now.
            account.pay_in();
            assert!(!account.pay_in());
        });
    }
}

#[test]
fn dead_holder_is_reported_to_the_next_locker_only() {
    // One exchange takes the lock; the next step is its last.
    explore_with(2, 10, || {
        let account = Account::new();
        let victim = Process::start(2, 1, &account, Account::pay_in);
        let others = [3, 4].map(|number| Process::start(number, FOR_EVER, &account, Account::pay_in));
        let told: Vec<_> = others.into_iter().filter_map(Process::join).collect();
        if victim.join().is_none() && account.lock.owner() == ProcId::from_bits(2) {
            assert!(!told.contains(&true));
            assert_eq!(account.lock.try_lock(), Some(Acquired::OwnerDied));
            account.change(Acquired::OwnerDied);
            account.lock.unlock();
        }
        assert!(told.iter().filter(|told| **told).count() <= 1);
        assert!(!account.pay_in());
    });
}

#[test]
fn unlock_by_a_non_holder_frees_nothing() {
    explore(1, || {
        let account = Account::new();
        let _ = account.lock.lock(None);
        Process::start(2, FOR_EVER, &account, |account| account.lock.unlock()).join();
        assert!(account.lock.is_held_by_own());
        assert_eq!(account.lock.try_lock(), None);
        account.lock.unlock();
    });
}

/// A condition: tokens under a lock, and the line of those that want one.
struct Tokens {
    lock: RobustLock,
    line: WaitQueue,
    count: UnsafeCell<u32>,
}

impl Tokens {
    fn new() -> Arc<Self> {
        let tokens = Self { lock: RobustLock::new(), line: WaitQueue::new(), count: UnsafeCell::new(0) };
        // The lock and each place are used once: their words must be there before there are other threads.
        assert_eq!(tokens.lock.try_lock(), Some(Acquired::Clean));
        tokens.lock.unlock();
        let places = [(); WAIT_SLOTS].map(|()| tokens.line.enter());
        tokens.line.notify(usize::MAX);
        for place in places {
            tokens.line.leave(place);
        }
        Arc::new(tokens)
    }

    fn locked<R>(&self, act: impl FnOnce(&mut u32) -> R) -> R {
        while self.lock.lock(None).is_none() {}
        // SAFETY: the checker reports any other access meanwhile, before anything is read.
        let result = self.count.with_mut(|count| act(unsafe { &mut *count }));
        self.lock.unlock();
        result
    }

    /// As `Condvar::wait_while` does it: true when it has got a token, false when its time was over before.
    fn take(&self, deadline: Option<Instant>) -> bool {
        while self.lock.lock(None).is_none() {}
        loop {
            // SAFETY: as above.
            let got = self.count.with_mut(|count| unsafe { take_one(&mut *count) });
            if got {
                self.lock.unlock();
                return true;
            }
            let standing = self.line.enter();
            self.lock.unlock();
            let woken = self.line.wait(standing, deadline);
            if woken == Woken::Notified && Fault::LeavesTooEarly.is_made() {
                self.line.leave(standing);
            }
            while self.lock.lock(None).is_none() {}
            match woken {
                Woken::Notified if Fault::LeavesTooEarly.is_made() => {}
                Woken::Notified => self.line.leave(standing),
                Woken::TimedOut => {
                    self.lock.unlock();
                    return false;
                }
            }
        }
    }

    fn give(&self, tokens: u32) {
        self.locked(|count| *count += tokens);
        self.line.notify(tokens as usize);
    }
}

fn take_one(count: &mut u32) -> bool {
    let there = *count > 0;
    *count -= u32::from(there);
    there
}

#[test]
fn every_token_finds_its_taker() {
    explore_with(2, 400, || {
        let tokens = Tokens::new();
        let takers = [2, 3].map(|number| Process::start(number, FOR_EVER, &tokens, |tokens| tokens.take(None)));
        tokens.give(1);
        tokens.give(1);
        assert_eq!(takers.map(Process::join), [Some(true); 2]);
        assert_eq!(tokens.locked(|count| *count), 0);
    });
}

#[test]
fn notify_all_wakes_waiters_beyond_the_slots() {
    explore_with(2, 100, || {
        let tokens = Tokens::new();
        // The one that sits here does not move: one place is left.
        let _seated = tokens.line.enter();
        let takers = [2, 3].map(|number| Process::start(number, FOR_EVER, &tokens, |tokens| tokens.take(None)));
        tokens.locked(|count| *count += 2);
        tokens.line.notify(usize::MAX);
        assert_eq!(takers.map(Process::join), [Some(true); 2]);
    });
}

#[test]
fn timeout_loses_no_notification() {
    explore_with(2, 400, || {
        let tokens = Tokens::new();
        let patient = Process::start(2, FOR_EVER, &tokens, |tokens| tokens.take(None));
        let hasty = Process::start(3, FOR_EVER, &tokens, |tokens| tokens.take(Some(Instant::now())));
        tokens.give(1);
        if hasty.join().unwrap() {
            tokens.give(1);
        }
        assert_eq!(patient.join(), Some(true));
        assert_eq!(tokens.locked(|count| *count), 0);
    });
}

#[test]
fn a_waiter_that_dies_at_any_step_takes_no_notification_with_it() {
    a_waiter_dies(|| ());
}

#[test]
fn waiter_death_after_sleep_loses_no_notification() {
    a_waiter_dies(thread::yield_now);
}

/// Two wait for one token, and one of them is killed; `meanwhile` they come as far as they can, or do not.
fn a_waiter_dies(meanwhile: fn()) {
    for steps in 0..LONGEST_TAKE {
        explore_with(1, 5, move || {
            let tokens = Tokens::new();
            let victim = Process::start(2, steps, &tokens, |tokens| tokens.take(None));
            let heir = Process::start(3, FOR_EVER, &tokens, |tokens| tokens.take(None));
            meanwhile();
            tokens.give(1);
            meanwhile();
            proc_table::kill(2);
            victim.join();
            if tokens.locked(|count| *count) == 0 {
                // One of them has it. If that was the heir, it has gone home; if not, it wants one still.
                tokens.give(1);
            }
            futex_wait::look_again();
            assert_eq!(heir.join(), Some(true));
        });
    }
}

#[test]
fn notifier_death_at_any_step_blocks_no_waiter() {
    for steps in 0..LONGEST_GIVE {
        explore_with(2, 10, move || {
            let tokens = Tokens::new();
            let victim = Process::start(2, steps, &tokens, |tokens| tokens.give(2));
            let taker = Process::start(3, FOR_EVER, &tokens, |tokens| tokens.take(None));
            victim.join();
            // The tokens were never given, or no waiter was told of them: another thread does.
            tokens.give(1);
            taker.join().unwrap();
        });
    }
}

/// More steps than a process takes to pay in, to get a token, and to give two.
const LONGEST_PAYMENT: u32 = 32;
const LONGEST_TAKE: u32 = 72;
const LONGEST_GIVE: u32 = 36;

#[test]
fn no_process_takes_this_many_steps() {
    explore(1, || {
        let tokens = Tokens::new();
        let taker = Process::start(2, LONGEST_TAKE, &tokens, |tokens| tokens.take(None));
        let giver = Process::start(3, LONGEST_GIVE, &tokens, |tokens| tokens.give(2));
        assert_eq!((taker.join().is_some(), giver.join().is_some()), (true, true), "more steps are to be tried");
    });
    explore(1, || {
        let account = Account::new();
        let others = [2, 3].map(|number| Process::start(number, LONGEST_PAYMENT, &account, Account::pay_in));
        account.pay_in();
        assert!(others.map(Process::join).iter().all(Option::is_some), "more steps are to be tried");
    });
}

the_checker_finds! {
    sleep_without_waiters_bit_is_found: WaitersSetNoFlag, lock_excludes_and_leaves_no_thread_asleep, "exceeded";
    missing_fence_is_found: FencesAreLeftOut, lock_excludes_and_leaves_no_thread_asleep, "deadlock";
    unlock_without_wake_is_found: WakesAreLost, lock_excludes_and_leaves_no_thread_asleep, "deadlock";
    notify_without_wake_is_found: WakesAreLost, every_token_finds_its_taker, "deadlock";
    unnoticed_holder_death_is_found: NoDeathIsKnown, death_at_any_step_leaves_the_lock_available, "deadlock";
    relaxed_release_is_found: ReleaseIsRelaxed, lock_excludes_and_leaves_no_thread_asleep, "Causality violation";
    waiter_leaves_before_it_has_the_mutex: LeavesTooEarly,
        waiter_death_after_sleep_loses_no_notification, "deadlock";
}

/// What no model needs, some other one does.
const _: fn() = || {
    futex_wait::wake_all(&atomic::AtomicU32::new(0));
};
