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
    /// How many processes of ours stand between this one and a program that somebody else started, and it itself.
    pub(crate) depth: u32,
}

/// How deep processes may start processes. A task that always starts another one would not end otherwise.
pub(crate) const DEEPEST: u32 = 10;

static IDENTITY: OnceLock<Identity> = OnceLock::new();

/// Set once, by the setup of a child.
pub(crate) fn set(identity: Identity) {
    let _ = IDENTITY.set(identity);
}

/// How deep this process is: 0 if it was not started by us.
pub(crate) fn depth() -> u32 {
    get().map_or(0, |own| own.depth)
}

/// `None` in a process that we did not start.
pub(crate) fn get() -> Option<&'static Identity> {
    IDENTITY.get()
}
