//! Starts children, keeps spares, and knows what became of each child.
//!
//! Runs in: the parent; events on the reactor's thread. Meets `child` only in `link` and `call`.
//! Invariant: no child gets a call before its pidfd is here, so the fate of every call can be told.

mod attributes;
mod child_handle;
mod child_table;
mod events;
mod exec_context;
mod notices;
mod requester;
mod server;
mod servers;
mod spawn;
mod stop_events;

pub(crate) use self::attributes::{SetupFor, SpawnAttributes, hand_over, preparing, setup, setup_of_worker};
pub(crate) use self::child_handle::{ChildHandle, DEATH_CHECK_INTERVAL, MAX_DEATH_TIME, not_dead_note};
pub(crate) use self::child_table::{OnStarted, SpawnedChild, StartRequest};
pub(crate) use self::events::{Supervisor, existing_supervisor, supervisor};
pub(crate) use self::stop_events::tell_of_stop;
