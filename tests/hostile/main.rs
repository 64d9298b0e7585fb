//! Children and peers that attack: what they write, send, withhold.
//!
//! Runs in: for each test a process of its own, between two censuses, and the processes that this one starts.

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
