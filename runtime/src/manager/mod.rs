//! Managers: objects that live in one process and are used from many.
//!
//! | file | what it owns |
//! |---|---|
//! | `builder`, `owner`, `handle` | starting a manager, ending it, and the way to it |
//! | `proxy`, `call_handle` | a reference to an object, and calls through it |
//! | `held` | who has a reference, and how one travels |
//! | `client`, `short_calls`, `pending` | the client's side of calls, in memory and by queue |
//! | `serve`, `server`, `tables` | the manager's side: what it knows, and how requests change that |
//! | `deferred` | calls that are answered later, and what belongs to a process |
//! | `leader`, `turn`, `run` | the manager's threads, and how one runs a call |
//! | `instance`, `scope` | the object itself, and how a stub gets it |
//! | `wire`, `memory`, `bell`, `slots` | what the two sides share: items, words, and the rules for these |

/// The atomics of the files that are model-checked. The model checker has its own.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}
mod bell;
mod builder;
mod call_handle;
mod client;
mod deferred;
mod handle;
mod held;
pub(crate) mod instance;
mod leader;
pub mod managed;
mod memory;
#[cfg(test)]
mod object_tests;
mod owner;
mod pending;
mod proxy;
mod run;
pub(crate) mod scope;
mod serve;
mod server;
mod short_calls;
mod slots;
mod stats;
mod tables;
mod turn;
mod wire;

pub use self::builder::ManagerBuilder;
pub use self::call_handle::CallHandle;
pub use self::handle::ManagerHandle;
pub use self::owner::Manager;
pub use self::proxy::Proxy;
pub use self::stats::ManagerStats;
