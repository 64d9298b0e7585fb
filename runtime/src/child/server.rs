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
//! group is killed, and we exit. No thread of the parent needs to live for that.
//!
//! # This process is killed
//!
//! Every child has `PR_SET_PDEATHSIG`, set before anything else and followed by a look at `getppid`, so none stays. They
//! end a little later than we do; the parent waits for each one's own pidfd before it settles its calls.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::boot;
use crate::codec::message::{from_bytes, to_bytes};
use crate::link::StartMethod;
use crate::link::mark::{MARK, Role};
use crate::link::message::{ChildId, FromChild, FromServer, MAGIC, ToServer};
use crate::sys::process::{self, Forked, Pid};
use crate::sys::socket;
use crate::sys::{self, Errno, fd, image, poll, signal};
use crate::task::{fingerprint, preloads};

struct Server {
    socket: OwnedFd,
    parent: OwnedFd,
    child_events: OwnedFd,
    children: BTreeMap<Pid, ChildId>,
    /// What the socket had no room for.
    outgoing: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    said_not_alone: bool,
}

/// Serves until the parent is gone. Returns only why it could not begin.
pub(super) fn run(socket: OwnedFd) -> Errno {
    let server = match Server::begin(socket) {
        Ok(server) => server,
        Err(errno) => return errno,
    };
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

impl Server {
    fn begin(socket: OwnedFd) -> Result<Self, Errno> {
        process::set_name("fork-server");
        signal::ignore_terminal();
        let (bytes, fds) = socket::receive(socket.as_fd())?;
        let Ok(ToServer::Hello { magic: MAGIC, .. }) = from_bytes(&bytes) else { return Err(Errno::EPROTO) };
        let [parent] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| Errno::EPROTO)?;
        let child_events = signal::child_events()?;
        preloads().for_each(|preload| preload());
        // Or every child would print what the preloads left in the buffer.
        let _ = std::io::Write::flush(&mut std::io::stdout());
        let ready = to_bytes(&FromServer::Ready { fingerprint: fingerprint() });
        let own = fd::pidfd(process::own_pid())?;
        socket::send(socket.as_fd(), &ready, &[own.as_fd()])?;
        let (children, outgoing) = (BTreeMap::new(), VecDeque::new());
        Ok(Self { socket, parent, child_events, children, outgoing, said_not_alone: false })
    }

    fn serve(mut self) -> Next {
        loop {
            let watched = [self.socket.as_fd(), self.parent.as_fd(), self.child_events.as_fd()];
            // With something left to send, the socket is tried again soon: the parent reads as fast as it can.
            let soon = std::time::Instant::now() + std::time::Duration::from_millis(1);
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
                let leader = self.children.iter().find(|(_, child)| **child == id);
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
        // The child inherits our deafness to some signals; blocked, one that comes before it hears again is kept for it.
        let mask = signal::block_all();
        let forked = process::fork_single_threaded();
        if !matches!(forked, Ok(Forked::Child)) {
            signal::set_mask(mask);
        }
        match forked {
            Ok(Forked::Child) => {
                process::lead_group(process::pid(0));
                if !process::die_with_parent(own) {
                    process::exit_now(0);
                }
                // What was the server's is closed when `serve` returns, and by exec.
                match method {
                    StartMethod::ForkServer => Some(Next::Child(control)),
                    StartMethod::Exec => execute(&control, own),
                }
            }
            Ok(Forked::Parent(pid)) => {
                process::lead_group(pid);
                self.children.insert(pid, id);
                match fd::pidfd(pid) {
                    Ok(pidfd) => self.send(&FromServer::Started { id, pid: pid.as_raw().unsigned_abs() }, Some(pidfd)),
                    Err(errno) => {
                        // A child whose end cannot be watched is not handed out.
                        process::signal_group(pid, signal::KILL);
                        self.not_started(id, "open a pidfd", errno);
                    }
                }
                None
            }
            Err(errno) => {
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
            if let Some(id) = self.children.remove(&pid) {
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

    fn end(self) -> Next {
        self.children.keys().for_each(|leader| process::signal_group(*leader, signal::KILL));
        Next::ParentIsGone
    }
}

/// Runs the program's image again, as a child that will find its mark. Ends the process if that fails.
///
/// Runs in: a new child, a copy of the fork server.
fn execute(control: &OwnedFd, maker: Pid) -> ! {
    sys::signal::restore_dispositions();
    sys::signal::set_mask(0);
    let mark = Role::Child { maker: maker.as_raw() }.mark(control.as_raw_fd());
    let errno = fd::leave_open_on_exec(control.as_fd()).and_then(|()| image::keep()).map_or_else(
        |errno| errno,
        |image| process::exec_image(image, &process::own_args(), &process::own_env_with((MARK, &mark))),
    );
    let excuse = to_bytes(&FromChild::NotExecuted { errno: errno as i32 });
    let _ = socket::send(control.as_fd(), &excuse, &[]);
    process::exit_now(127)
}
