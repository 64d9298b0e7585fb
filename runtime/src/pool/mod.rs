//! Workers that stay, and calls that are handed to them.
//!
//! Owns: [`Pool`], its builder, handles and iterators. Runs in: the parent. Never: loses a call, or runs one twice unless
//! its task allows it.
//!
//! # What each thread does
//!
//! One mutex guards the [`schedule`]: which worker has which calls, and which wait. Calls go out from the submitting
//! thread. Replies are taken by any thread that holds the mutex and looks: a thread that waits for a result (one of them
//! *leads*, that is, spins and sleeps on behalf of all; the others follow and are woken), a submitting thread that finds
//! the workers full, or the hub's thread when a bell rings that no other thread awaits.
//!
//! | a worker's bell rings | when | heard by |
//! |---|---|---|
//! | for each reply | `asleep`: the leader sleeps, or there is none and a future, a callback, a deadline or a timeline waits | the leader, else the hub |
//! | when it goes to sleep | `hungry`: there is no leader, and calls wait behind others | the hub |
//!
//! Both words are written under the mutex, and after writing one the writer looks at the replies again. Two epoll sets
//! listen to each bell, the pool's and the hub's, each exclusively and the pool's first: so the leader hears it if it
//! sleeps, and the hub only if there is none.
//!
//! # A call is settled
//!
//! | what waits | is told by |
//! |---|---|
//! | a thread, for one call | being unparked, unless it leads and looks itself |
//! | a thread, for many calls | the call's number in its queue ([`completions`]), written under the mutex; then as above |
//! | a thread, for calls of several pools | the same; it cannot lead them all, so the hub listens as it does for futures |
//! | a thread, for [`room`] | being unparked, one for each place |
//! | a future | its waker, called with no lock held |
//! | a callback | the thread that the pool has for [`callbacks`] |
//!
//! # A worker dies
//!
//! The hub's thread hears of it and sorts the link's remains: replies that had come are results; the one call that was
//! claimed fails with `Unknown`, or is made again if its task has retries left; those behind it go back to the front of the backlog. A new worker is asked for.

mod ahead;
mod batch;
mod builder;
mod call;
mod callbacks;
mod collecting;
mod completed;
mod completions;
mod core;
mod deadlines;
mod departures;
mod elapsed;
mod ends;
mod global;
mod handle;
mod inline;
mod levels;
mod map;
mod pace;
mod plan;
mod pool_type;
mod progress;
mod room;
mod schedule;
mod seen;
mod size;
mod staffing;
mod starts;
mod state;
mod surroundings;
mod turnover;
mod unordered;
mod waiting;
mod worker;

pub use self::ahead::Imap;
pub use self::builder::PoolBuilder;
pub use self::completed::{AsCompleted, WaitFor, WaitOutcome, as_completed, wait};
pub use self::elapsed::Elapsed;
pub use self::ends::ShutdownMode;
pub use self::handle::JoinHandle;
pub use self::pool_type::Pool;
pub use self::progress::OnProgress;
pub use self::room::TrySubmitError;
pub use self::seen::{Latency, PoolStats, Timeline, WorkerState, WorkerStats};
pub use self::state::worker_state;
pub use self::unordered::ImapUnordered;
