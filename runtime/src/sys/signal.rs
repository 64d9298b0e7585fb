//! Signal masks and dispositions.
//!
//! Owns: nothing. Runs in: any process; each function says which. Never: installs a handler but for one that passes
//! a signal on, and one that notes that the process is asked to end; see `crash` for the others.
//!
//! Why children ignore SIGTTOU below a terminal, and not SIGTTIN: with the first ignored, writing and changing the
//! mode work from the background. Programs that tasks start inherit that. With the second ignored, a read would fail
//! with `EIO`. Interactive shells and password prompts try again for ever then, and there would be no stop to see.
//!
//! Why SIGCHLD has a handler in the fork server, which waits for it with a signalfd: a thread that a constructor
//! started blocks nothing, so the kernel may give it the signal. The handler passes it on to the first thread.
//!
//! Why all signals are blocked around a fork: the fork server is deaf to some, and a child inherits that until it has
//! restored the defaults. What comes in between stays pending.
#![expect(unsafe_code, reason = "setting dispositions, and looking into a signal set")]

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::fd::above_stdio;
use super::mutex::MutexExt as _;

/// Signals by number, as they travel.
pub(crate) use nix::libc::{
    SIGABRT as ABRT, SIGCONT as CONT, SIGINT as INT, SIGKILL as KILL, SIGSTOP as STOP, SIGTERM as TERM,
};

/// A signal mask as it travels: bit n - 1 stands for signal n.
pub(crate) type Mask = u64;

/// The signals that this thread blocks.
pub(crate) fn mask() -> Mask {
    let mut set = SigSet::empty();
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, None, Some(&mut set));
    let raw = *set.as_ref();
    (1..=64).filter(|signal| is_member(&raw, *signal)).fold(0, |mask, signal| mask | 1 << (signal - 1))
}

/// Blocks exactly the signals of `mask` in this thread.
pub(crate) fn set_mask(mask: Mask) {
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&set_of(mask)), None);
}

/// The mask of one signal.
const fn of_one(signal: i32) -> Mask {
    1 << (signal - 1)
}

fn set_of(mask: Mask) -> SigSet {
    let mut raw = *SigSet::empty().as_ref();
    for signal in (1..=64).filter(|signal| mask & of_one(*signal) != 0) {
        // SAFETY: `raw` is an initialised set, borrowed for the call, and 1 to 64 are signal numbers.
        unsafe { libc::sigaddset(&raw mut raw, signal) };
    }
    // SAFETY: `raw` is an initialised set.
    unsafe { SigSet::from_sigset_t_unchecked(raw) }
}

/// Blocks every signal in this thread, so that no handler runs on it, and none gets lost. Returns the mask before.
///
/// Runs in: the parent, around starting our thread; the fork server, around a fork.
pub(crate) fn block_all() -> Mask {
    let before = mask();
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
    before
}

/// Blocks every signal but those that tell of a fault: what is sent to the program's whole group is for the program.
///
/// Runs in: the fork server.
pub(crate) fn block_requests() {
    use Signal::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
    let faults = [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP];
    set_mask(faults.into_iter().fold(Mask::MAX, |mask, signal| mask & !of_one(signal as i32)));
}

/// The signals of job control: three with which a terminal stops a process group, and the one that continues it.
pub(crate) const JOB_CONTROL: Mask = of_one(Signal::SIGTSTP as i32)
    | of_one(Signal::SIGTTIN as i32)
    | of_one(Signal::SIGTTOU as i32)
    | of_one(Signal::SIGCONT as i32);

/// Blocks `SIGCHLD` and the signals of job control, and returns a descriptor that is readable while one is pending.
///
/// Runs in: the fork server.
pub(crate) fn events() -> nix::Result<OwnedFd> {
    let set = set_of(JOB_CONTROL | of_one(Signal::SIGCHLD as i32));
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    above_stdio(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?.into())
}

/// Reads away what [`events`] has to say; true if a signal of job control was among it. The children themselves tell the rest.
pub(crate) fn drain_events(events: &OwnedFd) -> bool {
    const INFO: usize = size_of::<libc::signalfd_siginfo>();
    let (mut buffer, mut job_control) = ([0; 8 * INFO], false);
    while let Ok(len @ 1..) = nix::unistd::read(events, &mut buffer) {
        // The first field of an entry is the signal's number, 32 bits wide.
        let mut numbers =
            buffer[..len].chunks(INFO).filter_map(|entry| entry.first_chunk().copied().map(i32::from_ne_bytes));
        job_control |= numbers.any(|number| JOB_CONTROL & of_one(number) != 0);
    }
    job_control
}

/// Whether a terminal sends `signal` to a process that reads from it, or writes to it, in its background.
pub(crate) fn is_of_background(signal: i32) -> bool {
    [Signal::SIGTTIN as i32, Signal::SIGTTOU as i32].contains(&signal)
}

/// The name of a signal, such as `SIGSTOP`.
pub(crate) fn name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

/// Signals that a terminal or an administrator sends to the whole group: the fork server leaves the answer to its parent.
const FOR_THE_PARENT: [Signal; 5] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGPIPE];

/// What constructors and preloads installed for signals that the fork server has other uses for.
static SAVED_ACTIONS: Mutex<Vec<(Signal, SigAction)>> = Mutex::new(Vec::new());

/// Makes this process deaf to [`FOR_THE_PARENT`], and has `SIGCHLD` reach [`events`] whichever thread it comes to. What was
/// installed for these signals is kept for its children. Called again, it does so with what was installed in between.
///
/// Runs in: the fork server.
pub(crate) fn leave_to_parent() {
    let deaf = FOR_THE_PARENT.map(|signal| (signal, plain(SigHandler::SigIgn))).into_iter();
    let ends = SigAction::new(SigHandler::Handler(pass_to_first_thread), SaFlags::SA_RESTART, SigSet::empty());
    let mut saved = SAVED_ACTIONS.lock_unpoisoned();
    for (signal, action) in deaf.chain([(Signal::SIGCHLD, ends)]) {
        let Some(before) = set_action(signal, &action) else { continue };
        let known = saved.iter().any(|(known, _)| *known == signal);
        if !known || number_of(before.handler()) != number_of(action.handler()) {
            saved.retain(|(known, _)| *known != signal);
            saved.push((signal, before));
        }
    }
}

/// A thread that a constructor started blocks nothing, and so the kernel may choose it for a signal that the fork server's thread
/// reads from [`events`]. Sent to that thread alone, it waits there.
extern "C" fn pass_to_first_thread(signal: c_int) {
    let errno = Errno::last();
    let (process, thread) = (nix::unistd::getpid(), nix::unistd::gettid());
    // The first thread has the number of its process. It comes here only before it blocks the signal, when no child is there.
    if thread != process {
        // SAFETY: takes three numbers and touches no memory.
        unsafe { libc::syscall(libc::SYS_tgkill, process.as_raw(), process.as_raw(), signal) };
    }
    errno.set();
}

/// What tells two handlers apart.
fn number_of(handler: SigHandler) -> usize {
    match handler {
        SigHandler::SigDfl => libc::SIG_DFL,
        SigHandler::SigIgn => libc::SIG_IGN,
        SigHandler::Handler(function) => function as usize,
        SigHandler::SigAction(function) => function as usize,
    }
}

/// Makes this process deaf to [`FOR_THE_PARENT`].
///
/// Runs in: a child that was asked for so.
pub(crate) fn ignore_terminal() {
    for signal in FOR_THE_PARENT {
        set_action(signal, &plain(SigHandler::SigIgn));
    }
}

/// Ignores `SIGTTOU`, so that this process and all that it starts can print in the background of a terminal, whatever
/// `stty tostop` says.
///
/// Runs in: the fork server, for all children.
pub(crate) fn ignore_tostop() {
    let before = set_action(Signal::SIGTTOU, &plain(SigHandler::SigIgn));
    if let Some(handler) = before.filter(|before| !matches!(before.handler(), SigHandler::SigDfl)) {
        // A constructor has its own.
        set_action(Signal::SIGTTOU, &handler);
    }
}

/// Every disposition as the program has it when its `main` begins: that of its constructors, and `SIGPIPE` ignored. See
/// [`ignore_tostop`] for `SIGTTOU`.
///
/// Runs in: a child, before user code.
pub(crate) fn restore_dispositions() {
    let saved = std::mem::take(&mut *SAVED_ACTIONS.lock_unpoisoned());
    for (signal, before) in saved {
        set_action(signal, &before);
    }
    set_action(Signal::SIGPIPE, &plain(SigHandler::SigIgn));
}

/// Lets the terminal stop this process when it prints in the background, as it does any program.
///
/// Runs in: a child that shares its parent's process group.
pub(crate) fn restore_tostop() {
    set_action(Signal::SIGTTOU, &plain(SigHandler::SigDfl));
}

fn plain(handler: SigHandler) -> SigAction {
    SigAction::new(handler, SaFlags::empty(), SigSet::empty())
}

/// Returns what was there before.
fn set_action(signal: Signal, action: &SigAction) -> Option<SigAction> {
    // SAFETY: the action runs no code, or it was installed for this signal by the program itself.
    unsafe { sigaction(signal, action) }.ok()
}

/// The eventfd that becomes readable when this process is asked to end; -1 if nothing waits for that.
static END_REQUESTS: AtomicI32 = AtomicI32::new(-1);

/// The process that waits: a copy made by `fork()` has the handler, and nothing that waits.
static WAITING_PROCESS: AtomicI32 = AtomicI32::new(0);

/// Lets an eventfd tell that this process is asked to end, instead of ending it at once. Dropped, everything is as before.
#[derive(Debug)]
pub(crate) struct EndRequests {
    event: OwnedFd,
    before: Vec<(Signal, SigAction)>,
}

impl EndRequests {
    /// Of those signals, the ones for which the program has no handler of its own.
    ///
    /// # Errors
    /// `EBUSY`: another thread waits for them already. There is no descriptor.
    pub(crate) fn of(signals: &[i32]) -> nix::Result<Self> {
        let mut requests = Self { event: super::fd::eventfd()?, before: Vec::new() };
        let claimed = END_REQUESTS.compare_exchange(-1, requests.event.as_raw_fd(), SeqCst, SeqCst);
        if claimed.is_err() {
            return Err(Errno::EBUSY);
        }
        WAITING_PROCESS.store(nix::unistd::getpid().as_raw(), SeqCst);
        let notes = SigAction::new(SigHandler::Handler(note_end_request), SaFlags::SA_RESTART, SigSet::empty());
        for signal in signals.iter().filter_map(|signal| Signal::try_from(*signal).ok()) {
            let Some(before) = set_action(signal, &notes) else { continue };
            if matches!(before.handler(), SigHandler::SigDfl) {
                requests.before.push((signal, before));
            } else {
                set_action(signal, &before);
            }
        }
        Ok(requests)
    }
}

impl AsFd for EndRequests {
    /// Readable once the process was asked to end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Drop for EndRequests {
    fn drop(&mut self) {
        if END_REQUESTS.load(SeqCst) == self.event.as_raw_fd() {
            for (signal, before) in &self.before {
                set_action(*signal, before);
            }
            END_REQUESTS.store(-1, SeqCst);
        }
    }
}

extern "C" fn note_end_request(signal: c_int) {
    let errno = Errno::last();
    if nix::unistd::getpid().as_raw() != WAITING_PROCESS.load(SeqCst) {
        // This is a copy, which shares the eventfd: to write would end the original. The signal, which is blocked until this handler
        // returns, then ends the copy as it ends any program.
        // SAFETY: takes two numbers; both calls may be made in a handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        // SAFETY: takes a number.
        unsafe { libc::raise(signal) };
        errno.set();
        return;
    }
    let one = 1_u64.to_ne_bytes();
    let event = END_REQUESTS.load(SeqCst);
    // SAFETY: `one` is borrowed for the call, which reads eight bytes of it. A number that is closed by now is refused.
    unsafe { libc::write(event, one.as_ptr().cast(), one.len()) };
    errno.set();
}

fn is_member(set: &libc::sigset_t, signal: i32) -> bool {
    // SAFETY: `set` is an initialised set, borrowed for the call.
    (unsafe { libc::sigismember(set, signal) }) == 1
}
