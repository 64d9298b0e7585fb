//! The endpoints of a queue: two sockets, one for all producers and one for all consumers.
//!
//! Owns: how it is known that no end is left at the other side, and how handles go with items. Runs in: any process that
//! has an end of the queue. Never: carries an item; those are in memory.
//!
//! Every producer, in every process, has a descriptor of the one end of a socket pair, and every consumer one of the other.
//! So it is the kernel that counts them, also those that are on their way to a process, and also when one is killed: an end
//! reports a hang-up when no process has the other.
//!
//! A future that awaits an item without keeping a thread watches its end, and asks to be told by a message of number 0.
//!
//! The handles of an item are a message on that socket, which begins with its number, sent before the item is put and under the
//! same lock. So the messages come in the order of the items; one that belongs to no item, because its producer was killed
//! before it had put it, has a lower number than the next that is looked for, and is dropped then.
//!
//! Why a packet with handles is looked at before it is taken, and the item is taken in between: a consumer that is
//! killed before has taken neither. One that is killed after leaves a message whose number no consumer looks for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::atomic::Ordering::Release;
use super::event_count::ALL;
use super::memory::QueueMemory;
use crate::codec::handles::{Handle, Handles, Received};
use crate::sys::{Errno, Result, poll, socket};

/// Number of handles that one item may have.
pub(super) const MAX_HANDLES: usize = socket::MAX_DESCRIPTORS;

/// How long a process that drops an endpoint waits for a lock. Without it, the threads to wake look by themselves a little
/// later.
const ROOM_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// What is done at an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EndKind {
    Puts,
    Gets,
}

/// An end, as this process has it.
#[derive(Debug)]
pub(super) struct Endpoint {
    // In this order: a process that is told finds the socket closed.
    socket: OwnedFd,
    tells: Tells,
}

/// Tells the processes at the other side that they should look which ends are left.
#[derive(Debug)]
struct Tells {
    side: EndKind,
    memory: Arc<QueueMemory>,
}

impl Drop for Tells {
    fn drop(&mut self) {
        let deadline = Some(Instant::now() + ROOM_CHECK_INTERVAL);
        let inside = match self.side {
            EndKind::Puts => self.memory.putting(deadline),
            EndKind::Gets => {
                self.memory.words().dropped.fetch_add(1, Release);
                self.memory.getting(deadline)
            }
        };
        if let Some(mut inside) = inside {
            inside.call(ALL);
        }
    }
}

impl Endpoint {
    /// Both ends of a queue.
    pub(super) fn pair(memory: &Arc<QueueMemory>) -> Result<(Arc<Self>, Arc<Self>)> {
        let (puts, gets) = socket::pair()?;
        let end = |socket, side| Arc::new(Self::of(socket, side, memory));
        Ok((end(puts, EndKind::Puts), end(gets, EndKind::Gets)))
    }

    /// Makes an end of a descriptor that came from another process.
    pub(super) fn of(socket: OwnedFd, side: EndKind, memory: &Arc<QueueMemory>) -> Self {
        Self { socket, tells: Tells { side, memory: Arc::clone(memory) } }
    }

    pub(super) fn side(&self) -> EndKind {
        self.tells.side
    }

    pub(super) fn memory(&self) -> &Arc<QueueMemory> {
        &self.tells.memory
    }

    /// Whether no end is left at the other side.
    pub(super) fn is_alone(&self) -> bool {
        poll::is_hung_up(self.socket.as_fd())
    }

    /// Sends what is beside an item. Under `put.lock`.
    ///
    /// # Errors
    /// `EAGAIN` if consumers must first take some.
    pub(super) fn send(&self, number: u64, handles: &Handles) -> Result<()> {
        socket::send(self.socket.as_fd(), &number.to_ne_bytes(), &handles.descriptors())
    }

    /// Tells the watchers of the other end that there is an item, by a message that belongs to none. Under `put.lock`.
    pub(super) fn ring(&self) {
        // One for which there is no room is not needed: others are there.
        let _ = socket::send(self.socket.as_fd(), &0u64.to_ne_bytes(), &[]);
    }

    /// What is beside the item with that message number; it stays there. Under `get.lock`.
    ///
    /// # Errors
    /// `EMFILE` if this process has no room for them; `EAGAIN` or `EPROTO` if they are not there.
    pub(super) fn look(&self, number: u64) -> Result<Received> {
        loop {
            let (bytes, descriptors) = socket::look(self.socket.as_fd())?;
            match number_of(&bytes) {
                Some(older) if older < number => drop(socket::receive(self.socket.as_fd())),
                Some(this) if this == number => return Ok(Received::new(descriptors)),
                _ => return Err(Errno::EPROTO),
            }
        }
    }

    /// Whether a message waits.
    pub(super) fn has_message(&self) -> bool {
        socket::peek(self.socket.as_fd()).is_ok_and(|bytes| !bytes.is_empty())
    }

    /// Drops the messages up to that number. Under `get.lock`.
    pub(super) fn forget(&self, number: u64) {
        while let Ok(bytes) = socket::peek(self.socket.as_fd())
            && number_of(&bytes).is_none_or(|this| this <= number)
            && !bytes.is_empty()
        {
            // What there is no room for is gone as well.
            let _ = socket::receive(self.socket.as_fd());
        }
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn number_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.first_chunk()?))
}

impl Handle for Endpoint {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn is_cacheable(&self) -> bool {
        false
    }

    fn is_end(&self) -> bool {
        true
    }
}
