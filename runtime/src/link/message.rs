//! What parent, fork server and children say to each other beside calls.
//!
//! Runs in: the parent, the fork server and the child.
//! Invariant: a message fits into one packet, except [`Setup`], which is a payload.
//!
//! # Parent and fork server
//!
//! | # | parent | fork server |
//! |---|--------|-------------|
//! | 1 | [`ToServer::Hello`], with its own pidfd and the process table | |
//! | 2 | | [`FromServer::Ready`], with the server's pidfd |
//! | 3 | [`ToServer::Start`], with the child's end of a link, and a [`ExecSetup`] if it is to be executed | |
//! | 4 | | [`FromServer::Started`], with the child's pidfd, or [`FromServer::NotStarted`] |
//! | 5 | [`ToServer::Signal`], at any time | |
//! | 6 | | [`FromServer::Stopped`], [`FromServer::Continued`], each time |
//! | 7 | | [`FromServer::Ended`], once for each child that was started, after killing its group and reaping it |
//!
//! # Parent and child, on the link's control socket
//!
//! | # | parent | child |
//! |---|--------|-------|
//! | 1 | [`ToChild::Hello`], with request half, reply half and bell; sent before the child exists | |
//! | 2 | | [`FromChild::Mismatch`] or [`FromChild::NotExecuted`] if it cannot serve; then it ends |
//! | 3 | [`ToChild::ShmBuffer`], [`ToChild::Attached`], [`ToChild::Beside`], before the frame that names them | [`FromChild::ShmBuffer`], [`FromChild::Beside`] |

use std::ffi::OsString;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys::attributes::Attribute;
use crate::sys::process::RawStatus;
use crate::sys::rights::Capabilities;
use crate::sys::signal::Mask;

/// Begins every first message; anything else on an inherited descriptor is none of ours.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"proctask");

/// A child's number in its parent's books, never reused.
pub(crate) type ChildId = u64;

/// How a child is made.
///
/// # Examples
/// ```
/// use process_task::{ProcessBuilder, StartMethod, process_task};
///
/// #[process_task]
/// fn double(x: i32) -> i32 { 2 * x }
///
/// let process = ProcessBuilder::new().start_method(StartMethod::Exec).spawn(double, 21)?;
/// assert_eq!(process.join()?, 42);
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StartMethod {
    /// By a fork of the fork server, a small process that does nothing else: about 0.2 ms, or less when a spare is ready.
    #[default]
    ForkServer,
    /// By a fork of the fork server that then executes this program's binary again: about 1 ms, and the child shares no
    /// memory, not even copy-on-write, with any other process.
    Exec,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToServer {
    /// `server` and `parent` are their members.
    ///
    /// Of the capabilities that being executed gave to the server, it keeps those of `capabilities`. It goes to the root
    /// directory, unless it is to stay where it may not even go.
    Hello {
        magic: u64,
        fingerprint: u64,
        server: u32,
        parent: u32,
        capabilities: Option<Capabilities>,
        stay: bool,
    },
    Start {
        id: ChildId,
        method: StartMethod,
    },
    Signal {
        id: ChildId,
        signal: i32,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromServer {
    Ready {
        fingerprint: u64,
    },
    /// Instead of `Ready`: a preload panicked, and there will be no server. The text is short enough for a message.
    PreloadPanicked {
        text: String,
    },
    Started {
        id: ChildId,
        pid: u32,
        member: u32,
    },
    NotStarted {
        id: ChildId,
        step: String,
        errno: i32,
    },
    Ended {
        id: ChildId,
        status: RawStatus,
    },
    /// The server cannot begin to work, and ends.
    GaveUp {
        why: GaveUp,
        errno: i32,
    },
    /// `signal` has stopped it. `for_good` if that was because it read from a terminal in its background: then it is killed.
    Stopped {
        id: ChildId,
        signal: i32,
        for_good: bool,
    },
    Continued {
        id: ChildId,
    },
    /// The server found threads beside its own, and executes instead of forking from now on.
    NotAlone {
        of_constructors: Vec<String>,
        of_preloads: Vec<String>,
    },
}

/// Why a fork server never was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum GaveUp {
    /// The kernel gave it rights that its parent does not have, and such a program obeys no mark.
    MoreRights,
    /// A step of its own failed.
    Step,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToChild {
    Hello {
        magic: u64,
        fingerprint: u64,
    },
    ShmBuffer {
        slot: u8,
        id: u32,
    },
    /// Descriptors that a [`Setup`] asks for, in the order of its `attached`.
    Attached,
    /// Handles beside the frame of this serial; see [`super::ancillary`].
    Beside {
        serial: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromChild {
    Mismatch {
        fingerprint: u64,
    },
    /// The program could not be executed again: `step` failed.
    NotExecuted {
        step: String,
        errno: i32,
    },
    ShmBuffer {
        slot: u8,
        id: u32,
    },
    /// Handles beside the answer to the frame of this serial.
    Beside {
        serial: u64,
    },
}

/// What a descriptor that travels with a [`Setup`] becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Attached {
    Stdin,
    Stdout,
    Stderr,
    Directory,
}

/// What a child that is executed has from the start, so that the loader, the C library and constructors find it. It lies in a
/// memory of its own beside [`ToServer::Start`], followed by the descriptors of `attached`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ExecSetup {
    /// All variables.
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) attached: Vec<Attached>,
}

/// What a child is to become before it runs anything: the state of the parent when it asked, and what was asked for.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// What the process is called, in errors and in `top`.
    pub(crate) name: String,
    /// If it ends after its first call: how long it may take to exit then.
    pub(crate) once: Option<Duration>,
    /// The id and the name of the process that asked.
    pub(crate) parent: (u32, String),
    /// See [`Identity::depth`](crate::sys::identity::Identity::depth).
    pub(crate) depth: u32,
    /// Variables to set, relative to the fork server's environment, or to none after `clear_env`.
    pub(crate) set_env: Vec<(OsString, OsString)>,
    /// Variables to remove.
    pub(crate) remove_env: Vec<OsString>,
    pub(crate) clear_env: bool,
    /// Places and values of limits that differ from the fork server's.
    pub(crate) limits: Vec<(usize, (u64, u64))>,
    pub(crate) niceness: Option<i32>,
    /// Those that differ from the fork server's.
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) cpus: Option<Vec<usize>>,
    pub(crate) mask: Mask,
    /// Whether it ignores the signals that ask to end.
    pub(crate) ignores_termination: bool,
    /// More private memory than this, in bytes, is too much for a worker.
    pub(crate) most_memory: Option<u64>,
    /// Whether its stdin is the terminal: it joins its parent's process group, to read as its parent can.
    pub(crate) shares_group: bool,
    pub(crate) attached: Vec<Attached>,
}

/// A panic, as the child saw it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct PanicReport {
    pub(crate) message: String,
    pub(crate) location: Option<String>,
    pub(crate) backtrace: Option<String>,
}

/// Why a child could not become what a [`Setup`] asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetupRefusal {
    pub(crate) step: String,
    pub(crate) errno: i32,
}
