//! Runs preloads, and tells the parent if one of them panics.
//!
//! Runs in: the fork server, before it serves.
//!
//! In a program that aborts on panics nothing returns from a preload that panics, so the panic hook tells the parent.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use crate::call::panics;
use crate::codec::message::to_bytes;
use crate::link::message::FromServer;
use crate::sys::{fd, socket};
use crate::task::preloads;

/// The descriptor of the parent's socket while preloads run in a program that aborts on panics; -1 otherwise.
static SOCKET: AtomicI32 = AtomicI32::new(-1);

/// Runs every preload. Returns false if one of them panicked, and the parent was told.
pub(super) fn run_preloads(parent: BorrowedFd<'_>) -> bool {
    if cfg!(panic = "abort") {
        SOCKET.store(parent.as_raw_fd(), Relaxed);
        panics::set_abort_hook(Some(tell_while_aborting));
    }
    let outcome = panics::catch(|| preloads().for_each(|preload| preload()));
    panics::set_abort_hook(None);
    SOCKET.store(-1, Relaxed);
    if let Err(panic) = &outcome {
        tell(parent, panic);
    }
    outcome.is_ok()
}

fn tell_while_aborting(panic: &str) {
    if let Some(parent) = fd::from_number(SOCKET.load(Relaxed)) {
        tell(parent, panic);
    }
}

/// Tells the parent why there will be no fork server.
fn tell(parent: BorrowedFd<'_>, panic: &str) {
    // A message has a bound, which leaves room for the rest of it.
    let text = panic[..panic.floor_char_boundary(socket::MAX_MESSAGE / 2)].to_owned();
    let _ = socket::send(parent, &to_bytes(&FromServer::PreloadPanicked { text }), &[]);
}
