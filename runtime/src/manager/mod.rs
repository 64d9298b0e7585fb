//! Managers: objects that live in one process and are used from many.
//!
//! A manager is a child process. A process that has a [`Proxy`] of one of its objects, or a [`ManagerHandle`], is a
//! *client*. Each call is made in the manager: by memory that the two share, if it is short, and else by queues.
//!
//! # When a process dies
//!
//! Whichever process dies, however, and in the middle of whatever: no thread waits for it for longer than a tenth of a
//! second, and no object, lock or call of a dead client stays. Each line is tested with kill -9, by the test beside it.
//!
//! | what dies | what it costs | shown by |
//! |---|---|---|
//! | the manager, at any moment | its objects; each call that waits, and each later one, fails with `ManagerGone` | `tests/manager/deaths.rs`: `killed_manager_fails_every_call_within_a_tenth_of_a_second`, `managers_killed_at_any_moment_hang_no_call`, `tests/manager/storms.rs`: `killed_managers_answer_or_are_gone` |
//! | the manager, as other processes see it | the same there | `tests/manager/deaths.rs`: `killed_manager_is_told_of_in_other_processes` |
//! | the manager, at each stage of a call | the same | `tests/manager/faults.rs`: `manager_killed_at_each_stage_of_a_call_is_told_of` |
//! | the manager, while a future waits | the future is woken, with the same error | `tests/manager/times.rs`: `awaited_calls_end_in_time_and_with_the_manager` |
//! | the manager, by `exit` in a method | the same | `tests/manager/deaths.rs`: `manager_that_exits_in_a_method_is_gone` |
//! | a method, by a panic | that call; the object is poisoned if it was `&mut self` | `tests/manager/calls.rs`: `panic_reaches_the_caller_and_poisons_if_exclusive` |
//! | the manager is stopped, not dead | calls wait, but not longer than their proxy says | `tests/manager/times.rs`: `stopped_manager_keeps_deadlines` |
//! | a client that has proxies | its references: objects that no other process has are dropped | `tests/manager/counting.rs`: `object_of_a_killed_client_is_dropped` |
//! | a client in the middle of a call | the call is made, or was not announced; its answer is thrown away | `killed_clients_leave_no_object` |
//! | a client, at any moment, for as long as you like | the same, and nothing else | `tests/manager/storms.rs`: `killed_clients_leave_nothing` |
//! | a message with a proxy, on its way | the reference that it held | `tests/manager/counting.rs`: `object_whose_message_was_lost_is_dropped` |
//! | a client is stopped, not dead | others go on; but one that is stopped in the few instructions in which it puts a request keeps others from putting long ones | `tests/manager/limits.rs`: `stopped_client_keeps_no_other_waiting` |
//! | a copy made by `fork()` | nothing: it has no connection and no reference | `tests/manager/counting.rs`: `copy_made_by_fork_has_no_reference` |
//! | a client that holds a lock | the lock is released, and poisoned | `tests/manager/waiting.rs`: `lock_of_a_killed_holder_is_released_and_poisoned` |
//! | a client that waits for a lock | nothing: the next one gets it | `lock_of_a_killed_waiter_goes_to_the_next` |
//! | a client that has permits, or has borrowed items | they come back | `permits_of_a_killed_holder_come_back`, `items_of_a_killed_borrower_come_back` |
//! | a client that was notified and did not return | nothing: the notification goes to the next one; if it had the lock again, the lock is poisoned | `notification_of_a_killed_waiter_goes_to_the_next` |
//! | a client that has connected | the same as of any: its connection ends with it | `tests/manager/remote.rs`: `killed_client_is_let_go_of` |
//! | a client's machine, or the network | the same, after the lease | `tests/manager/remote_lease.rs`: `client_that_vanishes_poisons_its_locks` |
//! | a client on another machine is stopped | the same | `client_that_is_stopped_has_the_lease_and_no_more` |
//! | a client takes no answers | it is dropped, and no other waits | `client_that_takes_no_answers_is_dropped` |
//! | the manager's machine, or the network | each call fails with `ManagerGone`, after the lease | `manager_that_vanishes_is_gone_after_the_lease` |
//! | clients of all kinds, at any moment | their objects, locks, permits and items: they come back | `tests/manager/soak.rs`: `killed_clients_of_all_kinds_leave_nothing` |
//! | a worker of a pool in a manager | the call that it was running | `tests/manager/pool.rs`: `killed_worker_costs_its_call_alone` |
//! | a client that has calls in such a pool | they are abandoned: those that no worker has begun are not made | `calls_of_a_killed_client_are_abandoned` |
//! | a client that has thousands of calls that wait | they go | the unit tests beside `managed` |
//! | the manager, in its initializer | `start` fails with that | `tests/manager/starts.rs`: `initializer_that_ends_its_process_is_told_of` |
//!
//! Under a model checker each side of the memory for short calls dies at each step: `manager` in `runtime/tests/models/`.
//!
//! # How it is made
//!
//! | file | what it owns |
//! |---|---|
//! | `builder`, `initializer`, `owner`, `handle` | starting a manager, ending it, and the way to it |
//! | `proxy`, `call_handle` | a reference to an object, and calls through it |
//! | `published` | objects that have a name, for those that connect |
//! | `held` | which process has a reference, and how one travels |
//! | `client`, `short_calls`, `pending` | the client's side of calls, in memory and by queue |
//! | `releases`, `released` | objects that a client lets go of, many at once |
//! | `serve`, `server`, `tables` | the manager's side: what it knows, and how requests change that |
//! | `deferred` | calls that are answered later, and what belongs to a process |
//! | `remote`, `connect`, `connected_link` | the two sides of a connection to a manager |
//! | `connected`, `connection_state`, `connection_limits` | a client that has connected, and what it may cost |
//! | `leader`, `turn`, `run`, `unsent` | the manager's threads, how one runs a call, and answers that have no room |
//! | `instance`, `scope` | the object itself, and how a stub gets it |
//! | `wire`, `memory`, `wakeup`, `slots` | what the two sides share: items, words, and the rules for these |
//!
//! Why references are counted by requests of one queue: its order is what makes the counts right. A process claims its own
//! reference before it lets go of the ticket of the message that brought the proxy, and the end of a ticket is told by the
//! same queue.
//!
//! Why an end of a socket travels with each message that has proxies: the kernel closes it when the message is lost, and
//! nothing of ours could know that as surely.
//!
//! Why the leader runs calls itself: a call in another thread would cost a wake-up, which takes longer than most methods.

/// The atomics of the files that are model-checked. The model checker has its own.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}
mod builder;
mod call_handle;
mod client;
mod connect;
mod connected;
mod connected_link;
mod connection_limits;
mod connection_state;
#[cfg(test)]
mod connection_tests;
pub(crate) mod deferred;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handle;
mod held;
#[cfg(test)]
mod hostile_tests;
mod initializer;
pub(crate) mod instance;
mod leader;
pub(crate) mod managed;
mod memory;
#[cfg(test)]
mod object_tests;
mod owner;
mod pending;
pub(crate) mod proxy;
mod published;
mod released;
mod releases;
mod remote;
#[cfg(test)]
mod remote_tests;
mod run;
pub(crate) mod scope;
mod serve;
mod server;
mod short_calls;
mod slots;
mod stats;
mod tables;
mod turn;
mod unsent;
mod wakeup;
pub(crate) mod wire;

pub use self::builder::ManagerBuilder;
pub use self::call_handle::CallHandle;
pub use self::handle::ManagerHandle;
pub use self::owner::Manager;
pub use self::proxy::Proxy;
pub use self::stats::ManagerStats;
