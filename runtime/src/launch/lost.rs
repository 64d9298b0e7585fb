//! The program has closed descriptors that it did not open, those of the hub among them: everything ends with an error.
//!
//! Owns: the order in which that is told. Runs in: the parent, on the hub's thread, as the last that it does.
//! Never: uses a number of ours any more, which may be another file's by now; see [`held`].

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::hub::Hub;
use super::notices;
use crate::error::Error;
use crate::shared::members;
use crate::sys::{Errno, held, signal};

/// How long the fork server may take to end its children once our end of its socket is closed. It takes milliseconds.
const LONGEST_END: Duration = Duration::from_secs(2);

/// How often to look which processes live: no descriptor is left that would tell.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What every use gets from now on.
pub(super) fn error() -> Error {
    let step = "reach the processes that were started: this program has closed descriptors that it did not open (close_range, or a \
                loop over all numbers), which has to be done before the first process is started";
    Error::could_not_start(step, Errno::EBADF)
}

/// Why a pool is closed.
pub(crate) const REASON: &str =
    "this program has closed descriptors that it did not open, those of the pool among them";

impl Hub {
    /// Ends all that this hub knows of.
    pub(super) fn lose(self: &Arc<Self>) {
        held::lose();
        notices::lost_descriptors();
        let starting = std::mem::take(&mut self.books().starting);
        for request in starting {
            (request.started)(Err(error()));
        }
        let sources: Vec<_> = self.sources.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for source in sources.iter().cloned() {
            source.lost();
        }
        // The fork server has seen the end of its socket. It kills every child, and says in shared memory that each has ended.
        let children: Vec<_> = self.books().children.values().cloned().collect();
        let deadline = Instant::now() + LONGEST_END;
        while children.iter().any(|child| members::lives(child.member)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN);
        }
        for child in &children {
            child.ended(signal::KILL);
        }
        for source in sources {
            source.rang();
        }
    }
}
