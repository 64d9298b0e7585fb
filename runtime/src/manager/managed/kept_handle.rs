//! A handle of a value that a manager keeps, of whatever kind.
//!
//! Runs in: the manager, and clients, on the way of a value to its decoding.
//!
//! A proxy that is kept in the manager of its own object names the manager's memory and queue. The manager has these already, and
//! so keeps no descriptors of them: only the ticket's is left.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::codec::handles::Handle;
use crate::manager::server::Server;

/// See the [module](self).
#[derive(Debug)]
pub(super) enum KeptHandle {
    /// A descriptor that came. A process that decodes the value makes the handle of it.
    Came(OwnedFd),
    /// What this process has itself.
    Own(Arc<dyn Handle>),
}

impl KeptHandle {
    /// What is to be kept for a descriptor that came.
    pub(super) fn of(descriptor: OwnedFd) -> Arc<Self> {
        let own = Server::own().and_then(|server| server.own_handle(descriptor.as_fd()));
        Arc::new(own.map_or(Self::Came(descriptor), Self::Own))
    }

    /// The handle itself: each value has the same one, so that a message with many of them has it once.
    pub(super) fn shared(self: Arc<Self>) -> Arc<dyn Handle> {
        match &*self {
            Self::Came(_) => self,
            Self::Own(own) => Arc::clone(own),
        }
    }
}

impl Handle for KeptHandle {
    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Came(descriptor) => descriptor.as_fd(),
            Self::Own(own) => own.descriptor(),
        }
    }

    fn is_cacheable(&self) -> bool {
        false
    }

    /// What came may be an end, or hold an object: no forgotten copy may stay.
    fn is_end(&self) -> bool {
        matches!(self, Self::Came(_))
    }
}
