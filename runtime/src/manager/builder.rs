//! Describes how a manager is started, and starts it.

use super::owner::Manager;
use crate::error::Result;

/// Options for a manager.
#[derive(Debug, Default)]
pub struct ManagerBuilder {}

impl ManagerBuilder {
    /// Starts the manager.
    ///
    /// # Errors
    /// The process could not be started.
    pub fn start(self) -> Result<Manager> {
        unimplemented!()
    }
}
