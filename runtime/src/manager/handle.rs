//! [`ManagerHandle`]: the way to a manager, which any process may have.

use serde::{Deserialize, Serialize};

/// The way to a manager.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ManagerHandle {}

impl AsRef<ManagerHandle> for ManagerHandle {
    fn as_ref(&self) -> &ManagerHandle {
        self
    }
}
