//! Children and peers that attack: what they write, send, withhold.
//!
//! Runs in: the test process, and the processes that it starts. One test at a time, between two censuses.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod connections;
mod handles;
mod links;
mod sockets;
mod sockets_frames;
mod sockets_local;
mod sockets_silent;
mod workers;
