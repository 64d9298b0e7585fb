//! The task that a manager's process runs.
//!
//! Runs in: the manager, on its main thread.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use serde::{Deserialize, Serialize};

use super::held::TravellingMemory;
use super::leader;
use super::remote::{self, ListenAt};
use super::server::Server;
use super::wire::{ClientRequest, ManagerId};
use crate::channel::{QueueReceiver, QueueSender};
use crate::process_task;
use crate::shared::proc_table;
use crate::sync::futex_wait;
use crate::sys::limits;

/// What a manager is made of.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Parts {
    pub(super) id: ManagerId,
    pub(super) name: String,
    pub(super) shared: TravellingMemory,
    pub(super) receiver: QueueReceiver<ClientRequest>,
    pub(super) sender: QueueSender<ClientRequest>,
    pub(super) listen: Vec<ListenAt>,
}

/// Is a manager until it is told to end. Says why it could not become one.
#[process_task]
pub(super) fn serve(parts: Parts) -> Result<(), String> {
    let Parts { id, name, shared, receiver, sender, listen } = parts;
    let shared = shared.0;
    // Each message on its way with a proxy in it takes a descriptor here.
    let (_, most) = limits::current()[limits::OPEN_FILES];
    let _ = limits::set(limits::OPEN_FILES, (most, most));
    let server = Server::new((id, name), Arc::clone(&shared), (receiver, sender));
    let server = Arc::new(server.map_err(|errno| format!("make an epoll set: {}", errno.desc()))?);
    Server::become_own(&server);
    leader::start(&server).map_err(|error| format!("start a thread: {error}"))?;
    let addresses = remote::listen(&server, &listen)?;
    let _ = server.addresses.set(addresses);
    let words = shared.words();
    words.pid.store(std::process::id(), Relaxed);
    words.process.store(proc_table::current().bits(), Relaxed);
    words.serves.store(1, Release);
    futex_wait::wake_all(&words.serves);
    server.wait_for_end();
    Ok(())
}
