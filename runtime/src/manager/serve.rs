//! The task that a manager's process runs.
//!
//! Runs in: the manager, on its main thread.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use serde::{Deserialize, Serialize};

use super::connection_limits::ConnectionLimits;
use super::held::TravellingMemory;
use super::initializer::{FirstCall, StartFailure};
use super::leader;
use super::memory::ManagerMemory;
use super::remote::{self, ListenAt};
use super::server::{END_REQUEST, Server};
use super::wire::{ClientRequest, ManagerId};
use crate::channel::{QueueReceiver, QueueSender};
use crate::process_task;
use crate::shared::proc_table;
use crate::sync::futex_wait;
use crate::sys::limits;
use crate::sys::poll::Trigger;
use crate::sys::signal::{self, EndRequests};

/// What a manager is made of.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Parts {
    pub(super) id: ManagerId,
    pub(super) name: String,
    pub(super) shared: TravellingMemory,
    pub(super) receiver: QueueReceiver<ClientRequest>,
    pub(super) sender: QueueSender<ClientRequest>,
    pub(super) listen: Vec<ListenAt>,
    pub(super) initializer: Option<FirstCall>,
    pub(super) limits: ConnectionLimits,
}

/// Is a manager until it is told to end, or is sent SIGTERM. Says why it could not become one.
#[process_task]
pub(super) fn serve(parts: Parts) -> Result<(), StartFailure> {
    let Parts { id, name, shared, receiver, sender, listen, initializer, limits } = parts;
    let shared = shared.0;
    if let Some(initializer) = initializer {
        set_phase(&shared, INITIALIZES);
        initializer.run()?;
        set_phase(&shared, BEGINS);
    }
    // Each message on its way with a proxy in it takes a descriptor here.
    let (_, most) = limits::current()[limits::OPEN_FILES];
    let _ = limits::set(limits::OPEN_FILES, (most, most));
    let server = Server::new((id, name), Arc::clone(&shared), (receiver, sender), limits);
    let server = server.map_err(|errno| StartFailure::Step(format!("make an epoll set: {}", errno.desc())))?;
    let server = Arc::new(server);
    Server::become_own(&server);
    leader::start(&server).map_err(|error| StartFailure::Step(format!("start a thread: {error}")))?;
    // Where it cannot be watched for, such a signal ends this process as it ends any.
    let requests = EndRequests::of(&[signal::TERM]).ok();
    let is_watched = |fd: BorrowedFd<'_>| server.watched.add(fd, END_REQUEST, Trigger::OneShot).is_ok();
    let _requests = requests.filter(|requests| is_watched(requests.as_fd()));
    let addresses = remote::listen(&server, &listen).map_err(StartFailure::Step)?;
    let _ = server.addresses.set(addresses);
    let words = shared.words();
    words.pid.store(std::process::id(), Relaxed);
    words.process.store(proc_table::current().bits(), Relaxed);
    set_phase(&shared, SERVES);
    leader::watch(&server);
    Ok(())
}

/// The manager sets itself up.
const BEGINS: u32 = 0;

/// The manager runs its initializer.
pub(super) const INITIALIZES: u32 = 1;

/// The manager takes calls.
pub(super) const SERVES: u32 = 2;

/// Says how far the manager is, to the thread that starts it.
fn set_phase(shared: &ManagerMemory, phase: u32) {
    let word = &shared.words().phase;
    word.store(phase, Release);
    futex_wait::wake_all(word);
}
