//! The ends of ipc-channel's channels, on their way to processes that are tasks of ours: its own way of meeting another
//! process, by the name of a server that one client connects to.
//!
//! Runs in: the parent, which hands over; [`take_over`] in the child. Never: measures; the side that hands over does.

use ipc_channel::ipc::{IpcOneShotServer, IpcSender, channel};
use process_task::Process;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Outcome;

/// Starts a process with the name where it can [take over](take_over) `ends`, and gives them to it.
pub(crate) fn hand_over<E, R>(
    ends: E,
    start: impl FnOnce(String) -> process_task::Result<Process<R>>,
) -> Outcome<Process<R>>
where
    E: Serialize + DeserializeOwned,
{
    let (server, name) = IpcOneShotServer::<IpcSender<E>>::new()?;
    let process = start(name)?;
    let (_, to_it) = server.accept()?;
    to_it.send(ends)?;
    Ok(process)
}

/// What the process that started this one hands over.
pub(crate) fn take_over<E: Serialize + DeserializeOwned>(name: String) -> E {
    let (to_us, ends) = channel().expect("there is room for two descriptors");
    IpcSender::connect(name).and_then(|server| server.send(to_us).map_err(std::io::Error::other)).expect("a server");
    ends.recv().expect("the server's process has the other end")
}
