//! [`Manager`]: a process that holds objects.

use super::builder::ManagerBuilder;
use super::handle::ManagerHandle;
use crate::error::Result;

/// A process that holds objects.
#[derive(Debug)]
pub struct Manager {
    handle: ManagerHandle,
}

impl Manager {
    /// Starts a manager.
    ///
    /// # Errors
    /// The process could not be started.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// Options for a manager.
    pub fn builder() -> ManagerBuilder {
        ManagerBuilder::default()
    }
}

impl AsRef<ManagerHandle> for Manager {
    fn as_ref(&self) -> &ManagerHandle {
        &self.handle
    }
}
