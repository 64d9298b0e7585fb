//! The fork server: makes every child of one parent, watches them, reaps them, and does nothing else.
//!
//! Owns: the process ids of the living children, which are nobody else's to signal. Runs in: the fork server, a process
//! with one thread, started by re-executing the program. Never: blocks on anything but its one `poll`, and never signals
//! a group whose leader it has reaped.
//!
//! # A child ends
//!
//! `waitid(WNOWAIT)` names it without reaping, so its number, and its group's, still is its own: the group is killed,
//! then the child is reaped, then [`FromServer::Ended`] is sent.
//!
//! # The parent ends
//!
//! Its pidfd is in our poll set (and its socket, whose end-of-file may come late if a stranger inherited it): every
//! group is killed, every child reaped, and we exit. No thread of the parent needs to live for that.
//!
//! # Who lives
//!
//! Every child is entered in the table of members before it is forked, as one of the process that asked for it, and said to
//! have ended when it is reaped; see [`members`].
//!
//! # This process is killed
//!
//! Every child has `PR_SET_PDEATHSIG`, set before anything else and followed by a look at `getppid`, so none stays. They
//! end a little later than we do; the parent waits for each one's own pidfd before it settles its calls.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{boot, panics, serve};
use crate::codec::message::{from_bytes, to_bytes};
use crate::link::StartMethod;
use crate::link::mark::{MARK, Role};
use crate::link::message::{ChildId, FromChild, FromServer, GaveUp, MAGIC, ToServer};
use crate::shared::members::{self, Member};
use crate::sys::process::{self, Forked, Pid};
use crate::sys::socket;
use crate::sys::{self, Errno, fd, image, inherit, poll, signal};
use crate::task::{fingerprint, preloads};

/// How long killed children may take to end before the server no longer waits for them. They take milliseconds.
const LONGEST_END: Duration = Duration::from_secs(1);

struct Server {
    socket: OwnedFd,
    parent: OwnedFd,
    /// The parent, as the table of members knows it.
    asking: Member,
    child_events: OwnedFd,
    children: BTreeMap<Pid, (ChildId, Member)>,
    /// What the socket had no room for.
    outgoing: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    said_not_alone: bool,
}

/// Serves until the parent is gone. Returns only why it could not begin.
pub(super) fn run(socket: OwnedFd) -> Errno {
    let (parent, asking, child_events) = match begin(socket.as_fd()) {
        Ok(begun) => begun,
        Err(errno) => {
            let why = FromServer::GaveUp { why: GaveUp::Step, errno: errno as i32 };
            let _ = socket::send(socket.as_fd(), &to_bytes(&why), &[]);
            return errno;
        }
    };
    let (children, outgoing) = (BTreeMap::new(), VecDeque::new());
    let server = Server { socket, parent, asking, child_events, children, outgoing, said_not_alone: false };
    match server.serve() {
        Next::Child(control) => boot::become_child(control),
        Next::ParentIsGone => process::exit_now(0),
    }
}

/// Why the server stopped serving: it is a fresh child now, or it is no longer needed.
enum Next {
    Child(OwnedFd),
    ParentIsGone,
}

/// Comes as far as to say that it is ready; returns the parent's pidfd, the parent's member, and the events of children.
fn begin(socket: BorrowedFd<'_>) -> Result<(OwnedFd, Member, OwnedFd), Errno> {
    process::set_name("fork-server");
    signal::ignore_terminal();
    let (bytes, fds) = socket::receive(socket)?;
    let Ok(ToServer::Hello { magic: MAGIC, server, parent: asking, .. }) = from_bytes(&bytes) else {
        return Err(Errno::EPROTO);
    };
    let [parent, table] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| Errno::EPROTO)?;
    let member = |bits| Member::of_bits(bits).ok_or(Errno::EPROTO);
    let asking = member(asking)?;
    members::adopt(table, member(server)?)?;
    members::show()?;
    let child_events = signal::child_events()?;
    if let Err(panic) = panics::catch(socket, || preloads().for_each(|preload| preload())) {
        panics::tell_of_preload(socket, &panic);
        process::exit_now(1);
    }
    serve::rehearse();
    // Or every child would print what the preloads left in the buffer.
    let _ = std::io::Write::flush(&mut std::io::stdout());
    let ready = to_bytes(&FromServer::Ready { fingerprint: fingerprint() });
    let own = fd::pidfd(process::own_pid())?;
    socket::send(socket, &ready, &[own.as_fd()])?;
    Ok((parent, asking, child_events))
}

impl Server {
    fn serve(mut self) -> Next {
        loop {
            let watched = [self.socket.as_fd(), self.parent.as_fd(), self.child_events.as_fd()];
            // With something left to send, the socket is tried again soon: the parent reads as fast as it can.
            let soon = Instant::now() + Duration::from_millis(1);
            let deadline = (!self.outgoing.is_empty()).then_some(soon);
            let Ok([request, parent_ended, child_ended]) = poll::readable(watched, deadline) else {
                return self.end();
            };
            if parent_ended {
                return self.end();
            }
            if child_ended {
                signal::drain_child_events(&self.child_events);
                self.reap();
            }
            self.flush();
            if request {
                match socket::receive(self.socket.as_fd()) {
                    Ok((bytes, _)) if bytes.is_empty() => return self.end(),
                    Ok((bytes, fds)) => {
                        if let Some(next) = self.answer(&bytes, fds) {
                            return next;
                        }
                    }
                    Err(Errno::EAGAIN) => {}
                    Err(_) => return self.end(),
                }
            }
        }
    }

    fn answer(&mut self, request: &[u8], fds: Vec<OwnedFd>) -> Option<Next> {
        match from_bytes(request) {
            Ok(ToServer::Start { id, method }) => self.start(id, method, fds.into_iter().next()?),
            Ok(ToServer::Signal { id, signal }) => {
                let leader = self.children.iter().find(|(_, (child, _))| *child == id);
                if let Some((leader, _)) = leader {
                    process::signal_group(*leader, signal);
                }
                None
            }
            Ok(ToServer::Hello { .. }) | Err(_) => None,
        }
    }

    /// Makes a child; in the child, returns what it is to become.
    fn start(&mut self, id: ChildId, method: StartMethod, control: OwnedFd) -> Option<Next> {
        let own = process::own_pid();
        let method = self.safe(method);
        let member = match members::enter(self.asking) {
            Ok(member) => member,
            Err(errno) => {
                self.not_started(id, "enter a process in the table of members", errno);
                return None;
            }
        };
        // The child inherits our deafness to some signals; blocked, one that comes before it hears again is kept for it.
        let mask = signal::block_all();
        let forked = process::fork_single_threaded();
        if !matches!(forked, Ok(Forked::Child)) {
            signal::set_mask(mask);
        }
        match forked {
            Ok(Forked::Child) => {
                members::become_member(member);
                process::lead_group(process::pid(0));
                if !process::die_with_parent(own) {
                    process::exit_now(0);
                }
                // What was the server's is closed when `serve` returns, and by exec.
                match method {
                    StartMethod::ForkServer => Some(Next::Child(control)),
                    StartMethod::Exec => execute(&control, own, member),
                }
            }
            Ok(Forked::Parent(pid)) => {
                process::lead_group(pid);
                self.children.insert(pid, (id, member));
                match fd::pidfd(pid) {
                    Ok(pidfd) => {
                        let started =
                            FromServer::Started { id, pid: pid.as_raw().unsigned_abs(), member: member.bits() };
                        self.send(&started, Some(pidfd));
                    }
                    Err(errno) => {
                        // A child whose end cannot be watched is not handed out.
                        process::signal_group(pid, signal::KILL);
                        self.not_started(id, "open a pidfd", errno);
                    }
                }
                None
            }
            Err(errno) => {
                members::end(member, false);
                self.not_started(id, "fork", errno);
                None
            }
        }
    }

    /// Forking is safe from a single thread only; with more, a lock that another one holds stays locked in the child.
    fn safe(&mut self, method: StartMethod) -> StartMethod {
        let threads = process::thread_count();
        if threads <= 1 || method == StartMethod::Exec {
            return method;
        }
        if !std::mem::replace(&mut self.said_not_alone, true) {
            self.send(&FromServer::NotAlone { threads }, None);
        }
        StartMethod::Exec
    }

    fn not_started(&mut self, id: ChildId, step: &str, errno: Errno) {
        let step = format!("{step} in the fork server");
        self.send(&FromServer::NotStarted { id, step, errno: errno as i32 }, None);
    }

    fn reap(&mut self) {
        while let Some(pid) = process::ended_child() {
            process::signal_group(pid, signal::KILL);
            let status = process::reap(pid);
            if let Some((id, member)) = self.children.remove(&pid) {
                members::end(member, status != 0);
                self.send(&FromServer::Ended { id, status }, None);
            }
        }
    }

    fn send(&mut self, message: &FromServer, beside: Option<OwnedFd>) {
        self.outgoing.push_back((to_bytes(message), beside));
        self.flush();
    }

    fn flush(&mut self) {
        while let Some((bytes, beside)) = self.outgoing.front() {
            let descriptors: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
            match socket::send(self.socket.as_fd(), bytes, &descriptors) {
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS) => return,
                // Sent; or the parent is gone, which the next poll will tell.
                _ => drop(self.outgoing.pop_front()),
            }
        }
    }

    /// Kills every child, and stays until each has been said to have ended, but not for ever.
    fn end(mut self) -> Next {
        self.children.keys().for_each(|leader| process::signal_group(*leader, signal::KILL));
        let deadline = Instant::now() + LONGEST_END;
        loop {
            signal::drain_child_events(&self.child_events);
            self.reap();
            if self.children.is_empty() || poll::readable([self.child_events.as_fd()], Some(deadline)) != Ok([true]) {
                break;
            }
        }
        // If nobody of ours made the parent, this look says in the table that it has ended.
        let _ = members::lives(self.asking);
        members::end(members::own(), false);
        Next::ParentIsGone
    }
}

/// Runs the program's image again, as a child that will find its mark. Ends the process if that fails.
///
/// Runs in: a new child, a copy of the fork server.
fn execute(control: &OwnedFd, maker: Pid, member: Member) -> ! {
    sys::signal::restore_dispositions();
    sys::signal::set_mask(0);
    let leave_open = || {
        let table = members::descriptor()?;
        inherit::close_all_on_exec();
        fd::leave_open_on_exec(table)?;
        fd::leave_open_on_exec(control.as_fd())?;
        Ok((image::kept_or_opened()?, table.as_raw_fd()))
    };
    let errno = leave_open().map_or_else(
        |errno| errno,
        |(image, table)| {
            let role = Role::Child { maker: maker.as_raw(), table, member: member.bits() };
            let env = process::own_env_with((MARK, &role.mark(control.as_raw_fd())));
            process::exec_image(image.as_fd(), &process::own_args(), &env)
        },
    );
    let excuse = to_bytes(&FromChild::NotExecuted { errno: errno as i32 });
    let _ = socket::send(control.as_fd(), &excuse, &[]);
    process::exit_now(127)
}
