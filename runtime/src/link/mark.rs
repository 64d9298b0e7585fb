//! The mark: how a process that was made by executing the program again learns what it is.
//!
//! Owns: the mark, an environment variable that names an inherited descriptor. Runs in: whoever executes the program, which
//! sets it, and the new process, which reads it before `main`.
//! Never: means anything alone. Whoever may be meant first looks whether our greeting waits on that descriptor, without
//! taking either: a stranger may have set the variable, and the descriptor may be the program's own.

use super::message::MAGIC;

/// The environment variable: `server:7`, or `child:7:4127:9:81921` with its maker's process id, the descriptor of the table
/// of members, and its own member.
pub(crate) const MARK: &str = "PROCESS_TASK_BOOT";

/// What a marked process is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Child { maker: i32, table: i32, member: u32 },
}

impl Role {
    /// The mark of a process of this role whose socket has this number.
    pub(crate) fn mark(self, socket: i32) -> String {
        match self {
            Self::Server => format!("server:{socket}"),
            Self::Child { maker, table, member } => format!("child:{socket}:{maker}:{table}:{member}"),
        }
    }

    /// What a mark says: the role, and the number of the socket.
    pub(crate) fn parse(mark: &str) -> Option<(Self, i32)> {
        let mut parts = mark.split(':');
        let role = parts.next()?;
        let socket = parts.next()?.parse().ok()?;
        let role = match role {
            "server" => Self::Server,
            "child" => Self::Child {
                maker: parts.next()?.parse().ok()?,
                table: parts.next()?.parse().ok()?,
                member: parts.next()?.parse().ok()?,
            },
            _ => return None,
        };
        parts.next().is_none().then_some((role, socket))
    }
}

/// Whether `message` was sent by whoever set the mark.
///
/// Only the magic number is looked for: what else is in the message may differ between versions of this crate, and another
/// version's child must say so, and not come to `main`.
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
        for role in [Role::Server, Role::Child { maker: 99, table: 8, member: 1 << 14 }] {
            assert_eq!(Role::parse(&role.mark(7)), Some((role, 7)));
        }
        for bad in
            ["", "server", "server:", "server:x", "server:7:1", "child:7", "child:7:1", "child:7:1:2:3:4", "other:7"]
        {
            assert_eq!(Role::parse(bad), None, "{bad}");
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
        for message in [&strangers[..], b"", b"for somebody else"] {
            assert!(!is_greeting(message));
        }
    }
}
