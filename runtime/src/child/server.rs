//! The fork server: makes, watches and reaps every child of one parent, and does nothing else.
//!
//! Runs in: the fork server, a process with one thread, started by executing the program again.
//! Invariant: it blocks in its one `poll` only, and signals no group after its leader was reaped.
//!
//! Why handlers and hooks are installed here, before it forks, and each child goes once through what its first
//! request will need: symbols that are bound at first use, and pages that are touched, cost the first call of a
//! process 15 us. A spare pays that while no thread waits.
//!
//! # A child ends
//!
//! `waitid(WNOWAIT)` names it without reaping, so its number, and its group's, still is its own: the group is killed,
//! then the child is reaped, then [`FromServer::Ended`] is sent.
//!
//! # The parent ends
//!
//! Its pidfd is in our poll set (and its socket, but end-of-file may come late there if a stranger inherited it): every
//! group is killed, every child reaped, and we exit. No thread of the parent needs to live for that.
//!
//! # A child is stopped
//!
//! `waitid` names it, and [`FromServer::Stopped`] is sent. A child in the background of its terminal that reads from it is
//! stopped, too, and nothing would ever continue it: its group is killed, so that its call ends with an error that says why.
//! What stops the program and its children together is in [`job_control`](super::job_control).
//!
//! # Which processes live
//!
//! Every child is entered in the process table before it is forked, as one of the process that asked for it, and said to
//! have ended when it is reaped; see [`proc_table`].
//!
//! # This process is killed
//!
//! Every child has `PR_SET_PDEATHSIG`, set before anything else and followed by a look at `getppid`, so none stays. They
//! end a little later than we do; the parent waits for each one's own pidfd before it settles its calls. What they have started
//! is killed by the kernel, also if the parent is killed in the same moment; see [`sys::hangup`].

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::foreign_threads::ForeignThreads;
use super::job_control::JobControl;
use super::preload::run_preloads;
use super::{boot, serve, setup};
use crate::codec::message::{from_bytes, to_bytes};
use crate::link::StartMethod;
use crate::link::boot_env::{BOOT_ENV, BootEnv, BootRole};
use crate::link::message::{ChildId, FromChild, FromServer, GaveUp, MAGIC, ToServer};
use crate::shared::proc_table::{self, ProcId};
use crate::sys::attributes::Attribute;
use crate::sys::hangup::{ChildEnd, ServerEnd};
use crate::sys::process::{self, Forked, Pid};
use crate::sys::socket;
use crate::sys::{self, Errno, fd, inherit, poll, rights, self_exe, signal, terminal};
use crate::task::fingerprint;

/// How long killed children may take to end before the server no longer waits for them. They take milliseconds.
const MAX_END_TIME: Duration = Duration::from_secs(1);

struct ServerLoop {
    socket: OwnedFd,
    parent: OwnedFd,
    /// The parent, as the process table knows it.
    asking: ProcId,
    /// A signalfd: something happened to a child, or the terminal asks the program to stop.
    events: OwnedFd,
    children: BTreeMap<Pid, (ChildId, ProcId)>,
    /// Makes the kernel kill the groups of the children when this process ends. `None` where it could not be made.
    hangup: Option<ServerEnd>,
    jobs: JobControl,
    /// Children that were stopped, perhaps together with the program, and by which signal.
    untold: Vec<(ChildId, i32)>,
    /// What the socket had no room for.
    outgoing: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    company: ForeignThreads,
}

/// Serves until the parent is gone. Returns only why it could not begin.
pub(super) fn run(socket: OwnedFd) -> Errno {
    let company = ForeignThreads::before_preloads();
    let (parent, asking, events) = match begin(socket.as_fd()) {
        Ok(begun) => begun,
        Err(errno) => {
            let why = FromServer::GaveUp { why: GaveUp::Step, errno: errno as i32 };
            let _ = socket::send(socket.as_fd(), &to_bytes(&why), &[]);
            return errno;
        }
    };
    let server = ServerLoop {
        socket,
        parent,
        asking,
        events,
        children: BTreeMap::new(),
        hangup: ServerEnd::new().ok(),
        jobs: JobControl::of(process::parent_pid()),
        untold: Vec::new(),
        outgoing: VecDeque::new(),
        company,
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

/// Comes as far as to say that it is ready; returns the parent's pidfd, the parent's member, and what tells of signals.
fn begin(socket: BorrowedFd<'_>) -> Result<(OwnedFd, ProcId, OwnedFd), Errno> {
    process::set_name("fork-server");
    signal::leave_to_parent();
    if terminal::is_there() {
        signal::ignore_tostop();
    }
    if !process::leads_group(process::own_pid()) {
        // The program's group was perhaps stopped as a whole, and then the program killed.
        process::continue_on_parent_death();
    }
    let (bytes, fds) = socket::receive(socket)?;
    let Ok(ToServer::Hello { magic: MAGIC, server, parent: asking, capabilities, stay, .. }) = from_bytes(&bytes)
    else {
        return Err(Errno::EPROTO);
    };
    if let Some(capabilities) = capabilities {
        rights::keep_capabilities(capabilities)?;
    }
    // The kernel takes it away where being executed has given anything, which has just been given up, and where there are two ids.
    // What the parent has comes with each child's setup.
    let _ = Attribute::Dumpable(true).set();
    let [parent, table] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| Errno::EPROTO)?;
    let member = |bits| ProcId::from_bits(bits).ok_or(Errno::EPROTO);
    let asking = member(asking)?;
    proc_table::adopt(table, member(server)?)?;
    proc_table::hold_liveness_lock()?;
    let events = signal::events()?;
    if !run_preloads(socket) {
        process::exit_now(1);
    }
    // Preloads may have installed handlers, too.
    signal::leave_to_parent();
    signal::block_requests();
    serve::prefault();
    // Or every child would print what the preloads left in the buffer.
    let _ = std::io::Write::flush(&mut std::io::stdout());
    use_nothing_of_the_parents(stay)?;
    let ready = to_bytes(&FromServer::Ready { fingerprint: fingerprint() });
    let own = fd::pidfd(process::own_pid())?;
    socket::send(socket, &ready, &[own.as_fd()])?;
    Ok((parent, asking, events))
}

/// Lets go of the parent's streams and directory, which it may close, read to the end, or unmount.
///
/// Until here, what preloads print goes to the parent's streams.
fn use_nothing_of_the_parents(stay: bool) -> Result<(), Errno> {
    // The parent has put `/dev/null` there.
    let null = fd::stdio(0);
    fd::replace_stdio(null, 1)?;
    fd::replace_stdio(null, 2)?;
    if stay { Ok(()) } else { fd::change_directory(fd::directory("/".as_ref())?.as_fd()) }
}

impl ServerLoop {
    fn serve(mut self) -> Next {
        loop {
            let Ok([request, parent_ended, event]) = self.wait() else {
                return self.end();
            };
            if parent_ended {
                return self.end();
            }
            if event {
                if signal::drain_events(&self.events) {
                    self.jobs.signalled();
                }
                self.reap();
                self.see_stops();
            }
            self.jobs.look(self.children.keys().copied());
            self.tell_stops();
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

    /// Waits for something to do: a request, the parent's end, a signal.
    fn wait(&self) -> sys::Result<[bool; 3]> {
        let look = self.jobs.next_look();
        if self.jobs.is_stopped() {
            // A program that is stopped reads nothing, and what it has asked for can wait until it goes on.
            let [parent_ended, event] = poll::readable([self.parent.as_fd(), self.events.as_fd()], look)?;
            return Ok([false, parent_ended, event]);
        }
        // With something left to send, the socket is tried again soon: the parent reads as fast as it can.
        let soon = (!self.outgoing.is_empty()).then(|| Instant::now() + Duration::from_millis(1));
        let deadline = soon.into_iter().chain(look).min();
        poll::readable([self.socket.as_fd(), self.parent.as_fd(), self.events.as_fd()], deadline)
    }

    fn answer(&mut self, request: &[u8], fds: Vec<OwnedFd>) -> Option<Next> {
        match from_bytes(request) {
            Ok(ToServer::Start { id, method }) => self.start(id, method, fds),
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
    ///
    /// `descriptors` are its end of a link, and behind it a dress, if the request has one.
    fn start(&mut self, id: ChildId, method: StartMethod, descriptors: Vec<OwnedFd>) -> Option<Next> {
        let mut descriptors = descriptors.into_iter();
        let control = descriptors.next()?;
        let own = process::own_pid();
        let (method, notice) = self.company.safe(method);
        if let Some(notice) = notice {
            self.send(&notice, None);
        }
        let member = match proc_table::register(self.asking) {
            Ok(member) => member,
            Err(errno) => {
                self.not_started(id, "register a process in the process table", errno);
                return None;
            }
        };
        let hangup = self.hangup.as_ref().and_then(|end| end.child_end().ok());
        // The child inherits our deafness to some signals; blocked, one that comes before it hears again is kept for it.
        let mask = signal::block_all();
        let forked = process::fork_single_threaded();
        if !matches!(forked, Ok(Forked::Child)) {
            signal::set_mask(mask);
        }
        match forked {
            Ok(Forked::Child) => {
                proc_table::set_current(member);
                process::lead_group(process::pid(0));
                if !process::die_with_parent(own) {
                    process::exit_now(0);
                }
                let hangup = hangup.and_then(|end| end.arm().ok());
                // What was the server's is closed when `serve` returns, and by exec.
                match method {
                    StartMethod::ForkServer => {
                        hangup.into_iter().for_each(ChildEnd::keep);
                        Some(Next::Child(control))
                    }
                    StartMethod::Exec => execute(&control, descriptors, own, (member, hangup)),
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
                        // A child that cannot be watched is not handed out.
                        process::signal_group(pid, signal::KILL);
                        self.not_started(id, "open a pidfd", errno);
                    }
                }
                None
            }
            Err(errno) => {
                proc_table::report_exit(member, false);
                self.not_started(id, "fork", errno);
                None
            }
        }
    }

    fn not_started(&mut self, id: ChildId, step: &str, errno: Errno) {
        let step = format!("{step} in the fork server");
        self.send(&FromServer::NotStarted { id, step, errno: errno as i32 }, None);
    }

    fn reap(&mut self) {
        while let Some(pid) = process::exited_child() {
            process::signal_group(pid, signal::KILL);
            let status = process::reap(pid);
            if let Some((id, member)) = self.children.remove(&pid) {
                proc_table::report_exit(member, status != 0);
                self.send(&FromServer::Ended { id, status }, None);
            }
        }
    }

    fn see_stops(&mut self) {
        while let Some((pid, stopped_by)) = process::stopped_child() {
            let Some((id, _)) = self.children.get(&pid) else { continue };
            let id = *id;
            match stopped_by {
                Some(_) if self.jobs.has_stopped(pid) => {}
                Some(signal) if signal::is_of_background(signal) && process::leads_group(pid) => {
                    self.send(&FromServer::Stopped { id, signal, for_good: true }, None);
                    process::signal_group(pid, signal::KILL);
                }
                Some(signal) => self.untold.push((id, signal)),
                None => {
                    self.untold.retain(|(untold, _)| *untold != id);
                    self.send(&FromServer::Continued { id }, None);
                }
            }
        }
    }

    /// Tells of children that were stopped, once it is known that they were not stopped with the program.
    fn tell_stops(&mut self) {
        if self.jobs.is_unclear() {
            return;
        }
        let stops = std::mem::take(&mut self.untold);
        if !self.jobs.is_stopped() {
            for (id, signal) in stops {
                self.send(&FromServer::Stopped { id, signal, for_good: false }, None);
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
        let deadline = Instant::now() + MAX_END_TIME;
        loop {
            signal::drain_events(&self.events);
            self.reap();
            if self.children.is_empty() || poll::readable([self.events.as_fd()], Some(deadline)) != Ok([true]) {
                break;
            }
        }
        // If no process of ours made the parent, this look says in the table that it has ended.
        let _ = proc_table::is_alive(self.asking);
        proc_table::report_exit(proc_table::current(), false);
        Next::ParentIsGone
    }
}

/// Runs the program's image again, as a child that will find its mark, with the dress that came with the request. Ends the
/// process if that fails.
///
/// Runs in: a new child, a copy of the fork server.
fn execute(
    control: &OwnedFd,
    dress: impl Iterator<Item = OwnedFd>,
    maker: Pid,
    (member, hangup): (ProcId, Option<ChildEnd>),
) -> ! {
    sys::signal::restore_dispositions();
    sys::signal::set_mask(0);
    let prepared = setup::dress(dress).and_then(|env| {
        let leave_open = || {
            let table = proc_table::descriptor()?;
            inherit::close_all_on_exec();
            fd::leave_open_on_exec(table)?;
            fd::leave_open_on_exec(control.as_fd())?;
            hangup.as_ref().map_or(Ok(()), |end| fd::leave_open_on_exec(end.as_fd()))?;
            Ok((self_exe::get_or_open()?, table.as_raw_fd(), env))
        };
        leave_open().map_err(|errno| setup::refusal("execute this program again", errno))
    });
    let refusal = prepared.map_or_else(
        |refusal| refusal,
        |(image, table, env)| {
            let hangup = hangup.as_ref().map(|end| end.as_fd().as_raw_fd());
            let role = BootRole::Child { maker: maker.as_raw(), table, member: member.bits(), hangup };
            let mark = BootEnv { role, place: sys::init::constructor_index(), socket: control.as_raw_fd() };
            let env = process::env_with(&env, (BOOT_ENV, &mark.to_string()));
            let errno = process::exec_image(image.as_fd(), &process::own_args(), &env);
            setup::refusal("execute this program again", errno)
        },
    );
    let excuse = to_bytes(&FromChild::NotExecuted { step: refusal.step, errno: refusal.errno });
    let _ = socket::send(control.as_fd(), &excuse, &[]);
    process::exit_now(127)
}
