//! Who this process is, if it is a child: its name, and who asked for it.
//!
//! Owns: that knowledge. Runs in: any process; it is set in children only. Never: changes once set.

use std::sync::OnceLock;

/// What a child knows of itself.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    /// The id and the name of the process that asked for this one.
    pub(crate) parent: (u32, String),
}

static IDENTITY: OnceLock<Identity> = OnceLock::new();

/// Set once, by the setup of a child.
pub(crate) fn set(identity: Identity) {
    let _ = IDENTITY.set(identity);
}

/// `None` in a process that we did not start.
pub(crate) fn get() -> Option<&'static Identity> {
    IDENTITY.get()
}
