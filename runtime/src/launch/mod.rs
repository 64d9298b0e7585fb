//! What asks for processes: the fork server's client, the stock of spares, and the thread that hears of every end.
//!
//! Owns: everything this process knows of its children. Runs in: the parent. Meets `child` only in `link`. Never: pushes a
//! call to a child without holding its pidfd, so the fate of every call can be told.

mod asker;
mod context;
mod dress;
mod hub;
mod notices;
pub(crate) mod outcome;
mod record;
mod requests;
mod server;
mod servers;
mod starting;
mod stops;
mod values;

pub(crate) use self::context::{For, Options, hand_over, preparing, setup, setup_of_worker};
pub(crate) use self::hub::{Hub, existing_hub, hub};
pub(crate) use self::record::{DEATH_LOOK, LONGEST_DEATH, Record, not_dead_note};
pub(crate) use self::requests::{Child, How, Started};
pub(crate) use self::stops::tell_of_stop;
pub(crate) use self::values::{decode, encode};
