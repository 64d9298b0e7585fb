//! Synchronisation between threads of any processes, that outlives the processes that use it.
//!
//! The primitives are those of [`std::sync`], with its names and signatures, and each is a plain value that works where it
//! lies: in a [`Shared`](crate::Shared) for several processes, in a `static` or an [`Arc`](std::sync::Arc) for the threads of
//! one.
//!
//! | here | in Python's `multiprocessing` | for |
//! |---|---|---|
//! | [`Mutex`] | `Lock`, `Value` | data that one thread at a time changes |
//! | [`ReentrantMutex`] | `RLock` | the same, where the holder may lock again |
//! | [`RwLock`] | | data that several threads read, or one changes |
//! | [`Condvar`] | `Condition` | waiting for a change of what a mutex holds |
//! | [`Semaphore`] | `Semaphore`, `BoundedSemaphore` | at most N holders at a time |
//! | [`Event`] | `Event` | waiting for something that happens once, or again |
//! | [`Barrier`] | `Barrier` | waiting for each other |
//! | [`Once`] | | what one process does for all |
//!
//! # When a process dies
//!
//! Whichever process dies, however, and whatever it holds: no thread waits for it for longer than a tenth of a second. Each
//! line is tested with kill -9, by the test beside it.
//!
//! | what dies | what it costs | shown by |
//! |---|---|---|
//! | a process that holds a [`Mutex`] | it is free again, and poisoned | `tests/sync/locks.rs`: `a_killed_holder_poisons_within_a_tenth_of_a_second` |
//! | one that exits with a guard, or forgot it | the same | `a_holder_that_exits_with_a_guard_poisons`, `a_holder_that_returns_and_forgets_its_guard_poisons` |
//! | a thread that panics with a guard | the same | `a_guard_dropped_in_a_panic_poisons` |
//! | a process that waits for a mutex, also if it was woken already | nothing | `a_killed_waiter_costs_nothing` |
//! | one that holds a [`ReentrantMutex`] several times | it is free again, and poisoned | `killed_holder_poisons_a_reentrant_mutex_at_any_depth` |
//! | a copy made by `fork()`, which inherited a guard | nothing: it held nothing | `copy_made_by_fork_does_not_unlock_and_may_hold_a_lock` |
//! | a process that is stopped, not dead | all others wait: it holds what it holds | `a_holder_that_lives_keeps_the_mutex` |
//! | a process that waits at a [`Condvar`] | nothing | `tests/sync/conditions.rs`: `killed_waiters_cost_nothing` |
//! | one that was notified, and had not returned from its wait | nothing: the next one is woken | `a_notification_of_a_waiter_that_was_killed_goes_to_the_next`, `notification_of_a_killed_waiter_goes_to_the_next` |
//! | one that notifies | waiters that it did not reach are not notified | `killed_notifiers_cost_nothing` |
//! | one that holds the mutex for which a woken waiter waits | the wait returns, with an error | `a_waiter_that_is_woken_by_a_dead_holders_mutex_hears_of_it` |
//! | a process that holds permits of a [`Semaphore`] | they come back | `tests/sync/semaphores.rs`: `killed_holders_permits_come_back_within_a_tenth_of_a_second`, `permit_of_a_process_known_dead_is_found_without_waiting` |
//! | one that returns or exits with a permit | it comes back | `a_holder_that_returns_or_exits_with_a_permit_loses_it` |
//! | one that has forgotten a permit | nothing comes back, as it had no holder any more | `forgotten_permit_comes_back_by_a_release_alone` |
//! | one that waits for a permit, also if it was woken already | nothing | `a_killed_waiter_costs_nothing` |
//! | a copy made by `fork()`, which inherited a permit | nothing: it held nothing | `a_copy_made_by_fork_gives_nothing_back` |
//! | any process that takes and gives back permits, at any moment | nothing: they are as many as before | `kills_lose_and_double_no_permit` |
//! | a process that reads what an [`RwLock`] guards | it vanishes | `tests/sync/rwlocks.rs`: `a_killed_reader_vanishes_within_a_tenth_of_a_second` |
//! | one that writes it | it is free again, and poisoned | `a_killed_writer_poisons_within_a_tenth_of_a_second` |
//! | a writer that waits, and keeps readers out | they come in again | `a_killed_waiter_costs_nothing` |
//! | any process that reads or writes, at any moment | a change that was under way, of which the next one is told | `kills_show_half_a_change_only_as_poison` |
//! | a process that waits at a [`Barrier`] | it breaks for the others | `tests/sync/barriers.rs`: `a_killed_party_breaks_the_barrier_within_a_tenth_of_a_second` |
//! | a party that is on its way from one round to the next | it breaks | `a_party_that_is_killed_between_two_rounds_breaks_the_second` |
//! | one that returned after its last round, or never came | nothing | `a_party_that_returned_after_its_round_breaks_nothing`, `one_that_never_came_breaks_nothing` |
//! | any party, at any moment | no round is complete for some and not for others | `kills_leave_no_round_half_complete` |
//! | a process that waits for an [`Event`] | nothing | `tests/sync/events.rs`: `a_killed_waiter_costs_nothing`, `kills_lose_no_event` |
//! | one that runs what is to be done [`Once`] | the next one runs | `killed_runner_lets_another_run_within_a_tenth_of_a_second`, `kills_leave_a_once_done_once` |
//! | a closure of it that panics | it is poisoned | `a_runner_that_panics_poisons` |
//! | any process, at any moment, for as long as you like | a transfer that was under way, which the next one undoes | `tests/sync/bank.rs`: `kills_never_change_the_banks_total` |
//!
//! How a death becomes known: every process of a tree has an entry in a table, and the process that made it records its
//! end there. The word of a lock holds its holder's id from that table, and a waiting thread looks again every 50 ms at
//! the latest.
//!
//! # Examples of the standard library
//!
//! With [`Shared`](crate::Shared) for `Arc`, and tasks for threads. Counting, from [`std::sync::Mutex`]:
//! ```
//! use process_task::sync::Mutex;
//! use process_task::{Shared, process_task};
//!
//! const N: usize = 10;
//!
//! #[process_task]
//! fn increment(data: &Shared<Mutex<usize>>) -> bool {
//!     // The shared state can only be accessed once the lock is held.
//!     // Our non-atomic increment is safe because we're the only process
//!     // which can access the shared state when the lock is held.
//!     let mut data = data.lock().unwrap();
//!     *data += 1;
//!     *data == N
//!     // the lock is unlocked here when `data` goes out of scope.
//! }
//!
//! // Start a few processes to increment a shared variable (non-atomically), and
//! // let us know which of them was the last.
//! let data = Shared::new(Mutex::new(0))?;
//! let tasks: Vec<_> = (0..N).map(|_| increment.spawn(&data)).collect();
//! let last = tasks.into_iter().map(|task| task.join().unwrap()).filter(|last| *last);
//! assert_eq!(last.count(), 1);
//! # process_task::Result::Ok(())
//! ```
//!
//! To recover from a poisoned mutex:
//! ```
//! use process_task::sync::Mutex;
//! use process_task::{Shared, process_task};
//!
//! #[process_task]
//! fn poison(lock: &Shared<Mutex<u32>>) {
//!     // This process will acquire the mutex first, unwrapping the result of
//!     // `lock` because the lock has not been poisoned.
//!     let _guard = lock.lock().unwrap();
//!
//!     // This panic while holding the lock (`_guard` is in scope) will poison
//!     // the mutex.
//!     panic!();
//! }
//!
//! let lock = Shared::new(Mutex::new(0_u32))?;
//! let _ = poison.spawn(&lock).join();
//!
//! // The lock is poisoned by this point, but the returned result can be
//! // pattern matched on to return the underlying guard on both branches.
//! assert_eq!(lock.is_poisoned(), true);
//! let mut guard = match lock.lock() {
//!     Ok(guard) => guard,
//!     Err(poisoned) => poisoned.into_inner(),
//! };
//! *guard += 1;
//! # process_task::Result::Ok(())
//! ```
//!
//! To unlock a mutex guard sooner than the end of the enclosing scope, either create an inner scope or drop the guard manually:
//! ```
//! use process_task::sync::Mutex;
//! use process_task::{Shared, process_task};
//!
//! const N: usize = 3;
//!
//! #[process_task]
//! fn work(data: &Shared<Mutex<[i32; 4 + N]>>, res: &Shared<Mutex<i32>>, position: usize) {
//!     let result = {
//!         let mut data = data.lock().unwrap();
//!         // This is the result of some important and long-ish work.
//!         let result = data[..4].iter().fold(0, |acc, x| acc + x * 2);
//!         data[4 + position] = result;
//!         result
//!         // The mutex guard gets dropped here, together with any other values
//!         // created in the critical section.
//!     };
//!     // The guard created here is a temporary dropped at the end of the statement, i.e.
//!     // the lock would not remain being held even if the process did some additional work.
//!     *res.lock().unwrap() += result;
//! }
//!
//! let data_mutex = Shared::new(Mutex::new([1, 2, 3, 4, 0, 0, 0]))?;
//! let res_mutex = Shared::new(Mutex::new(0))?;
//! let tasks: Vec<_> = (0..N).map(|position| work.spawn(&data_mutex, &res_mutex, position)).collect();
//!
//! let mut data = data_mutex.lock().unwrap();
//! let result = data[..4].iter().fold(0, |acc, x| acc + x * 2);
//! // We drop the `data` explicitly because it's not necessary anymore and the process
//! // still has work to do. This allows other processes to start working on the data
//! // immediately, without waiting for the rest of the unrelated work to be done here.
//! drop(data);
//! *res_mutex.lock().unwrap() += result;
//!
//! for task in tasks {
//!     task.join()?;
//! }
//! assert_eq!(*res_mutex.lock().unwrap(), 80);
//! # process_task::Result::Ok(())
//! ```
//!
//! Waiting for a condition, from [`std::sync::Condvar`]:
//! ```
//! use process_task::sync::{Condvar, Mutex};
//! use process_task::{Shared, process_task};
//!
//! // Inside of our lock, start a new process, and then wait for it to start.
//! #[process_task]
//! fn begin(pair: Shared<(Mutex<bool>, Condvar)>) {
//!     let (lock, cvar) = &*pair;
//!     let mut started = lock.lock().unwrap();
//!     *started = true;
//!     // We notify the condvar that the value has changed.
//!     cvar.notify_one();
//! }
//!
//! let pair = Shared::new((Mutex::new(false), Condvar::new()))?;
//! let task = begin.spawn(pair.clone());
//!
//! // Wait for the process to start up.
//! let (lock, cvar) = &*pair;
//! let mut started = lock.lock().unwrap();
//! while !*started {
//!     started = cvar.wait(started).unwrap();
//! }
//! # drop(started);
//! # task.join()?;
//! # process_task::Result::Ok(())
//! ```
//!
//! The same, with a time-out:
//! ```
//! use process_task::sync::{Condvar, Mutex};
//! use process_task::{Shared, process_task};
//! use std::time::Duration;
//!
//! #[process_task]
//! fn proceed(pair: Shared<(Mutex<bool>, Condvar)>) {
//!     let (lock, cvar) = &*pair;
//!     let mut pending = lock.lock().unwrap();
//!     *pending = false;
//!     // We notify the condvar that the value has changed.
//!     cvar.notify_one();
//! }
//!
//! let pair = Shared::new((Mutex::new(true), Condvar::new()))?;
//! # let started = std::time::Instant::now();
//! let task = proceed.spawn(pair.clone());
//!
//! // wait for the process to start up
//! let (lock, cvar) = &*pair;
//! let result = cvar
//!     .wait_timeout_while(lock.lock().unwrap(), Duration::from_secs(10), |&mut pending| pending)
//!     .unwrap();
//! if result.1.timed_out() {
//!     // timed-out without the condition ever evaluating to false.
//! #   panic!("after {:?}", started.elapsed());
//! }
//! // access the locked mutex via result.0
//! # drop(result);
//! # task.join()?;
//! # process_task::Result::Ok(())
//! ```
//!
//! # How it is made
//!
//! Owns: the primitives. Runs in: any process. Invariant: shared memory holds no pointer, no list of threads, and nothing else
//! that a death could leave dangling. No primitive of the C library is used: when waiters of its condition variables are
//! killed, a thread that signals can hang for good, and a robust mutex that is unmapped while it is held corrupts what
//! comes after it.
//!
//! Everything is built on a word that names its holder (`lock.rs`), and on sleeping for 50 ms at most (`futex_wait.rs`). What
//! each primitive writes, and what each death costs it, stands at the top of its file. The protocols run under a model checker with a
//! death at every step (`tests/models/` of the runtime).

/// The atomics of the files that are model-checked. The model checker has its own.
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}
mod barrier;
mod condvar;
pub(crate) mod deadline;
mod event;
pub(crate) mod event_count;
pub(crate) mod futex_wait;
mod holders;
pub(crate) mod lock;
mod mutex;
mod once;
mod poison;
mod ranges;
mod raw_rwlock;
mod reentrant;
mod rwlock;
mod semaphore;
#[cfg(test)]
mod tests;
mod wait_queue;

use crate::error::elapsed;
use crate::shared::proc_table;

pub use self::barrier::{Barrier, BarrierWaitResult, BrokenBarrier};
pub use self::condvar::{Condvar, WaitTimeoutResult};
pub use self::event::Event;
pub use self::mutex::{Mutex, MutexGuard};
pub use self::once::{Once, OnceState};
pub use self::poison::{LockResult, PoisonError, TryLockError, TryLockResult};
pub use self::ranges::{RangeGuard, SharedRanges};
pub use self::reentrant::{ReentrantMutex, ReentrantMutexGuard};
pub use self::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use self::semaphore::{Permit, Semaphore, TooManyPermits};

/// Number of processes that may hold something of one primitive at a time: permits, or a shared lock.
const MAX_HOLDERS: usize = 256;

crate::shared::cell::in_place!(Barrier, Condvar, Event, Mutex<T>, Once, ReentrantMutex<T>, RwLock<T>, Semaphore);

/// Number of threads that can wait at one condition variable before it overflows.
const WAIT_SLOTS: usize = 256;
