//! Before `main`: is this process a program that somebody started, or one of ours?
//!
//! Owns: the mark, an environment variable that names an inherited descriptor. Runs in: every process, once.
//! Never: takes a process over without a valid handshake on that descriptor; the mark alone means nothing.
//!
//! The mark is removed at once, so that grandchildren do not see it, and is not looked at in a program that runs with
//! more rights than its caller (`AT_SECURE`). A child first runs the constructors that would have followed ours, because
//! some of them register tasks.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::{panics, serve, server};
use crate::link::Callee;
use crate::sys::{self, Errno, process};
use crate::task::fingerprint;

/// The environment variable that marks our processes: `server:7`, or `child:7:4127` with its maker's process id.
pub(crate) const MARK: &str = "PROCESS_TASK_BOOT";

sys::init::before_main!(boot);

/// Looks for the mark; in a program that has none, returns after keeping a descriptor of its image.
fn boot() {
    // Kept from the very start: later, the name may lead elsewhere.
    let image = sys::image::keep().ok().map(|image| image.as_raw_fd());
    if std::env::var_os(MARK).is_none() || sys::env::is_privileged() {
        return;
    }
    let mark = std::env::var(MARK).unwrap_or_default();
    sys::env::remove(MARK.as_ref());
    let Some((role, socket)) = parse(&mark) else { return };
    let Some(socket) = sys::fd::inherited(socket) else { return };
    if !sys::socket::has_message(socket.as_fd()) {
        return;
    }
    sys::fd::open_null_on_closed_stdio();
    let keep: Vec<_> = image.into_iter().chain([socket.as_raw_fd()]).collect();
    sys::fd::close_all_but(&keep);
    sys::init::run_the_rest();
    sys::crash::install();
    panics::listen();
    match role {
        Role::Server => give_up("the fork server", server::run(socket)),
        Role::Child { maker } => {
            sys::process::lead_group(process::pid(0));
            if !process::die_with_parent(process::pid(maker)) {
                process::exit_now(0);
            }
            give_up("a child", become_child(socket))
        }
    }
}

/// Serves on `control` until the parent closes the link. Returns only why it could not begin.
///
/// Runs in: a child, on its only thread.
pub(super) fn become_child(control: OwnedFd) -> Errno {
    sys::signal::restore_dispositions();
    sys::signal::set_mask(0);
    match Callee::open(control, fingerprint()) {
        Ok(callee) => serve::serve(callee),
        Err(errno) => errno,
    }
}

/// A process of ours must not go on to `main`: it would run the whole program again.
fn give_up(who: &str, why: Errno) -> ! {
    // The parent was told of a mismatch already.
    if why != Errno::EXDEV {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "process-task: {who} could not begin to work: {}", why.desc());
    }
    process::exit_now(1)
}

#[derive(Debug, PartialEq, Eq)]
enum Role {
    Server,
    Child { maker: i32 },
}

fn parse(mark: &str) -> Option<(Role, i32)> {
    let mut parts = mark.split(':');
    let role = parts.next()?;
    let socket = parts.next()?.parse().ok()?;
    let role = match role {
        "server" => Role::Server,
        "child" => Role::Child { maker: parts.next()?.parse().ok()? },
        _ => return None,
    };
    parts.next().is_none().then_some((role, socket))
}

/// The mark of the fork server whose socket has this number.
pub(crate) fn server_mark(socket: i32) -> String {
    format!("server:{socket}")
}

/// The mark of a child that executes the image again.
pub(super) fn child_mark(socket: i32, maker: i32) -> String {
    format!("child:{socket}:{maker}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_marks_are_read() {
        assert_eq!(parse(&server_mark(7)), Some((Role::Server, 7)));
        assert_eq!(parse(&child_mark(7, 99)), Some((Role::Child { maker: 99 }, 7)));
        for bad in ["", "server", "server:", "server:x", "child:7", "child:7:1:2", "other:7"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
