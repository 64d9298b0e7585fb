//! Making, replacing, watching and reaping processes.
//!
//! Owns: nothing. Runs in: the fork server and its children.
//! Never: signals a number that may belong to another process by now.
#![expect(unsafe_code, reason = "fork(2), execveat(2), waitid(2), atexit(3) and exit(3)")]

use std::ffi::{CString, OsString};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
pub(crate) use nix::unistd::Pid;
use nix::unistd::{ForkResult, fork, getpid, getppid, setpgid};

use super::retry;

/// In bytes; `lib.rs` refuses other machines.
const PAGE_BYTES: u64 = 4096;

/// What this process became.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one, which now has a child of this id.
    Parent(Pid),
}

/// `fork(2)`, glibc's: a raw `clone` would leave glibc's idea of the thread wrong.
///
/// Runs in: the fork server, which has one thread. With more threads, a lock that another one holds would stay locked in the child for ever.
pub(crate) fn fork_single_threaded() -> nix::Result<Forked> {
    // SAFETY: the caller has one thread, so the child's memory is as consistent as the parent's.
    match unsafe { fork() }? {
        ForkResult::Child => Ok(Forked::Child),
        ForkResult::Parent { child } => Ok(Forked::Parent(child)),
    }
}

/// A process id, or 0 for "this process" where a call allows it.
pub(crate) fn pid(raw: i32) -> Pid {
    Pid::from_raw(raw)
}

/// How many threads this process has, as the kernel counts them: one entry each in a directory, which has two links more.
pub(crate) fn thread_count() -> u64 {
    nix::sys::stat::stat("/proc/self/task").map_or(1, |directory| directory.st_nlink.saturating_sub(2))
}

/// The threads of this process but its first: number and name.
pub(crate) fn other_threads() -> Vec<(u32, String)> {
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten().filter_map(number);
    let name = |number: u32| {
        let name = std::fs::read_to_string(format!("/proc/self/task/{number}/comm")).ok()?;
        Some((number, name.trim_end().to_owned()))
    };
    threads.filter(|number| *number != std::process::id()).filter_map(name).collect()
}

/// `execveat(image, "", args, env, AT_EMPTY_PATH)`: runs the image that `image` is open on, whatever became of its name.
///
/// Returns only if it failed.
pub(crate) fn exec_image(image: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> Errno {
    let flags = nix::fcntl::AtFlags::AT_EMPTY_PATH;
    match nix::unistd::execveat(image, c"", args, env, flags) {
        Err(errno) => errno,
        Ok(never) => match never {},
    }
}

/// The arguments this process was started with, for the next image.
pub(crate) fn own_args() -> Vec<CString> {
    std::env::args_os().filter_map(|arg| CString::new(arg.as_bytes()).ok()).collect()
}

/// An environment, for the next image, with `mark` added.
pub(crate) fn env_with(env: &[(OsString, OsString)], mark: (&str, &str)) -> Vec<CString> {
    let env = env.iter().map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat());
    let mark = [mark.0.as_bytes(), b"=", mark.1.as_bytes()].concat();
    env.chain([mark]).filter_map(|entry| CString::new(entry).ok()).collect()
}

/// Makes `pid` (0: this process) the leader of a group of its own.
///
/// Done on both sides of a fork: whichever comes first, the group is there before it is needed.
pub(crate) fn lead_group(pid: Pid) {
    let _ = setpgid(pid, Pid::from_raw(0));
}

/// Joins the process group of `pid`, a process of this session. Where that cannot be, this one stays in its own.
///
/// Runs in: a child.
pub(crate) fn join_group_of(pid: u32) {
    let group = nix::unistd::getpgid(Some(Pid::from_raw(pid.cast_signed())));
    let _ = group.and_then(|group| setpgid(Pid::from_raw(0), group));
}

/// Whether `pid`, this process or a child of ours that is not reaped, leads a process group.
pub(crate) fn leads_group(pid: Pid) -> bool {
    nix::unistd::getpgid(Some(pid)) == Ok(pid)
}

/// `prctl(PR_SET_PDEATHSIG, SIGCONT)`: a process that is stopped goes on when its parent ends, and can see to its own end.
pub(crate) fn continue_on_parent_death() {
    let _ = prctl::set_pdeathsig(Some(Signal::SIGCONT));
}

/// `getppid(2)`.
pub(crate) fn parent_pid() -> Pid {
    getppid()
}

/// Some of what `/proc/<pid>/stat` says of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) is_stopped: bool,
    pub(crate) parent: Pid,
    pub(crate) group: Pid,
    pub(crate) session: Pid,
}

/// What `/proc` says of `pid`; `None` where that cannot be read.
pub(crate) fn stat(pid: Pid) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold any character.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let is_stopped = fields.next()? == "T";
    let mut next = || fields.next()?.parse().ok().map(Pid::from_raw);
    Some(Stat { is_stopped, parent: next()?, group: next()?, session: next()? })
}

/// Every process that `/proc` lists.
pub(crate) fn all() -> Vec<(Pid, Stat)> {
    let names =
        std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter_map(|name| name.parse().ok().map(Pid::from_raw));
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// Whether `pid` is stopped.
pub(crate) fn is_stopped(pid: Pid) -> bool {
    stat(pid).is_some_and(|stat| stat.is_stopped)
}

/// `prctl(PR_SET_PDEATHSIG, SIGKILL)`, and a look whether it came too late. False: the parent is gone already.
pub(crate) fn die_with_parent(parent: Pid) -> bool {
    let _ = prctl::set_pdeathsig(Some(Signal::SIGKILL));
    getppid() == parent
}

/// `prctl(PR_SET_NAME)`: what `top` and `ps` show, 15 bytes of it.
pub(crate) fn set_name(name: &str) {
    let cut = name.floor_char_boundary(15);
    if let Ok(name) = CString::new(&name[..cut]) {
        let _ = prctl::set_name(&name);
    }
}

/// How a process ended, in the kernel's own encoding (`waitpid`'s status word).
pub(crate) type RawStatus = i32;

/// `waitid(P_ALL, WEXITED | WNOHANG | WNOWAIT)`: a child that has ended and is not reaped yet, if there is one.
///
/// Its number cannot be given to another process before [`reap`].
pub(crate) fn exited_child() -> Option<Pid> {
    Some(waitid_nohang(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)?.pid)
}

/// `waitid(P_ALL, WSTOPPED | WCONTINUED | WNOHANG)`: a child that was stopped, and by which signal, or was continued (`None`),
/// if one has not been told of yet.
pub(crate) fn stopped_child() -> Option<(Pid, Option<i32>)> {
    let ChildChange { pid, code, status } =
        waitid_nohang(libc::P_ALL, 0, libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG)?;
    Some((pid, (code == libc::CLD_STOPPED).then_some(status)))
}

/// What `waitid(2)` says of a child.
struct ChildChange {
    pid: Pid,
    /// `CLD_EXITED`, `CLD_KILLED` and so on.
    code: i32,
    /// The exit code, or the signal: also one that has no name, such as those for real time.
    status: i32,
}

/// `waitid(2)`, which must not wait: nix's own fails for a signal that it has no name for, and so would hide that child, and
/// all that end after it.
fn waitid_nohang(which: libc::idtype_t, id: libc::id_t, flags: i32) -> Option<ChildChange> {
    // SAFETY: all zero is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    retry(|| {
        // SAFETY: `info` is borrowed for the call.
        Errno::result(unsafe { libc::waitid(which, id, &raw mut info, flags) })
    })
    .ok()?;
    // SAFETY: filled in by the kernel for a child, and zero without one.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    (pid != 0).then_some(ChildChange { pid: Pid::from_raw(pid), code: info.si_code, status })
}

/// [`waitid_nohang`], of the child behind `pidfd`.
fn reap_pidfd(pidfd: BorrowedFd<'_>) -> Option<ChildChange> {
    let id = libc::id_t::try_from(pidfd.as_raw_fd()).ok()?;
    waitid_nohang(libc::P_PIDFD, id, libc::WEXITED | libc::WNOHANG)
}

/// Reaps a child that [`exited_child`] named.
pub(crate) fn reap(pid: Pid) -> RawStatus {
    let mut status = 0;
    // SAFETY: `status` is borrowed for the call, and the number is that of a child of ours that is not reaped yet.
    while unsafe { libc::waitpid(pid.as_raw(), &raw mut status, 0) } == -1 && Errno::last() == Errno::EINTR {}
    status
}

/// Reaps our child behind `pidfd`, and says how it ended; `None` if it has not, or if the host program has reaped it.
pub(crate) fn reap_with_status(pidfd: BorrowedFd<'_>) -> Option<std::process::ExitStatus> {
    use std::os::unix::process::ExitStatusExt as _;
    let ChildChange { code, status, .. } = reap_pidfd(pidfd)?;
    Some(std::process::ExitStatus::from_raw(if code == libc::CLD_EXITED { status << 8 } else { status }))
}

/// Reaps our child behind `pidfd`, if that has not been done; the host program may have.
pub(crate) fn reap_quietly(pidfd: BorrowedFd<'_>) {
    let _ = reap_pidfd(pidfd);
}

/// `killpg(2)`. Only the reaper of the group's leader may do this, and only before it reaps. A child that left its group for
/// its parent's gets the signal alone.
pub(crate) fn signal_group(leader: Pid, signal: i32) {
    // SAFETY: takes two numbers and touches no memory. The leader is not reaped, so the number is still its group's.
    if unsafe { libc::kill(-leader.as_raw(), signal) } == -1 && Errno::last() == Errno::ESRCH {
        // SAFETY: as above; the child is not reaped, so the number is still its own.
        let _ = unsafe { libc::kill(leader.as_raw(), signal) };
    }
}

/// `sched_yield(2)`, once: lets the thread that waits for this one run first.
pub(crate) fn yield_now() {
    std::thread::yield_now();
}

/// Whether Rust's `main` has been called. Its runtime gives the first thread a name before; where another language has `main`,
/// or this is another thread, true: it is not known.
pub(crate) fn has_main_started() -> bool {
    own_tid() != own_pid().as_raw() || std::thread::current().name().is_some()
}

/// The number of this thread.
pub(crate) fn own_tid() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// The effective user and group of this process.
pub(crate) fn own_ids() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

/// This process's id.
pub(crate) fn own_pid() -> Pid {
    getpid()
}

/// `atexit(3)`: has `handler` called when this process, or a copy made by `fork()`, returns from `main` or calls `exit`. Once,
/// however often this is called; a process that is killed, or calls `_exit`, does not call it.
pub(crate) fn at_exit(handler: extern "C" fn()) {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Relaxed) {
        // SAFETY: the handler is a function of this program, and takes nothing.
        let _ = unsafe { libc::atexit(handler) };
    }
}

/// Has the kernel kill this process after `limit`, if it has not ended by then; never, if that is beyond the clock's end.
/// A copy made by `fork()` is not killed.
pub(crate) fn kill_self_after(limit: Duration) {
    let kill = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 });
    let Ok(timer) = Timer::new(ClockId::CLOCK_MONOTONIC, kill) else { return };
    // It stays when this returns.
    let mut timer = ManuallyDrop::new(timer);
    // Zero would disarm it.
    let limit = TimeSpec::from_duration(limit.max(Duration::from_nanos(1)));
    let _ = timer.set(Expiration::OneShot(limit), TimerSetTimeFlags::empty());
}

/// `_exit(2)`: ends at once, without handlers or destructors.
///
/// Runs in: a child that never got as far as user code.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// How much address space this process has mapped, in bytes; 0 if the kernel does not say.
pub(crate) fn mapped_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').next().and_then(|pages| pages.parse::<u64>().ok()).map_or(0, |pages| pages * PAGE_BYTES)
}

/// Resident memory of a process that it shares with no other, in bytes, from `/proc/<pid>/statm`.
pub(crate) fn private_memory(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut fields = text.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, shared) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(resident.saturating_sub(shared) * PAGE_BYTES)
}
