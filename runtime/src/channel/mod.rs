//! Pipes and queues: how processes talk while they run.
//!
//! | here | in Python's `multiprocessing` | what it is |
//! |---|---|---|
//! | [`pipe`], [`one_way`] | `Pipe` | two typed ends of a socket |
//! | [`Connection`] | `Connection` | one of these ends |
//! | [`wait_readable`] | `connection.wait` | waiting for several connections, processes, or other descriptors |
//! | [`Descriptor`] | `reduction.send_handle` | an open file, socket or pipe that travels |
//! | [`Queue`], [`QueueSender`], [`QueueReceiver`] | `Queue` | many producers, many consumers, in shared memory |
//! | [`SimpleQueue`] | `SimpleQueue` | the same, with the smallest interface |
//! | [`JoinableQueue`] | `JoinableQueue` | a queue that knows which of its items are done |
//! | [`Listener`], [`connect_unix`], `connect_tcp` | `Listener`, `Client` | connections between processes that share no ancestor |
//!
//! All ends are arguments and results of tasks, and go through one another; but for connections between machines.
//!
//! # When a process dies
//!
//! Whatever dies, however, and in the middle of whatever: all others go on, and no thread waits for it for longer than a
//! tenth of a second. Each line was tried by the test beside it; those of `tests/queue/deaths.rs` follow a process
//! instruction by instruction and kill it at moments from the first to the last of what it does.
//!
//! | what dies | what it costs | shown by |
//! |---|---|---|
//! | a process that puts an item into a queue | the item, if it was not there yet: never a part of it, and nothing else | `tests/queue/deaths.rs`: `killed_while_putting_its_item_is_there_or_was_never_put`, `killed_while_sending_a_chunks_first_item_sends_or_not` |
//! | one that puts a long item, also while it is half copied | the same; its memory is found again | `killed_while_sending_a_long_item_sends_whole_or_nothing` |
//! | one that has sent the handles of an item, and not put it | the same; the handles are let go of when there is a next item with handles, or a thread waits for one | `killed_while_putting_handles_they_are_there_or_gone` |
//! | one that gets an item | the item, if it was taken already; else it is still there | `killed_while_getting_the_item_is_still_there_or_was_taken`, `killed_while_receiving_a_chunks_first_item_leaves_or_takes` |
//! | one that gets a long item, also while it is half copied | the same; its memory is found again | `killed_while_receiving_a_long_item_leaves_or_takes_it` |
//! | one that gets handles | the same | `killed_while_getting_handles_they_are_still_there_or_gone` |
//! | one that holds a lock of a queue | nothing: all of the above do, at some moments | the same |
//! | one that waits for an item, or for room, also if it was woken already | nothing | `tests/queue/ends.rs`: `a_killed_waiter_costs_nothing` |
//! | the last that has a [`QueueSender`] | consumers get what is there, and then hear that it is closed | `waiter_hears_of_a_killed_side_within_a_tenth_of_a_second`, `a_process_that_ends_in_any_way_lets_go_of_its_ends` |
//! | the last that has a [`QueueReceiver`] | producers hear that it is closed, and have their items back | the same |
//! | one of several that have one | nothing | `one_of_several_that_ends_is_not_the_last` |
//! | one that lets go of an end | nothing: it has let go of it | `tests/queue/deaths.rs`: `killed_while_it_lets_go_of_an_end_it_has` |
//! | one that closes a queue | it is closed, or it is not | `killed_while_it_closes_the_queue_is_closed_or_is_not` |
//! | one that borrows an item of a [`JoinableQueue`], or has one | nothing: it comes back | `killed_while_it_borrows_an_item_comes_back`, `tests/queue/joinable.rs`: `what_a_killed_process_had_comes_back_first`, `what_a_process_had_that_ended_in_any_way_comes_back` |
//! | one that says that an item is done | it is done, or comes back | `tests/queue/deaths.rs`: `killed_while_calling_done_is_done_or_item_comes_back` |
//! | one that gives an item back | nothing: it comes back | `killed_while_it_gives_an_item_back_it_comes_back` |
//! | a copy made by `fork()`, which has ends of its own | nothing | `tests/queue/ends.rs`: `a_copy_made_by_fork_has_ends_of_its_own` |
//! | a process that is stopped, not dead, while it puts | others wait, but not longer than they asked for, and a twentieth of a second | `tests/queue/deaths.rs`: `stopped_while_putting_others_keep_their_time_outs` |
//! | one that is stopped while it gets a short item | nothing: others get all else | `stopped_while_getting_others_get_all_else` |
//! | one that is stopped with an end, or with a lent item | it has it | `tests/queue/ends.rs`: `a_process_that_is_stopped_is_still_there`, `tests/queue/joinable.rs`: `a_process_that_lives_keeps_what_it_has` |
//! | any process that puts or gets, at any moment, for as long as you like | at most the item that each had just taken | `tests/queue/storms.rs`: `kills_lose_no_small_item_but_the_takers`, and the same with long items and with handles |
//! | any process that puts or borrows, likewise | nothing: every item is done at least once | `kills_leave_every_lent_item_done` |
//!
//! # How it is made
//!
//! Owns: pipes, queues and listeners. Runs in: any process. Never: makes a process wait for a dead one.
//!
//! An end is a descriptor of a socket, so that the kernel counts ends, also those on their way to a process. What
//! connections do stands in `connection/mod.rs`, with what each death costs; the memory of a queue, and which process
//! writes which word of it, in `queue/enqueue.rs`.

mod connection;
mod descriptor;
mod error;
mod listener;
mod queue;
#[cfg(feature = "tcp")]
mod remote;

pub use self::connection::{Connection, ConnectionIter, Receiver, Sender, one_way, pipe, wait_readable};
pub use self::descriptor::Descriptor;
pub use self::error::{RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError};
pub use self::listener::{Listener, connect_unix};
#[cfg(feature = "tcp")]
pub use self::listener::{connect_tcp, connect_tcp_timeout};
pub(crate) use self::queue::Travelling;
pub use self::queue::{Item, JoinableQueue, Queue, QueueIter, QueueLimits, QueueReceiver, QueueSender, SimpleQueue};
#[cfg(feature = "tcp")]
pub use self::remote::Key;
pub use crate::codec::Message;
