//! Which clients something that is waited for hears of.
//!
//! Runs in: the manager.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, Weak};

use crate::manager::deferred::{self, ClientBound};
use crate::sys::mutex::MutexExt as _;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Registrations(Mutex<HashSet<u32>>);

impl Registrations {
    /// Has `waitable` hear of that client, if it does not yet.
    pub(crate) fn add<W: ClientBound + 'static>(&self, client: u32, waitable: &Arc<W>) {
        // Another call of the client must not go on before the client's end would be told.
        let mut clients = self.0.lock_unpoisoned();
        if clients.insert(client) {
            let waitable: Weak<W> = Arc::downgrade(waitable);
            deferred::register(client, waitable);
        }
    }

    /// The client is gone. Its number does not come back.
    pub(crate) fn remove(&self, client: u32) {
        self.0.lock_unpoisoned().remove(&client);
    }
}
