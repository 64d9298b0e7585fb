//! What this process is, if it is a child: its name, and the process that asked for it.
//!
//! Owns: that knowledge. Runs in: any process; it is set in processes that we started only. Never: changes once set.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// What a child knows of itself.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    /// The id and the name of the process that asked for this one.
    pub(crate) parent: (u32, String),
    /// How many processes of ours stand between this one and a program that was started otherwise, and this one itself.
    pub(crate) depth: u32,
    /// Whether it ignores the signals that ask to end, as then do those that it starts.
    pub(crate) ignores_termination: bool,
}

/// How deep processes may start processes. A task that always starts another one would not end otherwise.
pub(crate) const DEEPEST: u32 = 10;

static IDENTITY: OnceLock<Identity> = OnceLock::new();

/// What a process of ours is before it is a child that was asked for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unready {
    /// A fork server, which runs preloads and the program's constructors.
    Server = 1,
    /// A new child, which runs the program's constructors.
    Child,
}

static UNREADY: AtomicU8 = AtomicU8::new(0);

/// From now on, until [`set`], this process is no place to start processes from.
///
/// Runs in: a process that was executed by us, before any code of the user's. A copy of it is the same until its setup.
pub(crate) fn set_unready(what: Unready) {
    UNREADY.store(what as u8, Relaxed);
}

/// What this process is if no process may be started from it. Every process started from here would run the same code,
/// which would start another one, without end.
pub(crate) fn unready() -> Option<Unready> {
    let known = UNREADY.load(Relaxed);
    [Unready::Server, Unready::Child].into_iter().find(|what| *what as u8 == known)
}

/// Set once, by the setup of a child.
pub(crate) fn set(identity: Identity) {
    let _ = IDENTITY.set(identity);
    UNREADY.store(0, Relaxed);
}

/// How deep this process is: 0 if it was not started by us.
pub(crate) fn depth() -> u32 {
    get().map_or(0, |own| own.depth)
}

/// `None` in a process that we did not start.
pub(crate) fn get() -> Option<&'static Identity> {
    IDENTITY.get()
}
