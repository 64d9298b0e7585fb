//! Handles beside a frame: descriptors on the control socket, sent before the frame, with its serial.
//!
//! Runs in: both ends of a link.
//! Invariant: nothing blocks, and no frame gets what was sent for another.
//!
//! A frame says how many handles are beside it. They come in messages of up to [`socket::MAX_DESCRIPTORS`], in order. What
//! was sent for a frame that was given up, or that died with its sender, has a lower serial than any frame that is read
//! after it, and is let go. A request with handles is given to an idle child only, and is never taken back, so that none
//! stay behind in its socket.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use crate::codec::handles::{Handles, Received};
use crate::error;
use crate::sys::{self, Errno, socket};

/// Sends the handles; `message` names the frame, and `again` says whether to go on trying when something fails. Returns what
/// the frame says of them.
///
/// # Errors
/// They cannot be sent, or not all: the reader will drop those that were.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    message: impl Fn() -> Vec<u8>,
    handles: &Handles,
    mut again: impl FnMut(Errno) -> bool,
) -> sys::Result<u16> {
    if !handles.is_empty() {
        let message = message();
        for some in handles.descriptors().chunks(socket::MAX_DESCRIPTORS) {
            while let Err(errno) = socket::send(socket, &message, some) {
                if !again(errno) {
                    return Err(errno);
                }
            }
        }
    }
    u16::try_from(handles.len()).map_err(|_| Errno::E2BIG)
}

/// Whether it may work a little later, when the other side has received what is under way: a user may not have more
/// descriptors in sockets than one process may have open.
pub(crate) fn is_temporary(errno: Errno) -> bool {
    matches!(errno, Errno::ETOOMANYREFS | Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM)
}

/// How long to go on trying, while others take what is there.
pub(crate) const FD_RETRY_TIME: Duration = Duration::from_secs(1);

/// As [`send`], for a caller that can wait: `remind` tells the other side that there is something to receive.
pub(super) fn send_patiently(
    socket: BorrowedFd<'_>,
    message: impl Fn() -> Vec<u8>,
    handles: &Handles,
    remind: impl Fn(),
) -> sys::Result<u16> {
    let deadline = Instant::now() + FD_RETRY_TIME;
    send(socket, message, handles, |errno| {
        let again = is_temporary(errno) && Instant::now() < deadline;
        if again {
            remind();
            thread::sleep(Duration::from_millis(1));
        }
        again
    })
}

/// So many messages are read from a socket in search of what was promised. There is no room for more in one, and a child
/// that goes on sending others must not keep its parent for ever.
pub(super) const MAX_PENDING_FDS: usize = 512;

/// The handles of a frame as they come in.
#[derive(Debug)]
pub(super) struct PendingFds {
    serial: u64,
    count: usize,
    came: Vec<OwnedFd>,
    /// How many messages were for this frame, and why one of them is gone.
    messages: usize,
    missed: Option<Errno>,
}

impl PendingFds {
    /// So many handles are to come for the frame of this serial.
    pub(super) fn new(serial: u64, count: u16) -> Self {
        Self { serial, count: usize::from(count), came: Vec::new(), messages: 0, missed: None }
    }

    /// Nothing more is to be expected. Where a message is gone, so that what came is of no use, those behind it are still
    /// taken: they would hold memory, and stand in others' way.
    pub(super) fn is_complete(&self) -> bool {
        self.came.len() >= self.count || self.is_lost()
    }

    /// A message is gone, and nothing more is to be expected.
    pub(super) fn is_lost(&self) -> bool {
        self.missed.is_some() && self.messages >= self.count.div_ceil(socket::MAX_DESCRIPTORS)
    }

    /// A message came that names the frame of this serial.
    pub(super) fn add(&mut self, serial: u64, descriptors: Vec<OwnedFd>) {
        if serial == self.serial {
            self.messages += 1;
            self.came.extend(descriptors);
        }
    }

    /// A message came that there was no room for.
    pub(super) fn miss(&mut self, why: Errno) {
        self.messages += 1;
        self.missed = Some(why);
        self.came.clear();
    }

    pub(super) fn received(self) -> Received {
        match self.missed {
            Some(why) => self.lost(why),
            None => Received::new(self.came),
        }
    }

    /// They cannot be received.
    pub(super) fn lost(&self, why: Errno) -> Received {
        Received::lost(self.count, error::why(why))
    }
}
