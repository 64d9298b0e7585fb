//! The parent's end of one fork server: starts it, and talks to it without blocking.
//!
//! Runs in: the parent.
//! Invariant: no send blocks. With 256 exits coming in and 256 requests going out, two blocking ends would wait for each other.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use super::attributes::BaseAttributes;
use crate::codec::message::{from_bytes, to_bytes};
use crate::error::{Error, ErrorKind, Execution, Result};
use crate::link::boot_env::{BOOT_ENV, BootEnv, BootRole};
use crate::link::message::{FromServer, GaveUp, MAGIC, ToServer};
use crate::reactor::{Reactor, Token};
use crate::shared::proc_table::{self, ProcId};
use crate::sys::held::HeldFd;
use crate::sys::identity;
use crate::sys::mutex::MutexExt as _;
use crate::sys::poll::Trigger;
use crate::sys::rights::{self, Rights};
use crate::sys::socket;
use crate::sys::{self, Errno, fd, init, poll, process, self_exe, signal, spawn, terminal};
use crate::task::fingerprint;

/// How long a fork server may take until it is ready, and a child until it is there.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a program with more rights than its caller starts no processes.
const MORE_RIGHTS: &str = "start a copy of this program: its file has capabilities or a set-user-ID or set-group-ID bit, so \
    this user's copy of it gets more rights by being executed, and then refuses to become a fork server; give the rights \
    to the process instead (ambient capabilities, as by `setpriv --ambient-caps` or systemd's AmbientCapabilities=)";

/// How long a process that has closed its socket, or was killed, may take to end. It takes milliseconds.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// One fork server.
#[derive(Debug)]
pub(crate) struct ForkServer {
    /// Which one this is; a dead one is followed by another.
    pub(super) epoch: u64,
    pub(super) base: BaseAttributes,
    pub(super) member: ProcId,
    socket: HeldFd,
    /// What tells the socket from another file that has got its number.
    identity: Option<fd::FileId>,
    pidfd: HeldFd,
    /// The rights of the thread that started it, which it has, and all that it makes.
    pub(super) rights: Arc<Rights>,
    dismissed: AtomicBool,
    /// How many threads are about to ask it for a child; see [`super::servers::ServerLease`].
    pub(super) claims: AtomicUsize,
    outgoing: Mutex<SendQueue>,
    watch: OnceLock<ServerWatch>,
}

/// What could not be sent yet.
#[derive(Debug, Default)]
struct SendQueue {
    messages: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// Whether the reactor is to report that the socket is writable.
    awaits_room: bool,
}

/// The reactor that watches the socket and the pidfd, and under which tokens.
#[derive(Debug)]
struct ServerWatch {
    reactor: Arc<Reactor>,
    socket: Token,
    pidfd: Token,
}

impl ForkServer {
    /// Starts a fork server and waits until it is ready. `rights` are those of this thread.
    pub(super) fn start(epoch: u64, rights: Arc<Rights>) -> Result<Self> {
        // A process of ours that came as far as here without being taken over would start processes without end.
        if std::env::var_os(BOOT_ENV).is_some() {
            return Err(Error::could_not_start(
                format!(
                    "{BOOT_ENV} is set, so this process was made to run tasks, and is not ready: a constructor that runs before \
                     ours, or what it initialises, may not start processes or pools"
                ),
                Errno::ELOOP,
            ));
        }
        if let Some(file) = self_exe::other_file() {
            return Err(Error::could_not_start(
                format!(
                    "execute this program again: this code is in {file}, which is not the file that would run; tasks work in \
                     executables only, not in a shared library of a host program, nor where the program was given to the \
                     dynamic loader as an argument"
                ),
                Errno::ENOEXEC,
            ));
        }
        let at = |step: &'static str| move |errno: Errno| Error::could_not_start(step, errno);
        let table = proc_table::descriptor().map_err(at("make the process table"))?;
        let member =
            proc_table::register(proc_table::current()).map_err(at("register the fork server in the process table"))?;
        Self::start_as(member, epoch, table, rights).inspect_err(|_| proc_table::report_exit(member, true))
    }

    fn start_as(member: ProcId, epoch: u64, table: BorrowedFd<'_>, rights: Arc<Rights>) -> Result<Self> {
        let at = |step: &'static str| move |errno: Errno| Error::could_not_start(step, errno);
        let (socket, theirs) = socket::pair().map_err(at("make a socket pair"))?;
        let own = fd::pidfd(process::own_pid()).map_err(at("open a pidfd"))?;
        let parent = proc_table::current().bits();
        let null = fd::dev_null().map_err(at("open /dev/null"))?;
        let base = BaseAttributes::now(null.as_fd(), rights.umask());
        let (stay, capabilities) = (base.stays(), rights::capabilities());
        let (magic, fingerprint, server) = (MAGIC, fingerprint(), member.bits());
        let hello = ToServer::Hello { magic, fingerprint, server, parent, capabilities, stay };
        socket::send(socket.as_fd(), &to_bytes(&hello), &[own.as_fd(), table]).map_err(at("greet the fork server"))?;
        let unconfirmed = execute(theirs.as_fd(), null.as_fd(), base.env())?;
        drop(theirs);
        let deadline = Some(Instant::now() + START_TIMEOUT);
        match poll::readable([socket.as_fd()], deadline) {
            Ok([true]) => {}
            Ok([false]) => return Err(at("wait for the fork server")(Errno::ETIMEDOUT)),
            Err(errno) => return Err(at("wait for the fork server")(errno)),
        }
        let (bytes, fds) = socket::receive_last(socket.as_fd()).or_else(|errno| match errno {
            Errno::ECONNRESET | Errno::EPIPE => Ok((Vec::new(), Vec::new())),
            _ => Err(at("hear from the fork server")(errno)),
        })?;
        let theirs = match from_bytes(&bytes) {
            Ok(FromServer::Ready { fingerprint }) => fingerprint,
            Ok(FromServer::GaveUp { why: GaveUp::MoreRights, errno }) => {
                return Err(Error::could_not_start(MORE_RIGHTS, Errno::from_raw(errno)));
            }
            Ok(FromServer::GaveUp { why: GaveUp::Step, errno }) => {
                return Err(at("prepare the fork server")(Errno::from_raw(errno)));
            }
            Ok(FromServer::PreloadPanicked { text }) => {
                let step = format!("run the program's preloads in its fork server, where one {text}");
                let kind = ErrorKind::CouldNotStart { step, errno: 0 };
                return Err(Error::new(kind, Execution::NotStarted));
            }
            _ => return Err(unconfirmed.ended_early()),
        };
        if theirs != fingerprint && !process::has_main_started() {
            return Err(Error::before_main());
        }
        if theirs != fingerprint {
            return Err(Error::new(ErrorKind::BinaryMismatch, Execution::NotStarted));
        }
        let pidfd = fds.into_iter().next().ok_or_else(|| at("receive the fork server's pidfd")(Errno::EPROTO))?;
        unconfirmed.confirm();
        let (dismissed, claims, outgoing) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::default());
        let watch = OnceLock::new();
        let (identity, socket, pidfd) = (fd::file_id(socket.as_fd()), socket.into(), pidfd.into());
        Ok(Self { epoch, base, member, socket, identity, pidfd, rights, dismissed, claims, outgoing, watch })
    }

    /// Has `reactor` report to the handlers of these tokens what the socket says, and that the server is dead.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`. The handlers are removed then.
    pub(super) fn watch(&self, reactor: &Arc<Reactor>, (socket, pidfd): (Token, Token)) -> sys::Result<()> {
        let _ = self.watch.set(ServerWatch { reactor: Arc::clone(reactor), socket, pidfd });
        let pidfd = reactor.register(self.pidfd(), pidfd, Trigger::Level);
        pidfd.and_then(|()| reactor.register(self.socket(), socket, Trigger::Level)).inspect_err(|_| self.unwatch())
    }

    /// The server is dead, and not to be reported any more.
    pub(super) fn unwatch(&self) {
        if let Some(ServerWatch { reactor, socket, pidfd }) = self.watch.get() {
            reactor.deregister(self.pidfd());
            reactor.deregister(self.socket());
            reactor.remove_handler(*pidfd);
            reactor.remove_handler(*socket);
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// What a new child's surroundings are.
    pub(crate) fn base(&self) -> &BaseAttributes {
        &self.base
    }

    /// What it and its children may do.
    pub(crate) fn rights(&self) -> &Arc<Rights> {
        &self.rights
    }

    /// Lets the server end; it has no children any more, and is asked for none.
    pub(super) fn dismiss(&self) {
        if !self.dismissed.swap(true, SeqCst) {
            socket::say_no_more(self.socket.as_fd());
        }
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.load(SeqCst)
    }

    /// Sends `message`, now or as soon as there is room; false if the server is gone.
    pub(crate) fn send(&self, message: &ToServer, beside: Vec<OwnedFd>) -> bool {
        // Sending does not block, so holding the lock delays no other thread, and keeps the order.
        let mut outgoing = self.outgoing();
        outgoing.messages.push_back((to_bytes(message), beside));
        let accepted = self.send_queued(&mut outgoing);
        if accepted {
            self.await_room(&mut outgoing);
        }
        accepted
    }

    /// Tries again to send what had no room.
    pub(super) fn flush(&self) {
        let mut outgoing = self.outgoing();
        self.send_queued(&mut outgoing);
        self.await_room(&mut outgoing);
    }

    fn send_queued(&self, outgoing: &mut SendQueue) -> bool {
        if self.socket.is_gone() || fd::file_id(self.socket.as_fd()) != self.identity {
            return false;
        }
        while let Some((bytes, beside)) = outgoing.messages.front() {
            let descriptors: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
            match socket::send(self.socket.as_fd(), bytes, &descriptors) {
                Ok(()) => drop(outgoing.messages.pop_front()),
                Err(Errno::EPIPE | Errno::ECONNRESET) => return false,
                Err(_) => return true,
            }
        }
        true
    }

    /// The reactor reports that the socket is writable as long as something waits for that.
    fn await_room(&self, outgoing: &mut SendQueue) {
        let awaits_room = !outgoing.messages.is_empty();
        // In a copy made by `fork()`, the epoll set is still the original's.
        let Some(watch) = self.watch.get().filter(|watch| watch.reactor.is_of_this_process()) else { return };
        if awaits_room != std::mem::replace(&mut outgoing.awaits_room, awaits_room) {
            watch.reactor.set_writable_interest(self.socket(), watch.socket, awaits_room);
        }
    }

    fn outgoing(&self) -> MutexGuard<'_, SendQueue> {
        self.outgoing.lock_unpoisoned()
    }
}

/// A fork server that has not said that it is ready: if it never does, it is ended and reaped.
struct UnconfirmedServer(Option<OwnedFd>);

impl UnconfirmedServer {
    fn confirm(mut self) {
        drop(self.0.take());
    }
}

impl UnconfirmedServer {
    /// It closed its socket without a word: the error says how it ended.
    fn ended_early(self) -> Error {
        let how = self.0.as_ref().and_then(|pidfd| {
            let _ = poll::readable([pidfd.as_fd()], Some(Instant::now() + EXIT_GRACE));
            process::reap_with_status(pidfd.as_fd())
        });
        let how = how.map_or_else(String::new, |status| format!(" ({status})"));
        let step = format!(
            "wait for the fork server, a copy of this program, which ended before it was ready{how}; the dynamic loader or \
             the program's own constructors may have said why on stderr"
        );
        Error::could_not_start(step, Errno::from_raw(0))
    }
}

impl Drop for UnconfirmedServer {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.0 {
            let _ = fd::signal(pidfd.as_fd(), signal::KILL);
            let _ = poll::readable([pidfd.as_fd()], Some(Instant::now() + EXIT_GRACE));
            process::reap_quietly(pidfd.as_fd());
        }
    }
}

/// Runs this program's image with the mark of a fork server.
fn execute(socket: BorrowedFd<'_>, null: BorrowedFd<'_>, env: &[(OsString, OsString)]) -> Result<UnconfirmedServer> {
    let mark = BootEnv { role: BootRole::Server, place: init::constructor_index(), socket: socket.as_raw_fd() };
    let (args, env) = (process::own_args(), process::env_with(env, (BOOT_ENV, &mark.to_string())));
    // A member of the program's group hears of Ctrl-Z and `fg`. Elsewhere a group of its own is better: it lives on when the
    // program's group is killed, as that of a child is at its end, and kills what the program had started.
    let leads_group = identity::depth() > 0 || !terminal::is_there();
    let mut failed = Errno::ENOENT;
    for path in self_exe::paths() {
        match spawn::spawn_image(&path, (socket, null), leads_group, (&args, &env)) {
            // A host that ignores SIGCHLD may have reaped it already, if it has ended; then there is nothing to watch.
            Ok(pid) => return Ok(UnconfirmedServer(fd::pidfd(pid).ok())),
            Err(errno) => failed = errno,
        }
    }
    let step = if self_exe::is_proc_mounted() {
        "execute this program again"
    } else {
        "execute this program again by way of /proc/self/exe (is /proc mounted, also below the root of a chroot?)"
    };
    Err(Error::could_not_start(step, failed))
}
