//! Workers that stay, and calls that are handed to them.
//!
//! Owns: [`Pool`], its builder, handles and iterators. Runs in: the parent. Never: loses a call, or runs one twice unless
//! its task allows it.
//!
//! # What each thread does
//!
//! One mutex guards the [`scheduler`]: which worker has which calls, and which wait. Calls go out from the submitting
//! thread. Replies are taken by any thread that holds the mutex and looks: a thread that waits for a result (one of them
//! *leads*, that is, spins and sleeps on behalf of all; the others follow and are woken), a submitting thread that finds
//! the workers full, or the reactor's thread when a bell rings that no other thread awaits.
//!
//! | a worker's bell rings | when | heard by |
//! |---|---|---|
//! | for each reply | `asleep`: the leader sleeps, or there is none and a future, a callback, a deadline or a timeline waits | the leader, else the reactor |
//! | when it goes to sleep | `hungry`: there is no leader, and calls wait behind others | the reactor |
//!
//! Both words are written under the mutex, and after writing one the writer looks at the replies again. Two epoll sets
//! listen to each bell, the pool's and the reactor's, each exclusively and the pool's first: so the leader hears it if it
//! sleeps, and the reactor only if there is none.
//!
//! # A call is settled
//!
//! | what waits | is told by |
//! |---|---|
//! | a thread, for one call | being unparked, unless it leads and looks itself |
//! | a thread, for many calls | the call's number in its queue ([`completion_queue`]), written under the mutex; then as above |
//! | a thread, for calls of several pools | the same; it cannot lead them all, so the reactor listens as it does for futures |
//! | a thread, for [`pending_limit`] | being unparked, one for each place |
//! | a future | its waker, called with no lock held |
//! | a callback | the thread that the pool has for [`callbacks`] |
//!
//! # A worker dies
//!
//! The reactor's thread hears of it and sorts the link's remains: replies that had come are results; the one call that was
//! claimed fails with `Unknown`, or is made again if its task has retries left; those behind it go back to the front of the backlog. A new worker is asked for.

mod attributes;
mod batch;
mod batch_size;
mod builder;
mod call;
mod callbacks;
mod completion_queue;
mod config;
mod deadlines;
mod departures;
mod effects;
mod elapsed;
mod global;
mod handle;
mod imap;
mod imap_unordered;
mod inline;
mod leader;
mod load_index;
mod map;
mod metrics;
mod pending_limit;
mod permit;
#[expect(clippy::module_inception, reason = "it is where `Pool` is")]
mod pool;
mod progress;
mod recycle;
mod replies;
mod scheduler;
mod shared;
mod shutdown;
mod size;
mod slot;
mod starts;
mod supervision;
mod wait;
mod waitable;
mod worker_start;
mod worker_state;

pub use self::builder::PoolBuilder;
pub use self::elapsed::Elapsed;
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
