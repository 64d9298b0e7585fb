//! One thread in each process that waits for descriptors and timers on behalf of all others.
//!
//! Runs in: any process that has a child, or a future that waits. The loop runs on a thread of its own, all else on any.
//! What waits registers an [`EventHandler`], gets a [`Token`], and registers descriptors under it.
//!
//! The host may call `fork()`. A copy finds that its reactor is of another generation, and starts a new one. All that a
//! handler keeps of the reactor, it therefore uses only while [`Reactor::is_of_this_process`].

mod event_loop;
mod lost;
mod timers;
mod wake;

pub(crate) use self::event_loop::{EventHandler, Hooks, Reactor, Token, existing_reactor, reactor};
pub(crate) use self::lost::error as lost_error;
pub(crate) use self::timers::TimerKey;
pub(crate) use self::wake::wake;
