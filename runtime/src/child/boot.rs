//! Before `main`: decides whether this process is a program that a user started, or one of ours.
//!
//! Runs in: every process, once.
//! Invariant: the environment variable alone decides nothing, and makes no descriptor be touched; see [`boot_env`].
//!
//! The mark is removed at once, so that grandchildren do not see it. It is left for a later constructor only if it is for another
//! copy of this crate in the program. A program that gets more rights than its caller by being executed obeys no mark: it goes
//! on, or ends if the greeting is there, and says why. A child first runs the constructors that would have followed ours,
//! because some of them register tasks.

use std::os::fd::{OwnedFd, RawFd};

use super::{serve, server};
use crate::call::panics;
use crate::codec::message::to_bytes;
use crate::link::Callee;
use crate::link::boot_env::{self, BOOT_ENV, BootEnv, BootRole};
use crate::link::message::{FromServer, GaveUp};
use crate::shared::proc_table::{self, ProcId};
use crate::sys::hangup::ChildEnd;
use crate::sys::identity::{self, Unready};
use crate::sys::{self, Errno, process};
use crate::task::fingerprint;

sys::init::before_main!(boot);

/// Looks for the mark; in a program that has none, returns after keeping a descriptor of its image.
fn boot() {
    sys::env::note_loader();
    // Kept from the very start, also in a program that will start nothing: later, the file may be another one, or gone.
    let _ = sys::self_exe::keep();
    if std::env::var_os(BOOT_ENV).is_none() {
        return;
    }
    let mark = std::env::var(BOOT_ENV).ok().and_then(|mark| BootEnv::parse(&mark));
    let Some(BootEnv { role, place, socket: number }) = mark.filter(|mark| is_greeted(mark.socket)) else {
        sys::env::remove(BOOT_ENV.as_ref());
        return;
    };
    if place != sys::init::constructor_index() {
        // It is for another copy of this crate in the program. That one's constructor is still to come.
        return;
    }
    sys::env::remove(BOOT_ENV.as_ref());
    // From here on this process is ours, and must not come to `main`: it would run the whole program again.
    if has_more_rights_than_caller(number) {
        if role == BootRole::Server {
            tell_why(number, GaveUp::MoreRights, Errno::EPERM);
        }
        give_up("a process with more rights than its caller", Errno::EPERM);
    }
    let socket = match sys::fd::inherited(number) {
        Ok(socket) => socket,
        Err(errno) => give_up("a process", errno),
    };
    sys::fd::open_null_on_closed_stdio();
    sys::membarrier::register_if_alone();
    if let BootRole::Child { table, member, hangup, .. } = role {
        if let Err(errno) = take_over(table, member) {
            give_up("a child", errno);
        }
        // Without it this process only loses what `hangup` is for.
        let hangup = hangup.and_then(|number| sys::fd::inherited(number).ok());
        hangup.map(ChildEnd::inherited).into_iter().for_each(ChildEnd::keep);
    }
    identity::set_unready(if role == BootRole::Server { Unready::Server } else { Unready::Child });
    sys::init::run_remaining_constructors();
    sys::crash::install();
    panics::install_hook();
    match role {
        BootRole::Server => give_up("the fork server", server::run(socket)),
        BootRole::Child { maker, .. } => {
            sys::process::lead_group(process::pid(0));
            if !process::die_with_parent(process::pid(maker)) {
                process::exit_now(0);
            }
            give_up("a child", become_child(socket))
        }
    }
}

/// Whether a greeting of ours waits on the socket of this number.
fn is_greeted(socket: RawFd) -> bool {
    let waiting = sys::fd::from_number(socket).and_then(|socket| sys::socket::peek(socket).ok());
    waiting.is_some_and(|message| boot_env::is_greeting(&message))
}

/// Whether being executed gave this process rights that its caller, which made the socket of this number, does not have.
///
/// The kernel's own flag is not enough: it is set too where the caller's real and effective ids differ, and nothing is gained.
fn has_more_rights_than_caller(socket: RawFd) -> bool {
    let same_ids =
        || sys::fd::from_number(socket).is_some_and(|socket| sys::socket::maker(socket) == Ok(process::own_ids()));
    sys::env::is_privileged() && (sys::self_exe::grants_rights() || !same_ids())
}

/// Tells the parent, on the socket of this number, why there will be no fork server.
fn tell_why(socket: RawFd, why: GaveUp, errno: Errno) {
    if let Some(socket) = sys::fd::from_number(socket) {
        let _ = sys::socket::send(socket, &to_bytes(&FromServer::GaveUp { why, errno: errno as i32 }), &[]);
    }
}

/// Becomes the member that the fork server has entered.
fn take_over(table: RawFd, member: u32) -> sys::Result<()> {
    proc_table::adopt(sys::fd::inherited(table)?, ProcId::from_bits(member).ok_or(Errno::EPROTO)?)
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

/// Ends a process of ours that cannot do what it was made for.
fn give_up(who: &str, why: Errno) -> ! {
    // The parent was told of a mismatch already; and if it is gone, no process waits for the reason.
    if why != Errno::EXDEV && why != Errno::EPIPE {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "process-task: {who} could not begin to work: {}", why.desc());
    }
    process::exit_now(1)
}
