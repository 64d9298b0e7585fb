//! Workers that stay, and calls that are handed to them.
//!
//! Runs in: the parent.
//!
//! # Files
//!
//! One mutex guards the [`scheduler`]. It is made of three parts, which do not know each other:
//!
//! | part | state |
//! |---|---|
//! | [`workers`] | slots, starts, exits, deadlines; counts and events |
//! | [`dispatcher`], with [`pending_limit`] | the backlog; how many calls there are |
//! | [`leadership`] | the leader, the followers, when workers notify |
//!
//! The workers have parts of their own, each with private state:
//!
//! | part | state | changed by |
//! |---|---|---|
//! | [`slots`], with [`slot`] and [`load_index`] | each worker and its standby; workers by load; slots that were changed | `Slots::change`, which keeps the index right |
//! | [`departures`], with [`death`] | workers on their way out | the workers |
//! | [`starts`] | starts that failed | the workers |
//! | [`timers`] | when deadlines are checked | the workers |
//! | [`metrics`] | counts, times, events | the workers, and the scheduler for calls |
//!
//! What is done once the mutex is released is in [`effects`]: every transition pushes to them, and `Shared::update` takes them.
//!
//! [`shared`] has the mutex, with one entrance for changes, `Shared::update`. A transition changes slots and the
//! backlog; `Scheduler::settle`, at the end of each update, finds what follows: a vacant slot gets a worker, an idle worker
//! leaves if it is not needed, calls are given out and evenly spread, workers are told when to notify. Then the mutex is
//! released and the effects run. `scheduler/mod.rs` is the way of a call; `scheduler/supervision.rs` is about what may happen
//! to it meanwhile. `workers/mod.rs` is about workers that come and end; `workers/recycle.rs` is about those that are not
//! needed or take too long.
//!
//! # The way of a call
//!
//! [`pool`] → [`handle`] (permit, arguments encoded) → [`shared`] → [`scheduler`] → [`dispatcher`] (which worker) → [`slots`] →
//! the link. Its reply: [`leader`], or the reactor → [`shared`] → [`scheduler`] → [`call`], which has the outcome → [`handle`].
//!
//! # What each thread does
//!
//! Calls go out from the submitting thread. Replies are taken by any thread that holds the mutex and polls: a thread that
//! waits for a result (one of them *leads*, that is, spins and sleeps on behalf of all; the others follow and are woken), a
//! submitting thread that finds the workers full, or the reactor's thread, when a worker notifies its doorbell, which is an
//! eventfd, and no other thread awaits it.
//!
//! | a worker notifies | when | heard by |
//! |---|---|---|
//! | for each reply | the leader sleeps; or there is none, and a future, a callback, a deadline or a timeline waits | the leader, else the reactor |
//! | when it goes to sleep | there is no leader, and calls wait behind others | the reactor |
//!
//! Both flags are written under the mutex, and after writing one the writer polls for replies again. Two epoll sets watch
//! each doorbell, the pool's and the reactor's, each exclusively and the pool's first: so the leader hears it if it sleeps,
//! and the reactor only if there is none.
//!
//! # A call is settled
//!
//! | what waits | is told by |
//! |---|---|
//! | a thread, for one call | being unparked, unless it leads and polls itself |
//! | a thread, for many calls | the call's number in its queue ([`completion_queue`]), written under the mutex; then as above |
//! | a thread, for calls of several pools | the same; it cannot lead them all, so the reactor listens as it does for futures |
//! | a thread, for a permit of [`pending_limit`] | being unparked, one for each permit |
//! | a future | its waker, called with no lock held |
//! | a callback | the thread that the pool has for [`callbacks`] |
//!
//! # A worker dies
//!
//! The reactor's thread hears of it and sorts the link's remains: replies that had come are results; the one call that was
//! claimed fails with `Unknown`, or is made again if its task has retries left; those behind it go back to the front of the
//! backlog. A new worker is started if one is needed. What each death costs stands at the top of `scheduler/supervision.rs` and [`batch`].
//!
//! # Why
//!
//! Why a worker with calls waiting elsewhere notifies when it goes to sleep, and not each time it has answered all: under
//! load it is given something else within a microsecond. A notification wakes a thread, which takes the processor
//! from the one that submits.
//!
//! Why an eventfd is registered edge-triggered, and exclusively in two epoll sets: a leader that sleeps in the pool's
//! set is woken alone, and the reactor is woken if there is none. No thread has to read the eventfd.
//!
//! Why replies of busy workers are looked at every sixteen calls: each look takes a cache line from a worker.
//!
//! Why a long call goes to an idle worker only: the descriptor of its memory may have to travel first.
//!
//! Why links are looked at each second while calls have no result: a task may write over any word of its half, also
//! over the one that says that there is work. The parent finds a window that cannot be, and wakes the child, which
//! finds the damage and ends.

mod attributes;
mod batch;
mod batch_size;
mod builder;
mod call;
mod callbacks;
mod completion_queue;
mod config;
mod death;
mod departures;
mod dispatcher;
mod effects;
mod global;
mod handle;
mod imap;
mod imap_unordered;
mod inline;
mod leader;
mod leadership;
mod load_index;
mod map;
mod metrics;
mod pending_limit;
#[expect(clippy::module_inception, reason = "it is where `Pool` is")]
mod pool;
mod progress;
mod scheduler;
mod shared;
mod shutdown;
mod size;
mod slot;
mod slots;
mod starts;
mod timers;
mod wait;
mod waitable;
mod worker_start;
mod worker_state;
mod workers;

pub use self::builder::PoolBuilder;
pub use self::global::GlobalPool;
pub use self::handle::JoinHandle;
pub use self::imap::Imap;
pub use self::imap_unordered::ImapUnordered;
pub use self::metrics::{Latency, PoolStats, Timeline, WorkerState, WorkerStats};
pub use self::pending_limit::TrySubmitError;
pub use self::pool::Pool;
pub use self::progress::OnProgress;
pub use self::shutdown::ShutdownMode;
pub use self::wait::{AsCompleted, WaitFor, WaitOutcome, as_completed, wait};
pub use self::worker_state::worker_state;
