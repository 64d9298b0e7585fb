//! The boot mark: how a process that was made by executing the program again learns what it is.
//!
//! Runs in: the process that executes the program, which sets this environment variable, and the new process, which reads it
//! before `main`.
//! Invariant: the variable means nothing alone. The new process first looks whether our greeting waits on the descriptor that it
//! names, without taking either: the variable may come from elsewhere, and the descriptor may be the program's own.
//!
//! A program may contain this crate more than once: in two versions, or in one version from two sources. Each copy has a
//! constructor that looks for the mark, and leaves alone what is for another copy. Two versions use different variables. Two
//! copies of one version are told apart by the place of their constructor in `.init_array`, which is the same in each process
//! of a binary.

use std::fmt;

use super::message::MAGIC;

/// The environment variable: `server:2:7`, with the place of the constructor that is to read it and the number of the socket;
/// or `child:2:7:4127:9:81921:10`, with its maker's process id, the descriptor of the process table, its own member, and the
/// descriptor that has its group killed with its maker, if it has one, too.
pub(crate) const BOOT_ENV: &str = concat!(
    "PROCESS_TASK_BOOT_",
    env!("CARGO_PKG_VERSION_MAJOR"),
    "_",
    env!("CARGO_PKG_VERSION_MINOR"),
    "_",
    env!("CARGO_PKG_VERSION_PATCH")
);

/// What a marked process is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BootRole {
    Server,
    Child { maker: i32, table: i32, member: u32, hangup: Option<i32> },
}

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BootEnv {
    pub(crate) role: BootRole,
    /// Where the constructor stands that is to read the mark: [`constructor_index`](crate::sys::init::constructor_index).
    pub(crate) place: usize,
    /// The number of the process's socket.
    pub(crate) socket: i32,
}

impl fmt::Display for BootEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, place, socket } = self;
        match role {
            BootRole::Server => write!(f, "server:{place}:{socket}"),
            BootRole::Child { maker, table, member, hangup } => {
                write!(f, "child:{place}:{socket}:{maker}:{table}:{member}")?;
                hangup.map_or(Ok(()), |number| write!(f, ":{number}"))
            }
        }
    }
}

impl BootEnv {
    /// Reads what `Display` wrote.
    pub(crate) fn parse(mark: &str) -> Option<Self> {
        let mut parts = mark.split(':');
        let role = parts.next()?;
        let place = parts.next()?.parse().ok()?;
        let socket = parts.next()?.parse().ok()?;
        let role = match role {
            "server" => BootRole::Server,
            "child" => BootRole::Child {
                maker: parts.next()?.parse().ok()?,
                table: parts.next()?.parse().ok()?,
                member: parts.next()?.parse().ok()?,
                hangup: parts.next().map(str::parse).transpose().ok()?,
            },
            _ => return None,
        };
        parts.next().is_none().then_some(Self { role, place, socket })
    }
}

/// Whether `message` was sent by the process that set the mark.
///
/// Only the magic number is looked for: if anything else in the message is not as expected, the process must say so, and not
/// come to `main`.
pub(crate) fn is_greeting(message: &[u8]) -> bool {
    let magic = MAGIC.to_le_bytes();
    message.windows(magic.len()).any(|bytes| bytes == magic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::message::to_bytes;
    use crate::link::message::{ToChild, ToServer};

    #[test]
    fn only_whole_marks_are_read() {
        let child = |hangup| BootRole::Child { maker: 99, table: 8, member: 1 << 14, hangup };
        for role in [BootRole::Server, child(None), child(Some(9))] {
            let mark = BootEnv { role, place: 2, socket: 7 };
            assert_eq!(BootEnv::parse(&mark.to_string()), Some(mark));
        }
        let bad = ["", "server", "server:", "server:2", "server:2:x", "server:2:7:1", "server:-1:7", "other:2:7"];
        for bad in bad.into_iter().chain(["child:2:7", "child:2:7:1", "child:2:7:1:2:3:x", "child:2:7:1:2:3:4:5"]) {
            assert_eq!(BootEnv::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_our_own_greetings_are_believed() {
        let greeting = ToServer::Hello {
            magic: MAGIC,
            fingerprint: 5,
            server: 1 << 14,
            parent: 1 << 15,
            capabilities: None,
            stay: false,
        };
        assert!(is_greeting(&to_bytes(&greeting)));
        assert!(is_greeting(&to_bytes(&ToChild::Hello { magic: MAGIC, fingerprint: u64::MAX })));
        let strangers = to_bytes(&ToChild::Hello { magic: MAGIC ^ 1, fingerprint: 5 });
        for message in [&strangers[..], b"", b"for another program"] {
            assert!(!is_greeting(message));
        }
    }
}
